"""Train: the stages from a recipe and its data to a checkpoint, each recorded in the run folder."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from palmswift.command import Console
from palmswift.data.sanitize import TemplateSpec, sanitize
from palmswift.errors import ChildError, InputError, Problem
from palmswift.files import write_text
from palmswift.hub.source import (
    cached_model,
    content_key,
    copy_trained,
    embedded_model,
    missing_model,
    project_path,
)
from palmswift.launchers.arguments import (
    TrainingPaths,
    child_environment,
    source_arguments,
    training_arguments,
)
from palmswift.launchers.machine import machine_problems
from palmswift.launchers.render import Rendered, render_command
from palmswift.launchers.run_folder import RunFolder, checkpoints
from palmswift.launchers.training_log import TrainingLog, TrainingView, sparkline
from palmswift.launchers.verdict import Verdict, judge
from palmswift.process import ProcessGroup
from palmswift.recipes.load import load_checked
from palmswift.recipes.recipe import Recipe


def preflight(recipe: Recipe, folder: Path) -> None:
    """Refuse, before anything is fetched or written, what cannot run here (all reasons at once)."""
    problems = machine_problems(recipe, folder)
    files = [*recipe.data.train, *recipe.data.val]
    if not recipe.data.train:
        problems.append(
            Problem("no training data is named", remedy="--data my.jsonl (or .json, .csv)")
        )
    for name in files:
        path = project_path(name)
        if not path.is_file():
            problems.append(Problem(f"there is no data file {path}"))
        elif path.stat().st_size == 0:
            problems.append(Problem(f"the data file {path} is empty"))
    if absent := missing_model(recipe.model):
        problems.append(Problem(absent))
    if problems:
        raise InputError(f"{recipe.name} cannot be trained here", problems)


def model_stage(run: RunFolder, console: Console) -> str:
    """The model that is tuned: its folder, or the hub id that ms-swift will fetch."""
    if run.is_done("model"):
        return str(run.facts("model")["model"])
    with run.stage("model") as facts:
        facts["model"] = str(_provide_model(run, console))
        console.note(f"model    {facts['model']}")
    return str(facts["model"])


def _provide_model(run: RunFolder, console: Console) -> str | Path:
    model = run.recipe.model
    if model.source == "local":
        return project_path(model.id)
    if model.source == "embedded" and model.embedded is not None:
        return embedded_model(model.id, model.embedded, run.logs / "model.log")
    if model.source == "recipe":
        return _model_of_recipe(model.id, run, console)
    return model.id


def _model_of_recipe(name: str, run: RunFolder, console: Console) -> Path:
    """What another recipe trains; kept under models/ until that recipe or its data changes."""
    base = load_checked(name).recipe
    files = [project_path(path) for path in (*base.data.train, *base.data.val)]

    def make(folder: Path) -> None:
        console.note(f"model    {name} is not trained yet: training it first")
        nested = RunFolder.create(base, parent=run.path / "base")
        checkpoint = train_stages(nested, console)
        copy_trained(checkpoint, folder)

    return cached_model(name, content_key(base.model_dump(mode="json"), *files), make)


def data_stage(run: RunFolder, model: str, console: Console) -> dict[str, Any]:
    """Clean the rows into the run's data folder; the counts."""
    if run.is_done("data"):
        return run.facts("data")
    recipe = run.recipe
    with run.stage("data") as facts:
        report = sanitize(
            [project_path(name) for name in recipe.data.train],
            [project_path(name) for name in recipe.data.val],
            run.data,
            settings=recipe.data,
            template=TemplateSpec(
                command=recipe.swift_command,
                arguments={**source_arguments(recipe, model), **recipe.swift},
                env=child_environment(recipe, model),
            ),
            log=run.logs / "data.log",
        )
        facts.update(
            read=report.read,
            kept=report.kept,
            rejected=report.rejected,
            train=report.train_rows,
            val=report.val_rows,
        )
        console.note(
            f"data     {report.read} rows read, {report.train_rows} to train on, "
            f"{report.val_rows} held out, {report.rejected} rejected"
        )
    return facts


def rendered_training(run: RunFolder, model: str, resume_from: Path | None) -> Rendered:
    """The command that trains this run."""
    val = run.data / "val.jsonl"
    paths = TrainingPaths(
        model=model,
        train=run.data / "train.jsonl",
        val=val if val.is_file() and val.stat().st_size else None,
        output=run.training,
        resume_from=resume_from,
    )
    return render_command(
        run.recipe.swift_command,
        training_arguments(run.recipe, paths),
        env=child_environment(run.recipe, model),
        title=f"{run.recipe.name}: {run.recipe.summary}",
    )


def train_stage(run: RunFolder, model: str, console: Console) -> Path:
    """Run ms-swift, show its progress, judge what it left; the checkpoint to use.

    Goes on from the last whole checkpoint when the run has one. `ChildError` when the run failed,
    whatever its exit code.
    """
    if run.is_done("train"):
        return run.path / str(run.facts("train")["checkpoint"])
    kept = checkpoints(run.training)
    command = rendered_training(run, model, kept[-1] if kept else None)
    write_text(run.path / "command.sh", command.script)
    log = run.logs / "train.log"
    with run.stage("train") as facts:
        where = f", from {kept[-1].name}" if kept else ""
        console.note(f"train    {run.recipe.swift_command}{where}; log: {log}")
        exit_code = _run_training(command, run, log)
        verdict = judge(
            run.training,
            log,
            exit_code,
            expects_eval=(run.data / "val.jsonl").is_file() and _evaluates(run.recipe),
            keep_best=run.recipe.swift.get("load_best_model_at_end") is True,
        )
        facts.update(_facts(verdict, run))
        if verdict.failure is not None:
            raise ChildError(
                f"the training failed ({verdict.failure.kind}): {verdict.failure.cause}",
                remedy=f"{verdict.failure.remedy}\n     log: {log}",
            )
        curve = sparkline(verdict.losses)
        first, last = verdict.losses[0], verdict.losses[-1]
        console.note(f"         {verdict.steps} steps, loss {first:.3f} {curve} {last:.3f}")
    if verdict.checkpoint is None:
        raise RuntimeError("a run that did not fail has a checkpoint")
    return verdict.checkpoint


def _evaluates(recipe: Recipe) -> bool:
    return recipe.swift.get("eval_strategy", "no") != "no"


def _facts(verdict: Verdict, run: RunFolder) -> dict[str, Any]:
    facts: dict[str, Any] = {"steps": verdict.steps}
    if verdict.losses:
        facts.update(first_loss=verdict.losses[0], last_loss=verdict.losses[-1])
    if verdict.eval_losses:
        facts["eval_losses"] = verdict.eval_losses
    if verdict.checkpoint is not None:
        facts["checkpoint"] = str(verdict.checkpoint.relative_to(run.path))
    if verdict.failure is not None:
        facts["failure"] = verdict.failure._asdict()
    return facts


def _run_training(command: Rendered, run: RunFolder, log: Path) -> int:
    history = TrainingLog(run.training / "logging.jsonl")
    with (
        ProcessGroup(command.argv, log=log, env=command.env) as child,
        TrainingView(history) as view,
    ):
        while True:
            try:
                exit_code = child.wait(0.5)
            except subprocess.TimeoutExpired:
                view.update()
                continue
            view.update()
            return exit_code


def train_stages(run: RunFolder, console: Console) -> Path:
    """Model, data, train: all three, those that are done left as they are; the checkpoint."""
    model = model_stage(run, console)
    data_stage(run, model, console)
    return train_stage(run, model, console)
