"""A trained run, served by real `swift deploy` in the background, and all that asks it."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import requests
from support_e2e import Demo, RunningServer, Workshop, curled, exact, needs_curl

from palmswift.eval.reports.report import read_report
from palmswift.files import read_jsonl

pytestmark = pytest.mark.e2e

SYSTEM = "你是云雀堂的客服助理。"
QUESTION = "周一上班吗？"
ANSWER = "周一是我们固定的休诊日，整天不接诊，请您改约周二到周日。"


def conversation(question: str = QUESTION) -> list[dict[str, str]]:
    """The messages of one question, as the model was trained on."""
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]


def trained_questions(workshop: Workshop) -> list[str]:
    """The questions of the training rows that have one, in their order."""
    rows = read_jsonl(workshop.folder / "data" / "samples" / "clinic" / "train.jsonl")
    return [row["messages"][1]["content"] for row in rows if len(row["messages"]) == 3]


def completion(server: RunningServer, **changes: Any) -> requests.Response:
    """The reply to one request; `changes` replace fields of its body."""
    body = {"model": server.model, "messages": conversation(), "temperature": 0, "max_tokens": 128}
    return requests.post(f"{server.url}/chat/completions", json={**body, **changes}, timeout=120)


def test_a_plain_http_request_gets_the_trained_answer(server: RunningServer) -> None:
    reply = completion(server)
    assert reply.status_code == 200
    assert reply.json()["choices"][0]["message"]["content"].endswith(ANSWER)
    assert reply.json()["usage"]["completion_tokens"] > 0


def test_the_official_client_gets_it_whole_and_as_a_stream(server: RunningServer) -> None:
    from openai import OpenAI

    client = OpenAI(base_url=server.url, api_key="none")
    assert server.model in [model.id for model in client.models.list()]
    messages: Any = conversation()
    whole = client.chat.completions.create(
        model=server.model, messages=messages, temperature=0, max_tokens=128
    )
    text = whole.choices[0].message.content or ""
    assert text.endswith(ANSWER)
    stream = client.chat.completions.create(
        model=server.model, messages=messages, temperature=0, max_tokens=128, stream=True
    )
    pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
    assert len([piece for piece in pieces if piece]) > 1
    assert "".join(pieces) == text


@needs_curl
def test_curl_gets_it_whole_and_as_a_stream(server: RunningServer) -> None:
    body = {"messages": conversation(), "temperature": 0, "max_tokens": 128}
    whole, streamed = curled(server, body)
    assert whole.endswith(ANSWER)
    assert streamed == whole


def test_the_suite_scores_a_server_that_it_did_not_start(
    server: RunningServer, tmp_path: Path
) -> None:
    finished = server.workshop.call(
        *("python", "eval/run.py", "--suite", "eval/suites/clinic.yaml", "--max-samples", "40"),
        *("--endpoint", server.url, "--out", tmp_path / "report"),
    )
    assert finished.exit_code == 0, finished.said
    report = read_report(tmp_path / "report" / "evaluation_report.json")
    assert report.labels == ["tuned"]
    assert exact(report, "tuned") >= 0.9
    assert "a quick look at 40 of 297 cases" in finished.stdout


def test_a_killed_batch_goes_on_and_answers_every_input_once_and_in_order(
    server: RunningServer, tmp_path: Path
) -> None:
    questions = trained_questions(server.workshop)[:60]
    (tmp_path / "questions.txt").write_text("\n".join(questions), encoding="utf-8")
    out = tmp_path / "answers.jsonl"
    journal = tmp_path / "answers.jsonl.journal.jsonl"
    words = (
        *("python", "eval/batch.py", "--input", tmp_path / "questions.txt", "--system", SYSTEM),
        *("--endpoint", server.url, "--out", out, "--concurrency", "2"),
    )

    def some_are_kept() -> bool | None:
        return True if journal.is_file() and len(journal.read_bytes().splitlines()) > 5 else None

    with server.workshop.started(*words) as batch:
        batch.until("some answers are kept", some_are_kept)
        batch.signal(signal.SIGKILL)
        assert batch.wait().exit_code == -signal.SIGKILL
    kept = len(journal.read_bytes().splitlines())
    assert kept < len(questions)
    assert not out.exists()
    finished = server.workshop.call(*words)
    assert finished.exit_code == 0, finished.said
    rows = list(read_jsonl(out))
    assert [row["question"] for row in rows] == questions
    assert [row["id"] for row in rows] == [str(number) for number in range(1, 61)]
    assert all(row["answer"] and row["error"] is None for row in rows)
    assert len(list(read_jsonl(journal))) == len(questions)


def test_chat_answers_one_question(server: RunningServer) -> None:
    finished = server.workshop.call(
        *("python", "eval/chat.py", "--endpoint", server.url),
        *("--system", SYSTEM, "--input", QUESTION),
    )
    assert finished.exit_code == 0, finished.said
    assert finished.stdout == ANSWER + "\n"


def test_chat_answers_a_file_and_what_is_piped_in(server: RunningServer, tmp_path: Path) -> None:
    questions = trained_questions(server.workshop)[:3]
    file = tmp_path / "questions.txt"
    file.write_text("\n".join(questions), encoding="utf-8")
    chat = ("python", "eval/chat.py", "--endpoint", server.url, "--system", SYSTEM, "--json")
    from_file = server.workshop.call(*chat, "--file", file, "--fresh")
    assert from_file.exit_code == 0, from_file.said
    turns = from_file.document["turns"]
    assert [turn["question"] for turn in turns] == questions
    piped = server.workshop.call(*chat, stdin=f"{questions[0]}\n/reset\n{questions[1]}\n")
    assert piped.exit_code == 0, piped.said
    assert [turn["answer"] for turn in piped.document["turns"]] == [
        turn["answer"] for turn in turns[:2]
    ]


def test_a_chat_shows_its_answer_while_it_comes(server: RunningServer) -> None:
    finished = server.workshop.call(
        *("python", "eval/chat.py", "--endpoint", server.url, "--json"),
        *("--system", SYSTEM, "--input", QUESTION),
    )
    [turn] = finished.document["turns"]
    assert turn["answer"] == ANSWER
    assert 0 < turn["first_token_seconds"] < turn["seconds"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("chat/completions", b"{"),
        ("chat/completions", b"[]"),
        ("chat/completions", b'{"model": "MODEL"}'),
        ("chat/completions", b'{"model": "MODEL", "messages": "hello"}'),
        ("chat/completions", b'{"model": "no-such-model", "messages": []}'),
        ("chat/completions", b'{"model": "MODEL", "messages": [], "max_tokens": "many"}'),
        ("no/such/path", b"{}"),
    ],
)
def test_a_malformed_request_is_refused_and_the_server_lives(
    server: RunningServer, path: str, body: bytes
) -> None:
    reply = requests.post(
        f"{server.url}/{path}",
        data=body.replace(b"MODEL", server.model.encode()),
        headers={"Content-Type": "application/json"},
        timeout=60,
    )
    assert 400 <= reply.status_code < 500
    assert completion(server, max_tokens=1).status_code == 200


def test_a_taken_port_is_refused(server: RunningServer, demo: Demo) -> None:
    refused = server.workshop.call(
        *("python", "deploy/serve.py", "--run", demo.run.path.name),
        *("--port", str(server.port), "--detach", "--json"),
    )
    assert refused.exit_code == 2
    assert refused.left == []
    assert f"port {server.port} is taken" in refused.document["error"]["summary"]
    assert completion(server, max_tokens=1).status_code == 200


def test_status_and_logs_tell_of_the_server(server: RunningServer) -> None:
    status = server.workshop.call("python", "deploy/status.py", "--json")
    assert status.exit_code == 0, status.said
    [told] = status.document["servers"]
    assert (told["port"], told["condition"]) == (server.port, "ready")
    logs = server.workshop.call(
        "python", "deploy/logs.py", "--port", str(server.port), "-n", "9999"
    )
    assert logs.exit_code == 0, logs.said
    assert f"Uvicorn running on http://127.0.0.1:{server.port}" in logs.stdout
