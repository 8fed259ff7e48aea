"""Losses of references against a server whose language model is known."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from support_eval import QUICK

from palmswift.errors import ChildError, InputError
from palmswift.eval.asking.endpoint import Endpoint
from palmswift.eval.fake.server import FakeServer, Plan, Unigram
from palmswift.eval.measures.perplexity import Losses, Passage, through_endpoint

LANGUAGE = Unigram({"天": 0.5, "地": 0.25, "玄": 0.125, "a": 0.01}, unknown=0.001)
QUESTION = [{"role": "system", "content": "客服"}, {"role": "user", "content": "天？"}]
PASSAGES = [
    Passage("p1", QUESTION, "天地"),
    Passage("p2", QUESTION[1:], "天地玄黄 a"),
    Passage("p3", [*QUESTION, {"role": "assistant", "content": "地"}, QUESTION[1]], "玄"),
]
TRUTH = {p.id: -sum(LANGUAGE.logprob(c) for c in p.text) for p in PASSAGES}


def losses(server: FakeServer, folder: Path) -> Losses:
    endpoint = Endpoint(label="m", base_url=server.base_url, fingerprint=False)
    return through_endpoint(endpoint, PASSAGES, folder / "losses.jsonl", QUICK)


@pytest.mark.parametrize("way", ["prompt_logprobs", "echo"])
def test_the_losses_are_those_of_the_known_model(tmp_path: Path, way: str) -> None:
    with FakeServer(language=LANGUAGE, offers=frozenset({way})) as server:
        found = losses(server, tmp_path)
        before = len(server.requests)
        again = losses(server, tmp_path)
        assert len(server.requests) == before, "replies that are there are not asked for again"
    assert found == again
    assert found.way == way
    assert not found.failed
    for loss in found.losses:
        assert loss.nats == pytest.approx(TRUTH[loss.id], abs=1e-9)
    first = found.losses[0]
    assert (first.tokens, first.bytes) == (2, 6)
    assert first.nats_per_token == pytest.approx(math.log(8) / 2, abs=1e-9)
    assert first.perplexity == pytest.approx(math.sqrt(8), abs=1e-9)
    assert first.bits_per_byte == pytest.approx(3 / 6, abs=1e-9)
    assert found.total is not None
    assert found.total.nats == pytest.approx(sum(TRUTH.values()), abs=1e-9)


def test_a_server_that_offers_nothing_is_unsupported_and_says_what_lacked(tmp_path: Path) -> None:
    with FakeServer(language=LANGUAGE, offers=frozenset()) as server:
        found = losses(server, tmp_path)
    assert (found.way, found.losses, found.total) == (None, [], None)
    assert "no prompt_logprobs" in (found.reason or "")
    assert "does not echo" in (found.reason or "")


def test_a_template_that_is_not_chatml_is_not_guessed_at(tmp_path: Path) -> None:
    class Other(Unigram):
        def render(self, *args: object, **kwargs: object) -> str:
            return "[INST] 天？ [/INST]"

    other = Other({"天": 0.5}, unknown=0.001)
    with FakeServer(language=other, offers=frozenset({"echo"})) as server:
        found = losses(server, tmp_path)
    assert found.way is None
    assert "not ChatML" in (found.reason or "")


def test_the_empty_thinking_that_a_template_puts_before_an_answer_costs_nothing(
    tmp_path: Path,
) -> None:
    class Hybrid(Unigram):
        """As Qwen3's template: the last answer is rendered with an empty block of thinking."""

        def render(
            self,
            messages: Iterable[Mapping[str, Any]],
            *,
            add_generation_prompt: bool = True,
            continue_final_message: bool = False,
        ) -> str:
            turns = [dict(message) for message in messages]
            if turns[-1]["role"] == "assistant":
                turns[-1]["content"] = f"<think>\n\n</think>\n\n{turns[-1]['content']}"
            return super().render(
                turns,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=continue_final_message,
            )

    hybrid = Hybrid(LANGUAGE.probabilities, LANGUAGE.unknown)
    with FakeServer(language=hybrid, offers=frozenset({"prompt_logprobs"})) as server:
        found = losses(server, tmp_path)
    assert [loss.nats for loss in found.losses] == pytest.approx(list(TRUTH.values()), abs=1e-9)


def test_a_passage_whose_request_fails_is_named_and_the_others_stand(tmp_path: Path) -> None:
    script = {"别的？": Plan(status=400, text="no")}
    bad = Passage("bad", [{"role": "user", "content": "别的？"}], "天")
    with FakeServer(script, language=LANGUAGE) as server:
        endpoint = Endpoint(label="m", base_url=server.base_url, fingerprint=False)
        found = through_endpoint(endpoint, [*PASSAGES, bad], tmp_path / "l.jsonl", QUICK)
    assert [loss.id for loss in found.losses] == ["p1", "p2", "p3"]
    assert "400" in found.failed["bad"]


def test_without_a_server_or_a_text_the_error_says_so(tmp_path: Path) -> None:
    endpoint = Endpoint(label="m", base_url="http://127.0.0.1:9/v1", fingerprint=False)
    with pytest.raises(ChildError, match="does not answer"):
        through_endpoint(endpoint, PASSAGES, tmp_path / "l.jsonl", QUICK)
    with pytest.raises(InputError, match="no text"):
        through_endpoint(endpoint, [Passage("e", QUESTION, " ")], tmp_path / "l.jsonl", QUICK)
