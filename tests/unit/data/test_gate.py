from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_data import (
    MAX_LENGTH,
    SPEC,
    count_characters,
    pair,
    read_rows,
    write_rows,
)

from palmswift.data.reasons import CHANGES, REASONS
from palmswift.data.report import DataReport
from palmswift.data.sanitize import sanitize
from palmswift.errors import GateError, InputError
from palmswift.recipes.recipe import DataSettings

GOOD = [pair(f"question {number}", f"answer {number}") for number in range(20)]


@pytest.fixture(autouse=True)
def characters_are_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """ms-swift, whose import takes half a minute, is asked in tests/integration."""
    monkeypatch.setattr("palmswift.data.gate.judge", count_characters)


def clean(
    train: Sequence[Path],
    out: Path,
    val: Sequence[Path] = (),
    settings: DataSettings | None = None,
) -> DataReport:
    return sanitize(
        train,
        val,
        out,
        settings=settings or DataSettings(),
        template=SPEC,
        log=out / "template.log",
    )


def test_every_row_is_kept_or_stands_in_rejected_with_its_place_and_itself(tmp_path: Path) -> None:
    bad = pair("only a question", "")
    rows = [*GOOD, bad, pair("long", "x" * MAX_LENGTH), GOOD[3]]
    data = write_rows(tmp_path / "data.jsonl", rows)
    out = tmp_path / "out"
    report = clean([data], out)
    assert (report.read, report.kept, report.rejected) == (23, 20, 3)
    assert report.train_rows + report.val_rows == 20
    rejected = read_rows(out / "rejected.jsonl")
    assert [(row["line"], row["code"]) for row in rejected] == [
        (21, "blank_answer"),
        (22, "over_length"),
        (23, "duplicate"),
    ]
    assert rejected[0]["row"] == bad
    assert rejected[2]["detail"].endswith("data.jsonl:4")
    assert {row["source"] for row in rejected} == {str(data)}


def test_kept_rows_hold_messages_only_and_keep_their_order(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "data.jsonl", [{**row, "id": 7} for row in GOOD])
    out = tmp_path / "out"
    report = clean([data], out, settings=DataSettings(val_ratio=0))
    assert read_rows(out / "train.jsonl") == [
        {
            "messages": [
                {"role": "user", "content": row["query"]},
                {"role": "assistant", "content": row["response"]},
            ]
        }
        for row in GOOD
    ]
    assert not (out / "val.jsonl").exists()
    assert (report.held_out, report.changes) == ("none", {"columns_dropped": 20})


def test_rows_on_one_line_of_an_array_are_told_apart(tmp_path: Path) -> None:
    data = tmp_path / "data.json"
    data.write_text(json.dumps([GOOD[0], GOOD[1], GOOD[0], GOOD[2]]), encoding="utf-8")
    report = clean([data], tmp_path / "out")
    assert (report.kept, report.rejected) == (3, 1)
    assert read_rows(tmp_path / "out" / "rejected.jsonl")[0]["number"] == 3


def test_sanitising_the_result_again_changes_nothing(tmp_path: Path) -> None:
    settings = DataSettings(system="be kind\n", val_ratio=0.2)
    rows: list[Any] = [*GOOD, pair(" spaced ", "\nout\n"), pair("", "x"), {"instruction": "a"}]
    data = write_rows(tmp_path / "data.jsonl", rows)
    first, second = tmp_path / "first", tmp_path / "second"
    clean([data], first, settings=settings)
    report = clean([first / "train.jsonl"], second, [first / "val.jsonl"], settings)
    assert (report.rejected, report.changes) == (0, {})
    for name in ("train.jsonl", "val.jsonl"):
        assert (second / name).read_bytes() == (first / name).read_bytes()


def test_validation_rows_that_are_trained_on_are_rejected(tmp_path: Path) -> None:
    train = write_rows(tmp_path / "train.jsonl", GOOD[:10])
    val = write_rows(tmp_path / "val.jsonl", [GOOD[0], *GOOD[10:13], GOOD[10]])
    report = clean([train], tmp_path / "out", [val])
    assert (report.train_rows, report.val_rows, report.held_out) == (10, 3, "files")
    assert report.files[1].reasons == {"also_in_train": 1, "duplicate": 1}


def test_conflicting_answers_are_kept_and_counted(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "data.jsonl", [*GOOD, pair("question 3", "another answer")])
    report = clean([data], tmp_path / "out")
    assert (report.kept, report.conflicting_answers) == (21, 2)


def test_the_token_spread_and_histogram_hold_every_measured_row(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "data.jsonl", [*GOOD, pair("long", "x" * 300)])
    report = clean([data], tmp_path / "out")
    assert report.tokens is not None
    assert report.tokens.tokens.min == len("question 1answer 1")
    assert sum(part.kept for part in report.tokens.histogram) == 20
    assert sum(part.over_length for part in report.tokens.histogram) == 1
    assert report.tokens.histogram[-1].over_length == 1


