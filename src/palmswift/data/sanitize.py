"""Raw files to train.jsonl, val.jsonl, rejected.jsonl and a report; runs inside train.py too."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from palmswift.command import Console, Done, make_parser, run
from palmswift.data.gate import Passage, Progress, Use, pass_rows
from palmswift.data.read import read_files
from palmswift.data.report import DataReport, build_report, summary_table
from palmswift.data.row import json_line
from palmswift.data.shapes import COLUMN_ROLES
from palmswift.data.template import TemplateSpec
from palmswift.errors import GateError, InputError, Problem
from palmswift.files import atomic_text, write_json, write_jsonl
from palmswift.recipes.recipe import DataSettings, Recipe, SwiftValue

__all__ = ["DataReport", "TemplateSpec", "main", "sanitize", "summary_table"]

TRAIN, VAL, REJECTED = "train.jsonl", "val.jsonl", "rejected.jsonl"
REPORT, PAGE = "report.json", "report.html"


def sanitize(
    train: Sequence[Path],
    val: Sequence[Path],
    out: Path,
    *,
    settings: DataSettings,
    template: TemplateSpec,
    log: Path,
    progress: Progress | None = None,
) -> DataReport:
    """Write to `out` the rows that train as meant, the others with their reasons, and a report.

    `log` gets the output of the child process that runs ms-swift's template. Without rows held
    out (no validation file, ratio 0) there is no val.jsonl.

    InputError: files that cannot be used; nothing is written. ChildError: the template could not
    be asked; nothing is written. GateError: no row is left to train on, or none to validate with;
    rejected.jsonl and the report are written, train.jsonl and val.jsonl are not there.
    """
    _check_request(train, val, out, settings, template)
    uses: list[Use] = ["train" for _ in train]
    uses += ["val" for _ in val]
    files = list(zip(read_files([*train, *val]), uses, strict=True))
    say = progress or (lambda sentence: None)
    passage = pass_rows(files, settings, template, log=log, progress=say)
    report = build_report(passage, settings)
    _write(out, passage, report)
    if passage.failure:
        raise _explained(passage.failure, report, out)
    return report


def _check_request(
    train: Sequence[Path],
    val: Sequence[Path],
    out: Path,
    settings: DataSettings,
    template: TemplateSpec,
) -> None:
    problems = []
    if template.command != "sft":
        what = f"rows for `swift {template.command}` cannot be checked"
        problems.append(Problem(what, "task", "the data gate knows the task sft"))
    given = [path.resolve() for path in (*train, *val)]
    for path in sorted({path for path in given if given.count(path) > 1}):
        problems.append(Problem("the file is given twice", str(path), "give it once"))
    results = {(out / name).resolve() for name in (TRAIN, VAL, REJECTED, REPORT, PAGE)}
    for path in sorted(results & set(given)):
        remedy = "choose another folder for the results"
        problems.append(Problem("the result would overwrite its input", str(path), remedy))
    for name in sorted(settings.columns.keys() - set(COLUMN_ROLES)):
        remedy = f"one of {', '.join(COLUMN_ROLES)}"
        problems.append(Problem(f"`{name}` is not what a column can be", "data.columns", remedy))
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


def _explained(failure: GateError, report: DataReport, out: Path) -> GateError:
    """The failure with the counts by reason, and where the rejected rows stand."""
    problems = [
        Problem(f"{reason.count} x {reason.code}: {reason.meaning}", reason.examples[0].place)
        for reason in report.reasons
    ]
    where = f"every rejected row and its reason: {out / REJECTED}"
    remedy = f"{failure.remedy}; {where}" if failure.remedy else where
    return GateError(failure.summary, problems, remedy=remedy)


def _write(out: Path, passage: Passage, report: DataReport) -> None:
    """The results; after a failure, train.jsonl and val.jsonl of an earlier run go."""
    from palmswift.data.page import write_page

    for name, rows in ((TRAIN, passage.split.train), (VAL, passage.split.val)):
        if rows and not passage.failure:
            write_jsonl(out / name, (row.as_row() for row in rows))
        else:
            (out / name).unlink(missing_ok=True)
    with atomic_text(out / REJECTED) as stream:
        for sieve in passage.sieves:
            for rejection in sieve.rejected:
                why = {"code": rejection.code, "detail": rejection.detail, "row": rejection.row}
                stream.write(json_line({**rejection.place._asdict(), **why}))
    write_page(out / PAGE, report)
    write_json(out / REPORT, report.model_dump(mode="json"))


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(
        "data/sanitize.py",
        "Turn raw question-answer files into rows that train as meant, and say what was left out.",
        """
        python data/sanitize.py my.csv more.jsonl --recipe qwen3_8b_4bit --out clean/
        python data/sanitize.py my.csv --columns query=问,response=答 --recipe qwen3_8b_4bit --out c
        python data/sanitize.py train.json --val held_out.json --recipe qwen3_4b_4bit --out clean/
        """,
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="JSON, JSONL or CSV")
    parser.add_argument("--recipe", required=True, help="whose template and max_length decide")
    parser.add_argument("--out", required=True, type=Path, help="folder of the results")
    parser.add_argument(
        "--val", action="append", default=[], type=Path, metavar="FILE", help="validation rows"
    )
    parser.add_argument(
        "--columns", default="", metavar="NAME=COLUMN,...", help="which column holds what"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a recipe key"
    )
    parser.add_argument("--model", metavar="FOLDER", help="a folder with config and tokenizer")
    return parser


def _columns(text: str) -> dict[str, str]:
    pairs = [pair.partition("=") for pair in text.split(",") if pair.strip()]
    broken = [name for name, equals, column in pairs if not (name.strip() and equals and column)]
    if broken:
        problem = Problem(
            f"`{broken[0]}` names no column", "--columns", "write query=问,response=答"
        )
        raise InputError("the columns cannot be read", [problem])
    return {name.strip(): column.strip() for name, _, column in pairs}


def _template(recipe: Recipe, model: str | None, log: Path) -> TemplateSpec:
    """The template of the recipe's model, or of the one in the folder `model`."""
    source = recipe.model
    arguments: dict[str, SwiftValue] = {"model": model or _tokenizer_of(recipe, log)}
    if not model and source.source in ("modelscope", "huggingface"):
        arguments["use_hf"] = source.source == "huggingface"
        if source.revision:
            arguments["model_revision"] = source.revision
    return TemplateSpec(
        command=recipe.swift_command, arguments={**arguments, **recipe.swift}, env=recipe.env
    )


