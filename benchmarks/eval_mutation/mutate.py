"""Whether the tests of scoring, statistics and journal notice when the code is wrong.

pip install --target DIR cosmic-ray
python benchmarks/eval_mutation/mutate.py --cosmic-ray DIR

cosmic-ray's operators change one thing at a time (an operator, a number, a condition, a loop); the
tests of the module are run on each changed one, in a process forked from this one, and must fail.
Of a module with more mutants than `--most`, so many are drawn from a seed. Left out are changes
that cannot be run: those of type annotations, and of what only a type checker imports. The record,
benchmarks/records/eval-mutation-DATE.json, names every mutant that lived.
"""

from __future__ import annotations

import argparse
import ast
import datetime
import difflib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import platform
import random
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
TESTS: dict[str, tuple[str, ...]] = {
    "verdicts.distributions": ("verdicts/test_significance.py", "verdicts/test_power.py"),
    "verdicts.significance": ("verdicts/test_significance.py",),
    "verdicts.intervals": ("verdicts/test_intervals.py",),
    "verdicts.power": ("verdicts/test_power.py",),
    "verdicts.sequential": ("verdicts/test_sequential.py",),
    "verdicts.comparison": ("verdicts/test_verdict.py",),
    "verdicts.verdict": ("verdicts/test_verdict.py",),
    "verdicts.gate": ("verdicts/test_gate.py",),
    "verdicts.contamination": ("verdicts/test_contamination.py",),
    "suites.scoring": ("suites/test_scoring.py", "suites/test_dialogue.py"),
    "suites.summary": ("reports/test_report.py", "suites/test_scoring.py"),
    "asking.journal": ("asking/test_journal.py",),
}
"""Each module to the tests that are to notice what is wrong with it."""

GOAL = 0.85
_LIMIT_S = 120
"""A mutant whose tests take longer has made a loop without an end: noticed."""
_LEFT_OUT = ("VariableInserter", "VariableReplacer", "RemoveDecorator")
"""Operators that need settings of their own, or change what is checked by types alone."""
_EXAMPLES = 20
"""Of each property; the fixed ones, so that a mutant's fate is the same each time."""
_READY = ("pytest", "hypothesis", "numpy", "scipy.stats", "scipy.optimize", "pydantic", "yaml")
"""Imported before the fork, to be paid once; nothing of palmswift is."""


class Mutant(NamedTuple):
    """One changed module."""

    operator: str
    occurrence: int
    source: str

    def difference(self, before: str) -> str:
        """The lines that changed."""
        lines = difflib.unified_diff(
            before.splitlines(), self.source.splitlines(), n=0, lineterm=""
        )
        return "\n".join(line for line in lines if not line.startswith(("---", "+++")))


def source_of(module: str) -> Path:
    """The file of a module of palmswift.eval."""
    return ROOT.joinpath("src", "palmswift", "eval", *module.split(".")).with_suffix(".py")


def mutants_of(source: str) -> Iterator[Mutant]:
    """Every mutant that runs other code than `source`."""
    from cosmic_ray.mutating import mutate_code  # type: ignore[import-not-found]
    from cosmic_ray.plugins import get_operator, operator_names  # type: ignore[import-not-found]

    plain = _code(source)
    seen = {plain}
    for name in sorted(operator_names()):
        if name.rpartition("/")[2] in _LEFT_OUT:
            continue
        occurrence = 0
        while (changed := mutate_code(source, get_operator(name)(), occurrence)) is not None:
            try:
                code = _code(changed)
            except SyntaxError:
                code = plain
            if code not in seen:
                seen.add(code)
                yield Mutant(name, occurrence, changed)
            occurrence += 1


