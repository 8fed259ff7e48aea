"""An adapter is merged weight by weight into the very numbers that peft's own merge gives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from support_disk import small_disk
from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM

from palmswift.launchers import merge_worker
from palmswift.launchers.merge_plan import MergeSpec, left_to_swift, unties

LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
TYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}


def write_base(folder: Path, dtype: torch.dtype, *, tied: bool = True) -> Path:
    """A Qwen3 of random weights: grouped heads, and embeddings that are shared or not."""
    config = Qwen3Config(
        vocab_size=96,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        tie_word_embeddings=tied,
    )
    torch.manual_seed(7)
    Qwen3ForCausalLM(config).to(dtype).save_pretrained(folder)
    return folder


def write_adapter(base: Path, folder: Path, stored: torch.dtype, **settings: Any) -> Path:
    """An adapter on it with random numbers in all of its weights."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    config = LoraConfig(**{"r": 4, "lora_alpha": 6, "target_modules": LAYERS, **settings})
    tuned = get_peft_model(model, config)
    torch.manual_seed(11)
    with torch.no_grad():
        for parameter in tuned.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    tuned.save_pretrained(str(folder))
    file = folder / "adapter_model.safetensors"
    save_file({name: tensor.to(stored) for name, tensor in load_file(file).items()}, file)
    return folder


