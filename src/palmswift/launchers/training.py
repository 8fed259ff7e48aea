"""Train: the stages from a recipe and its data to a checkpoint, each recorded in the run folder."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from palmswift.command import Console
from palmswift.data.policy import kind_of
from palmswift.data.progress import for_terminal
from palmswift.data.read import open_files
from palmswift.data.report import DataReport
from palmswift.data.sanitize import TemplateSpec, sanitize
from palmswift.errors import ChildError, GateError, InputError, Problem
from palmswift.files import sha256_of, write_json, write_text
from palmswift.hub.source import (
    cached_model,
    content_key,
    copy_trained,
    embedded_model,
    missing_model,
)
from palmswift.launchers.arguments import (
    TrainingPaths,
    child_environment,
    source_arguments,
)
from palmswift.launchers.attempt import judge_finished, run_attempt
from palmswift.launchers.checkpoint_survey import is_finished
from palmswift.launchers.engines.commands import launch_remarks, training_command
from palmswift.launchers.engines.follow import follow
from palmswift.launchers.machine import machine_problems, memory_problem, plan_here
from palmswift.launchers.merge import merge_stage
from palmswift.launchers.plugin_files import plugin_path
from palmswift.launchers.record import (
    contents_of,
    memory_record,
    model_contents,
    swift_arguments,
)
from palmswift.launchers.recovery import Launching, train_until_it_ends, with_patience
from palmswift.launchers.render import Rendered
from palmswift.launchers.resumption import refuse_changed_rows
from palmswift.launchers.run_folder import RunFolder, checkpoints
from palmswift.launchers.training_log import sparkline
from palmswift.launchers.verdict import Verdict
from palmswift.paths import project_path
from palmswift.plan.lengths import Lengths, read_lengths
from palmswift.recipes.load import load_checked
from palmswift.recipes.recipe import ModelSource, Recipe
from palmswift.recipes.source import shown


def preflight(
    recipe: Recipe, folder: Path, *, force: bool = False, overrides: Sequence[str] = ()
) -> None:
    """Refuse, before anything is fetched or written, what cannot run here (all reasons at once).

    `force` lets a training start that is predicted to run out of GPU memory. `overrides` are the
    `--set` words that the recipe came with.
    """
    problems = [*machine_problems(recipe, folder), *_input_problems(recipe)]
    memory = None if force else memory_problem(recipe, overrides=overrides)
    _refuse(f"{recipe.name} cannot be trained here", problems, memory)


def preflight_resumed(run: RunFolder, *, force: bool = False) -> None:
    """Refuse to go on with a run on another machine than it needs, or with other rows."""
    if run.is_done("train"):
        return
    problems = machine_problems(run.recipe, run.path)
    if not run.is_done("data"):
        problems += _input_problems(run.recipe)
        now = contents_of(run.recipe)
        problems += [
            Problem("it is not what it was when the run began", path, "start a new run with it")
            for path, digest in run.state.inputs.items()
            if path in now and now[path] != digest
        ]
    problems += refuse_changed_rows(run)
    recipe = run.training_recipe
    memory = None if force else memory_problem(recipe, _lengths(run), run.state.overrides)
    _refuse(f"{run.path.name} cannot go on here", problems, memory)


def _refuse(summary: str, problems: list[Problem], memory: Problem | None) -> None:
    """`InputError` with all of it; `GateError` where the memory alone speaks against it."""
    if problems:
        raise InputError(summary, [*problems, *([memory] if memory else [])])
    if memory is not None:
        raise GateError(summary, [memory], remedy="--force starts it all the same")


def write_plan(run: RunFolder) -> None:
    """plan.json: the predicted memory, for the rows as they are once they are clean."""
    write_json(
        run.path / "plan.json",
        plan_here(run.training_recipe, _lengths(run)).model_dump(mode="json"),
    )


def _lengths(run: RunFolder) -> Lengths | None:
    """The lengths of the run's rows; None before they are clean."""
    if not run.is_done("data"):
        return None
    try:
        return read_lengths(str(run.data / "report.json"))
    except InputError:  # of another version: the plan is then for the longest rows allowed
        return None


def _input_problems(recipe: Recipe) -> list[Problem]:
    """What is wrong with the files that a recipe names, and its base recipe's."""
    problems = []
    if not recipe.data.train:
        problems.append(
            Problem("no training data is named", remedy="--data my.jsonl (or .json, .csv)")
        )
    try:
        open_files([project_path(name) for name in (*recipe.data.train, *recipe.data.val)])
    except InputError as error:
        problems += error.problems
    for path in map(plugin_path, recipe.plugins):
        if fault := _file_fault(path):
            problems.append(Problem(fault, str(path)))
    for model in _models(recipe):
        if absent := missing_model(model):
            problems.append(Problem(absent))
        if model.source == "recipe":
            problems += _input_problems(load_checked(model.id).recipe)
    return problems


