"""Finds the row of a journal that answers a request, in 16 bytes of memory a row."""

from __future__ import annotations

import os
from array import array
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from palmswift.eval.asking.journal import Prediction, RequestKey, foreign
from palmswift.eval.hashes import hash64

if TYPE_CHECKING:
    import numpy as np


class _Head(msgspec.Struct):
    """The fields of a row that make its key, and whether it is an answer."""

    endpoint: str
    case: str
    repeat: int
    request_hash: str
    fingerprint: str | None = None
    error: dict[str, Any] | None = None


class Answers:
    """What a journal holds when this is made; `key in answers` asks for rows with a reply.

    Of several rows of one request the last with a reply counts, else the last.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDONLY)
        self._hashes, self._places = self._read(path)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)

    def _read(self, path: Path) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Sorted hashes of keys, and for each twice its row's offset, plus 1 for an answer."""
        import numpy as np

        hashes, places = array("Q"), array("Q")
        decoder = msgspec.json.Decoder(_Head)
        offset = 0
        with path.open("rb") as stream:
            for line in stream:
                try:
                    head = decoder.decode(line)
                except msgspec.DecodeError as error:
                    if not line.endswith(b"\n"):
                        break  # a torn end
                    raise foreign(f"{path}, byte {offset}") from error
                key = (head.endpoint, head.case, head.repeat, head.request_hash, head.fingerprint)
                hashes.append(hash64(key))
                places.append(2 * offset + (head.error is None))
                offset += len(line)
        all_hashes = np.frombuffer(hashes, dtype=np.uint64)
        all_places = np.frombuffer(places, dtype=np.uint64)
        # By hash, then answers after errors, then later rows after earlier ones.
        order = np.lexsort((all_places, all_places % 2, all_hashes))
        ordered = all_hashes[order]
        last = np.flatnonzero(np.r_[ordered[1:] != ordered[:-1], len(ordered) > 0])
        return ordered[last], all_places[order[last]]

    def __contains__(self, key: object) -> bool:
        return self._place(key) % 2 == 1

    def _place(self, key: object) -> int:
        """Twice the offset, plus 1 for an answer; -2 when there is no such row."""
        if not len(self._hashes):  # a new batch asks this of every input
            return -2
        value = self._hashes.dtype.type(hash64(key))
        index = int(self._hashes.searchsorted(value))
        if index == len(self._hashes) or self._hashes[index] != value:
            return -2
        return int(self._places[index])

    def get(self, key: RequestKey) -> Prediction | None:
        """The row of this request."""
        offset = self._place(key) // 2
        if offset < 0:
            return None
        row = Prediction.model_validate_json(self._line(offset))
        return row if row.key == key else None

    def _line(self, offset: int) -> bytes:
        data = b""
        while b"\n" not in data and (more := os.pread(self._file, 1 << 14, offset + len(data))):
            data += more
        return data.partition(b"\n")[0]