def by_peft(base: Path, adapter: Path, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """What peft makes of the whole model in memory."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
    merged = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    return {name: tensor.detach() for name, tensor in merged.state_dict().items()}


def by_us(base: Path, adapter: Path, out: Path, dtype: str, shard: int = 1 << 30) -> dict[str, Any]:
    """What is written weight by weight."""
    assert left_to_swift(base, adapter) == ""
    out.mkdir()
    merge_worker.merge(
        MergeSpec(
            base=base,
            adapter=adapter,
            out=out,
            dtype=dtype,
            memory_limit=64 << 30,
            shard_bytes=shard,
            untied=unties(base, adapter),
        )
    )
    found: dict[str, Any] = {}
    for file in sorted(out.glob("*.safetensors")):
        found |= load_file(file)
    return found


def differing(ours: dict[str, Any], theirs: dict[str, Any], *, tied: bool) -> list[str]:
    """The weights that are not the same to the last bit."""
    names = {name for name in theirs if not (tied and name == "lm_head.weight")}
    assert ours.keys() == names
    return [name for name in sorted(names) if not torch.equal(ours[name], theirs[name])]


CASES: dict[str, tuple[str, torch.dtype, bool, dict[str, Any]]] = {
    "lora": ("BF16", torch.float32, True, {}),
    "lora stored in 16 bit": ("BF16", torch.bfloat16, True, {}),
    "lora in float32": ("F32", torch.float32, False, {}),
    "lora in float16": ("F16", torch.float16, False, {}),
    "rslora": ("BF16", torch.float32, True, {"use_rslora": True}),
    "dora": ("BF16", torch.bfloat16, False, {"use_dora": True}),
    "own ranks": (
        *("BF16", torch.float32, True),
        {"rank_pattern": {"q_proj": 2, "layers.1.mlp.up_proj": 8}, "alpha_pattern": {"k_proj": 3}},
    ),
    "on an embedding": (
        "BF16",
        torch.bfloat16,
        False,
        {"target_modules": ["embed_tokens", "o_proj"]},
    ),
    "output layer saved whole": ("BF16", torch.float32, False, {"modules_to_save": ["lm_head"]}),
}


@pytest.mark.parametrize("case", CASES)
def test_the_merge_is_that_of_peft_to_the_last_bit(case: str, tmp_path: Path) -> None:
    dtype, stored, tied, settings = CASES[case]
    base = write_base(tmp_path / "base", TYPES[dtype], tied=tied)
    adapter = write_adapter(base, tmp_path / "adapter", stored, **settings)
    ours = by_us(base, adapter, tmp_path / "out", dtype)
    assert differing(ours, by_peft(base, adapter, TYPES[dtype]), tied=tied) == []


def test_weights_of_another_type_are_read_as_that_of_the_merge(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", torch.float32)
    adapter = write_adapter(base, tmp_path / "adapter", torch.float32)
    ours = by_us(base, adapter, tmp_path / "out", "BF16")
    assert {tensor.dtype for tensor in ours.values()} == {torch.bfloat16}
    assert differing(ours, by_peft(base, adapter, torch.bfloat16), tied=True) == []


@pytest.mark.parametrize("case", ["lora", "dora", "on an embedding"])
def test_a_weight_that_is_over_the_limit_is_merged_by_rows(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dtype, stored, tied, settings = CASES[case]
    base = write_base(tmp_path / "base", TYPES[dtype], tied=tied)
    adapter = write_adapter(base, tmp_path / "adapter", stored, **settings)
    whole = by_us(base, adapter, tmp_path / "whole", dtype)
    monkeypatch.setattr(merge_worker, "_room", lambda limit: 7 * 32 * 28)
    assert differing(by_us(base, adapter, tmp_path / "rows", dtype), whole, tied=False) == []


def test_large_models_are_written_in_files_of_bounded_size_that_load(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", torch.bfloat16)
    adapter = write_adapter(base, tmp_path / "adapter", torch.bfloat16)
    out = tmp_path / "out"
    by_us(base, adapter, out, "BF16", shard=12_000)
    files = sorted(out.glob("*.safetensors"))
    assert len(files) > 3
    assert all(file.stat().st_size < 12_000 + 4_000 for file in files)
    (out / "config.json").write_bytes((base / "config.json").read_bytes())
    loaded = AutoModelForCausalLM.from_pretrained(out, dtype=torch.bfloat16).state_dict()
    theirs = by_peft(base, adapter, torch.bfloat16)
    assert all(torch.equal(loaded[name], theirs[name]) for name in theirs)


def test_embeddings_that_were_trained_apart_are_shared_no_longer(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", torch.bfloat16)
    adapter = write_adapter(
        *(base, tmp_path / "adapter", torch.float32), modules_to_save=["embed_tokens", "lm_head"]
    )
    assert unties(base, adapter)
    ours = by_us(base, adapter, tmp_path / "out", "BF16")
    saved = load_file(adapter / "adapter_model.safetensors")
    for name in ("lm_head.weight", "model.embed_tokens.weight"):
        assert torch.equal(ours[name], saved[f"base_model.model.{name}"].bfloat16())


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"target_modules": ["embed_tokens"]}, "embeddings that the input and the output share"),
        ({"modules_to_save": ["lm_head"]}, "embeddings that the input and the output share"),
        ({"trainable_token_indices": [3, 4]}, "trainable_token_indices"),
        ({"bias": "all"}, "trains biases"),
    ],
)
def test_what_no_weight_by_itself_decides_is_left_to_ms_swift(
    settings: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    base = write_base(tmp_path / "base", torch.bfloat16)
    adapter = write_adapter(base, tmp_path / "adapter", torch.float32, **settings)
    assert reason in left_to_swift(base, adapter)


def test_a_disk_that_fills_up_is_told_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", torch.bfloat16)
    adapter = write_adapter(base, tmp_path / "adapter", torch.float32)
    with small_disk(tmp_path / "small", "64k") as disk:
        spec = MergeSpec(
            base=base,
            adapter=adapter,
            out=disk.folder,
            dtype="F32",
            memory_limit=4 << 30,
            shard_bytes=1 << 30,
            untied=False,
        )
        told, answered = tmp_path / "spec.json", disk.folder / "result.json"
        told.write_text(spec.model_dump_json())
        module = "palmswift.launchers.merge_worker"
        words: list[str | Path] = [sys.executable, "-m", module, told, answered]
        assert subprocess.run(disk.words(*words), check=False).returncode == 1
        assert disk.shell("ls").split() == ["result.json"]
        assert "the disk is full" in disk.shell("cat result.json")


def test_numbers_that_are_not_finite_are_not_written(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", torch.bfloat16)
    adapter = write_adapter(base, tmp_path / "adapter", torch.float32)
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    tensors["base_model.model.model.layers.1.mlp.up_proj.lora_B.weight"][5, 1] = float("nan")
    save_file(tensors, file)
    with pytest.raises(merge_worker.GaveUp, match=r"layers\.1\.mlp\.up_proj.*not finite"):
        by_us(base, adapter, tmp_path / "out", "BF16")
