from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_eval import QUICK, arithmetic, suite_of, sums

from palmswift.errors import ChildError
from palmswift.eval.asking.client import Client
from palmswift.eval.asking.endpoint import Endpoint
from palmswift.eval.asking.fingerprint import Fingerprint, KnownModels, Probe, same, take
from palmswift.eval.asking.journal import read_journal
from palmswift.eval.evaluation import EvalRun, evaluate
from palmswift.eval.fake.server import OFFERS, FakeServer, Plan

SUITE = suite_of(*arithmetic(20))
RIGHT = {question: Plan(answer) for question, answer in sums(20).items()}
RUN = EvalRun(concurrency=4, policy=QUICK)


def fingerprint(server: FakeServer, *, quickly: bool = False) -> Fingerprint:
    async def run() -> Fingerprint:
        async with Client(Endpoint(label="a", base_url=server.base_url), QUICK) as client:
            return await take(client, "fake", quickly=quickly)

    return asyncio.run(run())


def test_the_same_weights_are_recognised_wherever_they_are_served_and_others_are_not() -> None:
    with FakeServer() as one, FakeServer() as again, FakeServer(weights="tuned") as other:
        known = fingerprint(one)
        assert known.level == "weights"
        assert same(known, fingerprint(again, quickly=True))
        assert known.id == fingerprint(again).id
        assert not same(known, fingerprint(other))
        assert known.id != fingerprint(other).id


@pytest.mark.parametrize(
    "card", [{"root": "/b"}, {"max_model_len": 2}, {"created": 7}], ids=lambda c: next(iter(c))
)
def test_another_card_is_another_model(card: dict[str, Any]) -> None:
    was = {"root": "/a", "max_model_len": 1, "created": 6}
    with FakeServer(model_card=was) as server:
        known = fingerprint(server)
        server.model_card = {**was, **card}
        assert not same(known, fingerprint(server))


def test_a_server_that_tells_the_time_of_the_request_as_created_stays_the_same() -> None:
    with FakeServer(model_card={"created": int(time.time())}) as server:
        known = fingerprint(server)
        assert "created" not in known.card
        server.model_card = {"created": int(time.time()) + 1}
        assert same(known, fingerprint(server))


@pytest.mark.parametrize("noise", [0.001, 0.02, 0.1])
def test_noise_between_askings_is_not_taken_for_a_change_nor_hides_one(noise: float) -> None:
    with FakeServer(noise=noise) as server:
        known = fingerprint(server)
        assert known.level == "weights"
        assert same(known, fingerprint(server))
        server.weights = "tuned"
        assert not same(known, fingerprint(server))


def test_without_log_probabilities_texts_tell_and_without_stable_texts_nothing_does() -> None:
    with FakeServer(offers=OFFERS - {"logprobs"}) as server:
        known = fingerprint(server)
        assert (known.level, known.why) == ("texts", "the server tells no log-probabilities")
        assert same(known, fingerprint(server))
        server.weights = "tuned"
        assert not same(known, fingerprint(server))
    with FakeServer(noise=50.0) as server:
        noisy = fingerprint(server)
    assert noisy.level == "none"
    assert "nats a token" in noisy.why


def probes(texts: Sequence[str], logprobs: Sequence[Sequence[float]]) -> list[Probe]:
    rows = zip(texts, logprobs, strict=True)
    return [Probe(text=text, tokens=list(text), logprobs=list(told)) for text, told in rows]


def known_by(
    texts: Sequence[str], logprobs: Sequence[Sequence[float]], noise: float
) -> Fingerprint:
    return Fingerprint(id="x", level="weights", probes=probes(texts, logprobs), noise=noise)


def test_texts_of_one_model_that_part_at_a_tie_are_the_same_only_where_there_is_noise() -> None:
    known, tied = [[-0.1, -0.69, -0.2]], [[-0.1, -0.695, -9.0]]
    assert same(known_by(["abc"], known, 0.002), known_by(["axz"], tied, 0.0))
    assert not same(known_by(["abc"], known, 0.0), known_by(["axz"], tied, 0.0))
    assert not same(known_by(["abc"], known, 0.002), known_by(["axz"], [[-0.1, -0.2, -9.0]], 0.0))


