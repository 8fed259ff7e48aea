"""A row as it was read to a row in canonical form, its structure and text checked and mended."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from palmswift.data import dialogue, text_checks, tools
from palmswift.data.columns import check_columns
from palmswift.data.conversation import Turn
from palmswift.data.policy import Notes, Policy
from palmswift.data.row import Kind, Message, RowError, SourceRow, TrainingRow
from palmswift.data.shapes import Shaped, shape_row
from palmswift.errors import InputError, Problem
from palmswift.recipes.recipe import DataSettings

_TIMESTAMP = re.compile(
    r"\d{4}-\d{2}-\d{2}([ T]\d{2}(:?\d{2}(:?\d{2}(\.\d+)?)?)?(Z|[+-]\d{2}(:?\d{2})?)?)?"
)

_HALF_CHARACTER = re.compile("[\ud800-\udfff]")
"""Lone surrogates, which ms-swift's loader stops at."""


class Canonicaliser:
    """Turns rows of any shape into rows of one kind, as a recipe's data settings say."""

    def __init__(self, kind: Kind, settings: DataSettings) -> None:
        """InputError: a rule or column is not known, or the system prompt cannot be trained on."""
        check_columns(settings.columns)
        self._kind: Kind = kind
        self._columns = dict(settings.columns)
        self._policy = Policy(settings.rules)
        self._system = _default_system(settings.system, self._policy)

    def row(self, row: SourceRow) -> TrainingRow:
        """The canonical row. RowError, with its code, for one that would not train as it was meant.

        The canonical row, read again, gives the same row without changes.
        """
        notes = Notes(self._policy)
        shaped = shape_row(row.value, self._kind, self._columns, notes)
        rejected: str | None = None
        extra: Mapping[str, Any] = {}
        if self._kind == "pt":
            messages = [_text_only(shaped, notes)]
        elif self._kind == "grpo":
            messages, extra = self._prompt(shaped, notes)
        else:
            messages, rejected = self._answered(shaped, notes)
        described = shaped.tools
        return TrainingRow(
            row.place,
            shaped.shape,
            tuple(messages),
            rejected_response=rejected,
            label=shaped.label,
            tools=None if described is None else _mended_tools(described, notes),
            extra=extra,
            changes=frozenset(notes.changes),
            findings=frozenset(notes.findings),
            source=row.value,
        )

    def _answered(self, shaped: Shaped, notes: Notes) -> tuple[list[Message], str | None]:
        """The messages, and for dpo the answer that is not preferred."""
        dialogues = [self._dialogue(shaped.turns, notes)]
        if shaped.rejected is not None:
            dialogues.append(self._dialogue(shaped.rejected, notes))
        dialogues = [self._with_system(one, notes) for one in _without_spaces(dialogues, notes)]
        _check_contents(dialogues[0], notes, wanted=shaped.label is not False)
        if len(dialogues) == 1:
            return dialogues[0], None
        return dialogues[0], _rejected_answer(*dialogues)

    def _prompt(self, shaped: Shaped, notes: Notes) -> tuple[list[Message], Mapping[str, Any]]:
        """The messages up to the question, and the columns beside them."""
        turns, extra = list(shaped.turns), dict(shaped.extra)
        answers = dialogue.messages_of(turns[-1:], notes)
        if answers and answers[-1].role == "assistant":
            # As ms-swift does, which generates the answers itself (swift.utils.remove_response).
            turns.pop()
            answer = answers[-1].content.rpartition("</think>")[2].strip()
            if "solution" not in extra and answer:
                extra["solution"] = answer
                notes.changes.add("answer_to_solution")
            else:
                notes.changes.add("answer_dropped")
            if not turns:
                raise RowError("no_question", "the row is an answer alone")
        messages = self._dialogue(turns, notes)
        (messages,) = _without_spaces([messages], notes)
        messages = self._with_system(messages, notes)
        _check_contents(messages, notes, wanted=True)
        return messages, _plain_extra(extra, notes)

    def _dialogue(self, turns: Sequence[Turn], notes: Notes) -> list[Message]:
        messages = dialogue.ordered(dialogue.messages_of(turns, notes), self._kind, notes)
        return [_mended(message, number, notes) for number, message in enumerate(messages, 1)]

    def _with_system(self, messages: list[Message], notes: Notes) -> list[Message]:
        """The messages without a blank system prompt, and with the default one if there is none."""
        if messages[0].role == "system":
            if messages[0].content:
                return messages
            notes.changes.add("blank_system_dropped")
            messages = messages[1:]
        if not self._system:
            return messages
        notes.changes.add("system_added")
        return [Message("system", self._system), *messages]


def date_columns(row: TrainingRow) -> frozenset[str]:
    """The columns of a row whose every value is a date.

    Where all rows of a file share one, ms-swift's loader turns it into numbers.
    """
    columns = {"messages"} if is_timestamp(row) else set()
    beside = {"rejected_response": row.rejected_response, **row.extra}
    dates = {
        name
        for name, value in beside.items()
        if isinstance(value, str) and _TIMESTAMP.fullmatch(value)
    }
    return frozenset(columns | dates)


