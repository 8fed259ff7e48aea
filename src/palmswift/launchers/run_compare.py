"""How two runs differ: in what they were given, where they ran, and what came of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from palmswift.launchers.run_folder import RunFolder, RunState

ABSENT = "-"

_RESULTS = ("failure", "checkpoint", "memory", "phases")
"""Facts of a training that are no number to compare."""


class Difference(NamedTuple):
    """One thing that is not the same in both."""

    part: str
    """recipe, data, versions, hardware, code, model or results."""
    key: str
    first: str
    second: str

    def __str__(self) -> str:
        return f"{self.key}: {self.first} -> {self.second}"


def compare(first: RunFolder, second: RunFolder) -> list[Difference]:
    """All that differs between two runs, in the order in which one asks."""
    one, two = first.state, second.state
    return [
        *conditions(one, two),
        *_differing("results", _results(first), _results(second)),
    ]


def conditions(one: RunState, two: RunState) -> list[Difference]:
    """What differs in what two runs were given and where they ran."""
    return [
        *_differing("recipe", flat(one.resolved), flat(two.resolved)),
        *_differing("data", by_name(one.inputs), by_name(two.inputs)),
        *_differing("code", _code(one), _code(two)),
        *_model_differences(one, two),
        *_differing("versions", _versions(one), _versions(two)),
        *_differing("hardware", flat(one.hardware), flat(two.hardware)),
    ]


def _model_differences(one: RunState, two: RunState) -> list[Difference]:
    """Empty where one does not know its model's files: a hub's has none, nor a run before it."""
    first, second = _model_files(one), _model_files(two)
    return _differing("model", first, second) if first and second else []


def _versions(state: RunState) -> dict[str, str]:
    return {"palmswift": state.palmswift, **state.versions}


def _code(state: RunState) -> dict[str, Any]:
    changed = ", ".join(state.git_changes) or "none"
    return {
        "commit": state.git_commit,
        "files changed since": changed,
        **{f"plugin {name}": digest[:12] for name, digest in state.plugins.items()},
    }


def _model_files(state: RunState) -> dict[str, Any]:
    stage = state.stages.get("model")
    files = stage.facts.get("files") if stage else None
    return dict(files) if isinstance(files, dict) else {}


def by_name(inputs: Mapping[str, str]) -> dict[str, str]:
    """Data files by their names, for they may lie elsewhere: the first of the hash is enough."""
    return {Path(path).name: digest[:12] for path, digest in inputs.items()}


def _results(run: RunFolder) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, stage in run.state.stages.items():
        found[f"{name}.seconds"] = stage.seconds
        for key, value in stage.facts.items():
            if name == "model" or key in ("rows", "files"):
                continue
            if name == "train" and key in _RESULTS:
                if key == "failure" and isinstance(value, dict):
                    found["train.failure"] = value.get("kind")
                elif key == "memory" and isinstance(value, dict):
                    found.update({f"train.memory.{part}": of for part, of in value.items()})
                continue
            if key == "eval_losses" and value:
                found["train.eval_loss (lowest)"] = min(value)
                continue
            found[f"{name}.{key}"] = value
    return found


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested maps and lists of maps as dotted keys."""
    found: dict[str, Any] = {}
    for key, value in _items(values):
        if isinstance(value, Mapping) and value:
            found.update(flat(value, f"{prefix}{key}."))
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            found.update(flat(dict(enumerate(value)), f"{prefix}{key}."))  # type: ignore[arg-type]
        else:
            found[f"{prefix}{key}"] = value
    return found


def _items(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    return iter((str(key), value) for key, value in values.items())


def _differing(part: str, one: Mapping[str, Any], two: Mapping[str, Any]) -> list[Difference]:
    return [
        Difference(part, key, shown(one.get(key)), shown(two.get(key)))
        for key in {**one, **two}
        if one.get(key) != two.get(key)
    ]


def shown(value: Any) -> str:
    """A value in a line."""
    if value is None:
        return ABSENT
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6g}"
    return ", ".join(map(shown, value)) or "none" if isinstance(value, list) else str(value)
