"""The plugin served_length with ms-swift's own engine: `max_model_len` bounds what is asked."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
from swift.infer_engine import InferRequest, RequestConfig, TransformersEngine

from palmswift.hub.embedded import build_embedded
from palmswift.recipes.recipe import EmbeddedModel

import_module("palmswift.launchers.plugins.served_length")  # as --external_plugins does

pytestmark = pytest.mark.e2e

LIMIT, OWN = 96, 2048
"""max_model_len, and what the model was made for."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small Qwen3 with random weights."""
    folder = tmp_path_factory.mktemp("model")
    corpus = folder / "corpus.jsonl"
    corpus.write_text('{"messages": [{"content": "几点开门？八点。"}]}\n', encoding="utf-8")
    build_embedded(EmbeddedModel(hidden_size=64, vocab_size=400), [corpus], folder / "m")
    return str(folder / "m")


def _engine(model: str, init: Any, **settings: Any) -> TransformersEngine:
    engine = TransformersEngine.__new__(TransformersEngine)
    settings = {"model_type": "qwen3", "template_type": "qwen3", "device_map": "cpu", **settings}
    init(engine, model, **settings)
    return engine


@pytest.fixture(scope="module")
def bounded(model: str) -> TransformersEngine:
    """The engine as `swift deploy --max_model_len 96` with the plugin makes it."""
    return _engine(model, TransformersEngine.__init__, max_model_len=LIMIT)


def _ask(engine: TransformersEngine, words: int, tokens: int) -> Any:
    question = [{"role": "user", "content": "门" * words}]
    config = RequestConfig(max_tokens=tokens, temperature=0)
    (answer,) = engine.infer([InferRequest(messages=question)], config, use_tqdm=False)
    return answer.usage


def test_without_it_ms_swift_bounds_requests_by_the_model_s_own_length(model: str) -> None:
    """When this fails, ms-swift does it by itself, and the plugin can go."""
    init = TransformersEngine.__init__.__wrapped__
    bare = _engine(model, init, max_model_len=LIMIT)
    assert bare.max_model_len == OWN


def test_an_answer_ends_where_the_length_ends(bounded: TransformersEngine) -> None:
    usage = _ask(bounded, words=3, tokens=10 * LIMIT)
    assert usage.prompt_tokens + usage.completion_tokens <= LIMIT


def test_a_question_that_leaves_no_room_is_refused(bounded: TransformersEngine) -> None:
    with pytest.raises(ValueError, match=f"max_model_len \\({LIMIT}\\)"):
        _ask(bounded, words=2 * LIMIT, tokens=1)


def test_without_a_length_of_its_own_nothing_is_changed(model: str) -> None:
    assert _engine(model, TransformersEngine.__init__).max_model_len == OWN
