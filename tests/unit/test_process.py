"""Children end as a group: those that ignore TERM, those that left it, and when we are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from palmswift.errors import ChildError
from palmswift.process import ProcessGroup, family, group_members, stop_group, uninterrupted

STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGINT, signal.SIG_IGN)
if sys.argv[1] != "child":
    apart = sys.argv[1] == "apart"
    subprocess.Popen([sys.executable, "-S", __file__, "child"], start_new_session=apart)
else:
    print("up", flush=True)
time.sleep(600)
"""
"""A parent and its child, neither of which hears TERM; `apart`: the child leaves the group."""


def _program(folder: Path, text: str) -> list[str]:
    script = folder / "program.py"
    script.write_text(text, encoding="utf-8")
    return [sys.executable, "-S", str(script)]


def _wait_for(found: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not found():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def _living(pids: list[int]) -> list[int]:
    living = []
    for pid in pids:
        try:
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                living.append(pid)
        except psutil.NoSuchProcess:
            pass
    return living


def _started(group: ProcessGroup) -> list[int]:
    """The process ids of the stubborn parent and its child, once both run."""
    _wait_for(lambda: group.log.read_text() == "up\n")
    return [process.pid for process in family(group.pid)]


@pytest.mark.parametrize("mode", ["together", "apart"])
def test_a_parent_and_a_child_that_ignore_term_are_gone_after_the_block(
    tmp_path: Path, mode: str
) -> None:
    argv = [*_program(tmp_path, STUBBORN), mode]
    with ProcessGroup(argv, log=tmp_path / "log", grace=0.1) as group:
        pids = _started(group)
        assert len(pids) == 2
    assert _living(pids) == []
    assert group.poll() == -signal.SIGKILL


def test_an_exception_in_the_block_ends_the_group_too(tmp_path: Path) -> None:
    argv = [*_program(tmp_path, STUBBORN), "together"]
    with (
        pytest.raises(KeyboardInterrupt),
        ProcessGroup(argv, log=tmp_path / "log", grace=0.1) as group,
    ):
        pids = _started(group)
        raise KeyboardInterrupt
    assert _living(pids) == []


def test_a_child_that_its_parent_left_behind_is_ended(tmp_path: Path) -> None:
    text = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(600)'])\n"
        "print(child.pid, flush=True)\n"
    )
    with ProcessGroup(_program(tmp_path, text), log=tmp_path / "log") as group:
        assert group.wait(20) == 0
        pid = int(group.log.read_text())
        assert _living([pid]) == [pid]
    assert _living([pid]) == []


def test_the_exit_code_is_told_and_the_number_stays_the_childs_until_the_end(
    tmp_path: Path,
) -> None:
    with ProcessGroup(_program(tmp_path, "raise SystemExit(7)"), log=tmp_path / "log") as group:
        assert group.wait(20) == 7
        # not collected yet: no other process can have been given its number
        assert psutil.Process(group.pid).status() == psutil.STATUS_ZOMBIE
        assert group.poll() == 7
    assert not psutil.pid_exists(group.pid)
    assert group.poll() == 7


def test_a_group_that_was_stopped_is_never_signalled_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ProcessGroup(_program(tmp_path, ""), log=tmp_path / "log") as group:
        group.wait(20)
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "killpg", lambda *call: sent.append(call))
    group.stop()
    stop_group(group.pid, 0.0)
    assert sent == []


def test_a_wait_that_takes_too_long_leaves_the_child_running(tmp_path: Path) -> None:
    argv = _program(tmp_path, "import time; time.sleep(600)")
    with ProcessGroup(argv, log=tmp_path / "log") as group:
        with pytest.raises(subprocess.TimeoutExpired):
            group.wait(0.05)
        assert group.poll() is None


