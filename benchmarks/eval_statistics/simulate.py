"""How often the verdict is wrong, how often its interval has the truth in it, how much it sees.

python benchmarks/eval_statistics/simulate.py

Pairs of models are drawn from known distributions, 2,000 of each kind: equal ones (A/A), of which a
difference must be shown in at most 5 %, and different ones (A/B), whose true difference must lie in
95 % of the intervals and be shown as often as the theory of the test says. Single passes, passes
repeated three times (cases differ in difficulty, so repeats are alike), scores, scores that are
zero for most cases and never negative, and tiny and equal samples. Then looking after every case
(sequential) and several suites at once (Holm). Nothing is timed, and every number comes from a
seed. The record is benchmarks/records/eval-statistics-DATE.json.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import platform
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from palmswift.eval.verdicts.intervals import paired_interval
from palmswift.eval.verdicts.power import mcnemar_power, mean_power
from palmswift.eval.verdicts.sequential import evidence
from palmswift.eval.verdicts.significance import Paired, holm, paired_p

ROOT = Path(__file__).resolve().parents[2]
ALPHA = 0.05
LEAST_COVER, MOST_WRONG, POWER_OFF = 0.935, 0.06, 0.03
"""What the run fails below, above and beyond."""

Floats = npt.NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], Floats]


class Scenario(NamedTuple):
    """One kind of pair of models."""

    name: str
    n: int
    draw: Draw
    """The per-case differences of n cases."""
    truth: float
    """Their expected mean."""
    binary: bool
    power: float | None
    """What the theory says; None: A/A, or no theory."""


def passes(gained: float, lost: float) -> Draw:
    """Single passes and fails, with these chances of a case that differs."""

    def draw(random: np.random.Generator, n: int) -> Floats:
        chances = [gained, lost, 1 - gained - lost]
        drawn: Floats = random.choice([1.0, -1.0, 0.0], n, p=chances)
        return drawn

    return draw


def repeated(gain: float, repeats: int = 3) -> Draw:
    """Passes repeated: a case's chance is from a U-shaped distribution, `gain` of what is left."""

    def draw(random: np.random.Generator, n: int) -> Floats:
        chance = random.beta(0.6, 0.6, n)
        better = chance + gain * (1 - chance)
        drawn = random.binomial(repeats, better) - random.binomial(repeats, chance)
        shares: Floats = drawn / repeats
        return shares

    return draw


def scores(shift: float, spread: float = 0.3) -> Draw:
    """Scores whose difference is normal, cut at -1 and 1 far out."""
    return lambda random, n: np.clip(random.normal(shift, spread, n), -1, 1)


def rare(share: float) -> Draw:
    """Scores that rise in a `share` of the cases, by a skewed amount, and never fall."""
    return lambda random, n: (random.random(n) < share) * random.beta(2, 3, n)


def mixed(share: float, up: float) -> Draw:
    """Scores that change in a `share` of the cases, upwards in `up` of those."""

    def draw(random: np.random.Generator, n: int) -> Floats:
        signs = np.where(random.random(n) < up, 1.0, -1.0)
        drawn: Floats = (random.random(n) < share) * random.beta(2, 2, n) * signs
        return drawn

    return draw


def scenarios() -> list[Scenario]:
    """All kinds, A/A first."""
    found = []
    for n in (8, 30, 100, 500):
        found.append(Scenario("passes A/A", n, passes(0.15, 0.15), 0.0, True, None))
    for n in (30, 100):
        found.append(Scenario("repeated passes A/A", n, repeated(0.0), 0.0, False, None))
        found.append(Scenario("scores A/A", n, scores(0.0), 0.0, False, None))
        found.append(Scenario("few scores change A/A", n, mixed(0.3, 0.5), 0.0, False, None))
    found.append(Scenario("all equal A/A", 50, passes(0.0, 0.0), 0.0, False, None))
    found.append(Scenario("tiny scores A/A", 8, scores(0.0), 0.0, False, None))
    for n, gained, lost in ((30, 0.35, 0.05), (100, 0.2, 0.08), (500, 0.12, 0.06)):
        power = mcnemar_power(n, gained - lost, gained + lost, ALPHA)
        kind = passes(gained, lost)
        found.append(Scenario("passes A/B", n, kind, gained - lost, True, power))
    for n, shift in ((30, 0.15), (100, 0.08)):
        power = mean_power(n, shift, 0.3, ALPHA)
        found.append(Scenario("scores A/B", n, scores(shift), shift, False, power))
    for n, gain in ((30, 0.5), (100, 0.25)):
        # the mean of gain * (1 - p) with p of mean 1/2; its spread by a large sample
        spread = float(repeated(gain)(np.random.default_rng(0), 1_000_000).std())
        power = mean_power(n, gain / 2, spread, ALPHA)
        found.append(Scenario("repeated passes A/B", n, repeated(gain), gain / 2, False, power))
    for n in (30, 100):
        found.append(Scenario("one-sided zeros A/B", n, rare(0.2), 0.2 * 0.4, False, None))
        truth = 0.3 * 0.5 * 0.4
        found.append(Scenario("few scores change A/B", n, mixed(0.3, 0.7), truth, False, None))
    return found


