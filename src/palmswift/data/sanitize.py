"""Raw files to train.jsonl, val.jsonl, rejected.jsonl and a report; runs inside train.py too."""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from palmswift.command import Console, Done, make_parser, run
from palmswift.data.checks import Canonicaliser
from palmswift.data.flags import add_recipe_flags, add_row_flags, template_of, with_row_flags
from palmswift.data.gate import pass_rows
from palmswift.data.policy import kind_of
from palmswift.data.progress import Progress, Silence, for_terminal
from palmswift.data.read import DataFile, open_files
from palmswift.data.report import DataReport, Use
from palmswift.data.row import Kind
from palmswift.data.suggest import with_suggestions
from palmswift.data.table import summary_table
from palmswift.data.template import TemplateSpec
from palmswift.data.writer import REJECTED, TRAIN, VAL
from palmswift.errors import GateError, InputError, Problem
from palmswift.files import write_json
from palmswift.recipes.recipe import DataSettings, Recipe

__all__ = ["DataReport", "TemplateSpec", "main", "sanitize", "summary_table"]

REPORT, PAGE = "report.json", "report.html"
_RESULTS = (TRAIN, VAL, REJECTED, REPORT, PAGE)


def sanitize(
    train: Sequence[Path],
    val: Sequence[Path],
    out: Path,
    *,
    settings: DataSettings,
    template: TemplateSpec,
    log: Path,
    kind: Kind = "sft",
    recipe: Recipe | None = None,
    progress: Progress | None = None,
) -> DataReport:
    """Write to `out` the rows that train as meant, the others with their reasons, and a report.

    `train` and `val` are files, folders or globs. `log` gets the output of the child process that
    runs ms-swift's template. `recipe` is asked what a suggestion would save. Without rows held out
    (no validation file, ratio 0) there is no val.jsonl.

    InputError: files that cannot be used, or no room on the disk. ChildError: the template could
    not be asked. GateError: no row is left to train on, or none to validate with; rejected.jsonl
    and the report are written. After any of them, and after Ctrl-C, train.jsonl and val.jsonl are
    not there; but files that turn out at once not to be usable leave all as it was.
    """
    return _clean(
        _checked(train, val, out, settings, kind),
        out,
        settings=settings,
        template=template,
        log=log,
        kind=kind,
        recipe=recipe,
        progress=progress or Silence(),
    )


def _clean(
    files: Sequence[tuple[DataFile, Use]],
    out: Path,
    *,
    settings: DataSettings,
    template: TemplateSpec,
    log: Path,
    kind: Kind,
    recipe: Recipe | None,
    progress: Progress,
) -> DataReport:
    with _whole_or_absent(out):
        passage = pass_rows(files, kind, settings, template, out=out, log=log, progress=progress)
        report = with_suggestions(passage.report, recipe)
        _write_report(out, report)
    if passage.failure:
        raise _explained(passage.failure, report, out)
    return report


def _checked(
    train: Sequence[Path], val: Sequence[Path], out: Path, settings: DataSettings, kind: Kind
) -> list[tuple[DataFile, Use]]:
    """The files, opened; InputError where anything asked for cannot be. Nothing is written."""
    _check_request(train, out, settings, kind)
    files = _open(train, val)
    _check_files(files, out)
    return files


def _check_request(train: Sequence[Path], out: Path, settings: DataSettings, kind: Kind) -> None:
    problems: list[Problem] = []
    try:
        Canonicaliser(kind, settings)
    except InputError as error:
        problems += error.problems
    root = next(folder for folder in (out.resolve(), *out.resolve().parents) if folder.exists())
    if not root.is_dir() or not os.access(root, os.W_OK):
        what = "the folder of the results cannot be made: " + (
            "it is not writable" if root.is_dir() else "a file stands there"
        )
        problems.append(Problem(what, str(root), "choose another folder"))
    if not train:
        problems.append(Problem("no file to train on", "data.train", "give one with --data"))
    if problems:
        raise InputError("the data cannot be prepared", problems)


def _open(train: Sequence[Path], val: Sequence[Path]) -> list[tuple[DataFile, Use]]:
    """All files, those to train on first; what is wrong with either is told at once."""
    files: list[tuple[DataFile, Use]] = []
    errors: list[InputError] = []
    uses: tuple[tuple[Use, Sequence[Path]], ...] = (("train", train), ("val", val))
    for use, paths in uses:
        try:
            files += [(file, use) for file in open_files(paths)]
        except InputError as error:
            errors.append(error)
    if len(errors) == 2:
        problems = [problem for error in errors for problem in error.problems]
        raise InputError(f"{len(problems)} data files cannot be used", problems)
    if errors:
        raise errors[0]
    return files


