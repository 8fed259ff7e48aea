"""How rows and verdicts pass between the gate and the template's child: files in a folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from palmswift.data.verdict import Verdict

CHUNK, CHUNK_BYTES = 1000, 4 << 20
"""Rows that make a chunk, and bytes that do, whichever comes first."""

_ROWS = msgspec.msgpack.Decoder(list[dict[str, Any]])
_VERDICTS = msgspec.msgpack.Decoder(list[Verdict])


def packed_size(rows: Sequence[dict[str, Any]]) -> int:
    """Bytes of the rows before compression."""
    return len(msgspec.msgpack.encode(rows))


class ChunkFolder:
    """Chunks of rows, numbered from 0, each with its answer; a file is whole or absent.

    Rows stay until the end, for they may have to be asked about a second time; compressed, a
    million rows of 2 kB are about half a gigabyte.
    """

    def __init__(self, folder: Path) -> None:
        self.spec = folder / "spec.json"
        self.facts = folder / "facts.json"
        self.samples = folder / "samples.json"
        self._folder = folder
        self._end = folder / "end"

    def put_rows(self, number: int, rows: Sequence[dict[str, Any]]) -> None:
        """Hand over a chunk."""
        # A requirement of ms-swift itself, so it is there wherever the child can run.
        import zstandard

        packed = zstandard.ZstdCompressor(level=1).compress(msgspec.msgpack.encode(rows))
        self._put(self._name(number, "rows"), packed)

    def rows(self, number: int) -> list[dict[str, Any]] | None:
        """A chunk; None while it is not there."""
        import zstandard

        try:
            packed = self._name(number, "rows").read_bytes()
        except FileNotFoundError:
            return None
        return _ROWS.decode(zstandard.ZstdDecompressor().decompress(packed))

    def put_end(self, chunks: int) -> None:
        """Say that there are `chunks` chunks and no more."""
        self._put(self._end, str(chunks).encode())

    @property
    def end(self) -> int | None:
        """The number of chunks, once it is known."""
        return int(self._end.read_bytes()) if self._end.exists() else None

    def put_answer(self, number: int, verdicts: Sequence[Verdict]) -> None:
        """Answer a chunk, also for the second time."""
        self._put(self._name(number, "verdicts"), msgspec.msgpack.encode(verdicts))

    def has_answer(self, number: int) -> bool:
        """Whether the chunk has been answered."""
        return self._name(number, "verdicts").exists()

    def answers(self, chunks: int) -> Iterator[list[Verdict]]:
        """The verdicts chunk by chunk; FileNotFoundError when one is missing."""
        for number in range(chunks):
            yield _VERDICTS.decode(self._name(number, "verdicts").read_bytes())

    def _name(self, number: int, what: str) -> Path:
        return self._folder / f"{number:06}.{what}"

    @staticmethod
    def _put(path: Path, content: bytes) -> None:
        temporary = path.with_name(f".{path.name}")
        temporary.write_bytes(content)
        temporary.replace(path)
