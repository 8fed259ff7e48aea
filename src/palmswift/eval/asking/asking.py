"""Asks models for one file of predictions: who they are, what is known already, what is left."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from palmswift.eval.asking.client import Client
from palmswift.eval.asking.endpoint import Endpoint
from palmswift.eval.asking.engine import Outcome, Progress, Question, Sampling, Target, ask_all
from palmswift.eval.asking.fingerprint import (
    Fingerprint,
    KnownModels,
    ModelChanged,
    same,
    same_weights,
    take,
)
from palmswift.eval.asking.journal import Journal, RequestKey, read_journal
from palmswift.eval.asking.pace import Pace
from palmswift.eval.asking.retry import RetryPolicy
from palmswift.eval.loop import run_interruptible


def fingerprints_of(journal: Path) -> Path:
    """The file beside a journal that knows its models."""
    return journal.with_name(f"{journal.stem}.fingerprints.json")


class Found(NamedTuple):
    """An endpoint that answers."""

    endpoint: Endpoint
    model: str
    fingerprint: Fingerprint | None
    """Null when none was to be taken."""
    pace: Pace
    """What was spent of the endpoint's limits to find out."""


def find(endpoint: Endpoint, policy: RetryPolicy, *, fingerprint: bool = True) -> Found:
    """The model behind an endpoint; ChildError when nothing answers."""
    return run_interruptible(_find(endpoint, policy, fingerprint))


async def find_model(endpoint: Endpoint, policy: RetryPolicy) -> str:
    """The model name to send to `endpoint`; ChildError when it does not answer."""
    return (await _find(endpoint, policy, fingerprint=False)).model


async def _find(endpoint: Endpoint, policy: RetryPolicy, fingerprint: bool) -> Found:
    async with Client(endpoint, policy) as client:
        model = await client.model()
        taken = await take(client, model) if fingerprint and endpoint.fingerprint else None
        return Found(endpoint, model, taken, client.pace)


class Asker:
    """Asks, and keeps the answers in a journal that is its own until the block is left."""

    def __init__(
        self,
        path: Path,
        sampling: Sampling,
        policy: RetryPolicy,
        concurrency: int,
        *,
        report: Callable[[Progress], None] = lambda progress: None,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.path = path
        self.sampling = sampling
        self.policy = policy
        self.concurrency = concurrency
        self._report = report
        self._note = note
        self._journal = Journal(path)
        self._paces: dict[str, Pace] = {}

    def __enter__(self) -> Asker:
        self._journal.__enter__()
        self._known = KnownModels(fingerprints_of(self.path))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._journal.__exit__(kind, error, trace)

    def admit(self, found: Found, *, fresh: bool = False) -> Target:
        """The model to ask. Answers under its label that are another model's are set aside, so that
        the file has one model a label; with `fresh`, all of them."""
        endpoint, taken = found.endpoint, found.fingerprint
        self._paces[endpoint.label] = found.pace
        known = self._known.recognised(taken) if taken is not None else None
        if known is not None and known.level != "weights":
            self._tell_weakness(endpoint, known)
        identity = known.id if known is not None and known.level != "none" else None
        label = endpoint.label

        def unwanted_label(row_label: str, fingerprint: str | None) -> bool:
            return row_label == label and (fresh or fingerprint != identity)

        aside = self._journal.set_aside(lambda row: unwanted_label(row.endpoint, row.fingerprint))
        if aside is not None and fresh:
            self._note(f"the answers so far are kept in {aside.path}")
        elif aside is not None:
            self._note(
                f"{label}: the model at {endpoint.base_url} is not known to be the one that gave "
                f"its {aside.rows} answers so far; they are kept in {aside.path}"
            )
        if known is not None:
            self._tell_twins(label, known)
        return Target(endpoint, found.model, identity)

    def _tell_weakness(self, endpoint: Endpoint, known: Fingerprint) -> None:
        """Say what recognising this model is worth."""
        if known.level == "texts":
            self._note(
                f"{endpoint.label}: {known.why}: the model is recognised by eight short "
                "answers alone, and a small change of it may go unseen"
            )
        else:
            self._note(
                f"{endpoint.label}: the model cannot be recognised ({known.why}). Answers are kept "
                "by endpoint and request alone: after a change of the model use --fresh"
            )

    def _tell_twins(self, label: str, known: Fingerprint) -> None:
        """Say when another label's answers are of the very same weights."""
        others = {row.endpoint: row.fingerprint for row in read_journal(self.path)}
        for twin in sorted(others.keys() - {label}):
            other = self._known.get(others[twin])
            if other is not None and same_weights(other, known):
                self._note(
                    f"{label} and {twin} answer all probes alike, as one and the same model would: "
                    "is the adapter loaded? python deploy/parity.py --against URL tells"
                )

    def answered(self) -> set[RequestKey]:
        """What needs no asking."""
        return {row.key for row in read_journal(self.path) if row.error is None}

    def ask(
        self,
        target: Target,
        questions: Iterable[Question],
        *,
        total: int | None = None,
        answered: Container[RequestKey] | None = None,
    ) -> Outcome:
        """Ask what is not answered; may be called again for more questions to the same target.

        `total` is their number, where `questions` is no sequence. ModelChanged: the model is
        another one than at the beginning; the answers since it was seen last are set aside.
        """
        if total is None:
            assert isinstance(questions, Sequence)
            total = len(questions)
        label = target.endpoint.label
        known = self._known.get(target.fingerprint)
        safe_until = self._journal.size

        async def check(client: Client) -> None:
            nonlocal safe_until
            self._paces[label] = client.pace
            if known is not None and not await _is_still(known, client, target.model):
                raise ModelChanged(
                    f"endpoint {target.endpoint.label} at {target.endpoint.base_url}: the model "
                    "changed while it was asked",
                    remedy="let one model be served, and run the same command again",
                )
            safe_until = self._journal.size

        try:
            return run_interruptible(
                ask_all(
                    target,
                    questions,
                    total,
                    self._journal,
                    self.answered() if answered is None else answered,
                    self.sampling,
                    self.policy,
                    self.concurrency,
                    self._report,
                    check,
                    self._paces.get(label),
                )
            )
        except ModelChanged:
            aside = self._journal.set_aside(lambda row: row.endpoint == label, since=safe_until)
            if aside is not None:
                self._note(f"{aside.rows} answers of unclear origin are kept in {aside.path} only")
            raise

    def keys(self, target: Target, questions: Iterable[Question]) -> set[RequestKey]:
        """What the questions are known by."""
        return {
            target.key(question, target.body(question, self.sampling)) for question in questions
        }


async def _is_still(known: Fingerprint, client: Client, model: str) -> bool:
    """Whether the model is the known one; asked twice before it is denied."""
    for quickly in (True, False):
        now = await take(client, model, quickly=quickly)
        if now.level == "none" or same(known, now):
            return True  # of a server that has gone away nothing else can be said
    return False
