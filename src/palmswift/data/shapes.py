"""The shape of a row, recognised per row: what its columns say, as turns in their order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from palmswift.data import chatml, labels, preference, tools
from palmswift.data.columns import (
    MESSAGES,
    SYSTEM,
    UNSUPPORTED,
    Columns,
    blank,
    kind_name,
    listed,
)
from palmswift.data.conversation import Turn, answer, conversation, is_messages, role_of
from palmswift.data.policy import Notes
from palmswift.data.row import Kind, RowError

_FORMS = {"utterances": "lccc"}
_NEVER_EXTRA = frozenset((*MESSAGES, *SYSTEM, *UNSUPPORTED))
"""Columns that ms-swift would take for something else beside `messages`."""


@dataclass(slots=True)
class Shaped:
    """What a row says; roles and contents are not checked yet."""

    shape: str
    turns: list[Turn]
    rejected: list[Turn] | None = None
    """dpo: the whole dialogue with the answer that is not preferred."""
    label: bool | None = None
    tools: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    """grpo: the columns beside the prompt."""


def shape_row(value: Any, kind: Kind, columns: Mapping[str, str], notes: Notes) -> Shaped:
    """What a row says, system first if a column holds one. `columns` is `DataSettings.columns`.

    RowError: no known shape, more than one reading, or a row for another task.
    """
    if kind == "pt":
        return Shaped("text", [Turn("assistant", _plain_text(value, columns, notes))])
    if isinstance(value, str) and not chatml.is_chatml(value):
        raise _plain_text_error("it is plain text")
    # A list of turns or a ChatML text is a row with one column.
    row = Columns(value if isinstance(value, dict) else {"messages": value}, columns)
    row.refuse_unsupported()
    _refuse_other_task(row, kind)
    system, described = row.one("system"), row.one("tools")
    shape, turns = _dialogue(row, kind, notes)
    shaped = Shaped(shape, turns, tools=tools.tools_text(described))
    if kind == "dpo":
        pair = preference.pair(row, turns, notes)
        shaped.turns, shaped.rejected = pair.chosen, pair.rejected
    elif kind == "kto":
        shaped.label = _label(row, notes)
    _put_system(shaped.turns, system)
    if shaped.rejected is not None:
        _put_system(shaped.rejected, system)
    if kind == "grpo":
        shaped.extra = _extra(row, notes)
    elif row.left_over():
        notes.changes.add("columns_dropped")
    return shaped


def _plain_text_error(what: str) -> RowError:
    remedy = "train it with `task: pt`, or say which columns are query and response"
    return RowError("plain_text", f"{what}: {remedy}")


def _plain_text(value: Any, columns: Mapping[str, str], notes: Notes) -> Any:
    """The text of a row for pre-training."""
    if isinstance(value, list):
        raise RowError("other_task", "the row is a dialogue: it is for sft")
    if isinstance(value, dict):
        row = Columns(value, columns)
        value = _text_column(row, "text" in columns, notes)
        if row.left_over():
            notes.changes.add("columns_dropped")
    if chatml.is_chatml(value):
        raise RowError("other_task", "the row is a ChatML dialogue: it is for sft")
    return value


def _text_column(row: Columns, mapped: bool, notes: Notes) -> Any:
    if mapped and row.filled("text"):
        return row.one("text")
    if row.filled("messages"):
        turns = conversation(row.one("messages"), notes).turns
        if len(turns) == 1 and role_of(turns[0]) == "assistant":
            return turns[0].content
        raise RowError("other_task", "the row is a dialogue: it is for sft")
    if row.filled("query"):
        raise RowError("other_task", f"the row has {listed(row.find('query'))}: it is for sft")
    use = "text" if row.find("text") else "response"
    if not row.find(use):
        raise RowError("unknown_shape", f"columns: {listed(list(row.fields)) or 'none'}")
    return row.one(use)


def _refuse_other_task(row: Columns, kind: Kind) -> None:
    """RowError for a row that says by its columns that it is for another task."""
    if kind != "dpo" and row.filled("rejected"):
        name = row.find("rejected")[0]
        raise RowError("other_task", f"the row has `{name}`: it is for dpo, orpo or simpo")
    if kind in ("sft", "dpo") and not row.filled("rejected"):
        for name in row.find("label"):
            if name.casefold() == "kto_tag" or labels.is_plain_label(row.fields[name]):
                raise RowError("other_task", f"the row has a label (`{name}`): it is for kto")


def _dialogue(row: Columns, kind: Kind, notes: Notes) -> tuple[str, list[Turn]]:
    """The shape and the turns of a row of columns, its system column aside."""
    found = row.find("messages")
    paired = row.find("query") or row.find("response")
    if not found or (not row.filled("messages") and paired):
        return _pair(row, kind, notes)
    value = row.one("messages")
    if row.filled("history"):
        raise RowError("ambiguous_columns", "the row has a conversation and a history")
    read = conversation(value, notes)
    answered = any(role_of(turn) == "assistant" for turn in read.turns)
    if kind == "sft" and not answered and row.filled("solution"):
        raise RowError("other_task", "the row has a prompt and a `solution`: it is for grpo")
    if kind in ("kto", "dpo") and not answered and not row.filled("chosen"):
        # The completion column of TRL.
        read.turns.extend(answer(row.one("response"), notes) if row.filled("response") else ())
    return _FORMS.get(read.form, read.form), read.turns


def _pair(row: Columns, kind: Kind, notes: Notes) -> tuple[str, list[Turn]]:
    """A question column and an answer column, with a history."""
    if not row.find("query"):
        return _without_question(row, kind, notes)
    shape, asked = _question(row)
    given = (
        [] if kind == "grpo" or (kind == "dpo" and row.filled("chosen")) else row.find("response")
    )
    if len(given) > 1:
        raise RowError("ambiguous_columns", f"response could be {listed(given)}")
    answered = row.take(given[0]) if given else None
    if chatml.is_chatml(asked):
        text = asked + answered if isinstance(answered, str) else asked
        return "chatml", conversation(text, notes).turns
    if asked is None:
        raise RowError("no_question", "the question is null")
    turns = _history(row.one("history"), notes)
    turns += conversation(asked, notes).turns if is_messages(asked) else [Turn("user", asked)]
    if answered is not None:
        turns += answer(answered, notes)
    return shape, turns


def _question(row: Columns) -> tuple[str, Any]:
    """The shape and the question; Alpaca's input stands below its instruction."""
    columns = row.find("query")
    by_name = {name.strip().casefold(): name for name in columns}
    beside = next((name for name in row.fields if name.strip().casefold() == "context"), None)
    if "instruction" in by_name and beside is not None and len(columns) == 1:
        # As in Dolly, whose context is a part of the question.
        columns = [*columns, beside] if not blank(row.fields[beside]) else columns
    elif len(columns) > 1 and sorted(by_name) != ["input", "instruction"]:
        raise RowError("ambiguous_columns", f"query could be {listed(columns)}")
    shape = "alpaca" if "instruction" in by_name else "query_response"
    if len(columns) == 1:
        return shape, row.take(columns[0])
    first = by_name["instruction"]
    parts = [row.take(first), *(row.take(name) for name in columns if name != first)]
    if not all(isinstance(part, str) for part in parts):
        raise RowError("non_text_content", "the instruction or its input is not text")
    return shape, "\n".join(parts)


