"""The merge stage: a run's adapter and its base become one model in 16 bit, on the CPU."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from palmswift.errors import ChildError, InputError, Problem

if TYPE_CHECKING:
    from palmswift.command import Console
    from palmswift.launchers.merge_plan import MergeResult
    from palmswift.launchers.run_folder import RunFolder
    from palmswift.recipes.recipe import SwiftValue

MEMORY_LIMIT = 4 << 30
"""Bytes that a merge holds at most unless it is told otherwise."""

LEAST_MEMORY = 1 << 30
"""Bytes under which torch and peft themselves leave too little room."""

SHARD_BYTES = 5_000_000_000
"""What one file of weights holds at most: as ms-swift's `max_shard_size`."""

_QUANTISATION = ("quant_method", "quant_bits")

_CARRIED = (
    *("*.json", "*.jinja", "*.txt", "*.model", "*.py", "*.tiktoken"),
    *("LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*"),
)
_NOT_CARRIED = (
    *("model.safetensors.index.json", "adapter_config.json", "args.json", "trainer_state.json"),
    *("palmswift.json", "palmswift-export.json", "parity.json", "exact_resume*.json"),
)

_DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


def merged_dtype(folder: RunFolder) -> str:
    """The type of the merged weights, as torch names it.

    The base is loaded in 16 or 32 bit even when it was trained on in 4 bit: a merge into 4-bit
    weights loses quality (unslothai/unsloth#1089), so a quantised base is given bfloat16.
    """
    recipe = folder.recipe
    if any(name in recipe.swift for name in _QUANTISATION):
        return "bfloat16"
    return str(recipe.swift.get("torch_dtype", "bfloat16"))


def merge_arguments(folder: RunFolder, checkpoint: Path, out: Path) -> dict[str, SwiftValue]:
    """The `swift export` arguments that merge a checkpoint's adapter."""
    from palmswift.launchers.arguments import source_arguments

    recipe = folder.recipe
    kept: dict[str, SwiftValue] = {
        name: recipe.swift[name] for name in ("model_type", "template") if name in recipe.swift
    }
    return {
        **source_arguments(recipe, str(folder.facts("model")["model"])),
        "adapters": [str(checkpoint)],
        "merge_lora": True,
        "torch_dtype": merged_dtype(folder),
        # Merging is a few additions a weight; on the CPU it needs no memory of the card.
        "device_map": "cpu",
        "output_dir": str(out),
        **kept,
    }


def merge_stage(folder: RunFolder, console: Console, *, memory_limit: int = MEMORY_LIMIT) -> Path:
    """Merge the run's adapter into `export/merged`; the folder, which appears when it is whole.

    `InputError` when the run has no adapter, or it or its base is damaged, or the disk has no room;
    `ChildError` when no weights came of it.
    """
    from palmswift.files import with_usual_modes
    from palmswift.launchers.merge_plan import left_to_swift, require_whole
    from palmswift.recipes.source import shown

    out = folder.path / "export" / "merged"
    if folder.is_done("merge") and (out / "config.json").is_file():
        return out
    checkpoint, base = adapter_of(folder), base_folder(folder)
    require_whole(base, checkpoint)
    reason = left_to_swift(base, checkpoint)
    part = out.with_name(".merged.part")
    with folder.stage("merge") as facts:
        shutil.rmtree(part, ignore_errors=True)  # what an attempt that was stopped has left
        part.parent.mkdir(parents=True, exist_ok=True)
        console.note(f"merge    into {shown(out)}")
        try:
            if reason:
                console.note(f"         by swift export, the whole model in memory: {reason}")
                _merge_by_swift(folder, checkpoint, part)
            else:
                found = _merge_by_shards(folder, base, checkpoint, part, memory_limit)
                facts.update(found.model_dump(exclude={"error"}))
            _write_arguments(checkpoint, part, merged_dtype(folder))
            with_usual_modes(part)
            shutil.rmtree(out, ignore_errors=True)
            part.rename(out)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
        facts["merged"] = str(out.relative_to(folder.path))
        facts["dtype"] = merged_dtype(folder)
        facts["by"] = "swift export" if reason else "palmswift"
    return out


def base_folder(folder: RunFolder) -> Path:
    """Where the base lies; for a hub id, where ms-swift had fetched it to when it trained."""
    known = str(folder.facts("model")["model"])
    if Path(known).is_dir():
        return Path(known)
    return Path(str(folder.state.swift_arguments.get("model_dir") or known))


def trained_checkpoint(folder: RunFolder) -> Path:
    """The checkpoint of a finished training, whole; `InputError` otherwise."""
    from palmswift.launchers.checkpoint_files import missing_parts
    from palmswift.recipes.source import shown

    name = folder.path.name
    found = folder.facts("train").get("checkpoint")
    if not folder.is_done("train") or not found:
        raise InputError(
            f"{name} has no trained checkpoint to export",
            remedy=f"python launchers/train.py --resume {name}",
        )
    checkpoint = folder.path / str(found)
    left = f"python launchers/runs.py show {name} tells which checkpoints are left"
    if not checkpoint.is_dir():
        raise InputError(f"{shown(checkpoint)} is not there any more", remedy=left)
    if faults := missing_parts(checkpoint, resumable=False):
        problems = [Problem(fault, shown(checkpoint)) for fault in faults]
        raise InputError(f"{checkpoint.name} of {name} is not whole", problems, remedy=left)
    return checkpoint


def adapter_of(folder: RunFolder) -> Path:
    """The checkpoint of a finished LoRA training, whole; `InputError` when there is none."""
    from palmswift.recipes.source import shown

    checkpoint = trained_checkpoint(folder)
    if not has_adapter(checkpoint):
        raise InputError(
            f"{folder.path.name} was tuned in full: there is no adapter to merge",
            remedy=f"its model is {shown(checkpoint)}",
        )
    return checkpoint


