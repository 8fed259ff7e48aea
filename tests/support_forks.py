"""Many runs of the real `swift` for the price of one import: a parent that forks a child for each.

`PALMSWIFT_SWIFT` names the client, which looks to palmswift like the `swift` command: it hands its
words, environment, folder and streams to the parent through a socket, and ends as the child does.
When the client is killed, so is the child.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

PATIENCE = 600.0
"""Seconds within which ms-swift has to be imported."""


class Forks:
    """The client's words, to be used where `swift` is."""

    def __init__(self, address: str) -> None:
        self.swift = shlex.join([sys.executable, __file__, address])

    def call(self, *words: str) -> str:
        """What one call prints; `score` asks `support_scores.py`."""
        done = subprocess.run(
            [*shlex.split(self.swift), *words], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@contextlib.contextmanager
def forks(log: Path) -> Iterator[Forks]:
    """A parent that has imported ms-swift; gone with all its children when the block is left."""
    env = {
        **os.environ,
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
        "MODELSCOPE_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    with tempfile.TemporaryDirectory(prefix="forks-") as folder, log.open("ab") as out:
        address = str(Path(folder) / "socket")
        listening, ready = os.pipe()
        parent = subprocess.Popen(
            [sys.executable, __file__, "--serve", address, str(ready)],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=env,
            pass_fds=[ready],
            start_new_session=True,
        )
        os.close(ready)
        try:
            with os.fdopen(listening, "rb") as told:
                assert told.read() == b"ready", log.read_text(encoding="utf-8")[-3000:]
            yield Forks(address)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(parent.pid, signal.SIGKILL)
            parent.wait(PATIENCE)
            if parent.stdin is not None:
                parent.stdin.close()


def _client(address: str, words: Sequence[str]) -> int:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        request = {"words": list(words), "env": dict(os.environ), "cwd": str(Path.cwd())}
        data = json.dumps(request).encode()
        socket.send_fds(connection, [len(data).to_bytes(8, "big")], [1, 2])
        connection.sendall(data)
        answer = connection.recv(8)
    return int(answer.decode() or "1")


def _serve(address: str, ready: int) -> None:
    """Answer clients until we are killed, or whoever started us is."""
    commands = _commands()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        os.write(ready, b"ready")
        os.close(ready)
        threading.Thread(target=_end_with_input, daemon=True).start()
        while True:
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                os._exit(_handle(connection, commands))
            connection.close()


def _end_with_input() -> None:
    # Not through sys.stdin: the children would inherit its lock, held for ever.
    while os.read(0, 1):
        pass
    os.killpg(0, signal.SIGKILL)


def _commands() -> dict[str, Callable[[list[str]], Any]]:
    """The mains by command, with all that a training of any kind imports."""
    import peft
    import swift.rlhf_trainers.gkd_trainer
    import swift.rlhf_trainers.grpo_trainer
    import swift.rlhf_trainers.kto_trainer
    import swift.rlhf_trainers.orpo_trainer
    import swift.trainers.seq2seq_trainer
    import transformers.models.qwen3.modeling_qwen3
    from support_scores import main as score
    from swift.pipelines import export_main, pretrain_main, rlhf_main, sft_main

    assert peft and swift and transformers
    return {
        "sft": sft_main,
        "pt": pretrain_main,
        "rlhf": rlhf_main,
        "export": export_main,
        "score": score,
    }


def _handle(connection: socket.socket, commands: dict[str, Callable[[list[str]], Any]]) -> int:
    """Run what one client asks for in a child, and end the child when the client goes."""
    head, streams, _, _ = socket.recv_fds(connection, 8, 2)
    size, data = int.from_bytes(head, "big"), b""
    while len(data) < size:
        data += connection.recv(size - len(data))
    request = json.loads(data)
    child = os.fork()
    if child == 0:
        connection.close()
        os._exit(_run(request, streams, commands))
    for stream in streams:
        os.close(stream)
    gone = threading.Thread(target=_kill_when_gone, args=(connection, child), daemon=True)
    gone.start()
    _, status = os.waitpid(child, 0)
    with contextlib.suppress(OSError):
        connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())
    return 0


def _kill_when_gone(connection: socket.socket, child: int) -> None:
    with contextlib.suppress(OSError):
        if not connection.recv(1):
            os.kill(child, signal.SIGKILL)


def _run(
    request: dict[str, Any],
    streams: Sequence[int],
    commands: dict[str, Callable[[list[str]], Any]],
) -> int:
    os.dup2(streams[0], 1)
    os.dup2(streams[1], 2)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    command, *words = request["words"]
    sys.argv = ["swift", *words]
    code = 1
    try:
        commands[command](words)
        code = 0
    except BaseException:  # noqa: BLE001 - as the interpreter does: told, and an exit code of 1
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    return code


if __name__ == "__main__":
    if sys.argv[1] == "--serve":
        _serve(sys.argv[2], int(sys.argv[3]))
    raise SystemExit(_client(sys.argv[1], sys.argv[2:]))
