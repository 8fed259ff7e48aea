from __future__ import annotations

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from palmswift.recipes.yaml_text import dump, parse


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("3e-6", 3e-6),
        ("1.0e-3", 1e-3),
        (".5", 0.5),
        ("007", 7),
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("~", None),
        ("2026-01-01", "2026-01-01"),
        ("1:30", "1:30"),
        ("'1e-4'", "1e-4"),
        (".inf", float("inf")),
    ],
)
def test_scalars_are_read_as_yaml_1_2_reads_them(text: str, value: object) -> None:
    read = parse(f"key: {text}", "file").value["key"]
    assert read == value
    assert type(read) is type(value)


def test_every_key_knows_its_line() -> None:
    read = parse("a: 1\nb:\n  c: 2\n  d: [1, 2]\n", "file")
    assert read.lines == {("a",): 1, ("b",): 2, ("b", "c"): 3, ("b", "d"): 4}


@pytest.mark.parametrize(
    ("text", "line", "word"),
    [
        ("a: 1\na: 2", 2, "twice"),
        ("a: 1\n1: 2", 2, "not text"),
        ("a: &x 1\nb: *x", 1, "alias"),
        ("a: &x\n  b: *x", 1, "alias"),
        ("a: 1\nb: !!python/object:os.system x", 2, "tag"),
        ("a: !!int many", 1, "does not fit"),
        ("a: " + "9" * 5000, 1, "digits"),
        ("a: 1\nb: [1", 2, "broken YAML"),
        ("a: 1\n---\nb: 2", 2, "broken YAML"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_line(text: str, line: int, word: str) -> None:
    (problem,) = parse(text, "file").problems
    assert problem.where == f"file:{line}"
    assert word in problem.what


@pytest.mark.parametrize("text", ["\x00", "[" * 600, "a: b: c"])
def test_text_that_is_no_yaml_is_a_problem(text: str) -> None:
    assert len(parse(text, "file").problems) == 1


_SCALARS = st.none() | st.booleans() | st.integers(-(10**12), 10**12) | st.text(max_size=12)
_DOCUMENTS = st.recursive(
    _SCALARS | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=50)
@given(_DOCUMENTS)
def test_what_is_dumped_is_read_back(document: object) -> None:
    text = dump({"key": document})
    assert parse(text, "file").value == {"key": document}


@given(st.text(max_size=8))
def test_dumped_text_stays_text_in_pyyaml_too(word: str) -> None:
    assert yaml.safe_load(dump({"key": word})) == {"key": word}


@given(st.text(max_size=60))
def test_no_text_at_all_raises(text: str) -> None:
    parse(text, "file")
