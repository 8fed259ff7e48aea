"""The whole job in one run folder: data, training, serving, test, export; resumable.

Stands above the rooms that it joins: launchers, deploy and eval know nothing of it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from palmswift.command import Console, Done, make_parser, run
from palmswift.errors import IncompleteError, InputError
from palmswift.launchers.train import (
    add_recipe_arguments,
    chosen_recipe,
    dry_run,
    held,
    new_run,
    resumed_run,
)

if TYPE_CHECKING:
    from palmswift.eval.reports.report import Against, EvaluationReport
    from palmswift.eval.suites.suite import Suite
    from palmswift.export.manifest import Exported
    from palmswift.launchers.run_folder import RunFolder
    from palmswift.recipes.recipe import Recipe

EXAMPLES = """
python launchers/pipeline.py --recipe demo_cpu
python launchers/pipeline.py --recipe qwen3_8b_4bit --data my.jsonl
python launchers/pipeline.py --resume latest
"""

BASE, TUNED = "base", "tuned"
"""Labels of the two endpoints in an evaluation report."""

WITHOUT_REFERENCES = ("pt", "kto", "grpo")
"""Tasks whose rows are texts, answers of which some are bad, or questions alone."""


def require_questions(recipe: Recipe) -> None:
    """Refuse, before hours of training, a suite that cannot be used or nothing to ask at all."""
    from palmswift.eval.suites.interop import read_suite
    from palmswift.paths import project_path

    for name in recipe.eval.also:
        read_suite(project_path(name))
    if recipe.eval.suite is not None:
        read_suite(project_path(recipe.eval.suite))
    elif recipe.task in WITHOUT_REFERENCES:
        raise InputError(
            f"there is nothing to test with: held-out rows of task {recipe.task} are no questions"
            " with a right answer",
            remedy="--set eval.suite=SUITE.yaml; launchers/train.py trains alone",
        )
    elif not recipe.data.val and recipe.data.val_ratio == 0:
        raise InputError(
            "there is nothing to test with: no suite, and no row is held out",
            remedy="--val FILE, or --set data.val_ratio=0.05; launchers/train.py trains alone",
        )


def suites_of(folder: RunFolder) -> list[Suite]:
    """The suites that the recipe names; without a first one, the rows that the run held out."""
    from palmswift.eval.suites.dataset import DatasetSource
    from palmswift.eval.suites.interop import read_suite
    from palmswift.eval.suites.suite import suite_from_datasets
    from palmswift.paths import project_path

    settings = folder.recipe.eval
    also = [read_suite(project_path(name)) for name in settings.also]
    if settings.suite is not None:
        return [read_suite(project_path(settings.suite)), *also]
    held_out = suite_from_datasets(
        folder.recipe.name,
        [DatasetSource(path=str(folder.data / "val.jsonl"), tags=["held_out"])],
        description="Rows of the run's own data that were held out of training.",
    )
    return [held_out, *also]


def against_training(folder: RunFolder, suites: Sequence[Suite]) -> Against:
    """Which cases stand in the rows that the run trained on."""
    from palmswift.eval.reports.report import Against
    from palmswift.eval.suites.several import parts_of
    from palmswift.eval.verdicts.contamination import find_leaks

    trained_on = folder.data / "train.jsonl"
    if not trained_on.is_file():
        return Against()
    cases = [case for part in parts_of(suites) for case in part.cases]
    return Against(find_leaks(cases, [trained_on]))


def ask_stage(folder: RunFolder, label: str, console: Console) -> None:
    """Serve the base or the tuned model, ask it the recipe's suite, stop the server.

    `IncompleteError` when requests stay without a reply: they are asked again by a resumed run.
    """
    from palmswift.deploy.fitting import fitted
    from palmswift.deploy.server import Server
    from palmswift.deploy.spec import base_of_run, spec_of_run
    from palmswift.eval.asking.endpoint import Endpoint
    from palmswift.eval.asking.engine import Sampling
    from palmswift.eval.evaluation import EvalRun, evaluate

    name = f"test_{label}"
    settings = folder.recipe.eval
    if folder.is_done(name):
        return
    suites = suites_of(folder)
    spec = base_of_run(folder) if label == BASE else spec_of_run(folder)
    with folder.stage(name) as facts:
        console.note(f"test     serving the {label} model")
        spec = fitted(spec, folder.recipe, note=lambda line: console.note(f"         {line}"))
        # Port 0: the test needs no known port, so it never meets a taken one.
        with Server(
            spec.model_copy(update={"port": 0}),
            folder=folder.logs / "deploy",
            run=folder.path,
            note=lambda line: console.note(f"         {line}"),
        ) as server:
            count = sum(len(suite.cases) for suite in suites)
            console.note(f"         {count} cases over {server.base_url}")
            report = evaluate(
                suites,
                [Endpoint(label=label, base_url=server.base_url, model=spec.name)],
                folder.evaluation,
                EvalRun(
                    concurrency=settings.concurrency,
                    max_samples=settings.max_samples,
                    sampling=Sampling(
                        max_tokens=settings.max_tokens, temperature=settings.temperature
                    ),
                ),
                against=against_training(folder, suites),
                note=lambda line: console.note(f"         {line}"),
            )
        facts["verdict"] = report.verdict
        if (compared := report.comparison(label)) is not None:
            facts["compared"] = compared.word
        for summary in report.summaries:
            measured = summary.metrics.get("exact_match")
            if (
                summary.endpoint == label
                and summary.tag
                and not summary.suite
                and measured
                and measured.n
            ):
                facts[f"exact_{summary.tag}"] = f"{measured.count}/{measured.n}"
                console.note(f"         {summary.tag}: {measured.count} of {measured.n} exact")
        everything = report.summary(label)
        if unanswered := everything.errors + everything.not_asked:
            raise IncompleteError(f"{unanswered} requests to the {label} model have no reply")


def pipeline_stages(folder: RunFolder, console: Console) -> EvaluationReport:
    """All stages, those that are done left as they are; the evaluation's report."""
    from palmswift.eval.reports.report import JSON_NAME, read_report
    from palmswift.launchers.training import train_stages

    train_stages(folder, console)
    for label in (BASE, TUNED) if folder.recipe.eval.baseline else (TUNED,):
        try:
            ask_stage(folder, label, console)
        except IncompleteError as error:
            console.note(f"         {error}")  # the other model is asked all the same
    return read_report(folder.evaluation / JSON_NAME)


