"""The command that says whether one model's answers are better than another's."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from palmswift.command import Console, Done, make_parser, run
from palmswift.errors import InputError

if TYPE_CHECKING:
    from palmswift.eval.reports.report import EvaluationReport
    from palmswift.eval.suites.scoring import ScoredAnswer
    from palmswift.eval.suites.several import Part
    from palmswift.eval.suites.suite import Suite
    from palmswift.eval.verdicts.verdict import ShipVerdict
    from palmswift.eval.verdicts.verdict_words import Language

_EXAMPLES = """
python eval/compare.py base.jsonl tuned.jsonl --suite eval/suites/clinic.yaml
python eval/compare.py runs/latest --training data/train.jsonl       # both models of one run
python eval/compare.py old/evaluation_report.json new/evaluation_report.json --lang zh
python eval/compare.py lm_base/samples_gsm8k_*.jsonl lm_tuned/samples_gsm8k_*.jsonl
python eval/compare.py base.jsonl tuned.jsonl --suite S.yaml --require helped --out report
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Compare; 0 helped or no difference shown, 1 hurt or unsafe, 4 answers lack."""
    parser = make_parser(
        "eval/compare.py",
        "Say whether the second model's answers are better than the first's to the same cases:\n"
        "HELPED, NO DIFFERENCE SHOWN, HURT or UNSAFE, with the numbers. Reads predictions.jsonl\n"
        "(with --suite), evaluation_report.json, a run, lm-eval samples, EvalScope reviews.",
        _EXAMPLES,
    )
    parser.add_argument("base", type=Path, metavar="BASE", help="or one file that has both models")
    parser.add_argument("tuned", type=Path, nargs="?", metavar="TUNED")
    parser.add_argument(
        "--suite", type=Path, action="append", default=[], metavar="YAML", help="what was asked"
    )
    parser.add_argument(
        "--labels", nargs=2, metavar=("BASE", "TUNED"), help="which endpoints of the files"
    )
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
        help="p-values that hold when one looks again and again while answers come in",
    )
    parser.add_argument(
        "--require",
        choices=("not_hurt", "helped"),
        default="not_hurt",
        help="what exit code 0 needs (not_hurt)",
    )
    parser.add_argument("--lang", choices=("en", "zh"), default=language(), help="of the screen")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write the report there")
    return run(parser, _body, argv)


def language() -> Language:
    """The language of the terminal, as its environment says."""
    spoken = os.environ.get("LC_ALL") or os.environ.get("LANG") or ""
    return "zh" if spoken.startswith("zh") else "en"


def _body(args: argparse.Namespace, console: Console) -> Done:
    from palmswift.eval.verdicts.verdict_words import headline

    report = compared(
        args.base,
        args.tuned,
        suites=args.suite,
        labels=tuple(args.labels) if args.labels else None,
        training=args.training,
        sequential=args.sequential,
        note=console,
    )
    for verdict in report.comparisons:
        show_verdict(verdict, args.lang, console)
    if args.out is not None:
        from palmswift.eval.reports.report import HTML_NAME
        from palmswift.eval.reports.report_files import write_report

        write_report(report, args.out)
        console.say(f"report: {args.out / HTML_NAME}")
    if report.unanswered:
        console.note(f"{report.unanswered} requests have no reply and are left out")
    document: dict[str, Any] = {
        "verdict": report.comparisons[0].word,
        "headline": headline(report.comparisons[0]).en,
        "comparisons": [v.model_dump(mode="json") for v in report.comparisons],
        "contamination": report.contamination and report.contamination.model_dump(mode="json"),
        "unanswered": report.unanswered,
    }
    return Done(document, exit_code(report, args.require))


def exit_code(report: EvaluationReport, require: str = "not_hurt") -> int:
    """1: a model is worse, or not shown to be better where that is asked; 4: answers lack."""
    words = [verdict.word for verdict in report.comparisons]
    if any(word in ("hurt", "unsafe") for word in words):
        return 1
    if report.unanswered:
        return 4
    return 1 if require == "helped" and any(word != "helped" for word in words) else 0


class _Side(NamedTuple):
    """What one argument holds."""

    parts: list[Part]
    answers: dict[str, list[ScoredAnswer]]
    """By endpoint label."""


def compared(
    base: Path,
    tuned: Path | None,
    *,
    suites: Sequence[Path] = (),
    labels: tuple[str, str] | None = None,
    training: Sequence[Path] = (),
    sequential: bool = False,
    note: Console | None = None,
) -> EvaluationReport:
    """The report on two models' answers from their files, each under its label.

    InputError: a file cannot be read, does not have the model, or no case is in both.
    """
    from palmswift.eval.reports.report import Against, EndpointInfo, report_of
    from palmswift.eval.suites.interop import read_suite
    from palmswift.eval.verdicts.comparison import Options

    asked = [read_suite(path) for path in suites]
    first = _side(base, "base", asked, note)
    second = _side(tuned, "tuned", asked, note) if tuned is not None else first
    names = labels or _labels(first, second, base, tuned)
    for side, name, path in ((first, names[0], base), (second, names[1], tuned or base)):
        if name not in side.answers:
            raise InputError(
                f"{path}: no answers of {name!r}",
                remedy=f"--labels: there are {', '.join(side.answers)}",
            )
    shown = names if names[0] != names[1] else ("base", "tuned")
    scored = [
        answer.model_copy(update={"endpoint": label})
        for side, name, label in ((first, names[0], shown[0]), (second, names[1], shown[1]))
        for answer in side.answers[name]
    ]
    parts = _joined_parts(first.parts, second.parts)
    found = None
    if training:
        from palmswift.eval.verdicts.contamination import find_leaks

        found = find_leaks([case for part in parts for case in part.cases], training)
    infos = [
        EndpointInfo(label=label, base_urls=[], requests=[], first_at=None, last_at=None)
        for label in shown
    ]
    against = Against(found, options=Options(sequential=sequential))
    report = report_of(parts, scored, infos, against)
    if report.comparisons[0].word == "nothing":
        raise InputError(
            "no case has a graded answer from both models",
            remedy="are the files of the same suite?",
        )
    return report


def _labels(first: _Side, second: _Side, base: Path, tuned: Path | None) -> tuple[str, str]:
    """Which of the files' endpoints are meant: `base` and the one that is not, where both are."""
    if tuned is None:
        others = [label for label in first.answers if label != "base"]
        if "base" in first.answers and len(others) == 1:
            return "base", others[0]
        raise InputError(
            f"{base}: not plain which two of its endpoints to compare",
            remedy=f"--labels BASE TUNED, or a second file; there are {', '.join(first.answers)}",
        )
    chosen = []
    for side, wanted, path in ((first, "base", base), (second, "tuned", tuned)):
        if len(side.answers) > 1 and wanted not in side.answers:
            raise InputError(
                f"{path}: it has several endpoints",
                remedy=f"--labels BASE TUNED; there are {', '.join(side.answers)}",
            )
        chosen.append(wanted if wanted in side.answers else next(iter(side.answers)))
    return chosen[0], chosen[1]