def _tokenizer_of(recipe: Recipe, log: Path) -> str:
    """The folder or hub id with the model's config and tokenizer, made here if it is embedded."""
    from palmswift.hub.source import embedded_model
    from palmswift.paths import project_path
    from palmswift.recipes.load import load_checked

    model = recipe.model
    if model.source == "recipe":  # the model that a recipe trains has the tokenizer of its base
        return _tokenizer_of(load_checked(model.id).recipe, log)
    if model.embedded is not None:
        return str(embedded_model(model.id, model.embedded, log))
    return str(project_path(model.id)) if model.source == "local" else model.id


def _body(arguments: argparse.Namespace, console: Console) -> Done:
    from palmswift.recipes.load import load_checked

    recipe = load_checked(arguments.recipe, arguments.set).recipe
    columns = {**recipe.data.columns, **_columns(arguments.columns)}
    out: Path = arguments.out
    log = out / "template.log"
    report = sanitize(
        arguments.files,
        arguments.val,
        out,
        settings=recipe.data.model_copy(update={"columns": columns}),
        template=_template(recipe, arguments.model, log),
        log=log,
        progress=console.note,
    )
    if not console.json_output:
        from rich.console import Console as Terminal

        Terminal().print(summary_table(report))
    console.say(f"rows: {out / TRAIN}   report: {out / PAGE}")
    return Done({"out": str(out), **report.model_dump(mode="json")})


def main(argv: Sequence[str] | None = None) -> int:
    """The command `data/sanitize.py`; its exit code."""
    return run(_parser(), _body, argv)
