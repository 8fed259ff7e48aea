"""Counts a row's tokens in batches, from the very strings that ms-swift's template makes of it.

For rows of one form (which turns, which white space at their edges, think blocks or none) the
template is asked once, with stand-ins for their texts, which strings it tokenises and which of them
are trained on. For each further row of the form its texts take the places of the stand-ins, and the
strings of many rows go to the tokenizer at once. A row with anything in its texts that the template
looks at goes to the template itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count, groupby
from typing import Any, NamedTuple, Protocol

from palmswift.data.batch_tokenizer import Tokens
from palmswift.data.row import Kind
from palmswift.data.verdict import Counts, Measured

_MOST_FORMS = 5000
"""Forms that are remembered; rows of further ones go to the template itself."""

_PART = 200
"""Rows that are tokenised in one call."""

_SLOT = "\0"
_STAND_IN = re.compile("\ue000([0-9]+)\ue001")
_THINK, _END_THINK = "<think>", "</think>"
_ROLES = frozenset(("system", "user", "assistant"))
_COLUMNS: dict[Kind, frozenset[str]] = {
    "sft": frozenset(("messages",)),
    "pt": frozenset(("messages",)),
    "dpo": frozenset(("messages", "rejected_response")),
    "kto": frozenset(("messages", "label")),
    "grpo": frozenset(("messages",)),
}

Row = dict[str, Any]
Messages = Sequence[dict[str, str]]


class Template(Protocol):
    """What has to be known of the template (`palmswift.data.real_template.RealTemplate`)."""

    telling: frozenset[str]
    """Strings that make a difference to the template where they stand in a text."""
    suffix: list[int]
    """The tokens that end an answer."""
    eos: int
    """The token that stops generation."""

    @property
    def limit(self) -> tuple[int | None, bool]:
        """The most tokens a row may have, and whether a longer one is an error (or else cut)."""

    def reads(self, column: str) -> bool:
        """Whether a column of this name makes a difference to the template."""

    def strings(self, messages: Messages) -> list[tuple[str | list[int], bool]]:
        """What it tokenises, one after the other, or has as tokens; and whether trained on."""


class Tokenizer(Protocol):
    """What is asked of a `palmswift.data.batch_tokenizer.BatchTokenizer`."""

    separators: frozenset[str]
    """Strings at which it cuts a text before all else."""

    def tokenize(self, texts: Sequence[str]) -> Sequence[Tokens]:
        """The tokens of each text, as the template has it tokenised."""


class _Fixed(NamedTuple):
    """Tokens that are the same in each row of a form."""

    ids: list[int]

    def __len__(self) -> int:
        return len(self.ids)


class _Run(NamedTuple):
    """One string: the texts of `slots` between `literals`; or tokens that are always the same."""

    literals: tuple[str, ...] = ()
    slots: tuple[int, ...] = ()
    fixed: _Fixed | None = None

    def string(self, texts: Sequence[str]) -> str:
        """The string for a row with these texts."""
        if len(self.slots) == 1:
            return self.literals[0] + texts[self.slots[0]] + self.literals[1]
        pieces = [self.literals[0]]
        for slot, literal in zip(self.slots, self.literals[1:], strict=True):
            pieces += (texts[slot], literal)
        return "".join(pieces)


class _Group(NamedTuple):
    """Neighbouring runs that are all trained on, or all not."""

    runs: slice
    trained: bool
    with_text: bool
    """Whether a text of the row is among them."""


class _Form(NamedTuple):
    """What rows of one form become."""

    runs: tuple[_Run, ...]
    groups: tuple[_Group, ...]
    begins_with_text: bool
    """Whether the first token is trained on and of a text of the row, as in plain text."""


class _Planned(NamedTuple):
    """One sequence of a row: its form, and the strings that are to be tokenised for it."""

    form: _Form
    strings: list[str]
    first: bool
    """Whether it is the first of its form."""


class Counted(NamedTuple):
    """A row that was counted, and the tokens of its sequences that it was counted from."""

    measured: Measured
    tokens: list[list[Tokens]]
    first: bool
    """Whether it is the first of its form."""

    @property
    def ids(self) -> list[list[int]]:
        """The tokens of each sequence."""
        return [[token for run in runs for token in run.ids] for runs in self.tokens]


class BatchTemplate:
    """Counts rows in batches; those that it may not count are left to the template."""

    def __init__(self, template: Template, tokenizer: Tokenizer, kind: Kind) -> None:
        self._template = template
        self._tokenizer = tokenizer
        self._threads = ThreadPoolExecutor(os.cpu_count())
        self._kind = kind
        self._forms: dict[tuple[str, ...], _Form | None] = {}
        telling = sorted(template.telling | {_THINK, _END_THINK, "{{"})
        self._telling = re.compile("|".join(map(re.escape, telling)))
        separators = sorted(tokenizer.separators, key=len, reverse=True)
        self._separator = re.compile(f"({'|'.join(map(re.escape, separators))})")
        # To look for a character is so much faster that most texts need nothing more.
        self._firsts = tuple({string[0] for string in telling})

    def count(self, rows: Sequence[Row]) -> list[Counted | None]:
        """Each row counted; None for a row that the template itself has to be asked about."""
        parts = []
        for start in range(0, len(rows), _PART):
            plans = [self._plan(row) for row in rows[start : start + _PART]]
            strings = [string for plan in plans for one in plan or () for string in one.strings]
            # While threads tokenise, this one goes on with the next rows and with the last.
            parts.append((plans, self._threads.submit(self._tokenizer.tokenize, strings)))
        counted: list[Counted | None] = []
        for plans, future in parts:
            tokens = iter(future.result())
            counted += (None if plan is None else self._counted(plan, tokens) for plan in plans)
        return counted

    def _plan(self, row: Row) -> list[_Planned] | None:
        extra = row.keys() - _COLUMNS[self._kind]
        if extra and any(map(self._template.reads, extra)):
            return None
        messages = row["messages"]
        if not messages:
            return None
        if self._kind == "grpo" and messages[-1]["role"] == "assistant":
            messages = messages[:-1]
        versions = [messages]
        if self._kind == "dpo":
            rejected = row.get("rejected_response")
            if [message["role"] for message in messages[-2:]] != ["user", "assistant"]:
                return None
            if rejected == messages[-1]["content"]:
                return None
            versions.append([*messages[:-1], {"role": "assistant", "content": rejected}])
        plan = []
        for version in versions:
            planned = self._planned(version)
            if planned is None:
                return None
            plan.append(planned)
        return plan

    def _planned(self, messages: Messages) -> _Planned | None:
        key: list[str] = []
        texts: list[str] = []
        for message in messages:
            content = message.get("content")
            role = message.get("role")
            if len(message) != 2 or role not in _ROLES or type(content) is not str:
                return None
            shape = self._shape(content, texts)
            if shape is None:
                return None
            key += (role, shape)
        known = len(self._forms)
        form = self._form(tuple(key))
        if form is None:
            return None
        strings = [run.string(texts) for run in form.runs if run.fixed is None]
        return _Planned(form, strings, first=len(self._forms) > known)

    def _shape(self, content: str, texts: list[str]) -> str | None:
        """The content with a slot for each text, which is added to `texts`; None if it may matter.

        A text has no white space at its edges, for the template takes that off in places, and
        nothing in it that the template looks for; so what it does is settled by the shape.
        """
        text = content.strip()
        for first in self._firsts:
            if first in text:
                break
        else:
            if not text:
                return content
            texts.append(text)
            return _SLOT if len(text) == len(content) else _around(content, text)
        if not self._telling.search(text):
            texts.append(text)
            return _around(content, text)
        return self._thinking_shape(content, text, texts)

    def _thinking_shape(self, content: str, text: str, texts: list[str]) -> str | None:
        if not text.startswith(_THINK):
            return None
        thought, closed, answer = text[len(_THINK) :].partition(_END_THINK)
        if not closed or self._telling.search(thought) or self._telling.search(answer):
            return None
        pieces = []
        for piece in (thought, answer):
            inner = piece.strip()
            pieces.append(_around(piece, inner) if inner else piece)
            texts += [inner] if inner else []
        return _around(content, text, f"{_THINK}{pieces[0]}{_END_THINK}{pieces[1]}")

    def _form(self, key: tuple[str, ...]) -> _Form | None:
        if key in self._forms or len(self._forms) >= _MOST_FORMS:
            return self._forms.get(key)
        numbers = count()
        contents = (
            re.sub(_SLOT, lambda _: f"\ue000{next(numbers)}\ue001", shape) for shape in key[1::2]
        )
        messages = [
            {"role": role, "content": content}
            for role, content in zip(key[::2], contents, strict=True)
        ]
        try:
            strings = self._template.strings(messages)
        except Exception:  # noqa: BLE001  # it will refuse the row itself with the same error
            form = None
        else:
            form = _form_of(list(self._cut(strings)), self._tokenizer.tokenize)
        self._forms[key] = form
        return form

    def _cut(
        self, strings: Sequence[tuple[str | list[int], bool]]
    ) -> Iterator[tuple[str | list[int], bool]]:
        """The strings in parts, so that what is always the same is tokenised only once."""
        for string, trained in strings:
            if not isinstance(string, str) or not self._tokenizer.separators:
                yield string, trained
                continue
            parts = [part for part in self._separator.split(string) if part]
            for _, same in groupby(parts, key=lambda part: bool(_STAND_IN.search(part))):
                yield "".join(same), trained

    def _counted(self, plan: Sequence[_Planned], tokens: Iterator[Tokens]) -> Counted | None:
        taken = [[run.fixed or next(tokens) for run in one.form.runs] for one in plan]
        limit, refuses = self._template.limit
        first = any(one.first for one in plan)
        counts = []
        for one, runs in zip(plan, taken, strict=True):
            sequence = self._counts(one.form, runs)
            if sequence is None:
                return None
            if limit is not None and sequence.n_tokens > limit:
                error = Measured(error="MaxLengthError", n_tokens=sequence.n_tokens)
                return Counted(error, taken, first) if refuses else None
            counts.append(sequence)
        return Counted(Measured(tuple(counts)), taken, first)

    def _counts(self, form: _Form, tokens: Sequence[Tokens]) -> Counts | None:
        """As `Template._encode` labels the tokens (swift/template/base.py).

        None for what is too rare to have a rule here.
        """
        suffix = self._template.suffix
        n_tokens = n_supervised = 0
        has_text = ends_with_eos = False
        for number, group in enumerate(form.groups):
            runs = tokens[group.runs]
            size = sum(map(len, runs))
            n_tokens += size
            if group.trained:
                n_supervised += size
                has_text = has_text or group.with_text
                last = runs[-1].ids[-2:]
                ends_with_eos = self._template.eos in last
                if not number:
                    n_supervised -= 1  # the first token of all is never predicted
                    if form.begins_with_text and len(runs[0]) < 2:
                        return None
                if len(last) < 2 and not ends_with_eos:
                    return None
            else:
                ends_with_eos = False
                # `_add_dynamic_eos`: what closes an answer within the row is trained on, too.
                if number and _begins_with(runs, suffix):
                    n_supervised += len(suffix)
                    if number == len(form.groups) - 1:
                        return None
        if n_tokens < 3 or not all(map(len, tokens)) or (n_supervised and not has_text):
            return None
        return Counts(n_tokens, n_supervised, has_text, ends_with_eos)


def _begins_with(runs: Sequence[Tokens], tokens: list[int]) -> bool:
    begin: list[int] = []
    for run in runs:
        begin += run.ids[: len(tokens) - len(begin)]
        if len(begin) == len(tokens):
            break
    return begin == tokens


def _around(content: str, text: str, inner: str = _SLOT) -> str:
    """The content with `inner` in the place of the text that its white space surrounds."""
    start = len(content) - len(content.lstrip())
    return content[:start] + inner + content[start + len(text) :]


def _form_of(
    strings: Sequence[tuple[str | list[int], bool]],
    tokenize: Callable[[list[str]], Sequence[Tokens]],
) -> _Form | None:
    runs = []
    for string, _ in strings:
        if not isinstance(string, str):
            runs.append(_Run(fixed=_Fixed(list(string))))
            continue
        pieces = _STAND_IN.split(string)
        literals, slots = tuple(pieces[::2]), tuple(map(int, pieces[1::2]))
        if slots:
            runs.append(_Run(literals, slots))
        else:
            runs.append(_Run(fixed=_Fixed(tokenize([string])[0].ids)))
    if any("\ue000" in literal or "\ue001" in literal for run in runs for literal in run.literals):
        return None  # a stand-in was taken apart: the text makes a difference after all
    groups = []
    flags = [trained for _, trained in strings]
    for trained, numbers in groupby(range(len(runs)), key=flags.__getitem__):
        first, *rest = numbers
        span = slice(first, first + len(rest) + 1)
        groups.append(_Group(span, trained, any(run.slots for run in runs[span])))
    bare = groups[0].trained and runs[0].literals[:1] == ("",)
    if bare and any(runs[0].literals):
        return None  # its first token is masked, and the rest may be white space alone
    return _Form(tuple(runs), tuple(groups), bare)
