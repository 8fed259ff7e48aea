"""eval/chat.py on a terminal: models side by side, commands, and turns that become test cases."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support_eval import call, command
from support_terminal import Terminal

from palmswift.errors import InputError
from palmswift.eval.fake.server import FakeServer, Plan
from palmswift.eval.suites.case_file import add_case
from palmswift.eval.suites.suite import load_suite

BASE = {"几点开门": Plan("不知道"), "再见": Plan("bye")}
TUNED = {"几点开门": Plan("<think>查一下</think>上午八点半"), "再见": Plan("慢走")}


@pytest.fixture
def servers() -> Iterator[tuple[FakeServer, FakeServer]]:
    """A base and a tuned model."""
    with FakeServer(BASE) as base, FakeServer(TUNED, models=("tuned-v1", "tuned-v2")) as tuned:
        yield base, tuned


def both(servers: tuple[FakeServer, FakeServer]) -> list[str]:
    """The arguments that name both."""
    base, tuned = servers
    return ["--endpoint", f"base={base.base_url}", "--endpoint", f"tuned={tuned.base_url}"]


def test_two_models_answer_side_by_side_and_keep_their_own_history(
    servers: tuple[FakeServer, FakeServer],
) -> None:
    terminal = Terminal(command("chat", *both(servers)))
    terminal.expect("> ")
    terminal.type("几点开门\n")
    terminal.expect("base")
    terminal.expect("tuned")
    terminal.expect("不知道")
    terminal.expect("上午八点半")
    terminal.expect("> ")
    terminal.type("再见\n")
    terminal.expect("慢走")
    terminal.expect("> ")
    terminal.type("/quit\n")
    assert terminal.end() == 0
    said = [[turn["content"] for turn in s.requests[-1]["messages"]] for s in servers]
    assert said == [["几点开门", "不知道", "再见"], ["几点开门", "上午八点半", "再见"]]


def test_model_switches_between_endpoints_and_between_a_servers_models(
    servers: tuple[FakeServer, FakeServer],
) -> None:
    terminal = Terminal(command("chat", *both(servers)))
    terminal.expect("> ")
    terminal.type("/model tuned\n")
    terminal.expect("* tuned: tuned-v1")
    terminal.expect("> ")
    terminal.type("/model tuned-v2\n")
    terminal.expect("* tuned: tuned-v2")
    terminal.expect("> ")
    terminal.type("再见\n")
    terminal.expect("慢走")
    terminal.expect("> ")
    terminal.type("/model none\n")
    terminal.expect("tuned serves: tuned-v1, tuned-v2")
    terminal.expect("> ")
    terminal.type("/model all\n")
    terminal.expect("* base")
    terminal.expect("> ")
    terminal.type("再见\n")
    terminal.expect("bye")
    terminal.expect("> ")
    terminal.type("\x04")
    assert terminal.end() == 0
    base, tuned = servers
    assert [request["model"] for request in tuned.requests] == ["tuned-v2", "tuned-v2"]
    assert len(base.requests) == 1


def test_a_turn_is_asked_again_and_saved_as_a_case_of_a_suite(
    servers: tuple[FakeServer, FakeServer], tmp_path: Path
) -> None:
    suite = tmp_path / "mine.yaml"
    terminal = Terminal(command("chat", *both(servers), "--system", "你是客服。"))
    terminal.expect("> ")
    terminal.type("/retry\n")
    terminal.expect("nothing to ask again")
    terminal.type(f"/save {suite} tuned\n")
    terminal.expect("nothing to save yet")
    terminal.expect("> ")
    terminal.type("几点开门\n")
    terminal.expect("上午八点半")
    terminal.expect("> ")
    terminal.type("/retry\n")
    terminal.expect("上午八点半")
    terminal.expect("> ")
    terminal.type(f"/save {suite}\n")
    terminal.expect("whose answer?")
    terminal.type(f"/save {suite} tuned\n")
    terminal.expect("as the case chat-")
    terminal.type(f"/save {suite} tuned\n")
    terminal.expect("is a case already")
    terminal.type(f"/save {tmp_path}/rows.jsonl base\n")
    terminal.expect("saved to")
    terminal.type("/quit\n")
    assert terminal.end() == 0
    assert [len(server.requests) for server in servers] == [2, 2]
    assert len(servers[1].requests[-1]["messages"]) == 2, "the answer was taken back"
    [case] = load_suite(suite).cases
    assert [turn.content for turn in case.turns] == ["你是客服。", "几点开门"]
    assert case.reference == "上午八点半"
    row = json.loads((tmp_path / "rows.jsonl").read_text(encoding="utf-8"))
    assert row["messages"][-1]["content"] == "不知道"


def test_one_model_that_fails_stops_neither_the_other_nor_the_chat() -> None:
    with FakeServer(TUNED) as good, FakeServer(default=Plan(status=500)) as bad:
        words = ("--endpoint", f"a={good.base_url}", "--endpoint", f"b={bad.base_url}")
        done = call("chat", *words, "--input", "再见", "--json")
        piped = call("chat", *words, stdin="再见\n再见\n")
        alone = call("chat", "--endpoint", f"b={bad.base_url}", "--input", "再见")
    turns = json.loads(done.stdout)["turns"]
    assert [(turn["label"], turn["answer"]) for turn in turns] == [("a", "慢走"), ("b", None)]
    assert "HTTP 500" in turns[1]["error"]
    assert done.returncode == 4
    assert piped.stdout.count("[a] 慢走") == 2
    assert "b: error:" in piped.stderr
    assert alone.returncode == 3


def test_a_server_must_be_named() -> None:
    done = call("chat")
    assert (done.returncode, "which server?" in done.stderr) == (2, True)


SUITE = """\
# my suite
name: mine
cases:
  - id: a      # the first
    question: |
      两行
      问题
  - id: b
    question: q

