"""An adapter and its base on a real vLLM: parity, models by name, what evaluation makes of it."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import requests
from support_asking import (
    WITHOUT_THINKING,
    check_bench,
    check_recognised,
    check_stream_is_whole,
    replies,
)
from support_e2e import Demo, RunningServer, curled, exact, needs_curl, report_of

from palmswift.deploy.board import PANELS
from palmswift.deploy.spec import base_of_run
from palmswift.eval.reports.report import read_report
from palmswift.files import read_jsonl

pytestmark = pytest.mark.e2e

NAMES = {"base": "base", "tuned": "demo_cpu_lora"}
"""What the evaluation calls them, and what the server does."""

SYSTEM = {"role": "system", "content": "你是云雀堂的客服助理。"}
QUESTION = {"role": "user", "content": "周一上班吗？"}
TURNS = [{"role": "user", "content": "你好"}, {"role": "assistant", "content": "您好，请讲。"}]
ANSWER = "周一是我们固定的休诊日，整天不接诊，请您改约周二到周日。"


def test_its_model_is_recognised_alone_and_beside_other_requests(
    vllm_server: RunningServer,
) -> None:
    known = check_recognised(vllm_server)
    assert known.card["parent"] == "base"
    assert "checkpoint" in known.card["root"]


def test_the_trained_answer_comes_whole_and_as_a_stream(vllm_server: RunningServer) -> None:
    assert check_stream_is_whole(vllm_server, [SYSTEM, QUESTION]) == ANSWER


def test_the_log_probabilities_of_a_reference_come_in_both_ways_and_agree(
    vllm_server: RunningServer,
) -> None:
    answer = {"role": "assistant", "content": ANSWER}
    chat = {"messages": [SYSTEM, QUESTION, answer], "prompt_logprobs": 0, "max_tokens": 1}
    [through_chat] = replies(vllm_server, {**chat, "add_generation_prompt": False})
    assert through_chat.prompt_logprobs is not None
    assert through_chat.prompt_logprobs[0] is None
    text = "周一是我们固定的休诊日"
    echoed = {"prompt": text, "echo": True, "logprobs": 0, "max_tokens": 1, "temperature": 0}
    plain = {"prompt": text, "prompt_logprobs": 0, "max_tokens": 1, "temperature": 0}
    by_echo, by_prompt = replies(vllm_server, echoed, plain, route="completion")
    assert by_prompt.prompt_logprobs is not None
    told = [next(iter(entry.values())) for entry in by_prompt.prompt_logprobs if entry is not None]
    values = by_echo.logprobs["token_logprobs"][1 : 1 + len(told)]
    assert [entry["logprob"] for entry in told] == pytest.approx(values, abs=1e-3)
    assert all(math.isfinite(value) and value <= 0 for value in values)
    assert by_echo.content is not None and by_echo.content.startswith(text)


CONVERSATIONS = [
    [SYSTEM, QUESTION, {"role": "assistant", "content": ANSWER}],
    [QUESTION, {"role": "assistant", "content": "周一<|im_end|>\n休诊"}],
    [SYSTEM, *TURNS, QUESTION, {"role": "assistant", "content": "Closed on Monday."}],
    [QUESTION, {"role": "assistant", "content": "<think>\n周一\n</think>\n\n周一休诊。"}],
]


def test_a_perplexity_is_that_of_the_folder_which_is_served(
    vllm_server: RunningServer, lora_demo: Demo, tmp_path: Path
) -> None:
    """Of what training makes of a text; transformers takes the same tokens from the same folder."""
    model = base_of_run(lora_demo.run).model
    suite = {
        "name": "turns",
        "cases": [
            {"id": str(number), "messages": turns[:-1], "reference": turns[-1]["content"]}
            for number, turns in enumerate(CONVERSATIONS)
        ],
    }
    (tmp_path / "suite.yaml").write_text(json.dumps(suite), encoding="utf-8")
    finished = vllm_server.workshop.call(
        *("python", "eval/perplexity.py", "--suite", tmp_path / "suite.yaml", "--json"),
        *("--endpoint", f"served={vllm_server.url}", "--model", "base"),
        *("--folder", f"trained={model}"),
        *("--extra", json.dumps(WITHOUT_THINKING)),
    )
    assert finished.exit_code == 0, finished.said
    served, trained = finished.document["models"]
    assert (served["way"], trained["way"]) == ("prompt_logprobs", "local")
    assert not served["failed"]
    for ours, theirs in zip(served["losses"], trained["losses"], strict=True):
        assert ours["tokens"] == theirs["tokens"]
        assert ours["nats"] / ours["tokens"] == pytest.approx(
            theirs["nats"] / theirs["tokens"], abs=1e-3
        )


def test_the_suite_finds_the_same_answers_as_behind_swift_deploy(
    vllm_server: RunningServer, lora_demo: Demo, tmp_path: Path
) -> None:
    finished = vllm_server.workshop.call(
        *("python", "eval/run.py", "--suite", "eval/suites/clinic.yaml", "--max-samples", "40"),
        *("--endpoint", vllm_server.url, "--model", vllm_server.model),
        *("--out", tmp_path / "report"),
    )
    assert finished.exit_code == 0, finished.said
    report = read_report(tmp_path / "report" / "evaluation_report.json")
    served_by_swift = report_of(lora_demo.run)
    assert exact(report, "tuned") >= min(0.9, exact(served_by_swift, "tuned"))
    rows = list(read_jsonl(tmp_path / "report" / "predictions.jsonl"))
    assert len({row["fingerprint"] for row in rows}) == 1


def test_an_openai_batch_file_is_answered(vllm_server: RunningServer, tmp_path: Path) -> None:
    body = {"messages": [SYSTEM, QUESTION], "max_tokens": 64, "temperature": 0}
    lines = [
        {"custom_id": f"q{n}", "method": "POST", "url": "/v1/chat/completions", "body": body}
        for n in range(3)
    ]
    source = tmp_path / "batch.jsonl"
    source.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    finished = vllm_server.workshop.call(
        *("python", "eval/batch.py", "--input", source, "--endpoint", vllm_server.url),
        *("--model", vllm_server.model),
        *("--out", tmp_path / "results.jsonl"),
    )
    assert finished.exit_code == 0, finished.said
    rows = list(read_jsonl(tmp_path / "results.jsonl"))
    assert [row["custom_id"] for row in rows] == ["q0", "q1", "q2"]
    texts = {row["response"]["body"]["choices"][0]["message"]["content"] for row in rows}
    assert texts == {ANSWER}


def test_it_measures_every_number_that_the_board_shows_and_says_it_is_well_without_a_key(
    vllm_server: RunningServer,
) -> None:
    root = vllm_server.url.removesuffix("/v1")
    assert requests.get(f"{root}/health", timeout=10).status_code == 200
    measured = requests.get(f"{root}/metrics", timeout=10).text
    shown = {
        name
        for panel in PANELS
        for expression in panel.expressions.values()
        for name in re.findall(r"vllm:\w+", expression)
    }
    assert {name for name in shown if not re.search(rf"^{name}\{{", measured, re.M)} == set()


def test_the_load_test_measures_it(vllm_server: RunningServer, tmp_path: Path) -> None:
    check_bench(vllm_server, tmp_path / "bench")


def test_it_was_found_to_be_the_trained_model_before_it_was_ready(
    vllm_server: RunningServer, lora_demo: Demo
) -> None:
    assert "the trained model" in vllm_server.started.document["parity"]
    told = json.loads((lora_demo.run.path / "deploy" / "parity.json").read_text())
    assert told["tells_tokens"]
    assert {one["prompt"] for one in told["prompts"]} == {"same"}


def test_base_and_tuned_on_one_server_are_compared_by_the_suite(
    vllm_server: RunningServer, tmp_path: Path
) -> None:
    at = {"base_url": vllm_server.url}
    models = [{"label": label, **at, "model": name} for label, name in NAMES.items()]
    (tmp_path / "models.yaml").write_text(json.dumps({"endpoints": models}), encoding="utf-8")
    finished = vllm_server.workshop.call(
        *("python", "eval/run.py", "--suite", "eval/suites/clinic.yaml", "--max-samples", "24"),
        *("--models", tmp_path / "models.yaml", "--out", tmp_path / "report"),
        *("--max-tokens", "96"),
    )
    assert finished.exit_code == 0, finished.said
    report = read_report(tmp_path / "report" / "evaluation_report.json")
    assert report.labels == ["base", "tuned"]
    assert exact(report, "base") < exact(report, "tuned")


def test_its_models_are_known_by_their_names_to_the_official_client(
    vllm_server: RunningServer,
) -> None:
    from openai import OpenAI

    client = OpenAI(base_url=vllm_server.url, api_key="none")
    assert {model.id for model in client.models.list()} == {*NAMES.values(), "older"}
    messages: Any = [SYSTEM, QUESTION]
    said = {}
    for name in (*NAMES.values(), "older"):
        stream = client.chat.completions.create(
            model=name, messages=messages, max_tokens=64, stream=True
        )
        said[name] = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert said["demo_cpu_lora"] == ANSWER
    assert said["base"] not in ("", ANSWER)


@needs_curl
def test_curl_gets_the_trained_answer_whole_and_as_a_stream(vllm_server: RunningServer) -> None:
    body = {"messages": [SYSTEM, QUESTION], "max_tokens": 64}
    assert curled(vllm_server, body) == (ANSWER, ANSWER)


def test_what_is_malformed_or_too_large_is_refused_and_it_lives(vllm_server: RunningServer) -> None:
    whole = {"model": vllm_server.model, "messages": [QUESTION], "max_tokens": 1}
    wrong = [{**whole, "messages": "hi"}, {**whole, "model": "none"}, {**whole, "max_tokens": -1}]
    for body in (*(json.dumps(one).encode() for one in wrong), b"{", b"[]"):
        assert 400 <= chat(vllm_server, body).status_code < 500, body
    large = {**whole, "messages": [{"role": "user", "content": "x" * 3_000_000}]}
    assert chat(vllm_server, json.dumps(large).encode()).status_code == 413
    assert chat(vllm_server, json.dumps(whole).encode()).status_code == 200


def chat(server: RunningServer, body: bytes) -> requests.Response:
    """The reply to a body as it is."""
    headers = {"Content-Type": "application/json"}
    return requests.post(f"{server.url}/chat/completions", data=body, headers=headers, timeout=60)
