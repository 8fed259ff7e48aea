from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from rich.console import Console
from support_report import builder_of, facts, report_of, sample_of

from palmswift.data.policy import CHANGES, CHECKS
from palmswift.data.report import DataReport, FileReport, schema_text
from palmswift.data.row import Place, Rejection
from palmswift.data.suggest import with_suggestions
from palmswift.data.table import summary_table
from palmswift.data.tally import EXAMPLES, PRIVATE

ROOT = Path(__file__).parents[3]
codes = st.sampled_from(sorted(CHECKS))


def file_report(read: int, kept: int, rejected: int, reasons: dict[str, int]) -> FileReport:
    return FileReport(
        source="f.csv",
        use="train",
        format="csv",
        encoding="utf-8",
        read=read,
        kept=kept,
        rejected=rejected,
        shapes={"alpaca": kept},
        reasons=reasons,
    )


@pytest.mark.parametrize(
    ("read", "kept", "rejected", "reasons"),
    [(3, 1, 1, {"no_answer": 1}), (3, 1, 2, {"no_answer": 1})],
)
def test_a_file_report_that_loses_a_row_cannot_be_made(
    read: int, kept: int, rejected: int, reasons: dict[str, int]
) -> None:
    with pytest.raises(ValidationError):
        file_report(read, kept, rejected, reasons)


rows = st.lists(
    st.tuples(
        st.sampled_from(["a.jsonl", "b.csv"]),
        st.one_of(
            st.tuples(st.just("rejected"), codes),
            st.tuples(st.just("kept"), st.frozensets(codes, max_size=3)),
        ),
    ),
    max_size=60,
)


@given(rows=rows)
def test_the_report_accounts_for_every_row_it_was_told_of(
    rows: list[tuple[str, tuple[str, Any]]],
) -> None:
    builder = builder_of("a.jsonl", "b.csv")
    for number, (source, (fate, what)) in enumerate(rows, 1):
        place = Place(source, number, number)
        if fate == "rejected":
            builder.rejected(Rejection(place, what, "because", {"text": "x" * 5000}))
        else:
            builder.kept(place, "messages", findings=what, line='{"text": "' + "x" * 5000)
            builder.wrote("train", number, 1)
    report = builder.finish()
    assert report.read == len(rows)
    for file in report.files:
        mine = [fate for source, (fate, _) in rows if source == file.source]
        assert (file.kept, file.rejected) == (mine.count("kept"), mine.count("rejected"))
    assert sum(reason.count for reason in report.reasons) == report.rejected
    for code in report.reasons + report.findings:
        assert 1 <= len(code.examples) <= min(code.count, EXAMPLES)
        assert all(len(example.row) <= 300 for example in code.examples)
    told = [code for _, (fate, what) in rows if fate == "kept" for code in what]
    assert {code.code: code.count for code in report.findings} == {
        code: told.count(code) for code in set(told)
    }
    assert DataReport.model_validate_json(report.model_dump_json()) == report


def test_a_row_that_was_split_is_kept_once_and_written_several_times() -> None:
    builder = builder_of("f.jsonl")
    builder.kept(Place("f.jsonl", 1, 1), "messages", changes={"split_at_turns"})
    for tokens in (30, 20, 10):
        builder.wrote("train", tokens, 5)
    report = builder.finish()
    assert (report.kept, report.train_rows, report.parts) == (1, 3, 2)
    assert report.changes == {"split_at_turns": 1}


def test_a_kept_row_that_was_written_nowhere_is_found_out() -> None:
    builder = builder_of("f.jsonl")
    builder.kept(Place("f.jsonl", 1, 1), "messages")
    with pytest.raises(ValidationError):
        DataReport.model_validate({**builder.finish().model_dump(), "parts": 0})


@pytest.mark.parametrize("code", sorted(PRIVATE))
def test_a_row_with_private_data_is_told_by_its_place_alone(code: str) -> None:
    builder = builder_of("f.jsonl")
    line = '{"text": "call 13800138000"}'
    builder.kept(Place("f.jsonl", 1, 1), "messages", findings={code, "boilerplate"}, line=line)
    builder.wrote("train", 5, 5)
    builder.rejected(Rejection(Place("f.jsonl", 2, 2), code, "at character 5", line))
    assert "13800138000" not in builder.finish().model_dump_json()


def test_a_row_given_as_bytes_is_cut_between_characters() -> None:
    builder = builder_of("f.jsonl")
    line = ("号" * 3000).encode()
    builder.kept(Place("f.jsonl", 1, 1), "messages", findings={"boilerplate"}, line=line)
    builder.wrote("train", 5, 5)
    (example,) = builder.finish().findings[0].examples
    assert set(example.row) == {"号", "…"}


def test_columns_that_could_not_be_read_are_counted_in_a_few_sets() -> None:
    builder = builder_of("f.csv")
    for number in range(1, 5001):
        columns = {f"column {number}": "x"} if number % 2 else {"问句": "多少钱？", "id": number}
        place = Place("f.csv", number, number)
        builder.rejected(Rejection(place, "unknown_shape", "", columns))
    unread = builder.finish().unread_columns
    assert len(unread) <= 20
    assert (unread[0].columns, unread[0].count) == (["问句", "id"], 2500)
    assert unread[0].characters == {"问句": 4.0, "id": 0.0}


def test_two_files_called_the_same_cannot_be_told_apart() -> None:
    with pytest.raises(ValueError, match="called the same"):
        builder_of("f.jsonl", "f.jsonl")


def test_the_rules_in_force_are_those_chosen_and_the_defaults() -> None:
    rules = report_of(tokens=[5], rules={"near_duplicate": "reject"}).rules
    assert rules["near_duplicate"] == "reject"
    assert rules["duplicate"] == CHECKS["duplicate"].actions[0]
    assert "no_answer" not in rules  # there is no choice


def test_the_committed_schema_is_the_one_that_would_be_written() -> None:
    committed = (ROOT / "data" / "report.schema.json").read_text(encoding="utf-8")
    assert committed == schema_text(), "run: python -m palmswift.data.report"


def test_every_meaning_stands_in_both_languages() -> None:
    meanings = [(check.en, check.zh) for check in CHECKS.values()]
    meanings += [(change.en, change.zh) for change in CHANGES.values()]
    assert all(en.strip() and zh.strip() for en, zh in meanings)


def test_the_table_tells_files_codes_changes_and_what_to_do_as_they_are_called() -> None:
    builder = builder_of("[bold]odd[/bold].csv")
    source = "[bold]odd[/bold].csv"
    builder.kept(
        Place(source, 2, 1), "alpaca", findings={"email"}, changes={"turns_merged"}, line="{}"
    )
    builder.wrote("train", 7, 3)
    builder.rejected(Rejection(Place(source, 3, 2), "broken_history", "[red]", {}))
    report = with_suggestions(builder.finish(template=facts(), samples=[sample_of("q", "a")]))
    output = io.StringIO()
    Console(file=output, width=150).print(summary_table(report))
    text = output.getvalue()
    for told in (
        *(source, "1 to train on, 0 held out", "broken_history", "[question, answer]", "[red]"),
        *("email", f"{source}:2", "turns_merged", "--rule email=mask"),
    ):
        assert told in text


def test_the_table_of_a_report_without_rows_can_be_printed() -> None:
    output = io.StringIO()
    Console(file=output, width=80).print(summary_table(builder_of("f.jsonl").finish()))
    assert "0 to train on" in output.getvalue()
