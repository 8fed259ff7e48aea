"""The verdict in words, in English and Chinese: a headline, a line a suite, what follows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

from palmswift.eval.measures.metrics import metric_of
from palmswift.eval.verdicts.comparison import Comparison, Word
from palmswift.eval.verdicts.verdict import ShipVerdict, Side

Language = Literal["en", "zh"]

WORDS: dict[Word, tuple[str, str]] = {
    "helped": ("HELPED", "有帮助"),
    "no_difference": ("NO DIFFERENCE SHOWN", "未见差异"),
    "hurt": ("HURT", "变差了"),
    "unsafe": ("UNSAFE", "不安全"),
    "quick": ("QUICK LOOK, NO VERDICT", "抽样试测，不下结论"),
    "nothing": ("NOTHING TO COMPARE", "无可比较"),
}
ROLES = {"task": ("task", "任务"), "general": ("general", "通用能力"), "safety": ("safety", "安全")}


class Both(NamedTuple):
    """A text in both languages."""

    en: str
    zh: str

    def of(self, language: Language) -> str:
        """The text in one of them."""
        return self.zh if language == "zh" else self.en


def word_of(word: Word | None) -> Both:
    """The word of a verdict."""
    return Both(*WORDS[word]) if word else Both("", "")


def headline(verdict: ShipVerdict) -> Both:
    """The verdict, and what becomes of it without the questions that were trained on."""
    whole, rest = word_of(verdict.word), verdict.without_leaked
    if rest is None or rest.word == verdict.word:
        return whole
    without = word_of(rest.word)
    return Both(
        f"{whole.en} on all questions; without those that were trained on: {without.en}",
        f"{whole.zh}（全部问题）；除去训练过的问题：{without.zh}",
    )


def measure_words(measure: str) -> Both:
    """What a measure is called."""
    english, _, chinese = metric_of(measure).label.partition(" · ")
    return Both(english, chinese or english)


def value_words(measure: str, value: float | None) -> str:
    """A value in its scale."""
    if value is None:
        return "–"
    scale = metric_of(measure).scale
    if scale == "share":
        return f"{value:.1%}"
    digits = {"hundred": 1, "rating": 2, "plain": 2}.get(scale, 3)
    return f"{value:.{digits}f}" + (" s" if scale == "seconds" else "")


def amount_words(measure: str, amount: float, *, sign: bool = True) -> Both:
    """A difference in its scale: points of a percentage, or the score's own unit."""
    plus = "+" if sign else ""
    scale = metric_of(measure).scale
    if scale == "share":
        number = _trimmed(f"{100 * amount:{plus}.1f}")
        return Both(f"{number} points", f"{number} 个百分点")
    digits = {"hundred": 1, "rating": 2, "plain": 2}.get(scale, 3)
    number = _trimmed(f"{amount:{plus}.{digits}f}")
    return Both(number, number)


def interval_words(comparison: Comparison) -> str:
    """The 95 % interval, such as `+1.2 to +8.9`, language apart."""
    if comparison.low is None or comparison.high is None:
        return "–"
    scale = 100 if metric_of(comparison.measure).scale == "share" else 1
    digits = 1 if metric_of(comparison.measure).scale in ("share", "hundred") else 3
    return f"{scale * comparison.low:+.{digits}f} … {scale * comparison.high:+.{digits}f}"


def p_words(p: float | None) -> str:
    """A p-value, no more exact than it is read."""
    if p is None:
        return "–"
    return "< 0.0001" if p < 0.0001 else f"{p:.4f}" if p < 0.01 else f"{p:.3f}"


def sentences(verdict: ShipVerdict) -> Iterator[Both]:
    """What the verdict rests on, what was too small to see, and what to do."""
    for comparison in verdict.comparisons:
        if comparison.tag is None:
            yield from _of_suite(comparison)
    for alarm in verdict.alarms:
        yield Both(f"Alarm: {alarm}.", f"警报：{alarm}。")
    yield from _of_training(verdict)
    if verdict.word == "quick":
        yield Both(
            "A part of the suite was asked, too little to show what matters: looking again with "
            "more until the answer pleases is no test. Run it without --max-samples, or with "
            "--sequential.",
            "只问了测试集的一部分，样本太少，看不出关键差异；反复加样本直到满意不算检验。"
            "请去掉 --max-samples，或使用 --sequential。",
        )
    elif verdict.quick:
        yield Both(
            "A part of the suite was asked (a quick look).", "只问了测试集的一部分（抽样试测）。"
        )
    if verdict.sequential:
        yield Both(
            "The p-values hold however often one looks.", "p 值在任意多次查看下都有效（序贯检验）。"
        )