def test_when_all_rows_are_rejected_the_reasons_are_told_and_kept(tmp_path: Path) -> None:
    out = tmp_path / "out"
    good = write_rows(tmp_path / "good.jsonl", GOOD)
    clean([good], out)
    bad = write_rows(tmp_path / "bad.jsonl", [pair("q", ""), pair("q", " "), {"text": "t"}])
    with pytest.raises(GateError) as caught:
        clean([bad], out)
    told = str(caught.value)
    assert "none of the 3 training rows" in told
    assert "2 x blank_answer" in told and "1 x unknown_shape" in told
    assert str(out / "rejected.jsonl") in told
    assert len(read_rows(out / "rejected.jsonl")) == 3
    # Rows of the earlier run would be trained on as if they were these.
    assert not (out / "train.jsonl").exists() and not (out / "val.jsonl").exists()


def test_validation_files_without_a_usable_row_fail(tmp_path: Path) -> None:
    train = write_rows(tmp_path / "train.jsonl", GOOD)
    val = write_rows(tmp_path / "val.jsonl", [{"query": "q"}])
    with pytest.raises(GateError, match="none of the 1 validation rows"):
        clean([train], tmp_path / "out", [val])


def test_one_row_is_too_few_to_hold_any_out(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "data.jsonl", GOOD[:1])
    with pytest.raises(GateError, match="too few"):
        clean([data], tmp_path / "out")
    assert clean([data], tmp_path / "out", settings=DataSettings(val_ratio=0)).train_rows == 1


def test_a_request_that_cannot_be_met_names_all_its_problems(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "train.jsonl", GOOD)
    settings = DataSettings(columns={"frage": "q"})
    with pytest.raises(InputError) as caught:
        clean([data, data], tmp_path, settings=settings)
    whats = [problem.what for problem in caught.value.problems]
    assert len(whats) == 3
    assert "given twice" in whats[0] and "overwrite" in whats[1] and "frage" in whats[2]
    assert len(read_rows(data)) == 20


def test_results_cannot_be_written_where_a_file_stands(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "data.jsonl", GOOD)
    with pytest.raises(InputError, match="a file stands there"):
        clean([data], data / "out")


def test_a_task_that_the_gate_does_not_know_is_refused(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "data.jsonl", GOOD)
    with pytest.raises(InputError, match="swift rlhf"):
        sanitize(
            [data],
            [],
            tmp_path / "out",
            settings=DataSettings(),
            template=SPEC.model_copy(update={"command": "rlhf"}),
            log=tmp_path / "log",
        )


def test_nothing_is_written_when_a_file_cannot_be_used(tmp_path: Path) -> None:
    good = write_rows(tmp_path / "good.jsonl", GOOD)
    with pytest.raises(InputError):
        clean([good, tmp_path / "absent.csv"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
roles = st.sampled_from(["system", "user", "assistant", "human", "gpt", "tool", "x", "User"])
contents = json_values | st.sampled_from(
    ["", " ", "<think>", "</think>", "<|im_end|>", "{{ROUND0}}", "yes", "\ud800", "2024-01-01"]
)
turn = st.fixed_dictionaries({}, optional={"role": roles, "from": roles, "content": contents})
columns = st.sampled_from(
    ["query", "response", "instruction", "input", "output", "system", "history", "tools", "问"]
)
rows_of_any_shape = (
    json_values
    | st.dictionaries(columns, contents, max_size=4)
    | st.fixed_dictionaries({"messages": st.lists(turn | json_values, max_size=5) | json_values})
    | st.fixed_dictionaries({"query": st.text(), "response": st.text()})
)


def check_accounts(path: Path, folder: Path) -> None:
    """What is promised of any file: refused whole, or every row is accounted for."""
    out = folder / "out"
    try:
        report = clean([path], out)
    except InputError:
        assert not out.exists()
        return
    except GateError:
        report = DataReport.model_validate_json((out / "report.json").read_text(encoding="utf-8"))
    else:
        kept = read_rows(out / "train.jsonl") + read_rows(out / "val.jsonl")
        assert len(kept) == report.kept
        for row in kept:
            answer = row["messages"][-1]
            assert answer["role"] == "assistant" and answer["content"].strip()
    assert report.read == report.kept + report.rejected
    rejected = read_rows(out / "rejected.jsonl")
    assert len(rejected) == report.rejected
    assert {row["code"] for row in rejected} <= REASONS.keys()
    assert report.changes.keys() <= CHANGES.keys()


@given(rows=st.lists(rows_of_any_shape, min_size=1, max_size=6), array=st.booleans())
def test_any_json_rows_are_accounted_for(rows: list[Any], array: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / ("f.json" if array else "f.jsonl")
        text = json.dumps(rows) if array else "\n".join(json.dumps(row) for row in rows)
        path.write_text(text, encoding="utf-8")
        check_accounts(path, Path(name))


damage = st.binary(max_size=6) | st.sampled_from(
    [b"{", b"}", b"[", b"]", b'"', b"\\", b",", b"\n", b"\r", b"\x00", b"null", b"NaN", b"\xff\xfe"]
)


@given(
    name=st.sampled_from(["f.json", "f.jsonl", "f.csv"]),
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
        path = Path(folder) / name
        path.write_bytes(b"".join(pieces))
        check_accounts(path, Path(folder))
