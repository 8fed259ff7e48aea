"""The command that says how alike a model's answers to the same prompt are."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from palmswift.command import Console, Done, make_parser, run
from palmswift.errors import InputError
from palmswift.eval.asking.asking import Asker, find
from palmswift.eval.asking.endpoint import Endpoint
from palmswift.eval.asking.engine import Question
from palmswift.eval.asking.journal import read_journal
from palmswift.eval.asking.think import split_think
from palmswift.eval.flags import (
    add_endpoint_flags,
    add_sampling_flags,
    endpoints_of,
    policy_of,
    sampling_of,
    whole,
)
from palmswift.eval.measures.consistency import (
    Consistency,
    Drifted,
    Estimate,
    consistency,
    differing,
)
from palmswift.eval.suites.scoring import score
from palmswift.eval.suites.suite import Suite, load_suite
from palmswift.files import write_json

_EXAMPLES = """
python eval/consistency.py --suite S.yaml --predictions report/predictions.jsonl
python eval/consistency.py --suite S.yaml --endpoint URL         # greedy: 1 against 32 at once
python eval/consistency.py --suite S.yaml --endpoint URL --prompts 50 --concurrency 8
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Print; 0 done, 1 greedy answers differ under load, 2 no repeats, 3 no endpoint."""
    parser = make_parser(
        "eval/consistency.py",
        "How alike a model's answers to one prompt are. From the repeats of a run's predictions:\n"
        "agreement, likeness, pass@k and pass^k, flaky cases; sends nothing. With --endpoint: ask\n"
        "each prompt twice at temperature 0, one request at a time and many at once. Where\n"
        "they differ it is the server's doing (batched arithmetic): a limit of any evaluation.",
        _EXAMPLES,
    )
    parser.add_argument("--suite", required=True, type=Path, metavar="YAML")
    parser.add_argument("--predictions", type=Path, metavar="JSONL", help="of a run with repeats")
    add_endpoint_flags(parser, several=True)
    parser.add_argument("--prompts", type=whole, default=32, metavar="N", help="to ask twice (32)")
    parser.add_argument("--concurrency", type=whole, default=32, metavar="N", help="at once (32)")
    parser.add_argument("--attempts", type=whole, default=4, metavar="N", help="of a request (4)")
    parser.add_argument("--out", type=Path, metavar="JSON", help="write all numbers there")
    add_sampling_flags(parser)
    return run(parser, _body, argv)


def _body(args: argparse.Namespace, console: Console) -> Done:
    suite = load_suite(args.suite)
    endpoints = endpoints_of(args, args.endpoint, "model")
    if (args.predictions is None) == (not endpoints):
        raise InputError("what to look at?", remedy="either --predictions FILE or --endpoint URL")
    if args.predictions is not None:
        return _repeats(args, suite, console)
    document: dict[str, Any] = {"endpoints": []}
    differs = False
    for endpoint in endpoints:
        asked, found = _greedy(args, suite, endpoint, console)
        differs |= bool(found)
        console.say(
            f"{endpoint.label}: {len(found)} of {asked} greedy answers differ between 1 and "
            f"{args.concurrency} requests at once"
        )
        for one in found[:5]:
            console.say(f"  {one.case}: they part after {one.same} characters")
        rows = [one.model_dump() for one in found]
        document["endpoints"].append({"label": endpoint.label, "prompts": asked, "differ": rows})
    if args.out is not None:
        write_json(args.out, document)
    return Done(document, 1 if differs else 0)


def _repeats(args: argparse.Namespace, suite: Suite, console: Console) -> Done:
    if not args.predictions.is_file():
        raise InputError(f"{args.predictions}: no such file")
    rows = list(read_journal(args.predictions))
    labels = list(dict.fromkeys(row.endpoint for row in rows))
    scored = score(suite.cases, [], rows, labels, folder=suite.folder)
    found = [one for label in labels if (one := consistency(scored, label)) is not None]
    if not found:
        raise InputError(
            f"{args.predictions}: no case was answered twice",
            remedy="give cases `repeats: 5` and a temperature: `request: {temperature: 0.7}`",
        )
    for one in found:
        _print(one, console)
    document = {"endpoints": [one.model_dump() for one in found]}
    if args.out is not None:
        write_json(args.out, document)
    return Done(document)


def _print(found: Consistency, console: Console) -> None:
    console.say(f"{found.endpoint}: {found.agreement.n} prompts")
    lines = [
        ("agreement", found.agreement),
        ("likeness", found.similarity),
        ("majority", found.majority_share),
        *((f"pass@{k}", estimate) for k, estimate in found.pass_at.items()),
        *((f"pass^{k}", estimate) for k, estimate in found.pass_all.items() if k > 1),
    ]
    for name, estimate in lines:
        console.say(f"  {name:<10} {_shown(estimate)}")
    if found.flaky:
        more = f" and {len(found.flaky) - 10} more" if len(found.flaky) > 10 else ""
        console.say(f"  flaky: {', '.join(found.flaky[:10])}{more}")


def _shown(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.1%}"
    return f"{estimate.value:.1%} [{estimate.low:.1%}, {estimate.high:.1%}]"


def _greedy(
    args: argparse.Namespace, suite: Suite, endpoint: Endpoint, console: Console
) -> tuple[int, list[Drifted]]:
    """How many prompts were answered both times, and those answered in two ways."""
    import tempfile

    cases = [case for case in suite.cases if case.after is None][: args.prompts]
    sampling = sampling_of(args).model_copy(update={"temperature": 0.0})
    found = find(endpoint, policy_of(args), fingerprint=False)
    answers: list[dict[str, str]] = []
    with tempfile.TemporaryDirectory() as folder:
        for repeat, concurrency in enumerate((1, args.concurrency)):
            # A journal of its own each: the same request would not be asked again.
            path = Path(folder) / f"{repeat}.jsonl"
            questions = [Question(case.id, 0, case.conversation()) for case in cases]
            with Asker(path, sampling, policy_of(args), concurrency, note=console.note) as asker:
                asker.ask(asker.admit(found), questions)
            replies = [row for row in read_journal(path) if row.error is None]
            answers.append(
                {r.case: split_think(r.content, r.reasoning).answer or "" for r in replies}
            )
    return len(answers[0].keys() & answers[1].keys()), differing(*answers)


if __name__ == "__main__":
    raise SystemExit(main())
