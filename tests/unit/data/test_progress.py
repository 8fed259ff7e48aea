from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import chain, repeat
from pathlib import Path

import pytest
from rich.console import Console
from rich.progress import Progress
from support_data import pair, write_rows

from palmswift.data.progress import Bar, Lines, for_terminal, rows_of
from palmswift.data.read import open_files


def ticking(*seconds: float) -> Iterator[float]:
    return chain(seconds, repeat(seconds[-1]))


def test_lines_tell_of_steps_that_last_and_not_too_often(
    capsys: pytest.CaptureFixture[str],
) -> None:
    clock = ticking(0, 1, 3, 4, 19)
    lines = Lines(clock.__next__)
    lines.begin("reading", 200)
    for done in (10, 20, 30, 150):
        lines.at(done)
    lines.begin("writing")
    lines.at(1)
    lines.end()
    assert capsys.readouterr().err.splitlines() == ["reading: 10 %", "reading: 75 %"]


def test_a_bar_shows_each_step_and_is_gone_afterwards() -> None:
    screen = io.StringIO()
    bar = Bar(Progress(console=Console(file=screen, force_terminal=True), transient=True))
    bar.begin("reading", 10)
    bar.at(5)
    bar.begin("writing")
    bar.at(1)
    bar.end()
    assert "writing" in screen.getvalue()


def test_without_a_terminal_there_is_no_bar() -> None:
    assert isinstance(for_terminal(), Lines)


def test_all_of_a_file_is_told_as_read_in_the_end(tmp_path: Path) -> None:
    paths = [
        write_rows(tmp_path / f"{name}.jsonl", [pair(f"q{n}", "a" * 50) for n in range(3000)])
        for name in "ab"
    ]

    class Told(Lines):
        totals: list[int] = []  # noqa: RUF012  # of this test alone
        done: list[int] = []  # noqa: RUF012

        def begin(self, what: str, total: int = 0) -> None:
            self.totals.append(total)

        def at(self, done: int) -> None:
            self.done.append(done)

    assert len(list(rows_of(open_files(paths), Told()))) == 6000
    assert Told.totals == [sum(path.stat().st_size for path in paths)]
    assert Told.done == sorted(Told.done) and Told.done[-1] <= Told.totals[0]
    assert Told.done[-1] > Told.totals[0] // 2
