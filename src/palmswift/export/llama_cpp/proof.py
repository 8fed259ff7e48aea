"""Whether a GGUF file answers as the trained model does: asked through llama.cpp's own server."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from palmswift.deploy.parity import compare
from palmswift.deploy.parity_judge import Limits
from palmswift.deploy.readiness import is_healthy
from palmswift.errors import ChildError
from palmswift.export.llama_cpp.kinds import KINDS
from palmswift.export.llama_cpp.tools import Tool
from palmswift.export.proof import LOSSY_TIE, TIE, Standard, judged, standard_of
from palmswift.launchers.diagnosis import log_tail
from palmswift.process import ProcessGroup, family

if TYPE_CHECKING:
    from palmswift.deploy.parity_judge import ParityReport
    from palmswift.deploy.parity_truth import Truth
    from palmswift.launchers.run_folder import RunFolder

_POLL_SECONDS = 0.05
_SPARE = 64
"""Tokens of context beside the longest prompt and its answer."""


@contextmanager
def serving(tool: Tool, file: Path, *, log: Path, context: int, patience: float) -> Iterator[str]:
    """llama.cpp's server with the file, on loopback and a port of the system; its base URL.

    `ChildError`: it ended, or does not answer within `patience` seconds.
    """
    words = [*tool.argv, "-m", str(file), "--host", "127.0.0.1", "--port", "0"]
    words += ["--alias", file.stem, "-c", str(context), "-np", "1", "--jinja", "--check-tensors"]
    with ProcessGroup(words, log=log) as child:
        yield _ready(child, log, time.monotonic() + patience)


def _ready(child: ProcessGroup, log: Path, deadline: float) -> str:
    while True:
        if (code := child.poll()) is not None:
            raise _failed(f"llama.cpp could not load it (exit code {code})", log)
        for port in _ports(child.pid):
            base_url = f"http://127.0.0.1:{port}/v1"
            if is_healthy(base_url):
                return base_url
        if time.monotonic() > deadline:
            raise _failed("llama.cpp's server does not answer", log)
        time.sleep(_POLL_SECONDS)


def _ports(pid: int) -> list[int]:
    """The ports that the server's processes listen on."""
    found = []
    for process in family(pid):
        try:
            connections = process.net_connections(kind="tcp4")
        except psutil.Error:  # it ends just now
            continue
        found += [one.laddr.port for one in connections if one.status == psutil.CONN_LISTEN]
    return found


def _failed(what: str, log: Path) -> ChildError:
    last = "\n     ".join(log_tail(log, lines=5))
    return ChildError(f"{what}\n     {last}", remedy=f"log: {log}")


def standard_for(run: RunFolder, kind: str, limit: float | None) -> Standard:
    """What a kind is held to: what its merged weights are, and its own rounding besides."""
    merged, form = standard_of(run, quantised=False, limit=limit), KINDS[kind]
    if form.outtype is not None:
        return merged
    usual = max(form.limit, merged.limit)
    return Standard(usual if limit is None else limit, "quantisation_loss", lossy=True)


def prove(
    tool: Tool, file: Path, truth: Truth, *, run_name: str, log: Path, standard: Standard
) -> ParityReport:
    """Ask the file every prompt of the truth and judge it; `ChildError` when it does not load."""
    longest = max((len(one.prompt_ids) for one in truth.expected), default=0)
    context = longest + truth.max_tokens + _SPARE
    patience = 120.0 + file.stat().st_size / 50e6  # a slow disk reads 50 MB a second
    limits = Limits(tie=LOSSY_TIE if standard.lossy else TIE, divergence=standard.limit)
    with serving(tool, file, log=log, context=context, patience=patience) as base_url:
        found = compare(truth, run_name, base_url, file.stem, None, limits)
    return judged(found, truth, standard)
