"""The command that scores a file of answers against a file of references."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, get_args

from palmswift.command import Console, Done, make_parser, run
from palmswift.errors import InputError
from palmswift.eval.flags import add_asking_flags, extra_of, policy_of, positive, whole
from palmswift.eval.judging.answer_files import ANSWER_KEYS
from palmswift.eval.measures.metrics import (
    CORPUS,
    DIVERSITY,
    NAMES,
    PER_ANSWER,
    TextMetric,
    answer_scores,
    metric_of,
)
from palmswift.eval.score_files import REFERENCE_KEYS, Pair, joined, read_entries
from palmswift.eval.suites.suite import DEFAULT_METRICS
from palmswift.eval.suites.summary import Measurement
from palmswift.files import write_json, write_jsonl

_MANY = 1000
"""Pairs from which on it pays to start processes."""

_EXAMPLES = """
python eval/score.py --predictions answers.jsonl --references refs.jsonl
python eval/score.py --predictions answers.jsonl --references refs.csv --metrics bleu rouge
python eval/score.py --predictions answers.jsonl --references suite.yaml --metrics chrf diversity
palmswift score --predictions a.jsonl --references r.jsonl --metrics bertscore --bertscore-model DIR
python eval/score.py --predictions a.jsonl --references r.jsonl --metrics perplexity --endpoint URL
python eval/score.py --predictions a.jsonl --references r.jsonl --out scores.json --rows rows.jsonl
"""


class Scores(NamedTuple):
    """What was measured of all pairs, and of each."""

    together: dict[str, Measurement]
    rows: list[dict[str, float]]


def main(argv: Sequence[str] | None = None) -> int:
    """Score and print; 0 done, 2 the files do not fit together, 3 a model does not answer, or not
    with what was asked of it."""
    parser = make_parser(
        "eval/score.py",
        "Score answers against references. Rows are joined by `id` when all of both files have\n"
        "one, else by their order; a suite's references are joined by its cases' ids. Nothing is\n"
        "sent anywhere, but for perplexity with --endpoint: there the references are, not the\n"
        "answers.",
        _EXAMPLES,
    )
    parser.add_argument("--predictions", required=True, type=Path, metavar="FILE")
    parser.add_argument("--references", required=True, type=Path, metavar="FILE|SUITE")
    parser.add_argument(
        "--metrics", nargs="+", choices=get_args(TextMetric), default=list(DEFAULT_METRICS)
    )
    parser.add_argument("--bertscore-model", type=Path, metavar="DIR", help="a BERT on this disk")
    parser.add_argument("--bertscore-layer", type=whole, metavar="N", help="where it is not known")
    parser.add_argument("--perplexity-model", type=Path, metavar="DIR", help="a model on this disk")
    parser.add_argument("--endpoint", metavar="URL", help="a server that takes the perplexity")
    parser.add_argument("--model", help="the model name to send; default: the server's first")
    parser.add_argument("--api-key-env", metavar="NAME", help="the variable that holds the key")
    parser.add_argument("--extra", metavar="JSON", help="further request fields")
    parser.add_argument("--timeout", type=positive, default=600.0, metavar="SECONDS")
    add_asking_flags(parser)
    parser.add_argument("--out", type=Path, metavar="JSON", help="write the scores there too")
    parser.add_argument("--rows", type=Path, metavar="JSONL", help="write each row's scores there")
    return run(parser, _body, argv)


def _body(args: argparse.Namespace, console: Console) -> Done:
    metrics: list[TextMetric] = list(dict.fromkeys(args.metrics))
    _check_flags(args, metrics)
    predictions = read_entries(args.predictions, ANSWER_KEYS, think=True)
    references = read_entries(args.references, REFERENCE_KEYS, think=False)
    pairs = joined(predictions, references, args.predictions, args.references)
    scores = measure(pairs, metrics)
    if "bertscore" in metrics:
        scores = _with_bertscore(scores, pairs, args)
    if "perplexity" in metrics:
        scores = _with_perplexity(scores, pairs, args, console)
    document = {
        "pairs": len(pairs),
        "metrics": {n: m.model_dump(exclude_none=True) for n, m in scores.together.items()},
    }
    if args.out is not None:
        write_json(args.out, document)
    if args.rows is not None:
        rows = zip(pairs, scores.rows, strict=True)
        write_jsonl(args.rows, ({"id": pair.id, **row} for pair, row in rows))
    for name, measurement in scores.together.items():
        console.say(_line(name, measurement))
    untold = "perplexity" in metrics and "perplexity" not in scores.together
    return Done(document, 3 if untold else 0)


def _check_flags(args: argparse.Namespace, metrics: Sequence[TextMetric]) -> None:
    if "bertscore" in metrics and args.bertscore_model is None:
        raise InputError(
            "BERTScore needs a model on this disk",
            remedy="--bertscore-model DIR, such as a downloaded bert-base-chinese",
        )
    if "perplexity" in metrics and (args.endpoint is None) == (args.perplexity_model is None):
        raise InputError(
            "perplexity needs the model whose it is",
            remedy="either --endpoint URL or --perplexity-model DIR",
        )


def measure(pairs: Sequence[Pair], metrics: Sequence[TextMetric]) -> Scores:
    """The cheap metrics over pairs; of many pairs each metric in a process of its own."""
    if len(pairs) < _MANY or len(metrics) < 2:
        parts = [_measure_one(pairs, metric) for metric in metrics]
    else:
        from concurrent.futures import ProcessPoolExecutor

        slowest_first = sorted(metrics, key=lambda metric: metric not in ("bleu", "diversity"))
        with ProcessPoolExecutor(min(os.cpu_count() or 1, len(metrics))) as pool:
            futures = {m: pool.submit(_measure_one, pairs, m) for m in slowest_first}
            parts = [futures[metric].result() for metric in metrics]
    together = {name: number for part in parts for name, number in part.together.items()}
    rows: list[dict[str, float]] = [{} for _ in pairs]
    for part in parts:
        for row, more in zip(rows, part.rows, strict=True):
            row.update(more)
    return Scores(together, rows)


def _measure_one(pairs: Sequence[Pair], metric: TextMetric) -> Scores:
    answers = [pair.answer for pair in pairs]
    references = [pair.references for pair in pairs]
    rows = [answer_scores(pair.answer, pair.references, [metric]) for pair in pairs]
    together: dict[str, Measurement] = {}
    for name in NAMES[metric]:
        if name in CORPUS:
            score = CORPUS[name](answers, references)
            together[name] = Measurement(value=score.value, n=len(pairs), signature=score.signature)
        elif name in DIVERSITY:
            together[name] = Measurement(value=DIVERSITY[name](answers), n=len(pairs))
        elif name in PER_ANSWER:
            together[name] = _mean(name, [row[name] for row in rows])
    return Scores(together, rows)


def _mean(name: str, values: Sequence[float]) -> Measurement:
    count = sum(value == 1.0 for value in values) if name == "exact_match" else None
    return Measurement(value=math.fsum(values) / len(values), n=len(values), count=count)


def _with_bertscore(scores: Scores, pairs: Sequence[Pair], args: argparse.Namespace) -> Scores:
    from palmswift.eval.measures.bertscore import bertscore

    found = bertscore(
        [(pair.answer, pair.references) for pair in pairs],
        args.bertscore_model,
        args.bertscore_layer,
    )
    values = [100 * score.f1 for score in found.scores]
    mean = _mean("bertscore", values).model_copy(update={"signature": found.signature})
    rows = [{**row, "bertscore": v} for row, v in zip(scores.rows, values, strict=True)]
    return Scores({**scores.together, "bertscore": mean}, rows)


def _with_perplexity(
    scores: Scores, pairs: Sequence[Pair], args: argparse.Namespace, console: Console
) -> Scores:
    """Perplexity of the references; of several, of the first."""
    import tempfile

    from palmswift.eval.asking.endpoint import Endpoint
    from palmswift.eval.measures.perplexity import Passage, from_model, through_endpoint

    lacking = [pair.place for pair in pairs if not pair.prompt]
    if lacking:
        raise InputError(
            f"{lacking[0]} (and {len(lacking) - 1} more): no question that the reference answers",
            remedy="perplexity needs `messages`, or a `question` beside the reference",
        )
    passages = [Passage(str(n), pair.prompt, pair.references[0]) for n, pair in enumerate(pairs)]
    if args.perplexity_model is not None:
        losses = from_model(args.perplexity_model, passages)
    else:
        endpoint = Endpoint(
            label="model",
            base_url=args.endpoint,
            model=args.model,
            api_key_env=args.api_key_env,
            extra=extra_of(args),
        )
        with tempfile.TemporaryDirectory() as folder:
            losses = through_endpoint(
                endpoint,
                passages,
                Path(folder) / "losses.jsonl",
                policy_of(args),
                concurrency=args.concurrency,
                note=console.note,
            )
    total = losses.total
    if total is None:
        why = losses.reason or next(iter(losses.failed.values()), "there is no text")
        console.say(f"perplexity   unsupported ({why})")
        return scores
    numbers = {
        "perplexity": total.perplexity,
        "nats_per_token": total.nats_per_token,
        "bits_per_byte": total.bits_per_byte,
    }
    signature = f"{losses.way}|tokens:{total.tokens}|bytes:{total.bytes}"
    n = len(losses.losses)
    together = {
        name: Measurement(value=value, n=n, signature=signature) for name, value in numbers.items()
    }
    rows = list(scores.rows)
    for loss in losses.losses:
        own = {name: getattr(loss, name) for name in numbers}
        rows[int(loss.id)] = {**rows[int(loss.id)], **own}
    if losses.failed:
        console.note(f"{len(losses.failed)} references have no loss: {losses.failed}"[:300])
    return Scores({**scores.together, **together}, rows)


def _line(name: str, measured: Measurement) -> str:
    """A number as it is read."""
    if measured.value is None:
        return f"{name:<14} {'–':>9}  (too little text)"
    scale = metric_of(name).scale
    shown = f"{measured.value:.1%}" if scale == "share" else f"{measured.value:.2f}"
    if scale in ("nats", "bits"):
        shown = f"{measured.value:.4f}"
    of = (
        f"{measured.count} of {measured.n}" if measured.count is not None else f"{measured.n} pairs"
    )
    return f"{name:<14} {shown:>9}  ({of}{f', {measured.signature}' if measured.signature else ''})"


if __name__ == "__main__":
    raise SystemExit(main())
