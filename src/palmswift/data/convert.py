"""Any file that the gate can read, in another shape; says which rows could not be expressed."""

from __future__ import annotations

import argparse
import contextlib
import csv
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from palmswift.command import Console, Done, make_parser, run
from palmswift.data.checks import Canonicaliser
from palmswift.data.express import (
    TARGETS,
    NotExpressible,
    Target,
    csv_columns,
    express,
    text_block,
)
from palmswift.data.flags import add_row_flags, check_result, with_row_flags
from palmswift.data.policy import CHANGES, CHECKS
from palmswift.data.progress import Progress, Silence, for_terminal, rows_of
from palmswift.data.read import DataFile, open_files
from palmswift.data.report import Example
from palmswift.data.row import Kind, Rejection, RowError, SourceRow, TrainingRow, json_line
from palmswift.errors import GateError, InputError, Problem
from palmswift.files import atomic_text
from palmswift.recipes.recipe import DataSettings

NOT_IN_SHAPE = "not_in_shape"
"""The code of rows that are sound, and say more than the shape can hold."""

_NOT_IN_SHAPE = "The shape has no place for something that the row says."
_KINDS: tuple[Kind, ...] = get_args(Kind)
_SUFFIXES: dict[Target, tuple[str, ...]] = {
    "csv": (".csv",),
    "chatml": (".jsonl", ".json", ".txt"),
}
_EXAMPLES = 5

Writer = Callable[[TrainingRow], object]


@dataclass
class Conversion:
    """How many rows were read and written, and what became of the others."""

    read: int = 0
    written: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    changes: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[Example]] = field(default_factory=dict)
    """Code to its first rows."""

    def reject(self, rejection: Rejection) -> None:
        """Count a row that is not written."""
        self.codes[rejection.code] += 1
        examples = self.examples.setdefault(rejection.code, [])
        if len(examples) < _EXAMPLES:
            examples.append(Example(place=str(rejection.place), detail=rejection.detail))

    def as_document(self) -> dict[str, Any]:
        """What `--json` prints of it."""
        return {
            "read": self.read,
            "written": self.written,
            "rejected": self.read - self.written,
            "reasons": dict(self.codes),
            "examples": {
                code: [example.model_dump() for example in examples]
                for code, examples in self.examples.items()
            },
            "changes": dict(self.changes),
        }


def convert(
    files: Sequence[DataFile],
    target: Target,
    out: Path,
    *,
    kind: Kind = "sft",
    settings: DataSettings,
    progress: Progress | None = None,
) -> Conversion:
    """Write every row that the shape can hold to `out`, the others beside it as rejected lines.

    The rows go through the gate's own checks of one row first, so that what is written is what
    would be trained. GateError: no row could be expressed; `out` is not written.
    """
    canonicaliser = Canonicaliser(kind, settings)
    conversion = Conversion()
    beside = rejected_beside(out)
    with (
        atomic_text(beside) as rejected,
        contextlib.suppress(_NothingWritten),
        _writer(out, target, kind) as write,
    ):
        for row in rows_of(files, progress or Silence()):
            conversion.read += 1
            rejection = _pass_on(row, canonicaliser, write, conversion)
            if rejection:
                conversion.reject(rejection)
                why = {"code": rejection.code, "detail": rejection.detail}
                line = {**rejection.place._asdict(), **why, "row": rejection.row}
                rejected.write(json_line(line))
        if not conversion.written:
            raise _NothingWritten  # out stays as it was
    if not conversion.written:
        raise _none(conversion, target, beside)
    if conversion.read == conversion.written:
        beside.unlink()
    return conversion


class _NothingWritten(Exception):
    pass


def rejected_beside(out: Path) -> Path:
    """Where the rows go that could not be expressed."""
    return out.with_name(f"{out.name}.rejected.jsonl")


def _pass_on(
    row: SourceRow | Rejection, canonicaliser: Canonicaliser, write: Writer, conversion: Conversion
) -> Rejection | None:
    """Write the row, or say why not."""
    if isinstance(row, Rejection):
        return row
    try:
        training = canonicaliser.row(row)
        write(training)
    except RowError as error:
        return Rejection(row.place, error.code, error.detail, row.value)
    except NotExpressible as error:
        return Rejection(row.place, NOT_IN_SHAPE, str(error), row.value)
    conversion.written += 1
    conversion.changes.update(training.changes)
    return None


