"""The command that has answers rated by a language model, and says how far to believe it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from palmswift.command import Console, Done, make_parser, run
from palmswift.errors import InputError
from palmswift.eval.asking.asking import Asker, Found, find
from palmswift.eval.asking.journal import read_journal
from palmswift.eval.flags import (
    add_asking_flags,
    add_endpoint_flags,
    add_sampling_flags,
    endpoints_of,
    policy_of,
    sampling_of,
    whole,
)
from palmswift.eval.judging.answer_files import is_journal, read_candidates
from palmswift.eval.judging.judge import Candidate, Comparison, Judge
from palmswift.eval.judging.judge_probes import WORDS, diagnose
from palmswift.eval.judging.judge_report import JUDGE_NAME, JudgeReport, build
from palmswift.eval.judging.ratings import read_all
from palmswift.eval.judging.rubrics import chosen, load_rubrics
from palmswift.eval.suites.suite import load_suite
from palmswift.files import write_json

_JOURNAL = "judgements.jsonl"

_EXAMPLES = """
python eval/judge.py --predictions report/predictions.jsonl --suite S.yaml --endpoint URL
python eval/judge.py --predictions a.jsonl b.jsonl --compare --endpoint URL --model big --out judged
python eval/judge.py --predictions P.jsonl --endpoint URL --ratings anna.json ben.json
python eval/judge.py --predictions P.jsonl --endpoint URL --rubrics mine.yaml --rubric accuracy
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Judge and report; 0 done, 1 none of the judge's replies has a rating, 2 no answers, 3 the
    judge does not answer, 4 judgements lack."""
    parser = make_parser(
        "eval/judge.py",
        "Have answers rated from 1 to 5 by a language model. It is tried first with answers whose\n"
        "worth is known; its scores stand beside its agreement with people's ratings, and below a\n"
        "weighted kappa of 0.4 it cannot decide a gate. Nothing is sent to the models that were\n"
        "tested; judgements are kept in OUT and not asked for again.",
        _EXAMPLES,
    )
    parser.add_argument("--predictions", required=True, nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--suite", type=Path, metavar="YAML", help="gives references and cases")
    add_endpoint_flags(parser)
    parser.add_argument("--rubrics", type=Path, metavar="YAML", help="rubrics of your own")
    parser.add_argument("--rubric", action="append", metavar="NAME", help="this one only")
    parser.add_argument("--language", choices=("zh", "en"), help="in which the judge is spoken to")
    parser.add_argument(
        "--compare", action="store_true", help="also compare the endpoints' answers, in both orders"
    )
    parser.add_argument(
        "--ratings", nargs="+", type=Path, default=[], metavar="JSON", help="people's ratings"
    )
    parser.add_argument("--max-answers", type=whole, metavar="N", help="the first N of an endpoint")
    parser.add_argument("--no-probes", action="store_true", help="do not try the judge first")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: beside the predictions")
    add_sampling_flags(parser, max_tokens=512)
    add_asking_flags(parser)
    return run(parser, _body, argv)


def _body(args: argparse.Namespace, console: Console) -> Done:
    file = load_rubrics(args.rubrics)
    rubrics = chosen(file, args.rubric)
    language = args.language or file.language
    lacking = [rubric.name for rubric in rubrics if language not in rubric.about]
    if lacking:
        raise InputError(f"no {language} words in the rubrics {', '.join(lacking)}")
    suite = load_suite(args.suite) if args.suite is not None else None
    people = read_all(args.ratings) if args.ratings else None
    candidates = [c for path in args.predictions for c in read_candidates(path, suite)]
    candidates = _limited(candidates, args.max_answers)
    pairs = pairs_of(candidates) if args.compare else []
    if args.compare and not pairs:
        raise InputError("nothing to compare: no case was answered by two endpoints")
    out = args.out or args.predictions[0].parent
    [endpoint] = endpoints_of(args, [args.endpoint], "judge")
    found = find(endpoint, policy_of(args))
    warnings = _same_model(found, args.predictions)
    for warning in warnings:
        console.note(f"warning: {warning}")
    journal = out / _JOURNAL
    with Asker(
        journal, sampling_of(args), policy_of(args), args.concurrency, note=console.note
    ) as asker:
        judge = Judge(asker, asker.admit(found), language)
        diagnostics = [] if args.no_probes else diagnose(judge, rubrics, pairwise=bool(pairs))
        judgements = judge.rate(candidates, rubrics)
        comparisons: list[Comparison] = judge.compare(pairs, rubrics) if pairs else []
    name = f"{found.model} at {endpoint.base_url}"
    report = build(name, language, judgements, comparisons, diagnostics, people, warnings)
    write_json(out / JUDGE_NAME, report.model_dump(mode="json"))
    _print(report, console)
    console.say(f"judgements: {out / JUDGE_NAME}")
    errors = sum(score.errors for score in report.scores)
    unread = bool(report.scores) and not any(score.n for score in report.scores)
    document = report.model_dump(mode="json", exclude={"judgements", "comparisons"})
    return Done({**document, "file": str(out / JUDGE_NAME)}, 4 if errors else int(unread))


def _limited(candidates: Sequence[Candidate], most: int | None) -> list[Candidate]:
    kept: list[Candidate] = []
    counts: dict[str, int] = {}
    for candidate in candidates:
        counts[candidate.endpoint] = counts.get(candidate.endpoint, 0) + 1
        if most is None or counts[candidate.endpoint] <= most:
            kept.append(candidate)
    return kept


def pairs_of(candidates: Sequence[Candidate]) -> list[tuple[Candidate, Candidate]]:
    """Every two endpoints' answers to the same case and repeat."""
    places: dict[tuple[str, int], list[Candidate]] = {}
    for candidate in candidates:
        places.setdefault((candidate.case, candidate.repeat), []).append(candidate)
    return [pair for group in places.values() for pair in combinations(group, 2)]


