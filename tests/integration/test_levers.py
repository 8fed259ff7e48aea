"""Levers change what memory a training takes, and not what it learns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support_deploy import REPOSITORY
from support_levers import LAYERS, adapted_model, assert_same, base_model, train_step
from swift.arguments import BaseArguments, DeployArguments, ExportArguments, InferArguments
from transformers import Qwen3Config, Qwen3ForCausalLM

from palmswift.hub.embedded import build_embedded
from palmswift.launchers.plugin_files import plugin_path
from palmswift.launchers.plugins import (
    checkpoint_offload,
    embedding_on_cpu,
    gpu_cap,
    memory_log,
    tiled_mlp,
)
from palmswift.recipes.recipe import EmbeddedModel

TRAINING: dict[str, Any] = {
    "tuner_type": "lora",
    "tuner_backend": "peft",
    "global_world_size": 1,
    "deepspeed": None,
    "fsdp": None,
}


# embedding_on_cpu


def test_a_training_with_the_embedding_on_the_cpu_is_the_same_bit_by_bit() -> None:
    plain, moved = adapted_model(), adapted_model()
    size = embedding_on_cpu.keep_on_cpu(moved)
    assert size == 160 * 64 * 4
    assert_same(train_step(moved), train_step(plain))
    assert moved.state_dict().keys() == plain.state_dict().keys()


def test_an_embedding_on_the_cpu_stays_there_when_its_model_is_moved() -> None:
    model = base_model().requires_grad_(False)
    embedding_on_cpu.keep_on_cpu(model)
    table = model.get_input_embeddings()
    before = table.weight.detach().clone()
    model.to("meta")
    assert {each.device.type for each in model.parameters()} == {"meta", "cpu"}
    assert torch.equal(table.weight, before)
    ids = torch.zeros(1, 4, dtype=torch.long)
    assert table(ids).device.type == "meta"
    assert model(input_ids=ids).logits.device.type == "meta"
    model.to(torch.bfloat16)
    assert (table.weight.device.type, table.weight.dtype) == ("cpu", torch.bfloat16)


def test_an_embedding_is_loaded_to_the_cpu_and_never_to_the_card(tmp_path: Path) -> None:
    base_model().save_pretrained(tmp_path)
    with embedding_on_cpu.loading_to_cpu():
        model = Qwen3ForCausalLM.from_pretrained(tmp_path, device_map={"": "meta"})
    assert torch.equal(model.get_input_embeddings().weight, base_model().model.embed_tokens.weight)
    assert model.get_output_embeddings().weight.device.type == "meta"
    # Nothing was hung on the modules that would carry the table to the card at each step.
    assert [name for name, module in model.named_modules() if hasattr(module, "_hf_hook")] == []


def test_a_head_that_is_the_embedding_stays_and_the_user_is_told() -> None:
    with pytest.raises(ValueError, match="tie_word_embeddings"):
        embedding_on_cpu.keep_on_cpu(base_model(tied=True))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"tuner_type": "full"}, "full"),
        ({"tuner_backend": "unsloth"}, "unsloth"),
        ({"global_world_size": 2}, "one process"),
        ({"deepspeed": "zero2"}, "deepspeed"),
        ({"predict_with_generate": True}, "predict_with_generate"),
        ({"rlhf_type": "grpo"}, "grpo"),
    ],
)
def test_a_training_that_cannot_have_its_embedding_on_the_cpu_is_refused(
    change: dict[str, Any], word: str
) -> None:
    embedding_on_cpu.check(SimpleNamespace(**TRAINING))
    with pytest.raises(ValueError, match=f"embedding_on_cpu: .*{word}"):
        embedding_on_cpu.check(SimpleNamespace(**{**TRAINING, **change}))


def test_an_embedding_that_is_trained_after_all_is_refused_at_the_first_step() -> None:
    model = base_model()
    embedding_on_cpu.keep_on_cpu(model)
    with pytest.raises(ValueError, match="modules_to_save"):
        train_step(model)


# checkpoint_offload


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_a_training_with_offloaded_layer_inputs_is_the_same_bit_by_bit(
    reentrant: bool, dropout: float
) -> None:
    plain = adapted_model(dropout=dropout, reentrant=reentrant)
    moved = adapted_model(dropout=dropout, reentrant=reentrant)
    inputs = checkpoint_offload.offload(moved, checkpoint_offload.PlainCopies())
    for seed, length in enumerate((20, 37, 11)):
        one = train_step(moved, length=length, seed=seed)
        assert_same(one, train_step(plain, length=length, seed=seed))
        assert len(inputs.free) == LAYERS  # all are given back, and no more are made


class WatchedCopies(checkpoint_offload.PlainCopies):
    """Counts the inputs that are on the device whenever one sets out or comes back."""

    def __init__(self) -> None:
        self.parked: list[weakref.ref[checkpoint_offload.Parked]] = []
        self.most = self.copies = 0

    def start(self, target: torch.Tensor, source: torch.Tensor) -> Any:
        self.copies += 1
        alive = [parked() for parked in self.parked]
        here = [each for each in alive if each is not None and each._here is not None]
        self.most = max(self.most, len(here))
        return super().start(target, source)


def test_at_most_two_layer_inputs_are_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    copies, model = WatchedCopies(), adapted_model()
    begin = checkpoint_offload.Parked.__init__

    def begin_watched(self: Any, *args: Any) -> None:
        copies.parked.append(weakref.ref(self))
        self._here = None
        begin(self, *args)

    monkeypatch.setattr(checkpoint_offload.Parked, "__init__", begin_watched)
    checkpoint_offload.offload(model, copies)
    train_step(model)
    assert copies.copies == LAYERS + LAYERS - 1  # the last one had not left
    assert copies.most == 2


def test_a_pass_without_gradients_or_without_its_backward_leaves_nothing_behind() -> None:
    model = adapted_model()
    inputs = checkpoint_offload.offload(model, checkpoint_offload.PlainCopies())
    ids = torch.zeros(1, 9, dtype=torch.long)
    with torch.no_grad():
        model.eval()(input_ids=ids)
    assert inputs.free == []
    kept = model.train()(input_ids=ids, labels=ids).loss
    del kept
    assert len(inputs.free) == LAYERS


def test_offloading_without_checkpointing_is_refused() -> None:
    with pytest.raises(ValueError, match="gradient_checkpointing"):
        checkpoint_offload.offload(
            adapted_model(checkpointing=False), checkpoint_offload.PlainCopies()
        )
    with pytest.raises(ValueError, match="CUDA"):
        checkpoint_offload.copies_for(torch.device("meta"))


# tiled_mlp


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("tile", [1, 16, 73])
def test_a_training_with_tiled_mlps_is_the_same_within_rounding(tile: int, reentrant: bool) -> None:
    plain, tiled = adapted_model(reentrant=reentrant), adapted_model(reentrant=reentrant)
    assert tiled_mlp.tile_mlps(tiled, tile) == LAYERS
    assert_same(train_step(tiled), train_step(plain), 1e-5)


def test_rows_that_fit_a_tile_are_computed_as_without_it() -> None:
    plain, tiled = adapted_model(dropout=0.2), adapted_model(dropout=0.2)
    tiled_mlp.tile_mlps(tiled, 74)
    assert_same(train_step(tiled), train_step(plain))


def test_full_training_with_tiled_mlps_is_the_same_within_rounding() -> None:
    plain, tiled = base_model().train(), base_model().train()
    tiled_mlp.tile_mlps(tiled, 16)
    assert_same(train_step(tiled), train_step(plain), 1e-5)


def test_tiles_under_autocast_are_the_same_within_the_rounding_of_bfloat16() -> None:
    plain, tiled = adapted_model(), adapted_model()
    tiled_mlp.tile_mlps(tiled, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        one, other = train_step(tiled), train_step(plain)
    assert_same(one, other, 0.03)


def test_a_tiles_backward_pass_drops_what_its_forward_pass_dropped() -> None:
    tiled, plain = adapted_model(dropout=0.5), adapted_model(dropout=0.5)
    rows = torch.randn(40, 64)
    results = []
    for model in (tiled, plain):
        mlp = model.base_model.model.model.layers[0].mlp
        if model is tiled:
            tiled_mlp.tile_mlps(model, 16)
        inputs = rows.clone().requires_grad_()
        torch.manual_seed(5)
        parts = [inputs] if model is tiled else inputs.split(16)
        torch.cat([mlp(part) for part in parts]).square().sum().backward()
        results.append([inputs.grad, *(w.grad for w in mlp.parameters() if w.requires_grad)])
    for one, other in zip(*results, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-4)


def test_a_tile_or_a_model_that_cannot_be_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tiled_mlp.tile_from_environment() == 1024
    for said in ("0", "many", "-4", "1.5"):
        monkeypatch.setenv(tiled_mlp.VARIABLE, said)
        with pytest.raises(ValueError, match=tiled_mlp.VARIABLE):
            tiled_mlp.tile_from_environment()
    with pytest.raises(ValueError, match="gate_proj"):
        tiled_mlp.tile_mlps(torch.nn.Linear(2, 2), 8)


# memory_log and gpu_cap


def test_the_memory_of_a_process_is_told_with_its_peak() -> None:
    meter = memory_log.ProcessMeter()
    before = meter.read()
    taken = torch.ones(64 << 20, dtype=torch.uint8)
    assert meter.read().max_allocated - before.allocated > 32 << 20
    del taken


def test_a_cap_without_a_card_or_a_number_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="no CUDA card"):
        gpu_cap.cap(7688)
    assert gpu_cap.cap_from_environment() == 7688
    monkeypatch.setenv(gpu_cap.VARIABLE, "8 GB")
    with pytest.raises(ValueError, match=gpu_cap.VARIABLE):
        gpu_cap.cap_from_environment()


def test_what_serves_merges_and_infers_is_left_alone() -> None:
    for arguments in (InferArguments, DeployArguments, ExportArguments):
        assert arguments.get_model_processor is BaseArguments.get_model_processor


# With the real ms-swift

COMMANDS = """
import json, os, sys, traceback
from swift.pipelines import export_main, sft_main
for command, words in json.loads(sys.argv[1]):
    child = os.fork()
    if child == 0:
        code = 1
        try:
            {"sft": sft_main, "export": export_main}[command](words)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    if os.waitpid(child, 0)[1]:
        sys.exit(f"{command} failed")
