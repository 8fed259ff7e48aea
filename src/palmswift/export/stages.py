"""The stages of an export: merge, quantise, convert, each checked and proven before it is whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from palmswift.errors import ChildError, InputError, Problem
from palmswift.export import carry, checks, quantise
from palmswift.export.manifest import (
    MANIFEST,
    Check,
    Exported,
    Manifest,
    ParityResult,
    manifest_of,
    read_manifest,
    stop_tokens_of,
    write_manifest,
)
from palmswift.export.proof import MAX_TOKENS, ROWS, prove, result_of, standard_of
from palmswift.files import sha256_of, with_usual_modes, write_json
from palmswift.launchers.checkpoint_files import read_document, weight_files
from palmswift.launchers.merge import (
    LEAST_MEMORY,
    MEMORY_LIMIT,
    adapter_of,
    base_folder,
    carry_files,
    has_adapter,
    merge_stage,
    merged_dtype,
    trained_checkpoint,
)

if TYPE_CHECKING:
    from palmswift.command import Console
    from palmswift.deploy.parity_truth import Truth
    from palmswift.launchers.run_folder import RunFolder
    from palmswift.recipes.recipe import ExportSettings, SwiftValue


class Plan(NamedTuple):
    """What is to be made of a run, and how."""

    merge: bool = False
    quant: str | None = None
    bits: int | None = None
    gguf: str | None = None
    ollama: bool = False
    out: Path | None = None
    llama_cpp: Path | None = None
    parity: bool = True
    limit: float | None = None
    memory_limit: int = MEMORY_LIMIT
    rows: int = quantise.CALIBRATION_ROWS


def plan_of(settings: ExportSettings) -> Plan:
    """What a recipe's `export` asks for at the end of a pipeline."""
    gguf = settings.gguf or ("q4_k_m" if settings.ollama else None)
    return Plan(
        merge=settings.merge,
        quant=settings.quant,
        bits=settings.bits,
        gguf=gguf,
        ollama=settings.ollama,
    )


def check_plan(plan: Plan, run: RunFolder) -> None:
    """`InputError`, all reasons at once and before any work, where it cannot be done here."""
    checkpoint = trained_checkpoint(run)
    problems = []
    if plan.merge and not has_adapter(checkpoint):
        adapter_of(run)  # says so
    if plan.bits is not None and plan.quant is None:
        problems.append(Problem("is a property of --quant", "--bits", "--quant bnb --bits 8"))
    if plan.memory_limit < LEAST_MEMORY:
        least = f"{LEAST_MEMORY >> 30}GiB"
        problems.append(Problem(f"torch alone takes nearly {least}", "--memory-limit", least))
    if plan.rows < 1:
        problems.append(Problem("must be at least 1", "--calibration-rows"))
    if plan.limit is not None and not plan.limit >= 0:
        problems.append(Problem("must be at least 0", "--max-divergence"))
    if plan.quant is not None:
        asked = quantise.wanted(plan.quant, plan.bits)
        problems += quantise.tool_problems(asked)
        problems += quantise.room_problems(asked, _weights(run, checkpoint), run.path)
    if plan.gguf is not None:
        from palmswift.export.gguf import require_kind

        require_kind(plan.gguf, plan.llama_cpp)
    if plan.out is not None:
        if bool(plan.merge) + bool(plan.quant) + bool(plan.gguf) > 1:
            problems.append(Problem("is for one result", "--out", "one call for each"))
        carry.require_free_folder(plan.out)
    if problems:
        raise InputError(f"{run.path.name} cannot be exported this way", problems)


def _weights(run: RunFolder, checkpoint: Path) -> int:
    """Bytes of the whole model's weights in 16 bit, as far as they lie here."""
    folder = base_folder(run) if has_adapter(checkpoint) else checkpoint
    if not folder.is_dir() or not any(folder.glob("*.safetensors")):
        return 0
    return 2 * sum(_numbers(tensor.shape) for tensor in checks.tensors_of(folder).values())


def _numbers(shape: tuple[int, ...]) -> int:
    count = 1
    for side in shape:
        count *= side
    return count