def _same_model(judge: Found, paths: Sequence[Path]) -> list[str]:
    """Warnings where the judge would rate itself."""
    told: dict[str, None] = {}
    rows = (row for path in paths if is_journal(path) for row in read_journal(path))
    for row in rows:
        asked = (row.base_url, row.request.get("model"))
        if asked == (judge.endpoint.base_url, judge.model):
            told[f"the judge is the model under test ({row.endpoint}): it favours itself"] = None
        elif row.request.get("model") == judge.model:
            told[
                f"the judge bears the name of the model under test ({row.endpoint}): "
                "a model favours its own answers"
            ] = None
    return list(told)


def _print(report: JudgeReport, console: Console) -> None:
    believed = {rubric.rubric: rubric for rubric in report.rubrics}
    for score in report.scores:
        mean = "no rating" if score.mean is None else f"{score.mean:.2f} of 5"
        lacks = f", {score.unparsable} unreadable" if score.unparsable else ""
        lacks += f", {score.errors} without a reply" if score.errors else ""
        kappa = believed[score.rubric].with_people
        agrees = f"agreement with people {kappa}" if kappa else "not compared with people"
        console.say(f"{score.endpoint} {score.rubric}: {mean} ({score.n}{lacks}); {agrees}")
    for pair in report.pairs:
        flips = "-" if pair.flip_rate is None else f"{pair.flip_rate:.0%}"
        console.say(
            f"{pair.rubric}: {pair.first} won {pair.first_wins}, {pair.second} {pair.second_wins}, "
            f"{pair.ties} ties of {pair.n}; the order decided in {flips}"
        )
    for diagnostic in report.diagnostics:
        if diagnostic.found:
            said = WORDS[diagnostic.fault]
            console.say(f"judge NOT to be relied on: {said} ({diagnostic.detail})")
    for rubric in report.rubrics:
        can = "can gate" if rubric.can_gate else "CANNOT gate"
        people: Any = f"; raters among themselves {rubric.among_people}"
        console.say(f"{rubric.rubric} {can}: {rubric.why}{people if rubric.among_people else ''}")


if __name__ == "__main__":
    raise SystemExit(main())
