"""Reads a promptfoo configuration as a suite; what it cannot be read of is told by name and line.

Format: promptfoo.dev/docs/configuration/reference and /expected-outputs. Providers are left out:
endpoints are given to eval/run.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from palmswift.errors import InputError, Problem
from palmswift.eval.asking.conversation import Case
from palmswift.eval.suites.document import Document, Key
from palmswift.eval.suites.suite import Suite

_IGNORED = {
    *("providers", "description", "outputPath", "sharing", "env", "evaluateOptions", "tags"),
    *("commandLineOptions", "metadata", "writeLatestResults"),
}
_TEST_KEYS = {"vars", "assert", "description", "threshold", "metadata", "options"}
_ASSERT_KEYS = {"type", "value", "threshold", "weight", "metric"}


def _texts(value: Any) -> list[str]:
    """A list, or promptfoo's short form of one: texts with commas between them."""
    if isinstance(value, list):
        return [str(item) for item in value]
    return [part.strip() for part in str(value).split(",")]


_KINDS: dict[str, Callable[[Any, Any], dict[str, Any]]] = {
    "equals": lambda value, _: {"kind": "exact", "value": str(value)},
    "contains": lambda value, _: {"kind": "contains", "value": str(value)},
    "icontains": lambda value, _: {"kind": "contains", "value": str(value), "ignore_case": True},
    "contains-any": lambda value, _: {"kind": "contains_any", "values": _texts(value)},
    "icontains-any": lambda value, _: {
        "kind": "contains_any",
        "values": _texts(value),
        "ignore_case": True,
    },
    "contains-all": lambda value, _: {"kind": "contains_all", "values": _texts(value)},
    "icontains-all": lambda value, _: {
        "kind": "contains_all",
        "values": _texts(value),
        "ignore_case": True,
    },
    "starts-with": lambda value, _: {"kind": "regex", "pattern": r"\A" + _escaped(value)},
    "regex": lambda value, _: {"kind": "regex", "pattern": str(value)},
    "is-json": lambda value, _: (
        {"kind": "json", "strict": True}
        if value is None
        else {"kind": "json_schema", "schema": _object(value), "strict": True}
    ),
    "contains-json": lambda value, _: (
        {"kind": "json"} if value is None else {"kind": "json_schema", "schema": _object(value)}
    ),
    "latency": lambda _, threshold: {"kind": "latency", "max": float(threshold) / 1000},
    "is-refusal": lambda *_: {"kind": "refusal"},
    "finish-reason": lambda value, _: {"kind": "finish_reason", "value": str(value)},
}
"""promptfoo's assertion types that mean the same here."""


def is_promptfoo(value: Any) -> bool:
    """Whether a YAML document is a promptfoo configuration."""
    return isinstance(value, dict) and "prompts" in value and "cases" not in value


def promptfoo_suite(document: Document) -> Suite:
    """The suite of a promptfoo configuration: a case for each prompt and test.

    InputError names every prompt, key and assertion that has no equal here.
    """
    value = document.value
    problems = [
        Problem(f"`{key}` is not supported", document.where((key,)), "take it out of a copy")
        for key in value
        if key not in _IGNORED | {"prompts", "tests", "defaultTest"}
    ]
    prompts = [
        _prompt(prompt, document, ("prompts", index), problems)
        for index, prompt in enumerate(_listed(value.get("prompts"), document, problems, "prompts"))
    ]
    tests = _listed(value.get("tests", [{}]), document, problems, "tests")
    default = value.get("defaultTest") or {}
    cases: list[Case] = []
    for number, test in enumerate(tests):
        place: Key = ("tests", number)
        if not isinstance(test, dict):
            problems.append(
                Problem("a test is a map of `vars` and `assert`", document.where(place))
            )
            continue
        given = [*_asserts(default, document, ("defaultTest",), problems)]
        given += _asserts(test, document, place, problems)
        values = {**(default.get("vars") or {}), **(test.get("vars") or {})}
        for index, prompt in enumerate(prompts):
            name = f"{number + 1}" if len(prompts) == 1 else f"{number + 1}.{index + 1}"
            cases += _case(name, prompt, values, given, test, document.where(place), problems)
    if not cases and not problems:
        problems.append(Problem("there are no tests", str(document.path)))
    if problems:
        raise InputError(f"{document.path}: a promptfoo file, of which not all is read", problems)
    return Suite(
        name=document.path.stem,
        description=str(value.get("description") or ""),
        cases=cases,
        folder=document.path.parent.absolute(),
    )