"""
"""Each command in a process of its own, which has ms-swift imported already."""

COMMON: dict[str, object] = {
    **{"model_type": "qwen3", "template": "qwen3", "enable_thinking": "false"},
    **{"torch_dtype": "float32", "use_cpu": "true", "gradient_checkpointing": "true"},
    **{"tuner_type": "lora", "lora_rank": 4, "lora_dropout": 0, "target_modules": "all-linear"},
    **{"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "max_length": 256},
    **{"max_steps": 6, "save_steps": 3, "logging_steps": 1, "learning_rate": 1e-3},
    **{"split_dataset_ratio": 0, "dataset_num_proc": 1, "dataloader_num_workers": 0},
    **{"report_to": "none", "add_version": "false", "check_model": "false"},
    **{"load_from_cache_file": "false", "seed": 1, "data_seed": 1},
}

PLUGINS = ("embedding_on_cpu", "checkpoint_offload", "tiled_mlp", "memory_log")


def _untied_model(folder: Path) -> Path:
    spec = EmbeddedModel(
        corpus=["data/samples/clinic/train.jsonl"],
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
    )
    build_embedded(spec, [REPOSITORY / path for path in spec.corpus], folder)
    config = Qwen3Config.from_pretrained(folder, tie_word_embeddings=False)
    torch.manual_seed(0)
    Qwen3ForCausalLM(config).save_pretrained(folder)
    return folder


def _losses(folder: Path) -> dict[str, float]:
    lines = (folder / "logging.jsonl").read_text(encoding="utf-8").splitlines()
    told = [json.loads(line) for line in lines]
    return {str(line["global_step/max_steps"]): line["loss"] for line in told if "loss" in line}


@pytest.mark.e2e
def test_a_real_training_with_all_levers_learns_resumes_and_merges_as_without_them(
    tmp_path: Path,
) -> None:
    model = _untied_model(tmp_path / "model")
    data = str(REPOSITORY / "data/samples/clinic/train.jsonl")
    plain, levers, resumed = (tmp_path / name for name in ("plain", "levers", "resumed"))
    common = ["--model", str(model), "--dataset", data]
    common += [word for name, value in COMMON.items() for word in (f"--{name}", str(value))]
    plugins = ["--external_plugins", *(str(plugin_path(name)) for name in PLUGINS)]
    first = str(levers / "checkpoint-3")
    commands = [
        ("sft", [*common, "--output_dir", str(plain)]),
        ("sft", [*common, *plugins, "--output_dir", str(levers)]),
        (
            "sft",
            [*common, *plugins, "--output_dir", str(resumed), "--resume_from_checkpoint", first],
        ),
        (
            "export",
            [
                *("--adapters", str(levers / "checkpoint-6"), "--merge_lora", "true"),
                *("--output_dir", str(tmp_path / "merged")),
            ],
        ),
    ]
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, json.dumps(commands)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={
            **os.environ,
            **{"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", tiled_mlp.VARIABLE: "16"},
            **{"MODELSCOPE_OFFLINE": "1", "HF_HUB_OFFLINE": "1"},
        },
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]

    without, with_levers, after = _losses(plain), _losses(levers), _losses(resumed)
    assert len(without) == 6
    assert with_levers == pytest.approx(without, rel=1e-5)
    assert {step: with_levers[step] for step in after} == pytest.approx(after, rel=1e-6)
    assert len(after) == 3

    merged = load_file(tmp_path / "merged" / "model.safetensors")
    base = load_file(model / "model.safetensors")
    assert merged.keys() == base.keys()
    assert torch.equal(merged["model.embed_tokens.weight"], base["model.embed_tokens.weight"])

    lines = (levers / "memory.jsonl").read_text(encoding="utf-8").splitlines()
    told = [json.loads(line) for line in lines]
    phases = ["forward", "backward", "optimizer_step"]
    assert [line["phase"] for line in told][:4] == ["load", *phases]
    assert [line["step"] for line in told if line["phase"] == "forward"] == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in told if line["phase"] == "save"] == [3, 6]
    assert all(line["max_allocated"] >= line["allocated"] > 0 for line in told)
    assert {line["managed"] for line in told} == {0}
