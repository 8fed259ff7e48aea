"""Reads a promptfoo configuration as a suite; what it cannot be read of is told by name and line.

Format: promptfoo.dev/docs/configuration/reference and /expected-outputs. Providers are left out:
endpoints are given to eval/run.py.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from palmswift.errors import InputError, Problem
from palmswift.eval.asking.conversation import Case
from palmswift.eval.suites.document import Document
from palmswift.eval.suites.promptfoo_files import Test, prompts_of, resolved, tests_of
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
    rows = csv.reader([str(value)], skipinitialspace=True)
    return [part.strip() for part in next(rows, []) if part.strip()]


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
        if key not in _IGNORED | {"prompts", "tests", "defaultTest", "assertionTemplates"}
    ]
    prompts = prompts_of(document, problems)
    default = Test(
        resolved(value.get("defaultTest") or {}, value.get("assertionTemplates")),
        lambda key: document.where(("defaultTest", *key)),
    )
    common = _asserts(default, problems)
    shared = default.value.get("vars") or {} if isinstance(default.value, dict) else {}
    cases: list[Case] = []
    for number, test in enumerate(tests_of(document, problems), start=1):
        if not isinstance(test.value, dict):
            problems.append(Problem("a test is a map of `vars` and `assert`", test.where(())))
            continue
        given = [*common, *_asserts(test, problems)]
        values = {**shared, **(test.value.get("vars") or {})}
        for index, prompt in enumerate(prompts, start=1):
            name = f"{number}" if len(prompts) == 1 else f"{number}.{index}"
            cases += _case(name, prompt, values, given, test, problems)
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


def _asserts(test: Test, problems: list[Problem]) -> list[dict[str, Any]]:
    """A test's assertions as ours."""
    if not isinstance(test.value, Mapping):
        problems.append(Problem("is not a map", test.where(())))
        return []
    problems += [
        Problem(f"`{key}` is not supported", test.where((key,)))
        for key in test.value
        if key not in _TEST_KEYS
    ]
    found = []
    for index, written in enumerate(test.value.get("assert") or []):
        where = test.where(("assert", index))
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
    test: Test,
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

    described, where = test.value.get("description"), test.where(())
    try:
        text = filled(prompt)
        demands = [{key: filled(item) for key, item in one.items()} for one in given]
        if "threshold" in test.value and demands:
            raise ValueError("`threshold` of a test is not supported")
        asked: Any = _turns(text)
        return [
            Case.model_validate(
                {
                    "id": name,
                    "messages": asked,
                    "assertions": demands,
                    "tags": [str(described)] if described else [],
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
