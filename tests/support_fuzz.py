"""Data files of any kind, encoding and damage, and what the gate promises for each of them."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import string
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import openpyxl
import pyarrow
import pyarrow.parquet
import zstandard
from hypothesis import strategies as st
from support_data import SPEC, read_rows, write_rows

from palmswift.data.convert import convert, rejected_beside
from palmswift.data.express import TARGETS, Target
from palmswift.data.policy import CHANGES, CHECKS
from palmswift.data.read import open_files
from palmswift.data.report import DataReport
from palmswift.data.row import Kind
from palmswift.data.sanitize import sanitize
from palmswift.errors import GateError, InputError
from palmswift.recipes.recipe import DataSettings

MARK = re.compile(r"M\d+M")

Outcome = Literal["cleaned", "no row left", "refused"]
"""How a run of the gate ended: with rows, with reasons alone, or before it began."""


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


def lccc(question: str, answer: Any) -> Any:
    return [question, answer, "谢谢"]


def chatml(question: str, answer: Any) -> Any:
    asked = f"<|im_start|>user\n{question}<|im_end|>\n"
    return {"text": f"{asked}<|im_start|>assistant\n{answer}<|im_end|>"}


def nothing_known(question: str, answer: Any) -> Any:
    return {"zzz": question, "yyy": answer}


SHAPES = (query_response, messages, sharegpt, alpaca, chinese, lccc, chatml, nothing_known)

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


PACKERS: tuple[tuple[str, Callable[[bytes], bytes]], ...] = (
    *(("", bytes), ("", bytes)),
    (".gz", gzip.compress),
    (".zst", zstandard.compress),
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
    packing, pack = draw(st.sampled_from(PACKERS))
    return Raw(f"f{number}.{suffix}{packing}", pack(data), MARK.findall(text))


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


@st.composite
def tables(draw: st.DrawFn, number: int) -> Raw:
    """Parquet and workbooks."""
    marks = [f"M{100 * number + draw(st.integers(1, 12))}M" for _ in range(draw(st.integers(1, 8)))]
    cells = [(f"{mark} 几点", draw(good | answers.filter(str.isprintable))) for mark in marks]
    stream = io.BytesIO()
    if draw(st.booleans()):
        records = [dict(zip(("query", "response"), pair, strict=True)) for pair in cells]
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), stream)
        return Raw(f"f{number}.parquet", stream.getvalue(), marks)
    book = openpyxl.Workbook()
    for row in (("query", "response"), *cells):
        book.active.append(row)
        for cell in book.active[book.active.max_row]:
            cell.data_type = "s"
    book.save(stream)
    return Raw(f"f{number}.xlsx", stream.getvalue(), marks)


def files(number: int) -> st.SearchStrategy[Raw]:
    """A file of any kind."""
    few = st.sampled_from([tables(number), *[json_files(number), csv_files(number)] * 4])
    return few.flatmap(lambda kind: kind)


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


class Case(NamedTuple):
    """What one run of the gate is given."""

    train: tuple[Raw, ...]
    val: tuple[Raw, ...]
    rules: dict[str, str]
    ratio: float

    @property
    def files(self) -> tuple[Raw, ...]:
        """All files."""
        return (*self.train, *self.val)


cases = st.builds(
    Case,
    train=st.lists(st.integers(0, 99), min_size=1, max_size=2, unique=True).flatmap(
        lambda numbers: st.tuples(*map(files, numbers))
    ),
    val=st.just(()) | st.tuples(files(200)),
    rules=rules,
    ratio=st.sampled_from([0.0, 0.3]),
)


def check_case(case: Case) -> Outcome:
    """Every mark is found in one output, as often as it was given and in its order."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        out = folder / "out"
        told = DataSettings(rules=case.rules, val_ratio=case.ratio)
        try:
            report = clean(folder, case.train, case.val, told)
        except InputError:
            assert not out.exists()
            return "refused"
        except GateError:
            assert not (out / "train.jsonl").exists() and not (out / "val.jsonl").exists()
            text = (out / "report.json").read_text(encoding="utf-8")
            report = DataReport.model_validate_json(text)
            assert len(read_rows(out / "rejected.jsonl")) == report.rejected
            return "no row left"
        check_accounts(out, report, [mark for raw in case.files for mark in raw.marks])
        assert {path.name for path in folder.iterdir()} == {
            "out",
            *(raw.name for raw in case.files),
        }
        return "cleaned"


damage = st.binary(max_size=6) | st.sampled_from(
    [b"{", b"}", b"[", b"]", b'"', b"\\", b",", b"\n", b"\r", b"\x00", b"null", b"NaN", b"\xff\xfe"]
)