def _without_question(row: Columns, kind: Kind, notes: Notes) -> tuple[str, list[Turn]]:
    """ChatML in a text or answer column; for dpo, dialogues in the chosen and rejected columns."""
    if kind == "dpo" and row.filled("chosen"):
        return "chosen_rejected", []
    names = row.find("text") or row.find("response")
    text = row.fields[names[0]] if len(names) == 1 else None
    if chatml.is_chatml(text):
        return "chatml", conversation(row.take(names[0]), notes).turns
    columns = listed(list(row.fields)) or "none"
    if row.filled("text"):
        raise _plain_text_error(f"columns: {columns}")
    if row.find("response"):
        raise RowError("no_question", f"columns: {columns}")
    raise RowError("unknown_shape", f"columns: {columns}")


def _history(value: Any, notes: Notes) -> list[Turn]:
    value = tools.parse(value) if isinstance(value, str) else value
    if blank(value):
        return []
    if not isinstance(value, list):
        raise RowError("broken_history", f"it is {kind_name(value)}")
    if is_messages(value):
        return conversation(value, notes).turns
    turns = []
    for number, pair in enumerate(value, 1):
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise RowError("broken_history", f"pair {number} is not [question, answer]")
        turns += [Turn("user", pair[0]), Turn("assistant", pair[1])]
    return turns


def _put_system(turns: list[Turn], system: Any) -> None:
    if blank(system) and (turns or system is None):
        return
    if not turns or role_of(turns[0]) != "system":
        turns.insert(0, Turn("system", system))
    elif turns[0].content != system:
        raise RowError("ambiguous_columns", "the system column and the system turn differ")


def _label(row: Columns, notes: Notes) -> bool:
    if not row.find("label"):
        raise RowError("no_label", f"columns: {listed(list(row.fields))}")
    value = row.one("label")
    label = labels.read_label(value)
    if value is not label:
        notes.changes.add("label_read")
    return label


def _extra(row: Columns, notes: Notes) -> dict[str, Any]:
    """The columns beside the prompt, `solution` among them if one says the answer."""
    solutions = row.find("solution") or row.find("response", tiers=1)
    if len(solutions) > 1:
        raise RowError("ambiguous_columns", f"solution could be {listed(solutions)}")
    extra = {
        name: value
        for name, value in row.left_over().items()
        if name.strip().casefold() not in _NEVER_EXTRA
    }
    if not solutions:
        return extra
    (name,) = solutions
    if blank(row.fields[name]):
        raise RowError("blank_answer", f"`{name}` is blank")
    if name in row.find("solution"):
        extra.pop(name, None)
    else:
        # Reward functions of ms-swift's own read `solution`; the user's own may read the column.
        notes.changes.add("answer_to_solution")
    return {**extra, "solution": row.fields[name]}