def _listed(value: Any, document: Document, problems: list[Problem], key: str) -> Sequence[Any]:
    if isinstance(value, list):
        return value
    problems.append(Problem(f"`{key}` is not a list here", document.where((key,)), "write it out"))
    return []


def _prompt(prompt: Any, document: Document, place: Key, problems: list[Problem]) -> str:
    """A prompt's template; `file://` is read beside the configuration."""
    if isinstance(prompt, dict) and isinstance(prompt.get("raw"), str):
        prompt = prompt["raw"]
    if not isinstance(prompt, str):
        problems.append(Problem("a prompt is a text here", document.where(place)))
        return ""
    if not prompt.startswith("file://"):
        return prompt
    path: Path = document.path.parent / prompt.removeprefix("file://")
    if path.suffix not in (".txt", ".md", ".json"):
        problems.append(Problem(f"{prompt}: only .txt, .md, .json", document.where(place)))
        return ""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        problems.append(Problem(f"{path}: not readable: {error}", document.where(place)))
        return ""


def _asserts(
    test: Mapping[str, Any], document: Document, place: Key, problems: list[Problem]
) -> list[dict[str, Any]]:
    """A test's assertions as ours."""
    if not isinstance(test, Mapping):
        problems.append(Problem("is not a map", document.where(place)))
        return []
    problems += [
        Problem(f"`{key}` is not supported", document.where((*place, key)))
        for key in test
        if key not in _TEST_KEYS
    ]
    found = []
    for index, written in enumerate(test.get("assert") or []):
        where = document.where((*place, "assert", index))
        if not isinstance(written, dict) or not isinstance(written.get("type"), str):
            problems.append(Problem("an assertion is a map with a `type`", where))
            continue
        problems += [
            Problem(f"`{key}` of an assertion is not supported", where)
            for key in written
            if key not in _ASSERT_KEYS
        ]
        kind = written["type"]
        translate = _KINDS.get(kind.removeprefix("not-"))
        if translate is None:
            remedy = "a judge or a `python` assertion of our suites may do"
            problems.append(Problem(f"the assertion `{kind}` is not supported", where, remedy))
            continue
        try:
            ours = translate(written.get("value"), written.get("threshold"))
        except (TypeError, ValueError) as error:
            problems.append(Problem(f"`{kind}`: {error}", where))
            continue
        ours["not"] = kind.startswith("not-")
        if "weight" in written:
            ours["weight"] = written["weight"]
        found.append(ours)
    return found


def _case(
    name: str,
    prompt: str,
    values: Mapping[str, Any],
    given: Sequence[dict[str, Any]],
    test: Mapping[str, Any],
    where: str,
    problems: list[Problem],
) -> list[Case]:
    """The case of one prompt and one test; none when it is no case, which is told."""
    from jinja2 import StrictUndefined, TemplateError
    from jinja2.sandbox import SandboxedEnvironment

    environment = SandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)

    def filled(value: Any) -> Any:
        if isinstance(value, str):
            return environment.from_string(value).render(values)
        if isinstance(value, list):
            return [filled(item) for item in value]
        if isinstance(value, dict):
            return {key: filled(item) for key, item in value.items()}
        return value

    try:
        text = filled(prompt)
        demands = [{key: filled(item) for key, item in one.items()} for one in given]
        if "threshold" in test and demands:
            raise ValueError("`threshold` of a test is not supported")
        asked: Any = _turns(text)
        return [
            Case.model_validate(
                {
                    "id": name,
                    "messages": asked,
                    "assertions": demands,
                    "tags": [str(test["description"])] if test.get("description") else [],
                }
            )
        ]
    except ValidationError as error:
        problems += [Problem(e["msg"].removeprefix("Value error, "), where) for e in error.errors()]
    except (TemplateError, ValueError) as error:
        problems.append(Problem(str(error), where))
    return []


def _turns(text: str) -> list[Any]:
    """A prompt that is a JSON list is a chat, any other text one question."""
    if text.lstrip().startswith("["):
        try:
            turns = json.loads(text)
        except ValueError:
            turns = None
        if isinstance(turns, list) and all(isinstance(turn, dict) for turn in turns):
            return turns
    return [{"role": "user", "content": text}]


def _object(value: Any) -> dict[str, Any]:
    found = json.loads(value) if isinstance(value, str) else value
    if not isinstance(found, dict):
        raise ValueError("a JSON Schema is an object")
    return found


def _escaped(value: Any) -> str:
    import re

    return re.escape(str(value))
