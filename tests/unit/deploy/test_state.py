"""A state file names one server, whatever became of its process."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from palmswift.deploy.state import (
    ServerState,
    claim,
    live_members,
    mark_stopping,
    read_state,
    read_states,
    release,
    seconds_after_boot,
    select,
    state_file,
)
from palmswift.errors import InputError
from palmswift.process import stop_group

CHILD_OF_A_LEADER = (
    "import subprocess, sys; subprocess.Popen([sys.executable, '-S', '-c', "
    "'import time; time.sleep(60)']); print('up', flush=True); import time; time.sleep(60)"
)


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """A process with a child, in a group of its own."""
    argv = [sys.executable, "-S", "-c", CHILD_OF_A_LEADER]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, start_new_session=True) as child:
        assert child.stdout is not None
        child.stdout.readline()
        yield child
        stop_group(child.pid, 0.0, reap=child)


def state_of(pid: int, started: float | None = None, port: int = 8000) -> ServerState:
    return ServerState(
        pid=pid,
        started_after_boot=seconds_after_boot(pid) if started is None else started,
        started_at="2026-01-01T00:00:00+00:00",
        host="127.0.0.1",
        port=port,
        base_url=f"http://127.0.0.1:{port}/v1",
        name="demo",
        log="8000.log",
        argv=["swift"],
    )


def test_a_running_server_lives_with_its_children(process: subprocess.Popen[bytes]) -> None:
    members = live_members(state_of(process.pid))
    assert process.pid in members
    assert len(members) == 2


def test_a_reused_process_id_is_not_the_server(process: subprocess.Popen[bytes]) -> None:
    earlier = seconds_after_boot(process.pid) - 5.0
    assert live_members(state_of(process.pid, earlier)) == []


def test_after_a_reboot_no_server_lives(process: subprocess.Popen[bytes]) -> None:
    """Time since the boot starts again, so another process at the same number differs in it."""
    assert live_members(state_of(process.pid, seconds_after_boot(process.pid) + 3600.0)) == []


def test_children_of_a_killed_first_process_are_still_the_server(
    process: subprocess.Popen[bytes],
) -> None:
    state = state_of(process.pid)
    process.kill()
    process.wait()
    assert len(live_members(state)) == 1


def test_a_second_server_on_a_port_is_refused(
    tmp_path: Path, process: subprocess.Popen[bytes]
) -> None:
    claim(state_of(process.pid), tmp_path)
    with pytest.raises(InputError, match=r"stop\.py --port 8000"):
        claim(state_of(process.pid), tmp_path)


def test_the_place_of_a_server_that_is_gone_is_taken(
    tmp_path: Path, process: subprocess.Popen[bytes]
) -> None:
    claim(state_of(process.pid, 1.0), tmp_path)
    claim(state_of(process.pid), tmp_path)
    assert read_states(tmp_path) == [state_of(process.pid)]


def test_of_many_that_claim_a_port_at_once_one_gets_it(
    tmp_path: Path, process: subprocess.Popen[bytes]
) -> None:
    refused: list[InputError] = []

    def attempt() -> None:
        try:
            claim(state_of(process.pid), tmp_path)
        except InputError as error:
            refused.append(error)

    threads = [threading.Thread(target=attempt) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 7


def test_only_its_own_state_is_removed(tmp_path: Path, process: subprocess.Popen[bytes]) -> None:
    state = state_of(process.pid)
    claim(state, tmp_path)
    release(state_of(process.pid, 1.0), tmp_path)
    assert read_states(tmp_path) == [state]
    release(state, tmp_path)
    assert read_states(tmp_path) == []


def test_a_wanted_end_is_written_down(tmp_path: Path, process: subprocess.Popen[bytes]) -> None:
    state = state_of(process.pid)
    claim(state, tmp_path)
    mark_stopping(state, tmp_path)
    found = read_state(state_file(8000, tmp_path))
    assert found is not None
    assert found.stopping


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}', "\x00"])
def test_a_broken_state_file_is_named(tmp_path: Path, text: str) -> None:
    file = state_file(8000, tmp_path)
    file.write_text(text)
    with pytest.raises(InputError) as caught:
        read_states(tmp_path)
    assert str(file) in str(caught.value)


def test_a_server_is_chosen_by_port_or_run(process: subprocess.Popen[bytes]) -> None:
    one = state_of(process.pid, port=8000).model_copy(update={"run": "/runs/a"})
    two = state_of(process.pid, port=8001)
    assert select([one, two], port=8001) == [two]
    assert select([one, two], run=Path("/runs/a")) == [one]
    assert select([one, two]) == [one, two]


def test_a_choice_that_meets_nothing_lists_what_runs(process: subprocess.Popen[bytes]) -> None:
    with pytest.raises(InputError, match="demo on port 8000"):
        select([state_of(process.pid)], port=9)
