"""Adds a case to a suite's YAML file without touching what stands there, comments included."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from palmswift.errors import InputError
from palmswift.eval.asking.conversation import content_id
from palmswift.eval.suites.document import read_yaml
from palmswift.files import write_text

_HEAD = "# yaml-language-server: $schema=suite.schema.json\n"


def add_case(path: Path, messages: Sequence[dict[str, str]], answer: str) -> str:
    """Append a case that asks `messages` and has `answer` as its reference; its id.

    A file that is not there is made. InputError: it is no suite, has the case already, or its
    `cases` are written in a form that nothing can be added to.
    """
    from palmswift.eval.suites.suite import load_suite

    name = f"chat-{content_id(list(messages))}"
    case: dict[str, object] = {
        "id": name,
        "messages": [dict(message) for message in messages],
        "reference": answer,
        "tags": ["chat"],
    }
    if not path.exists():
        text = f"{_HEAD}name: {path.stem}\ncases:\n" + _item(case, 2)
    else:
        if any(known.id == name for known in load_suite(path).cases):
            raise InputError(f"{path}: this question is a case already ({name})")
        text = _with_case(path, case)
    before = path.read_bytes() if path.exists() else None
    write_text(path, text)
    try:
        load_suite(path)
    except InputError:  # what stood there is worth more than the case
        if before is not None:
            write_text(path, before.decode("utf-8"))
        else:
            path.unlink()
        raise
    return name


def _with_case(path: Path, case: dict[str, object]) -> str:
    document = read_yaml(path)
    text = path.read_text(encoding="utf-8-sig")
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode), document.path  # load_suite has read it
    found = [value for key, value in root.value if key.value == "cases"]
    ending = "" if text.endswith("\n") else "\n"
    if not found:
        return f"{text}{ending}cases:\n{_item(case, 2)}"
    cases = found[0]
    if not isinstance(cases, yaml.SequenceNode) or cases.flow_style:
        raise InputError(
            f"{path}: its `cases` are written in [brackets], to which nothing is added",
            remedy="write them one a line with dashes, or save to another file",
        )
    lines = text.splitlines(keepends=True)
    last = cases.value[-1]
    # A block ends where the next token begins; blank lines and comments before that stay after it.
    end = last.end_mark.line + (0 if last.end_mark.column == 0 else 1)
    while end > 0 and (not lines[end - 1].strip() or lines[end - 1].lstrip().startswith("#")):
        end -= 1
    if lines[end - 1][-1:] != "\n":
        lines[end - 1] += "\n"
    lines.insert(end, _item(case, cases.start_mark.column))
    return "".join(lines)


def _item(case: dict[str, object], indent: int) -> str:
    text = yaml.safe_dump([case], allow_unicode=True, sort_keys=False, width=100)
    return "".join(f"{' ' * indent}{line}" for line in text.splitlines(keepends=True))
