"""Kills trainings at random points, goes on with them, and compares with one that was left alone.

`python -m benchmarks.resume.kills --trials 40` trains a small Qwen3 with the real ms-swift on the
CPU: LoRA with dropout and full, over three epochs. Each trial is killed once or twice by SIGKILL,
at the end of a step, in an evaluation, within a save, or after a random time, and gone on with from
its last whole checkpoint. Weights, optimizer, scheduler, random numbers (bytes of files) and all
logged numbers have to be the same; else the exit code is 1.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from benchmarks.resume.forks import ROOT, Nursery
from palmswift.files import write_json, write_jsonl
from palmswift.launchers.checkpoint_survey import set_aside, survey
from palmswift.launchers.plugin_files import SUPERVISION, plugin_path
from palmswift.launchers.taking_up import cut_log

ROWS, HELD_OUT, EPOCHS, STEPS, SAVED_EVERY = 14, 6, 3, 21, 4
FAULTS = Path(__file__).with_name("faults.py")

COMMON: Mapping[str, object] = {
    **{"model_type": "qwen3", "template": "qwen3", "enable_thinking": "false"},
    **{"torch_dtype": "float32", "use_cpu": "true", "max_length": 256, "learning_rate": 1e-3},
    **{"per_device_train_batch_size": 2, "per_device_eval_batch_size": 2},
    **{"gradient_accumulation_steps": 1, "logging_nan_inf_filter": "false"},
    **{"num_train_epochs": EPOCHS, "seed": 1, "data_seed": 1, "split_dataset_ratio": 0},
    **{"eval_steps": 5, "save_steps": SAVED_EVERY, "logging_steps": 3, "save_total_limit": 2},
    **{"dataset_num_proc": 1, "dataloader_num_workers": 0, "load_from_cache_file": "false"},
    **{"report_to": "none", "add_version": "false", "check_model": "false"},
}
"""Logged every 3 steps and saved every 4, so most saves fall between two logged means."""

LORA: Mapping[str, object] = {
    **{"tuner_type": "lora", "lora_rank": 4, "lora_dropout": 0.1, "target_modules": "all-linear"},
}
CASES: Mapping[str, Mapping[str, object]] = {
    "lora": LORA,
    "full": {"tuner_type": "full"},
    "lora-workers": {**LORA, "dataloader_num_workers": 2},
    "lora-by-length": {**LORA, "group_by_length": "true"},
    "dpo": {"rlhf_type": "dpo", **LORA, "eval_strategy": "no"},
    "lora-epochs": {**LORA, "eval_strategy": "epoch", "save_strategy": "epoch"},
}

_COMPARED = ("*.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth")
_OF_THE_CLOCK = ("train_speed", "time", "memory", "runtime", "per_second")


class Evidence(NamedTuple):
    """What a training came to: a digest of each file of its last checkpoint, the logged rows."""

    step: int
    digests: dict[str, str]
    rows: list[dict[str, Any]]


class Bench:
    """A folder with a model and rows, and trainings of them."""

    def __init__(self, nursery: Nursery, folder: Path) -> None:
        self.nursery = nursery
        self.folder = folder
        self.launches = 0
        lines = (ROOT / "data/samples/clinic/train.jsonl").read_text(encoding="utf-8").splitlines()
        folder.mkdir(parents=True, exist_ok=True)
        for name, part in (("train", lines[:ROWS]), ("val", lines[ROWS : ROWS + HELD_OUT])):
            (folder / f"{name}.jsonl").write_text("".join(f"{line}\n" for line in part))
        spec = {"corpus": [str(ROOT / "data/samples/clinic/train.jsonl")], "hidden_size": 64}
        spec |= {"intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
        spec |= {"num_key_value_heads": 2, "head_dim": 32}
        write_json(folder / "spec.json", spec)
        rows = [json.loads(line) for line in lines[:ROWS]]
        answers = [row["messages"][-1]["content"] for row in rows]
        pairs = [{**row, "rejected_response": answers[at - 1]} for at, row in enumerate(rows)]
        write_jsonl(folder / "pairs.jsonl", pairs)
        words = ["embed", str(folder / "spec.json"), str(folder / "model")]
        if nursery.swift(words, folder / "embed.log") != 0:
            raise RuntimeError((folder / "embed.log").read_text(encoding="utf-8"))

    def train(
        self,
        case: Mapping[str, object],
        out: Path,
        faults: str = "",
        *,
        resume: Path | None = None,
        supervised: bool = True,
        control: Path | None = None,
    ) -> int:
        """Train once; the exit code (negative: the signal that ended it)."""
        settings = {
            **{"model": self.folder / "model", "dataset": self.folder / "train.jsonl"},
            **{"val_dataset": self.folder / "val.jsonl", "eval_strategy": "steps"},
            **COMMON,
            **case,
            "output_dir": out,
        }
        if "rlhf_type" in case:
            settings["dataset"] = self.folder / "pairs.jsonl"
            del settings["val_dataset"]
        if resume is not None:
            settings["resume_from_checkpoint"] = resume
        words = [
            "rlhf" if "rlhf_type" in case else "sft",
            *(str(word) for name, value in settings.items() for word in (f"--{name}", value)),
        ]
        plugins = [str(plugin_path(name)) for name in SUPERVISION] if supervised else []
        words += ["--external_plugins", *plugins, str(FAULTS)]
        env = {"PALMSWIFT_FAULT": faults, "PALMSWIFT_CONTROL": str(control or "")}
        self.launches += 1
        return self.nursery.swift(words, out.with_suffix(".log"), env)

    def go_on(self, case: Mapping[str, object], out: Path, faults: str = "") -> int:
        """Train on from the last whole checkpoint, from the start without one; the exit code."""
        kept = []
        for found in survey(out):
            if found.fault:
                set_aside(found.path, out.with_suffix(".torn"))
            else:
                kept.append(found)
        if not kept:
            shutil.rmtree(out, ignore_errors=True)
            return self.train(case, out, faults)
        cut_log(out / "logging.jsonl", kept[-1].step)
        return self.train(case, out, faults, resume=kept[-1].path)


def evidence(out: Path) -> Evidence:
    """What the training in `out` came to."""
    last = [found for found in survey(out) if not found.fault][-1]
    files = sorted(file for pattern in _COMPARED for file in last.path.glob(pattern))
    digests = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    lines = (out / "logging.jsonl").read_text(encoding="utf-8").splitlines()
    told = [json.loads(line) for line in lines]
    rows = [
        {k: v for k, v in row.items() if not any(word in k for word in _OF_THE_CLOCK)}
        for row in told
        if "loss" in row or "eval_loss" in row
    ]
    return Evidence(last.step, digests, rows)


def differences(one: Evidence, other: Evidence) -> list[str]:
    """What is not the same, in words."""
    found = [] if one.step == other.step else [f"step {one.step} and {other.step}"]
    names = sorted({*one.digests, *other.digests})
    found += [name for name in names if one.digests.get(name) != other.digests.get(name)]
    for left, right in zip(one.rows, other.rows, strict=False):
        if left != right:
            found.append(f"{left} and {right}")
            break
    if len(one.rows) != len(other.rows):
        found.append(f"{len(one.rows)} and {len(other.rows)} logged rows")
    return found


def random_fault(chance: random.Random, seconds: float) -> str:
    """A point at which a training of `seconds` is killed."""
    save = SAVED_EVERY * chance.randint(1, STEPS // SAVED_EVERY)
    parts = ["weights", "optimizer", "rng", "state", "seal", "rotate"]
    return chance.choice(
        [
            f"kill@{chance.randint(1, STEPS - 1)}",
            f"kill-{chance.choice(parts)}@{save}",
            f"kill-evaluation@{5 * chance.randint(1, STEPS // 5)}",
            f"kill-after@{chance.uniform(0.05, seconds):.3f}",
        ]
    )


def _trial(bench: Bench, case: str, name: str, faults: list[str]) -> tuple[Evidence, list[int]]:
    out = bench.folder / name
    codes = [bench.go_on(CASES[case], out, fault) for fault in faults]
    while (code := bench.go_on(CASES[case], out)) != 0:
        raise RuntimeError(f"{name} ended with code {code}: {out.with_suffix('.log')}")
    return evidence(out), codes


def _write_record(out: Path | None, bench: Bench, trials: list[dict[str, Any]]) -> None:
    record = {
        "benchmark": "resume",
        "date": date.today().isoformat(),
        "what": "killed by SIGKILL at random points and gone on with, against one left alone",
        "command": "python -m benchmarks.resume.kills " + " ".join(sys.argv[1:]),
        "machine": {
            "cores": psutil.cpu_count(),
            "memory_mib": psutil.virtual_memory().total >> 20,
            "system": sys.platform,
        },
        "versions": {
            name: version(name)
            for name in ("ms-swift", "torch", "transformers", "peft", "accelerate")
        },
        "steps": STEPS,
        "trials": len(trials),
        "kills": sum(trial["kills"] for trial in trials),
        "launches": bench.launches,
        "same_to_the_bit": sum(not trial["differences"] for trial in trials),
        "each": trials,
    }
    write_json(out or ROOT / "benchmarks/records" / f"resume-{record['date']}.json", record)


def _run_trials(
    bench: Bench, cases: list[str], count: int, chance: random.Random, out: Path | None
) -> list[dict[str, Any]]:
    """What each trial came to; the record is written after each, so that none is lost."""
    whole: dict[str, Evidence] = {}
    seconds: dict[str, float] = {}
    trials: list[dict[str, Any]] = []
    for case in cases:
        begun = time.monotonic()
        whole[case], _ = _trial(bench, case, f"{case}-whole", [])
        seconds[case] = time.monotonic() - begun
    for number in range(count):
        case = cases[number % len(cases)]
        faults = [random_fault(chance, seconds[case] / 2) for _ in range(chance.choice([1, 1, 2]))]
        found, codes = _trial(bench, case, f"{case}-{number}", faults)
        unlike = differences(whole[case], found)
        kills = codes.count(-signal.SIGKILL)
        trials.append({"case": case, "faults": faults, "kills": kills, "differences": unlike})
        sys.stdout.write(f"{number + 1:3} {case:14} {' '.join(faults):44} {unlike or 'same'}\n")
        sys.stdout.flush()
        _write_record(out, bench, trials)
        shutil.rmtree(bench.folder / f"{case}-{number}")
    return trials


def main() -> int:
    """Run the trials, write the record, and print one line a trial."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=["lora", "full"])
    parser.add_argument("--out", type=Path, help="where the record goes")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Nursery() as nursery:
        bench = Bench(nursery, Path(folder))
        trials = _run_trials(bench, args.cases, args.trials, random.Random(args.seed), args.out)
    if sum(trial["kills"] for trial in trials) < len(trials) / 2:
        # A proof that kills nothing proves nothing.
        sys.stderr.write("most faults came after the end of the training: nothing was shown\n")
        return 1
    return 0 if all(not trial["differences"] for trial in trials) else 1


if __name__ == "__main__":
    raise SystemExit(main())
