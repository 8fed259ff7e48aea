"""Record a command in a terminal, and draw the recording as one animated SVG.

    pip install pyte
    python docs/record_demo.py --out docs/demo.svg --speed 8 -- python3 quickstart.py demo

The command runs in a pseudo-terminal in the current folder; what is drawn is what it wrote, when
it wrote it, `--speed` times faster. The drawing plays once and stays at the end; where a viewer
shows no animation, or is asked for less motion, the end is all it shows. Run it in a checkout at a
neutral path: the screen shows paths. `--cast FILE` keeps the recording (asciicast v2), `--from
FILE` draws one again.
"""

from __future__ import annotations

import argparse
import codecs
import fcntl
import json
import os
import pty
import shlex
import struct
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from html import escape
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import pyte
from pyte.screens import Char

COLUMNS = 104
ROWS = 32
"""Of the window that is drawn; the emulated screen is taller than any run, so it never scrolls."""
_TALL = 2000
_FRAME = 0.1
"""Seconds of the drawing between two looks at the screen."""
_CELL_WIDTH, _LINE_HEIGHT, _PAD, _BAR = 8.0, 18, 14, 34

_PAPER, _INK, _QUIET = "#14181b", "#d5dade", "#8a949c"
_COLOURS = {
    "black": "#4d565d",
    "red": "#f2857d",
    "green": "#62c992",
    "brown": "#e4b45c",
    "blue": "#8ab4f8",
    "magenta": "#d2a8f0",
    "cyan": "#6cc7d0",
    "white": _INK,
    "default": _INK,
}


class Event(NamedTuple):
    """Text that arrived, and when: seconds from the start."""

    at: float
    text: str


class Recording(NamedTuple):
    """A command as it was typed and all that it wrote."""

    command: str
    events: list[Event]
    exit_code: int


class Version(NamedTuple):
    """What a line showed from `begin` to `end` (seconds of the drawing; None: to the last)."""

    cells: tuple[Char, ...]
    begin: float
    end: float | None


def record(argv: Sequence[str]) -> Recording:
    """Run a command in a pseudo-terminal, its output shown here too, and keep what it writes."""
    child, master = pty.fork()
    if child == 0:
        os.environ.update(TERM="xterm-256color", COLUMNS=str(COLUMNS), LINES=str(ROWS))
        os.execvp(argv[0], list(argv))
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    begun, events = time.monotonic(), []
    while True:
        try:
            chunk = os.read(master, 65536)
        except OSError:  # Linux says EIO once the child has closed its end
            break
        if not chunk:
            break
        os.write(sys.stdout.fileno(), chunk)
        events.append(Event(time.monotonic() - begun, decoder.decode(chunk)))
    _, status = os.waitpid(child, 0)
    return Recording(shlex.join(argv), events, os.waitstatus_to_exitcode(status))


def write_cast(recording: Recording, path: Path) -> None:
    """Keep a recording as an asciicast, version 2."""
    header = {"version": 2, "width": COLUMNS, "height": ROWS, "command": recording.command}
    rows = [header, *([round(event.at, 3), "o", event.text] for event in recording.events)]
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text(text + "\n", encoding="utf-8")


def read_cast(path: Path) -> Recording:
    """A recording that `write_cast` kept."""
    first, *lines = path.read_text(encoding="utf-8").splitlines()
    events = [Event(at, text) for at, _, text in map(json.loads, lines)]
    return Recording(json.loads(first)["command"], events, 0)


def draw(recording: Recording, speed: float) -> str:
    """The recording as an SVG document."""
    lines, scrolls, length = _play(recording, speed)
    width = round(COLUMNS * _CELL_WIDTH + 2 * _PAD)
    rows = min(ROWS, len(lines))
    height = _BAR + rows * _LINE_HEIGHT + _PAD
    title = f"{recording.command}  (shown {speed:g} times faster)"
    body = "\n".join(
        _version(version, number) for number, line in enumerate(lines) for version in line
    )
    bottom = _top(len(lines))
    return f"""<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" \
viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}">
<style>
text {{ font: 13px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; \
fill: {_INK}; white-space: pre; }}
.b {{ font-weight: 700; }}
.past {{ visibility: hidden; }}
@keyframes on {{ from, to {{ visibility: visible; }} }}
@keyframes off {{ from, to {{ visibility: hidden; }} }}
@keyframes scroll {{ {_scroll_frames(scrolls, length)} }}
@media (prefers-reduced-motion: no-preference) {{
.past {{ animation-name: on; }}
.last {{ animation-name: off; }}
.page {{ animation: scroll {length:.1f}s step-end; }}
}}
</style>
<rect width="{width}" height="{height}" rx="8" fill="{_PAPER}"/>
<circle cx="20" cy="17" r="5" fill="#4d565d"/><circle cx="38" cy="17" r="5" fill="#4d565d"/>\
<circle cx="56" cy="17" r="5" fill="#4d565d"/>
<text x="{width // 2}" y="22" text-anchor="middle" style="fill:{_QUIET}">{escape(title)}</text>
<svg x="{_PAD}" y="{_BAR}" width="{width - 2 * _PAD}" height="{rows * _LINE_HEIGHT}">
<g class="page" transform="translate(0 {-bottom * _LINE_HEIGHT})">
{body}
</g>
</svg>
</svg>
"""


