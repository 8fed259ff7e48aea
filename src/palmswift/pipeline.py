"""The whole job in one run folder: data, training, serving, test; resumable, one screen at the end.

Stands above the rooms that it joins: launchers, deploy and eval know nothing of it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from palmswift.command import Console, Done, make_parser, run
from palmswift.launchers.run_folder import RunFolder
from palmswift.launchers.train import (
    add_recipe_arguments,
    chosen_recipe,
    dry_run,
    interrupted_hint,
    opened_run,
)

if TYPE_CHECKING:
    from palmswift.eval.suite import Suite

EXAMPLES = """
python launchers/pipeline.py --recipe demo_cpu
python launchers/pipeline.py --recipe qwen3_8b_4bit --data my.jsonl
python launchers/pipeline.py --resume latest
"""

BASE, TUNED = "base", "tuned"
"""Labels of the two endpoints in an evaluation report."""


def test_stage(folder: RunFolder, label: str, console: Console) -> None:
    """Serve the base or the tuned model, ask it the recipe's suite, stop the server."""
    from palmswift.deploy.server import Server
    from palmswift.deploy.spec import base_of_run, spec_of_run
    from palmswift.eval.endpoint import Endpoint
    from palmswift.eval.engine import Sampling
    from palmswift.eval.evaluation import EvalRun, evaluate

    name = f"test_{label}"
    settings = folder.recipe.eval
    if folder.is_done(name):
        return
    suite = suite_of(folder)
    spec = base_of_run(folder) if label == BASE else spec_of_run(folder)
    with folder.stage(name) as facts:
        console.note(f"test     serving the {label} model")
        # Port 0: the test needs no known port, so it never meets a taken one.
        with Server(
            spec.model_copy(update={"port": 0}),
            folder=folder.logs / "deploy",
            run=folder.path,
            note=lambda line: console.note(f"         {line}"),
        ) as server:
            console.note(f"         {len(suite.cases)} cases over {server.base_url}")
            report = evaluate(
                suite,
                [Endpoint(label=label, base_url=server.base_url, model=spec.name)],
                folder.evaluation,
                EvalRun(
                    concurrency=settings.concurrency,
                    max_samples=settings.max_samples,
                    sampling=Sampling(
                        max_tokens=settings.max_tokens, temperature=settings.temperature
                    ),
                ),
                note=lambda line: console.note(f"         {line}"),
            )
        facts["verdict"] = report.verdict
        for summary in report.summaries:
            measured = summary.metrics.get("exact_match")
            if summary.endpoint == label and summary.tag and measured and measured.n:
                facts[f"exact_{summary.tag}"] = f"{measured.count}/{measured.n}"
                console.note(f"         {summary.tag}: {measured.count} of {measured.n} exact")


def suite_of(folder: RunFolder) -> Suite:
    """The suite that the recipe names, else one made of the rows that the run held out."""
    from palmswift.eval.dataset import DatasetSource
    from palmswift.eval.suite import load_suite, suite_from_datasets
    from palmswift.hub.source import project_path

    if folder.recipe.eval.suite is not None:
        return load_suite(project_path(folder.recipe.eval.suite))
    held_out = folder.data / "val.jsonl"
    return suite_from_datasets(
        folder.recipe.name,
        [DatasetSource(path=str(held_out), tags=["held_out"])],
        description="Rows of the run's own data that were held out of training.",
    )


def pipeline_stages(folder: RunFolder, console: Console) -> Path:
    """All stages, those that are done left as they are; the evaluation report's page."""
    from palmswift.launchers.export import merge_stage
    from palmswift.launchers.training import train_stages

    train_stages(folder, console)
    if folder.recipe.export.merge:
        merge_stage(folder, console)
    for label in (BASE, TUNED) if folder.recipe.eval.baseline else (TUNED,):
        test_stage(folder, label, console)
    return folder.evaluation / "evaluation_report.html"


