"""What a failed child's log says, in one line of cause and one of remedy."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

TAIL_BYTES = 64 * 1024
"""How much of a log's end is searched."""


class Diagnosis(NamedTuple):
    """A known failure: its class, what happened, what to do."""

    kind: str
    cause: str
    remedy: str


# The first match wins, so the particular stand before the general.
_KNOWN: tuple[tuple[str, Diagnosis], ...] = (
    (
        r"OutOfMemoryError|CUDA out of memory|CUBLAS_STATUS_ALLOC_FAILED",
        Diagnosis(
            "out_of_memory",
            "the GPU's memory ran out",
            "launchers/plan.py --recipe NAME --fit finds settings that fit; or a smaller recipe",
        ),
    ),
    (
        r"remaining_argv: \[",
        Diagnosis(
            "unknown_argument",
            "the installed ms-swift does not know one of the arguments",
            "python3 quickstart.py status compares the versions; recipes are for ms-swift 4.6.0",
        ),
    ),
    (
        r"No space left on device",
        Diagnosis("disk_full", "the disk is full", "make room, then resume the run"),
    ),
    (
        r"Your setup doesn't support bf16/gpu",
        Diagnosis(
            "no_bf16",
            "bf16 was asked for on a machine without a GPU",
            "on the CPU a recipe needs swift.use_cpu: true",
        ),
    ),
    (
        r"bitsandbytes.*(CUDA|libcuda|not compiled)|libbitsandbytes\S+\.so",
        Diagnosis(
            "bitsandbytes",
            "bitsandbytes does not fit the CUDA that is installed",
            "python3 quickstart.py status names the versions that fit each other",
        ),
    ),
    (
        r"ModuleNotFoundError: No module named '(?P<detail>[^']+)'",
        Diagnosis(
            "missing_package", "a Python package is missing", "python3 quickstart.py install"
        ),
    ),
    (
        r"Error while deserializing header|SafetensorError|no file named (model|pytorch_model)",
        Diagnosis(
            "broken_model",
            "the model's weight files are missing or damaged",
            "delete the model's folder and let it be fetched again",
        ),
    ),
    (
        r"(ConnectionError|Max retries exceeded|Name or service not known|LocalEntryNotFoundError"
        r"|Temporary failure in name resolution)",
        Diagnosis(
            "network",
            "the model hub could not be reached",
            "check the network, or give a local folder: --set model.source=local "
            "--set model.id=PATH",
        ),
    ),
    (
        r"Address already in use|address already in use",
        Diagnosis("port_taken", "the port is taken", "choose another with --port"),
    ),
    (
        r"max_steps must be set to a positive value if dataloader does not have a length",
        Diagnosis(
            "no_steps",
            "there are fewer rows than one batch takes, so no step could be taken",
            "a smaller swift.per_device_train_batch_size, or swift.dataloader_drop_last: false",
        ),
    ),
    (
        r"num_samples=0|NoneType' object is not iterable|ZeroDivisionError",
        Diagnosis(
            "no_rows",
            "no row was left to train on",
            "data/report.html in the run folder says which rows were rejected, and why",
        ),
    ),
)

_ERROR_LINE = re.compile(r"^\s*(?:[A-Za-z_][\w.]*(?:Error|Exception|Interrupt)\b.*|.*Killed.*)$")


def log_tail(log: Path, lines: int = 15, *, start: int = 0, at_most: int = TAIL_BYTES) -> list[str]:
    """The last lines of a log after byte `start`, progress-bar redraws left out.

    Fewer when they do not lie in the last `at_most` bytes.
    """
    if not log.is_file():
        return []
    with log.open("rb") as stream:
        stream.seek(0, 2)
        stream.seek(max(start, stream.tell() - at_most))
        text = stream.read().decode("utf-8", errors="replace")
    kept = [part for line in text.split("\n") if (part := line.rsplit("\r", 1)[-1].rstrip())]
    return kept[-lines:]


def diagnose(log: Path, exit_code: int | None, *, start: int = 0) -> Diagnosis:
    """The known failure that the end of the log shows, else its last error line.

    Only what stands after byte `start` counts: an earlier attempt's failure is not this one's.
    """
    text = "\n".join(log_tail(log, lines=400, start=start))
    for pattern, diagnosis in _KNOWN:
        match = re.search(pattern, text)
        if match:
            detail = match.groupdict().get("detail")
            cause = f"{diagnosis.cause}: {detail}" if detail else diagnosis.cause
            return diagnosis._replace(cause=cause)
    if exit_code == -9 or exit_code == 247:  # 247: `swift` reports its child's SIGKILL so
        return Diagnosis(
            "killed",
            "the system killed the process, most often because memory ran out",
            "close other programs, or take a smaller model",
        )
    errors = [line.strip() for line in text.splitlines() if _ERROR_LINE.match(line)]
    last = errors[-1] if errors else (text.splitlines() or ["no output"])[-1]
    return Diagnosis("unknown", last[:300], f"the whole log: {log}")
