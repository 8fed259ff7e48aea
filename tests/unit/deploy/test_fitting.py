"""What is started on a card is what the planner says fits it, as it is free at the moment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support_deploy import adapter_folder
from support_runs import make_recipe

from palmswift.deploy.fitting import fitted, planned
from palmswift.deploy.spec import ServerSpec
from palmswift.errors import InputError
from palmswift.plan.shapes import QWEN3
from palmswift.setup.gpus import ask_gpus


@pytest.fixture(autouse=True)
def _no_choice_of_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def _cards(folder: Path, monkeypatch: pytest.MonkeyPatch, *free_and_used: tuple[int, int]) -> None:
    """An nvidia-smi with RTX 4060 cards, free and used in MiB."""
    lines = [f"NVIDIA GeForce RTX 4060, 595.71, 8188, {f}, 8.9, {u}" for f, u in free_and_used]
    program = folder / "bin" / "nvidia-smi"
    program.parent.mkdir()
    text = "\\n".join(lines)
    program.write_text(f"#!/bin/sh\nprintf '{text}\\n'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")


def _model(folder: Path, size: str = "8B", **more: Any) -> Path:
    """A folder with the config.json of a Qwen3."""
    shape = QWEN3[size]
    config = {
        "model_type": "qwen3",
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.query_heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "intermediate_size": shape.intermediate,
        "vocab_size": shape.vocab,
        "tie_word_embeddings": shape.tied,
        **more,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def _spec(model: Path, **changes: Any) -> ServerSpec:
    four_bit = {"quant_method": "bnb", "quant_bits": 4, "torch_dtype": "bfloat16"}
    values = {"name": "tuned", "model": str(model), "swift": four_bit}
    return ServerSpec.model_validate({**values, **changes})


def test_the_server_gets_the_plan_for_what_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _cards(tmp_path, monkeypatch, (7600, 203))
    told: list[str] = []
    spec = _spec(_model(tmp_path / "m"), adapter=adapter_folder(tmp_path / "a", rank=16))
    swift = fitted(spec, None, note=told.append).swift
    assert swift["quant_method"] == "bnb"
    requests, longest = swift["max_batch_size"], swift["max_model_len"]
    assert isinstance(requests, int) and isinstance(longest, int)
    assert requests >= 1 and longest >= 2048
    (line,) = told
    assert f"{requests} request" in line and "7,600 MiB free" in line and "predicted" in line
    vllm = fitted(spec.model_copy(update={"server": "vllm"}), None).swift
    fraction = vllm["vllm_gpu_memory_utilization"]
    assert isinstance(fraction, float)
    assert 0.9 < fraction <= (7600 - 180) / (7600 + 203)
    assert isinstance(vllm["vllm_max_model_len"], int) and vllm["vllm_max_num_seqs"]


def test_what_is_asked_for_by_name_stays_and_the_rest_is_planned_around_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _cards(tmp_path, monkeypatch, (7600, 203))
    swift = {"quant_method": "bnb", "quant_bits": 4, "max_batch_size": 1}
    spec = _spec(_model(tmp_path / "m"), swift=swift)
    alone = fitted(spec, None, asked=["max_batch_size"]).swift
    assert alone["max_batch_size"] == 1
    several = fitted(_spec(_model(tmp_path / "m")), make_recipe(), asked=[]).swift
    assert isinstance(alone["max_model_len"], int) and isinstance(several["max_model_len"], int)
    assert alone["max_model_len"] > several["max_model_len"]


def test_a_shorter_context_is_served_where_the_trained_one_does_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _cards(tmp_path, monkeypatch, (6900, 900))
    told: list[str] = []
    recipe = make_recipe(swift={"max_length": 30000})
    swift = fitted(_spec(_model(tmp_path / "m")), recipe, note=told.append).swift
    assert swift["max_batch_size"] == 1
    assert isinstance(swift["max_model_len"], int) and swift["max_model_len"] < 30000
    assert "(trained for 30,256)" in told[0]


def test_what_cannot_fit_is_refused_before_the_start_unless_its_memory_is_asked_for_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _cards(tmp_path, monkeypatch, (7600, 203))
    spec = _spec(_model(tmp_path / "m"), swift={"torch_dtype": "bfloat16"})
    with pytest.raises(InputError, match="does not fit") as caught:
        fitted(spec, None)
    assert "export.py" in str(caught.value.remedy)
    told: list[str] = []
    assert fitted(spec, None, asked=["max_model_len"], note=told.append) == spec
    assert "asked for by name" in told[0]


def test_the_card_is_the_first_that_cuda_may_see(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _cards(tmp_path, monkeypatch, (300, 7503), (7600, 203))
    spec = _spec(_model(tmp_path / "m"))
    with pytest.raises(InputError, match="300 MiB free"):
        fitted(spec, None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
    assert "max_model_len" in fitted(spec, None).swift
    hidden = spec.model_copy(update={"env": {"CUDA_VISIBLE_DEVICES": ""}})
    assert fitted(hidden, None) == hidden


def test_weights_that_lie_quantised_in_the_folder_are_planned_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _cards(tmp_path, monkeypatch, (7600, 203))
    awq = _model(tmp_path / "awq", quantization_config={"quant_method": "awq", "bits": 4})
    spec = _spec(awq, swift={}, server="vllm")
    assert "vllm_max_num_seqs" in fitted(spec, None).swift
    strange = _model(tmp_path / "strange", quantization_config={"quant_method": "hqq"})
    assert fitted(_spec(strange, swift={}), None).swift == {}


def test_without_a_card_or_for_what_is_not_predicted_nothing_is_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = _spec(_model(tmp_path / "m"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert fitted(spec, None) == spec
    _cards(tmp_path, monkeypatch, (7600, 203))
    other = spec.model_copy(update={"backend": "lmdeploy"})
    assert fitted(other, None) == other
    llama = _model(tmp_path / "llama", model_type="llama")
    assert fitted(_spec(llama), None) == _spec(llama)


def test_a_production_folder_is_planned_for_the_recipe_s_card_without_one_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    spec = _spec(_model(tmp_path / "m"), server="vllm")
    made_for = make_recipe(budget={"gpu_mib": 8188})
    swift = planned(spec, made_for).swift
    assert swift["vllm_gpu_memory_utilization"] == 0.97
    fewer = spec.model_copy(update={"swift": {**spec.swift, "vllm_max_num_seqs": 2}})
    settled = planned(fewer, made_for).swift
    assert settled["vllm_max_num_seqs"] == 2
    assert isinstance(settled["vllm_max_model_len"], int)
    assert planned(spec, make_recipe(budget={"gpu_mib": 0})) == spec
    assert planned(spec, make_recipe(budget={"gpu_mib": 2048})) == spec


def test_an_old_driver_tells_less_and_the_card_is_still_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nvidia-smi"
    answer = "case $1 in *compute_cap*) exit 2;; *) echo 'Tesla P4, 470.1, 7611, 7500';; esac"
    program.write_text(f"#!/bin/sh\n{answer}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    (card,) = ask_gpus().gpus
    assert (card.free_mib, card.compute, card.cuda_mib) == (7500, "", None)
