"""Ends a process group when the launcher that started it is gone, even by SIGKILL.

`python -m palmswift.guard GRACE [WATCHED]`; stdin is a pipe whose other end only the launcher has.
It says the group's number and mark in one line (WATCHED, for a group that runs already), and `done`
when it has ended the group itself; the pipe's end after the first line alone means that it died.
(Linux's PR_SET_PDEATHSIG would reach `swift` and leave the child that trains.)
"""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """Wait for the end of the pipe, then end the group if nobody else did."""
    lines = [*argv[1:], *sys.stdin.read().splitlines()]
    if len(lines) == 1:
        from palmswift.process import stop_group  # psutil's memory is not for the hours of waiting

        group, _, mark = lines[0].partition(" ")
        stop_group(int(group), float(argv[0]), mark=mark)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
