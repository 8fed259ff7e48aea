"""Safetensors files are read without torch, by slices, and a torn one is known."""

from __future__ import annotations

import math
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_checkpoints import Numbers, write_tensors

from palmswift.launchers.tensor_file import (
    TornFile,
    all_finite,
    all_zero,
    differs,
    read_header,
)

NAN, INFINITE = float("nan"), float("inf")
REAL = ["F64", "F32", "F16", "BF16"]


def _file(folder: Path, name: str = "t.safetensors", **tensors: Numbers) -> Path:
    return write_tensors(folder / name, tensors)


def test_a_header_tells_types_shapes_and_places(tmp_path: Path) -> None:
    file = _file(tmp_path, a=Numbers("F32", [1, 2, 3, 4], (2, 2)), b=Numbers("U8", [7]))
    tensors = read_header(file)
    assert {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()} == {
        "a": ("F32", (2, 2)),
        "b": ("U8", (1,)),
    }
    assert tensors["b"].stop == file.stat().st_size


def test_any_cut_is_known_for_a_torn_file(tmp_path: Path) -> None:
    file = _file(tmp_path, a=Numbers("F32", [1, 2, 3]), b=Numbers("BF16", [1, 2]))
    whole = file.read_bytes()
    for size in range(len(whole)):
        file.write_bytes(whole[:size])
        with pytest.raises(TornFile):
            read_header(file)


@given(data=st.binary(max_size=200))
def test_any_bytes_are_a_header_or_a_torn_file(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    file = tmp_path_factory.getbasetemp() / "any.safetensors"
    file.write_bytes(data)
    try:
        read_header(file)
    except TornFile as error:
        assert "any.safetensors" in str(error)


def test_a_tensor_of_another_size_than_its_shape_is_damage(tmp_path: Path) -> None:
    file = _file(tmp_path, a=Numbers("F32", [1, 2]))
    file.write_bytes(file.read_bytes().replace(b'"shape": [2]', b'"shape": [3]'))
    with pytest.raises(TornFile, match="another size"):
        read_header(file)


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("bad", [NAN, INFINITE, -INFINITE])
def test_one_number_that_is_not_finite_is_found(tmp_path: Path, dtype: str, bad: float) -> None:
    file = _file(tmp_path, good=Numbers(dtype, [1, -2, 0]), bad=Numbers(dtype, [1, bad, 0]))
    tensors = read_header(file)
    assert all_finite(file, tensors["good"])
    assert not all_finite(file, tensors["bad"])


@pytest.mark.parametrize(
    ("dtype", "finite", "not_finite"),
    [("F8_E4M3", [0x7E, 0xFE, 0x00], 0x7F), ("F8_E5M2", [0x7B, 0xFB, 0x00], 0x7C)],
)
def test_eight_bit_numbers_are_judged_by_their_own_rules(
    tmp_path: Path, dtype: str, finite: list[float], not_finite: int
) -> None:
    file = _file(tmp_path, good=Numbers(dtype, finite), bad=Numbers(dtype, [not_finite]))
    tensors = read_header(file)
    assert all_finite(file, tensors["good"])
    assert not all_finite(file, tensors["bad"])


def test_whole_numbers_are_always_finite(tmp_path: Path) -> None:
    file = _file(tmp_path, a=Numbers("U8", [255] * 4))  # NF4's packed weights
    assert all_finite(file, read_header(file)["a"])


@pytest.mark.parametrize("dtype", [*REAL, "U8"])
def test_zero_is_zero_of_either_sign(tmp_path: Path, dtype: str) -> None:
    file = _file(tmp_path, zero=Numbers(dtype, [0.0, -0.0]), one=Numbers(dtype, [0.0, 1.0]))
    tensors = read_header(file)
    assert all_zero(file, tensors["zero"])
    assert not all_zero(file, tensors["one"])


@given(
    one=st.lists(st.floats(-100, 100, width=16), min_size=1, max_size=9),
    at=st.integers(0, 8),
    types=st.tuples(st.sampled_from(["F32", "F64", "F16"]), st.sampled_from(["F32", "BF16"])),
)
def test_numbers_that_were_only_rounded_do_not_differ_and_changed_ones_do(
    tmp_path_factory: pytest.TempPathFactory,
    one: list[float],
    at: int,
    types: tuple[str, str],
) -> None:
    folder = tmp_path_factory.getbasetemp()
    changed = list(one)
    changed[at % len(one)] += 1.0 + 0.1 * abs(changed[at % len(one)])
    first = _file(folder, "one.safetensors", a=Numbers(types[0], one))
    same = _file(folder, "two.safetensors", a=Numbers(types[1], one))
    other = _file(folder, "three.safetensors", a=Numbers(types[1], changed))
    tensor = read_header(first)["a"]
    assert not differs(first, tensor, same, read_header(same)["a"])
    assert differs(first, tensor, other, read_header(other)["a"])


def test_other_shapes_differ(tmp_path: Path) -> None:
    file = _file(tmp_path, a=Numbers("F32", [1, 1], (2, 1)), b=Numbers("F32", [1, 1], (1, 2)))
    tensors = read_header(file)
    assert differs(file, tensors["a"], file, tensors["b"])


def test_a_large_tensor_takes_a_few_mebibytes(tmp_path: Path) -> None:
    number = 8 << 20
    file = tmp_path / "large.safetensors"
    header = b'{"a":{"dtype":"F32","shape":[%d],"data_offsets":[0,%d]}}' % (number, 4 * number)
    with file.open("wb") as stream:
        stream.write(len(header).to_bytes(8, "little") + header)
        stream.truncate(8 + len(header) + 4 * number)  # 32 MiB of zeros
    tensor = read_header(file)["a"]
    all_finite(file, tensor)  # numpy's import is not counted
    tracemalloc.start()
    assert all_finite(file, tensor)
    assert all_zero(file, tensor)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert math.prod(tensor.shape) == number
    assert peak < 16 << 20