def _check_files(files: Sequence[tuple[DataFile, Use]], out: Path) -> None:
    problems = []
    names = [file.source for file, _ in files]
    for name in sorted({name for name in names if names.count(name) > 1}):
        problems.append(Problem("the file is given twice", name, "give it once"))
    given = {file.path.resolve() for file, _ in files}
    for path in sorted(given & {(out / name).resolve() for name in _RESULTS}):
        remedy = "choose another folder for the results"
        problems.append(Problem("the result would overwrite its input", str(path), remedy))
    if problems:
        raise InputError("the data cannot be prepared", problems)


@contextmanager
def _whole_or_absent(out: Path) -> Iterator[None]:
    """Take the results of an earlier run away, and those of this one if an exception ends it.

    After bad input and Ctrl-C `out` goes as well, if it was not there before; after a ChildError
    it stays, because the log is mostly in it.
    """
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    _remove_results(out)
    try:
        yield
    except BaseException as error:
        _remove_results(out)
        if made and isinstance(error, InputError | KeyboardInterrupt):
            shutil.rmtree(out, ignore_errors=True)
            for folder in made[1:]:
                with suppress(OSError):  # somebody else has put something there meanwhile
                    folder.rmdir()
        raise


def _remove_results(out: Path) -> None:
    for name in _RESULTS:
        (out / name).unlink(missing_ok=True)


def _write_report(out: Path, report: DataReport) -> None:
    from palmswift.data.page import write_page

    write_page(out / PAGE, report)
    write_json(out / REPORT, report.model_dump(mode="json"))


def _explained(failure: GateError, report: DataReport, out: Path) -> GateError:
    """The failure with the counts by reason, and where the rejected rows stand."""
    problems = [
        Problem(f"{reason.count} x {reason.code}: {reason.meaning}", reason.examples[0].place)
        for reason in report.reasons
    ]
    where = f"every rejected row and its reason: {out / REJECTED}"
    remedy = f"{failure.remedy}; {where}" if failure.remedy else where
    return GateError(failure.summary, problems, remedy=remedy)


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(
        "data/sanitize.py",
        "Turn raw data files into rows that train as meant, and say what was left out and why.",
        """
        python data/sanitize.py my.csv more.jsonl --recipe qwen3_8b_4bit --out clean/
        python data/sanitize.py my.csv --columns query=问,response=答 --recipe qwen3_8b_4bit --out c
        python data/sanitize.py train.json --val held_out.json --recipe qwen3_4b_4bit --out clean/
        python data/sanitize.py raw/ --rule near_duplicate=reject --recipe qwen3_4b_4bit --out c
        """,
    )
    parser.add_argument(
        "files",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="JSON, JSONL, CSV, text, Excel or Parquet, also packed; folders and globs",
    )
    parser.add_argument("--out", required=True, type=Path, help="folder of the results")
    parser.add_argument(
        "--val", action="append", default=[], type=Path, metavar="FILE", help="validation rows"
    )
    add_recipe_flags(parser)
    add_row_flags(parser)
    return parser


def _body(arguments: argparse.Namespace, console: Console) -> Done:
    from palmswift.recipes.load import load_checked

    recipe = load_checked(arguments.recipe, arguments.set).recipe
    out: Path = arguments.out
    log = out / "template.log"
    settings, kind = with_row_flags(recipe.data, arguments), kind_of(recipe.task)
    report = _clean(
        _checked(arguments.files, arguments.val, out, settings, kind),
        out,
        settings=settings,
        template=template_of(recipe, arguments.model, log),
        log=log,
        kind=kind,
        recipe=recipe,
        progress=for_terminal(),
    )
    if not console.json_output:
        from rich.console import Console as Terminal

        Terminal().print(summary_table(report))
    console.say(f"rows: {out / TRAIN}   report: {out / PAGE}")
    return Done({"out": str(out), **report.model_dump(mode="json")})


def main(argv: Sequence[str] | None = None) -> int:
    """The command `data/sanitize.py`; its exit code."""
    return run(_parser(), _body, argv)