def test_output_is_appended_and_the_environment_is_added_to_ours(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "log"
    argv = _program(tmp_path, "import os; print(os.environ['MARK'], 'PATH' in os.environ)")
    for mark in ("first", "second"):
        with ProcessGroup(argv, log=log, env={"MARK": mark}) as group:
            assert group.wait(20) == 0
    assert log.read_text() == "first True\nsecond True\n"


def test_a_program_that_is_not_there_is_told_with_a_remedy(tmp_path: Path) -> None:
    group = ProcessGroup([str(tmp_path / "swift")], log=tmp_path / "log")
    with pytest.raises(ChildError, match="swift could not be started: No such file") as caught:
        group.start()
    assert "quickstart.py install" in caught.value.remedy
    group.stop()


LAUNCHER = """
import sys, time
from pathlib import Path
from palmswift.process import ProcessGroup
log = Path(sys.argv[1])
with ProcessGroup(sys.argv[2:], log=log, grace=float({grace})) as group:
    {first}
    print(group.pid, flush=True)
    {then}
"""


def _launched(
    folder: Path,
    mode: str,
    *,
    grace: float = 0.1,
    first: str = "",
    then: str = "group.wait()",
) -> tuple[subprocess.Popen[str], list[int]]:
    """A launcher of the stubborn program, and the program's process ids."""
    text = LAUNCHER.format(grace=grace, first=first, then=then)
    launcher = subprocess.Popen(
        [sys.executable, "-c", text, str(folder / "log"), *_program(folder, STUBBORN), mode],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert launcher.stdout is not None
    group = int(launcher.stdout.readline())
    _wait_for(lambda: (folder / "log").read_text() == "up\n")
    return launcher, [process.pid for process in family(group)]


@pytest.mark.parametrize("mode", ["together", "apart"])
def test_a_killed_launcher_takes_its_children_with_it(tmp_path: Path, mode: str) -> None:
    launcher, pids = _launched(tmp_path, mode)
    launcher.kill()
    launcher.communicate()
    _wait_for(lambda: not _living(pids))


def test_a_group_that_was_let_go_outlives_its_launcher(tmp_path: Path) -> None:
    launcher, pids = _launched(tmp_path, "together", first="group.let_go()")
    launcher.kill()
    launcher.communicate()
    assert _living(pids) == pids
    stop_group(os.getpgid(pids[0]), 0.0)
    assert _living(pids) == []


def test_no_guard_is_left_when_the_group_has_ended(tmp_path: Path) -> None:
    def guards() -> list[psutil.Process]:
        return [
            child
            for child in psutil.Process().children()
            if child.status() != psutil.STATUS_ZOMBIE and "palmswift.guard" in child.cmdline()
        ]

    with ProcessGroup(_program(tmp_path, ""), log=tmp_path / "log") as group:
        group.wait(20)
        assert len(guards()) == 1
    assert guards() == []


def test_a_second_ctrl_c_does_not_cut_the_ending_short(tmp_path: Path) -> None:
    launcher, pids = _launched(tmp_path, "together", grace=1.0)
    launcher.send_signal(signal.SIGINT)
    for _ in range(5):
        time.sleep(0.05)
        launcher.send_signal(signal.SIGINT)
    _, errors = launcher.communicate(timeout=20)
    assert _living(pids) == []
    assert "KeyboardInterrupt" in errors


def test_a_signal_in_an_uninterrupted_block_is_acted_on_at_its_end() -> None:
    seen = []
    with pytest.raises(KeyboardInterrupt), uninterrupted():
        signal.raise_signal(signal.SIGINT)
        seen.append("the rest of the block")
    assert seen == ["the rest of the block"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_members_of_a_group_are_found_and_zombies_are_not(tmp_path: Path) -> None:
    with ProcessGroup(_program(tmp_path, "input()"), log=tmp_path / "log") as group:
        group.wait(20)
        assert group_members(group.pid) == []
    argv = _program(tmp_path, "import time; time.sleep(600)")
    with ProcessGroup(argv, log=tmp_path / "log") as group:
        assert group_members(group.pid) == [group.pid]


ORPHAN = """
import subprocess, sys, time
if len(sys.argv) == 1:
    subprocess.Popen([sys.executable, "-S", __file__, "worker"], start_new_session=True)
else:
    print("up", flush=True)
time.sleep(600)
"""
"""A parent, as torchrun is, whose worker is in a session of its own."""


def test_a_worker_whose_parent_was_killed_is_ended_too(tmp_path: Path) -> None:
    with ProcessGroup(_program(tmp_path, ORPHAN), log=tmp_path / "log", grace=0.1) as group:
        pids = _started(group)
        assert len(pids) == 2
        os.kill(group.pid, signal.SIGKILL)
        assert group.wait(20) == -signal.SIGKILL
        assert _living(pids) == [pid for pid in pids if pid != group.pid]
    assert _living(pids) == []


def test_such_a_worker_does_not_outlive_a_killed_launcher_either(tmp_path: Path) -> None:
    text = LAUNCHER.format(grace=0.1, first="", then="time.sleep(600)")
    launcher = subprocess.Popen(
        [sys.executable, "-c", text, str(tmp_path / "log"), *_program(tmp_path, ORPHAN)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert launcher.stdout is not None
    group = int(launcher.stdout.readline())
    _wait_for(lambda: (tmp_path / "log").read_text() == "up\n")
    pids = [process.pid for process in family(group)]
    os.kill(group, signal.SIGKILL)
    launcher.kill()
    launcher.communicate()
    _wait_for(lambda: not _living(pids))
