"""Shows answers while they come: one after another, or those of several models side by side."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from palmswift.command import Console
from palmswift.eval.asking.talk import Turn
from palmswift.eval.asking.think import Piece

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

_LEAST_COLUMNS = 30
"""Width of a model's column below which answers stand under each other."""


class Screen:
    """Prints the answer of one model; thinking is dim on a terminal and left out elsewhere."""

    def __init__(self, console: Console) -> None:
        self.stream = sys.stderr if console.json_output else sys.stdout
        self.colour = self.stream.isatty()
        self._kind = "answer"

    def begin(self, labels: Sequence[str]) -> None:
        """A question has been asked of these models."""

    def show(self, label: str, piece: Piece) -> None:
        """Print one piece."""
        if piece.kind == "reasoning" and (not self.colour or not piece.text.strip()):
            return
        if self.colour and piece.kind != self._kind:
            self.stream.write("\x1b[2m" if piece.kind == "reasoning" else "\x1b[0m\n")
        self._kind = piece.kind
        self.stream.write(piece.text)
        self.stream.flush()

    def end(self, turns: Sequence[Turn]) -> None:
        """End the answer's line, and say why if there is none."""
        if self.colour and self._kind == "reasoning":
            self.stream.write("\x1b[0m")
        self._kind = "answer"
        self.stream.write("\n")
        for turn in turns:
            if note := note_on(turn):
                print(note, file=sys.stderr)
        self.stream.flush()


class SideBySide(Screen):
    """Shows the answers of several models in columns while they come."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._texts: dict[str, list[Piece]] = {}
        self._live: Live | None = None

    def begin(self, labels: Sequence[str]) -> None:
        """Make a column for each model."""
        self._texts = {label: [] for label in labels}
        if self.colour:
            from rich.console import Console as Terminal
            from rich.live import Live

            self._live = Live(
                self._table(),
                console=Terminal(file=self.stream),
                auto_refresh=False,
                transient=True,
                vertical_overflow="ellipsis",
            )
            self._live.start()

    def show(self, label: str, piece: Piece) -> None:
        """Add a piece to its column."""
        self._texts[label].append(piece)
        if self._live is not None:
            self._live.update(self._table(), refresh=True)

    def end(self, turns: Sequence[Turn]) -> None:
        """Leave the whole answers on the screen."""
        if self._live is not None:
            self._live.stop()
            self._live.console.print(self._table(turns))
            self._live = None
        else:
            for turn in turns:
                print(f"[{turn.label}] {turn.answer or ''}", file=self.stream)
        for turn in turns:
            if note := note_on(turn):
                print(f"{turn.label}: {note}", file=sys.stderr)
        self.stream.flush()

    def _table(self, turns: Sequence[Turn] = ()) -> Table:
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, expand=True, padding=(0, 2, 0, 0), header_style="bold")
        facts = {turn.label: f"{turn.seconds:.1f} s" for turn in turns}
        columns = []
        for label, pieces in self._texts.items():
            text = Text()
            before = ""
            for piece in pieces:
                if before == "reasoning" and piece.kind == "answer":
                    text.append("\n")
                text.append(piece.text, "dim" if piece.kind == "reasoning" else "")
                before = piece.kind
            columns.append(text)
            table.add_column(
                Text(f"{label} {facts.get(label, '')}".strip()),
                ratio=1,
                min_width=_LEAST_COLUMNS,
                overflow="fold",
            )
        table.add_row(*columns)
        return table


def note_on(turn: Turn) -> str:
    """Why a turn has no whole answer; empty when it has."""
    if turn.error is not None:
        return f"error: {turn.error}"
    if turn.stopped:
        return "(stopped; this turn is not kept)"
    if turn.answer is None:
        return "(no answer: the thinking never ended; raise --max-tokens)"
    return "(cut at --max-tokens)" if turn.finish_reason == "length" else ""
