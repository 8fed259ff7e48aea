"""The memory and time of a merge: palmswift's, under several limits, and that of `swift export`.

python -m benchmarks.export.merge --tokenizer models/MODEL

A Qwen3 of the shape of Qwen3-1.7B with random weights (3.4 GB in bfloat16) and a random LoRA
adapter of rank 16 on all linear layers are made in a temporary folder, and merged by both, in turn;
then the results are compared, bit by bit. Memory is the most that a child has held resident. The
record is benchmarks/records/export-merge-DATE.json.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.eval.cost import Cost, measured
from benchmarks.eval.record import write_record
from palmswift.files import write_text
from palmswift.launchers.merge_plan import MergeResult, MergeSpec

LIMITS_MIB = (1024, 2048, 4096)
_SHAPE = {
    "vocab_size": 151936,
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "tie_word_embeddings": True,
}


def make_models(folder: Path, tokenizer: Path) -> None:
    """`base` and `adapter` in a folder, with numbers from a seed."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import Qwen3Config, Qwen3ForCausalLM

    base, adapter = folder / "base", folder / "adapter"
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    model = Qwen3ForCausalLM(Qwen3Config(**_SHAPE))
    model.save_pretrained(base)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(tokenizer / name, base / name)
    tuned = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"))
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.02)
    tuned.save_pretrained(str(adapter))


def ours(base: Path, adapter: Path, folder: Path, limit_mib: int) -> dict[str, Any]:
    """palmswift's child, its cost and what it says itself."""
    out = folder / f"ours-{limit_mib}"
    out.mkdir()
    spec = MergeSpec(
        base=base,
        adapter=adapter,
        out=out,
        dtype="BF16",
        memory_limit=limit_mib << 20,
        shard_bytes=5_000_000_000,
        untied=False,
    )
    told, answered = folder / "spec.json", folder / "result.json"
    write_text(told, spec.model_dump_json())
    words = ["-m", "palmswift.launchers.merge_worker", str(told), str(answered)]
    cost = measured([sys.executable, *words])
    said = MergeResult.model_validate_json(answered.read_bytes())
    return {"limit_mib": limit_mib, **_numbers(cost), "by_rows": said.by_rows, "weights": str(out)}


def theirs(base: Path, adapter: Path, folder: Path) -> dict[str, Any]:
    """`swift export --merge_lora`."""
    out = folder / "theirs"
    flags = {
        "model": base,
        "adapters": adapter,
        "merge_lora": "true",
        "torch_dtype": "bfloat16",
        "device_map": "cpu",
        "model_type": "qwen3",
        "template": "qwen3",
        "output_dir": out,
    }
    words = [str(word) for name, value in flags.items() for word in (f"--{name}", value)]
    os.environ |= {"MODELSCOPE_OFFLINE": "1", "HF_HUB_OFFLINE": "1"}
    swift = str(Path(sys.executable).with_name("swift"))
    return {**_numbers(measured([swift, "export", *words])), "weights": str(out)}


def _numbers(cost: Cost) -> dict[str, float]:
    return {"seconds": round(cost.wall, 1), "peak_mib": round(cost.rss_mib)}


def differing(one: Path, other: Path) -> int:
    """Weights that are not the same to the last bit."""
    from safetensors import safe_open

    count = 0
    files = [file for folder in (one, other) for file in sorted(folder.glob("*.safetensors"))]
    with safe_open(files[0], "pt") as ours_open, safe_open(files[1], "pt") as theirs_open:
        names = set(ours_open.keys())
        count += len(names ^ set(theirs_open.keys()))
        for name in names & set(theirs_open.keys()):
            same = ours_open.get_tensor(name).equal(theirs_open.get_tensor(name))
            count += not same
    return count


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--tokenizer", type=Path, required=True, help="a folder with a tokenizer")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # In a process of its own: a child's peak begins with that of the process that starts it.
        making = multiprocessing.get_context("spawn").Process(
            target=make_models, args=(folder, args.tokenizer)
        )
        making.start()
        making.join()
        base, adapter = folder / "base", folder / "adapter"
        size = sum(file.stat().st_size for file in base.glob("*.safetensors"))
        swift = theirs(base, adapter, folder)
        mine = [ours(base, adapter, folder, limit) for limit in LIMITS_MIB]
        for one in mine:
            one["differing_weights"] = differing(Path(one.pop("weights")), Path(swift["weights"]))
        del swift["weights"]
    found = {
        "model_mib": size >> 20,
        "swift_export": swift,
        "palmswift": mine,
        "memory_ratio": round(swift["peak_mib"] / mine[0]["peak_mib"], 1),
    }
    what = "a LoRA adapter of rank 16 merged into a model of Qwen3-1.7B's shape"
    command = "python -m benchmarks.export.merge --tokenizer models/MODEL"
    packages = ("ms-swift", "torch", "transformers", "peft")
    print(json.dumps(found, indent=2))
    print(write_record("merge", what, command, packages, found, room="export"))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
