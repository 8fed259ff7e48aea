"""The two dialogues of a preference pair, in each of the forms that dpo data comes in."""

from __future__ import annotations

from typing import Any, NamedTuple

from palmswift.data import tools
from palmswift.data.columns import Columns
from palmswift.data.conversation import Turn, answer, is_messages, role_of
from palmswift.data.policy import Notes
from palmswift.data.row import RowError


class Pair(NamedTuple):
    """Two dialogues with the same question; the last turn of each is its answer."""

    chosen: list[Turn]
    rejected: list[Turn]


def pair(row: Columns, turns: list[Turn], notes: Notes) -> Pair:
    """Both dialogues of a row whose own turns are its prompt, with the preferred answer or without.

    Either answer may be text, a message, a list of messages, or the whole dialogue.
    RowError: one is missing, or it cannot be told which prompt they answer.
    """
    if not row.filled("rejected"):
        raise RowError("no_rejected_answer", "the row has one answer: it is for sft")
    worse = row.one("rejected")
    if row.find("chosen"):
        if not row.filled("chosen"):
            raise RowError("no_answer", "the chosen answer is blank")
        better, worse = _read(row.one("chosen"), worse)
        chosen = answer(better, notes)
        prompt = _without_answer(turns, chosen)
    else:
        if not turns or role_of(turns[-1]) not in ("assistant", "tool_call"):
            raise RowError("no_answer", "the row has no preferred answer")
        prompt, chosen = turns[:-1], turns[-1:]
    chosen = _dialogue(prompt, chosen)
    return Pair(chosen, _dialogue(prompt or chosen[:-1], answer(worse, notes)))


def _read(better: Any, worse: Any) -> tuple[Any, Any]:
    """Both answers; where both are message lists, also those that a CSV cell holds as text.

    One that looks like a list while the other does not is an answer in JSON.
    """
    lists = [tools.parse(value) if isinstance(value, str) else value for value in (better, worse)]
    return (lists[0], lists[1]) if all(map(is_messages, lists)) else (better, worse)


def _without_answer(turns: list[Turn], chosen: list[Turn]) -> list[Turn]:
    """The prompt alone where the row's dialogue also holds the chosen answer."""
    if not turns or role_of(turns[-1]) != "assistant":
        return turns
    if chosen[-1].content != turns[-1].content:
        raise RowError("ambiguous_columns", "the dialogue's answer and the chosen one differ")
    return turns[:-1]


def _dialogue(prompt: list[Turn], completion: list[Turn]) -> list[Turn]:
    """The whole dialogue; a completion that holds questions is one already."""
    asked = _questions(completion)
    if not asked:
        if not prompt:
            raise RowError("no_question", "chosen and rejected are answers without a prompt")
        return [*prompt, *completion]
    if any(question not in asked for question in _questions(prompt)):
        raise RowError("rejected_other_prompt", "a question of the prompt is not in the dialogue")
    system = prompt[:1] if prompt and role_of(prompt[0]) == "system" else []
    return completion if role_of(completion[0]) == "system" else [*system, *completion]


def _questions(turns: list[Turn]) -> list[Any]:
    contents = [turn.content for turn in turns if role_of(turn) == "user"]
    return [content.strip() if isinstance(content, str) else content for content in contents]
