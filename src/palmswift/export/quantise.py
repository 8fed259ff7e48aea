"""Quantised forms of a trained model: bnb by ms-swift; AWQ, GPTQ, FP8 by llm-compressor.

`swift export` itself can make AWQ and GPTQ with autoawq, which nobody keeps any more and which does
not run with the transformers that ms-swift 4.6 asks for, and with optimum, on a GPU only.
llm-compressor is vLLM's own, runs on a CPU too, and what it makes is read by vLLM and transformers
alike. bitsandbytes is what ms-swift trains in, so there its own export is the way.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import psutil

from palmswift.errors import ChildError, InputError, Problem

if TYPE_CHECKING:
    from palmswift.command import Console
    from palmswift.launchers.run_folder import RunFolder
    from palmswift.recipes.recipe import SwiftValue

PYTHON_VARIABLE = "PALMSWIFT_QUANT_PYTHON"
"""Environment variable that names the Python that has llm-compressor; ours without it."""

CHILD = Path(__file__).with_name("quantise_worker.py")

BITS: dict[str, tuple[int, ...]] = {"bnb": (4, 8), "awq": (4,), "gptq": (4, 8), "fp8": (8,)}
"""Methods with the bits that they can have; the first is taken when none is asked for."""

GROUP_SIZE = 128
CALIBRATION_ROWS = 128

_MEMORY_FACTOR = {"bnb": 1.3, "awq": 1.6, "gptq": 1.6, "fp8": 1.6}
"""Memory in times of the 16-bit weights: all of them, and the work on one layer."""


class Wanted(NamedTuple):
    """A quantisation that was asked for."""

    method: str
    bits: int

    @property
    def kind(self) -> str:
        """The name of its folder."""
        return "fp8" if self.method == "fp8" else f"{self.method}-int{self.bits}"

    @property
    def text(self) -> str:
        """For people."""
        return "fp8" if self.method == "fp8" else f"{self.method} {self.bits} bit"


def wanted(method: str, bits: int | None) -> Wanted:
    """What `--quant METHOD --bits N` asks for; `InputError` when there is no such thing."""
    if method not in BITS:
        raise InputError(f"there is no quantisation {method!r}", remedy=f"one of {', '.join(BITS)}")
    possible = BITS[method]
    if bits is not None and bits not in possible:
        told = " or ".join(map(str, possible))
        raise InputError(f"{method} has {told} bits, not {bits}", remedy=f"--bits {possible[0]}")
    return Wanted(method, possible[0] if bits is None else bits)


def python() -> str:
    """The Python that has llm-compressor."""
    return os.environ.get(PYTHON_VARIABLE) or sys.executable


def tool_problems(asked: Wanted) -> Iterator[Problem]:
    """What is missing here to make it; nothing when it can be made."""
    if asked.method == "bnb":
        modules, where = ["bitsandbytes"], sys.executable
        remedy = "python3 quickstart.py install"
    else:
        modules, where = ["llmcompressor", "datasets"], python()
        # vLLM pins another release of compressed-tensors, so the two do not live together.
        remedy = (
            "give it an environment of its own: python3 -m venv .quant && "
            f".quant/bin/pip install llmcompressor && export {PYTHON_VARIABLE}="
            "$PWD/.quant/bin/python (without vLLM beside it: pip install 'palmswift[quant]')"
        )
    probe = f"import importlib.util as u, sys; sys.exit(None in map(u.find_spec, {modules}))"
    try:
        found = subprocess.run([where, "-c", probe], capture_output=True).returncode == 0
    except OSError as error:
        why = f"{where} could not be started: {error.strerror}"
        yield Problem(why, PYTHON_VARIABLE, "it has to name a Python that has llm-compressor")
        return
    if not found:
        yield Problem(
            f"{modules[0]} is not installed in {where}", f"--quant {asked.method}", remedy
        )


def room_problems(asked: Wanted, weights: int, place: Path) -> Iterator[Problem]:
    """Why memory or disk are too small for a model of `weights` bytes in 16 bit."""
    needed = weights * _MEMORY_FACTOR[asked.method] + (1 << 30)
    free = psutil.virtual_memory().available
    if free < needed:
        yield Problem(
            f"it holds the whole model in memory: {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB"
            " are free",
            f"--quant {asked.method}",
            "close what else runs, or use --gguf, which reads the model by pieces",
        )
    room = shutil.disk_usage(place).free
    if room < weights:
        yield Problem(
            f"up to {weights / 1e9:.1f} GB are written, and {room / 1e9:.1f} GB are free",
            str(place),
            "free some room (python launchers/runs.py clean)",
        )


def bnb_arguments(run: RunFolder, source: Path, out: Path, asked: Wanted) -> dict[str, SwiftValue]:
    """The `swift export` arguments; 4 bits are of the kind that the recipe was trained in."""
    swift = run.training_recipe.swift
    arguments: dict[str, SwiftValue] = {
        "model": str(source),
        "quant_method": "bnb",
        "quant_bits": asked.bits,
        "torch_dtype": "bfloat16",
        "output_dir": str(out),
        **{name: swift[name] for name in ("model_type", "template") if name in swift},
    }
    if asked.bits == 4:
        arguments |= {
            "bnb_4bit_compute_dtype": swift.get("bnb_4bit_compute_dtype", "bfloat16"),
            "bnb_4bit_quant_type": swift.get("bnb_4bit_quant_type", "nf4"),
            "bnb_4bit_use_double_quant": swift.get("bnb_4bit_use_double_quant", True),
        }
    return arguments


def quantise(
    run: RunFolder, source: Path, out: Path, asked: Wanted, rows: int, console: Console
) -> dict[str, SwiftValue | None]:
    """Write the quantised model into `out`; how it was made. `ChildError` when it failed."""
    from palmswift.recipes.source import shown

    console.note(f"quantise to {asked.text}, into {shown(out.parent)}")
    if asked.method == "bnb":
        _by_swift(run, source, out, asked)
        return {"by": "ms-swift and bitsandbytes"}
    made: dict[str, SwiftValue | None] = {"by": "llm-compressor"}
    if asked.method != "fp8":
        made |= {"group_size": GROUP_SIZE, "calibration_rows": rows}
    _by_llm_compressor(run, source, out, asked, rows)
    return made


def _by_swift(run: RunFolder, source: Path, out: Path, asked: Wanted) -> None:
    from palmswift.files import write_text
    from palmswift.launchers.arguments import child_environment
    from palmswift.launchers.render import render_command

    command = render_command(
        "export",
        bnb_arguments(run, source, out, asked),
        env=child_environment(run.training_recipe, str(source)),
        title=f"{run.recipe.name}: quantise to {asked.text}",
    )
    write_text(run.path / "export" / f"{asked.kind}.sh", command.script)
    _run(run, command.argv, command.env, out, asked)


def _by_llm_compressor(run: RunFolder, source: Path, out: Path, asked: Wanted, rows: int) -> None:
    from palmswift.files import write_json
    from palmswift.launchers.arguments import TrainingPaths, child_environment
    from palmswift.launchers.engines.mlx_engine import encode, token_file

    work = out.with_name(f"{out.name}.work")
    shutil.rmtree(work, ignore_errors=True)
    try:
        work.mkdir(parents=True)
        if asked.method != "fp8":
            model = str(source)
            paths = TrainingPaths(model, run.data / "train.jsonl", None, run.training)
            encode(run.training_recipe, paths, work, run.logs / "quantise.log")
        spec = {
            "model": str(source),
            "out": str(out),
            "method": asked.method,
            "bits": asked.bits,
            "group_size": GROUP_SIZE,
            "tokens": str(token_file(work, "train")),
            "rows": rows,
        }
        write_json(work / "spec.json", spec)
        env = child_environment(run.training_recipe, str(source))
        _run(run, [python(), str(CHILD), str(work / "spec.json")], env, out, asked)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _run(run: RunFolder, argv: list[str], env: dict[str, str], out: Path, asked: Wanted) -> None:
    from palmswift.launchers.diagnosis import diagnose
    from palmswift.process import ProcessGroup
    from palmswift.recipes.source import shown

    log = run.logs / "quantise.log"
    start = log.stat().st_size if log.is_file() else 0
    with ProcessGroup(argv, log=log, env=env) as child:
        code = child.wait()
    if code or not any(out.glob("*.safetensors")):
        found = diagnose(log, code, start=start)
        raise ChildError(
            f"{asked.text} could not be made: {found.cause}",
            remedy=f"{found.remedy}\n     log: {shown(log)}",
        )
