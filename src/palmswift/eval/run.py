"""The command that tests served models with a suite and reports."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from palmswift.command import Console, Done, make_parser, run
from palmswift.errors import InputError
from palmswift.eval.asking.endpoint import Endpoint, load_endpoints
from palmswift.eval.asking.engine import Progress
from palmswift.eval.compare import language, show_verdict
from palmswift.eval.evaluation import EvalRun, evaluate
from palmswift.eval.flags import (
    add_asking_flags,
    add_endpoint_flags,
    add_sampling_flags,
    endpoints_of,
    policy_of,
    sampling_of,
    whole,
)
from palmswift.eval.reports.report import (
    CSV_NAME,
    HTML_NAME,
    JSON_NAME,
    JUNIT_NAME,
    MARKDOWN_NAME,
    PREDICTIONS_NAME,
    Against,
    EvaluationReport,
    Verdict,
)
from palmswift.eval.reports.table import bound_words, gate_words, groups
from palmswift.eval.suites.interop import read_suite
from palmswift.eval.suites.several import parts_of
from palmswift.eval.suites.suite import Suite
from palmswift.eval.verdicts.comparison import Options

if TYPE_CHECKING:
    from palmswift.eval.verdicts.contamination import Contamination

_FIRST_LOOK = 20
"""Cases of each suite that `--sequential` asks before its first look."""

EXIT_CODES: dict[Verdict, int] = {"passed": 0, "no_gates": 0, "failed": 1, "incomplete": 4}

_EXAMPLES = """
python eval/run.py --suite eval/suites/clinic.yaml --endpoint http://127.0.0.1:8000/v1 --out report
python eval/run.py --suite S.yaml --endpoint base=http://h:8000 --endpoint new=http://h:8001 --out r
python eval/run.py --suite clinic.yaml --suite safety.yaml --models models.yaml --out report
python eval/run.py --suite S.yaml --models models.yaml --training data/train.jsonl --out report
python eval/run.py --suite S.yaml --models models.yaml --sequential --out report   # stops early
python eval/run.py --suite S.yaml --endpoint http://127.0.0.1:8000/v1 --out quick --max-samples 20
python eval/run.py --suite S.yaml --out report                     # score again, ask nothing
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Test, write the report, print its table; 0 gates hold, 1 they do not, 4 answers lack."""
    parser = make_parser(
        "eval/run.py",
        "Ask one or more served models a suite's questions, and report how each did.\n"
        "Answers are kept in OUT/predictions.jsonl: the same command goes on where it stopped,\n"
        "and a later one with another label adds its answers to the report. Of two models or more\n"
        "the report says whether each is better than the first.",
        _EXAMPLES,
    )
    parser.add_argument(
        "--suite",
        required=True,
        type=Path,
        action="append",
        metavar="YAML",
        help="what to ask; may be given several times; a promptfoo configuration will do",
    )
    add_endpoint_flags(parser, several=True)
    parser.add_argument(
        "--label", default="tuned", help="what an endpoint without a label is called (tuned)"
    )
    parser.add_argument("--models", type=Path, metavar="YAML", help="a file of endpoints")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR")
    parser.add_argument(
        "--max-samples", type=whole, metavar="N", help="a quick look: N cases, some of every tag"
    )
    parser.add_argument("--seed", type=int, default=0, help="which cases --max-samples takes (0)")
    parser.add_argument(
        "--training",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="the training data: which cases stand in it, and the verdict without them",
    )
    parser.add_argument(
        "--sequential",
        action="store_true",
        help="ask 20 cases, 40, 80, ... and stop once it is decided whether the last model differs",
    )
    parser.add_argument(
        "--inspect-log", action="store_true", help="also write logs for inspect_ai, OUT/inspect"
    )
    parser.add_argument("--fresh", action="store_true", help="ask again what was answered before")
    add_sampling_flags(parser)
    add_asking_flags(parser)
    return run(parser, _body, argv)


def _body(args: argparse.Namespace, console: Console) -> Done:
    suites = [read_suite(path) for path in args.suite]
    endpoints = _endpoints(args)
    if not endpoints and not (args.out / PREDICTIONS_NAME).is_file():
        raise InputError(
            "no endpoint to test, and no answers in --out to score",
            remedy="--endpoint http://127.0.0.1:8000/v1",
        )
    settings = EvalRun(
        concurrency=args.concurrency,
        max_samples=args.max_samples,
        seed=args.seed,
        fresh=args.fresh,
        fingerprint=not args.no_fingerprint,
        sampling=sampling_of(args),
        policy=policy_of(args),
    )
    known = _leaks(suites, args.training)
    against = Against(known, options=Options(sequential=args.sequential))
    ask = _sequentially if args.sequential else _at_once
    try:
        report = ask(suites, endpoints, args.out, settings, against, console)
    except KeyboardInterrupt:
        console.note(f"\nthe answers so far are in {args.out / PREDICTIONS_NAME}")
        console.note("the same command goes on from there")
        raise
    print_report(report, args.out, console)
    if args.inspect_log:
        from palmswift.eval.reports.inspect_log import write_inspect_logs

        for path in write_inspect_logs(report, args.out / "inspect"):
            console.note(f"log for inspect_ai: {path}")
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if summary:
        with Path(summary).open("a", encoding="utf-8") as stream:
            stream.write((args.out / MARKDOWN_NAME).read_text(encoding="utf-8"))
    return Done(_document(report, args.out), EXIT_CODES[report.verdict])


def _leaks(suites: Sequence[Suite], files: Sequence[Path]) -> Contamination | None:
    if not files:
        return None
    from palmswift.eval.verdicts.contamination import find_leaks

    return find_leaks([case for part in parts_of(suites) for case in part.cases], files)


def _at_once(
    suites: Sequence[Suite],
    endpoints: Sequence[Endpoint],
    out: Path,
    settings: EvalRun,
    against: Against,
    console: Console,
) -> EvaluationReport:
    return evaluate(
        suites,
        endpoints,
        out,
        settings,
        against=against,
        report=progress_lines(console),
        note=console.note,
    )


def _sequentially(
    suites: Sequence[Suite],
    endpoints: Sequence[Endpoint],
    out: Path,
    settings: EvalRun,
    against: Against,
    console: Console,
) -> EvaluationReport:
    """Ask ever more cases of each suite, each time twice as many, until a difference is shown.

    The smaller selections are part of the larger ones, so that nothing is asked twice, and the
    evidence is of the kind that may be looked at at any time.
    """
    whole = max(len(suite.cases) for suite in suites)
    size = _FIRST_LOOK
    while True:
        look = settings.model_copy(update={"max_samples": min(size, settings.max_samples or size)})
        report = _at_once(suites, endpoints, out, look, against, console)
        words = [verdict.word for verdict in report.comparisons]
        if report.unanswered or size >= min(whole, settings.max_samples or whole):
            return report
        if not words:
            raise InputError(
                "--sequential needs two models to compare", remedy="--endpoint base=URL ..."
            )
        if all(word in ("helped", "hurt", "unsafe") for word in words):
            console.note(f"decided after {len(report.cases)} cases")
            return report
        size *= 2
        settings = settings.model_copy(update={"fresh": False})


def _endpoints(args: argparse.Namespace) -> list[Endpoint]:
    named = endpoints_of(args, args.endpoint, args.label)
    listed = load_endpoints(args.models) if args.models else []
    both = sorted({e.label for e in named} & {e.label for e in listed})
    if both:
        raise InputError(f"{', '.join(both)}: given by --endpoint and in {args.models}")
    return [*named, *listed]


def progress_lines(console: Console) -> Callable[[Progress], None]:
    """Prints a line at each tenth of the way."""
    told: dict[str, int] = {}

    def report(progress: Progress) -> None:
        tenth = progress.done * 10 // progress.total
        if tenth > told.get(progress.endpoint, 0):
            told[progress.endpoint] = tenth
            errors = f", {progress.errors} errors" if progress.errors else ""
            console.note(f"{progress.endpoint}: {progress.done} of {progress.total}{errors}")

    return report


def print_report(report: EvaluationReport, out: Path, console: Console) -> None:
    """Print the table, the gates, what is lacking, and where the files are."""
    import sys

    from rich.console import Console as RichConsole
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(report.suite), title_justify="left")
    table.add_column("cases")
    table.add_column("measure")
    for label in report.labels:
        table.add_column(escape(label), justify="right")
    several = len(report.labels) > 1
    if several:
        table.add_column("difference", justify="right")
    for group in groups(report):
        for index, row in enumerate(group.rows):
            name = f"{escape(group.tag or 'all')} ({group.cases})" if index == 0 else ""
            cells = [f"{cell.text} [dim]{cell.note}[/dim]" for cell in row.cells]
            table.add_row(name, row.metric, *cells, *([row.difference] if several else []))
        table.add_section()
    stream = sys.stderr if console.json_output else sys.stdout
    screen = RichConsole(file=stream, width=None if stream.isatty() else 100)
    screen.print(table)
    marks = {"passed": "passed", "failed": "FAILED", "not_checked": "not checked"}
    for gate in report.gates:
        asked, observed = bound_words(gate.gate), gate_words(gate)
        console.say(f"gate {marks[gate.state]}: {gate.endpoint}: {asked}: {observed}")
    for verdict in report.comparisons:
        show_verdict(verdict, language(), console)
    if report.unanswered:
        console.say(f"{report.unanswered} requests have no reply: run the same command again")
    if len(report.cases) < report.cases_in_suite:
        console.say(f"a quick look at {len(report.cases)} of {report.cases_in_suite} cases")
    console.say(f"report: {out / HTML_NAME}")


def _document(report: EvaluationReport, out: Path) -> dict[str, Any]:
    """The report without its cases, and where its files are."""
    files = {
        "json": out / JSON_NAME,
        "csv": out / CSV_NAME,
        "html": out / HTML_NAME,
        "markdown": out / MARKDOWN_NAME,
        "junit": out / JUNIT_NAME,
        "predictions": out / PREDICTIONS_NAME,
    }
    return {
        **report.model_dump(mode="json", exclude={"cases"}),
        "cases": len(report.cases),
        "unanswered": report.unanswered,
        "files": {name: str(path) for name, path in files.items()},
    }


if __name__ == "__main__":
    raise SystemExit(main())
