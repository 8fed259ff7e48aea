"""GGUF of a finished run: llama.cpp's own converter and quantiser, checked, then asked."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from unicodedata import normalize

from palmswift import __version__
from palmswift.errors import ChildError, InputError, Problem
from palmswift.export.llama_cpp import tools
from palmswift.export.llama_cpp.checks import Wanted, look_at
from palmswift.export.llama_cpp.fit import on_eight_gb
from palmswift.export.llama_cpp.kinds import KINDS
from palmswift.export.llama_cpp.pre_tokenizer import PreTokenizer, pre_tokenizer_of
from palmswift.export.llama_cpp.proof import prove, standard_for
from palmswift.export.llama_cpp.templates import Chosen, Policy, choose, own_template, unchecked
from palmswift.export.manifest import (
    Check,
    Exported,
    ParityResult,
    manifest_of,
    stop_tokens_of,
    write_manifest,
)
from palmswift.export.proof import MAX_TOKENS, ROWS, Standard, result_of
from palmswift.files import write_json, write_text
from palmswift.launchers.checkpoint_files import missing_parts, read_document, weight_files
from palmswift.launchers.diagnosis import diagnose
from palmswift.launchers.tensor_file import read_header
from palmswift.process import ProcessGroup
from palmswift.recipes.source import shown

if TYPE_CHECKING:
    from palmswift.command import Console
    from palmswift.deploy.parity_truth import Truth
    from palmswift.launchers.run_folder import RunFolder

_OUTTYPES = {"F32": "f32", "F16": "f16", "BF16": "bf16"}
"""What weights are converted as before they are quantised: as they are."""

_STAGING = ".model"


class _Job(NamedTuple):
    """One export."""

    run: RunFolder
    merged: Path
    kind: str
    folder: Path
    own: Path | None
    console: Console

    @property
    def file(self) -> Path:
        return self.folder / f"{self.run.recipe.served_name}-{self.kind}.gguf"

    @property
    def log(self) -> Path:
        return self.run.logs / "gguf.log"


def gguf_stage(
    run: RunFolder,
    merged: Path,
    kind: str,
    console: Console,
    *,
    llama_cpp: Path | None = None,
    parity: bool = True,
    limit: float | None = None,
) -> Exported:
    """Make `export/gguf-KIND/` of the whole model in `merged`.

    `llama_cpp` is the user's own; `parity` false leaves the comparison out, `limit` is what it
    allows in nats a token (by default the kind's). `InputError`: an unknown kind, no whole model,
    no quantiser, no room. `ChildError`: a program failed.
    """
    kind = kind.lower()
    require_kind(kind, llama_cpp)
    folder = run.path / "export" / f"gguf-{kind}"
    job = _Job(run, merged, kind, folder, tools.own_folder(llama_cpp), console)
    standard = standard_for(run, kind, limit)
    pre = _check(job)
    quantiser = None if KINDS[kind].outtype else tools.quantiser(job.own)
    server = tools.server(job.own) if parity else None
    converter = tools.converter(job.own, console.note)
    truth = truth_of(run) if parity else None
    chosen = _template(job, truth)
    with run.stage(f"export gguf-{kind}") as facts:
        shutil.rmtree(folder, ignore_errors=True)  # what an attempt that was stopped has left
        _convert(job, converter, quantiser, pre, chosen)
        made = _judged(job, pre, chosen, truth, server, standard)
        settings = {"converter": converter.origin, "template": chosen.origin}
        if quantiser is not None:
            settings["quantiser"] = quantiser.origin
        made = made.model_copy(update={"settings": {**settings, **made.settings}})
        write_manifest(manifest_of(run, made, stop_tokens_of(merged)), folder)
        facts["gguf"] = str(made.path.relative_to(run.path))
    return made


def require_kind(kind: str, llama_cpp: Path | None) -> None:
    """`InputError` where there is no such kind, or nothing here that could make it."""
    if kind.lower() not in KINDS:
        like = get_close_matches(kind.lower(), KINDS, n=1)
        meant = f"did you mean {like[0]}? There are " if like else "one of "
        raise InputError(f"there is no GGUF kind {kind!r}", remedy=f"{meant}{', '.join(KINDS)}")
    own = tools.own_folder(llama_cpp)
    if KINDS[kind.lower()].outtype is None:
        tools.quantiser(own)
    tools.require_reader()


def _check(job: _Job) -> PreTokenizer:
    """Everything that can be known to be wrong with the model before any work."""
    if faults := missing_parts(job.merged, resumable=False):
        raise InputError(
            f"{shown(job.merged)} is no whole model",
            [Problem(fault) for fault in faults],
            remedy="python launchers/export.py --merge makes it anew",
        )
    _require_room(job)
    pre = pre_tokenizer_of(read_document(job.merged / "tokenizer.json") or {})
    if pre.name is None:
        job.console.note(f"gguf     {pre.reason}; only a tokenizer that llama.cpp knows converts")
    return pre


def _require_room(job: _Job) -> None:
    """`InputError` where the disk cannot hold the converted weights and the quantised ones."""
    weights = sum(file.stat().st_size for file in weight_files(job.merged))
    needed = weights if KINDS[job.kind].outtype else 2 * weights
    job.folder.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(job.folder.parent).free
    if free < needed:
        raise InputError(
            f"the disk of {shown(job.folder.parent)} has {free / 1e9:.1f} GB free, and up to "
            f"{needed / 1e9:.1f} GB are needed on the way to {job.kind}",
            remedy="free some, or put runs/ on another disk",
        )


def truth_of(run: RunFolder) -> Truth:
    """What the trained model sees and says; asked once, kept in the run."""
    from palmswift.deploy.parity_truth import truth_of_run

    return truth_of_run(run, most=ROWS, max_tokens=MAX_TOKENS)


def _template(job: _Job, truth: Truth | None) -> Chosen:
    swift = job.run.training_recipe.swift
    thinking, system = swift.get("enable_thinking"), swift.get("system")
    policy = Policy(
        thinking=thinking if isinstance(thinking, bool) else None,
        system=system if isinstance(system, str) else None,
    )
    own = own_template(job.merged)
    return unchecked(own, policy) if truth is None else choose(own, policy, truth)


def _convert(
    job: _Job,
    converter: tools.Tool,
    quantiser: tools.Tool | None,
    pre: PreTokenizer,
    chosen: Chosen,
) -> None:
    """Leave the file of the kind asked."""
    staging = _staged(job, chosen)
    outtype = KINDS[job.kind].outtype or _outtype(job.merged)
    first = job.file if quantiser is None else job.folder / f".{outtype}.gguf"
    job.console.note(f"convert  to {outtype} by {converter.origin}")
    module = f"{tools.__name__.rpartition('.')[0]}.convert_worker"
    words = [sys.executable, "-m", module, converter.argv[0], pre.name or "-", str(staging)]
    words += ["--outfile", str(first), "--outtype", outtype]
    words += ["--metadata", str(job.folder / ".metadata.json")]
    _run(job, words, first, "llama.cpp's converter failed")
    shutil.rmtree(staging)
    (job.folder / ".metadata.json").unlink()
    if quantiser is not None:
        job.console.note(f"quantise to {job.kind} by {quantiser.origin}")
        threads = str(os.cpu_count() or 1)
        words = [*quantiser.argv, str(first), str(job.file), job.kind.upper(), threads]
        _run(job, words, job.file, "llama.cpp's quantiser failed")
        first.unlink()


def _staged(job: _Job, chosen: Chosen) -> Path:
    """The model's folder as the converter is to see it: with the training's chat template."""
    staging = job.folder / _STAGING
    staging.mkdir(parents=True)
    for file in job.merged.iterdir():
        if file.is_file() and file.name not in ("chat_template.jinja", "chat_template.json"):
            (staging / file.name).symlink_to(file.resolve())
    config = staging / "tokenizer_config.json"
    told = read_document(config) or {}
    if "chat_template" in told:
        config.unlink()
        rest = {name: value for name, value in told.items() if name != "chat_template"}
        write_json(config, rest)
    write_text(staging / "chat_template.jinja", chosen.text)
    write_json(job.folder / ".metadata.json", _metadata(job))
    return staging


def _metadata(job: _Job) -> dict[str, object]:
    """What the file says of itself beside what the converter takes from the model's own card."""
    recipe = job.run.training_recipe
    base = recipe.model.id
    about: dict[str, object] = {
        "general.name": recipe.served_name,
        "general.basename": base.rpartition("/")[2],
        "general.finetune": recipe.name,
        "general.version": job.run.path.name,
        "general.description": recipe.summary,
        "general.quantized_by": f"palmswift {__version__}",
    }
    described = {"name": base.rpartition("/")[2], "version": recipe.model.revision or ""}
    if "/" in base:
        described["organization"] = base.partition("/")[0]
        host = "modelscope.cn/models" if recipe.model.source == "modelscope" else "huggingface.co"
        described["repo_url"] = f"https://{host}/{base}"
    return {**about, "general.base_models": [described]}


def _outtype(merged: Path) -> str:
    """As the weights are stored; bf16 where they are of several types."""
    types = {tensor.dtype for file in weight_files(merged) for tensor in read_header(file).values()}
    return _OUTTYPES.get(types.pop(), "bf16") if len(types) == 1 else "bf16"


def _run(job: _Job, words: Sequence[str], made: Path, what: str) -> None:
    """Run a program until its file is there; `ChildError` with the reason out of its log."""
    start = job.log.stat().st_size if job.log.is_file() else 0
    with ProcessGroup(words, log=job.log, env={"CUDA_VISIBLE_DEVICES": ""}) as child:
        code = child.wait()
    if code == 0 and made.is_file():
        return
    found = diagnose(job.log, code, start=start)
    cause, remedy = found.cause, found.remedy
    if "BPE pre-tokenizer was not recognized" in cause:
        reason = pre_tokenizer_of(read_document(job.merged / "tokenizer.json") or {}).reason
        cause = f"llama.cpp does not know this tokenizer, and {reason}"
        remedy = "train on a base whose tokenizer llama.cpp knows; Qwen2 to Qwen3 are"
    raise ChildError(f"{what}: {cause}", remedy=f"{remedy}\n     log: {shown(job.log)}")


def _judged(
    job: _Job,
    pre: PreTokenizer,
    chosen: Chosen,
    truth: Truth | None,
    server: tools.Tool | None,
    standard: Standard,
) -> Exported:
    """The file with everything that was found out about it."""
    stops = stop_tokens_of(job.merged)
    looked = look_at(job.file, job.merged, Wanted(job.kind, chosen.text, pre.name, stops))
    remarks = [on_eight_gb(job.file.stat().st_size, job.merged, looked.context), *looked.remarks]
    if pre.normalises:
        remarks.append(
            "llama.cpp does not compose characters (NFC) as this tokenizer does: text with "
            "combining accents is read otherwise, unless it is composed before it is sent"
        )
    checks = [*looked.checks, *([] if truth is None else [_template_check(chosen)])]
    result: ParityResult | None = None
    if truth is None:
        remarks.append("not compared with the training: --no-parity")
    elif server is None:
        remarks.append(f"not compared: no llama.cpp found; {tools.EXTRA}, or --llama-cpp DIR")
    elif not all(check.passed for check in looked.checks):
        remarks.append("not compared: the file itself is not in order")
    else:
        result = _proved(job, composed(truth), server, standard)
        remarks.append(f"asked through {server.origin}")
    return Exported(
        kind=f"gguf-{job.kind}",
        path=job.file,
        asked=job.kind,
        found=looked.found,
        bytes=job.file.stat().st_size,
        settings={"context": looked.context},
        checks=checks,
        parity=result,
        remarks=remarks,
    )


def composed(truth: Truth) -> Truth:
    """The truth with every prompt's characters composed, where its tokenizer does so anyway."""
    tokenizer = read_document(Path(truth.tokenizer) / "tokenizer.json") or {}
    if not pre_tokenizer_of(tokenizer).normalises:
        return truth
    asked = []
    for one in truth.expected:
        messages = [
            {**message, "content": normalize("NFC", message["content"])}
            for message in one.prompt.messages
        ]
        prompt = one.prompt.model_copy(update={"messages": messages})
        asked.append(one.model_copy(update={"prompt": prompt}))
    return truth.model_copy(update={"expected": asked})


def _template_check(chosen: Chosen) -> Check:
    detail = f"{chosen.origin}: {chosen.same} of {chosen.total} prompts have the training's tokens"
    passed = chosen.same == chosen.total
    return Check(
        name="template", passed=passed, detail="; ".join(filter(None, (detail, chosen.first)))
    )


def _proved(job: _Job, truth: Truth, server: tools.Tool, standard: Standard) -> ParityResult:
    from palmswift.deploy.parity import lines

    job.console.note(f"ask      {len(truth.expected)} prompts of it, through {server.origin}")
    log = job.run.logs / "gguf-server.log"
    found = prove(server, job.file, truth, run_name=job.run.path.name, log=log, standard=standard)
    write_json(job.folder / "parity.json", found.model_dump(mode="json"))
    for line in lines(found, truth):
        job.console.note(line)
    return result_of(found, standard.limit)
