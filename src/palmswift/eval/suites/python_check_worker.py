"""The process in which functions of the user's own judge answers (suites.python_check)."""

from __future__ import annotations

import importlib.util
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from palmswift.eval.json_child import answer_questions

_PASSING = 0.5
_modules: dict[str, ModuleType] = {}


def answer(question: dict[str, Any]) -> dict[str, Any]:
    """{"passed", "detail"}, or {"error": why}."""
    path, name = question["path"], question["function"]
    try:
        module = _modules.get(path) or _load(path)
        function = getattr(module, name, None)
        if not callable(function):
            return {"error": f"the file has no function {name}"}
        return _read(function(question["answer"], question["case"]))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - the user's code raises what it likes
        return {"error": _told(error, path)}


def _load(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"suite_function_{len(_modules)}", path)
    if spec is None or spec.loader is None:
        raise ImportError("not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    _modules[path] = module
    return module


def _read(said: Any) -> dict[str, Any]:
    """What a function gave back, as an outcome."""
    detail = None
    if isinstance(said, tuple) and len(said) == 2:
        said, detail = said[0], str(said[1])
    if isinstance(said, bool):
        return {"passed": said, "detail": detail}
    if isinstance(said, int | float) and 0 <= said <= 1:
        return {"passed": said >= _PASSING, "detail": detail or f"{said:g}"}
    return {"error": f"it gave {said!r:.100}; it must give True, False or a score of 0 to 1"}


def _told(error: BaseException, path: str) -> str:
    """The exception and the line of the user's file that it comes from."""
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == path
    ]
    if isinstance(error, SyntaxError):
        lines = [error.lineno]
    where = f"{Path(path).name}:{lines[-1]}: " if lines else ""
    return f"{where}{type(error).__name__}: {error}"


if __name__ == "__main__":
    raise SystemExit(answer_questions(answer))
