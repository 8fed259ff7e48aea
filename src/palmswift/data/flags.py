"""Flags that the data commands share, and the template that a recipe asks for."""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from palmswift.data.policy import Policy
from palmswift.data.read import DataFile
from palmswift.data.template import TemplateSpec
from palmswift.errors import ChildError, InputError, Problem
from palmswift.recipes.recipe import DataSettings, Recipe, SwiftValue


def add_row_flags(parser: argparse.ArgumentParser) -> None:
    """`--columns` and `--rule`: how rows are read, and what is done about what is found."""
    parser.add_argument(
        "--columns",
        action="append",
        default=[],
        metavar="NAME=COLUMN,...",
        help="which column holds what, such as query=问,response=答",
    )
    parser.add_argument(
        "--rule",
        action="append",
        default=[],
        metavar="CODE=ACTION",
        help="what is done about a finding, such as near_duplicate=reject",
    )


def add_recipe_flags(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """`--recipe`, `--set` and `--model`: whose template is asked."""
    parser.add_argument("--recipe", required=required, help="whose template and max_length decide")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a recipe key"
    )
    parser.add_argument("--model", metavar="FOLDER", help="a folder with config and tokenizer")


def with_row_flags(settings: DataSettings, arguments: argparse.Namespace) -> DataSettings:
    """The settings with `--columns` and `--rule` put over them; InputError for bad ones."""
    columns = [pair for text in arguments.columns for pair in text.split(",") if pair.strip()]
    told_columns = _pairs(columns, "--columns", "write query=问,response=答")
    told_rules = _pairs(arguments.rule, "--rule", "write near_duplicate=reject")
    rules = {**settings.rules, **told_rules}
    Policy(rules)
    return settings.model_copy(
        update={"columns": {**settings.columns, **told_columns}, "rules": rules}
    )


def check_result(flag: str, path: Path, files: Sequence[DataFile], *beside: Path) -> None:
    """InputError where the file of a result cannot be written, or would overwrite its input.

    `beside` are further files that are written with it. Nothing is made.
    """
    given = {file.path.resolve() for file in files}
    root = next(folder for folder in path.resolve().parents if folder.exists())
    remedy = "name another file"
    if given & {written.resolve() for written in (path, *beside)}:
        what = "the result would overwrite its input"
    elif path.is_dir():
        what, remedy = "a folder stands there", "name a file in it"
    elif not root.is_dir():
        what = f"it cannot be in a folder of this name: {root} is a file"
    elif not os.access(root, os.W_OK):
        what = f"the folder {root} is not writable"
    else:
        return
    raise InputError("the result cannot be written", [Problem(what, f"{flag} {path}", remedy)])


def _pairs(words: Sequence[str], flag: str, remedy: str) -> dict[str, str]:
    pairs = [[part.strip() for part in word.partition("=")] for word in words]
    problems = [
        Problem(f"`{word}` is not NAME=VALUE", flag, remedy)
        for word, pair in zip(words, pairs, strict=True)
        if not all(pair)
    ]
    if problems:
        raise InputError("the flags cannot be used", problems)
    return {name: value for name, _, value in pairs}


@contextmanager
def template_log() -> Iterator[Path]:
    """A file for what the template's child prints; it stays only if the child fails."""
    folder = Path(tempfile.mkdtemp(prefix="palmswift-template-"))
    try:
        yield folder / "template.log"
    except ChildError:
        raise
    except BaseException:
        shutil.rmtree(folder)
        raise
    shutil.rmtree(folder)


def template_of(recipe: Recipe, model: str | None, log: Path) -> TemplateSpec:
    """The template of the recipe's model, or of the one in the folder `model`.

    An embedded model is made first if need be, with its output in `log`.
    """
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
