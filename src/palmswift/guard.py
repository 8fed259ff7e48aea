"""Ends a process group whose launcher is gone, even by SIGKILL.

`python -m palmswift.guard GRACE WATCHED`, where WATCHED is the group's number and mark. The shell
in `process.py` that turns into this reads a pipe whose other end only the launcher has: it says the
group in one line, and `done` when it has ended the group itself; the pipe's end after the first
line alone means that it died. (Linux's PR_SET_PDEATHSIG would reach `swift` and leave the child
that trains.)
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from palmswift.process import stop_group


def main(argv: Sequence[str]) -> int:
    """End the group."""
    group, _, mark = argv[1].partition(" ")
    stop_group(int(group), float(argv[0]), mark=mark)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
