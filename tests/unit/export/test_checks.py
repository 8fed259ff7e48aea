"""An export is looked at in its files: whole, finite, really quantised, of the right size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support_checkpoints import Numbers, write_base

from palmswift.export.checks import check_model, expected_bytes, stored_as, told_bits
from palmswift.export.quantise import wanted

LAYER = "model.layers.0.mlp.up_proj"
SIDE = 256
NUMBERS = SIDE * SIDE
AWQ = wanted("awq", None)


def plain(folder: Path, value: float = 0.5) -> Path:
    """A model with one linear layer and its embedding in 16 bit."""
    return write_base(
        folder,
        {
            "model.embed_tokens.weight": Numbers("BF16", [value] * 512, (2, 256)),
            f"{LAYER}.weight": Numbers("BF16", [value] * NUMBERS, (SIDE, SIDE)),
        },
    )


def compressed(bits: int) -> dict[str, Any]:
    """What llm-compressor writes into config.json."""
    weights = {"num_bits": bits, "type": "int", "group_size": 128}
    return {
        "quant_method": "compressed-tensors",
        "config_groups": {"group_0": {"weights": weights}},
    }


def quantised(folder: Path, *, packed: int = NUMBERS // 2, bits: int = 4) -> Path:
    """The same model with the layer in `packed` bytes, and what config.json says of it."""
    write_base(
        folder,
        {
            "model.embed_tokens.weight": Numbers("BF16", [0.5] * 512, (2, 256)),
            f"{LAYER}.weight_packed": Numbers("U8", [7] * packed),
            f"{LAYER}.weight_scale": Numbers("BF16", [0.1] * 512),
        },
    )
    config = {"model_type": "qwen3", "quantization_config": compressed(bits)}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def faults(folder: Path, source: Path | None = None, asked: Any = None) -> dict[str, str]:
    """The checks that failed, with what they say."""
    return {c.name: c.detail for c in check_model(folder, source, asked) if not c.passed}


def test_a_quantised_model_that_is_what_was_asked_for_passes(tmp_path: Path) -> None:
    assert faults(quantised(tmp_path / "q"), plain(tmp_path / "m"), AWQ) == {}


def test_a_quantisation_that_was_skipped_in_silence_is_caught(tmp_path: Path) -> None:
    source = plain(tmp_path / "m")
    skipped = plain(tmp_path / "q")
    config = {"model_type": "qwen3", "quantization_config": compressed(4)}
    (skipped / "config.json").write_text(json.dumps(config))  # which says that it was done
    found = faults(skipped, source, AWQ)
    assert f"1 of 1 linear layers are not quantised: {LAYER}" in found["quantised"]
    assert "size" in found


def test_other_bits_than_were_asked_for_are_caught(tmp_path: Path) -> None:
    found = faults(quantised(tmp_path / "q", bits=8), plain(tmp_path / "m"), AWQ)
    assert found["quantised"] == "config.json says 8 bits, and 4 were asked for"


def test_a_model_of_the_wrong_size_is_caught(tmp_path: Path) -> None:
    found = faults(quantised(tmp_path / "q", packed=5 * NUMBERS), plain(tmp_path / "m"), AWQ)
    assert "MB are to be expected" in found["size"]


def test_numbers_that_are_not_finite_are_named(tmp_path: Path) -> None:
    folder = plain(tmp_path, value=float("inf"))
    assert faults(folder)["finite"].startswith("NaN or infinite: model.embed_tokens.weight")


def test_a_folder_that_is_not_whole_is_not_looked_at_further(tmp_path: Path) -> None:
    folder = plain(tmp_path)
    with (folder / "model.safetensors").open("r+b") as stream:
        stream.truncate(1000)
    assert "is cut off" in faults(folder)["whole"]


@pytest.mark.parametrize(
    ("config", "bits"),
    [
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, 4),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, 8),
        (compressed(8), 8),
        ({}, None),
    ],
)
def test_bits_are_read_from_what_each_library_writes(config: dict[str, Any], bits: int) -> None:
    assert told_bits(config) == bits


def test_the_type_of_most_numbers_is_told(tmp_path: Path) -> None:
    assert stored_as(plain(tmp_path)) == "bfloat16"


def test_less_is_expected_of_fewer_bits(tmp_path: Path) -> None:
    source = plain(tmp_path)
    assert expected_bytes(source, AWQ) < expected_bytes(source, wanted("gptq", 8))
