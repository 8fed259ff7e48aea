"""The prompts and tests of a promptfoo configuration, also where they stand in files beside it.

As promptfoo 0.121 has them: `.txt` prompts are divided by lines of `---`; tests come from CSV, with
columns for variables and `__expected` ones for assertions, or as lists from YAML, JSON and JSONL.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from palmswift.errors import InputError, Problem
from palmswift.eval.suites.document import Document, Key, read_yaml

_PROMPTS = (".txt", ".md", ".json")
_LISTS = (".yaml", ".yml", ".json")
_ROWS = (".csv", ".jsonl")
_FILE = re.compile(r"[^\s{}]+\.(txt|md|json|jsonl|ya?ml|csv|j2|[cm]?[jt]s|py)")
"""What promptfoo takes for a file without `file://`."""
_BETWEEN = re.compile(r"^[ \t]*---[ \t]*$", re.MULTILINE)
_TEMPLATE = "#/assertionTemplates/"

_TYPES = {
    *(
        "agent-rubric",
        "answer-relevance",
        "bleu",
        "classifier",
        "contains",
        "contains-all",
    ),
    *(
        "contains-any",
        "contains-html",
        "contains-json",
        "contains-sql",
        "contains-xml",
    ),
    *(
        "context-faithfulness",
        "context-recall",
        "context-relevance",
    ),
    *(
        "conversation-relevance",
        "cost",
        "equals",
        "factuality",
        "finish-reason",
        "g-eval",
    ),
    *(
        "gleu",
        "guardrails",
        "icontains",
        "icontains-all",
        "icontains-any",
        "is-html",
    ),
    *(
        "is-json",
        "is-refusal",
        "is-sql",
        "is-valid-function-call",
    ),
    *(
        "is-valid-openai-function-call",
        "is-valid-openai-tools-call",
        "is-xml",
        "javascript",
    ),
    *(
        "latency",
        "levenshtein",
        "llm-rubric",
        "pi",
        "meteor",
        "model-graded-closedqa",
    ),
    *(
        "model-graded-factuality",
        "moderation",
        "perplexity",
        "perplexity-score",
        "python",
    ),
    *(
        "regex",
        "rouge-n",
        "ruby",
        "similar",
        "starts-with",
        "tool-call-f1",
        "skill-used",
    ),
    *(
        "search-rubric",
        "webhook",
        "word-count",
        "fn",
        "eval",
        "grade",
    ),
}
"""What a cell may begin with to be more than a text that the answer must equal (promptfoo 0.121,
BaseAssertionTypesSchema and assertionFromString)."""
_CELL = re.compile(r"(not-)?([a-z0-9-]+)(?:\((\d+(?:\.\d+)?)\))?(?::(.*))?", re.DOTALL)
_DEFAULT_THRESHOLD = 0.75
_IGNORED_COLUMNS = ("__metric", "__metadata")


class Test(NamedTuple):
    """A test as it is written."""

    value: Any
    where: Callable[[Key], str]
    """The place of a key below it."""


def prompts_of(document: Document, problems: list[Problem]) -> list[str]:
    """The templates of the prompts; what is none is added to `problems`."""
    written = document.value.get("prompts")
    if isinstance(written, str):
        written = [written]
    if not isinstance(written, list):
        where = document.where(("prompts",))
        problems.append(Problem("`prompts` is neither a text nor a list here", where))
        return []
    found: list[str] = []
    for index, prompt in enumerate(written):
        if isinstance(prompt, dict) and isinstance(prompt.get("raw"), str):
            prompt = prompt["raw"]
        try:
            if not isinstance(prompt, str):
                raise InputError("a prompt is a text here")
            found += _prompts(prompt, document.path.parent)
        except InputError as error:
            problems.append(Problem(error.summary, document.where(("prompts", index))))
    return found


def _prompts(prompt: str, folder: Path) -> list[str]:
    if not prompt.startswith("file://") and not _FILE.fullmatch(prompt):
        return [prompt]
    path = folder / prompt.removeprefix("file://")
    if path.suffix not in _PROMPTS:
        raise InputError(f"{prompt}: only {', '.join(_PROMPTS)}")
    text = _text(path)
    if path.suffix != ".txt":
        return [text]
    return [part.strip() for part in _BETWEEN.split(text) if part.strip()]


def tests_of(document: Document, problems: list[Problem]) -> list[Test]:
    """The tests; what is none is added to `problems`."""
    written = document.value.get("tests", [{}])
    if not isinstance(written, list):
        written = [written]
    tests: list[Test] = []
    for index, value in enumerate(written):
        below: Key = ("tests",) if written is not document.value.get("tests") else ("tests", index)
        try:
            if isinstance(value, str):
                path = document.path.parent / value.removeprefix("file://")
                tests += _tests_in(path)
            elif isinstance(value, dict):
                tests.append(Test(value, _places(document, below)))
            else:
                raise InputError("a test is a map of `vars` and `assert`, or a file of them")
        except InputError as error:
            problems.append(Problem(error.summary, document.where(below)))
            problems += error.problems
    templates = document.value.get("assertionTemplates") or {}
    return [test._replace(value=resolved(test.value, templates)) for test in tests]


def resolved(test: Any, templates: Any) -> Any:
    """A test with what its `$ref`s to `assertionTemplates` stand for."""
    if not isinstance(test, dict) or not isinstance(test.get("assert"), list):
        return test
    known = templates if isinstance(templates, dict) else {}
    return {**test, "assert": [_resolved(one, known) for one in test["assert"]]}


def _resolved(assertion: Any, templates: dict[str, Any]) -> Any:
    reference = assertion.get("$ref") if isinstance(assertion, dict) else None
    if not isinstance(reference, str) or not reference.startswith(_TEMPLATE):
        return assertion
    found = templates.get(reference.removeprefix(_TEMPLATE))
    if not isinstance(found, dict):
        return assertion  # told as no map with a `type`
    return {**found, **{key: value for key, value in assertion.items() if key != "$ref"}}


def _places(document: Document, below: Key) -> Callable[[Key], str]:
    return lambda key: document.where((*below, *key))


def _row(path: Path, line: int) -> Callable[[Key], str]:
    return lambda key: f"{path}:{line}"


def _tests_in(path: Path) -> Iterator[Test]:
    if path.suffix in _LISTS:
        document = read_yaml(path)
        if not isinstance(document.value, list):
            raise InputError(f"{path}: not a list of tests")
        for index, value in enumerate(document.value):
            yield Test(value, _places(document, (index,)))
    elif path.suffix in _ROWS:
        rows = _csv_rows(path) if path.suffix == ".csv" else _json_rows(path)
        for line, value in rows:
            yield Test(value, _row(path, line))
    else:
        raise InputError(f"{path}: only {', '.join((*_LISTS, *_ROWS))}")


def _json_rows(path: Path) -> Iterator[tuple[int, Any]]:
    for line, text in enumerate(_text(path).splitlines(), start=1):
        if text.strip():
            try:
                yield line, json.loads(text)
            except ValueError as error:
                raise InputError(f"{path}:{line}: not JSON: {error}") from error


def _csv_rows(path: Path) -> Iterator[tuple[int, Any]]:
    reader = csv.DictReader(_text(path).splitlines(keepends=True))
    for row in reader:
        if None in row or None in row.values():
            raise InputError(f"{path}:{reader.line_num}: not as many cells as the first line has")
        yield reader.line_num, _test_of({name.strip(): cell for name, cell in row.items()})


def _test_of(row: dict[str, str]) -> dict[str, Any]:
    test: dict[str, Any] = {"vars": {}}
    expected = []
    for column, cell in row.items():
        if column.startswith("__expected"):
            expected += [assertion_of(cell.strip())] if cell.strip() else []
        elif column == "__description":
            test["description"] = cell
        elif column.startswith("__") and not column.startswith(_IGNORED_COLUMNS):
            if cell.strip():
                test[column] = cell  # told as not supported
        elif not column.startswith("__"):
            test["vars"][column] = cell
    return {**test, "assert": expected} if expected else test


def assertion_of(cell: str) -> dict[str, Any]:
    """The assertion that a cell means: `TYPE(threshold): value`, or the text that is expected."""
    match = _CELL.fullmatch(cell)
    if match is None or match[2] not in _TYPES:
        return {"type": "equals", "value": cell}
    negated, kind, threshold, value = match.groups()
    found: dict[str, Any] = {"type": f"{negated or ''}{kind}"}
    if value is not None:
        found["value"] = value.strip()
    if kind == "latency":
        found["threshold"] = float(threshold) if threshold else _DEFAULT_THRESHOLD
    elif threshold:
        found["threshold"] = float(threshold)
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable: {error}") from error
