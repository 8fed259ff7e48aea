"""Server-sent events out of bytes as they come: the WHATWG rules, as far as data goes."""

from __future__ import annotations

_LONGEST = 16 << 20


class EventStream:
    """Gives the data of each event once it is whole; memory is bounded by the longest line.

    Lines end with LF, CRLF or CR; comments and other fields are passed over; data lines of one
    event are joined by LF. https://html.spec.whatwg.org/multipage/server-sent-events.html
    """

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, data: bytes) -> list[bytes]:
        """The events that end within `data`. ValueError: a line is longer than 16 MiB."""
        # A CR at the end may be half of a CRLF: it waits for what follows.
        buffered = self._rest + data
        held = b"\r" if buffered.endswith(b"\r") else b""
        text = buffered[: len(buffered) - len(held)]
        if b"\r" in text:
            text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, rest = text.split(b"\n")
        if len(rest) > _LONGEST:
            raise ValueError("an event is longer than 16 MiB")
        self._rest = rest + held
        events: list[bytes] = []
        for line in lines:
            self._line(line, events)
        return events

    def close(self) -> list[bytes]:
        """What came without its closing empty line, as servers that break off leave it."""
        events: list[bytes] = []
        self._line(self._rest.rstrip(b"\r"), events)
        self._line(b"", events)
        self._rest = b""
        return events

    def _line(self, line: bytes, events: list[bytes]) -> None:
        if line.startswith(b"data:"):
            self._data.append(line[6:] if line.startswith(b"data: ") else line[5:])
        elif not line and self._data:
            events.append(b"\n".join(self._data))
            self._data = []
