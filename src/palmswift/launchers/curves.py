"""Where the curves of a training go, in SVG units."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from palmswift.launchers.events import EvaluationEvent, StepEvent

WIDTH, HEIGHT = 460, 150
"""Of one plot."""
_POINTS = 240
"""Most points of a line: two for each of its parts, the lowest and the highest."""
_SMOOTHING = 0.9
"""Of lines of a hundred points and more; shorter ones are smoothed less."""
_DRAWN = 1e100
"""What is larger is no value of a curve (nor is NaN), and would overflow an axis."""
_FURTHER = 6
"""Most panels of a method's own numbers."""

Point = tuple[float, float]


class Tick(NamedTuple):
    """A labelled place on an axis."""

    at: float
    label: str


class Curve(NamedTuple):
    """One line, as the `d` of an SVG path, or dots."""

    en: str
    zh: str
    style: str
    """CSS class: raw, main, other, dots or limit."""
    path: str = ""
    dots: tuple[Point, ...] = ()


class Panel(NamedTuple):
    """One plot with its axes."""

    en: str
    zh: str
    curves: list[Curve]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    broken: int
    """Values that are not finite and cannot be drawn."""


class Series(NamedTuple):
    """The points of one line."""

    en: str
    zh: str
    style: str
    points: Sequence[Point]


def panels(
    steps: Sequence[StepEvent],
    evaluations: Sequence[EvaluationEvent],
    planned_mib: int | None = None,
) -> list[Panel]:
    """The plots that there are numbers for; `planned_mib` is drawn beside the memory."""
    loss = _of(steps, lambda step: step.loss)
    memory = [Series("peak so far", "至今峰值", "main", _of(steps, lambda step: step.memory_mib))]
    if planned_mib and steps:
        ends = [(steps[0].step, planned_mib), (steps[-1].step, planned_mib)]
        memory.append(Series("planned", "预测", "limit", ends))
    found = [
        _panel(
            "Loss",
            "损失",
            [
                Series("training", "训练", "raw", loss),
                Series("training, smoothed", "训练（平滑）", "main", smoothed(loss)),
                Series("evaluation", "验证", "dots", _losses(evaluations)),
            ],
        ),
        _panel("Token accuracy", "token 准确率", _accuracy(steps, evaluations)),
        _single("Learning rate", "学习率", _of(steps, lambda step: step.learning_rate)),
        _single("Gradient norm", "梯度范数", _of(steps, lambda step: step.grad_norm)),
        _panel(
            "Tokens a second",
            "每秒 token 数",
            [
                Series("all", "全部", "main", _of(steps, lambda step: step.tokens_per_second)),
                Series(
                    "trained on",
                    "参与训练",
                    "other",
                    _of(steps, lambda step: step.supervised_per_second),
                ),
            ],
        ),
        _panel("Memory, MiB", "内存/显存（MiB）", memory),
    ]
    found += [_single(name, name, points) for name, points in _further(steps)]
    return [panel for panel in found if panel is not None]


def _of(steps: Sequence[StepEvent], number: Callable[[StepEvent], float | None]) -> list[Point]:
    return [
        (float(step.step), float(value)) for step in steps if (value := number(step)) is not None
    ]


def _losses(evaluations: Sequence[EvaluationEvent]) -> list[Point]:
    return [(float(each.step), each.loss) for each in evaluations if each.loss is not None]


def _accuracy(steps: Sequence[StepEvent], evaluations: Sequence[EvaluationEvent]) -> list[Series]:
    measured = [
        (float(each.step), each.token_accuracy)
        for each in evaluations
        if each.token_accuracy is not None
    ]
    return [
        Series("training", "训练", "main", _of(steps, lambda step: step.token_accuracy)),
        Series("evaluation", "验证", "dots", measured),
    ]


