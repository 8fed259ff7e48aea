"""Rows as the model sees them, with the tokens that are trained on in colour."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from palmswift.command import Console, Done, make_parser, run
from palmswift.data.checks import Canonicaliser
from palmswift.data.flags import (
    add_recipe_flags,
    add_row_flags,
    check_result,
    template_log,
    template_of,
    with_row_flags,
)
from palmswift.data.page import pieces, write_samples
from palmswift.data.policy import CHECKS, Policy, kind_of
from palmswift.data.read import DataFile, open_files
from palmswift.data.row import Kind, Rejection, RowError, SourceRow, TrainingRow
from palmswift.data.sample import SampleRow
from palmswift.data.template import TemplateJudge, TemplateSpec
from palmswift.errors import GateError, InputError, Problem
from palmswift.recipes.recipe import DataSettings

if TYPE_CHECKING:
    from rich.text import Text

_OPEN, _CLOSE = "⟦", "⟧"
"""Around what is trained on, where there are no colours."""
_STYLES = {"text": "", "control": "magenta", "line": "dim"}
_TRAINED = "black on green"


class Preview(BaseModel):
    """One row of the file: how the model sees it, or why it would be left out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    place: str
    code: str = ""
    """Why it is left out, a key of `palmswift.data.policy.CHECKS`; empty for a row that trains."""
    detail: str = ""
    changes: list[str] = Field(default_factory=list)
    samples: list[SampleRow] = Field(default_factory=list)
    """One; the two answers of a preference pair; none of a row that cannot be encoded."""


def preview(
    files: Sequence[DataFile],
    kind: Kind,
    settings: DataSettings,
    template: TemplateSpec,
    *,
    log: Path,
    first: int = 5,
    numbers: Sequence[int] = (),
) -> list[Preview]:
    """The first rows, or those with the given numbers (from 1, in each file).

    ChildError: the template could not be asked.
    """
    canonicaliser = Canonicaliser(kind, settings)
    shown: list[Preview] = []
    asked: list[tuple[int, TrainingRow]] = []
    for row in _chosen(files, first, numbers):
        try:
            if isinstance(row, Rejection):
                raise RowError(row.code, row.detail)
            training = canonicaliser.row(row)
        except RowError as error:
            shown.append(Preview(place=str(row.place), code=error.code, detail=error.detail))
        else:
            asked.append((len(shown), training))
            shown.append(Preview(place=str(row.place), changes=sorted(training.changes)))
    if asked:
        over_length = Policy(settings.rules).action("over_length")
        with TemplateJudge(
            template, kind, over_length=over_length, log=log, samples=len(asked)
        ) as judge:
            judge.submit([training.as_row() for _, training in asked])
            judgement = judge.finish()
        for index, (at, _) in enumerate(asked):
            code, detail = judgement.verdicts.reason(index) or ("", "")
            samples = [
                sample.model_copy(update={"place": shown[at].place})
                for sample in judgement.samples
                if sample.index == index
            ]
            update = {"code": code, "detail": detail, "samples": samples}
            shown[at] = shown[at].model_copy(update=update)
    return shown


def _chosen(
    files: Sequence[DataFile], first: int, numbers: Sequence[int]
) -> Iterator[SourceRow | Rejection]:
    """The rows asked for; no file is read further than needed."""
    left = first
    for file in files:
        for row in file.rows():
            if numbers and row.place.number in numbers:
                yield row
            if numbers and row.place.number >= max(numbers):
                break
            if not numbers and left == 0:
                return
            if not numbers:
                left -= 1
                yield row


def coloured(row: SampleRow) -> Text:
    """The row for a terminal with colours."""
    from rich.text import Text

    text = Text()
    for span in row.spans:
        for piece in pieces(span.text):
            style = _TRAINED if span.trained else _STYLES[piece.kind]
            if piece.kind == "line":
                text.append("↵", style=style)
                text.append("\n")
            else:
                text.append(piece.text, style=style)
    return text


def marked(row: SampleRow) -> str:
    """The row without colours: what is trained on stands between brackets."""
    parts = []
    for span in row.spans:
        shown = "".join(
            "↵\n" if piece.kind == "line" else piece.text for piece in pieces(span.text)
        )
        parts.append(f"{_OPEN}{shown}{_CLOSE}" if span.trained else shown)
    return "".join(parts)


def _print(previews: Sequence[Preview]) -> None:
    from rich.console import Console as Terminal
    from rich.markup import escape

    terminal = Terminal(highlight=False, soft_wrap=True)
    colours = terminal.color_system is not None
    sign = f"[{_TRAINED}] in colour [/]" if colours else f"between {_OPEN} and {_CLOSE}"
    terminal.print(f"trained on: {sign}   ↵ is a line break\n", emoji=False)
    for one in previews:
        if one.code:
            meaning = f"{one.code}: {CHECKS[one.code].en} {one.detail}".rstrip()
            terminal.print(f"[bold]{escape(one.place)}[/]  [red]left out[/]  {escape(meaning)}")
        for sample in one.samples:
            side = f"  {sample.side} answer" if sample.side else ""
            counts = f"{sample.n_tokens} tokens, {sample.n_trained} trained on"
            changed = f"  changed: {', '.join(one.changes)}" if one.changes else ""
            terminal.print(f"[bold]{escape(one.place)}[/]{side}  {counts}{changed}")
            if colours:
                terminal.print(coloured(sample))
            else:
                sys.stdout.write(marked(sample) + "\n")
        terminal.print()


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(
        "data/preview.py",
        "Show rows as the model sees them, with the tokens that are trained on in colour.",
        """
        python data/preview.py my.csv --recipe qwen3_8b_4bit
        python data/preview.py clean/train.jsonl --recipe qwen3_8b_4bit -n 20 --html rows.html
        python data/preview.py my.json --recipe qwen3_8b_4bit --row 17 --row 404
        """,
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="any readable file")
    parser.add_argument("-n", type=int, default=5, metavar="N", help="the first N rows (default 5)")
    parser.add_argument(
        "--row", type=int, action="append", default=[], metavar="N", help="row N of the file"
    )
    parser.add_argument("--html", type=Path, metavar="OUT", help="write a page of them as well")
    add_recipe_flags(parser)
    add_row_flags(parser)
    return parser


def _body(arguments: argparse.Namespace, console: Console) -> Done:
    from palmswift.recipes.load import load_checked

    if min([arguments.n, *arguments.row]) < 1:
        raise InputError("rows are counted from 1", [Problem("less than 1", "-n, --row")])
    recipe = load_checked(arguments.recipe, arguments.set).recipe
    settings = with_row_flags(recipe.data, arguments)
    files = open_files([arguments.file])
    if arguments.html:
        check_result("--html", arguments.html, files)
    with template_log() as log:
        console.note("asking ms-swift's template (it takes half a minute to start)")
        previews = preview(
            files,
            kind_of(recipe.task),
            settings,
            template_of(recipe, arguments.model, log),
            log=log,
            first=arguments.n,
            numbers=arguments.row,
        )
    if not previews:
        raise GateError(f"{arguments.file} has no such row", remedy="rows are counted from 1")
    if arguments.html:
        samples = [sample for one in previews for sample in one.samples]
        write_samples(arguments.html, str(arguments.file), samples)
    if not console.json_output:
        _print(previews)
    if arguments.html:
        console.say(f"page: {arguments.html}")
    return Done({"rows": [one.model_dump(mode="json") for one in previews]})


def main(argv: Sequence[str] | None = None) -> int:
    """The command `data/preview.py`; its exit code."""
    return run(_parser(), _body, argv)
