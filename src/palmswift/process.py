"""Child processes that are always ended as a whole group, whatever happens to us."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType

import psutil

from palmswift.errors import ChildError

MARK = "PALMSWIFT_GROUP"
"""Environment variable that all processes of a group inherit, wherever they move."""

_POLL_SECONDS = 0.05
_KILL_SECONDS = 10.0
"""How long killed processes may take to be gone."""

_WAIT = """
watched=$3
[ -n "$watched" ] || read -r watched || exit 0
[ "$watched" != done ] || exit 0
read -r word && exit 0
exec "$1" -m palmswift.guard "$2" "$watched"
"""
"""What a guard does until it has to act: a shell waits in a tenth of an interpreter's memory."""


class ProcessGroup:
    """A child in a session of its own, its output in a file; leaving the block ends the group.

    `swift` starts a child of its own, which a signal to the parent leaves alive
    (swift/cli/main.py), so signals always go to the whole group.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        grace: float = 10.0,
    ) -> None:
        """`env` is added to our own environment; `grace` is seconds between TERM and KILL.

        A guard process ends the group when we are killed, until it is let go.
        """
        self.argv = list(argv)
        self.log = log
        self.mark = uuid.uuid4().hex
        self.env = {**os.environ, **(env or {}), MARK: self.mark}
        self.cwd = cwd
        self.grace = grace
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: _Guard | None = None
        self._stopped = False

    def __enter__(self) -> ProcessGroup:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the child; its stdout and stderr are appended to `log`.

        `ChildError` when there is no such program, or it cannot be run.
        """
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with uninterrupted(), contextlib.ExitStack() as undo, self.log.open("ab") as output:
            guard = _Guard(self.grace)
            undo.callback(guard.dismiss)
            try:
                self._process = subprocess.Popen(
                    self.argv,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=self.env,
                    cwd=self.cwd,
                    start_new_session=True,
                )
            except OSError as error:
                raise ChildError(
                    f"{self.argv[0]} could not be started: {error.strerror}",
                    remedy="python3 quickstart.py install",
                ) from error
            guard.watch(self._process.pid, self.mark)
            undo.pop_all()
            self._guard = guard

    def keep_guarded(self) -> None:
        """Put another guard in the place of one that was killed."""
        if self._guard is None or self._stopped or self._guard.lives():
            return
        with uninterrupted():
            self._guard.dismiss()
            self._guard = _Guard(self.grace, f"{self.pid} {self.mark}")

    def let_go(self) -> None:
        """Leave the group running from now on, whatever becomes of us."""
        self._stopped = True
        if self._guard is not None:
            self._guard.dismiss()

    @property
    def pid(self) -> int:
        """The child's process id, which is also the group's and the session's."""
        return self._started().pid

    def poll(self) -> int | None:
        """The child's exit code (negative: the signal that ended it), None while it runs."""
        return None if self._process is None else _exit_code(self._process)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the child; `subprocess.TimeoutExpired` after `timeout` seconds."""
        process = self._started()
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := _exit_code(process)) is None:
            if timeout is not None and deadline is not None and time.monotonic() >= deadline:
                raise subprocess.TimeoutExpired(self.argv, timeout)
            time.sleep(_POLL_SECONDS)
        return code

    def stop(self) -> None:
        """End the group as `stop_group` does; nothing happens when it was stopped before."""
        if self._process is None or self._stopped:
            return
        with uninterrupted():
            try:
                stop_group(self.pid, self.grace, reap=self._process, mark=self.mark)
            finally:
                self._stopped = True
                if self._guard is not None:
                    self._guard.dismiss()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("the process was not started")
        return self._process


class _Guard:
    """A small process that ends a group when our end of its pipe closes without a word."""

    def __init__(self, grace: float, watched: str = "") -> None:
        """`watched` is a group that runs already, with its mark: guarded from the first moment."""
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", _WAIT, "palmswift.guard", sys.executable, str(grace), watched],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def watch(self, group: int, mark: str) -> None:
        """From now on the group, and what else has its mark, ends with us."""
        self._say(f"{group} {mark}\n")

    def lives(self) -> bool:
        """Whether it is still there to do its work."""
        return self._process.poll() is None

    def dismiss(self) -> None:
        """The group has ended: the guard goes too."""
        self._say("done\n")
        with contextlib.suppress(BrokenPipeError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        self._process.wait()

    def _say(self, line: str) -> None:
        with contextlib.suppress(BrokenPipeError):  # someone killed the guard; we go on without
            if self._process.stdin is not None:
                self._process.stdin.write(line.encode())
                self._process.stdin.flush()


def _exit_code(process: subprocess.Popen[bytes]) -> int | None:
    """The exit code of a child that is not collected yet, so that its number stays its own.

    A number that is free can be given to a stranger's group, which a later signal would hit.
    """
    if process.returncode is not None or not hasattr(os, "waitid"):  # macOS before Python 3.13
        return process.poll()
    try:
        ended = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:  # collected by somebody else
        return process.poll()
    if ended is None:
        return None
    return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status


def group_members(group: int) -> list[int]:
    """Process ids of the group's members that are not zombies."""
    members = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                members.append(process.pid)
    return members


def family(group: int, mark: str = "") -> list[psutil.Process]:
    """The group's members and their descendants; torchrun's and vLLM's workers leave the group.

    With its `mark` also those whose parent has died, so that they descend from nobody.
    """
    found: dict[int, psutil.Process] = {}
    for pid in group_members(group):
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            found[pid] = process
            found.update((child.pid, child) for child in process.children(recursive=True))
    if mark:
        found.update((process.pid, process) for process in _marked(mark))
    return list(found.values())


def _marked(mark: str) -> Iterator[psutil.Process]:
    """Our user's processes that were started with the mark in their environment."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == mark:
                yield process


def stop_group(
    group: int,
    grace: float = 10.0,
    *,
    reap: subprocess.Popen[bytes] | None = None,
    mark: str = "",
) -> None:
    """TERM to the group, `grace` seconds, then KILL to it and to what it started outside itself.

    Returns when none of them lives, nor anything else with the group's `mark`; `reap`, the group's
    first process, is collected last. `ChildError` when one survives KILL.
    """
    processes = family(group, mark)
    for send, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, _KILL_SECONDS)):
        deadline = time.monotonic() + patience
        # A group without a member is not signalled: its number may be another's by now.
        if not group_members(group):
            break
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, send)
        while group_members(group) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
    if mark:
        processes = list({*processes, *_marked(mark)})  # some may have been born meanwhile
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()  # psutil looks at the start time too, so never at a reused number
    deadline = time.monotonic() + _KILL_SECONDS
    while living := [process.pid for process in processes if _lives(process)]:
        if time.monotonic() > deadline:
            raise ChildError(
                f"processes survived KILL: {', '.join(map(str, living))}",
                remedy="they hang in a driver or a file system; dmesg and nvidia-smi say more",
            )
        time.sleep(_POLL_SECONDS)
    if reap is not None:
        reap.wait()


def _lives(process: psutil.Process) -> bool:
    """Whether it runs; a zombie holds nothing, and its parent may never collect it."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C, SIGTERM and a closed terminal wait for the block's end, and are acted on there.

    So that no second Ctrl-C cuts the ending of processes short, and none comes between the start
    of a process and the note of its number.
    """
    came: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        came.append(number)

    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # What is ignored (nohup) stays so, for the children that inherit it too.
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                before[number] = signal.signal(number, remember)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])