LOGPROBS = st.lists(st.floats(-5, 0), min_size=4, max_size=4)


@given(st.lists(LOGPROBS, min_size=8, max_size=8), st.floats(0.01, 3))
def test_every_small_shift_of_all_log_probabilities_is_seen_without_noise(
    rows: list[list[float]], shift: float
) -> None:
    known = known_by(["abcd"] * 8, rows, 0.0)
    assert same(known, known)
    assert not same(known, known_by(["abcd"] * 8, [[x - shift for x in r] for r in rows], 0.0))


def test_known_models_are_found_again_in_their_file_and_a_broken_file_knows_none(
    tmp_path: Path,
) -> None:
    path = tmp_path / "f.json"
    with FakeServer() as server:
        first = KnownModels(path).recognised(fingerprint(server))
        assert KnownModels(path).get(first.id) == first
        server.noise = 0.001
        assert KnownModels(path).recognised(fingerprint(server)) == first
    path.write_text("{")
    assert KnownModels(path).get(first.id) is None


def run(server: FakeServer, out: Path, label: str = "tuned", **changes: Any) -> list[str]:
    """What a run of the suite tells on the way."""
    told: list[str] = []
    endpoint = Endpoint(label=label, base_url=server.base_url, model="fake")
    evaluate(SUITE, [endpoint], out, RUN.model_copy(update=changes), note=told.append)
    return told


def test_a_model_that_was_swapped_between_runs_is_asked_anew(tmp_path: Path) -> None:
    with FakeServer(RIGHT) as server:
        run(server, tmp_path)
        assert len(server.requests) == 20
        run(server, tmp_path)
        assert len(server.requests) == 20
        server.weights = "tuned again"
        [told] = [note for note in run(server, tmp_path) if "kept in" in note]
        assert len(server.requests) == 40
    rows = list(read_journal(tmp_path / "predictions.jsonl"))
    assert len({row.fingerprint for row in rows}) == 1
    assert len(rows) == 20
    [kept] = tmp_path.glob("predictions.until-*.jsonl")
    assert "20 answers" in told
    assert len(list(read_journal(kept))) == 20


def test_a_model_that_is_swapped_in_the_middle_of_a_run_ends_it_and_spoils_no_answers(
    tmp_path: Path,
) -> None:
    with FakeServer(RIGHT) as server:

        def swapped(messages: list[dict[str, Any]]) -> Plan:
            if len(server.requests) == 10:
                server.weights = "tuned again"
            return RIGHT[messages[-1]["content"]]

        server.script = swapped
        with pytest.raises(ChildError, match="the model changed while it was asked"):
            run(server, tmp_path)
        assert list(read_journal(tmp_path / "predictions.jsonl")) == []
        server.requests.clear()
        server.script = RIGHT
        run(server, tmp_path)
        assert len(server.requests) == 20


def test_a_restart_with_other_weights_is_seen_as_soon_as_the_server_is_back(tmp_path: Path) -> None:
    with FakeServer(RIGHT) as server:
        run(server, tmp_path, max_samples=5)
    with FakeServer(RIGHT, weights="tuned again", port=server.port) as server:
        told = run(server, tmp_path)
        assert len(server.requests) == 20
    assert any("not known to be the one" in note for note in told)


def test_two_labels_that_are_one_model_are_told(tmp_path: Path) -> None:
    with FakeServer(RIGHT) as server:
        assert not any("alike" in note for note in run(server, tmp_path, "base"))
        assert any("is the adapter loaded?" in note for note in run(server, tmp_path, "tuned"))


def test_without_probes_answers_are_kept_by_the_request_alone(tmp_path: Path) -> None:
    with FakeServer(RIGHT) as server:
        run(server, tmp_path, fingerprint=False)
        server.weights = "tuned again"
        run(server, tmp_path, fingerprint=False)
        assert len(server.requests) == 20
        assert server.probes == []


def test_a_server_that_cannot_be_recognised_is_told_and_asked_all_the_same(tmp_path: Path) -> None:
    with FakeServer(RIGHT, noise=50.0) as server:
        told = run(server, tmp_path)
        run(server, tmp_path)
        assert len(server.requests) == 20
    assert any("cannot be recognised" in note for note in told)
