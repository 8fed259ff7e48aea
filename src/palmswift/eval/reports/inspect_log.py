"""Writes an evaluation report as a log that inspect_ai reads, one file an endpoint.

Checked against inspect_ai 0.3.285's own reader (tests/data/foreign holds what it was checked on):
`inspect view --log-dir DIR`, `inspect_ai.log.read_eval_log(FILE)`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from palmswift.eval.reports.report import CaseResult, EvaluationReport
from palmswift.eval.suites.scoring import ScoredAnswer
from palmswift.files import write_json

_SCORER = "palmswift"


def write_inspect_logs(report: EvaluationReport, folder: Path) -> list[Path]:
    """A JSON log for each endpoint; their paths."""
    paths = []
    for label in report.labels:
        stamp = re.sub(r"[^0-9T]", "-", report.created_at[:19])
        name = re.sub(r"[^\w-]+", "-", f"{report.suite}_{label}")
        path = folder / f"{stamp}_{name}.json"
        write_json(path, inspect_log(report, label))
        paths.append(path)
    return paths


def inspect_log(report: EvaluationReport, label: str) -> dict[str, Any]:
    """One endpoint's answers as inspect_ai's `EvalLog` (version 2)."""
    info = next(endpoint for endpoint in report.endpoints if endpoint.label == label)
    found = [(c, a) for c in report.cases for a in c.answers if a.endpoint == label]
    graded = [(c, a) for c, a in found if a.state not in ("error", "not_asked")]
    model = str(info.requests[0].get("model", label)) if info.requests else label
    summary = report.summary(label)
    passed = summary.metrics.get("pass_rate")
    value = passed.value if passed is not None else None
    metrics = {"accuracy": {"name": "accuracy", "value": value}} if value is not None else {}
    return {
        "version": 2,
        "status": "success" if len(graded) == len(found) else "error",
        "eval": {
            "created": report.created_at,
            "task": report.suite,
            "dataset": {"name": report.suite, "samples": len(report.cases)},
            "model": f"openai-api/{label}/{model}",
            "model_base_url": info.base_urls[0] if info.base_urls else None,
            "config": {"epochs": max((a.repeat + 1 for _, a in found), default=1)},
            "metadata": {"palmswift_report_version": report.version, "endpoint": label},
        },
        "results": {
            "total_samples": len(found),
            "completed_samples": len(graded),
            "scores": [{"name": _SCORER, "scorer": _SCORER, "metrics": metrics}],
        },
        "stats": {
            "started_at": info.first_at or report.created_at,
            "completed_at": info.last_at or report.created_at,
        },
        **(
            {}
            if len(graded) == len(found)
            else {"error": _error(f"{len(found) - len(graded)} requests have no reply")}
        ),
        "samples": [_sample(case, answer, model) for case, answer in found],
    }


def _error(message: str) -> dict[str, str]:
    return {"message": message, "traceback": "", "traceback_ansi": ""}


def _sample(case: CaseResult, answer: ScoredAnswer, model: str) -> dict[str, Any]:
    asked = [{"role": m.role, "content": m.content} for m in case.messages]
    said: list[dict[str, Any]] = []
    output: dict[str, Any] = {"model": model, "choices": []}
    if answer.answer is not None or answer.reasoning is not None:
        content: list[dict[str, str]] = []
        if answer.reasoning:
            content.append({"type": "reasoning", "reasoning": answer.reasoning})
        content.append({"type": "text", "text": answer.answer or ""})
        said = [{"role": "assistant", "content": content, "model": model, "source": "generate"}]
        reason = {"length": "max_tokens"}.get(answer.finish_reason or "stop", "stop")
        output["choices"] = [{"message": said[0], "stop_reason": reason}]
        output["time"] = answer.seconds
    sample: dict[str, Any] = {
        "id": case.id,
        "epoch": answer.repeat + 1,
        "input": asked,
        "target": case.reference or "",
        "messages": [*asked, *said],
        "output": output,
        "metadata": {"tags": case.tags, "suite": case.suite, "state": answer.state},
        "total_time": answer.seconds,
    }
    if answer.state == "error":
        sample["error"] = _error(answer.reason or "no reply")
    elif answer.state != "not_asked":
        sample["scores"] = {_SCORER: _score(answer)}
    return sample


def _score(answer: ScoredAnswer) -> dict[str, Any]:
    """inspect's C (correct) and I (incorrect), N where nothing judges the answer."""
    failed = [f"{a.kind}: {a.expected}" for a in answer.assertions if not a.passed]
    grade = {True: "C", False: "I", None: "N"}[answer.passed]
    return {
        "value": grade,
        "answer": answer.answer,
        "explanation": "; ".join(failed) or answer.reason,
        "metadata": {"scores": answer.scores},
    }