def closing_screen(folder: RunFolder) -> str:
    """What was trained, on what, how it went, base against tuned, and where to go on."""
    from palmswift.launchers.training_log import TrainingLog, sparkline

    data, trained = folder.facts("data"), folder.facts("train")
    history = TrainingLog(folder.training / "logging.jsonl")
    history.poll()
    losses = history.losses
    seconds = sum(stage.seconds or 0.0 for stage in folder.state.stages.values())
    lines = [
        "",
        f"{folder.recipe.name}: {folder.recipe.summary}",
        f"  model    {folder.facts('model').get('model')}",
        f"  data     {data.get('train')} rows trained on, {data.get('val')} held out, "
        f"{data.get('rejected')} rejected (data/report.html)",
        f"  loss     {losses[0]:.3f} {sparkline(losses)} {losses[-1]:.3f}"
        f"   {trained.get('steps')} steps",
        *_comparison(folder),
        f"  time     {seconds:.0f} s in all",
        f"  report   {folder.evaluation / 'evaluation_report.html'}",
        f"  curves   tensorboard --logdir {folder.training}",
        f"  serve    python deploy/serve.py --run {folder.path.name}",
        "  chat     python eval/chat.py --endpoint "
        f"http://127.0.0.1:{folder.recipe.deploy.port}/v1",
    ]
    return "\n".join(lines)


def _comparison(folder: RunFolder) -> list[str]:
    from palmswift.eval.report import JSON_NAME, read_report

    report = read_report(folder.evaluation / JSON_NAME)
    width = max((len(summary.tag or "") for summary in report.summaries), default=0)
    lines = []
    for tag in dict.fromkeys(summary.tag for summary in report.summaries if summary.tag):
        cells = []
        for label in report.labels:
            metrics = report.summary(label, tag).metrics
            exact, passed = metrics.get("exact_match"), metrics.get("pass_rate")
            shown = exact if exact and exact.n else passed
            if shown and shown.n:
                kind = "exact" if shown is exact else "passed"
                cells.append(f"{label} {shown.count}/{shown.n} {kind}")
        lines.append(f"  {tag:<{width}}  {'   '.join(cells)}")
    failed = [gate for gate in report.gates if gate.state == "failed"]
    lines += [f"  gate     FAILED: {gate.gate} ({gate.endpoint})" for gate in failed]
    if not failed and report.gates:
        lines.append("  gates    all passed")
    return lines


def _body(args: argparse.Namespace, console: Console) -> Done:
    if args.dry_run:
        return dry_run(chosen_recipe(args), console)
    folder = opened_run(args)
    if folder.recipe.eval.suite is not None:
        suite_of(folder)  # A suite that cannot be used is told before hours of training.
    console.note(f"run      {folder.path}")
    with folder.lock():
        try:
            page = pipeline_stages(folder, console)
        except KeyboardInterrupt:
            console.note(interrupted_hint(folder.path, "pipeline.py"))
            raise
    console.say(closing_screen(folder))
    return Done(_document(folder, page), exit_code=_exit_code(folder))


def _exit_code(folder: RunFolder) -> int:
    """1 when a gate failed, 4 when requests stayed unanswered (as eval/run.py), else 0."""
    from palmswift.eval.report import JSON_NAME, read_report

    report = read_report(folder.evaluation / JSON_NAME)
    if report.unanswered:
        return 4
    return 1 if any(gate.state == "failed" for gate in report.gates) else 0


def _document(folder: RunFolder, page: Path) -> dict[str, Any]:
    stages = {name: stage.model_dump(mode="json") for name, stage in folder.state.stages.items()}
    return {"run": str(folder.path), "report": str(page), "stages": stages}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; its exit code."""
    parser = make_parser(
        "pipeline.py", "Clean the data, train, serve and test, in one run folder.", EXAMPLES
    )
    add_recipe_arguments(parser)
    return run(parser, _body, argv)