def _side(path: Path, label: str, suites: Sequence[Suite], note: Console | None) -> _Side:
    from palmswift.eval.reports.foreign import as_predictions, kind_of, read_graded
    from palmswift.eval.suites.several import Part, parts_of

    path = _file(path)
    if path.suffix == ".json":
        return _of_report(path)
    kind = kind_of(path)
    if kind in ("lm_eval", "evalscope_review"):
        graded = read_graded(path, label)
        for line in graded.notes if note is not None else []:
            assert note is not None
            note.note(f"{path}: left out: {line}")
        return _Side([Part(graded.suite, graded.suite.cases)], {label: graded.answers})
    if not suites:
        raise InputError(f"{path}: answers are graded by their suite", remedy="--suite S.yaml")
    from palmswift.eval.asking.journal import read_journal
    from palmswift.eval.suites.scoring import score

    own = kind == "journal"
    rows = list(read_journal(path)) if own else as_predictions(path, label, suites)
    labels = list(dict.fromkeys(row.endpoint for row in rows))
    parts = parts_of(suites)
    answered = {row.case for row in rows}
    parts = [Part(part.suite, [c for c in part.cases if c.id in answered]) for part in parts]
    scored = [
        a
        for part in parts
        for a in score(part.cases, part.suite.metrics, rows, labels, folder=part.suite.folder)
    ]
    by_label = {name: [a for a in scored if a.endpoint == name] for name in labels}
    return _Side([part for part in parts if part.cases], by_label)


def _file(path: Path) -> Path:
    """The file that is meant by a path: a report for a folder of one, or for a run."""
    from palmswift.eval.reports.report import JSON_NAME

    if path.is_dir():
        for inside in (path / JSON_NAME, path / "eval" / JSON_NAME):
            if inside.is_file():
                return inside
        raise InputError(f"{path}: no {JSON_NAME} in it", remedy="give a tested run, or a file")
    if path.is_file():
        return path
    from palmswift.launchers.run_folder import find_run

    if path.suffix or (len(path.parts) > 1 and path.parent.name != "runs"):
        raise InputError(f"{path}: no such file")
    report = find_run(path.name).evaluation / JSON_NAME
    if not report.is_file():
        raise InputError(f"{path}: the run has not been tested", remedy="launchers/pipeline.py")
    return report


