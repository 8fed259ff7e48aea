"""Functions of the user's own that judge answers, called in a process of their own."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from palmswift.errors import InputError
from palmswift.eval.json_child import ChildGone, JsonChild
from palmswift.eval.suites.assertions import Python
from palmswift.eval.suites.checking import CannotEvaluate, Ruling, Subject
from palmswift.paths import project_root


class Functions:
    """Calls the functions of one suite; use as a context manager, which ends their process."""

    def __init__(self, folder: Path | None = None) -> None:
        """`folder` is the suite's: paths are relative to it, else to the project."""
        self._folder = folder
        self._child = JsonChild("palmswift.eval.suites.python_check_worker")

    def __enter__(self) -> Functions:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._child.stop()

    def __call__(self, assertion: Python, subject: Subject) -> Ruling:
        """What the function says of the answer; CannotEvaluate when it says nothing usable."""
        name, _, function = assertion.function.rpartition(":")
        try:
            path = find_function_file(name, self._folder)
        except InputError as error:
            raise CannotEvaluate(error.summary) from error
        question = {
            "path": str(path),
            "function": function,
            "answer": subject.answer,
            "case": {
                "id": subject.case,
                "tags": list(subject.tags),
                "messages": list(subject.messages),
                "references": list(subject.references),
                "reasoning": subject.reasoning,
                "finish_reason": subject.finish_reason,
                "seconds": subject.seconds,
                "tool_calls": list(subject.tool_calls),
                "args": assertion.args,
            },
        }
        try:
            reply = self._child.ask(question, assertion.timeout)
        except ChildGone as error:
            raise CannotEvaluate(f"{assertion.function}: {error}") from error
        if "error" in reply:
            raise CannotEvaluate(f"{assertion.function}: {reply['error']}")
        return Ruling(reply["passed"], reply["detail"])


def find_function_file(name: str, folder: Path | None) -> Path:
    """The Python file called `name`: beside the suite, else in the project."""
    tried = [folder / name] if folder is not None else []
    tried.append(project_root() / name)
    for path in tried:
        if path.is_file():
            return path.resolve()
    places = " nor ".join(str(path) for path in dict.fromkeys(tried))
    raise InputError(f"no file {places}", remedy="paths are relative to the suite or the project")
