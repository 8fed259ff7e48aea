"""What the evaluation tests share: small suites, predictions, and real command processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from palmswift.eval.asking.conversation import Case, canonical_hash
from palmswift.eval.asking.journal import Prediction, RequestError
from palmswift.eval.asking.retry import RetryPolicy
from palmswift.eval.suites.suite import Suite
from palmswift.eval.verdicts.gate import Gate

ROOT = Path(__file__).resolve().parents[1]

QUICK = RetryPolicy(attempts=3, backoff=0.01, connect=5, first_byte=5, total=5)
"""A policy whose waits are too short to notice."""


def suite_of(*cases: Case, gates: Sequence[Gate] = ()) -> Suite:
    """A suite of these cases."""
    return Suite(name="test", cases=list(cases), gates=list(gates))


def arithmetic(count: int, tag: str = "sums") -> list[Case]:
    """Cases `0+1?` with the reference `1`, `1+1?` with `2`, ..., judged by exact match."""
    return [
        Case.model_validate(
            {
                "id": f"sum-{n}",
                "question": f"{n}+1?",
                "reference": str(n + 1),
                "tags": [tag],
                "assertions": [{"kind": "exact"}],
            }
        )
        for n in range(count)
    ]


def prediction(
    case: Case,
    content: str | None,
    *,
    endpoint: str = "tuned",
    repeat: int = 0,
    error: RequestError | None = None,
    **fields: Any,
) -> Prediction:
    """A journal row that answers `case`."""
    request = {"model": "m", "messages": case.conversation(), "max_tokens": 8, "temperature": 0.0}
    values: dict[str, Any] = {
        "endpoint": endpoint,
        "base_url": "http://127.0.0.1:1/v1",
        "case": case.id,
        "repeat": repeat,
        "request": request,
        "request_hash": canonical_hash(request),
        "content": content,
        "finish_reason": "stop" if error is None else None,
        "seconds": 0.5,
        "attempts": 1,
        "error": error,
        "started_at": "2026-01-01T00:00:00.000+00:00",
    }
    return Prediction.model_validate({**values, **fields})


def write_rows(path: Path, rows: Sequence[Any]) -> Path:
    """JSONL of these rows at `path`."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")
    return path


def write_suite(path: Path, count: int, *, gate: float = 0.9) -> Path:
    """A suite file of `arithmetic(count)` with a gate on exact match at `tuned`."""
    cases = [case.model_dump(exclude_none=True, exclude={"messages"}) for case in arithmetic(count)]
    document = {
        "name": "sums",
        "cases": cases,
        "gates": [{"metric": "exact_match", "tag": "sums", "endpoint": "tuned", "min": gate}],
    }
    path.write_text(json.dumps(document), encoding="utf-8")  # JSON is YAML
    return path


def sums(count: int) -> dict[str, str]:
    """The right answers by question."""
    return {f"{n}+1?": str(n + 1) for n in range(count)}


def command(name: str, *words: str | Path) -> list[str]:
    """The argument list of `python eval/NAME.py WORDS`."""
    return [sys.executable, str(ROOT / "eval" / f"{name}.py"), *map(str, words)]


def call(
    name: str,
    *words: str | Path,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run `python eval/NAME.py WORDS` to its end."""
    return subprocess.run(
        command(name, *words),
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "utf-8", **(env or {})},
    )
