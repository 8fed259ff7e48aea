"""Many real `swift deploy` servers for the price of one import: a parent that forks them.

`python tests/support_servers.py` reads a line of JSON (the arguments of `swift deploy`) for each
server and forks a child that runs it; all end when its input ends.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import requests

from palmswift.deploy.ports import free_port
from palmswift.launchers.arguments import OFFLINE
from palmswift.recipes.recipe import SwiftValue, flag_words

PATIENCE = 300.0
"""Seconds after which a server counts as hung."""


class SwiftServers:
    """Servers of `swift deploy`, started one after the other; gone when the block is left."""

    def __init__(self, log: Path) -> None:
        self._log = log

    def __enter__(self) -> SwiftServers:
        env = {**os.environ, **OFFLINE, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        with self._log.open("ab") as out:
            self._parent = subprocess.Popen(
                [sys.executable, __file__],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=env,
                text=True,
                start_new_session=True,
            )
        return self

    def __exit__(self, *error: object) -> None:
        if self._parent.stdin is not None:
            self._parent.stdin.close()
        self._parent.wait(PATIENCE)

    def start(self, arguments: Mapping[str, SwiftValue]) -> str:
        """Start one server; its address once it is up."""
        port = free_port()
        whole = {**arguments, "host": "127.0.0.1", "port": port, "verbose": False}
        words = [
            word for name, value in whole.items() for word in (f"--{name}", *flag_words(value))
        ]
        assert self._parent.stdin is not None
        self._parent.stdin.write(json.dumps(words) + "\n")
        self._parent.stdin.flush()
        self._until_up(f"http://127.0.0.1:{port}")
        return f"http://127.0.0.1:{port}"

    def _until_up(self, address: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            try:
                if requests.get(f"{address}/health", timeout=5).status_code == 200:
                    return
            except requests.RequestException:
                time.sleep(0.1)
            assert self._parent.poll() is None, self._log.read_text(encoding="utf-8")[-3000:]
        raise AssertionError(f"not up: {self._log.read_text(encoding='utf-8')[-3000:]}")


def main() -> int:
    """Fork a server a line; end them all with the input."""
    from swift.pipelines import deploy_main

    children = []
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            os.close(0)
            deploy_main(json.loads(line))
            os._exit(0)
        children.append(child)
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
