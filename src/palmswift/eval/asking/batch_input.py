"""The inputs of a batch as a stream: questions, conversations, requests of an OpenAI batch file."""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from palmswift.data.encodings import TextSource
from palmswift.data.lines import Lines
from palmswift.data.read import read_rows
from palmswift.data.row import Rejection
from palmswift.errors import InputError, Problem
from palmswift.eval.asking.conversation import Case, messages_of
from palmswift.eval.asking.reply import Route
from palmswift.eval.hashes import hash64

if TYPE_CHECKING:
    import numpy as np

QUESTION_KEYS = ("question", "query", "prompt", "instruction", "input", "user", "问题", "提问")
_ROUTES: Mapping[str, Route] = {"/v1/chat/completions": "chat", "/v1/completions": "completion"}
_SHOWN = 20

Form = Literal["rows", "openai"]


class Input(NamedTuple):
    """One thing to answer."""

    id: str
    """Its own `id` (`custom_id`), else its number in the file, from 1."""
    messages: list[dict[str, Any]]
    """Empty for a request of an OpenAI batch file."""
    body: dict[str, Any] | None = None
    """The request's body, of an OpenAI batch file."""
    route: Route = "chat"

    @property
    def question(self) -> str:
        """The text that is asked last."""
        return str(self.messages[-1]["content"])

    @property
    def case(self) -> Case:
        """The conversation as a test case."""
        return Case(id=self.id, messages=messages_of(self.messages))

    @property
    def content(self) -> Any:
        """What tells this input from others, whatever its id."""
        return self.messages if self.body is None else [self.route, self.body]

    def with_system(self, system: str | None) -> Input:
        """The input with `system` put first, unless it has a system message of its own."""
        if system is None or self.messages[0]["role"] == "system":
            return self
        return self._replace(messages=[{"role": "system", "content": system}, *self.messages])


class InputFile:
    """A file of inputs, which is read as often as needed and never held."""

    def __init__(self, path: Path, column: str | None = None, system: str | None = None) -> None:
        self.path = path
        self.column = column
        self.system = system

    def form(self) -> Form:
        """`openai` when the first row is a request of an OpenAI batch file."""
        if self.column is not None or _is_text(self.path):
            return "rows"
        first = next(_values(self.path), None)
        value = first.value if first is not None else None
        return (
            "openai" if isinstance(value, dict) and {"custom_id", "body"} <= set(value) else "rows"
        )

    def survey(self) -> Survey:
        """Look at every input once; InputError tells the first rows that cannot be asked, and ids
        that are given twice."""
        form = self.form()
        if form == "openai" and self.system is not None:
            raise InputError(
                "--system cannot be used with an OpenAI batch file",
                remedy="its requests have their messages",
            )
        contents, ids = array("Q"), array("Q")
        problems: list[Problem] = []
        broken = 0
        for item in self._read(form):
            if isinstance(item, Problem):
                broken += 1
                if broken <= _SHOWN:
                    problems.append(item)
            else:
                contents.append(hash64(item.content))
                ids.append(hash64(item.id))
        if broken:
            raise InputError(
                f"{self.path}: {broken} row(s) cannot be asked"
                + (f" (the first {_SHOWN} are shown)" if broken > _SHOWN else ""),
                problems,
                remedy=self._remedy(form),
            )
        if not contents:
            raise InputError(f"{self.path}: there is nothing to ask in it")
        self._refuse_twice(form, ids)
        return Survey(form, len(contents), _ranks(contents))

    def inputs(self, form: Form) -> Iterator[Input]:
        """The inputs, after a survey found nothing wrong with them."""
        for item in self._read(form):
            if not isinstance(item, Problem):
                yield item

    def _read(self, form: Form) -> Iterator[Input | Problem]:
        for number, (place, value) in enumerate(_values(self.path), start=1):
            try:
                if isinstance(value, Rejection):
                    yield Problem(value.detail, place)
                elif form == "openai":
                    yield _request(value)
                else:
                    yield _input(value, number, self.column).with_system(self.system)
            except ValueError as error:
                yield Problem(str(error), place)

    def _remedy(self, form: Form) -> str:
        if form == "openai":
            return 'each line is {"custom_id", "method": "POST", "url", "body"}'
        if self.column:
            return ""
        keys = ", ".join(QUESTION_KEYS)
        return f"--column NAME says where the question is, if not in {keys}"

    def _refuse_twice(self, form: Form, ids: array[int]) -> None:
        """InputError when an id is given more than once."""
        import numpy as np

        values, counts = np.unique(np.frombuffer(ids, dtype=np.uint64), return_counts=True)
        twice = dict(zip(values[counts > 1][:_SHOWN].tolist(), counts[counts > 1], strict=False))
        if not twice:
            return
        names = {}
        for item in self.inputs(form):
            if (value := hash64(item.id)) in twice:
                names[item.id] = int(twice[value])
                if len(names) == len(twice):
                    break
        problems = [
            Problem(f"the id {name!r} is given {count} times", str(self.path))
            for name, count in names.items()
        ]
        raise InputError(f"{self.path}: ids are given more than once", problems)


