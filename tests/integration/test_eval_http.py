"""The evaluation commands as real processes against a real HTTP server."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
import requests
from support_eval import call, command, sums, write_rows, write_suite
from support_terminal import Terminal

from palmswift.eval.asking.journal import read_journal
from palmswift.eval.fake.server import FakeServer, Plan
from palmswift.eval.reports.report import read_report
from palmswift.files import read_jsonl

COUNT = 120
CHAT = {"你好": Plan("<think>\n\n</think>\n\n您好"), "再见": Plan("慢走")}


def test_a_run_killed_at_random_points_loses_no_answer_and_repeats_few(tmp_path: Path) -> None:
    suite, out = write_suite(tmp_path / "s.yaml", COUNT), tmp_path / "out"
    script = {question: Plan(answer, delay=0.02) for question, answer in sums(COUNT).items()}
    draw = random.Random(7)
    concurrency = 4
    with FakeServer(script) as server:
        words = command(
            "run",
            *("--suite", suite, "--endpoint", server.base_url, "--out", out),
            *("--concurrency", str(concurrency)),
        )
        kills = 0
        for _ in range(3):
            goal = len(server.requests) + draw.randint(5, 30)
            child = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            while len(server.requests) < goal and child.poll() is None:
                time.sleep(0.001)
            child.kill()
            child.communicate()
            kills += 1
            with (out / "predictions.jsonl").open("ab") as journal:
                journal.write(b'{"endpoint": "tuned", "case": "to')  # what a kill may leave
        finished = list(read_journal(out / "predictions.jsonl"))
        assert 0 < len(finished) < COUNT
        done = subprocess.run(words, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        assert len(server.requests) <= COUNT + kills * concurrency
    rows = list(read_journal(out / "predictions.jsonl"))
    assert rows[: len(finished)] == finished
    assert sorted(row.case for row in rows) == sorted(f"sum-{n}" for n in range(COUNT))
    assert read_report(out / "evaluation_report.json").verdict == "passed"


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_says_how_to_go_on(tmp_path: Path, sign: signal.Signals) -> None:
    suite, out = write_suite(tmp_path / "s.yaml", COUNT), tmp_path / "out"
    with FakeServer(default=Plan("1", delay=0.05)) as server:
        words = command("run", "--suite", suite, "--endpoint", server.base_url, "--out", out)
        child = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while len(server.requests) < 20 and child.poll() is None:
            time.sleep(0.001)
        child.send_signal(sign)
        _, told = child.communicate(timeout=30)
    assert child.returncode == 130
    assert "the same command goes on from there" in told
    assert "Traceback" not in told
    assert list(read_journal(out / "predictions.jsonl"))


def test_exit_codes_say_what_happened(tmp_path: Path) -> None:
    suite = write_suite(tmp_path / "s.yaml", 10)

    def code(script: dict[str, Plan], out: str) -> int:
        with FakeServer(script) as server:
            words = ("--suite", suite, "--endpoint", server.base_url, "--out", tmp_path / out)
            return call("run", *words).returncode

    right = {question: Plan(answer) for question, answer in sums(10).items()}
    assert code(right, "good") == 0
    assert code({**right, "0+1?": Plan("?"), "1+1?": Plan("?")}, "gate") == 1
    assert code({**right, "0+1?": Plan(status=400)}, "incomplete") == 4
    assert code({question: Plan(body=b"<html>") for question in right}, "garbage") == 3


def test_an_endpoint_that_is_down_is_one_message_and_leaves_nothing(tmp_path: Path) -> None:
    suite = write_suite(tmp_path / "s.yaml", 3)
    with FakeServer() as server:
        gone = server.base_url
    done = call("run", "--suite", suite, "--endpoint", gone, "--out", tmp_path / "out", "--json")
    assert done.returncode == 3
    assert json.loads(done.stdout)["error"]["kind"] == "ChildError"
    assert "connection refused" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_json_has_the_summary_and_the_files_and_nothing_else_on_stdout(tmp_path: Path) -> None:
    suite = write_suite(tmp_path / "s.yaml", 5)
    plans = {question: Plan(answer) for question, answer in sums(5).items()}
    with FakeServer(plans) as server:
        models = tmp_path / "m.yaml"
        models.write_text(f"endpoints: [{{label: tuned, base_url: '{server.base_url}'}}]")
        words = ("--suite", suite, "--models", models, "--out", tmp_path / "out", "--json")
        document = json.loads(call("run", *words).stdout)
    assert document["verdict"] == "passed"
    assert all(Path(path).is_file() for path in document["files"].values())


def test_the_official_client_and_requests_get_the_same_answers_from_the_fake_server() -> None:
    messages = [{"role": "user", "content": "再见"}]
    with FakeServer(CHAT, api_key="key") as server:
        client = openai.OpenAI(base_url=server.base_url, api_key="key", max_retries=0)
        assert [model.id for model in client.models.list()] == ["fake"]
        whole = client.chat.completions.create(
            model="fake", messages=[{"role": "user", "content": "再见"}]
        )
        pieces = client.chat.completions.create(
            model="fake", messages=[{"role": "user", "content": "再见"}], stream=True
        )
        streamed = "".join(event.choices[0].delta.content or "" for event in pieces)
        plain = requests.post(
            f"{server.base_url}/chat/completions",
            json={"model": "fake", "messages": messages},
            headers={"Authorization": "Bearer key"},
            timeout=10,
        ).json()
        assert whole.choices[0].message.content == streamed == "慢走"
        assert plain["choices"][0]["message"]["content"] == "慢走"
        assert whole.usage is not None
        assert whole.usage.completion_tokens == 2
        with pytest.raises(openai.AuthenticationError):
            openai.OpenAI(base_url=server.base_url, api_key="no", max_retries=0).models.list()
    with FakeServer(default=Plan(status=429)) as server:
        client = openai.OpenAI(base_url=server.base_url, api_key="key", max_retries=0)
        with pytest.raises(openai.RateLimitError):
            client.chat.completions.create(
                model="fake", messages=[{"role": "user", "content": "再见"}]
            )


def test_a_killed_batch_goes_on_and_ends_with_every_input_in_order(tmp_path: Path) -> None:
    source = write_rows(
        tmp_path / "q.jsonl", [{"id": f"q{n}", "question": f"{n}"} for n in range(60)]
    )
    out = tmp_path / "a.jsonl"
    with FakeServer(lambda messages: Plan(messages[-1]["content"] * 2, delay=0.02)) as server:
        words = command("batch", "--input", source, "--endpoint", server.base_url, "--out", out)
        child = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while len(server.requests) < 20 and child.poll() is None:
            time.sleep(0.001)
        child.kill()
        child.wait()
        assert not out.exists()
        assert subprocess.run(words, capture_output=True, check=False).returncode == 0
        assert len(server.requests) <= 60 + 8
    rows = list(read_jsonl(out))
    assert [row["id"] for row in rows] == [f"q{n}" for n in range(60)]
    assert [row["answer"] for row in rows] == [f"{n}{n}" for n in range(60)]


def test_chat_answers_one_question_without_its_thinking() -> None:
    with FakeServer(CHAT) as server:
        done = call("chat", "--endpoint", server.base_url, "--input", "你好")
        document = json.loads(
            call("chat", "--endpoint", server.base_url, "--input", "你好", "--json").stdout
        )
    assert (done.returncode, done.stdout) == (0, "您好\n")
    assert document["turns"][0]["answer"] == "您好"
    assert document["turns"][0]["first_token_seconds"] is not None


def test_chat_asks_a_file_in_one_conversation_or_in_fresh_ones(tmp_path: Path) -> None:
    questions = tmp_path / "q.txt"
    questions.write_text("你好\n再见\n", encoding="utf-8")
    with FakeServer(CHAT) as server:
        words = ("--endpoint", server.base_url, "--file", questions, "--system", "客服")
        assert call("chat", *words).stdout == "> 你好\n您好\n> 再见\n慢走\n"
        assert call("chat", *words, "--fresh").returncode == 0
        lengths = [len(body["messages"]) for body in server.requests]
        second = server.requests[1]["messages"]
    assert lengths == [2, 4, 2, 2]
    assert [turn["content"] for turn in second] == ["客服", "你好", "您好", "再见"]


def test_chat_takes_piped_lines_and_commands_and_saves_a_training_row(tmp_path: Path) -> None:
    saved = tmp_path / "saved" / "chat.jsonl"
    typed = f"再见\n/reset\n/system 客服\n你好\n/save {saved}\n/nonsense\n/quit\n再见\n"
    with FakeServer(CHAT) as server:
        done = call("chat", "--endpoint", server.base_url, stdin=typed)
        assert len(server.requests) == 2
    assert (done.returncode, done.stdout) == (0, "慢走\n您好\n")
    assert "no command '/nonsense'" in done.stderr
    [row] = read_jsonl(saved)
    assert [turn["role"] for turn in row["messages"]] == ["system", "user", "assistant"]
    assert row["messages"][-1]["content"] == "您好"


def test_chat_tells_a_failing_server_from_thinking_that_never_ended(tmp_path: Path) -> None:
    plans = {"坏": Plan(status=500), "想": Plan("<think>想啊想", finish_reason="length")}
    with FakeServer(plans) as server:
        broken = call("chat", "--endpoint", server.base_url, "--input", "坏")
        endless = call("chat", "--endpoint", server.base_url, "--input", "想")
    assert broken.returncode == 3
    assert "HTTP 500" in broken.stderr
    assert endless.returncode == 4
    assert "thinking never ended" in endless.stderr


def slow() -> Iterator[str]:
    for n in range(1000):
        yield f"{n} "


def test_chat_on_a_terminal_keeps_history_and_ctrl_c_stops_the_answer_only() -> None:
    plans = {**CHAT, "数数": Plan(chunks=list(slow()), chunk_delay=0.02)}
    with FakeServer(plans) as server:
        terminal = Terminal(command("chat", "--endpoint", server.base_url))
        terminal.expect("> ")
        terminal.type("你好\n")
        terminal.expect("您好")
        terminal.expect("> ")
        terminal.type("数数\n")
        terminal.expect("5 6 7")
        terminal.interrupt()
        terminal.expect("stopped")
        terminal.expect("> ")
        terminal.type("再见\n")
        terminal.expect("慢走")
        terminal.expect("> ")
        terminal.interrupt()
        terminal.expect("again")
        terminal.type("/quit\n")
        assert terminal.end() == 0
        assert [turn["content"] for turn in server.requests[-1]["messages"]] == [
            "你好",
            "您好",
            "再见",
        ]
