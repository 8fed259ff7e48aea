"""A real `swift deploy`: what the evaluation engine makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from support_asking import check_bench, check_recognised, check_stream_is_whole
from support_e2e import RunningServer

pytestmark = pytest.mark.e2e

SYSTEM = {"role": "system", "content": "你是云雀堂的客服助理。"}
QUESTION = {"role": "user", "content": "周一上班吗？"}


def test_its_model_is_recognised_alone_and_beside_other_requests(server: RunningServer) -> None:
    check_recognised(server)


def test_a_stream_gives_what_the_whole_answer_is(server: RunningServer) -> None:
    assert check_stream_is_whole(server, [SYSTEM, QUESTION])


def test_a_perplexity_is_unsupported_and_no_number(server: RunningServer) -> None:
    """Its transformers backend tells nothing of a prompt."""
    finished = server.workshop.call(
        *("python", "eval/perplexity.py", "--endpoint", f"m={server.url}", "--json"),
    )
    assert finished.exit_code == 3, finished.said
    [found] = finished.document["models"]
    assert (found["way"], found["losses"]) == (None, [])
    assert "prompt_logprobs" in found["reason"]


def test_the_load_test_measures_it(server: RunningServer, tmp_path: Path) -> None:
    check_bench(server, tmp_path / "bench")
