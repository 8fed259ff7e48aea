from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from rich.console import Console

from palmswift.data.page import chart
from palmswift.data.report import (
    DataReport,
    Example,
    FileReport,
    ReasonReport,
    TokenReport,
    histogram,
    spread,
    summary_table,
)

counts = st.lists(st.integers(min_value=0, max_value=100_000), max_size=30)


def file_report(read: int, kept: int, rejected: int, reasons: dict[str, int]) -> FileReport:
    return FileReport(
        source="[bold]odd[/bold].csv",
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


def test_the_spread_has_nearest_ranks() -> None:
    values = spread(list(range(1, 101)))
    assert (values.min, values.median, values.p95, values.max) == (1, 51, 96, 100)
    assert values.total == 5050
    assert spread([7]).p95 == 7


@given(kept=counts, over=counts)
def test_every_count_is_in_the_one_bin_that_holds_it(kept: list[int], over: list[int]) -> None:
    if not kept and not over:
        return
    bins = histogram(kept, over)
    assert len(bins) <= 40
    assert sum(part.kept for part in bins) == len(kept)
    for part in bins:
        assert part.over_length == sum(part.start <= count < part.stop for count in over)


@given(
    kept=counts.filter(bool),
    over=counts,
    max_length=st.none() | st.integers(min_value=1, max_value=200_000),
)
def test_the_chart_stays_within_its_frame_and_tells_the_limit(
    kept: list[int], over: list[int], max_length: int | None
) -> None:
    tokens = TokenReport(
        tokens=spread(kept), supervised=spread(kept), histogram=histogram(kept, over)
    )
    drawn = chart(tokens, max_length)
    assert all(bar.x + bar.width <= drawn.width + 0.5 for bar in drawn.bars)
    assert all(bar.kept + bar.over_length <= drawn.height + 1e-6 for bar in drawn.bars)
    assert len(drawn.x_ticks) <= 8 and len(drawn.y_ticks) <= 8
    told = [drawn.limit.label] if drawn.limit else [str(drawn.far_limit)]
    assert told == [str(max_length)]


def test_the_table_tells_each_file_and_reason_as_they_are_called() -> None:
    report = DataReport(
        files=[file_report(3, 2, 1, {"no_answer": 1})],
        read=3,
        kept=2,
        rejected=1,
        train_rows=1,
        val_rows=1,
        held_out="split",
        val_ratio=0.5,
        seed=42,
        conflicting_answers=0,
        changes={},
        reasons=[
            ReasonReport(
                code="no_answer",
                meaning="There is no answer.",
                count=1,
                examples=[Example(place="odd.csv:2", detail="")],
            )
        ],
        template=None,
        tokens=None,
    )
    output = io.StringIO()
    Console(file=output, width=100).print(summary_table(report))
    text = output.getvalue()
    for told in ("[bold]odd[/bold].csv", "no_answer", "odd.csv:2", "1 to train on, 1 held out"):
        assert told in text