def _code(source: str) -> str:
    """What is run of a source: annotations and imports for the type checker are not."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            node.returns = None
        elif isinstance(node, ast.AnnAssign):
            node.annotation = ast.Name("_")
        elif isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            node.body = [ast.Pass()]
    return ast.dump(tree)


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives one module from a changed source."""

    def __init__(self, name: str, path: Path, source: str) -> None:
        self.name, self.path, self.source = name, path, source

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The spec of our module; None for any other."""
        if fullname != self.name:
            return None
        return importlib.util.spec_from_file_location(fullname, self.path, loader=self)

    def exec_module(self, module: ModuleType) -> None:
        """Run the changed source as the module."""
        exec(compile(self.source, str(self.path), "exec"), module.__dict__)


def survives(module: str, source: str) -> bool:
    """Whether the module's tests pass with this source in its place."""
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        _run_tests(module, source)
    begun = time.monotonic()
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) == 0
        if time.monotonic() - begun > _LIMIT_S:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return False
        time.sleep(0.01)


def _run_tests(module: str, source: str) -> None:
    """Run the tests in this (forked) process and end it with their exit code."""
    import hypothesis
    import pytest

    code = 1
    hypothesis.settings.register_profile(
        "mutants", derandomize=True, deadline=None, max_examples=_EXAMPLES
    )
    try:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
        path = source_of(module)
        sys.meta_path.insert(0, _Finder(f"palmswift.eval.{module}", path, source))
        tests = [str(ROOT / "tests" / "unit" / "eval" / name) for name in TESTS[module]]
        quiet = ["-x", "-q", "-p", "no:cacheprovider", "--hypothesis-profile", "mutants"]
        code = int(pytest.main([*quiet, "--rootdir", str(ROOT), *tests]))
    except BaseException:  # noqa: BLE001 (the mutant may raise anything, and is then noticed)
        code = 1
    finally:
        os._exit(code)


def measure(module: str, most: int, seed: int) -> dict[str, Any]:
    """How many of a module's mutants its tests notice."""
    source = source_of(module).read_text(encoding="utf-8")
    if not survives(module, source):
        raise SystemExit(f"{module}: its tests fail as it is")
    found = list(mutants_of(source))
    drawn = found if len(found) <= most else random.Random(seed).sample(found, most)
    lived = [mutant for mutant in drawn if survives(module, mutant.source)]
    return {
        "module": f"eval/{module.replace('.', '/')}.py",
        "mutants": len(found),
        "tried": len(drawn),
        "noticed": len(drawn) - len(lived),
        "score": round(1 - len(lived) / len(drawn), 4),
        "lived": [
            {"operator": m.operator.rpartition("/")[2], "change": m.difference(source)}
            for m in lived
        ],
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Try the mutants, write the record; 1: the goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("modules", nargs="*", help=f"of {', '.join(TESTS)}; default: all")
    parser.add_argument("--cosmic-ray", type=Path, required=True, metavar="DIR")
    parser.add_argument("--most", type=int, default=80, help="mutants of a module (80)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "records")
    args = parser.parse_args(argv)
    sys.path += [str(args.cosmic_ray), str(ROOT / "tests")]
    for name in _READY:
        importlib.import_module(name)
    results: list[dict[str, Any]] = []
    for module in args.modules or TESTS:
        results.append(measure(module, args.most, args.seed))
        print({k: v for k, v in results[-1].items() if k != "lived"}, flush=True)
        record = write_record(args, results)  # a run that is ended early keeps what it has
    print(f"{record['noticed']} of {record['tried']} noticed: {record['score']:.1%}")
    return 0 if record["score"] >= GOAL else 1


def write_record(args: argparse.Namespace, results: list[dict[str, Any]]) -> dict[str, Any]:
    """Write the record of the modules so far; the record."""
    tried = sum(result["tried"] for result in results)
    noticed = sum(result["noticed"] for result in results)
    date = datetime.date.today().isoformat()
    record = {
        "benchmark": "eval_mutation",
        "date": date,
        "what": "share of mutants that the unit tests of their module notice",
        "command": f"python benchmarks/eval_mutation/mutate.py {' '.join(args.modules)} "
        f"--most {args.most} --seed {args.seed} --cosmic-ray DIR",
        "versions": {"python": platform.python_version(), "cosmic-ray": version("cosmic-ray")},
        "score": round(noticed / tried, 4),
        "tried": tried,
        "noticed": noticed,
        "results": results,
    }
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / f"eval-mutation-{date}.json"
    path.write_text(json.dumps(record, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    return record


if __name__ == "__main__":
    sys.exit(main())
