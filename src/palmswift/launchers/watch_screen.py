"""The picture of a training on a terminal: phases, progress, loss curve, the card."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from palmswift.launchers.event_text import PHASE_WORDS, duration, evaluation_words
from palmswift.launchers.events import PHASES, CheckpointEvent, Event, Phase
from palmswift.launchers.gpu_meter import CardReading, GpuMeter
from palmswift.launchers.plot import braille

if TYPE_CHECKING:
    from palmswift.launchers.feed import Feed, Progress

_CURVE_WIDTH, _CURVE_HEIGHT = 56, 5
_BAR_WIDTH = 28
_ROOM_FOR_CURVE = 20
"""Lines that a terminal must have for the curve to be shown."""
_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_STAGE_NAMES = {"data": "check"}


class Picture:
    """Redrawn at each `show`; the last one stays when it is closed."""

    def __init__(self, stages: list[tuple[str, float]], console: Console | None = None) -> None:
        self.stages = stages
        self.console = console or Console(stderr=True)
        self._live = Live(console=self.console, auto_refresh=False, transient=False)
        self._gpus = GpuMeter()
        self._checkpoint = ""
        self._turn = 0

    def __enter__(self) -> Picture:
        self._live.start()
        return self

    def show(self, feed: Feed, events: list[Event], warning: str) -> None:
        """Draw how it stands."""
        for event in events:
            if isinstance(event, CheckpointEvent):
                self._checkpoint = event.name
        self._turn += 1
        self._live.update(self._picture(feed.progress, feed.seconds, warning), refresh=True)

    def close(self) -> None:
        """Leave the last picture standing."""
        self._live.stop()
        self._gpus.close()

    def _picture(self, progress: Progress, seconds: float, warning: str) -> Group:
        table = Table.grid(padding=(0, 1, 0, 0))
        table.add_column(width=3, justify="right")
        table.add_column(width=9)
        table.add_column(width=7, justify="right")
        table.add_column(no_wrap=True, overflow="ellipsis")
        for stage, stage_seconds in self.stages:
            name = _STAGE_NAMES.get(stage, stage)
            table.add_row(Text("✓", "green"), name, duration(stage_seconds), "")
        for phase in PHASES:
            count = progress.phase_count.get(phase, 0)
            if not count and not _is_expected(phase):
                continue
            current = phase == progress.phase
            spent = progress.phase_seconds.get(phase, 0.0)
            spent += seconds - progress.phase_since if current else 0.0
            mark, style = self._mark(phase, progress, current=current)
            said = self._said(phase, progress, count, current=current)
            took = duration(spent) if count else ""
            table.add_row(mark, Text(phase, style), Text(took, style), said)
        parts: list[Table | Text] = [table]
        if len(progress.losses) > 1 and self.console.height >= _ROOM_FOR_CURVE:
            parts += _curve(progress, min(_CURVE_WIDTH, self.console.width - 24))
        parts += [_card(reading) for reading in self._gpus.read()]
        if warning:
            parts.append(Text(f"  ! {warning}", "yellow"))
        return Group(*parts)

    def _mark(self, phase: Phase, progress: Progress, *, current: bool) -> tuple[Text, str]:
        if current and phase != "end":
            return Text(_SPINNER[self._turn % len(_SPINNER)], "cyan"), "bold"
        if phase in ("train", "evaluate", "save") and progress.phase != "end":
            return Text("·", "dim"), "" if phase in progress.phase_count else "dim"
        if phase in progress.phase_count:
            return Text("✓", "green"), ""
        return Text("·", "dim"), "dim"

    def _said(self, phase: Phase, progress: Progress, count: int, *, current: bool) -> Table | Text:
        if phase == "train" and (progress.max_steps or progress.step):
            return _training(progress)
        if phase == "evaluate" and count:
            return _evaluation(progress, count, current=current)
        if phase == "save" and count:
            return Text(f"{count} ×  {self._checkpoint}", "dim")
        return Text(PHASE_WORDS[phase] if current else "", "dim")


def _is_expected(phase: Phase) -> bool:
    """Whether a phase is shown before it has come: every training has it."""
    return phase in ("load", "encode", "train")


def _training(progress: Progress) -> Table:
    grid = Table.grid(padding=(0, 1, 0, 0))
    last, total = progress.last, max(progress.max_steps, progress.step)
    done, within = progress.step, progress.within
    head = Table.grid(padding=(0, 2, 0, 0))
    share = f"{100 * done / total:.0f} %" if total else ""
    steps = f"{done}/{total}" if progress.max_steps else f"step {done}"
    if progress.phase == "train" and within[1] > 1 and within[0]:
        steps += f" +{within[0]}/{within[1]}"
    left = "" if last is None or last.eta_seconds is None else _left(progress)
    bar = ProgressBar(total=total or None, completed=done, width=_BAR_WIDTH)
    head.add_row(bar, Text(steps), Text(share), Text(left, "cyan"))
    grid.add_row(head)
    if last is not None:
        grid.add_row(Text("  ".join(_numbers(progress))))
        if speed := _speed(progress):
            grid.add_row(Text(speed, "dim"))
    return grid


def _left(progress: Progress) -> str:
    """Time left from the last log's speed, for the steps that were taken since too."""
    last = progress.last
    if last is None or last.eta_seconds is None or last.step >= last.max_steps:
        return ""
    a_step = last.eta_seconds / (last.max_steps - last.step)
    return f"{duration(a_step * (last.max_steps - progress.step))} left"