torn = st.builds(
    lambda name, pieces: Raw(name, b"".join(pieces), []),
    st.sampled_from(["f.json", "f.jsonl", "f.csv", "f.txt", "f.jsonl.gz", "f.parquet"]),
    st.lists(
        damage
        | st.just(b'{"query": "q", "response": "a"}\n')
        | st.just('问题,"答案"\n'.encode("gb18030"))
        | st.just("query,response\n几点,八点\n".encode()),
        max_size=8,
    ),
)
"""Files of pieces, most of them no file of any format."""


def check_torn(raw: Raw) -> Outcome:
    """The rows add up, or nothing is written."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            report = clean(Path(folder), [raw], [], DataSettings(val_ratio=0))
        except InputError:
            assert not (Path(folder) / "out").exists()
            return "refused"
        except GateError:
            assert not (Path(folder) / "out" / "train.jsonl").exists()
            return "no row left"
        check_accounts(Path(folder) / "out", report, [])
        return "cleaned"


class Repeated(NamedTuple):
    """Rows of which many are equal or alike, to be cleaned twice."""

    rows: list[tuple[int, str]]
    rules: dict[str, str]


repeated = st.builds(
    Repeated,
    rows=st.lists(st.tuples(st.integers(0, 6), st.sampled_from(["a", "b", "c d e"])), min_size=2),
    rules=rules.filter(lambda chosen: chosen.get("over_length") is None),
)


def check_again(given: Repeated) -> Outcome:
    """What came through comes through again, byte for byte and without a change."""
    told = DataSettings(rules=given.rules, val_ratio=0.3)
    lines = [query_response(f"M{n}M {'wide words ' * n}", text) for n, text in given.rows]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        raw = Raw("f.jsonl", as_jsonl(lines).encode(), [])
        try:
            clean(folder, [raw], [], told)
        except GateError:
            return "no row left"
        first = {
            side: (folder / "out" / side).read_bytes() for side in ("train.jsonl", "val.jsonl")
        }
        again = [Raw(side, data, []) for side, data in first.items()]
        (folder / "again").mkdir()
        report = clean(folder / "again", again[:1], again[1:], told)
        assert (report.rejected, report.changes) == (0, {})
        for side, data in first.items():
            assert (folder / "again" / "out" / side).read_bytes() == data
        return "cleaned"


SUFFIXES: dict[Target, list[str]] = {
    "messages": [".jsonl", ".json"],
    "sharegpt": [".jsonl", ".json"],
    "alpaca": [".jsonl", ".json"],
    "query_response": [".jsonl", ".json"],
    "chatml": [".jsonl", ".json", ".txt"],
    "csv": [".csv"],
}
WAYS = [(target, suffix) for target in TARGETS for suffix in SUFFIXES[target]]
"""Every shape with every kind of file that it can be written to."""


def converted(source: Path, target: Target, out: Path, kind: Kind = "sft") -> Path:
    convert(open_files([source]), target, out, kind=kind, settings=DataSettings())
    return out


def turns(*texts: str, system: str | None = None) -> dict[str, Any]:
    messages = [{"role": "system", "content": system}] if system is not None else []
    roles = ("user", "assistant")
    messages += [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]
    return {"messages": messages}


texts = st.lists(
    st.one_of(
        st.sampled_from(["\n---\n", "\n\n", "\r\n", "===", "<think>", "user\n"]),
        st.sampled_from("甲，。\n\r\t\"',;|[]{}=@+-\\/#&<>​"),
        st.sampled_from(string.ascii_letters + string.digits),
        st.characters(blacklist_categories=["Cs", "Cc"]),
    ),
    min_size=1,
    max_size=30,
).map("".join)
dialogues = st.builds(
    lambda pairs, system: turns(*[text for pair in pairs for text in pair], system=system),
    st.lists(st.tuples(texts, texts), min_size=1, max_size=3),
    st.none() | texts,
)


def check_round_trip(rows: list[dict[str, Any]], way: tuple[Target, str]) -> None:
    """What a shape can hold comes back from it as it was; the others stand beside the file."""
    target, suffix = way
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = write_rows(folder / "rows.jsonl", [*rows, turns("问", "答")])
        clean_rows = converted(source, "messages", folder / "clean.jsonl")
        there = converted(clean_rows, target, folder / f"there{suffix}")
        lost = rejected_beside(there)
        left_out = [line["row"] for line in read_rows(lost)] if lost.exists() else []
        back = converted(there, "messages", folder / "back.jsonl")
        assert read_rows(back) == [row for row in read_rows(clean_rows) if row not in left_out]
