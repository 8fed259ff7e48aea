"""Losses of references against servers whose language model, tokenizer and template are known."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_eval import QUICK

from palmswift.errors import ChildError, InputError
from palmswift.eval.asking.endpoint import Endpoint
from palmswift.eval.fake.server import FakeServer, Plan, Unigram
from palmswift.eval.measures.perplexity import Losses, Passage, through_endpoint
from palmswift.eval.measures.pieces import Unusable, cut, marked, trained_prompt

KNOWN = {"天": 0.5, "地": 0.25, "玄": 0.125, "a": 0.01, "天地": 0.3, "<|im_end|>": 0.05}
LANGUAGE = Unigram(KNOWN, unknown=0.001)
QUESTION = [{"role": "system", "content": "客服"}, {"role": "user", "content": "天？"}]
AGAIN = {"role": "user", "content": "天？"}
PASSAGES = [
    Passage("p1", QUESTION, "天地"),
    Passage("p2", QUESTION[1:], "天地玄黄 a"),
    Passage("p3", [*QUESTION, {"role": "assistant", "content": "地"}, AGAIN], "玄"),
    Passage("special", QUESTION, "天<|im_end|>\n地"),
]

SWIFT = frozenset({"prompt_logprobs", "swift"})
WAYS = {"prompt_logprobs": frozenset({"prompt_logprobs", "tokenize"}), "swift": SWIFT}
WAYS["echo"] = frozenset({"echo", "tokenize"})


def serve(language: Unigram, way: str, **more: Any) -> FakeServer:
    card = {"created": 0, "owned_by": "swift" if way == "swift" else "vllm"}
    return FakeServer(language=language, offers=WAYS[way], model_card=card, **more)


def losses(server: FakeServer, folder: Path, *passages: Passage, **extra: Any) -> Losses:
    endpoint = Endpoint(label="m", base_url=server.base_url, fingerprint=False, extra=extra)
    return through_endpoint(endpoint, passages or PASSAGES, folder / "losses.jsonl", QUICK)


def truth(language: Unigram, text: str) -> float:
    """The loss of a text that is made into tokens by itself."""
    return -sum(language.logprob(token) for token in language.tokens(text))


@pytest.mark.parametrize("way", sorted(WAYS))
def test_the_losses_are_those_of_the_known_model(tmp_path: Path, way: str) -> None:
    with serve(LANGUAGE, way) as server:
        found = losses(server, tmp_path)
        before = len(server.requests)
        again = losses(server, tmp_path)
        assert len(server.requests) == before, "replies that are there are not asked for again"
    assert found == again
    assert (found.way, found.failed) == (way, {})
    for passage, loss in zip(PASSAGES, found.losses, strict=True):
        assert loss.nats == pytest.approx(truth(LANGUAGE, passage.text), abs=1e-9)
    first = found.losses[0]
    assert (first.tokens, first.bytes) == (2, 6)
    assert first.nats_per_token == pytest.approx(math.log(8) / 2, abs=1e-9)
    assert first.perplexity == pytest.approx(math.sqrt(8), abs=1e-9)
    assert first.bits_per_byte == pytest.approx(3 / 6, abs=1e-9)
    assert found.total is not None
    assert found.total.nats == pytest.approx(sum(one.nats for one in found.losses), abs=1e-9)


@pytest.mark.parametrize("way", sorted(WAYS))
def test_no_token_stands_across_the_border_of_template_and_text(tmp_path: Path, way: str) -> None:
    """Made into tokens at once, the text would lose its first character to the template."""
    joining = Unigram(KNOWN, 0.001, merges=["\n天", "天地", "\n地", "玄<"], hybrid=True)
    with serve(joining, way) as server:
        found = losses(server, tmp_path)
    assert found.way == way
    for passage, loss in zip(PASSAGES, found.losses, strict=True):
        assert loss.nats == pytest.approx(truth(joining, passage.text), abs=1e-9)
        assert loss.tokens == len(joining.tokens(passage.text))


def test_earlier_answers_are_cut_apart_as_well(tmp_path: Path) -> None:
    joining = Unigram(KNOWN, 0.001, merges=["\n地", "地<"])
    with serve(joining, "prompt_logprobs") as server:
        losses(server, tmp_path, PASSAGES[2])
        sent = [joining.token_of(number) for number in server.requests[-1]["prompt"]]
    assert "\n地" not in sent
    assert "".join(sent) == joining.render(PASSAGES[2].prompt) + "玄"


@pytest.mark.parametrize(
    "text, kwargs, thinking",
    [
        ("天", {}, False),
        ("<think>\n地\n</think>\n\n天", {}, True),
        ("天", {"chat_template_kwargs": {"enable_thinking": True}}, False),
        ("<think>天", {"chat_template_kwargs": {"enable_thinking": False}}, True),
    ],
)
def test_the_template_thinks_where_the_text_does_whatever_the_server_is_asked_for(
    tmp_path: Path, text: str, kwargs: dict[str, Any], thinking: bool
) -> None:
    hybrid = Unigram(KNOWN, 0.001, hybrid=True)
    with serve(hybrid, "prompt_logprobs") as server:
        found = losses(server, tmp_path, Passage("p", QUESTION, text), **kwargs)
        sent = "".join(map(hybrid.token_of, server.requests[-1]["prompt"]))
    assert sent == hybrid.render(QUESTION, enable_thinking=thinking) + text
    assert found.losses[0].nats == pytest.approx(truth(hybrid, text), abs=1e-9)


def test_each_model_of_a_server_is_asked_by_its_name(tmp_path: Path) -> None:
    with serve(LANGUAGE, "prompt_logprobs", models=("base", "lora")) as server:
        for name in ("base", "lora"):
            endpoint = Endpoint(label=name, base_url=server.base_url, model=name)
            assert through_endpoint(endpoint, PASSAGES, tmp_path / "l.jsonl", QUICK).losses
        assert {body["model"] for body in server.requests} == {"base", "lora"}


def test_a_server_that_offers_nothing_is_unsupported_and_says_what_lacked(tmp_path: Path) -> None:
    with FakeServer(language=LANGUAGE, offers=frozenset()) as server:
        found = losses(server, tmp_path)
        assert not server.requests, "nothing is generated for nothing"
    assert (found.way, found.losses, found.total) == (None, [], None)
    assert "no /tokenize" in (found.reason or "")
    with FakeServer(language=LANGUAGE, offers=frozenset({"tokenize"})) as server:
        found = losses(server, tmp_path)
    assert found.way is None
    assert "no prompt_logprobs" in (found.reason or "")
    assert "does not echo" in (found.reason or "")


def test_log_probabilities_of_another_servers_cut_are_no_number(tmp_path: Path) -> None:
    """Without /tokenize nobody knows how it cuts, whatever it tells; ms-swift's own is known."""
    with FakeServer(language=LANGUAGE, offers=frozenset({"prompt_logprobs", "echo"})) as server:
        found = losses(server, tmp_path)
    assert (found.way, found.losses) == (None, [])
    with FakeServer(
        language=LANGUAGE, offers=frozenset({"swift"}), model_card={"owned_by": "swift"}
    ) as server:  # its other backends tell nothing of a prompt
        found = losses(server, tmp_path)
    assert found.way is None
    assert "swift: the server's reply has no prompt_logprobs" in (found.reason or "")


