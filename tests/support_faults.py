"""Runs trainings with planted faults: ms-swift is imported once, and a child forked for each.

`python tests/support_faults.py FOLDER MODEL NAME...`: the child's output is FOLDER/NAME.log, its
exit code FOLDER/NAME.code (negative: a signal, which the `swift` wrapper shows as 256 less), and
what it left is in FOLDER/NAME.work/.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from support_forks import SWIFT_ENVIRONMENT, be_swift, exit_code_of, fork, import_swift
from support_planted import PLANTED, ROOT, VAL, Fault, Job

COMMON: dict[str, object] = {
    **{"model_type": "qwen3", "template": "qwen3", "enable_thinking": "false"},
    **{"torch_dtype": "float32", "use_cpu": "true", "gradient_checkpointing": "false"},
    **{"tuner_type": "lora", "lora_rank": 4, "lora_dropout": 0, "target_modules": "all-linear"},
    **{"per_device_train_batch_size": 4, "per_device_eval_batch_size": 4},
    **{"gradient_accumulation_steps": 1, "max_length": 256, "learning_rate": 1e-3},
    **{"max_steps": 2, "save_steps": 2, "logging_steps": 1, "eval_strategy": "no"},
    **{"split_dataset_ratio": 0, "dataset_num_proc": 1, "dataloader_num_workers": 0},
    **{"report_to": "none", "add_version": "false", "check_model": "false"},
    **{"load_from_cache_file": "false", "seed": 1, "data_seed": 1},
    "logging_nan_inf_filter": "false",
}
"""Arguments of a training of two steps that ends well."""


def run_faults(names: Iterable[str], folder: Path) -> dict[str, int]:
    """Run the trainings with these faults one after the other; their exit codes."""
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [sys.executable, __file__, str(folder), str(folder / "model"), *names],
        env={**os.environ, **SWIFT_ENVIRONMENT},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return {file.stem: int(file.read_text()) for file in folder.glob("*.code")}


def make_model(folder: Path) -> None:
    """A Qwen3 of two narrow layers, with its tokenizer."""
    from palmswift.hub.embedded import build_embedded
    from palmswift.recipes.recipe import EmbeddedModel

    spec = EmbeddedModel(
        corpus=["data/samples/clinic/train.jsonl"],
        hidden_size=64,
        intermediate_size=96,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
    )
    build_embedded(spec, [ROOT / path for path in spec.corpus], folder)


def _words(fault: Fault, work: Path, model: Path) -> list[str]:
    given = {"model": model, "dataset": VAL, "output_dir": work / "out"}
    words = []
    for name, value in {**given, **COMMON, **fault.arguments}.items():
        if value is not None:
            words += [f"--{name}", str(value).replace("{folder}", str(work))]
    return words


def _become(fault: Fault, work: Path, model: Path, log: Path) -> int:
    """Be `swift <command>` with the fault: the same script and words; its exit code."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.update({name: v.replace("{folder}", str(work)) for name, v in fault.env.items()})
    words = _words(fault, work, model)
    if fault.plant is not None:
        fault.plant(Job(work, model, words))
    return be_swift(fault.command, words)


def main(argv: Sequence[str]) -> int:
    """Fork a child for each fault that is named, one after the other."""
    folder, model = Path(argv[0]), Path(argv[1])
    if not model.is_dir():
        make_model(model)
    import_swift()
    for name in argv[2:]:
        work = folder / f"{name}.work"
        work.mkdir()

        def become(name: str = name, work: Path = work) -> int:
            os.chdir(work)
            return _become(PLANTED[name], work, model, folder / f"{name}.log")

        (folder / f"{name}.code").write_text(str(exit_code_of(fork(become))))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