def _models(recipe: Recipe) -> list[ModelSource]:
    """The model that is tuned, and the one that is imitated."""
    return [recipe.model, *([recipe.teacher] if recipe.teacher else [])]


def _file_fault(path: Path) -> str:
    """What is wrong with a file that is to be read; empty when nothing is."""
    try:
        str(path).encode()
        size = path.stat().st_size
    except UnicodeEncodeError:
        return "its name is not UTF-8; rename it"
    except (OSError, ValueError):
        return "there is no such file"
    if not path.is_file():
        return "this is a folder; name its files" if path.is_dir() else "this is not a file"
    if not os.access(path, os.R_OK):
        return "the file may not be read by you"
    return "" if size else "the file is empty"


def model_stage(run: RunFolder, console: Console) -> str:
    """The model that is tuned: its folder, or the hub id that ms-swift will fetch."""
    if run.is_done("model"):
        known = str(run.facts("model")["model"])
        # A folder that is gone: the run, or the models beside it, came from another place.
        if not Path(known).is_absolute() or Path(known).exists():
            return known
    with run.stage("model") as facts:
        names = ("model", "teacher")
        for name, source in zip(names, _models(run.recipe), strict=False):
            found = _provide_model(source, run, console)
            facts[name] = str(found)
            console.note(f"{name:<8} {shown(found) if isinstance(found, Path) else found}")
        facts["files"] = model_contents(str(facts["model"]))
    return str(facts["model"])


def _provide_model(model: ModelSource, run: RunFolder, console: Console) -> str | Path:
    if model.source == "local":
        return project_path(model.id)
    if model.source == "embedded" and model.embedded is not None:
        return embedded_model(model.id, model.embedded, run.logs / "model.log", console.note)
    if model.source == "recipe":
        return _model_of_recipe(model.id, run, console)
    return model.id


def _model_of_recipe(name: str, run: RunFolder, console: Console) -> Path:
    """What another recipe trains; kept under models/ until that recipe or its data changes."""
    base = load_checked(name).recipe

    def make(folder: Path) -> None:
        nested = _base_run(base, run.path / "base")
        begun = "going on with its training" if nested.state.stages else "training it first"
        console.note(f"model    {name} is not trained yet: {begun}")
        copy_trained(train_stages(nested, console), folder)

    return cached_model(name, _key_of(base), make, console.note)


def _key_of(recipe: Recipe) -> str:
    """Changes when the recipe, its files, or a recipe whose model it stands on change."""
    files = [project_path(path) for path in (*recipe.data.train, *recipe.data.val)]
    parts: list[object] = [recipe.model_dump(mode="json"), *files]
    for model in _models(recipe):
        corpus = model.embedded.corpus if model.embedded else []
        parts += [project_path(path) for path in corpus]
        if model.source == "recipe":
            parts.append(_key_of(load_checked(model.id).recipe))
    return content_key(*parts)


def _base_run(base: Recipe, parent: Path) -> RunFolder:
    """The base recipe's run under `parent` that was begun with the same data, else a new one."""
    for file in sorted(parent.glob("*/run.json"), reverse=True):
        with contextlib.suppress(InputError):  # a damaged one is left alone
            found = RunFolder(file.parent)
            same_recipe = found.recipe == base.model_copy(update={"base": None})
            if same_recipe and found.state.inputs == contents_of(base):
                return found
    return RunFolder.create(base, parent=parent)


def data_stage(run: RunFolder, model: str, console: Console) -> dict[str, Any]:
    """Clean the rows into the run's data folder; the counts."""
    if run.is_done("data"):
        return run.facts("data")
    recipe = run.training_recipe
    with run.stage("data") as facts:
        log = run.logs / "data.log"

        def judge_rows() -> DataReport:
            return sanitize(
                [project_path(name) for name in recipe.data.train],
                [project_path(name) for name in recipe.data.val],
                run.data,
                settings=recipe.data,
                template=TemplateSpec(
                    command=recipe.swift_command,
                    arguments={**source_arguments(recipe, model), **recipe.swift},
                    env=child_environment(recipe, model),
                ),
                log=log,
                kind=kind_of(recipe.task),
                recipe=recipe,
                progress=for_terminal(),
            )

        report = with_patience(run, log, console, judge_rows)
        facts.update(
            read=report.read,
            kept=report.kept,
            rejected=report.rejected,
            train=report.train_rows,
            val=report.val_rows,
            rows={
                path.name: sha256_of(path)
                for path in (run.data / "train.jsonl", run.data / "val.jsonl")
                if path.is_file()
            },
        )
        console.note(
            f"data     {report.read} rows read, {report.train_rows} to train on, "
            f"{report.val_rows} held out, {report.rejected} rejected"
        )
    return facts