def test_a_server_that_answers_for_other_tokens_is_not_believed(tmp_path: Path) -> None:
    class Other(Unigram):
        def prompt_logprobs(self, tokens: Any) -> list[dict[str, dict[str, Any]] | None]:
            return super().prompt_logprobs([*tokens[:-1], "玄"])

    with serve(Other(KNOWN, 0.001), "prompt_logprobs") as server:
        found = losses(server, tmp_path, PASSAGES[0])
    assert found.way is None
    assert "other tokens" in (found.reason or "")


def test_a_passage_that_fails_is_named_and_the_others_stand(tmp_path: Path) -> None:
    def script(messages: list[dict[str, Any]]) -> Plan:
        return Plan(status=400, text="no") if str(ord("别")) in messages[-1]["content"] else Plan()

    refused = Passage("refused", [{"role": "user", "content": "别的？"}], "天")
    empty = Passage("empty", QUESTION, " \n")
    spaced = Passage("spaced", QUESTION, "\n天")
    tool = Passage("tool", [{"role": "user", "content": None}], "天")
    with serve(LANGUAGE, "prompt_logprobs", script=script) as server:
        found = losses(server, tmp_path, empty, spaced, refused, tool, *PASSAGES)
    assert [loss.id for loss in found.losses] == [passage.id for passage in PASSAGES]
    assert "400" in found.failed["refused"]
    assert found.failed["empty"] == "the text is empty"
    assert "begins with white space" in found.failed["spaced"]
    assert "not plain text" in found.failed["tool"]