def export_stages(run: RunFolder, plan: Plan, console: Console) -> list[Exported]:
    """Everything that the plan asks for; what is whole and proven already is left as it is."""
    truth = None
    if plan.parity:
        from palmswift.deploy.parity_truth import truth_of_run

        console.note("ask      the trained model, to compare with (once for a run)")
        truth = truth_of_run(run, most=ROWS, max_tokens=MAX_TOKENS)
    source = trained_checkpoint(run)
    made = []
    if has_adapter(source):
        source = merge_stage(run, console, memory_limit=plan.memory_limit)
    if plan.merge:
        made.append(_merged(run, source, truth, plan, console))
    if plan.quant is not None:
        made.append(_quantised(run, source, truth, plan, console))
    if plan.gguf is not None:
        made += _gguf(run, source, plan, console)
    if plan.out is not None:
        made = [_placed(made[0], plan.out), *made[1:]]
    return made


def _merged(
    run: RunFolder, folder: Path, truth: Truth | None, plan: Plan, console: Console
) -> Exported:
    facts = run.facts("merge")
    told = ("by", "changed", "replaced", "by_rows", "peak_mib")
    settings = {name: facts[name] for name in told if name in facts}
    asked = str(facts.get("dtype") or merged_dtype(run))
    known = _known(run, folder, truth, plan)
    if known is not None:
        return known
    made = Exported(
        kind="merged",
        path=folder,
        asked=asked,
        found=checks.stored_as(folder),
        bytes=checks.weights_bytes(folder),
        settings=settings,
        checks=checks.check_model(folder, None, None),
    )
    same = made.found == asked
    typed = Check(name="type", passed=same, detail="" if same else f"{made.found}, not {asked}")
    made = made.model_copy(update={"checks": [*made.checks, typed]})
    return _finished(run, folder, made, truth, plan, console)


def _quantised(
    run: RunFolder, source: Path, truth: Truth | None, plan: Plan, console: Console
) -> Exported:
    asked = quantise.wanted(plan.quant or "", plan.bits)
    folder = run.path / "export" / asked.kind
    known = _known(run, folder, truth, plan)
    if known is not None:
        return known
    part = folder.with_name(f".{asked.kind}.part")
    with run.stage(f"export {asked.kind}") as facts:
        settings = _made_whole(
            folder, part, lambda: quantise.quantise(run, source, part, asked, plan.rows, console)
        )
        _carry_arguments(source, folder)
        made = Exported(
            kind=asked.kind,
            path=folder,
            asked=asked.text,
            found=_found(folder),
            bytes=checks.weights_bytes(folder),
            settings=settings,
            checks=checks.check_model(folder, source, asked),
        )
        made = _finished(run, folder, made, truth, plan, console)
        facts["folder"] = str(folder.relative_to(run.path))
    return made


def _made_whole(
    folder: Path, part: Path, make: Callable[[], dict[str, SwiftValue | None]]
) -> dict[str, SwiftValue | None]:
    """Make a folder beside its place, and put it there when it is whole."""
    shutil.rmtree(part, ignore_errors=True)
    try:
        settings = make()
        with_usual_modes(part)
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return settings


def _carry_arguments(source: Path, folder: Path) -> None:
    """args.json, by which ms-swift knows the template of a folder, where it is not there yet."""
    known = read_document(source / "args.json")
    if known is not None and not (folder / "args.json").exists():
        config = read_document(folder / "config.json") or {}
        dtype = str(config.get("dtype") or config.get("torch_dtype") or "bfloat16")
        write_json(folder / "args.json", {**known, "torch_dtype": dtype})


def _found(folder: Path) -> str:
    config = (read_document(folder / "config.json") or {}).get("quantization_config") or {}
    bits = checks.told_bits(config)
    how = config.get("quant_method", "not quantised")
    return f"{how} {bits} bit" if bits else str(how)


