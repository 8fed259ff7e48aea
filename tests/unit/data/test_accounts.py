"""Whatever files come in, each row is found once: trained on, held out, or rejected."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support_data import SPEC, CharacterJudge, read_rows

from palmswift.data.policy import CHANGES, CHECKS
from palmswift.data.report import DataReport
from palmswift.data.sanitize import sanitize
from palmswift.errors import GateError, InputError
from palmswift.recipes.recipe import DataSettings

MARK = re.compile(r"M\d+M")


@pytest.fixture(autouse=True, scope="module")
def characters_are_tokens() -> Any:
    """ms-swift, whose import takes half a minute, is asked in tests/integration."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("palmswift.data.gate.TemplateJudge", CharacterJudge)
        yield


def query_response(question: str, answer: Any) -> Any:
    return {"query": question, "response": answer}


def messages(question: str, answer: Any) -> Any:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": turns}


def sharegpt(question: str, answer: Any) -> Any:
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"conversations": turns, "id": 7}


def alpaca(question: str, answer: Any) -> Any:
    return {"instruction": question, "input": "", "output": answer}


def chinese(question: str, answer: Any) -> Any:
    return {"问题": question, "答案": answer}


def nothing_known(question: str, answer: Any) -> Any:
    return {"zzz": question, "yyy": answer}


SHAPES = (query_response, messages, sharegpt, alpaca, chinese, nothing_known)

answers = st.sampled_from(
    ["好的", "fine", "", " ", "<think>", "<|im_end|>", "x" * 300, "2024-01-01", "007", "\u200b好"]
) | st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=12)
good = st.sampled_from(["好的", "fine", "八点开门", "on Monday"])
values = good | answers | st.none() | st.integers() | st.lists(st.integers(), max_size=2)
broken_lines = st.sampled_from(
    [
        "{",
        "null",
        "[1, 2]",
        '"text"',
        "// a note",
        "{'query': 'a'}",
        '{"a": 1, "a": 2}',
        "\x00",
        "]",
    ]
)


class Raw(NamedTuple):
    """A file, and the marks of its rows in their order."""

    name: str
    data: bytes
    marks: list[str]


def as_jsonl(rows: Sequence[Any]) -> str:
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n"


def as_array(rows: Sequence[Any]) -> str:
    return json.dumps(rows, ensure_ascii=False, indent=1)


def as_wrapped(rows: Sequence[Any]) -> str:
    return json.dumps({"data": rows})


JSON_FORMS: tuple[tuple[str, Callable[[Sequence[Any]], str]], ...] = (
    ("jsonl", as_jsonl),
    ("json", as_array),
    ("json", as_wrapped),
    ("json", as_jsonl),
)


@st.composite
def json_files(draw: st.DrawFn, number: int) -> Raw:
    """JSON of many forms and encodings; JSONL may have lines that are broken, or break off."""
    suffix, form = draw(st.sampled_from(JSON_FORMS))
    marks = [f"M{100 * number + draw(st.integers(1, 12))}M" for _ in range(draw(st.integers(1, 8)))]
    question = st.sampled_from(["几点", "when"])
    shape = st.sampled_from(SHAPES)
    rows = [draw(shape)(f"{mark} {draw(question)}", draw(values)) for mark in marks]
    text = form(rows)
    if form is as_jsonl:
        lines = text.split("\n")
        for line in draw(st.lists(broken_lines, max_size=2)):
            lines.insert(draw(st.integers(0, len(lines) - 1)), line)
        text = "\n".join(lines)
        text = text[: len(text) - draw(st.sampled_from([0, 0, 1, 4, 9]))]
    encoding = draw(st.sampled_from(["utf-8", "utf-8", "utf-8-sig", "utf-16", "gb18030"]))
    data = text.encode(encoding)
    if draw(st.booleans()):
        return Raw(f"f{number}.{suffix}.gz", gzip.compress(data), MARK.findall(text))
    return Raw(f"f{number}.{suffix}", data, MARK.findall(text))


@st.composite
def csv_files(draw: st.DrawFn, number: int) -> Raw:
    """Tables with text of any kind in their cells."""
    delimiter, suffix = draw(st.sampled_from([(",", "csv"), (";", "csv"), ("\t", "tsv")]))
    marks = [f"M{100 * number + draw(st.integers(1, 12))}M" for _ in range(draw(st.integers(1, 8)))]
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, delimiter=delimiter, quoting=csv.QUOTE_ALL)
    writer.writerow(draw(st.sampled_from([("query", "response"), ("问题", "答案"), ("x", "y")])))
    for mark in marks:
        writer.writerow((f"{mark} 几点", draw(good | answers)))
    encoding = draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "gb18030"]))
    return Raw(f"f{number}.{suffix}", stream.getvalue().encode(encoding), marks)


rules = st.fixed_dictionaries(
    {},
    optional={
        "duplicate": st.sampled_from(["keep", "reject"]),
        "near_duplicate": st.sampled_from(["keep", "reject"]),
        "near_in_train": st.sampled_from(["keep", "reject"]),
        "conflicting_answers": st.sampled_from(["keep", "reject"]),
        "over_length": st.sampled_from(["truncate", "split"]),
        "control_tokens": st.just("reject"),
    },
)


