"""Times the metrics: ROUGE-L against rouge-score, and ten thousand rows of all cheap metrics.

python benchmarks/eval_metrics/bench.py --out benchmarks/records/eval-metrics-DATE.json
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import Tokenizer

from palmswift.eval.measures.overlap import rouge
from palmswift.eval.measures.tokens import characters, lcs_length

ROOT = Path(__file__).resolve().parents[2]
METRICS = ("exact_match", "bleu", "chrf", "rouge", "similarity", "diversity")
_LENGTHS = (60, 240)
_ROUNDS = 5


class _Characters(Tokenizer):  # type: ignore[misc]  # rouge-score has no types
    """Gives rouge-score the tokens that ours counts; its own gives Chinese none."""

    def tokenize(self, text: str) -> list[str]:
        return characters(text)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args(argv)
    texts = sample_texts()
    record: dict[str, Any] = {
        "benchmark": "eval-metrics",
        "date": datetime.date.today().isoformat(),
        "command": "python benchmarks/eval_metrics/bench.py",
        "machine": {
            "cores": os.cpu_count(),
            "load_1min": round(os.getloadavg()[0], 2),
            "system": platform.system(),
        },
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("rouge-score", "sacrebleu", "rjieba", "numpy")},
        },
        "rouge_l": [rouge_l(texts, length) for length in _LENGTHS],
        "rows": rows(texts, args.rows),
    }
    text = json.dumps(record, ensure_ascii=False, indent=2) + "\n"
    sys.stdout.write(text)
    if args.out is not None:
        args.out.write_text(text, encoding="utf-8")
    return 0


def sample_texts() -> list[str]:
    """The answers of the bundled clinic set."""
    path = ROOT / "data/samples/clinic/train.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["messages"][-1]["content"] for line in lines]


def pairs_of(texts: Sequence[str], length: int, count: int) -> list[tuple[str, str]]:
    """References of about `length` characters, and answers that share most of them."""
    draw = random.Random(length)
    pairs = []
    for number in range(count):
        reference = ""
        while len(reference) < length:
            reference += draw.choice(texts)
        cut = draw.randrange(length)
        other = draw.choice(texts)
        pairs.append(
            (reference[:cut] + other + reference[cut + len(other) :] + str(number), reference)
        )
    return pairs


def rouge_l(texts: Sequence[str], length: int) -> dict[str, Any]:
    """Median milliseconds a pair, of ours and of rouge-score on the same tokens, rounds in turn."""
    pairs = pairs_of(texts, length, 40)
    scorer = RougeScorer(["rougeL"], tokenizer=_Characters())
    tokens = [(characters(answer), characters(reference)) for answer, reference in pairs]
    ways: dict[str, Callable[[], list[float]]] = {
        "rouge_score": lambda: [
            100 * scorer.score(reference, answer)["rougeL"].fmeasure for answer, reference in pairs
        ],
        "palmswift_rouge_1_2_l": lambda: [
            rouge.__wrapped__(answer, reference, "characters").longest
            for answer, reference in pairs
        ],
        "palmswift_lcs": lambda: [float(lcs_length(a, b)) for a, b in tokens],
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    values: dict[str, list[float]] = {}
    for _ in range(_ROUNDS):
        for name, way in ways.items():
            started = time.perf_counter()
            values[name] = way()
            times[name].append((time.perf_counter() - started) / len(pairs) * 1000)
    ms = {name: statistics.median(of) for name, of in times.items()}
    worst = max(
        abs(a - b)
        for a, b in zip(values["rouge_score"], values["palmswift_rouge_1_2_l"], strict=True)
    )
    return {
        "characters": length,
        "milliseconds_a_pair": {name: round(value, 4) for name, value in ms.items()},
        "ratio_all_three_numbers": round(ms["rouge_score"] / ms["palmswift_rouge_1_2_l"], 1),
        "ratio_lcs": round(ms["rouge_score"] / ms["palmswift_lcs"], 1),
        "largest_difference": worst,
    }


def rows(texts: Sequence[str], count: int) -> dict[str, Any]:
    """Time of eval/score.py over `count` rows, from start to exit: on the wall, and of all its
    processes together."""
    pairs = pairs_of(texts, 60, count)
    with tempfile.TemporaryDirectory() as folder:
        answers, references = Path(folder) / "a.jsonl", Path(folder) / "r.jsonl"
        for path, key, place in ((answers, "answer", 0), (references, "reference", 1)):
            lines = (
                json.dumps({"id": n, key: pair[place]}, ensure_ascii=False)
                for n, pair in enumerate(pairs)
            )
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        words = [sys.executable, str(ROOT / "eval/score.py"), "--predictions", str(answers)]
        words += ["--references", str(references), "--metrics", *METRICS]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        started = time.perf_counter()
        subprocess.run(words, check=True, capture_output=True)
        seconds = time.perf_counter() - started
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "rows": count,
        "characters_a_text": round(statistics.fmean(len(of) for _, of in pairs)),
        "metrics": list(METRICS),
        "seconds": round(seconds, 2),
        "processor_seconds": round(processor, 2),
        "processor_milliseconds_a_row": round(processor / count * 1000, 3),
    }


if __name__ == "__main__":
    raise SystemExit(main())
