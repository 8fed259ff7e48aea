"""What the end-to-end tests share: a working folder like a user's, its commands, what they leave.

The commands are run in a copy of the checkout's files, so that the runs and models of whoever
tests are left alone. Every process carries a mark in its environment, which its children inherit:
whatever still has the mark when a command has ended was left behind.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import psutil
import pytest

from palmswift.deploy.ports import free_port
from palmswift.eval.reports.report import JSON_NAME, EvaluationReport, read_report
from palmswift.launchers.run_folder import RunFolder

ROOT = Path(__file__).resolve().parents[1]

MARK = "PALMSWIFT_TEST_MARK"

COPIED = ("recipes", "data", "launchers", "deploy", "eval", "docs", "pyproject.toml")

PATIENCE = 1800.0
"""Seconds after which a command counts as hung."""

T = TypeVar("T")


class Finished(NamedTuple):
    """How a command ended."""

    exit_code: int
    stdout: str
    stderr: str
    mark: str
    """What the processes that it started have in their environment."""
    left: list[str]
    """Those of them that lived on, as `pid command line`."""

    @property
    def document(self) -> dict[str, Any]:
        """What `--json` printed."""
        found = json.loads(self.stdout)
        assert isinstance(found, dict)
        return found

    @property
    def said(self) -> str:
        """Both streams, for messages of failed tests."""
        return f"exit code {self.exit_code}\n{self.stdout}\n{self.stderr}"


class Workshop:
    """A user's working folder, in which the commands of the README are run."""

    def __init__(self, folder: Path, models: Path | None = None) -> None:
        """`models` is shared with other working folders."""
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        if models is not None:
            (folder / "models").symlink_to(models)
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            elif source.exists():
                shutil.copy2(source, folder / name)
        # quickstart.py finds the sources and the environment beside the file that a link leads to.
        (folder / "quickstart.py").symlink_to(ROOT / "quickstart.py")
        (folder / ".venv").symlink_to(sys.prefix)

    def words(self, *words: str | Path) -> list[str]:
        """The words of a command; `quickstart.py` is told which environment is tested."""
        listed = [str(word) for word in words]
        if listed[:2] == ["python3", "quickstart.py"] and Path(sys.prefix) != ROOT / ".venv":
            listed[2:2] = ["--venv", sys.prefix]
        return listed

    def environment(self, mark: str, env: Mapping[str, str] | None = None) -> dict[str, str]:
        """What a shell with the activated environment has, and the mark."""
        path = os.pathsep.join([str(Path(sys.prefix) / "bin"), os.environ.get("PATH", os.defpath)])
        ours = {k: v for k, v in os.environ.items() if not k.startswith("PALMSWIFT_")}
        return {**ours, "PATH": path, "PYTHONUTF8": "1", **(env or {}), MARK: mark}

    def call(
        self,
        *words: str | Path,
        stdin: str | None = None,
        env: Mapping[str, str] | None = None,
        may_stay: bool = False,
    ) -> Finished:
        """Run a command to its end; `may_stay` when it leaves a server running on purpose."""
        with self.started(*words, stdin=stdin, env=env, may_stay=may_stay) as command:
            return command.wait()

    @contextlib.contextmanager
    def started(
        self,
        *words: str | Path,
        stdin: str | None = None,
        env: Mapping[str, str] | None = None,
        may_stay: bool = False,
    ) -> Iterator[Command]:
        """A command that runs; it and all that it started is ended with the block."""
        command = Command(self, self.words(*words), stdin, env)
        try:
            yield command
        finally:
            command.end(may_stay=may_stay)

    def run_of(self, recipe: str) -> RunFolder:
        """The newest run of a recipe."""
        found = sorted((self.folder / "runs").glob(f"{recipe}-[0-9]*/run.json"))
        assert found, f"no run of {recipe} under {self.folder}"
        return RunFolder(found[-1].parent)


class Demo(NamedTuple):
    """A pipeline that has ended."""

    workshop: Workshop
    run: RunFolder
    finished: Finished


class RunningServer(NamedTuple):
    """A server that deploy/serve.py has left running."""

    url: str
    """Up to and with `/v1`."""
    port: int
    model: str
    """The name that clients send."""
    started: Finished
    """The command that started it."""
    workshop: Workshop

    def living(self) -> list[str]:
        """Its processes that live, as `pid command line`."""
        return [name_of(process) for process in marked(self.started.mark)]


@contextlib.contextmanager
def served(
    workshop: Workshop,
    *words: str | Path,
    env: Mapping[str, str] | None = None,
    port: int = 0,
) -> Iterator[RunningServer]:
    """`python deploy/serve.py WORDS --detach`, on a free port by default; gone after the block."""
    port = port or free_port()
    serve = ("python", "deploy/serve.py", *words, "--port", str(port), "--detach", "--json")
    finished = workshop.call(*serve, env=env, may_stay=True)
    try:
        assert finished.exit_code == 0, finished.said
        state = finished.document
        yield RunningServer(state["base_url"], port, state["name"], finished, workshop)
    finally:
        workshop.call("python", "deploy/stop.py", "--port", str(port))
        for process in marked(finished.mark):
            with contextlib.suppress(psutil.Error):
                process.kill()