# gates come last
gates:
  - {metric: error_rate, max: 0}
"""


def test_a_case_is_added_without_touching_what_stands_there(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(SUITE, encoding="utf-8")
    messages = [{"role": "user", "content": "新: 问题 # 1\n- x"}]
    name = add_case(path, messages, "答: 案")
    suite = load_suite(path)
    assert [case.id for case in suite.cases] == ["a", "b", name]
    assert suite.cases[-1].turns[0].content == "新: 问题 # 1\n- x"
    assert len(suite.gates) == 1
    kept = [line for line in path.read_text(encoding="utf-8").splitlines() if line in SUITE]
    assert [line for line in kept if line.strip()] == [line for line in SUITE.splitlines() if line]
    again = add_case(path, [{"role": "user", "content": "另一个"}], "是")
    assert [case.id for case in load_suite(path).cases] == ["a", "b", name, again]


@pytest.mark.parametrize(
    "text",
    [
        "name: m\ncases:\n- {id: a, question: q}",
        "name: m\ncases:\n- id: a\n  question: q\n  # the end",
        "name: m\nfrom_dataset:\n  - {path: d.jsonl}\n",
    ],
)
def test_a_case_finds_its_place_in_suites_of_other_forms(tmp_path: Path, text: str) -> None:
    row = {"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "v"}]}
    (tmp_path / "d.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    path = tmp_path / "s.yaml"
    path.write_text(text, encoding="utf-8")
    add_case(path, [{"role": "user", "content": "new"}], "yes")
    cases = load_suite(path).cases
    assert len(cases) == 2
    assert cases[-1].reference == "yes"


def test_what_nothing_can_be_added_to_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    text = "name: m\ncases: [{id: a, question: q}]\n"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match="brackets"):
        add_case(path, [{"role": "user", "content": "new"}], "yes")
    assert path.read_text(encoding="utf-8") == text
    with pytest.raises(InputError):
        add_case(path, [{"role": "nobody", "content": "new"}], "yes")
    fresh = tmp_path / "fresh.yaml"
    with pytest.raises(InputError):
        add_case(fresh, [{"role": "nobody", "content": "new"}], "yes")
    assert not fresh.exists()