def simulate(scenario: Scenario, pairs: int, seed: int) -> dict[str, Any]:
    """The rates of one kind."""
    shown, covered, width = 0, 0, 0.0
    for number in range(pairs):
        random = np.random.default_rng((seed, number))
        paired = Paired(scenario.draw(random, scenario.n), scenario.binary)
        low, high = paired_interval(paired, 1 - ALPHA, seed=number)
        covered += low <= scenario.truth <= high
        width += high - low
        # as the verdict has it: the test and the interval, both
        shown += paired_p(paired) <= ALPHA and not low <= 0 <= high
    rate, cover = shown / pairs, covered / pairs
    equal = scenario.truth == 0
    problems = []
    if equal and rate > MOST_WRONG:
        problems.append("shows differences that are not there")
    if cover < LEAST_COVER:
        problems.append("the interval covers too seldom")
    if scenario.power is not None and rate < scenario.power - POWER_OFF:
        problems.append("sees less than the theory says")
    return {
        "kind": scenario.name,
        "n": scenario.n,
        "pairs": pairs,
        "true_difference": round(scenario.truth, 4),
        "shown": round(rate, 4),
        "power_of_theory": None if scenario.power is None else round(scenario.power, 4),
        "interval_covers": round(cover, 4),
        "interval_width": round(width / pairs, 4),
        "problems": problems,
    }


def simulate_looking(pairs: int, seed: int) -> dict[str, Any]:
    """Looking after each of up to 400 cases: how often it is decided, and after how many."""

    def decided(draw: Draw, base: int) -> list[int | None]:
        return [
            evidence(draw(np.random.default_rng((base, n)), 400), ALPHA).decided_at
            for n in range(pairs)
        ]

    equal = decided(passes(0.2, 0.2), seed)
    different = decided(passes(0.3, 0.12), seed + 1)
    stops = sorted(stop for stop in different if stop is not None)
    wrong = sum(stop is not None for stop in equal) / pairs
    return {
        "kind": "a look after every case, 400 cases",
        "pairs": pairs,
        "shown_when_equal": round(wrong, 4),
        "shown_when_different": round(len(stops) / pairs, 4),
        "median_cases_to_decide": stops[len(stops) // 2] if stops else None,
        "fixed_test_power": round(mcnemar_power(400, 0.18, 0.42, ALPHA), 4),
        "problems": ["wrong too often"] if wrong > ALPHA + 0.01 else [],
    }


def simulate_suites(pairs: int, seed: int, suites: int = 5) -> dict[str, Any]:
    """Five suites without a difference: how often any of them shows one, with and without Holm."""
    with_holm, without = 0, 0
    draw = passes(0.2, 0.2)
    for number in range(pairs):
        random = np.random.default_rng((seed, number))
        p = [paired_p(Paired(draw(random, 200), True)) for _ in range(suites)]
        without += min(p) <= ALPHA
        with_holm += min(holm(p)) <= ALPHA
    wrong = with_holm / pairs
    return {
        "kind": f"{suites} equal suites of 200 passes",
        "pairs": pairs,
        "any_shown": round(wrong, 4),
        "any_shown_uncorrected": round(without / pairs, 4),
        "problems": ["wrong too often"] if wrong > MOST_WRONG else [],
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Simulate all kinds, write the record; 1: a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "records")
    args = parser.parse_args(argv)
    results: list[dict[str, Any]] = []
    for number, scenario in enumerate(scenarios()):
        results.append(simulate(scenario, args.pairs, args.seed + number))
        print(results[-1], flush=True)
    results.append(simulate_looking(args.pairs, args.seed + 1000))
    results.append(simulate_suites(args.pairs, args.seed + 2000))
    for result in results[-2:]:
        print(result)
    date = datetime.date.today().isoformat()
    record = {
        "benchmark": "eval_statistics",
        "date": date,
        "what": "error rates, coverage and power of the verdict's tests, by simulation",
        "command": f"python benchmarks/eval_statistics/simulate.py --pairs {args.pairs} "
        f"--seed {args.seed}",
        "alpha": ALPHA,
        "standard_error_of_a_rate_of_5_percent": round(math.sqrt(0.05 * 0.95 / args.pairs), 4),
        "versions": {"python": platform.python_version(), "numpy": version("numpy")},
        "results": results,
    }
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / f"eval-statistics-{date}.json"
    path.write_text(json.dumps(record, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    print(path)
    return 1 if any(result["problems"] for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
