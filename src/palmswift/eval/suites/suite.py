"""A test suite: cases written by hand or made of datasets, and the gates a model must pass."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from palmswift.errors import InputError, Problem
from palmswift.eval.asking.conversation import Case, FollowUp, Message
from palmswift.eval.measures.bertscore import BertScorer
from palmswift.eval.measures.metrics import MetricName, TextMetric
from palmswift.eval.suites.assertions import KINDS, Python, run_apart_of
from palmswift.eval.suites.dataset import DatasetSource, cases_of
from palmswift.eval.suites.document import Document, read_yaml, validated
from palmswift.eval.suites.python_check import find_beside
from palmswift.eval.verdicts.comparison import Role
from palmswift.eval.verdicts.gate import Gate
from palmswift.paths import project_root

DEFAULT_METRICS: tuple[TextMetric, ...] = ("exact_match", "chrf", "bleu")


class SuiteFile(BaseModel):
    """A suite as it is written in YAML."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="palmswift test suite")

    name: str = Field(min_length=1)
    description: str = ""
    system: str | None = None
    """System prompt of every case that has none."""
    metrics: Annotated[list[TextMetric], Field(min_length=1)] = list(DEFAULT_METRICS)
    """What answers with a reference are measured by."""
    role: Role = "task"
    """What the suite is for: what was trained, what should not be forgotten (`general`), or what
    must not get worse (`safety`); the verdict treats them differently."""
    margin: float | None = Field(default=None, ge=0)
    """How much worse than the base still counts as kept, in the unit of what is compared; null:
    5 % of its scale."""
    primary: MetricName | None = None
    """What the verdict compares; null: passes where cases are judged, else a score."""
    from_dataset: list[DatasetSource] = Field(default_factory=list)
    """Datasets whose rows become cases."""
    cases: list[Case] = Field(default_factory=list)
    gates: list[Gate] = Field(default_factory=list)


class Suite(BaseModel):
    """A suite that is ready to run: every case is there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    description: str = ""
    metrics: list[TextMetric] = list(DEFAULT_METRICS)
    role: Role = "task"
    margin: float | None = None
    primary: MetricName | None = None
    cases: list[Case] = Field(min_length=1)
    gates: list[Gate] = Field(default_factory=list)
    folder: Path | None = None
    """Where the suite's file lies; functions of its own are relative to it."""

    @property
    def tags(self) -> list[str]:
        """The tags of the cases, in order of appearance."""
        return list(dict.fromkeys(tag for case in self.cases for tag in case.tags))


def load_suite(path: Path) -> Suite:
    """The suite of a YAML file; InputError with all its mistakes, each with its line."""
    document = read_yaml(path)
    written = validated(SuiteFile, document, _known_keys())
    problems: list[Problem] = []
    cases: list[Case] = []
    for index, source in enumerate(written.from_dataset):
        try:
            cases += cases_of(source, _find(source.path, path.parent))
        except InputError as error:
            where = document.where(("from_dataset", index, "path"))
            problems += error.problems or [Problem(error.summary, where, error.remedy)]
    cases += [part for case in written.cases for part in case.flattened()]
    problems += [*_clashes(written, document), *_lacking_files(written, document)]
    if not problems and not cases:
        problems.append(Problem("no cases: give `cases` or `from_dataset`", str(path)))
    tags = {tag for case in cases for tag in case.tags}
    problems += [
        Problem(
            f"no case has the tag {gate.tag!r}",
            document.where(("gates", index, "tag")),
            f"tags in this suite: {', '.join(sorted(tags)) or 'none'}",
        )
        for index, gate in enumerate(written.gates)
        if not problems and gate.tag is not None and gate.tag not in tags
    ]
    if problems:
        raise InputError(f"{path}: {len(problems)} mistake(s)", problems)
    return Suite(
        name=written.name,
        description=written.description,
        metrics=written.metrics,
        role=written.role,
        margin=written.margin,
        primary=written.primary,
        cases=_merged([case.with_system(written.system) for case in cases]),
        gates=written.gates,
        folder=path.parent.absolute(),
    )


def suite_from_datasets(
    name: str,
    sources: Iterable[DatasetSource],
    *,
    description: str = "",
    system: str | None = None,
    gates: Sequence[Gate] = (),
) -> Suite:
    """A suite of datasets alone, such as a run's own training and validation rows."""
    cases = [case for source in sources for case in cases_of(source, _find(source.path, Path()))]
    if not cases:
        raise InputError(f"suite {name}: no cases")
    return Suite(
        name=name,
        description=description,
        cases=_merged([case.with_system(system) for case in cases]),
        gates=list(gates),
    )


def _find(name: str, folder: Path) -> Path:
    """The dataset called `name`: beside the suite, else in the project."""
    tried = [folder / name, project_root() / name]
    for path in tried:
        if path.is_file():
            return path
    places = " nor ".join(str(path) for path in dict.fromkeys(tried))
    raise InputError(f"no file {places}", remedy="paths are relative to the suite or the project")


def _merged(cases: Sequence[Case]) -> list[Case]:
    """The cases, each id once: a row that stands in two datasets is one case with both tags."""
    merged: dict[str, Case] = {}
    for case in cases:
        first = merged.get(case.id)
        if first is None:
            merged[case.id] = case
            continue
        tags = list(dict.fromkeys([*first.tags, *case.tags]))
        demands = [*first.assertions, *(a for a in case.assertions if a not in first.assertions)]
        merged[case.id] = first.model_copy(update={"tags": tags, "assertions": demands})
    return list(merged.values())


def _clashes(written: SuiteFile, document: Document) -> list[Problem]:
    """Hand-written cases that bear the same id, and what they must leave to the suite."""
    seen: set[str] = set()
    problems = []
    for index, case in enumerate(written.cases):
        for part in case.flattened():
            if part.id in seen:
                where = document.where(("cases", index, "id"))
                problems.append(Problem(f"the id {part.id!r} was given before", where))
            seen.add(part.id)
        if case.after is not None:
            where = document.where(("cases", index, "after"))
            remedy = "put the further question into `then` of the case before it"
            problems.append(Problem("`after` is set by the suite itself", where, remedy))
    return problems


def _lacking_files(written: SuiteFile, document: Document) -> list[Problem]:
    """Python files and models that assertions name and that are not there."""
    demands = [
        (("cases", index), assertion)
        for index, case in enumerate(written.cases)
        for assertion in (*case.assertions, *(a for turn in case.then for a in turn.assertions))
    ]
    demands += [
        (("from_dataset", index), assertion)
        for index, source in enumerate(written.from_dataset)
        for assertion in source.assertions
    ]
    problems = []
    for where, demand in demands:
        for one in run_apart_of(demand):
            try:
                if isinstance(one, Python):
                    find_beside(one.function.rpartition(":")[0], document.path.parent)
                else:
                    BertScorer(find_beside(one.model, document.path.parent), one.layer)
            except InputError as error:
                problems.append(Problem(error.summary, document.where(where), error.remedy))
    return problems


def _known_keys() -> set[str]:
    """Every key that may stand in a suite."""
    models: list[type[BaseModel]] = [SuiteFile, DatasetSource, Case, FollowUp, Message, Gate]
    return {
        field.alias or name
        for model in (*models, *KINDS)
        for name, field in model.model_fields.items()
    }
