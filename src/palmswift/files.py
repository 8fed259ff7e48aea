"""Files that are whole or absent: atomic writes, JSON lines, content hashes, locks."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Any

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says when a disk, a quota or a file system's largest file is full."""


@contextmanager
def atomic_bytes(path: Path) -> Iterator[IO[bytes]]:
    """A file that appears under `path` only when the block ends well (fsync, then rename)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name[:200]}.{os.urandom(4).hex()}")
    try:
        with temporary.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def atomic_text(path: Path) -> Iterator[IO[str]]:
    """A text file that appears as `atomic_bytes`'s does."""
    with atomic_bytes(path) as raw:
        stream = TextIOWrapper(raw, encoding="utf-8", newline="\n")
        yield stream
        stream.flush()
        stream.detach()


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically."""
    with atomic_text(path) as stream:
        stream.write(text)


def with_usual_modes(folder: Path) -> None:
    """Give the files below `folder` the mode that the umask gives a new file.

    ms-swift's merge leaves weights that nobody but their owner can read (0600: safetensors writes
    through a temporary file), so that a server under another account could not load them.
    """
    umask = os.umask(0)
    os.umask(umask)
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(0o666 & ~umask | path.stat().st_mode & 0o111)


def write_json(path: Path, document: Any) -> None:
    """Write a JSON document to `path` atomically, readable by people."""
    write_text(path, json.dumps(document, ensure_ascii=False, indent=2) + "\n")


def write_jsonl(path: Path, rows: Iterable[Any]) -> int:
    """Write one JSON object a line to `path` atomically; the number of rows."""
    count = 0
    with atomic_text(path) as stream:
        for row in rows:
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    return count


def read_jsonl(path: Path) -> Iterator[Any]:
    """The objects of a JSONL file that palmswift itself wrote (no repairs are made)."""
    with path.open(encoding="utf-8") as stream:
        for line in stream:
            if line.strip():
                yield json.loads(line)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def is_file(path: Path) -> bool:
    """Whether `path` is a file; no error for a name that the file system could not even hold."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long, or with a NUL in it
        return False


@contextmanager
def locked(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock file `path`; the lock dies with the process, whatever ends it.

    `BlockingIOError` when another process holds it and we do not `wait`.
    """
    import fcntl  # not on Windows, where quickstart.py must still be able to say so

    with path.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield


def with_part(text: str, begin: str, end: str, part: str) -> str:
    """`text` with what stands between two marks replaced. ValueError: a mark is missing."""
    before, opening, rest = text.partition(begin)
    _, closing, after = rest.partition(end)
    if not opening or not closing:
        raise ValueError(f"the text lacks {begin!r} or {end!r}")
    return f"{before}{begin}\n{part}\n{end}{after}"