def _play(
    recording: Recording, speed: float
) -> tuple[list[list[Version]], list[tuple[float, int]], float]:
    """Every line's versions, the times at which the window moves with its new top line, and the
    length of the drawing in seconds."""
    screen = pyte.Screen(COLUMNS, _TALL)
    stream = pyte.Stream(screen)
    stream.feed(f"\x1b[1m$ {recording.command}\x1b[0m\r\n")
    lines: list[list[Version]] = []
    scrolls: list[tuple[float, int]] = [(0.0, 0)]
    events = iter([*recording.events, Event(float("inf"), "")])
    event = next(events)
    length = recording.events[-1].at / speed + _FRAME if recording.events else _FRAME
    for frame in range(int(length / _FRAME) + 2):
        now = frame * _FRAME
        while event.at <= now * speed:
            stream.feed(event.text)
            event = next(events)
        shown = max((row for row in screen.buffer if _cells(screen, row)), default=0) + 1
        lines += [[] for _ in range(shown - len(lines))]
        for row in sorted(screen.dirty):
            if row < len(lines):
                _renew(lines[row], _cells(screen, row), now)
        screen.dirty.clear()
        if _top(shown) != scrolls[-1][1]:
            scrolls.append((now, _top(shown)))
    return lines, scrolls, length


def _renew(line: list[Version], cells: tuple[Char, ...], now: float) -> None:
    if line and line[-1].cells == cells:
        return
    if line:
        line[-1] = line[-1]._replace(end=now)
    line.append(Version(cells, now, None))


def _cells(screen: pyte.Screen, row: int) -> tuple[Char, ...]:
    """A line's cells without the blank ones at its end."""
    line = screen.buffer[row]
    cells = [line[column] for column in range(COLUMNS)]
    while cells and not cells[-1].data.strip():
        cells.pop()
    return tuple(cells)


def _top(lines: int) -> int:
    return max(0, lines - ROWS)


def _scroll_frames(scrolls: Sequence[tuple[float, int]], length: float) -> str:
    return " ".join(
        f"{min(100.0, 100 * at / length):.2f}% "
        f"{{ transform: translateY({-top * _LINE_HEIGHT}px); }}"
        for at, top in scrolls
    )


def _version(version: Version, number: int) -> str:
    """One version of a line; it is animated unless it is there from the first to the last."""
    runs = "".join(_runs(version.cells, (number + 1) * _LINE_HEIGHT - 5))
    if not runs:
        return ""
    if version.end is not None:
        lasts, waits, kind = version.end - version.begin, version.begin, "past"
    elif version.begin > 0:
        lasts, waits, kind = version.begin, 0.0, "last"
    else:
        return runs
    times = f"animation-duration:{lasts:.1f}s;animation-delay:{waits:.1f}s"
    return f'<g class="{kind}" style="{times}">{runs}</g>'


def _runs(cells: tuple[Char, ...], baseline: int) -> Iterator[str]:
    """A `text` for each stretch of one style, pinned to its columns whatever the font."""
    column = 0
    for (colour, bold), group in groupby(cells, key=lambda cell: (cell.fg, cell.bold)):
        stretch = list(group)  # a wide character's second cell is empty
        text = "".join(cell.data for cell in stretch)
        if text.strip():
            fill = _COLOURS.get(colour) or f"#{colour}"
            yield (
                f'<text x="{column * _CELL_WIDTH:g}" y="{baseline}" '
                f'textLength="{len(stretch) * _CELL_WIDTH:g}"'
                + (' class="b"' if bold else "")
                + (f' style="fill:{fill}"' if fill != _INK else "")
                + f">{escape(text)}</text>"
            )
        column += len(stretch)


def main(argv: Sequence[str] | None = None) -> int:
    """Record or read, and draw; the recorded command's exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--out", type=Path, required=True, metavar="SVG")
    parser.add_argument("--speed", type=float, default=8.0, help="times faster than real (8)")
    parser.add_argument("--cast", type=Path, metavar="FILE", help="keep the recording there")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--from", type=Path, dest="source", metavar="FILE")
    source.add_argument("command", nargs="*", default=[], help="after --")
    arguments = parser.parse_args(argv)
    recording = read_cast(arguments.source) if arguments.source else record(arguments.command)
    if arguments.cast:
        write_cast(recording, arguments.cast)
    arguments.out.write_text(draw(recording, arguments.speed), encoding="utf-8")
    return recording.exit_code


if __name__ == "__main__":
    raise SystemExit(main())
