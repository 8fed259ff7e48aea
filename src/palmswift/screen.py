"""The screen that a pipeline ends with: what was trained, how it went, base against tuned."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from palmswift.command import Console
from palmswift.launchers.run_folder import RunFolder
from palmswift.recipes.source import shown

if TYPE_CHECKING:
    from palmswift.eval.reports.report import EvaluationReport
    from palmswift.eval.suites.summary import Summary


class Row(NamedTuple):
    """A line: its label, what it says, and the style that a terminal shows it in."""

    label: str
    text: str
    style: str = ""
    prose: bool = False
    """It may be broken between words; a command or a path is one piece, to be copied."""


def closing_rows(folder: RunFolder, report: EvaluationReport) -> list[Row]:
    """What was trained and on what, how it went, base against tuned, and where to go on."""
    data = folder.facts("data")
    seconds = sum(stage.seconds or 0.0 for stage in folder.state.stages.values())
    endpoint = f"http://127.0.0.1:{folder.recipe.deploy.port}/v1"
    return [
        Row("model", _model(folder)),
        Row(
            "rows",
            f"{data.get('train')} trained on, {data.get('val')} held out, "
            f"{data.get('rejected')} rejected",
        ),
        Row("loss", _loss(folder)),
        *_comparison(report),
        *_verdicts(report),
        *_gates(report),
        Row("time", _duration(seconds)),
        Row("report", shown(folder.evaluation / "evaluation_report.html")),
        Row("", f"{shown(folder.data / 'report.html')} (every row that was left out, and why)"),
        Row("curves", f"tensorboard --logdir {shown(folder.training)}"),
        Row("serve", f"python deploy/serve.py --run {folder.path.name}", "bold"),
        Row("chat", f"python eval/chat.py --endpoint {endpoint}", "bold"),
        Row("", "in a second terminal, once `serve` says that it is ready"),
    ]


def show_closing(folder: RunFolder, report: EvaluationReport, console: Console) -> None:
    """Print the screen as the command's result, in colour where stdout is a terminal."""
    rows = closing_rows(folder, report)
    title = f"{folder.recipe.name}: {folder.recipe.summary}"
    width = max(len(row.label) for row in rows)
    console.say()
    if console.json_output or not sys.stdout.isatty():
        console.say(title)
        for row in rows:
            console.say(f"  {row.label:<{width}}  {row.text}")
        return
    from rich.console import Console as Terminal
    from rich.text import Text

    terminal = Terminal()
    terminal.print(Text(title, "bold"), soft_wrap=True)
    for row in rows:
        room = max(40, terminal.width - width - 4)
        for number, part in enumerate(textwrap.wrap(row.text, room) if row.prose else [row.text]):
            label = f"{'' if number else row.label:<{width}}"
            line = Text.assemble("  ", (label, "cyan"), "  ", (part, row.style))
            terminal.print(line, soft_wrap=True)


def _model(folder: RunFolder) -> str:
    model = str(folder.facts("model").get("model"))
    return shown(Path(model)) if Path(model).is_dir() else model


def _loss(folder: RunFolder) -> str:
    from palmswift.launchers.training_log import TrainingLog, sparkline

    history = TrainingLog(folder.training / "logging.jsonl")
    history.poll()
    losses = history.losses
    steps = f"{folder.facts('train').get('steps')} steps"
    if not losses:  # the run folder was copied without its log
        return steps
    return f"{losses[0]:.3f} {sparkline(losses)} {losses[-1]:.3f} in {steps}"


def _comparison(report: EvaluationReport) -> Iterator[Row]:
    """A small table: for each tag of the suite, each endpoint's count or score."""
    tagged = dict.fromkeys(s.tag for s in report.summaries if s.tag and not s.suite)
    tags: list[str | None] = [*tagged] or [None]
    lines: list[list[str]] = []
    for tag in tags:
        summaries = [report.summary(label, tag) for label in report.labels]
        for name, cells in _measured(summaries):
            lines.append([f"{tag or 'all cases'}, {name}", *cells])
    first = max((len(line[0]) for line in lines), default=0)
    width = max((len(cell) for line in lines for cell in line[1:]), default=0)
    width = max(width, *map(len, report.labels))
    yield Row("answers", " " * first + "".join(f"  {label:>{width}}" for label in report.labels))
    for name, *cells in lines:
        yield Row("", f"{name:<{first}}" + "".join(f"  {cell:>{width}}" for cell in cells))


def _measured(summaries: list[Summary]) -> Iterator[tuple[str, list[str]]]:
    """What is worth a line of a tag: exact answers, how near the others came, passed checks."""
    exact = [summary.metrics.get("exact_match") for summary in summaries]
    if any(found and found.n for found in exact):
        yield "exact", [f"{found.count}/{found.n}" if found else "-" for found in exact]
        if all(found and found.count == found.n for found in exact[-1:]):
            return
        chrf = [summary.metrics.get("chrf") for summary in summaries]
        if any(found and found.value is not None for found in chrf):
            cells = [f"{found.value:.1f}" if found and found.value else "0.0" for found in chrf]
            yield "chrF of 100", cells
        return
    passed = [summary.metrics.get("pass_rate") for summary in summaries]
    if any(found and found.n for found in passed):
        yield "passed", [f"{found.count}/{found.n}" if found else "-" for found in passed]


def _verdicts(report: EvaluationReport) -> Iterator[Row]:
    """Whether the tuned model is better than the base, and what of that is memory alone."""
    from palmswift.eval.verdicts.verdict_words import headline, sentences

    styles = {"helped": "bold green", "hurt": "bold red", "unsafe": "bold red"}
    for verdict in report.comparisons:
        yield Row("verdict", headline(verdict).en, styles.get(verdict.word, "bold yellow"))
        for sentence in sentences(verdict):
            yield Row("", sentence.en, prose=True)


def _gates(report: EvaluationReport) -> Iterator[Row]:
    from palmswift.eval.reports.table import bound_words, gate_words

    failed = [gate for gate in report.gates if gate.state == "failed"]
    for gate in failed:
        said = f"FAILED  {gate.endpoint}: {bound_words(gate.gate)}: {gate_words(gate)}"
        yield Row("gate", said, "bold red")
    if report.gates and not failed:
        yield Row("gates", "all passed", "green")
    if report.unanswered:
        said = f"{report.unanswered} requests have no reply: the report is not complete"
        yield Row("open", said, "bold red")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min in all"
    return f"{minutes} min {rest} s in all" if minutes else f"{rest} s in all"