def require_exportable(recipe: Recipe) -> None:
    """`InputError`, before hours of training, for an export that cannot be made."""
    from palmswift.export.quantise import tool_problems, wanted

    settings = recipe.export
    if settings.quant is None:
        return
    if problems := [*tool_problems(wanted(settings.quant, settings.bits))]:
        raise InputError(f"{recipe.name} cannot be exported here as it says", problems)


def export_at_end(folder: RunFolder, console: Console) -> list[Exported]:
    """What the recipe has made of the tested model; a merge alone was made before the test."""
    from palmswift.export.stages import check_plan, export_stages, plan_of

    plan = plan_of(folder.recipe.export)
    if plan.quant is None and plan.gguf is None:
        return []
    check_plan(plan, folder)
    return export_stages(folder, plan, console)


def require_training_here(recipe: Recipe) -> None:
    """`InputError` where the result would be on another machine than the one that serves it."""
    from palmswift.launchers.engines.machine import submits

    if submits(recipe) or recipe.launch.follows:
        raise InputError(
            "the pipeline serves and tests what this machine has trained, and this recipe is"
            f" trained elsewhere (scheduler {recipe.launch.scheduler}, node_rank"
            f" {recipe.launch.node_rank})",
            remedy="train with launchers/train.py; when the run is done, go on with"
            " launchers/pipeline.py --resume RUN",
        )


def _body(args: argparse.Namespace, console: Console) -> Done:
    if args.dry_run:
        recipe = chosen_recipe(args)
        require_questions(recipe)
        require_exportable(recipe)
        return dry_run(recipe, console)
    if args.resume:
        folder = resumed_run(args, console)
        require_questions(folder.recipe)
        if not folder.is_done("train"):
            require_training_here(folder.recipe)
    else:
        recipe = chosen_recipe(args)
        require_questions(recipe)
        require_exportable(recipe)
        require_training_here(recipe)
        folder = new_run(recipe, args.set, force=args.force)
    from palmswift.export.command import tell
    from palmswift.screen import show_closing

    with held(folder, console, "pipeline.py"):
        report = pipeline_stages(folder, console)
        exports = export_at_end(folder, console)
    show_closing(folder, report, console)
    for made in exports:
        tell(made, console)
    code = _exit_code(report)
    if code == 0 and not all(made.passed for made in exports):
        code = 1
    if code == IncompleteError.exit_code:
        console.note(f"go on with: python launchers/pipeline.py --resume {folder.path.name}")
    document = {
        "run": str(folder.path),
        "report": str(folder.evaluation / "evaluation_report.html"),
        "verdict": report.verdict,
        "compared": {v.tuned_label: v.word for v in report.comparisons},
        "exports": {made.kind: {"path": str(made.path), "passed": made.passed} for made in exports},
        "stages": folder.stages_document(),
    }
    return Done(document, code)


def _exit_code(report: EvaluationReport) -> int:
    """1 when a gate failed, 4 when requests stayed unanswered (as eval/run.py), else 0."""
    if report.unanswered:
        return IncompleteError.exit_code
    return 1 if any(gate.state == "failed" for gate in report.gates) else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; its exit code."""
    parser = make_parser(
        "pipeline.py", "Clean the data, train, serve and test, in one run folder.", EXAMPLES
    )
    add_recipe_arguments(parser)
    return run(parser, _body, argv)