def has_adapter(checkpoint: Path) -> bool:
    """Whether a checkpoint holds an adapter, or the half of one."""
    names = ("adapter_config.json", "adapter_model.safetensors")
    return any((checkpoint / name).is_file() for name in names)


def require_room(needed: int, place: Path, what: str) -> None:
    """`InputError` when the disk at `place` has not `needed` bytes and a little more."""
    free = shutil.disk_usage(place).free
    if free < needed + (64 << 20):
        raise InputError(
            f"{what} takes {needed / 1e9:.1f} GB, and the disk of {place} has {free / 1e9:.1f} GB",
            remedy="free some room (python launchers/runs.py clean), or keep runs/ on another disk",
        )


def _merge_by_swift(folder: RunFolder, checkpoint: Path, out: Path) -> None:
    from palmswift.files import write_text
    from palmswift.launchers.arguments import child_environment
    from palmswift.launchers.diagnosis import diagnose
    from palmswift.launchers.render import render_command
    from palmswift.process import ProcessGroup
    from palmswift.recipes.source import shown

    command = render_command(
        "export",
        merge_arguments(folder, checkpoint, out),
        env=child_environment(folder.recipe, str(folder.facts("model")["model"])),
        title=f"{folder.recipe.name}: merge the adapter",
    )
    write_text(folder.path / "export" / "command.sh", command.script)
    log = folder.logs / "merge.log"
    log_start = log.stat().st_size if log.is_file() else 0
    with ProcessGroup(command.argv, log=log, env=command.env) as child:
        exit_code = child.wait()
    if exit_code != 0 or not any(out.glob("*.safetensors")):
        found = diagnose(log, exit_code, start=log_start)
        raise ChildError(
            f"the merge failed: {found.cause}",
            remedy=f"{found.remedy}\n     log: {shown(log)}",
        )


def _merge_by_shards(
    folder: RunFolder, base: Path, checkpoint: Path, out: Path, memory_limit: int
) -> MergeResult:
    from palmswift.files import write_json, write_text
    from palmswift.launchers.checkpoint_files import read_document
    from palmswift.launchers.merge_plan import MergeSpec, base_tensors, unties

    dtype = merged_dtype(folder)
    width = 4 if dtype == "float32" else 2
    numbers = sum(_count(tensor.shape) for _, tensor in base_tensors(base).values())
    require_room(numbers * width, out.parent, "the merged model")
    out.mkdir()
    spec = MergeSpec(
        base=base,
        adapter=checkpoint,
        out=out,
        dtype=_DTYPES[dtype],
        memory_limit=memory_limit,
        shard_bytes=SHARD_BYTES,
        untied=unties(base, checkpoint),
    )
    told = out.parent / ".merge-spec.json"
    write_text(told, spec.model_dump_json())
    try:
        result = _run_child(folder, told)
    finally:
        told.unlink(missing_ok=True)
    carry_files(base, out)
    config = {**(read_document(base / "config.json") or {}), "dtype": dtype}
    config.pop("torch_dtype", None)
    if spec.untied:
        config["tie_word_embeddings"] = False
    write_json(out / "config.json", config)
    return result


def _write_arguments(checkpoint: Path, out: Path, dtype: str) -> None:
    """args.json, by which ms-swift knows the template and the system of a model folder.

    Without the training's quantisation: ms-swift would load the merged weights in 4 bit, in silence
    (swift/arguments/base_args/base_args.py, load_args_from_ckpt).
    """
    from palmswift.files import write_json
    from palmswift.launchers.checkpoint_files import read_document

    trained = read_document(checkpoint / "args.json")
    if trained is not None:
        kept = {n: v for n, v in trained.items() if not n.startswith(("quant_", "bnb_", "hqq_"))}
        write_json(out / "args.json", {**kept, "torch_dtype": dtype, "adapters": []})


def _run_child(folder: RunFolder, told: Path) -> MergeResult:
    from palmswift.launchers.diagnosis import diagnose
    from palmswift.launchers.merge_plan import MergeResult
    from palmswift.process import ProcessGroup
    from palmswift.recipes.source import shown

    answered = told.with_name(".merge-result.json")
    answered.unlink(missing_ok=True)
    log = folder.logs / "merge.log"
    start = log.stat().st_size if log.is_file() else 0
    argv = [sys.executable, "-m", "palmswift.launchers.merge_worker", str(told), str(answered)]
    try:
        with ProcessGroup(argv, log=log) as child:
            code = child.wait()
        if answered.is_file():
            result = MergeResult.model_validate_json(answered.read_bytes())
            if not result.error:
                return result
            raise InputError(f"the merge failed: {result.error}", remedy=_remedy(result.error))
        found = diagnose(log, code, start=start)
        remedy = f"{found.remedy}\n     log: {shown(log)}"
        raise ChildError(f"the merge failed: {found.cause}", remedy=remedy)
    finally:
        answered.unlink(missing_ok=True)


def _remedy(error: str) -> str:
    if "disk" in error:
        return "free some room (python launchers/runs.py clean), and run the same command again"
    if "MiB" in error:
        return "a larger --memory-limit, such as 4GiB"
    return "the adapter or its base is damaged: look at the training's last losses"


def _count(shape: tuple[int, ...]) -> int:
    found = 1
    for side in shape:
        found *= side
    return found


def carry_files(source: Path, out: Path) -> None:
    """Copy what makes weights a model: configuration, tokenizer, chat template, licence."""
    for file in sorted({found for pattern in _CARRIED for found in source.glob(pattern)}):
        if file.is_file() and not any(file.match(pattern) for pattern in _NOT_CARRIED):
            shutil.copyfile(file, out / file.name)