def is_timestamp(row: TrainingRow) -> bool:
    """Whether every turn of a row is a date."""
    return all(_TIMESTAMP.fullmatch(message.content) for message in row.messages)


def _default_system(system: str | None, policy: Policy) -> str:
    """The recipe's system prompt as it is put into rows; blank where there is none."""
    try:
        return text_checks.mended(system or "", "system", "the system prompt", Notes(policy))
    except RowError as error:
        problem = Problem(error.detail, "data.system", f"see the code {error.code}")
        raise InputError("the system prompt cannot be used", [problem]) from None


def _text_only(shaped: Shaped, notes: Notes) -> Message:
    (turn,) = shaped.turns
    if turn.content is None:
        raise RowError("no_text", "the text is null")
    if not isinstance(turn.content, str):
        raise RowError("non_text_content", f"the text is {turn.content!r}")
    message = _mended(Message("assistant", turn.content), 1, notes)
    if not message.content:
        raise RowError("no_text", "the text is blank")
    (messages,) = _without_spaces([[message]], notes)
    return messages[0]


def _mended(message: Message, number: int, notes: Notes) -> Message:
    role, content = message
    text = text_checks.mended(content, role, f"turn {number}", notes)
    if text is content or text == content:
        return message
    if role == "tool_call":
        (text,) = tools.call_texts(text, number)
    return Message(role, text)


def _mended_tools(text: str, notes: Notes) -> str | None:
    # ms-swift writes the tools into the system prompt.
    return tools.tools_text(text_checks.mended(text, "system", "`tools`", notes))


def _without_spaces(dialogues: list[list[Message]], notes: Notes) -> list[list[Message]]:
    """The dialogues, whose Chinese loses the spaces between its words if the rules say so."""
    said = [message.content for messages in dialogues for message in messages]
    if not text_checks.is_spaced(said):
        return dialogues
    if notes.found("spaced_chinese", said[-1][:60]) != "join":
        return dialogues
    notes.changes.add("spaces_joined")
    return [
        [
            _mended(Message(message.role, text_checks.joined(message.content)), number, notes)
            for number, message in enumerate(messages, 1)
        ]
        for messages in dialogues
    ]


def _check_contents(messages: Sequence[Message], notes: Notes, *, wanted: bool) -> None:
    """RowError: a turn is blank, or an answer that is `wanted` does not think as Qwen3 does."""
    for number, (role, text) in enumerate(messages, 1):
        if role == "user" and not text:
            raise RowError("blank_question", f"turn {number}")
        if role != "assistant":
            continue
        if not text:
            raise RowError("blank_answer", f"turn {number}")
        if not wanted:
            continue
        said = text
        if "think>" in text:
            calls = number < len(messages) and messages[number].role == "tool_call"
            said = _said(text, number, calls)
        if text_checks.is_boilerplate(said):
            notes.found("boilerplate", f"turn {number}: {said[:60]}")


def _said(text: str, number: int, calls: bool) -> str:
    """What an answer says behind its think block; `calls`: a tool call follows it."""
    opened, closed = text.count("<think>"), text.count("</think>")
    if not opened and not closed:
        return text
    if opened != closed or text.find("</think>") < text.find("<think>"):
        raise RowError("unclosed_think", f"turn {number}: {opened} opened, {closed} closed")
    if opened > 1 or not text.startswith("<think>"):
        raise RowError("misplaced_think", f"turn {number}: {opened} think blocks")
    said = text.partition("</think>")[2].strip()
    if not said and not calls:
        raise RowError("think_only_answer", f"turn {number}")
    return said


def _rejected_answer(chosen: list[Message], rejected: list[Message]) -> str:
    """The answer of the second dialogue. RowError: the two are no pair that ms-swift can train."""
    answer = rejected[-1].content
    if rejected[-1].role == "assistant" and not answer:
        raise RowError("no_rejected_answer", "the rejected answer is blank")
    if chosen[-2].role != "user" or rejected[-1].role == "tool_call":
        # ms-swift puts the rejected answer, as an assistant's text, right behind the last question
        # (swift/template/template_inputs.py: _compat_rejected_response).
        told = f"{chosen[-2].role}, then {chosen[-1].role} or {rejected[-1].role}"
        raise RowError("tool_turns_in_pair", f"the roles at the end are {told}")
    if chosen[:-1] != rejected[:-1]:
        raise RowError("rejected_other_prompt", "what stands before the answers differs")
    if chosen[-1].content == answer:
        raise RowError("chosen_equals_rejected", answer)
    return answer


def _plain_extra(extra: Mapping[str, Any], notes: Notes) -> dict[str, Any]:
    """The columns for reward functions, as JSON can hold them; `solution` as text."""
    plain = {}
    for name, value in extra.items():
        if name == "solution" and not isinstance(value, str):
            notes.changes.add("solution_made_text")
            value = _json_text(value)
        plain[name] = value if isinstance(value, str) else json.loads(_json_text(value))
        if _HALF_CHARACTER.search(_json_text([name, value])):
            raise RowError("invalid_characters", f"`{name}`")
    return plain


def _json_text(value: Any) -> str:
    """JSON text; what JSON has no form for (dates, decimals of a table) as its own text."""
    return json.dumps(value, ensure_ascii=False, default=str)
