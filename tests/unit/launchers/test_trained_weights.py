"""Weights that were not trained, or are no numbers any more, are told from trained ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from support_checkpoints import Numbers, adapter, write_adapter, write_base, write_model

from palmswift.launchers.trained_weights import check_weights

HEAD = "base_model.model.lm_head.weight"


def _f32(*values: float) -> Numbers:
    return Numbers("F32", values)


def test_an_adapter_is_trained_when_a_b_matrix_is_not_zero(tmp_path: Path) -> None:
    assert check_weights(write_adapter(tmp_path, 1, adapter(0.25)), None).changed is True
    assert check_weights(write_adapter(tmp_path, 2, adapter(0.0)), None).changed is False


def test_an_adapter_that_begins_elsewhere_than_at_zero_is_not_judged_by_it(tmp_path: Path) -> None:
    config = {"init_lora_weights": "pissa_niter_4"}
    folder = write_adapter(tmp_path, 1, adapter(0.0), config=config)
    assert check_weights(folder, None).changed is None


def test_the_magnitudes_of_dora_must_be_finite_too(tmp_path: Path) -> None:
    magnitude = "base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector"
    tensors = {**adapter(), magnitude: _f32(1.0, float("nan"))}
    assert check_weights(write_adapter(tmp_path, 1, tensors), None).not_finite == (magnitude,)


@pytest.mark.parametrize(("trained", "changed"), [(_f32(1, 2), False), (_f32(1, 3), True)])
def test_modules_that_an_adapter_saves_whole_are_held_against_the_base(
    tmp_path: Path, trained: Numbers, changed: bool
) -> None:
    base = write_base(tmp_path / "base", {"lm_head.weight": Numbers("BF16", [1, 2])})
    folder = write_adapter(tmp_path, 1, {**adapter(0.0), HEAD: trained})
    assert check_weights(folder, base).changed is changed
    assert check_weights(folder, None).changed is None


@pytest.mark.parametrize(
    ("base", "changed"),
    [
        ({"a": Numbers("BF16", [0.1, 0.2]), "b": _f32(3)}, False),
        ({"a": Numbers("BF16", [0.1, 0.3]), "b": _f32(3)}, True),
        ({"other": _f32(1)}, None),
    ],
)
def test_whole_weights_are_held_against_the_base_s(
    tmp_path: Path, base: Mapping[str, Numbers], changed: bool | None
) -> None:
    folder = write_model(tmp_path, 1, {"a": _f32(0.1, 0.2), "b": _f32(3)})
    assert check_weights(folder, write_base(tmp_path / "base", base)).changed is changed


def test_a_base_of_a_hub_leaves_it_open_whether_whole_weights_changed(tmp_path: Path) -> None:
    assert check_weights(write_model(tmp_path, 1, {"a": _f32(1)}), None).changed is None


def test_every_shard_is_looked_at(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", {"a": _f32(1), "b": _f32(2)})
    folder = write_model(tmp_path, 1, {"a": _f32(1)})
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    second = write_model(tmp_path, 2, {"b": _f32(float("inf"))}) / "model.safetensors"
    second.rename(folder / "model-00002-of-00002.safetensors")
    names = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    weights = check_weights(folder, base)
    assert (weights.tensors, weights.not_finite, weights.changed) == (2, ("b",), True)
