"""Many commands of the real ms-swift for the price of one import: children of a warm parent.

`python tests/support_forks.py serve SOCKET` imports ms-swift and then is `swift` for whoever asks:
`python tests/support_forks.py ask SOCKET sft --model ...` stands in the place of `swift sft ...`,
with its own environment, working folder and streams, and ends as it does. palmswift's own workers
are sent there by tests/warm/sitecustomize.py.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import runpy
import select
import shlex
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WORKERS = ("palmswift.data.template_worker", "palmswift.hub.embedded")
"""Modules that commands run with `python -m` and that import what ms-swift does."""
ADDRESS = "PALMSWIFT_TEST_WARM"
"""Where the warm parent listens, for those that are not started by PALMSWIFT_SWIFT."""

SWIFT_ENVIRONMENT = {
    **{"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
    **{"MODELSCOPE_OFFLINE": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
    "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")]),
}
"""What a parent imports ms-swift with."""


def import_swift() -> None:
    """Import what trainings import, the lazy parts too, so that the children need not."""
    from swift.pipelines import rlhf_main, sft_main
    from swift.rlhf_trainers import GRPOTrainer
    from swift.trainers import Seq2SeqTrainer

    from palmswift.data import real_template

    assert all((rlhf_main, sft_main, GRPOTrainer, Seq2SeqTrainer, real_template))


def be_swift(command: str, words: Sequence[str]) -> int:
    """Run the script behind `swift COMMAND` as the interpreter would; its exit code."""
    package = find_spec("swift.cli")
    assert package is not None and package.origin is not None
    script = Path(package.origin).with_name(f"{command}.py")
    sys.path[0] = str(script.parent)
    return _run(script, words, lambda: runpy.run_path(str(script), run_name="__main__"))


def be_module(name: str, words: Sequence[str]) -> int:
    """Run `python -m NAME`; its exit code."""
    package = find_spec(name)
    assert package is not None and package.origin is not None
    return _run(Path(package.origin), words, lambda: runpy.run_module(name, run_name="__main__"))


def _run(script: Path, words: Sequence[str], run: Callable[[], object]) -> int:
    sys.argv = [str(script), *words]
    try:
        run()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException as error:  # noqa: BLE001  # shown as the interpreter shows it
        _show_as_from(script, error)
        return -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    return 0


def _show_as_from(script: Path, error: BaseException) -> None:
    """The traceback without the frames above the script, as the interpreter would print it."""
    chained: BaseException | None = error
    while chained is not None:
        trace = chained.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename != str(script):
            trace = trace.tb_next
        if trace is not None:
            chained.__traceback__ = trace
        chained = chained.__cause__ or chained.__context__
    sys.excepthook(type(error), error, error.__traceback__)


def fork(become: Callable[[], int]) -> int:
    """The number of a child that does so and ends with that exit code (negative: that signal)."""
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        code = become()
    except Exception:  # noqa: BLE001  # the test itself is wrong, which the log then says
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        if code < 0:
            signal.signal(-code, signal.SIG_DFL)
            os.kill(os.getpid(), -code)
        os._exit(code)


def exit_code_of(child: int) -> int:
    """Wait for a child; negative: the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@contextlib.contextmanager
def warm_swift(
    folder: Path, within: Callable[..., list[str]] = lambda *words: list(words)
) -> Iterator[dict[str, str]]:
    """A warm parent for the block; the environment in which commands ask it.

    `within` makes the words of a command those of one that runs where a file system is mounted.
    """
    address = folder / "swift.sock"
    words = within(sys.executable, __file__, "serve", str(address))
    with (folder / "warm.log").open("wb") as log:
        parent = subprocess.Popen(
            words, env={**os.environ, **SWIFT_ENVIRONMENT}, stdout=subprocess.PIPE, stderr=log
        )
    try:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n", (folder / "warm.log").read_text()
        yield {
            "PALMSWIFT_SWIFT": shlex.join([sys.executable, "-S", __file__, "ask", str(address)]),
            ADDRESS: str(address),
            "PYTHONPATH": os.pathsep.join([str(ROOT / "tests" / "warm"), str(ROOT / "tests")]),
        }
    finally:
        parent.kill()
        parent.communicate()


def _serve(address: str) -> None:
    import_swift()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(address)
        server.listen()
        print("ready", flush=True)
        while True:
            with server.accept()[0] as asker:
                _answer(asker)


def _answer(asker: socket.socket) -> None:
    data, streams, _, _ = socket.recv_fds(asker, 1 << 20, 2)
    asked = json.loads(data)

    def become() -> int:
        for number, stream in enumerate(streams, start=1):
            os.dup2(stream, number)
        os.environ.clear()
        os.environ.update(asked["env"])
        os.chdir(asked["folder"])
        be = be_module if asked["command"] in WORKERS else be_swift
        return be(asked["command"], asked["words"])

    child = fork(become)
    for stream in streams:
        os.close(stream)
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if select.select([asker], [], [], 0.01)[0]:  # whoever asked was killed
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return
    asker.sendall(json.dumps(os.waitstatus_to_exitcode(ended[1])).encode())


def ask(address: str, command: str, words: Sequence[str]) -> int:
    """Have the warm parent run a command with the streams of this process; its exit code."""
    asked = {"command": command, "words": words, "env": {**os.environ}, "folder": str(Path.cwd())}
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.connect(address)
        streams = array.array("i", [1, 2])
        server.sendmsg(
            [json.dumps(asked).encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, streams)]
        )
        code = int(json.loads(server.recv(64)))
    return code if code >= 0 else 256 + code  # as the `swift` wrapper exits


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        _serve(sys.argv[2])
    raise SystemExit(ask(sys.argv[2], sys.argv[3], sys.argv[4:]))
