"""The `export` command: merge a run's adapter into 16-bit weights."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from palmswift.command import Console, Done, make_parser, run
from palmswift.errors import ChildError, InputError

if TYPE_CHECKING:
    from palmswift.launchers.run_folder import RunFolder
    from palmswift.recipes.recipe import SwiftValue

EXAMPLES = """
python launchers/export.py --run latest --merge
"""

_QUANTISATION = ("quant_method", "quant_bits")


def merge_arguments(folder: RunFolder, checkpoint: Path, out: Path) -> dict[str, SwiftValue]:
    """The `swift export` arguments that merge a checkpoint's adapter.

    The base is loaded in 16 or 32 bit even when it was trained on in 4 bit: a merge into 4-bit
    weights loses quality (unslothai/unsloth#1089), so a quantised base is given bfloat16.
    """
    from palmswift.launchers.arguments import source_arguments

    recipe = folder.recipe
    quantised = any(name in recipe.swift for name in _QUANTISATION)
    dtype = "bfloat16" if quantised else recipe.swift.get("torch_dtype", "bfloat16")
    kept: dict[str, SwiftValue] = {
        name: recipe.swift[name] for name in ("model_type", "template") if name in recipe.swift
    }
    return {
        **source_arguments(recipe, str(folder.facts("model")["model"])),
        "adapters": [str(checkpoint)],
        "merge_lora": True,
        "torch_dtype": dtype,
        # Merging is a few additions a weight; on the CPU it needs no memory of the card.
        "device_map": "cpu",
        "output_dir": str(out),
        **kept,
    }


def merge_stage(folder: RunFolder, console: Console) -> Path:
    """Merge the run's adapter into `export/merged`; the folder.

    `InputError` when the run has no adapter, `ChildError` when ms-swift left no weights.
    """
    from palmswift.files import with_usual_modes, write_text
    from palmswift.launchers.arguments import child_environment
    from palmswift.launchers.diagnosis import diagnose
    from palmswift.launchers.render import render_command
    from palmswift.process import ProcessGroup
    from palmswift.recipes.source import shown

    out = folder.path / "export" / "merged"
    if folder.is_done("merge"):
        return out
    command = render_command(
        "export",
        merge_arguments(folder, _adapter(folder), out),
        env=child_environment(folder.recipe, str(folder.facts("model")["model"])),
        title=f"{folder.recipe.name}: merge the adapter",
    )
    write_text(folder.path / "export" / "command.sh", command.script)
    log = folder.logs / "merge.log"
    log_start = log.stat().st_size if log.is_file() else 0
    with folder.stage("merge") as facts:
        shutil.rmtree(out, ignore_errors=True)  # what an attempt that was stopped has left
        console.note(f"merge    into {shown(out)}")
        with ProcessGroup(command.argv, log=log, env=command.env) as child:
            exit_code = child.wait()
        if exit_code != 0 or not any(out.glob("*.safetensors")):
            found = diagnose(log, exit_code, start=log_start)
            raise ChildError(
                f"the merge failed: {found.cause}",
                remedy=f"{found.remedy}\n     log: {shown(log)}",
            )
        with_usual_modes(out)
        facts["merged"] = str(out.relative_to(folder.path))
    return out


def _adapter(folder: RunFolder) -> Path:
    """The checkpoint of a finished LoRA training."""
    from palmswift.recipes.source import shown

    name = folder.path.name
    found = folder.facts("train").get("checkpoint")
    if not folder.is_done("train") or not found:
        raise InputError(
            f"{name} has no trained checkpoint to merge",
            remedy=f"python launchers/train.py --resume {name}",
        )
    checkpoint = folder.path / str(found)
    if not (checkpoint / "adapter_config.json").is_file():
        raise InputError(
            f"{name} was tuned in full: there is no adapter to merge",
            remedy=f"its model is {shown(checkpoint)}",
        )
    return checkpoint


def _body(args: argparse.Namespace, console: Console) -> Done:
    from palmswift.launchers.run_folder import find_run
    from palmswift.recipes.source import shown

    if not args.merge:
        raise InputError("say what is to be made of the run", remedy="--merge")
    folder = find_run(args.run)
    with folder.lock():
        out = merge_stage(folder, console)
    console.say(f"merged   {shown(out)}")
    console.say(f"serve    python deploy/serve.py --model {shown(out)}")
    return Done({"run": str(folder.path), "merged": str(out)})


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; its exit code."""
    parser = make_parser("export.py", "Make a servable model of a finished run.", EXAMPLES)
    parser.add_argument("--run", default="latest", help="a run's name, folder, or `latest`")
    parser.add_argument("--merge", action="store_true", help="merge the adapter, in 16 bit")
    return run(parser, _body, argv)
