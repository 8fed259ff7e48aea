"""A training is watched: lines where there is no terminal, a picture on one, and a hang is told."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from support_runs import make_run

from palmswift.launchers.event_text import duration
from palmswift.launchers.events import SilenceEvent, read_events
from palmswift.launchers.render import Rendered
from palmswift.launchers.run_folder import RunFolder
from palmswift.launchers.watch import PATIENCE, Watch

COMMAND = Rendered(script="", argv=["swift", "sft"], env={})


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def _row(run: RunFolder, step: int, **values: float) -> None:
    run.training.mkdir(exist_ok=True)
    line = json.dumps({**values, "global_step/max_steps": f"{step}/10"}) + "\n"
    with (run.training / "logging.jsonl").open("a") as file:
        file.write(line)


def _own(run: RunFolder, **values: object) -> None:
    run.training.mkdir(exist_ok=True)
    with (run.training / "run_events.jsonl").open("a") as file:
        file.write(json.dumps({"time": 0.0, **values}) + "\n")


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return make_run(tmp_path)


def test_without_a_terminal_phases_are_lines_and_steps_are_told_now_and_then(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock()
    with Watch(run, run.logs / "train.log", COMMAND, clock=clock) as view:
        for now in (1, 11):
            clock.now = now
            view.update()
        _own(run, phase="load")
        clock.now = 12
        view.update()
        _own(run, phase="train")
        for step in (1, 2, 3):
            _row(run, step, loss=1.25 / step, learning_rate=1e-4)
            clock.now += 1
            view.update()
        clock.now = 25
        view.update()
        _own(run, phase="evaluate", step=3)
        _row(run, 3, eval_loss=2.5, eval_runtime=0.5)
        clock.now = 26
        view.update()
    assert capsys.readouterr().err.splitlines() == [
        "    11 s  ms-swift starts (11 s)",
        "    12 s  the model is loaded",
        "    25 s  step 3/10  loss 0.4167  lr 1.00e-04",
        "    26 s  evaluating",
        "    26 s  evaluated at step 3: loss 2.5000  in 0.5 s",
    ]


def test_an_earlier_launchs_steps_are_not_shown_as_this_ones(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    _row(run, 3, loss=1.0)
    clock = Clock()
    with Watch(run, run.logs / "train.log", COMMAND, clock=clock) as view:
        clock.now = 11
        view.update()
    assert capsys.readouterr().err == "    11 s  ms-swift starts (11 s)\n"


def test_a_child_that_says_nothing_for_long_is_told_and_left_alone(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock()
    with (
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child,
        Watch(run, run.logs / "train.log", COMMAND, pid=child.pid, clock=clock) as view,
    ):
        _own(run, phase="train")
        _row(run, 4, loss=1.0)
        view.update()
        for more in (-10, 10, 60, 300):
            clock.now = PATIENCE["train"] + more
            view.update()
        assert child.poll() is None
        child.communicate(b"\n")
    told = [event for event in read_events(run.events.path) if isinstance(event, SilenceEvent)]
    assert [(event.phase, event.step) for event in told] == [("train", 4)] * 2
    assert [event.seconds for event in told] == [PATIENCE["train"] + more for more in (10, 300)]
    said = capsys.readouterr().err
    assert "nothing heard for 3:10 while training (step 4)" in said
    assert "Ctrl-C stops it" in said


def test_long_steps_are_no_hang(run: RunFolder) -> None:
    clock = Clock()
    with Watch(run, run.logs / "train.log", COMMAND, clock=clock) as view:
        _own(run, phase="train")
        _row(run, 4, loss=1.0, **{"train_speed(s/it)": 120.0})
        view.update()
        clock.now = 9 * 120.0
        view.update()
    assert not [event for event in read_events(run.events.path) if isinstance(event, SilenceEvent)]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.7, "1:00"), (3725, "1:02:05")],
)
def test_durations_are_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text


NVML = """
class NVMLError(Exception): pass
class Memory: used, total = 6 << 30, 8 << 30
class Rates: gpu = 93
def nvmlInit(): pass
def nvmlShutdown(): print("shut down", flush=True)
def nvmlDeviceGetCount(): return 2
def nvmlDeviceGetHandleByIndex(index): return index
def nvmlDeviceGetName(handle): return b"NVIDIA GeForce RTX 4060"
def nvmlDeviceGetUUID(handle): return f"GPU-{handle}"
def nvmlDeviceGetMemoryInfo(handle): return Memory
def nvmlDeviceGetUtilizationRates(handle): return Rates
def nvmlDeviceGetTemperature(handle, kind): raise NVMLError("not supported")
"""

SCENE = """
import json, sys
from pathlib import Path
from palmswift.launchers.render import Rendered
from palmswift.launchers.run_folder import RunFolder
from palmswift.launchers.watch import Watch