def clean(folder: Path, files: Sequence[Raw], val: Sequence[Raw], told: DataSettings) -> DataReport:
    for raw in (*files, *val):
        (folder / raw.name).write_bytes(raw.data)
    return sanitize(
        [folder / raw.name for raw in files],
        [folder / raw.name for raw in val],
        folder / "out",
        settings=told,
        template=SPEC,
        log=folder / "log",
    )


def marks_of(path: Path) -> list[str]:
    """The marks of the rows of a file, in their order."""
    if not path.exists():
        return []
    rows = read_rows(path)
    return [mark for row in rows for mark in MARK.findall(json.dumps(row, ensure_ascii=False))]


def in_order(part: Sequence[str], whole: Sequence[str]) -> bool:
    remaining = iter(whole)
    return all(mark in remaining for mark in part)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=150)
@given(
    train=st.lists(st.integers(0, 99), min_size=1, max_size=2, unique=True).flatmap(
        lambda numbers: st.tuples(*(json_files(number) | csv_files(number) for number in numbers))
    ),
    val=st.just(()) | st.tuples(json_files(200)),
    rules=rules,
    ratio=st.sampled_from([0.0, 0.3]),
)
def test_every_row_is_found_once_and_in_its_order(
    train: tuple[Raw, ...], val: tuple[Raw, ...], rules: dict[str, str], ratio: float
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        out = folder / "out"
        told = DataSettings(rules=rules, val_ratio=ratio)
        try:
            report = clean(folder, train, val, told)
        except InputError:
            assert not out.exists()
            return
        except GateError:
            assert not (out / "train.jsonl").exists() and not (out / "val.jsonl").exists()
            text = (out / "report.json").read_text(encoding="utf-8")
            report = DataReport.model_validate_json(text)
            assert len(read_rows(out / "rejected.jsonl")) == report.rejected
            return
        check_accounts(out, report, [mark for raw in (*train, *val) for mark in raw.marks])
        assert {path.name for path in folder.iterdir()} == {
            "out",
            *(raw.name for raw in (*train, *val)),
        }


def check_accounts(out: Path, report: DataReport, given_marks: Sequence[str]) -> None:
    assert report.read == report.kept + report.rejected
    assert all(file.read == file.kept + file.rejected for file in report.files)
    found = {name: marks_of(out / f"{name}.jsonl") for name in ("train", "val", "rejected")}
    assert Counter(given_marks) == Counter(mark for marks in found.values() for mark in marks)
    for marks in found.values():
        assert in_order(marks, given_marks)
    rejected = read_rows(out / "rejected.jsonl")
    assert len(rejected) == report.rejected
    assert {row["code"] for row in rejected} <= CHECKS.keys()
    assert report.changes.keys() <= CHANGES.keys()
    for side, count in (("train", report.train_rows), ("val", report.val_rows)):
        kept = read_rows(out / f"{side}.jsonl") if (out / f"{side}.jsonl").exists() else []
        assert len(kept) == count
        for row in kept:
            assert row["messages"][-1]["role"] == "assistant"
            assert row["messages"][-1]["content"].strip()


damage = st.binary(max_size=6) | st.sampled_from(
    [b"{", b"}", b"[", b"]", b'"', b"\\", b",", b"\n", b"\r", b"\x00", b"null", b"NaN", b"\xff\xfe"]
)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    name=st.sampled_from(["f.json", "f.jsonl", "f.csv", "f.txt", "f.jsonl.gz", "f.parquet"]),
    pieces=st.lists(
        damage
        | st.just(b'{"query": "q", "response": "a"}\n')
        | st.just('问题,"答案"\n'.encode("gb18030"))
        | st.just("query,response\n几点,八点\n".encode()),
        max_size=8,
    ),
)
def test_any_bytes_are_accounted_for_or_refused(name: str, pieces: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        raw = Raw(name, b"".join(pieces), [])
        try:
            report = clean(Path(folder), [raw], [], DataSettings(val_ratio=0))
        except InputError:
            assert not (Path(folder) / "out").exists()
        except GateError:
            assert not (Path(folder) / "out" / "train.jsonl").exists()
        else:
            check_accounts(Path(folder) / "out", report, [])


@given(
    rows=st.lists(st.tuples(st.integers(0, 6), st.sampled_from(["a", "b", "c d e"])), min_size=2),
    rules=rules.filter(lambda chosen: chosen.get("over_length") is None),
)
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_what_came_through_comes_through_again_unchanged(
    rows: list[tuple[int, str]], rules: dict[str, str]
) -> None:
    told = DataSettings(rules=rules, val_ratio=0.3)
    lines = [query_response(f"M{number}M {'wide words ' * number}", text) for number, text in rows]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        raw = Raw("f.jsonl", as_jsonl(lines).encode(), [])
        try:
            clean(folder, [raw], [], told)
        except GateError:
            return
        first = {
            side: (folder / "out" / side).read_bytes() for side in ("train.jsonl", "val.jsonl")
        }
        again = [Raw(side, data, []) for side, data in first.items()]
        (folder / "again").mkdir()
        report = clean(folder / "again", again[:1], again[1:], told)
        assert (report.rejected, report.changes) == (0, {})
        for side, data in first.items():
            assert (folder / "again" / "out" / side).read_bytes() == data
