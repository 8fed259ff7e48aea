"""Render `swift` command lines from the Jinja templates, as a script to read and a list to run."""

from __future__ import annotations

import importlib.util
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from palmswift.errors import InputError
from palmswift.launchers.arguments import (
    TrainingPaths,
    training_arguments,
    training_environment,
)
from palmswift.launchers.tracking import tracking_environment
from palmswift.paths import project_root
from palmswift.recipes.recipe import Recipe, SwiftValue, flag_words

SwiftCommand = Literal["sft", "pt", "rlhf", "infer", "export", "deploy"]
Template = Literal[SwiftCommand, "mlx", "vllm"]

PROGRAM_VARIABLE = "PALMSWIFT_SWIFT"
"""Environment variable that names another `swift` program (shell words)."""


class Rendered(NamedTuple):
    """One command: the script that a person can run, and what we run (the same words)."""

    script: str
    argv: list[str]
    env: dict[str, str]


def swift_program() -> list[str]:
    """The words that start ms-swift: the `swift` beside this Python, or PALMSWIFT_SWIFT's."""
    chosen = os.environ.get(PROGRAM_VARIABLE)
    if chosen:
        try:
            return shlex.split(chosen)
        except ValueError as error:
            raise InputError(f"{PROGRAM_VARIABLE} is not a command line: {error}") from error
    return [str(Path(sys.executable).with_name("swift"))]


def direct_words(command: Rendered) -> list[str]:
    """The words that start what `swift sft|pt|rlhf|deploy` starts, without `swift` around it.

    For one process on one machine `swift` imports half of itself (2.4 s) and calls its own script
    with the same words (swift/cli/main.py). Several processes, another program and a `swift` of
    another environment are started as the command says.
    """
    program, word, *rest = command.argv
    several = {"NPROC_PER_NODE", "NNODES"} & {*os.environ, *command.env}
    found = importlib.util.find_spec("swift")
    folders = found.submodule_search_locations if found else None
    alone = word == "deploy" or (word in ("sft", "pt", "rlhf") and not several)
    if not alone or not folders:
        return command.argv
    if rest and not rest[0].startswith("--"):  # a YAML file, which `swift` alone reads
        return command.argv
    script = Path(folders[0]) / "cli" / f"{word}.py"
    if [program] != swift_program() or not (Path(program).is_file() and script.is_file()):
        return command.argv
    return [sys.executable, str(script), *rest]


def render_training(recipe: Recipe, paths: TrainingPaths) -> Rendered:
    """The command that trains what the recipe says."""
    return render_command(
        recipe.swift_command,
        training_arguments(recipe, paths),
        env={
            **tracking_environment(recipe, paths.output),
            **training_environment(recipe, paths.model),
        },
        title=f"{recipe.name}: {recipe.summary}",
    )


def render_text(template: str, **values: Any) -> str:
    """`launchers/templates/TEMPLATE` with these values; `| sh` quotes one for a shell.

    `InputError` when the template is missing or uses an unknown name.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError

    folder = project_root() / "launchers" / "templates"
    environment = Environment(
        loader=FileSystemLoader(folder),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=template.endswith((".slurm.j2", ".yaml.j2")),
        lstrip_blocks=template.endswith((".slurm.j2", ".yaml.j2")),
    )
    environment.filters["sh"] = lambda value: shlex.quote(str(value))
    try:
        return environment.get_template(template).render(values)
    except TemplateError as error:
        raise InputError(f"cannot render {folder / template}: {error}") from error


def render_command(
    command: Template,
    arguments: Mapping[str, SwiftValue],
    *,
    env: Mapping[str, str] | None = None,
    title: str = "",
    program: Sequence[str] | None = None,
    words: Sequence[str] = (),
) -> Rendered:
    """`launchers/templates/<command>.sh.j2` with `words` and these arguments, in their order.

    The argument list is read back from the rendered text, so the script that is kept in the run
    folder is what ran. `program` stands in for `swift`. `InputError` when the template is missing
    or uses an unknown name.
    """
    quoted = {
        name: [shlex.quote(word) for word in flag_words(value)] for name, value in arguments.items()
    }
    variables = dict(env or {})
    start = shlex.join(program or swift_program())

    def render(joint: str) -> str:
        return render_text(
            f"{command}.sh.j2",
            title=title.replace("\n", " "),
            program=start,
            env={name: shlex.quote(value) for name, value in variables.items()},
            words=[shlex.quote(word) for word in words],
            flags=quoted,
            joint=joint,
        )

    script, one_line = render(" \\\n    "), render(" ")
    # shlex knows no line continuation, so the words are read from the one-line form.
    words = shlex.split(one_line[one_line.index(f"\nexec {start} ") + 6 :])
    return Rendered(script=script.rstrip("\n") + "\n", argv=words, env=variables)