def curled(server: RunningServer, body: Mapping[str, Any]) -> tuple[str, str]:
    """The answer that curl gets whole, and the one that it gets as a stream."""
    words = ["curl", "--silent", "--show-error", "--fail-with-body", "--no-buffer"]
    words += [f"{server.url}/chat/completions", "--header", "Content-Type: application/json"]

    def said(stream: bool) -> str:
        data = json.dumps({**body, "model": server.model, "stream": stream})
        return subprocess.run(
            [*words, "--data", data], capture_output=True, text=True, check=True, timeout=120
        ).stdout

    whole = json.loads(said(stream=False))["choices"][0]["message"]["content"]
    events = [line for line in said(stream=True).splitlines() if line.startswith("data: ")]
    assert events.pop() == "data: [DONE]"
    chunks = [json.loads(event.removeprefix("data: "))["choices"] for event in events]
    pieces = [choices[0]["delta"].get("content") or "" for choices in chunks if choices]
    return whole, "".join(pieces)


needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not on this machine")


def has_vllm() -> bool:
    """Whether vLLM is installed."""
    return importlib.util.find_spec("vllm") is not None


class Command:
    """One command of a workshop, in a session of its own, with its streams in files."""

    def __init__(
        self,
        workshop: Workshop,
        words: list[str],
        stdin: str | None,
        env: Mapping[str, str] | None,
    ) -> None:
        self.mark = uuid.uuid4().hex
        self._folder = workshop.folder / ".streams"
        self._folder.mkdir(exist_ok=True)
        self._given = self._stream("in")
        self._given.write_text(stdin or "", encoding="utf-8")
        environment = workshop.environment(self.mark, env)
        program = shutil.which(words[0], path=environment["PATH"]) or words[0]
        with (
            self._given.open("rb") as given,
            self._stream("out").open("wb") as out,
            self._stream("err").open("wb") as err,
        ):
            self._process = subprocess.Popen(
                [program, *words[1:]],
                stdin=given,
                stdout=out,
                stderr=err,
                env=environment,
                cwd=workshop.folder,
                start_new_session=True,
            )

    def _stream(self, name: str) -> Path:
        return self._folder / f"{self.mark}.{name}"

    @property
    def stdout(self) -> str:
        """What it has printed so far."""
        return self._stream("out").read_text(encoding="utf-8", errors="replace")

    @property
    def stderr(self) -> str:
        """What it has told so far."""
        return self._stream("err").read_text(encoding="utf-8", errors="replace")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the command alone, as a process manager does."""
        self._process.send_signal(number)

    def until(self, what: str, found: Callable[[], T | None]) -> T:
        """What `found` gives as soon as it gives something; fails when the command ends first."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if (value := found()) is not None:
                return value
            assert self._process.poll() is None, f"ended before {what}:\n{self.stdout}{self.stderr}"
            time.sleep(0.05)
        raise AssertionError(f"waited in vain for {what}:\n{self.stdout}{self.stderr}")

    def wait(self) -> Finished:
        """Wait for its end."""
        try:
            exit_code = self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it hangs:\n{self.stdout}{self.stderr}") from None
        left = [name_of(process) for process in marked(self.mark)]
        return Finished(exit_code, self.stdout, self.stderr, self.mark, left)

    def end(self, *, may_stay: bool = False) -> None:
        """End the command, and all that it started unless that may stay."""
        if self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(30)
        for process in [] if may_stay else marked(self.mark):
            with contextlib.suppress(psutil.Error):
                process.kill()
        self._process.wait(30)


def marked(mark: str) -> list[psutil.Process]:
    """Living processes that have the mark in their environment."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == mark:
                found.append(process)
    return found


def wait_until_gone(mark: str) -> None:
    """Return when no process with the mark lives."""
    deadline = time.monotonic() + PATIENCE
    while living := marked(mark):
        assert time.monotonic() < deadline, f"these live on: {[name_of(p) for p in living]}"
        time.sleep(0.1)


def name_of(process: psutil.Process) -> str:
    """`pid command line`, for messages."""
    with contextlib.suppress(psutil.Error):
        return f"{process.pid} {' '.join(process.cmdline())[:200]}"
    return str(process.pid)


def listened_on(port: int) -> bool:
    """Whether something accepts connections on a port of this machine."""
    with socket.socket() as probe:
        probe.settimeout(5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def ports_of(run: RunFolder) -> list[int]:
    """The ports that the pipeline's servers of a run listened on."""
    return sorted(int(script.stem) for script in (run.logs / "deploy").glob("*.sh"))


def report_of(run: RunFolder) -> EvaluationReport:
    """The evaluation report of a run."""
    return read_report(run.evaluation / JSON_NAME)


def exact(report: EvaluationReport, label: str, tag: str = "trained") -> float:
    """The share of a tag's questions that were answered word for word."""
    measured = report.summary(label, tag).metrics["exact_match"]
    assert measured.value is not None
    return measured.value