class Survey(NamedTuple):
    """What a file of inputs holds."""

    form: Form
    total: int
    ranks: np.ndarray[Any, Any]
    """Of each input, how many inputs of the same content stand before it."""


def read_inputs(path: Path, column: str | None = None) -> list[Input]:
    """The inputs of a small file; InputError with every row that has none."""
    file = InputFile(path, column)
    return list(file.inputs(file.survey().form))


def _ranks(contents: array[int]) -> np.ndarray[Any, Any]:
    import numpy as np

    values = np.frombuffer(contents, dtype=np.uint64)
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    lengths = np.diff(np.r_[starts, len(ordered)])
    ranks = np.empty(len(ordered), dtype=np.uint32)
    ranks[order] = np.arange(len(ordered)) - np.repeat(starts, lengths)
    return ranks


class _Value(NamedTuple):
    place: str
    value: Any


def _is_text(path: Path) -> bool:
    return path.suffix.lower() == ".txt"


def _values(path: Path) -> Iterator[_Value]:
    """What stands in the file: a text a line of .txt, else a JSON value or a record a row."""
    if _is_text(path):
        for line in Lines(TextSource(path).blocks()):
            text = line.text.strip("\ufeff \t\r\n")
            if text:
                yield _Value(f"{path}:{line.number}", text if line.whole else None)
        return
    for row in read_rows(path):
        yield _Value(str(row.place), row if isinstance(row, Rejection) else row.value)


def _input(value: Any, number: int, column: str | None) -> Input:
    """One input; ValueError says what the row lacks."""
    if isinstance(value, str) and value.strip():
        return Input(str(number), [_user(value)])
    if not isinstance(value, dict):
        raise ValueError("the row is not a question, nor an object that holds one")
    name = str(value["id"]) if value.get("id") not in (None, "") else str(number)
    if column is None and isinstance(value.get("messages"), list):
        turns = messages_of(value["messages"])
        while turns and turns[-1].role == "assistant":
            turns.pop()
        if not turns or turns[-1].role != "user":
            raise ValueError("the last of `messages` must be the user's")
        return Input(name, [{"role": turn.role, "content": turn.content} for turn in turns])
    keys = [column] if column else [key for key in QUESTION_KEYS if key in value]
    if not keys or not isinstance(value.get(keys[0]), str) or not value[keys[0]].strip():
        has = ", ".join(map(str, itertools.islice(value, 10))) or "nothing"
        raise ValueError(f"no question in this row (it has {has})")
    return Input(name, [_user(value[keys[0]])])


def _user(text: str) -> dict[str, Any]:
    try:
        text.encode()
    except UnicodeEncodeError as error:  # half of a surrogate pair, which JSON can spell
        raise ValueError(f"the text cannot be sent as UTF-8: {error.reason}") from error
    return {"role": "user", "content": text}


def _request(value: Any) -> Input:
    """A line of an OpenAI batch file; ValueError says what is wrong with it.

    https://platform.openai.com/docs/guides/batch
    """
    if not isinstance(value, dict):
        raise ValueError("the row is no object")
    name, body = value.get("custom_id"), value.get("body")
    if not isinstance(name, str) or not name:
        raise ValueError("`custom_id` is not a text")
    if not isinstance(body, dict):
        raise ValueError("`body` is not an object")
    if str(value.get("method", "POST")).upper() != "POST":
        raise ValueError(f"`method` is {value['method']!r}, not POST")
    url = value.get("url", "/v1/chat/completions")
    route = _ROUTES.get(url) if isinstance(url, str) else None
    if route is None:
        raise ValueError(f"`url` is {url!r}, not {' or '.join(_ROUTES)}")
    wanted = "messages" if route == "chat" else "prompt"
    if not body.get(wanted):
        raise ValueError(f"`body` has no `{wanted}`")
    sent = {key: item for key, item in body.items() if key not in ("stream", "stream_options")}
    return Input(name, [], sent, route)
