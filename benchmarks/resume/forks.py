"""Trains with the real ms-swift many times in seconds: it is imported once, each run is a fork.

`python -m benchmarks.resume.forks` reads one JSON line a job from stdin (`argv`, `env`, `log`),
runs `swift ARGV` in a child of its own (`embed SPEC OUT` makes a small model) and answers with its
exit code (negative: the signal).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
OFFLINE = {"MODELSCOPE_OFFLINE": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}


class Nursery:
    """The process that has ms-swift imported; gone after the block."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.resume.forks"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={
                **os.environ,
                **OFFLINE,
                "OMP_NUM_THREADS": "1",
                "TOKENIZERS_PARALLELISM": "false",
            },
        )

    def __enter__(self) -> Nursery:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()

    def swift(self, argv: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> int:
        """Run `swift ARGV`, its output appended to `log`; its exit code."""
        log.parent.mkdir(parents=True, exist_ok=True)
        job = {"argv": list(argv), "log": str(log), "env": dict(env or {})}
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the parent of the forks ended with code {self._process.wait()}")
        return int(answer)


def _run(job: dict[str, Any], mains: Mapping[str, Any]) -> None:
    """The child: never returns."""
    code = 1
    try:
        output = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for number in (1, 2):
            os.dup2(output, number)
        os.environ.update(job["env"])
        command, *words = job["argv"]
        sys.argv = [command, *words]
        mains[command](words)
        code = 0
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else int(bool(leaving.code))
    except BaseException:  # noqa: BLE001  # whatever it is, the job has failed
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> int:
    """Take jobs until stdin ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what an import prints is no answer
    from swift.pipelines import pretrain_main, rlhf_main, sft_main

    from palmswift.hub.embedded import main as embed_main

    mains = {"sft": sft_main, "pt": pretrain_main, "rlhf": rlhf_main, "embed": embed_main}
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _run(json.loads(line), mains)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        answers.write(f"{code}\n")
        answers.flush()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
