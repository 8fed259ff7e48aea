"""When the parts of a streamed reply came: the clock of one attempt, and what is kept of it."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from palmswift.eval.asking.think import ThinkStream


class Timings(BaseModel):
    """When parts of the last attempt's reply came, in seconds from sending that attempt.

    First bytes are known of every reply, the others of streamed ones alone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    first_byte: float | None = None
    """Until the response's headers."""
    first_reasoning: float | None = None
    """Until the first thinking, in its own field or within `<think>`."""
    first_content: float | None = None
    """Until the first text that is not thinking."""
    last_text: float | None = None
    """Until the last text, thinking or not."""
    events: int = 0
    """Events that brought text: a server may put several tokens into one."""
    gap_mean: float | None = None
    gap_p50: float | None = None
    gap_p99: float | None = None
    gap_max: float | None = None
    """Seconds between one event with text and the next."""

    @property
    def first_text(self) -> float | None:
        """Until the first text, thinking or not."""
        known = [t for t in (self.first_reasoning, self.first_content) if t is not None]
        return min(known, default=None)


class StreamClock:
    """Notes when text came; an event without text (the role, an empty delta) is not one of them."""

    def __init__(self, started: float) -> None:
        self.started = started
        self.first_byte: float | None = None
        self.first_reasoning: float | None = None
        self.first_content: float | None = None
        self.arrivals: list[float] = []
        """Seconds from `started` of each event with text."""
        self._splitter: ThinkStream | None = ThinkStream()

    def headers(self, now: float) -> None:
        """The response has begun."""
        self.first_byte = now - self.started

    def text(self, content: str, reasoning: str, now: float) -> None:
        """An event came with these texts, of which one may be empty."""
        if not content and not reasoning:
            return
        since = now - self.started
        self.arrivals.append(since)
        if reasoning and self.first_reasoning is None:
            self.first_reasoning = since
        if content and self._splitter is not None:
            for piece in self._splitter.feed(content):
                if piece.kind == "answer":
                    self.first_content = since
                    self._splitter = None  # all that follows is the answer
                    return
                if self.first_reasoning is None and piece.text.strip():
                    self.first_reasoning = since

    def timings(self) -> Timings:
        """What was noted, in few numbers."""
        gaps = sorted(b - a for a, b in zip(self.arrivals, self.arrivals[1:], strict=False))
        return Timings(
            first_byte=self.first_byte,
            first_reasoning=self.first_reasoning,
            first_content=self.first_content,
            last_text=self.arrivals[-1] if self.arrivals else None,
            events=len(self.arrivals),
            gap_mean=sum(gaps) / len(gaps) if gaps else None,
            gap_p50=quantile(gaps, 0.5) if gaps else None,
            gap_p99=quantile(gaps, 0.99) if gaps else None,
            gap_max=gaps[-1] if gaps else None,
        )


def quantile(ordered: Sequence[float], share: float) -> float:
    """The quantile of sorted values, linear between neighbours as numpy's default; one at least."""
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)
