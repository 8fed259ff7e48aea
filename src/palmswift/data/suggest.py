"""What to do next, read off a data report: the most useful first, in English and Chinese.

Each suggestion is a function of the report (and the recipe) that answers None where it does not
apply. The flags of a suggestion go at the end of the command that was run.
"""

from __future__ import annotations

import re
from math import ceil
from typing import NamedTuple

from palmswift.data.report import CodeReport, DataReport, Suggestion, UnreadColumns
from palmswift.recipes.recipe import Recipe

_STEP = 64
"""max_length is suggested in multiples of this many tokens."""
_WORTHWHILE_MIB = 100
_VALIDATION_ROWS = 20
"""Below this many rows one odd answer moves eval_loss visibly."""
_FEW_ROWS = 50

_QUERY = re.compile(r"问|咨询|客户|用户|^q\d*$|ques|\bask|user|client|customer|input|prompt", re.I)
_RESPONSE = re.compile(r"答|回复|客服|^a\d*$|answ|repl|resp|agent|assist|output|complet", re.I)
_SYSTEM = re.compile(r"系统|角色|system|persona", re.I)
_PRIVATE = {
    "phone_number": ("telephone numbers", "电话号码"),
    "id_number": ("identity card numbers", "身份证号"),
    "bank_card": ("bank card numbers", "银行卡号"),
    "email": ("e-mail addresses", "邮箱"),
    "secret": ("passwords or keys", "密码或密钥"),
}


class _Words(NamedTuple):
    en: str
    zh: str


def with_suggestions(report: DataReport, recipe: Recipe | None = None) -> DataReport:
    """The report with its suggestions; those on GPU memory need the recipe."""
    return report.model_copy(update={"suggestions": suggestions(report, recipe)})


def suggestions(report: DataReport, recipe: Recipe | None = None) -> list[Suggestion]:
    """What would make the training set or the run better, the most useful first."""
    found = [
        *(_columns(report, unread) for unread in report.unread_columns[:3]),
        _over_length(report, recipe),
        *(_repair(report, code, action) for code, action in _REPAIRS),
        _private(report),
        _leak(report),
        _near_duplicates(report),
        _conflicts(report),
        _validation(report),
        *(_reject(report, code, words) for code, words in _DOUBTFUL.items()),
        _shorter(report, recipe),
        _few(report),
    ]
    return [suggestion for suggestion in found if suggestion]


def guess_columns(unread: UnreadColumns) -> dict[str, str]:
    """Our names to the columns that most likely hold them, by name first and length second.

    Empty unless both a question and an answer were found, in columns that a flag can name.
    """
    texts = {name: length for name, length in unread.characters.items() if length > 0}
    ranked = sorted(texts, key=lambda name: texts[name])  # answers are longer than questions
    guess: dict[str, str] = {}
    for ours, pattern in (("system", _SYSTEM), ("response", _RESPONSE), ("query", _QUERY)):
        named = [name for name in ranked if pattern.search(name) and name not in guess.values()]
        if named:
            guess[ours] = named[-1]
    left = [name for name in ranked if name not in guess.values()]
    for ours in ("response", "query"):
        if ours not in guess and left and (guess or len(left) > 1):
            guess[ours] = left.pop()
    sayable = not any(mark in name for name in guess.values() for mark in ",=\n")
    if "query" not in guess or "response" not in guess or not sayable:
        return {}
    return {ours: guess[ours] for ours in ("query", "response", "system") if ours in guess}


def _columns(report: DataReport, unread: UnreadColumns) -> Suggestion:
    names = ", ".join(unread.columns)
    guess = guess_columns(unread) if report.kind in ("sft", "kto") else {}
    en = f"{_rows(unread.count)} could not be read. Their columns are {names}: "
    zh = f"{unread.count} 行无法识别，其列为 {names}："
    if not guess:
        return Suggestion(
            code="columns",
            en=f"{en}say which one holds what with --columns query=...,response=...",
            zh=f"{zh}请用 --columns query=…,response=… 指明各列的含义。",
        )
    pairs = ",".join(f"{ours}={column}" for ours, column in guess.items())
    return Suggestion(
        code="columns",
        en=f"{en}say which one holds what (this is a guess, look before you use it).",
        zh=f"{zh}请指明各列的含义（以下为猜测，请先核对）。",
        flags=["--columns", pairs],
    )