run = RunFolder(Path(sys.argv[1]))
run.training.mkdir()
def row(step, **values):
    with (run.training / "logging.jsonl").open("a") as file:
        file.write(json.dumps({**values, "global_step/max_steps": f"{step}/10"}) + "\\n")
def own(**values):
    with (run.training / "run_events.jsonl").open("a") as file:
        file.write(json.dumps({"time": 0.0, **values}) + "\\n")
clock = [0.0]
with run.stage("data"):
    pass
with Watch(run, run.logs / "x.log", Rendered("", [], {}), clock=lambda: clock[0]) as view:
    for phase in ("load", "encode", "prepare", "train"):
        clock[0] += 1
        own(phase=phase)
        view.update()
    for step in range(1, 8):
        row(step, loss=4.0 / step, grad_norm=0.5, tokens_per_second=1234.0)
        view.update()
    own(phase="evaluate", step=7)
    row(7, eval_loss=1.75)
    view.update()
    own(phase="save", step=7)
    own(phase="train", step=7)
    own(checkpoint="checkpoint-7", step=7, seconds=0.1)
    view.update()
    clock[0] = 1000.0
    view.update()
    if len(sys.argv) > 2:
        raise SystemExit(3)
"""


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[list[str]]:
    """A command that watches a training that goes through its phases; the card is a stand-in."""
    (tmp_path / "pynvml.py").write_text(NVML)
    (tmp_path / "scene.py").write_text(SCENE)
    run = make_run(tmp_path / "runs")
    yield [sys.executable, str(tmp_path / "scene.py"), str(run.path)]


def _written(words: list[str], env: Mapping[str, str], columns: int, rows: int) -> bytes:
    """What the words write to a terminal of that size."""
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    ours = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
    environment = {**ours, "TERM": "xterm-256color", "PYTHONUTF8": "1", **env}
    with subprocess.Popen(words, stdout=child, stderr=child, env=environment):
        os.close(child)
        written = b""
        try:
            while part := os.read(parent, 65536):
                written += part
        except OSError as error:  # the other end is closed
            assert error.errno == errno.EIO
        os.close(parent)
    return written


def _in_terminal(
    words: list[str], *, columns: int = 100, rows: int = 40, env: Mapping[str, str] | None = None
) -> str:
    """The same as text, escape sequences left out."""
    written = _written(words, env or {}, columns, rows)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written.decode())


def test_on_a_terminal_phases_progress_curve_and_card_are_a_picture(scene: list[str]) -> None:
    shown = _in_terminal(scene, env={"CUDA_VISIBLE_DEVICES": "1"})
    last = shown[shown.rindex("✓ check") :]
    for words in (
        *("✓ load", "✓ encode", "7/10", "70 %", "loss 0.5714", "grad 0.5", "1,234 tokens/s"),
        *("loss 1.7500", "checkpoint-7", "GPU 1", "6.0 of 8.0 GiB", "93 % busy", "shut down"),
        *("nothing heard for 16:36 while training (step 7)",),
    ):
        assert words in last, last
    assert "GPU 0" not in last, "a card that the training may not use"
    assert "°C" not in last, "a temperature that the card does not tell"
    assert re.search("[\u2801-\u28ff]", last), "no curve"


@pytest.mark.parametrize("columns", [20, 60])
def test_a_narrow_terminal_gets_no_broken_lines(scene: list[str], columns: int) -> None:
    shown = _in_terminal(scene, columns=columns, rows=30)
    assert "Traceback" not in shown
    assert max(map(len, re.split(r"[\r\n]+", shown))) <= columns


def test_a_small_terminal_gets_the_picture_without_the_curve(scene: list[str]) -> None:
    assert not re.search("[\u2801-\u28ff]{3}", _in_terminal(scene, rows=12))


@pytest.mark.parametrize("env", [{"TERM": "dumb"}, {"PYTHONIOENCODING": "ascii"}])
def test_a_terminal_that_can_show_no_picture_gets_lines(
    scene: list[str], env: dict[str, str]
) -> None:
    shown = _in_terminal(scene, env=env)
    assert "the model is loaded" in shown
    assert "✓" not in shown


def test_a_command_that_ends_in_the_middle_gives_the_cursor_back(scene: list[str]) -> None:
    written = _written([*scene, "stop"], {}, 100, 40)
    assert written.count(b"\x1b[?25l") == written.count(b"\x1b[?25h") > 0


def test_a_card_library_that_breaks_ends_no_training(scene: list[str]) -> None:
    fake = Path(scene[1]).with_name("pynvml.py")
    fake.write_text(
        NVML
        + textwrap.dedent("""
        def nvmlDeviceGetMemoryInfo(handle): raise NVMLError("GPU is lost")
        """)
    )
    shown = _in_terminal(scene)
    assert "7/10" in shown
    assert "GPU" not in shown
