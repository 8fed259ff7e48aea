"""serve, status, logs and stop, as a user runs them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from support_deploy import (
    REPOSITORY,
    model_folder,
    processes_of,
    working_in_a_project,
)

from palmswift.deploy import logs, serve, status, stop
from palmswift.deploy.ports import free_port
from palmswift.deploy.readiness import ask
from palmswift.deploy.state import ServerState, read_states, servers_dir


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder is a project of its own, `swift` is the stand-in; servers are ended."""
    with working_in_a_project(tmp_path / "项目", monkeypatch) as folder:
        yield folder


def serve_words(folder: Path, *words: str) -> list[str]:
    return ["--model", str(model_folder(folder / "model")), "--port", str(free_port()), *words]


def started(folder: Path, *words: str, mode: str = "") -> subprocess.Popen[str]:
    """`deploy/serve.py` as a process; its stdout and stderr are one stream."""
    return subprocess.Popen(
        [sys.executable, str(REPOSITORY / "deploy" / "serve.py"), *serve_words(folder, *words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "STANDIN": mode},
        cwd=folder,
    )


def read_until(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if word in line:
            return
    raise AssertionError(f"{word!r} was never printed")


def kill_hard(folder: Path) -> None:
    for process in processes_of(folder):
        process.kill()
    while processes_of(folder):
        pass


def only_server() -> ServerState:
    (state,) = read_states(servers_dir())
    return state


def test_a_detached_server_answers_after_its_command_has_ended(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert serve.main(serve_words(here, "--detach", "--json")) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["detached"] is True
    assert ask(document["base_url"], "model", None).kind == "ok"


def test_status_tells_a_ready_server_from_one_that_died(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    serve.main(serve_words(here, "--detach"))
    capsys.readouterr()
    assert status.main([]) == 0
    assert capsys.readouterr().out.startswith("ready")
    kill_hard(here.parent)
    assert status.main(["--json"]) == 3
    assert json.loads(capsys.readouterr().out)["servers"][0]["condition"] == "gone"
    assert read_states(servers_dir()) == []


def test_logs_shows_the_end_of_the_log(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    serve.main(serve_words(here, "--detach"))
    capsys.readouterr()
    assert logs.main(["-n", "1"]) == 0
    assert "Uvicorn running" in capsys.readouterr().out


def test_logs_shows_as_many_lines_as_were_asked_for(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert serve.main(serve_words(here, "--detach", "--json")) == 0
    log = Path(json.loads(capsys.readouterr().out)["log"])
    with log.open("a", encoding="utf-8") as stream:
        stream.writelines(f"{number:099}\n" for number in range(2000))
    assert logs.main(["-n", "1500", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["lines"]) == 1500


def test_stop_ends_the_server_and_says_what_is_free(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    serve.main(serve_words(here, "--detach"))
    port = only_server().port
    capsys.readouterr()
    assert stop.main([]) == 0
    assert f"port {port} are free" in capsys.readouterr().out
    assert processes_of(here.parent) == []
    assert read_states(servers_dir()) == []


def test_stop_asks_which_when_several_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    serve.main(serve_words(here, "--detach"))
    serve.main(serve_words(here, "--detach"))
    assert stop.main([]) == 2
    assert "--all" in capsys.readouterr().err
    assert len(read_states(servers_dir())) == 2


def test_with_nothing_running_the_commands_say_so(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (status.main([]), stop.main([]), logs.main([])) == (0, 0, 2)
    assert stop.main(["--port", "1"]) == 2
    assert "no server on port 1" in capsys.readouterr().err


def test_ctrl_c_ends_a_ready_server_and_everything_of_it(here: Path) -> None:
    process = started(here)
    read_until(process, "Ctrl-C")
    process.send_signal(signal.SIGINT)
    told, _ = process.communicate()
    assert process.returncode == 130
    assert "processes ended" in told
    assert processes_of(here.parent) == []


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_start_leaves_nothing(here: Path, ending: signal.Signals) -> None:
    process = started(here, mode="mute")
    read_until(process, "starting swift: done")
    process.send_signal(ending)
    process.communicate()
    assert process.returncode == 130
    assert processes_of(here.parent) == []


def test_a_server_that_dies_by_itself_is_exit_code_3_with_its_last_lines(here: Path) -> None:
    process = started(here)
    read_until(process, "Ctrl-C")
    child = psutil.Process(only_server().pid).children()[0]
    child.kill()
    told, _ = process.communicate()
    assert process.returncode == 3
    assert "ended by itself" in told
    assert "Uvicorn running" in told
    assert read_states(servers_dir()) == []


def test_a_foreground_server_that_is_stopped_from_elsewhere_has_not_failed(here: Path) -> None:
    process = started(here)
    read_until(process, "Ctrl-C")
    assert stop.main([]) == 0
    told, _ = process.communicate()
    assert process.returncode == 130
    assert "stopped from outside" in told


def test_a_foreground_server_dies_with_its_killed_launcher_and_a_new_one_starts(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    process = started(here)
    read_until(process, "Ctrl-C")
    port = only_server().port
    process.kill()
    process.communicate()
    while processes_of(here.parent):
        pass
    words = ["--model", str(here / "model"), "--port", str(port), "--detach", "--json"]
    assert serve.main(words) == 0
    assert ask(json.loads(capsys.readouterr().out)["base_url"], "model", None).kind == "ok"


def test_a_start_whose_launcher_is_killed_leaves_nothing_even_detached(here: Path) -> None:
    process = started(here, "--detach", mode="mute")
    read_until(process, "starting swift: done")
    process.kill()
    process.communicate()
    while processes_of(here.parent):
        pass


def test_a_dry_run_prints_the_command_and_starts_nothing(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PALMSWIFT_API_KEY", "a-key-nobody-knows")
    words = serve_words(here, "--host", "0.0.0.0", "--set", "template=qwen3", "--dry-run")
    assert serve.main(words) == 0
    told = capsys.readouterr().out
    assert "--template qwen3" in told
    assert "nobody" not in told
    assert read_states(servers_dir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "either --run latest or --model DIR"),
        (["--model", "absent"], "no such folder"),
        (["--run", "absent"], "no run 'absent'"),
        (["--run", "latest"], "no run"),
        (["--run", "latest", "--adapter", "x"], "--adapter goes with --model"),
        (["--model", "m/m", "--port", "70000"], "--port"),
        (["--model", "m/m", "--host", "0.0.0.0"], "PALMSWIFT_API_KEY"),
        (["--model", "m/m", "--set", "max_batchsize=1"], "did you mean max_batch_size"),
        (["--model", "m/m", "--ready-timeout", "-1"], "--ready-timeout"),
        (["--model", "m/m", "--backend", "mlx"], "invalid choice"),
        (["--model", "m/m", "--backend", "sglang", "--server", "vllm"], "leave one of them out"),
    ],
)
def test_what_cannot_be_served_is_said_without_a_trace(
    here: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert serve.main(words) == 2
    told = capsys.readouterr().err
    assert said in told
    assert "Traceback" not in told


def test_help_starts_without_the_libraries_that_take_time() -> None:
    code = "import sys, palmswift.deploy.serve as s; s._parser(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert loaded.isdisjoint({"requests", "pydantic", "torch", "transformers", "swift", "jinja2"})


def test_followed_logs_end_with_the_server(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    serve.main(serve_words(here, "--detach"))
    state = only_server()
    argv = [sys.executable, str(REPOSITORY / "deploy" / "logs.py"), "--follow"]
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as follower:
        read_until(follower, "Uvicorn running")
        with Path(state.log).open("a") as log:
            log.write("a new line\n")
        read_until(follower, "a new line")
        stop.main([])
        read_until(follower, "the server has ended")
    assert follower.returncode == 0
