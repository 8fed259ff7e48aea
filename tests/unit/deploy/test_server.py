"""A server is ready when it answers, and nothing of it is left when it is stopped."""

from __future__ import annotations

import os
import signal
import socket
import stat
from pathlib import Path

import psutil
import pytest
from pydantic import SecretStr
from support_deploy import processes_of, spec_of, stand_in

from palmswift.deploy.ending import end_server
from palmswift.deploy.ports import free_port, holder_of
from palmswift.deploy.readiness import ask
from palmswift.deploy.server import Server
from palmswift.deploy.spec import ServerSpec
from palmswift.deploy.state import live_members, read_states
from palmswift.errors import ChildError, InputError


@pytest.fixture(autouse=True)
def swift(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every server here runs the stand-in."""
    monkeypatch.setenv("PALMSWIFT_SWIFT", stand_in(tmp_path))


def server_of(folder: Path, spec: ServerSpec, **options: object) -> Server:
    server = Server(spec, folder=folder / "deploy", registry=folder / "servers", grace=0.3)
    for name, value in options.items():
        setattr(server, name, value)
    return server


def failure_of(folder: Path, spec: ServerSpec) -> str:
    """What is said when the server does not get ready; nothing of it may be left."""
    with pytest.raises(ChildError) as caught, server_of(folder, spec):
        raise AssertionError("the server came up")
    assert processes_of(folder) == []
    assert read_states(folder / "servers") == []
    return str(caught.value)


def test_inside_the_block_it_answers_and_after_it_nothing_is_left(tmp_path: Path) -> None:
    with server_of(tmp_path, spec_of(tmp_path)) as server:
        assert ask(server.base_url, "demo", None).kind == "ok"
        assert len(processes_of(tmp_path)) == 2
        assert [state.port for state in read_states(tmp_path / "servers")] == [server.port]
    assert processes_of(tmp_path) == []
    assert read_states(tmp_path / "servers") == []
    assert holder_of(server.port) is None


def test_the_steps_of_the_start_are_timed(tmp_path: Path) -> None:
    with server_of(tmp_path, spec_of(tmp_path)) as server:
        names = [phase.name for phase in server.phases]
    assert names[0] == "starting swift"
    assert names[-1] == "waiting for the first completion"


def test_the_command_that_ran_is_kept(tmp_path: Path) -> None:
    with server_of(tmp_path, spec_of(tmp_path)) as server:
        script = (tmp_path / "deploy" / f"{server.port}.sh").read_text()
    assert f"--port {server.port}" in script
    assert "模型 1" in script


def test_a_taken_port_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        with pytest.raises(InputError, match=f"process {os.getpid()}"):
            server_of(tmp_path, spec_of(tmp_path, port=port)).start()
    assert not (tmp_path / "deploy").exists()


def test_a_port_is_refused_while_another_server_is_still_starting_on_it(tmp_path: Path) -> None:
    port = free_port()
    first = server_of(tmp_path, spec_of(tmp_path, "mute", port=port))
    try:
        first.start()
        with pytest.raises(InputError, match="demo is served there"):
            server_of(tmp_path, spec_of(tmp_path, port=port)).start()
    finally:
        first.stop()


def test_a_server_that_moved_to_another_port_is_not_ready(tmp_path: Path) -> None:
    assert "moved to" in failure_of(tmp_path, spec_of(tmp_path, "moves"))


def test_a_server_that_ends_early_is_explained_from_its_log(tmp_path: Path) -> None:
    told = failure_of(tmp_path, spec_of(tmp_path, "die"))
    assert "the backend is not installed: vllm" in told
    assert "exit code 1" in told


def test_a_start_that_stalls_ends_at_its_time_with_what_it_was_doing(tmp_path: Path) -> None:
    told = failure_of(tmp_path, spec_of(tmp_path, "mute", ready_timeout=0.6))
    assert "within 1 s" in told
    assert "loading the model" in told


@pytest.mark.parametrize(
    ("mode", "said"), [("refuses", "adapter_names"), ("garbage", "not a chat completion")]
)
def test_a_refused_or_senseless_completion_is_not_ready(
    tmp_path: Path, mode: str, said: str
) -> None:
    assert said in failure_of(tmp_path, spec_of(tmp_path, mode))


def test_a_missing_program_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PALMSWIFT_SWIFT", str(tmp_path / "absent"))
    assert "could not be started" in failure_of(tmp_path, spec_of(tmp_path))


def test_processes_that_ignore_term_are_killed(tmp_path: Path) -> None:
    with server_of(tmp_path, spec_of(tmp_path, "stubborn")):
        assert len(processes_of(tmp_path)) == 2
    assert processes_of(tmp_path) == []


def test_a_process_that_left_the_group_is_ended_too(tmp_path: Path) -> None:
    with server_of(tmp_path, spec_of(tmp_path, "stray")) as server:
        assert server.state is not None
        family = psutil.Process(server.state.pid).children(recursive=True)
        stray = next(process for process in family if "sleep" in process.name())
    assert not stray.is_running() or stray.status() == psutil.STATUS_ZOMBIE


def test_the_serving_child_of_a_killed_parent_is_ended(tmp_path: Path) -> None:
    with server_of(tmp_path, spec_of(tmp_path)) as server:
        assert server.state is not None
        os.kill(server.state.pid, signal.SIGKILL)
        while server.poll() is None:
            pass
        assert len(live_members(server.state)) == 1
    assert processes_of(tmp_path) == []


def test_a_server_that_is_left_goes_on_and_can_be_ended_by_its_state(tmp_path: Path) -> None:
    with server_of(tmp_path, spec_of(tmp_path)) as server:
        state = server.leave()
    assert ask(state.base_url, "demo", None).kind == "ok"
    assert end_server(state.pid).processes == 2
    assert processes_of(tmp_path) == []


def test_the_key_reaches_the_server_and_no_file_or_command_line(tmp_path: Path) -> None:
    key = "a-key-nobody-knows"
    with server_of(tmp_path, spec_of(tmp_path, api_key=SecretStr(key))) as server:
        assert ask(server.base_url, "demo", key).kind == "ok"
        assert ask(server.base_url, "demo", "another-key").kind == "refused"
        lines = [" ".join(process.cmdline()) for process in processes_of(tmp_path)]
    files = [file for file in tmp_path.rglob("*") if stat.S_ISREG(file.stat().st_mode)]
    assert not any(key in text for text in [*lines, *(f.read_text("latin-1") for f in files)])


def test_a_server_that_does_not_ask_for_its_key_is_not_left_running(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "keyless", api_key=SecretStr("a-key-nobody-knows"))
    assert "answers without its key" in failure_of(tmp_path, spec)
