"""The data gate on thousands of generated files: every promise of it, checked on each.

python benchmarks/data/fuzz.py                    # 10,000 runs of the gate, 2,000 conversions
python benchmarks/data/fuzz.py --examples 1000 --seed 7 --out /tmp

The files are those of tests/support_fuzz.py: any format, encoding, shape, packing and damage,
under any rules. A token is a character, because what is checked is the gate: ms-swift's own
template is compared in tests/integration. A file that breaks a promise is made as small as it can
be and shown, and the exit code is 1. The record is benchmarks/records/data-fuzz-DATE.json.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

import support_fuzz as fuzz  # noqa: E402  # its folder is put on the path above
from support_data import CharacterJudge  # noqa: E402


class Property(NamedTuple):
    """A promise, and how much of the examples it gets."""

    claim: str
    share: float
    cases: st.SearchStrategy[Any]
    check: Callable[[Any], str | None]
    """What became of the case; AssertionError where the promise is broken."""
    files: Callable[[Any], int]
    """How many files a case has."""


def _round_trip(case: tuple[list[dict[str, Any]], Any]) -> None:
    fuzz.check_round_trip(*case)


PROPERTIES = [
    Property(
        "every row of every file is found once, in its order",
        *(0.6, fuzz.cases, fuzz.check_case, lambda case: len(case.files)),
    ),
    Property(
        "any bytes are accounted for, or refused", 0.2, fuzz.torn, fuzz.check_torn, lambda raw: 1
    ),
    Property(
        "what came through comes through again, byte for byte",
        *(0.2, fuzz.repeated, fuzz.check_again, lambda given: 1),
    ),
    Property(
        "every text survives every shape that it is converted to",
        *(0.2, st.tuples(st.lists(fuzz.dialogues, min_size=1, max_size=6),
                         st.sampled_from(fuzz.WAYS)), _round_trip, lambda case: 1),
    ),
]  # fmt: skip


class Part(NamedTuple):
    """One property in one process."""

    number: int
    examples: int
    seed: int


class Result(NamedTuple):
    """What came of it."""

    claim: str
    examples: int
    files: int
    outcomes: Counter[str]
    failure: str
    """The smallest case that breaks the promise, with the traceback; empty when none does."""


def run(part: Part) -> Result:
    """Check one property on as many examples."""
    tested = PROPERTIES[part.number]
    outcomes: Counter[str] = Counter()
    files = 0

    @seed(part.seed)
    @settings(
        max_examples=part.examples,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(tested.cases)
    def prove(case: Any) -> None:
        nonlocal files
        files += tested.files(case)
        outcomes[tested.check(case) or "done"] += 1

    failure = ""
    try:
        with patch("palmswift.data.gate.TemplateJudge", CharacterJudge):
            prove()
    except Exception:  # noqa: BLE001  # whatever a case raises is what was looked for
        failure = traceback.format_exc()
    return Result(tested.claim, outcomes.total(), files, outcomes, failure)


def parts_of(examples: int, jobs: int, first_seed: int) -> list[Part]:
    """Every property in as many pieces as there are processes, each with a seed of its own."""
    numbered = [(number, job) for number in range(len(PROPERTIES)) for job in range(jobs)]
    return [
        Part(number, max(1, round(PROPERTIES[number].share * examples / jobs)), first_seed + index)
        for index, (number, _) in enumerate(numbered)
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Check every property and write the record; 1 when a promise is broken."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--examples", type=int, default=10_000, help="runs of the gate")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "records")
    arguments = parser.parse_args(argv)
    begun = time.monotonic()
    totals: dict[str, Result] = {}
    with ProcessPoolExecutor(arguments.jobs) as pool:
        for result in pool.map(run, parts_of(arguments.examples, arguments.jobs, arguments.seed)):
            before = totals.get(result.claim)
            totals[result.claim] = _sum(before, result) if before else result
            print(f"{result.examples:>7,} {result.claim}", flush=True)
    failures = [result.failure for result in totals.values() if result.failure]
    sys.stderr.writelines(failures)
    print(_write_record(totals, arguments, time.monotonic() - begun))
    return 1 if failures else 0


def _sum(one: Result, other: Result) -> Result:
    return Result(
        one.claim,
        one.examples + other.examples,
        one.files + other.files,
        one.outcomes + other.outcomes,
        one.failure or other.failure,
    )


def _write_record(totals: dict[str, Result], arguments: argparse.Namespace, seconds: float) -> Path:
    today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    record = {
        "date": today,
        "command": f"python benchmarks/data/fuzz.py --examples {arguments.examples} "
        f"--seed {arguments.seed} --jobs {arguments.jobs}",
        "machine": {"cpus": os.cpu_count(), "architecture": platform.machine()},
        "versions": {
            "python": platform.python_version(),
            "hypothesis": version("hypothesis"),
        },
        "seconds": round(seconds, 1),
        "properties": [
            {
                "claim": result.claim,
                "examples": result.examples,
                "files": result.files,
                "outcomes": dict(sorted(result.outcomes.items())),
                "broken": bool(result.failure),
            }
            for result in totals.values()
        ],
    }
    path: Path = arguments.out / f"data-fuzz-{today}.json"
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return path


if __name__ == "__main__":
    raise SystemExit(main())
