"""What tests of the launchers share: recipes, run folders, and stand-ins for `swift`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from palmswift.launchers.run_folder import RunFolder
from palmswift.recipes.recipe import Recipe


def make_recipe(**changes: Any) -> Recipe:
    """A small CPU recipe; `changes` replace its keys."""
    values: dict[str, Any] = {
        "name": "tiny",
        "summary": "a recipe for tests",
        "model": {"id": "Qwen/Qwen3-0.6B"},
        "data": {"train": ["train.jsonl"], "val": ["val.jsonl"]},
        "swift": {"tuner_type": "lora", "eval_strategy": "steps", "learning_rate": 1.0e-4},
        "budget": {"gpu_mib": 0, "disk_mib": 1},
    }
    return Recipe.model_validate({**values, **changes})


def make_run(parent: Path, **changes: Any) -> RunFolder:
    """A new run folder under `parent`."""
    return RunFolder.create(make_recipe(**changes), parent=parent)


def stand_in_swift(folder: Path, body: str) -> str:
    """A program for PALMSWIFT_SWIFT that runs `body` (Python; `argv` are its words)."""
    script = folder / "swift.py"
    script.write_text(f"import sys\nargv = sys.argv[1:]\n{body}\n", encoding="utf-8")
    return f"{sys.executable} {script}"


def write_checkpoint(output: Path, step: int, best: int | None = None) -> Path:
    """A checkpoint folder as ms-swift leaves it, without real weights."""
    folder = output / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    (folder / "trainer_state.json").write_text(
        f'{{"best_global_step": {best if best is not None else "null"}}}', encoding="utf-8"
    )
    return folder