def _numbers(progress: Progress) -> Iterator[str]:
    last = progress.last
    if last is None:
        return
    if last.loss is not None:
        yield f"loss {last.loss:.4f}"
    if last.learning_rate is not None:
        yield f"lr {last.learning_rate:.1e}"
    if last.grad_norm is not None:
        yield f"grad {last.grad_norm:.3g}"
    if last.token_accuracy is not None:
        yield f"acc {last.token_accuracy:.3f}"


def _speed(progress: Progress) -> str:
    last, words = progress.last, []
    if last is not None and last.tokens_per_second is not None:
        words.append(f"{last.tokens_per_second:,.0f} tokens/s")
    if last is not None and last.supervised_per_second is not None:
        words.append(f"{last.supervised_per_second:,.0f} trained on")
    if last is not None and last.memory_mib:
        words.append(f"{last.memory_mib:,} MiB")
    return "  ".join(words)


def _evaluation(progress: Progress, count: int, *, current: bool) -> Table | Text:
    if current:
        done, total = progress.within
        grid = Table.grid(padding=(0, 2, 0, 0))
        bar = ProgressBar(total=total or None, completed=done, width=_BAR_WIDTH)
        at = f"{done}/{total} batches" if total else f"{done} batches"
        grid.add_row(bar, Text(f"{at}, at step {progress.step}"))
        return grid
    last = progress.evaluation
    return Text(f"{count} ×  {evaluation_words(last)}" if last else f"{count} ×", "dim")


def _curve(progress: Progress, width: int) -> list[Text]:
    """The loss over all steps so far, with the highest and the lowest at its side."""
    finite = [loss for _, loss in progress.losses if math.isfinite(loss)]
    if not finite or width < 8:
        return []
    longest = max(progress.max_steps, progress.losses[-1][0], 1)
    points = [(step / longest, loss) for step, loss in progress.losses]
    lines = braille(points, width, _CURVE_HEIGHT)
    labels = {0: f"{max(finite):.4g}", len(lines) - 1: f"{min(finite):.4g}"}
    return [
        Text.assemble((f"{labels.get(number, ''):>19}  ", "dim"), (line, "green"))
        for number, line in enumerate(lines)
    ]


def _card(reading: CardReading) -> Text:
    share = reading.used_mib / reading.total_mib if reading.total_mib else 0.0
    filled = round(_BAR_WIDTH * min(1.0, share))
    words = [f"{reading.used_mib / 1024:.1f} of {reading.total_mib / 1024:.1f} GiB"]
    if reading.busy_percent is not None:
        words.append(f"{reading.busy_percent} % busy")
    if reading.celsius is not None:
        words.append(f"{reading.celsius} °C")
    colour = "red" if share > 0.95 else "magenta"
    return Text.assemble(
        f"    {f'GPU {reading.number}':<18}",
        ("━" * filled, colour),
        ("━" * (_BAR_WIDTH - filled), "bright_black"),
        f"  {'  '.join(words)}",
    )
