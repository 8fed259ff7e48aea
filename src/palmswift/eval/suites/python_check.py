"""What judges answers in a process of its own: functions of the user's, and BERTScore's models."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from palmswift.errors import ChildError, InputError
from palmswift.eval.json_child import ChildGone, JsonChild
from palmswift.eval.measures.bertscore import BertScorer
from palmswift.eval.suites.assertions import BertScoreBound, Python
from palmswift.eval.suites.checking import CannotEvaluate, Ruling, Subject
from palmswift.paths import project_root


class Functions:
    """Calls the functions and models of one suite; as a context manager it ends their processes."""

    def __init__(self, folder: Path | None = None) -> None:
        """`folder` is the suite's: paths are relative to it, else to the project."""
        self._folder = folder
        self._child = JsonChild("palmswift.eval.suites.python_check_worker")
        self._scorers: dict[tuple[str, int | None], BertScorer] = {}

    def __enter__(self) -> Functions:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._child.stop()
        for scorer in self._scorers.values():
            scorer.stop()

    def __call__(self, assertion: Python | BertScoreBound, subject: Subject) -> Ruling:
        """What it says of the answer; CannotEvaluate when it says nothing usable."""
        if isinstance(assertion, BertScoreBound):
            return self._similar(assertion, subject)
        name, _, function = assertion.function.rpartition(":")
        try:
            path = find_beside(name, self._folder)
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

    def _similar(self, assertion: BertScoreBound, subject: Subject) -> Ruling:
        key = (assertion.model, assertion.layer)
        try:
            if key not in self._scorers:
                path = find_beside(assertion.model, self._folder)
                self._scorers[key] = BertScorer(path, assertion.layer)
            [found] = self._scorers[key].scores([(subject.answer, subject.references)])
        except (InputError, ChildError) as error:
            raise CannotEvaluate(error.summary) from error
        return Ruling(100 * found.f1 >= assertion.min, f"{100 * found.f1:.1f}")


def find_beside(name: str, folder: Path | None) -> Path:
    """The file or folder called `name`: beside the suite, else in the project."""
    tried = [folder / name] if folder is not None else []
    tried.append(project_root() / name)
    for path in tried:
        if path.exists():
            return path.resolve()
    places = " nor ".join(str(path) for path in dict.fromkeys(tried))
    raise InputError(f"no file {places}", remedy="paths are relative to the suite or the project")
