"""What a run was and came to, in lines: for `runs show`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from palmswift.launchers.event_text import duration
from palmswift.launchers.run_folder import RunFolder
from palmswift.launchers.run_list import RunLine, size_words
from palmswift.recipes.source import shown


def show_lines(run: RunFolder, line: RunLine) -> Iterator[tuple[str, str]]:
    """Labels and texts, one line each."""
    state = run.state
    yield "run", shown(run.path)
    yield "state", line.state + (f" ({line.stage})" if line.stage else "")
    if line.remark:
        yield "", line.remark
    if remedy := _remedy(run):
        yield "", f"-> {remedy}"
    if line.job is not None:
        when = f" (submitted {line.job.submitted})" if line.job.submitted else ""
        yield "job", f"{line.job}{when}"
    yield "recipe", f"{state.recipe}: {run.recipe.summary}"
    if state.overrides:
        yield "changed", " ".join(state.overrides)
    yield "model", str(run.facts("model").get("model", run.recipe.model.id))
    if data := run.facts("data"):
        yield (
            "rows",
            f"{data.get('train')} trained on, {data.get('val')} held out, "
            + (f"{data.get('rejected')} rejected of {data.get('read')}"),
        )
    yield from _training(run, line)
    times = [f"{name} {duration(stage.seconds or 0)}" for name, stage in state.stages.items()]
    yield "time", ", ".join(times) or "-"
    yield "size", size_words(line.bytes)
    yield "made", f"{state.created}, palmswift {state.palmswift}, {_versions(state.versions)}"
    if state.git_commit:
        changed = f" and {len(state.git_changes)} changed files" if state.git_changes else ""
        yield "code", f"{state.git_commit[:12]}{changed}"
    if state.reproduces:
        yield "repeats", state.reproduces
    yield from _next(run, line)


def _training(run: RunFolder, line: RunLine) -> Iterator[tuple[str, str]]:
    facts = run.facts("train")
    if line.steps is not None:
        loss = "" if line.loss is None else f", loss {line.loss:.4g}"
        lowest = "" if line.eval_loss is None else f", lowest eval loss {line.eval_loss:.4g}"
        yield "trained", f"{line.steps} steps{loss}{lowest}"
    attempts = facts.get("attempts")
    for attempt in attempts if isinstance(attempts, list) else []:
        changes = ", ".join(map(str, attempt.get("changes") or [])) or "as the recipe says"
        said = f"{attempt.get('outcome')} after {attempt.get('steps')} steps"
        yield "attempt", f"{attempt.get('number')}: {changes}: {said}"
    memory = facts.get("memory")
    if isinstance(memory, dict):
        yield "memory", memory_words(memory)
    if line.checkpoint:
        yield "checkpoint", line.checkpoint


def memory_words(memory: dict[str, Any]) -> str:
    """Planned and measured memory."""
    words = [
        f"{memory[f'{part}_mib']:,} MiB {part}"
        for part in ("planned", "measured")
        if isinstance(memory.get(f"{part}_mib"), int)
    ]
    return f"{' and '.join(words)} ({memory.get('of', 'memory')})"


def _remedy(run: RunFolder) -> str:
    failure = run.facts("train").get("failure")
    return str(failure.get("remedy", "")) if isinstance(failure, dict) else ""


def _versions(versions: dict[str, str]) -> str:
    return ", ".join(
        f"{name} {versions[name]}" for name in ("ms-swift", "torch") if name in versions
    )


def _next(run: RunFolder, line: RunLine) -> Iterator[tuple[str, str]]:
    name = run.path.name
    if line.state == "running":
        yield "follow", f"python launchers/runs.py tail {name}"
    elif line.state == "done":
        yield "serve", f"python deploy/serve.py --run {name}"
    else:
        yield "go on", f"python launchers/train.py --resume {name}"
    if (run.path / "summary.html").is_file():
        yield "page", shown(run.path / "summary.html")
