from __future__ import annotations

import base64
import hashlib
import itertools
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_report import builder_of, facts, report_of, sample_of

from palmswift.data.chart import chart
from palmswift.data.lengths import histogram, spread
from palmswift.data.page import differences, pieces, write_page, write_samples
from palmswift.data.report import ConflictReport, DataReport, NearReport, Pair, TokenReport
from palmswift.data.row import Place, Rejection
from palmswift.data.suggest import with_suggestions

EVIL = "</style></script><script>alert(1)</script><img src=x onerror=alert(2)>\"'{{7*7}}"


class Elements(HTMLParser):
    """What the elements of a page are, as a browser would see them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names[tag] += 1
        self.attributes += attrs


def written(report: DataReport, folder: Path) -> str:
    write_page(folder / "report.html", with_suggestions(report))
    return (folder / "report.html").read_text(encoding="utf-8")


def evil_report() -> DataReport:
    builder = builder_of(EVIL)
    builder.kept(Place(EVIL, 1, 1), EVIL, findings={"boilerplate"}, line=EVIL)
    builder.wrote("train", 7, 2)
    builder.rejected(Rejection(Place(EVIL, 2, 2), "unknown_shape", EVIL, {EVIL: EVIL}))
    pair = Pair(first=EVIL, second=EVIL, first_text=EVIL, second_text=EVIL + "!", similarity=0.9)
    return builder.finish(
        template=facts(),
        samples=[sample_of(EVIL, f"{EVIL}<|im_end|>\n")],
        near_duplicates=NearReport(clusters=1, rows=2, largest=2, examples=[pair]),
        conflicts=ConflictReport(questions=1, rows=2, examples=[pair]),
    )


def test_what_the_rows_hold_is_text_and_never_markup(tmp_path: Path) -> None:
    plain = Elements(written(report_of(tokens=[5] * 3), tmp_path))
    evil = Elements(written(evil_report(), tmp_path))
    assert evil.names["script"] == plain.names["script"] == 1
    assert evil.names["style"] == 1 and evil.names["img"] == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(1)" in page and "{{7*7}}" in page


def test_the_page_asks_for_nothing_and_runs_only_what_it_was_written_with(tmp_path: Path) -> None:
    page = written(evil_report(), tmp_path)
    elements = Elements(page)
    names = {name for name, _ in elements.attributes}
    assert not names & {"src", "href", "style", "srcset", "action"}
    assert not [name for name in names if name.startswith("on")]
    policy = next(value for name, value in elements.attributes if name == "content" and value)
    assert "default-src 'none'" in policy and "unsafe" not in policy
    for tag in ("script", "style"):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
        assert not re.search(r"url\(|@import|https?:|fetch|XMLHttp", text)


@pytest.mark.parametrize(
    "report",
    [
        evil_report(),
        report_of(),
        report_of(rejected=["broken_json"]),
        report_of(tokens=[1]),
        report_of(tokens=[10] * 99 + [90_000], val_rows=2, over_length=[10**6], max_length=None),
    ],
    ids=["everything", "no row read", "no row kept", "one row", "one long row"],
)
def test_every_text_stands_in_both_languages_whatever_the_report(
    report: DataReport, tmp_path: Path
) -> None:
    page = written(report, tmp_path)
    assert page.count('<span lang="en">') == page.count('<span lang="zh">') > 10


def test_the_page_without_usable_rows_says_so(tmp_path: Path) -> None:
    assert "No row can be used" in written(report_of(rejected=["broken_json"] * 3), tmp_path)
    assert "No row can be used" not in written(report_of(tokens=[5]), tmp_path)


def test_the_page_shows_the_limit_the_codes_and_the_flags(tmp_path: Path) -> None:
    report = report_of(tokens=[100] * 50, findings=["phone_number"], over_length=[700])
    page = written(report, tmp_path)
    for told in ("max_length 640", "over_length", "--rule phone_number=mask", "f.jsonl:1"):
        assert told in page


def test_trained_pieces_are_marked_and_control_tokens_stand_out(tmp_path: Path) -> None:
    write_samples(tmp_path / "s.html", "f", [sample_of("<|im_start|>user\nhi", "yes<|im_end|>")])
    page = (tmp_path / "s.html").read_text(encoding="utf-8")
    assert '<span class="trained">yes<b class="control">&lt;|im_end|&gt;</b></span>' in page
    assert '<span><b class="control">&lt;|im_start|&gt;</b>user<i>↵</i>\nhi</span>' in page


@given(text=st.text(max_size=200))
def test_the_pieces_of_a_text_are_the_text(text: str) -> None:
    assert "".join(piece.text for piece in pieces(text)) == text


def test_a_very_long_text_is_shown_from_both_ends() -> None:
    shown = "".join(piece.text for piece in pieces("a" * 50_000 + "\n" + "b" * 50_000))
    assert len(shown) < 4000 and shown.startswith("a") and shown.endswith("b")


@given(first=st.text("ab，。", max_size=40), second=st.text("ab，。", max_size=40))
def test_the_differences_of_two_texts_are_the_texts(first: str, second: str) -> None:
    pair = Pair(first="f:1", second="f:2", first_text=first, second_text=second)
    left, right = differences(pair)
    assert "".join(part.text for part in left) == first
    assert "".join(part.text for part in right) == second
    same = ["".join(part.text for part in side if not part.differs) for side in (left, right)]
    assert same[0] == same[1]


lengths = st.lists(st.integers(min_value=0, max_value=100_000), max_size=30)


@given(
    kept=lengths.filter(bool),
    over=lengths,
    max_length=st.none() | st.integers(min_value=1, max_value=200_000),
)
def test_the_chart_stays_within_its_frame_and_tells_the_limit(
    kept: list[int], over: list[int], max_length: int | None
) -> None:
    counts = Counter(kept)
    tokens = TokenReport(
        tokens=spread(counts),
        supervised=spread(counts),
        histogram=histogram(counts, Counter(over), max_length),
    )
    drawn = chart(tokens, max_length)
    assert all(bar.x >= 0 and bar.x + bar.width <= drawn.width + 0.5 for bar in drawn.bars)
    assert all(bar.kept + bar.over_length <= drawn.height + 1e-6 for bar in drawn.bars)
    assert all(0 <= mark.at <= drawn.width for mark in drawn.marks)
    assert len(drawn.x_ticks) <= 9 and len(drawn.y_ticks) <= 8
    told = [mark.label for mark in drawn.marks if mark.limit]
    assert told == ([] if max_length == drawn.far_limit else [f"max_length {max_length}"])
    for level in range(drawn.levels):
        begins = [m.at - 80 * m.leftward for m in drawn.marks if m.level == level]
        assert all(b - a >= 80 for a, b in itertools.pairwise(sorted(begins)))
        assert all(begin + 80 <= drawn.width + 60 for begin in begins)