def test_without_a_server_or_a_text_the_error_says_so(tmp_path: Path) -> None:
    endpoint = Endpoint(label="m", base_url="http://127.0.0.1:9/v1", fingerprint=False)
    with pytest.raises(ChildError, match="does not answer"):
        through_endpoint(endpoint, PASSAGES, tmp_path / "l.jsonl", QUICK)
    with pytest.raises(InputError, match="no text"):
        through_endpoint(endpoint, [Passage("e", QUESTION, " ")], tmp_path / "l.jsonl", QUICK)


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


@pytest.mark.parametrize(
    "prompt, why",
    [
        ([], "does not end with a question"),
        ([user("a"), said("b")], "does not end with a question"),
        ([user("a"), user("b")], "message 2 of the prompt is the user's"),
        ([said("a"), user("b")], "message 1 of the prompt is the assistant's"),
        ([user("a"), {"role": "system", "content": "s"}], "message 2 of the prompt is the system"),
        ([user("a"), {**said("b"), "tool_calls": [{}]}, user("c")], "message 2 .* not plain text"),
    ],
)
def test_prompts_that_training_takes_otherwise_are_refused(prompt: list[Any], why: str) -> None:
    with pytest.raises(Unusable, match=why):
        trained_prompt(prompt)


def test_an_empty_system_prompt_is_none_and_a_tools_reply_may_stand_for_the_user() -> None:
    assert trained_prompt([{"role": "system", "content": ""}, user("a")]) == [user("a")]
    tools = [user("a"), said("call"), {"role": "tool", "content": "1"}]
    assert trained_prompt(tools) == tools


TEXTS = st.text(alphabet="ab\n <>/天", min_size=1, max_size=6).map(str.strip).filter(bool)


@given(st.lists(st.tuples(TEXTS, TEXTS), max_size=3), TEXTS)
def test_the_pieces_are_the_whole_and_each_answer_is_one(
    turns: list[tuple[str, str]], last: str
) -> None:
    prompt = [message for a, b in turns for message in (user(a), said(b))] + [user(last)]
    rendered = LANGUAGE.render(prompt)
    masked = marked(prompt)
    pieces = cut(prompt, rendered, None if masked is None else LANGUAGE.render(masked))
    assert "".join(pieces) == rendered
    assert pieces[1::2] == [answer for _, answer in turns]


def test_thinking_that_the_template_takes_out_is_out_and_another_change_is_refused() -> None:
    prompt = [user("a"), said("<think>\nx\n</think>\n\nb"), user("c")]
    masked = marked(prompt)
    assert masked is not None
    with_marks = LANGUAGE.render(masked)
    without = LANGUAGE.render([user("a"), said("b"), user("c")])
    assert cut(prompt, without, with_marks)[1] == "b"
    with pytest.raises(Unusable, match="changes an earlier answer"):
        cut(prompt, LANGUAGE.render([user("a"), said("B"), user("c")]), with_marks)
    with pytest.raises(Unusable, match="leaves an earlier answer out"):
        cut(prompt, without, LANGUAGE.render([user("c")]))


def test_thinking_that_a_template_opens_is_the_answers_in_training() -> None:
    rendered = LANGUAGE.render([user("a")])
    assert cut([user("a")], f"{rendered}<think>\n", None) == [rendered]
