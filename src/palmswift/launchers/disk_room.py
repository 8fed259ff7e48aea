"""Room on the disk: what is kept back for a run's record, and whether a training took the rest."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

RESERVED_BYTES = 1 << 20
"""run.json, the last events and the summary page take a tenth of it."""

_FULL_BELOW = 64 << 10
"""Bytes: fewer are no room. A file system keeps a few blocks that no file of any size gets."""


class Reserve:
    """A file that holds room, to be given up for what must be written when there is none."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def take(self) -> None:
        """Fill it; OSError when there is no room for it, which is then left as it was."""
        try:
            # Random: a file system that compresses would keep no room for zeros.
            self.path.write_bytes(os.urandom(RESERVED_BYTES))
        except OSError:
            self.give_up()
            raise

    def give_up(self) -> bool:
        """Make its room free; whether there was any."""
        try:
            self.path.unlink()
        except OSError:
            return False
        return True


class Room:
    """How little room there was on a folder's disk while something ran."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lowest: int | None = None
        """In bytes; None while nobody could tell."""

    def look(self) -> None:
        """Ask the file system."""
        with contextlib.suppress(OSError):
            free = shutil.disk_usage(self.folder).free
            self.lowest = free if self.lowest is None else min(self.lowest, free)

    @property
    def ran_out(self) -> bool:
        """Whether a look has found none. What is written then gets lost, its log too."""
        return self.lowest is not None and self.lowest < _FULL_BELOW