def _over_length(report: DataReport, recipe: Recipe | None) -> Suggestion | None:
    lost = _count(report.reasons, "over_length")
    if not lost or not report.template or not report.template.max_length:
        return None
    limit = report.template.max_length
    spread = report.tokens.over_length if report.tokens else None
    wanted = _round_up(spread.p95) if spread else 0
    en = f"{_rows(lost)} longer than max_length {limit} {_are(lost)} left out"
    zh = f"{lost} 行超过 max_length {limit} 而被剔除"
    memory = _fit(recipe, wanted) if wanted > limit else None
    if memory is not None and memory.fits:
        return Suggestion(
            code="over_length",
            en=f"{en}: max_length {wanted} keeps nearly all of them{memory.en}.",
            zh=f"{zh}：max_length {wanted} 可保留其中绝大多数{memory.zh}。",
            flags=["--set", f"swift.max_length={wanted}"],
        )
    too_long = memory.en if memory else ""
    too_long_zh = memory.zh if memory else ""
    return Suggestion(
        code="over_length",
        en=f"{en}{too_long}: long dialogues can be split at their turns instead.",
        zh=f"{zh}{too_long_zh}：可改为按轮次拆分长对话。",
        flags=["--rule", "over_length=split"],
    )


class _Fit(NamedTuple):
    fits: bool
    en: str
    zh: str


def _fit(recipe: Recipe | None, length: int) -> _Fit:
    """Whether rows of `length` tokens fit the recipe's card, and the words to say so."""
    from palmswift.plan.fit import plan_recipe

    if recipe is None or not recipe.needs_gpu:
        return _Fit(True, "", "")
    plan = plan_recipe(recipe, length=length)
    if plan.fits is None:
        return _Fit(True, "", "")
    peak, card = _gigabytes(plan.peak_mib), _gigabytes(plan.gpu_mib)
    if plan.fits:
        return _Fit(True, f" and fits the card ({peak} of {card})", f"，显存约 {peak}/{card}")
    en = f" (max_length {length} would take {peak} of {card})"
    return _Fit(False, en, f"（max_length {length} 约需 {peak}，显卡为 {card}）")


_REPAIRS = (("two_turns_in_a_row", "merge"), ("first_turn_not_user", "drop"))
"""What is rejected by default and can be repaired."""


def _repair(report: DataReport, code: str, action: str) -> Suggestion | None:
    found = next((reason for reason in report.reasons if reason.code == code), None)
    if found is None:
        return None
    return Suggestion(
        code=code,
        en=f"{_rows(found.count)} {_are(found.count)} left out: {found.meaning} "
        f"They can be repaired ({action}).",
        zh=f"{found.count} 行被剔除：{found.meaning_zh}可以修复（{action}）。",
        flags=["--rule", f"{code}={action}"],
    )


def _private(report: DataReport) -> Suggestion | None:
    found = {f.code: f.count for f in report.findings if f.code in _PRIVATE}
    if not found:
        return None
    en = ", ".join(f"{count:,} with {_PRIVATE[code][0]}" for code, count in found.items())
    zh = "，".join(f"{count} 行含{_PRIVATE[code][1]}" for code, count in found.items())
    return Suggestion(
        code="private",
        en=f"Rows that a model could repeat to anybody: {en}. They can be masked.",
        zh=f"模型可能把这些内容说给任何人：{zh}。可以遮盖。",
        flags=[word for code in found for word in ("--rule", f"{code}=mask")],
    )


def _leak(report: DataReport) -> Suggestion | None:
    count = _count(report.findings, "near_in_train")
    if not count:
        return None
    return Suggestion(
        code="near_in_train",
        en=f"{_rows(count)} of the validation set nearly stand{'s' * (count == 1)} in training: "
        "eval_loss looks better than the model is.",
        zh=f"{count} 条验证行与训练行几乎相同：eval_loss 会偏乐观。",
        flags=["--rule", "near_in_train=reject"],
    )


def _near_duplicates(report: DataReport) -> Suggestion | None:
    near = report.near_duplicates
    if near is None or report.rules.get("near_duplicate") != "keep":
        return None
    more = near.rows - near.clusters
    return Suggestion(
        code="near_duplicate",
        en=f"{_rows(more)} {'is' if more == 1 else 'are'} nearly the same as another "
        f"(the largest group has {near.largest:,}): training sees them that much more often.",
        zh=f"{more} 行与其他行几乎相同（最大一组 {near.largest} 行），训练时会被重复学习。",
        flags=["--rule", "near_duplicate=reject"],
    )


