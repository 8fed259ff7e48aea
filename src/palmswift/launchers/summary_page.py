"""summary.html: one run on one page that needs no network, in English and Chinese."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from palmswift.data.page import render
from palmswift.files import write_text
from palmswift.launchers.curves import HEIGHT, WIDTH, panels
from palmswift.launchers.event_text import PHASE_WORDS, describe, duration
from palmswift.launchers.events import (
    AttemptEvent,
    EndEvent,
    Event,
    NoteEvent,
    Phase,
    PhaseEvent,
    SilenceEvent,
    read_events,
)
from palmswift.launchers.feed import curve
from palmswift.launchers.run_folder import RunFolder
from palmswift.launchers.run_list import line_of, size_words
from palmswift.recipes.load import resolved_yaml

PAGE = "summary.html"
_FOLDER = Path(__file__).parent / "page"
_HAPPENINGS = 60
"""Most lines of the run's story, the last ones."""
_TEXT_BYTES = 40_000
"""Most characters of the recipe or the command on the page."""


class Next(NamedTuple):
    """Something that can be done with the run, and its command."""

    en: str
    zh: str
    command: str


class Happening(NamedTuple):
    """A line of the run's story."""

    time: str
    text: str
    bad: bool


def write_summary(run: RunFolder) -> Path:
    """Write the run's page; where it is."""
    path = run.path / PAGE
    write_text(path, render(f"{PAGE}.j2", f"{run.path.name}: summary", _FOLDER, **_page(run)))
    return path


def _page(run: RunFolder) -> dict[str, Any]:
    events = list(read_events(run.events.path))
    steps, evaluations = curve(events)
    facts = run.facts("train")
    # Nothing that runs now is of interest: the page is of what has been.
    line = line_of(run.path)
    found = facts.get("memory")
    memory: dict[str, Any] = found if isinstance(found, dict) else {}
    failure = facts.get("failure") if isinstance(facts.get("failure"), dict) else None
    stage_errors = [stage.error for stage in run.state.stages.values() if stage.error]
    return {
        "run": run,
        "line": line,
        "outcome": outcome(run),
        "failure": failure,
        "error": stage_errors[-1] if stage_errors else "",
        "size": size_words(line.bytes),
        "took": duration(line.seconds or 0.0),
        "panels": panels(steps, evaluations, memory.get("planned_mib")),
        "width": WIDTH,
        "height": HEIGHT,
        "memory": memory,
        "plan": _plan(run),
        "phases": [
            (phase, PHASE_WORDS[phase], duration(seconds), seconds)
            for phase, seconds in phase_seconds(events).items()
        ],
        "stages": [
            (name, stage.state, duration(stage.seconds or 0.0))
            for name, stage in run.state.stages.items()
        ],
        "data": run.facts("data"),
        "tests": {
            name: stage.facts
            for name, stage in run.state.stages.items()
            if name.startswith("test_")
        },
        "happenings": _happenings(events),
        "next": list(_next(run)),
        "recipe": resolved_yaml(run.recipe)[:_TEXT_BYTES],
        "command": _text(run.path / "command.sh"),
    }


def outcome(run: RunFolder) -> str:
    """done, failed, interrupted or incomplete: what the last of the run's stages came to."""
    for stage in run.state.stages.values():
        if stage.state in ("failed", "interrupted"):
            return stage.state
        if stage.state == "running":
            return "interrupted"
    return "done" if run.is_done("train") else "incomplete"


def phase_seconds(events: Iterable[Event]) -> dict[Phase, float]:
    """The seconds of each phase of ms-swift, all launches together."""
    spent: dict[Phase, float] = {}
    current: Phase | None = None
    of_attempt = 0.0
    for event in events:
        if isinstance(event, AttemptEvent):
            current, of_attempt = "start", 0.0
        elif isinstance(event, PhaseEvent) and current is not None:
            seconds = event.seconds or 0.0
            spent[current] = spent.get(current, 0.0) + seconds
            of_attempt += seconds
            current = event.phase
        elif isinstance(event, EndEvent) and current is not None:
            spent[current] = spent.get(current, 0.0) + max(0.0, event.seconds - of_attempt)
            current = None
    return spent


def _happenings(events: Sequence[Event]) -> list[Happening]:
    """Launches, ends, notes and silences: not the steps."""
    told = [
        Happening(
            event.time[:19].replace("T", " "),
            describe(event),
            isinstance(event, SilenceEvent)
            or (isinstance(event, EndEvent) and bool(event.failure)),
        )
        for event in events
        if isinstance(event, AttemptEvent | EndEvent | NoteEvent | SilenceEvent)
    ]
    return told[-_HAPPENINGS:]


def _is_bad(event: Event) -> bool:
    return isinstance(event, SilenceEvent) or (isinstance(event, EndEvent) and event.failure != "")


def _next(run: RunFolder) -> Iterable[Next]:
    name = run.path.name
    if run.is_done("train"):
        yield Next("Serve it", "部署", f"python deploy/serve.py --run {name}")
        port = run.recipe.deploy.port
        yield Next(
            "Then talk to it, in another terminal",
            "然后在另一个终端对话",
            f"python eval/chat.py --endpoint http://127.0.0.1:{port}/v1",
        )
        yield Next(
            "Test it beside its base",
            "与基座模型对比测试",
            f"python launchers/pipeline.py --resume {name}",
        )
        if run.recipe.swift.get("tuner_type") != "full":
            yield Next(
                "Merge the adapter into the weights",
                "合并适配器",
                f"python launchers/export.py --run {name} --merge",
            )
    else:
        yield Next("Go on with it", "继续训练", f"python launchers/train.py --resume {name}")
    yield Next("Repeat it", "复现", f"python launchers/runs.py reproduce {name}")
    yield Next(
        "Look at the curves closely", "查看详细曲线", f"tensorboard --logdir runs/{name}/train"
    )


def _plan(run: RunFolder) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        document = json.loads((run.path / "plan.json").read_text(encoding="utf-8"))
        if isinstance(document, dict):
            return document
    return {}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")[:_TEXT_BYTES]
    except (OSError, UnicodeDecodeError):
        return ""
