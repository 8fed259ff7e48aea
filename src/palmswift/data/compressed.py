"""The bytes of a file, unpacked on the way if it is gzip or zstd, and how far they are read."""

from __future__ import annotations

import gzip
import io
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from palmswift.errors import InputError, Problem

GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"

COMPRESSED_SUFFIXES = (".gz", ".gzip", ".zst", ".zstd")


class Meter:
    """How many of a file's bytes (as it lies on the disk) have been read."""

    def __init__(self) -> None:
        self.position = 0


class _Metered(io.RawIOBase):
    """A raw file that tells a meter where it stands."""

    def __init__(self, raw: IO[bytes], meter: Meter) -> None:
        self._raw = raw
        self._meter = meter

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._raw.read(len(buffer))
        buffer[: len(data)] = data
        self._meter.position += len(data)
        return len(data)


@contextmanager
def unpacked(path: Path, meter: Meter | None = None) -> Iterator[IO[bytes]]:
    """The file's bytes as a stream; what is compressed is known by its first bytes.

    InputError: the file cannot be opened or read, or the archive breaks off.
    """
    meter = meter or Meter()
    meter.position = 0
    try:
        with path.open("rb", buffering=0) as raw:
            metered = io.BufferedReader(_Metered(raw, meter), 1 << 18)
            magic = metered.peek(4)
            with _unpacked(metered, magic) as stream:
                yield stream
    except FileNotFoundError:
        raise refusal(str(path), "no such file", "check the path") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _broken(path, error) from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise refusal(str(path), f"cannot be read: {reason}", "check the path") from None


def _unpacked(packed: IO[bytes], magic: bytes) -> IO[bytes]:
    if magic.startswith(GZIP):
        return io.BufferedReader(gzip.GzipFile(fileobj=packed), 1 << 18)
    if magic.startswith(ZSTD):
        return io.BufferedReader(_Zstd(packed), 1 << 18)
    return packed


class _Zstd(io.RawIOBase):
    """The unpacked bytes of zstd frames; EOFError where the last one breaks off.

    (The library's own reader ends in silence at a frame that was cut.)
    """

    def __init__(self, packed: IO[bytes]) -> None:
        import zstandard

        self._packed = packed
        self._make = zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj
        self._error = zstandard.ZstdError
        self._frame = self._make()
        self._begun = False
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            if not self._advance():
                return 0
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def _advance(self) -> bool:
        """Unpack one more piece; False at the end of the file."""
        # Small pieces: three bytes may unpack to 128 KiB.
        packed = self._packed.read(1 << 10)
        if not packed:
            if self._begun:
                raise EOFError("the last frame breaks off")
            return False
        pieces = []
        while packed:
            try:
                pieces.append(self._frame.decompress(packed))
            except self._error as error:
                raise zlib.error(str(error)) from None
            self._begun = not self._frame.eof
            packed = self._frame.unused_data if self._frame.eof else b""
            if self._frame.eof:
                self._frame = self._make()
        self._ready = memoryview(b"".join(pieces))
        return True


@contextmanager
def plain_file(path: Path) -> Iterator[Path]:
    """A file with the bytes as they are unpacked: the file itself, or a temporary one.

    InputError: as `unpacked`.
    """
    with unpacked(path) as stream:
        if not is_packed(path):
            yield path
            return
        with tempfile.NamedTemporaryFile(prefix="palmswift-") as temporary:
            shutil.copyfileobj(stream, temporary, 1 << 20)
            temporary.flush()
            yield Path(temporary.name)


def is_packed(path: Path) -> bool:
    """Whether the file begins as gzip and zstd do."""
    with path.open("rb") as stream:
        return stream.read(4).startswith((GZIP, ZSTD))


def head(path: Path, size: int) -> bytes:
    """The first `size` bytes, unpacked; InputError as `unpacked`."""
    with unpacked(path) as stream:
        return stream.read(size)


def refusal(where: str, what: str, remedy: str) -> InputError:
    """The error that names one file that cannot be used."""
    return InputError("a data file cannot be used", [Problem(what, where, remedy)])


def _broken(path: Path, error: Exception) -> InputError:
    what = f"the archive is broken or breaks off ({error})"
    return refusal(str(path), what, "copy or download the file again")