def _training_command(
    run: RunFolder, recipe: Recipe, model: str, resume_from: Path | None
) -> Rendered:
    val = run.data / "val.jsonl"
    paths = TrainingPaths(
        model=model,
        train=run.data / "train.jsonl",
        val=val if val.is_file() else None,
        output=run.training,
        resume_from=resume_from,
        teacher=run.facts("model").get("teacher"),
    )
    return training_command(run, recipe, paths)


def train_stage(run: RunFolder, model: str, console: Console) -> Path:
    """Run ms-swift, show its progress, judge what it left; the checkpoint to use.

    Goes on from the last whole checkpoint when the run has one, else from the start; again, with
    changes, where a failure can be mended (`recovery.py`). `ChildError` when the run failed in the
    end, whatever its exit code.
    """
    if run.is_done("train"):
        return run.path / str(run.facts("train")["checkpoint"])
    earlier = list(run.facts("train").get("attempts", []))
    log = run.logs / "train.log"

    def launch(recipe: Recipe, resume_from: Path | None) -> Verdict:
        if resume_from and is_finished(resume_from, run.state.lengthened_at):
            console.note(f"train    {resume_from.name} is that of the last step: nothing to run")
            return judge_finished(run, log)
        command = _training_command(run, recipe, model, resume_from)
        write_text(run.path / "command.sh", command.script)
        where = f", from {resume_from.name}" if resume_from else ""
        console.note(f"train    {recipe.swift_command}{where}; log: {shown(log)}")
        for remark in launch_remarks(recipe, int(run.facts("data").get("train", 0))):
            console.note(f"         {remark}")
        return run_attempt(run, command, log)

    def plan_again() -> None:
        data_stage(run, model, console)
        write_plan(run)

    with run.stage("train") as facts:
        launching = Launching(launch, plan_again)
        verdict, attempts = train_until_it_ends(run, launching, console, earlier)
        facts.update(_facts(verdict, run))
        if verdict.failure is not None:
            times = f" after {len(attempts)} attempts" if len(attempts) > 1 else ""
            raise ChildError(
                f"the training failed{times} ({verdict.failure.kind}): {verdict.failure.cause}",
                remedy=f"{verdict.failure.remedy}\n     log: {shown(log)}",
            )
        curve = sparkline(verdict.losses)
        first, last = verdict.losses[0], verdict.losses[-1]
        console.note(f"         {verdict.steps} steps, loss {first:.3f} {curve} {last:.3f}")
        for remark in verdict.remarks:
            console.note(f"note     {remark}")
    if run.stop_asked:
        raise KeyboardInterrupt
    if verdict.checkpoint is None:
        raise RuntimeError("a run that did not fail has a checkpoint")
    return verdict.checkpoint


def _facts(verdict: Verdict, run: RunFolder) -> dict[str, Any]:
    facts: dict[str, Any] = {"steps": verdict.steps}
    if verdict.losses:
        facts.update(first_loss=verdict.losses[0], last_loss=verdict.losses[-1])
    if verdict.eval_losses:
        facts["eval_losses"] = verdict.eval_losses
    if verdict.checkpoint is not None:
        facts["checkpoint"] = str(verdict.checkpoint.relative_to(run.path))
    if verdict.remarks:
        facts["remarks"] = verdict.remarks
    if verdict.failure is not None:
        facts["failure"] = verdict.failure._asdict()
    if memory := memory_record(run.path):
        facts["memory"] = memory
    run.state.swift_arguments = swift_arguments(run.training)
    return facts


def prepare_stages(run: RunFolder, console: Console) -> str:
    """Model and data, those that are done left as they are, and the plan; the model."""
    model = model_stage(run, console)
    data_stage(run, model, console)
    write_plan(run)
    return model


def train_stages(run: RunFolder, console: Console) -> Path:
    """Model, data, train and, where the recipe says so, merge; what is to be used of it.

    Stages that are done are left as they are.
    """
    checkpoint = train_stage(run, prepare_stages(run, console), console)
    return merge_stage(run, console) if run.recipe.export.merge else checkpoint


def follow_stages(run: RunFolder, console: Console) -> None:
    """A further node's model, data and part of the training, recorded in its own run folder."""
    model = prepare_stages(run, console)
    if run.is_done("train"):
        return
    with run.stage("train") as facts:
        facts["node_rank"] = run.recipe.launch.node_rank
        command = resumed_command(run, model)
        follow(run, command, run.recipe.launch.node_rank, console)


def resumed_command(run: RunFolder, model: str) -> Rendered:
    """The training's command, from the last whole checkpoint on where there is one."""
    kept = checkpoints(run.training)
    return _training_command(run, run.training_recipe, model, kept[-1] if kept else None)