def _of_suite(c: Comparison) -> Iterator[Both]:
    if c.difference is None:
        yield Both(
            f"{c.suite}: no case has an answer of both models.", f"{c.suite}：没有可配对的回答。"
        )
        return
    measure, change = measure_words(c.measure), amount_words(c.measure, c.difference)
    before, after = value_words(c.measure, c.base), value_words(c.measure, c.tuned)
    yield Both(
        f"{c.suite}: {measure.en} {before} → {after} ({change.en}; 95 % interval "
        f"{interval_words(c)}; p {_p(c)}); {c.gained} cases better, {c.lost} worse, "
        f"of {c.cases}.",
        f"{c.suite}：{measure.zh} {before} → {after}（{change.zh}；95% 区间 "
        f"{interval_words(c)}；p {_p(c)}）；共 {c.cases} 例，{c.gained} 例变好，{c.lost} 例变差。",
    )
    if c.word in ("no_difference", "quick"):
        yield from _of_size(c)
    if c.role == "task":
        return
    margin = amount_words(c.measure, c.margin, sign=False)
    if c.not_worse:
        yield Both(
            f"{c.suite}: shown not to be worse by more than {margin.en}.",
            f"{c.suite}：已证明变差不超过 {margin.zh}。",
        )
    elif c.not_worse is False and c.word == "no_difference":
        yield Both(
            f"{c.suite}: not shown to be kept: it may be worse by more than {margin.en}.",
            f"{c.suite}：尚不能证明保持不变，变差可能超过 {margin.zh}。",
        )


def _p(c: Comparison) -> str:
    adjusted = c.adjusted_p if c.adjusted_p is not None else c.p
    words = p_words(adjusted)
    return words if words.startswith("<") else f"= {words}"


def _of_size(c: Comparison) -> Iterator[Both]:
    wanted = amount_words(c.measure, c.needed_for, sign=False)
    needed = (
        Both("over a million", "一百万以上") if c.needed is None else Both(*[f"{c.needed:,}"] * 2)
    )
    if c.visible is None:
        seen = Both(f"{c.cases} cases cannot show any difference", f"{c.cases} 例看不出任何差异")
    else:
        least = amount_words(c.measure, c.visible, sign=False)
        seen = Both(
            f"{c.cases} cases show differences from {least.en} on",
            f"{c.cases} 例能看出 {least.zh}以上的差异",
        )
    yield Both(
        f"{c.suite}: {seen.en}; to see {wanted.en} you need N = {needed.en} (80 % power).",
        f"{c.suite}：{seen.zh}；要看出 {wanted.zh}，需要 N = {needed.zh}（功效 80%）。",
    )


def _of_training(verdict: ShipVerdict) -> Iterator[Both]:
    files = ", ".join(verdict.checked_files)
    if not verdict.checked_files:
        yield Both(
            "Not looked for in the training data: --training FILE tells which questions were "
            "trained on.",
            "未与训练数据比对：用 --training 文件 可找出训练过的问题。",
        )
    elif verdict.without_leaked is None:
        yield Both(f"No question stands in {files}.", f"没有问题出现在 {files} 中。")
    else:
        rest = verdict.without_leaked
        yield Both(
            f"{verdict.leaked} questions stand in {files}: they show what was learned, not that "
            f"it carries over. Without them: {word_of(rest.word).en}{_rest(rest, 'en')}.",
            f"{verdict.leaked} 个问题出现在 {files} 中：只说明学会了，不说明能举一反三。"
            f"除去后：{word_of(rest.word).zh}{_rest(rest, 'zh')}。",
        )


def _rest(side: Side, language: Language) -> str:
    """The numbers of the suites without the leaked cases."""
    parts = []
    for c in side.comparisons:
        if c.tag is None and c.difference is not None:
            change = amount_words(c.measure, c.difference).of(language)
            parts.append(f"{c.suite} {change}, p {_p(c)}, n = {c.cases}")
    return f" ({'; '.join(parts)})" if parts else ""


def _trimmed(number: str) -> str:
    return number.removesuffix(".0")