def _of_report(path: Path) -> _Side:
    """A report's answers, and its suites without what they demand: the answers are graded."""
    from palmswift.eval.asking.conversation import Case
    from palmswift.eval.reports.report import read_report
    from palmswift.eval.suites.several import Part
    from palmswift.eval.suites.suite import Suite

    report = read_report(path)
    if not report.cases:
        raise InputError(f"{path}: the report has no cases")
    cases: dict[str, list[Case]] = {}
    for result in report.cases:
        case = Case(
            id=result.id,
            messages=result.messages,
            reference=result.reference,
            tags=result.tags,
            repeats=max((answer.repeat + 1 for answer in result.answers), default=1),
        )
        cases.setdefault(result.suite or report.suite, []).append(case)
    known = {suite.name: suite for suite in report.suites}
    parts = [
        Part(
            Suite(
                name=name,
                role=known[name].role if name in known else "task",
                margin=known[name].margin if name in known else None,
                primary=known[name].primary if name in known else None,
                cases=listed,
            ),
            listed,
        )
        for name, listed in cases.items()
    ]
    answers: dict[str, list[ScoredAnswer]] = {label: [] for label in report.labels}
    for result in report.cases:
        for answer in result.answers:
            answers[answer.endpoint].append(answer.model_copy(update={"tags": result.tags}))
    return _Side(parts, answers)


def _joined_parts(first: Sequence[Part], second: Sequence[Part]) -> list[Part]:
    """The suites of both sides, each with the cases of either."""
    from palmswift.eval.suites.several import Part

    joined: dict[str, Part] = {}
    # Two files of one task may bear two names; what is compared is the case.
    single = len(first) == 1 and len(second) == 1
    for part in (*first, *second):
        name = first[0].suite.name if single else part.suite.name
        before = joined.get(name)
        known = {case.id for case in before.cases} if before else set()
        cases = [*(before.cases if before else []), *(c for c in part.cases if c.id not in known)]
        joined[name] = Part(before.suite if before else part.suite, cases)
    return list(joined.values())


def show_verdict(verdict: ShipVerdict, language: Language, console: Console) -> None:
    """Print the verdict on one screen: the word, a table, and what it rests on."""
    import sys

    from rich.console import Console as RichConsole
    from rich.table import Table
    from rich.text import Text

    from palmswift.eval.verdicts.verdict_words import (
        amount_words,
        headline,
        interval_words,
        measure_words,
        p_words,
        sentences,
        value_words,
        word_of,
    )

    zh = language == "zh"
    colours = {"helped": "bold green", "hurt": "bold red", "unsafe": "bold red"}
    stream = sys.stderr if console.json_output else sys.stdout
    screen = RichConsole(file=stream, width=None if stream.isatty() else 110)
    screen.print(Text(headline(verdict).of(language), colours.get(verdict.word, "bold yellow")))
    table = Table(box=None, pad_edge=False, header_style="dim")
    names = (
        (
            "测试集",
            "指标",
            "用例",
            verdict.base_label,
            verdict.tuned_label,
            "差异",
            "95% 区间",
            "p",
            "",
        )
        if zh
        else (
            "suite",
            "measure",
            "n",
            verdict.base_label,
            verdict.tuned_label,
            "difference",
            "95 % interval",
            "p",
            "",
        )
    )
    for index, name in enumerate(names):
        table.add_column(Text(name), justify="left" if index in (0, 1, 8) else "right")
    for c in verdict.comparisons:
        change = "–" if c.difference is None else amount_words(c.measure, c.difference).of(language)
        cells = (
            c.suite if c.tag is None else f"  {c.tag}",
            measure_words(c.measure).of(language),
            str(c.cases),
            value_words(c.measure, c.base),
            value_words(c.measure, c.tuned),
            change,
            interval_words(c),
            p_words(c.adjusted_p if c.adjusted_p is not None else c.p),
            word_of(c.word).of(language),
        )
        style = "" if c.tag is None else "dim"
        table.add_row(*(Text(cell, style) for cell in cells))
    screen.print(table)
    for sentence in sentences(verdict):
        screen.print(Text(f"- {sentence.of(language)}"), soft_wrap=True)


if __name__ == "__main__":
    raise SystemExit(main())