def _known(run: RunFolder, folder: Path, truth: Truth | None, plan: Plan) -> Exported | None:
    """What an earlier export left, when it is of these weights and was proven as asked."""
    manifest = read_manifest(folder)
    if manifest is None or not _of_these_weights(run, manifest):
        return None
    found = Exported(
        kind=manifest.kind,
        path=folder,
        asked=manifest.asked,
        found=manifest.found,
        bytes=manifest.bytes,
        settings=manifest.settings,
        checks=manifest.checks,
        parity=manifest.parity,
        remarks=manifest.remarks,
    )
    proven = found.parity is not None or truth is None
    same_limit = plan.limit is None or (found.parity and found.parity.limit == plan.limit)
    return found if found.passed and proven and same_limit else None


def _of_these_weights(run: RunFolder, manifest: Manifest) -> bool:
    checkpoint = trained_checkpoint(run)
    now = {file.name: sha256_of(file) for file in weight_files(checkpoint)}
    return manifest.weights == now


def _finished(
    run: RunFolder,
    folder: Path,
    made: Exported,
    truth: Truth | None,
    plan: Plan,
    console: Console,
) -> Exported:
    """With template, licence and card, compared with the training, and its manifest written."""
    (folder / MANIFEST).unlink(missing_ok=True)
    base = base_folder(run)
    if base.is_dir():
        carry_licence(base, folder)
    carry.write_card(run, folder, base, f"Weights in {made.found}")
    found, remarks = list(made.checks), list(made.remarks)
    parity: ParityResult | None = None
    if truth is None:
        remarks.append("not compared with the trained model: --no-parity")
    elif not made.passed:
        remarks.append("not compared with the trained model: a check failed")
    else:
        found += [carry.carry_template(run, folder, truth), carry.carry_stops(folder, truth)]
        parity, loads = _proved(run, folder, made, truth, plan, console)
        found.append(loads)
    made = made.model_copy(update={"checks": found, "parity": parity, "remarks": remarks})
    write_manifest(manifest_of(run, made, stop_tokens_of(folder)), folder)
    return made


def _proved(
    run: RunFolder,
    folder: Path,
    made: Exported,
    truth: Truth,
    plan: Plan,
    console: Console,
) -> tuple[ParityResult | None, Check]:
    """The comparison, and whether the serving environment could load it at all."""
    from palmswift.deploy.parity import lines

    standard = standard_of(run, quantised=made.kind not in ("merged", "model"), limit=plan.limit)
    try:
        report = prove(run, folder, truth, standard, console)
    except ChildError as error:
        return None, Check(name="loads", passed=False, detail=error.summary)
    write_json(folder / "parity.json", report.model_dump(mode="json"))
    for line in lines(report, truth):
        console.note(line)
    return result_of(report, standard.limit), Check(name="loads", passed=True)


def carry_licence(base: Path, folder: Path) -> None:
    """The base's licence and tokenizer files where what made the folder has left them out."""
    part = folder / ".carried"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    try:
        carry_files(base, part)
        for file in part.iterdir():
            legal = file.name.startswith(("LICEN", "NOTICE", "USE_POLICY"))
            if not (folder / file.name).exists() and (
                legal or file.name == "generation_config.json"
            ):
                shutil.move(str(file), folder / file.name)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _gguf(run: RunFolder, source: Path, plan: Plan, console: Console) -> list[Exported]:
    from palmswift.export.gguf import gguf_stage

    kind = plan.gguf or ""
    made = gguf_stage(
        run,
        source,
        kind,
        console,
        llama_cpp=plan.llama_cpp,
        parity=plan.parity,
        limit=plan.limit,
    )
    if not plan.ollama:
        return [made]
    from palmswift.export.ollama import ollama_stage

    return [made, ollama_stage(run, made, console)]


def _placed(made: Exported, out: Path) -> Exported:
    """The result where it was asked for: linked where the disk is the same, else copied."""
    source = made.path if made.path.is_dir() else made.path.parent
    shutil.rmtree(out, ignore_errors=True)  # an empty folder, as was checked
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        shutil.copytree(source, part, copy_function=_link_or_copy)
        part.rename(out)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    path = out if made.path.is_dir() else out / made.path.name
    return made.model_copy(update={"path": path})


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without links
        shutil.copy2(source, target)