def _further(steps: Sequence[StepEvent]) -> list[tuple[str, list[Point]]]:
    """A method's own numbers (rewards, margins, ...) that change, those with most values first."""
    named: dict[str, list[Point]] = {}
    for step in steps:
        for name, value in step.metrics.items():
            named.setdefault(name, []).append((float(step.step), value))
    changing = [(name, points) for name, points in named.items() if len({y for _, y in points}) > 1]
    rewards = [pair for pair in changing if "reward" in pair[0] or "kl" in pair[0]]
    rest = [pair for pair in changing if pair not in rewards]
    return [*rewards, *rest][:_FURTHER]


def smoothed(points: Sequence[Point]) -> list[Point]:
    """An exponential mean that starts unbiased, as TensorBoard's; empty for few points."""
    if len(points) < 20:
        return []
    keep = min(_SMOOTHING, 1 - 10 / len(points))
    found, mean, weight = [], 0.0, 0.0
    for x, y in points:
        if not math.isfinite(y):
            continue
        mean = keep * mean + (1 - keep) * y
        weight = keep * weight + (1 - keep)
        found.append((x, mean / weight))
    return found


def thinned(points: Sequence[Point]) -> list[Point]:
    """At most 240 points, of each part of the line the lowest and the highest."""
    if len(points) <= _POINTS:
        return list(points)
    parts = _POINTS // 2
    found: list[Point] = []
    for number in range(parts):
        part = points[number * len(points) // parts : (number + 1) * len(points) // parts]
        ends = {min(part, key=lambda point: point[1]), max(part, key=lambda point: point[1])}
        found += sorted(ends)
    return found


def _single(en: str, zh: str, points: Sequence[Point]) -> Panel | None:
    return _panel(en, zh, [Series("", "", "main", points)])


def _panel(en: str, zh: str, series: Sequence[Series]) -> Panel | None:
    """The plot of some lines over one pair of axes; None when there is nothing to draw."""
    finite = [
        each._replace(points=[point for point in each.points if abs(point[1]) < _DRAWN])
        for each in series
    ]
    everything = [point for each in finite for point in each.points]
    broken = sum(
        len(each.points) - len(kept.points) for each, kept in zip(series, finite, strict=True)
    )
    if not everything:
        return None
    left, right = min(x for x, _ in everything), max(x for x, _ in everything)
    low, high = _frame([y for _, y in everything])

    def place(point: Point) -> Point:
        x, y = point
        across = (x - left) / (right - left) if right > left else 0.5
        return round(WIDTH * across, 1), round(HEIGHT * (high - y) / (high - low), 1)

    curves = []
    for each in finite:
        dots = tuple(place(point) for point in thinned(each.points))
        if not dots:
            continue
        if each.style == "dots" or len(dots) == 1:
            curves.append(Curve(each.en, each.zh, "dots", dots=dots))
        else:
            path = "M" + " ".join(f"{x:g},{y:g}" for x, y in dots)
            curves.append(Curve(each.en, each.zh, each.style, path=path))
    x_ticks = [Tick(place((x, low))[0], f"{x:g}") for x in ticks(left, right, 6)]
    y_ticks = [Tick(place((left, y))[1], f"{y:g}") for y in ticks(low, high, 4)]
    return Panel(en, zh, curves, x_ticks, y_ticks, broken)


def _frame(values: Sequence[float]) -> tuple[float, float]:
    """The axis from the lowest to the highest value, from 0 where that is near."""
    low, high = min(values), max(values)
    if 0 < low < 0.5 * high:
        low = 0.0
    if high == low:
        margin = abs(high) * 0.1 or 1.0
        return low - margin, high + margin
    return low, high


def ticks(low: float, high: float, most: int) -> list[float]:
    """About `most` round values within the axis, in steps of 1, 2 or 5 times a power of ten."""
    span = high - low
    if not (0 < span < math.inf):
        return [low]
    step = 10.0 ** math.floor(math.log10(span / most))
    step *= next((factor for factor in (1, 2, 5, 10) if span / (step * factor) <= most), 10)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    found = (float(f"{number * step:.12g}") for number in range(first, last + 1))
    return [tick for tick in found if low <= tick <= high]
