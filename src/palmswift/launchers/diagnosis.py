"""What a failed child's log and exit code say, in one line of cause and one of remedy."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import NamedTuple

from palmswift.launchers.failures import ENDED_BY_SIGNAL, FAILURES, Failure
from palmswift.launchers.memory_failure import memory_failure
from palmswift.launchers.tracebacks import Raised, Reading, read_log

TAIL_BYTES = 256 * 1024
"""How much of a log's end is searched: the tracebacks of several processes."""

_LINES = 4000
_LONGEST = 300


class Diagnosis(NamedTuple):
    """A failure: its class, what happened, what to do."""

    kind: str
    cause: str
    remedy: str
    phase: str = ""
    """Where GPU memory ran out: load, encode, forward, backward, optimizer, generation, evaluation,
    save or merge; empty for other failures."""


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


def diagnose(
    log: Path, exit_code: int | None, *, start: int = 0, oom_kills: int | None = None
) -> Diagnosis:
    """The known failure that ended the child, else its last error line.

    Only what stands after byte `start` counts: an earlier attempt's failure is not this one's.
    `oom_kills` is how many processes the system has killed for want of memory meanwhile; None where
    it does not say.
    """
    reading = read_log(log_tail(log, lines=_LINES, start=start))
    found = _known(reading)
    # What a killed process printed before is not why it was killed.
    ended_by = signal_of(exit_code)
    if ended_by == signal.SIGKILL or (found is None and ended_by in ENDED_BY_SIGNAL):
        return _by_signal(ended_by, oom_kills)
    if found is None or found.kind in ("peer_lost", "worker_killed"):
        if lost := _lost_rank(reading):
            rank, number = lost
            by_signal = _by_signal(number, oom_kills)
            return by_signal._replace(
                cause=f"of the processes that train, rank {rank}: {by_signal.cause}"
            )
        if oom_kills:
            return _by_signal(signal.SIGKILL, oom_kills)
    return found or _unknown(reading, log)


def full_disk() -> Diagnosis:
    """What is said of a training whose disk was seen full."""
    failure = next(failure for failure in FAILURES if failure.kind == "disk_full")
    return Diagnosis(failure.kind, failure.cause.format(file=""), failure.remedy)


def _lost_rank(reading: Reading) -> tuple[int, int] | None:
    """The rank that a signal ended first, and the signal, by torchrun's account."""
    for raised in reading.raised:
        if raised.name.endswith("ChildFailedError"):
            root = raised.text.partition("Root Cause")[2]
            found = re.search(r"rank +: (\d+).*?exitcode +: (-\d+)", root, re.DOTALL)
            if found and -int(found[2]) in ENDED_BY_SIGNAL:
                return int(found[1]), -int(found[2])
    return None


def signal_of(exit_code: int | None) -> int:
    """The signal that ended a child; 0 when none did.

    Negative as Python tells it, above 128 as a shell does, and 256 less the number as the `swift`
    wrapper exits (sys.exit(-9) is 247).
    """
    if exit_code is None:
        return 0
    if exit_code < 0:
        return -exit_code
    if 192 < exit_code < 256:
        return 256 - exit_code
    return exit_code - 128 if 128 < exit_code < 160 else 0


def _by_signal(number: int, oom_kills: int | None) -> Diagnosis:
    if number == signal.SIGKILL and oom_kills:
        return Diagnosis(
            "host_memory",
            "the system killed it because the computer's own memory (not the GPU's) ran out",
            "close other programs; fewer swift.dataloader_num_workers and swift.dataset_num_proc; "
            "a smaller model; a larger memory limit of the container",
        )
    return Diagnosis(*ENDED_BY_SIGNAL[number])


def _known(reading: Reading) -> Diagnosis | None:
    if (memory := memory_failure(reading.raised)) is not None:
        return Diagnosis(*memory)
    for failure in FAILURES:
        if match := _match(failure, reading):
            if failure.kind == "no_rows" and (memory := memory_failure(reading.survived)):
                return Diagnosis(
                    *memory
                )  # ms-swift drops a row that cannot be encoded, and goes on
            return Diagnosis(failure.kind, _cause(failure, match, reading), failure.remedy)
    return None


def _match(failure: Failure, reading: Reading) -> re.Match[str] | None:
    if failure.raised:
        for raised in reading.raised:
            match = re.search(failure.raised, raised.said)
            if match and _went_through(raised, failure):
                return match
    if failure.line:
        for line in reading.closing:
            if match := re.match(failure.line, line):
                return match
    return None


def _went_through(raised: Raised, failure: Failure) -> bool:
    """Whether one of its calls is such as the failure's are."""
    return not failure.where or any(
        re.search(failure.where, f"{frame.file}:{frame.function}") for frame in raised.frames
    )


def _cause(failure: Failure, match: re.Match[str], reading: Reading) -> str:
    groups = {name: text for name, text in match.groupdict().items() if text}
    first = next(iter(groups.values()), "")
    said = " ".join((groups.get("said") or first).split())
    size = groups.get("bytes")
    filled = {
        "detail": " ".join((groups.get("detail") or first).split()),
        "said": said,
        "what": groups.get("what", ""),
        "asked": f" ({int(size) >> 20:,} MiB at once were asked for)" if size else "",
        "file": f": {groups['file']}" if "file" in groups else "",
        "port": f": {groups['port']}" if "port" in groups else "",
        "host": _host(match.string),
        "rows": _rows(reading),
    }
    text = failure.cause.format_map(filled).replace(" ()", "").rstrip(" :")
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _host(said: str) -> str:
    found = re.search(r"host='([^']+)'|https?://([^/\s']+)", said)
    return f" ({found[1] or found[2]})" if found else ""


def _rows(reading: Reading) -> str:
    """Why the single rows failed, where each did and ms-swift went on without it."""
    if not reading.survived:
        return ""
    return f": each failed with {' '.join(reading.survived[-1].said.split())[:160]}"


def _unknown(reading: Reading, log: Path) -> Diagnosis:
    if reading.raised:
        last = reading.raised[-1].said.splitlines()[0]
    else:
        last = reading.closing[-1].strip() if reading.closing else "no output"
    return Diagnosis("unknown", last[:_LONGEST], f"the whole log: {log}")