def _conflicts(report: DataReport) -> Suggestion | None:
    conflicts = report.conflicts
    if conflicts is None or report.rules.get("conflicting_answers") != "keep":
        return None
    count = conflicts.questions
    return Suggestion(
        code="conflicting_answers",
        en=f"{count:,} question{'s' * (count > 1)} stand{'s' * (count == 1)} with more than one "
        "answer: look which one is right, or leave all of them out.",
        zh=f"{count} 个问题有多个答案：请核对哪个正确，或全部剔除。",
        flags=["--rule", "conflicting_answers=reject"],
    )


def _validation(report: DataReport) -> Suggestion | None:
    rows, have = report.train_rows + report.val_rows, report.val_rows
    if report.held_out == "none" and rows > 1:
        return Suggestion(
            code="validation",
            en="Nothing is held out, so nobody will see when the model begins to learn by heart.",
            zh="没有验证集，看不出何时开始过拟合。",
            flags=["--set", "data.val_ratio=0.05"],
        )
    if have >= _VALIDATION_ROWS or report.held_out != "split" or rows < 5 * _VALIDATION_ROWS:
        return None
    ratio = ceil(100 * _VALIDATION_ROWS / rows) / 100
    return Suggestion(
        code="validation",
        en=f"{have} validation row{'s' * (have > 1)} {_are(have)} few: one odd answer moves "
        f"eval_loss. Ratio {ratio} holds {_VALIDATION_ROWS} or more out.",
        zh=f"验证集只有 {have} 行，eval_loss 波动大；"
        f"比例 {ratio} 可留出至少 {_VALIDATION_ROWS} 行。",
        flags=["--set", f"data.val_ratio={ratio}"],
    )


_DOUBTFUL = {
    "mojibake": _Words("look like text in the wrong encoding", "疑似乱码"),
    "boilerplate": _Words("answer with a refusal or boilerplate", "的答案是拒答或套话"),
    "spaced_chinese": _Words("have spaces between Chinese words", "的中文词语之间有空格"),
    "unusual_length": _Words("have an unusually short or long answer", "的答案长度异常"),
}


def _reject(report: DataReport, code: str, words: _Words) -> Suggestion | None:
    count = _count(report.findings, code)
    if not count:
        return None
    action = "join" if code == "spaced_chinese" else "reject"
    remedy = _Words("They can be joined.", "可以去除空格。")
    if action == "reject":
        remedy = _Words("Look at them, or leave them out.", "请查看，或剔除。")
    return Suggestion(
        code=code,
        en=f"Among the kept rows, {count:,} {words.en}. {remedy.en}",
        zh=f"保留行中有 {count} 行{words.zh}。{remedy.zh}",
        flags=["--rule", f"{code}={action}"],
    )


def _shorter(report: DataReport, recipe: Recipe | None) -> Suggestion | None:
    """A max_length that leaves out the longest 1 % and what of the card's memory that frees."""
    tokens = report.tokens
    if tokens is None or tokens.over_length or recipe is None or not recipe.needs_gpu:
        return None
    length = _round_up(tokens.tokens.p99)
    if length >= tokens.tokens.max:
        return None
    from palmswift.plan.fit import plan_recipe

    most = tokens.supervised.max
    now = plan_recipe(recipe, length=tokens.tokens.max, supervised=most)
    then = plan_recipe(recipe, length=length, supervised=min(most, length))
    saved = now.peak_mib - then.peak_mib
    if now.fits is None or saved < _WORTHWHILE_MIB:
        return None
    return Suggestion(
        code="max_length",
        en=f"max_length {length} keeps 99 % of the rows and saves {_gigabytes(saved)} of GPU "
        f"memory (the longest row has {tokens.tokens.max:,} tokens).",
        zh=f"max_length {length} 可保留 99 % 的行，节省 {_gigabytes(saved)} 显存"
        f"（最长一行 {tokens.tokens.max} token）。",
        flags=["--set", f"swift.max_length={length}"],
    )


def _few(report: DataReport) -> Suggestion | None:
    rows = report.train_rows
    if not 0 < rows < _FEW_ROWS:
        return None
    return Suggestion(
        code="few_rows",
        en=f"Only {_rows(rows)} to train on: they teach a tone rather than facts. "
        "Add rows, several wordings of each question among them.",
        zh=f"训练集只有 {rows} 行，只能学到语气，学不到知识：请增加数据，同一问题可多写几种问法。",
    )


def _count(codes: list[CodeReport], code: str) -> int:
    return next((report.count for report in codes if report.code == code), 0)


def _rows(count: int) -> str:
    return f"{count:,} row{'s' * (count != 1)}"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _round_up(length: int) -> int:
    return ceil(length / _STEP) * _STEP


def _gigabytes(mib: int) -> str:
    return f"{mib / 1024:.1f} GB"