def _none(conversion: Conversion, target: Target, beside: Path) -> GateError:
    problems = [
        Problem(f"{count} x {code}: {meaning_of(code)}", conversion.examples[code][0].place)
        for code, count in conversion.codes.most_common()
    ]
    return GateError(
        f"none of the {conversion.read} rows can be written as {target}",
        problems,
        remedy=f"every row and its reason: {beside}",
    )


def meaning_of(code: str) -> str:
    """What a code of a conversion means, in English."""
    return _NOT_IN_SHAPE if code == NOT_IN_SHAPE else CHECKS[code].en


@contextmanager
def _writer(out: Path, target: Target, kind: Kind) -> Iterator[Writer]:
    """A function that writes one row; the file appears when the block ends well."""
    with atomic_text(out) as stream:
        if target == "csv":
            stream.write("\ufeff")  # without it Excel takes UTF-8 for the system's code page
            table = csv.DictWriter(stream, csv_columns(kind), restval="", lineterminator="\r\n")
            table.writeheader()
            yield lambda row: table.writerow(express(row, target))
        elif out.suffix == ".txt":
            yield lambda row: stream.write(text_block(row))
        elif out.suffix == ".json":
            begin = "[\n"

            def element(row: TrainingRow) -> None:
                nonlocal begin
                stream.write(begin + json_line(express(row, target)).rstrip("\n"))
                begin = ",\n"

            yield element
            stream.write("\n]\n")
        else:
            yield lambda row: stream.write(json_line(express(row, target)))


def _check_out(files: Sequence[DataFile], out: Path, target: Target) -> None:
    suffixes = _SUFFIXES.get(target, (".jsonl", ".json"))
    if out.suffix not in suffixes:
        remedy = f"one of {', '.join(suffixes)}"
        problem = Problem(f"`{out.suffix}` does not go with --to {target}", "--out", remedy)
        raise InputError("the result cannot be written", [problem])
    check_result("--out", out, files, rejected_beside(out))


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(
        "data/convert.py",
        "Write any data file in another shape, and say which rows that shape cannot hold.",
        """
        python data/convert.py my.csv --to messages --out my.jsonl
        python data/convert.py my.json --to sharegpt --out my.sharegpt.json
        python data/convert.py export.xlsx --columns query=问,response=答 --to alpaca --out my.json
        python data/convert.py pairs.jsonl --task dpo --to csv --out pairs.csv
        """,
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="any readable file")
    parser.add_argument("--to", required=True, choices=TARGETS, help="the shape that is written")
    parser.add_argument(
        "--out", required=True, type=Path, metavar="FILE", help=".jsonl, .json, .csv or .txt"
    )
    parser.add_argument(
        "--task", choices=_KINDS, default="sft", help="what the rows are for (default: sft)"
    )
    add_row_flags(parser)
    return parser


def _body(arguments: argparse.Namespace, console: Console) -> Done:
    target: Target = arguments.to
    out: Path = arguments.out
    files = open_files(arguments.files)
    _check_out(files, out, target)
    settings = with_row_flags(DataSettings(), arguments)
    conversion = convert(
        files, target, out, kind=arguments.task, settings=settings, progress=for_terminal()
    )
    lost = conversion.read - conversion.written
    console.say(f"{out}: {conversion.written:,} of {conversion.read:,} rows as {target}")
    for name, count in conversion.changes.most_common():
        console.say(f"  changed   {count:>7,} x {name}: {CHANGES[name].en}")
    for code, count in conversion.codes.most_common():
        console.say(f"  left out  {count:>7,} x {code}: {meaning_of(code)}")
        first = conversion.examples[code][0]
        console.say(f"            first {first.place}: {first.detail}")
    if lost:
        console.say(f"  every row left out and its reason: {rejected_beside(out)}")
    document = {"out": str(out), "to": target, **conversion.as_document()}
    return Done({**document, "rejected_rows": str(rejected_beside(out)) if lost else None})


def main(argv: Sequence[str] | None = None) -> int:
    """The command `data/convert.py`; its exit code."""
    return run(_parser(), _body, argv)
