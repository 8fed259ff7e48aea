"""Which failed requests are asked again, and after how long."""

from __future__ import annotations

import email.utils
import math
import random
import time
from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

FailureKind = Literal[
    "unreachable", "dropped", "timeout", "status", "server_error", "garbage", "too_large"
]
"""Why a request has no answer: no connection came to stand, it broke before the reply's end, too
slow, an HTTP status, an `error` object in place of (or within) a reply, a reply that is no
completion, a reply without end."""

AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529})
"""Statuses that mean "later"."""

OVERLOADED = frozenset({429, 503, 529})
"""Statuses that mean "less"."""


class RetryPolicy(BaseModel):
    """Patience with a server, in seconds and attempts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    attempts: int = Field(default=4, ge=1)
    connect: float = Field(default=10.0, gt=0)
    """Until the connection stands."""
    first_byte: float = Field(default=300.0, gt=0)
    """The longest silence: until the first byte, and between two reads."""
    total: float = Field(default=600.0, gt=0)
    """From sending to the last byte of one attempt."""
    backoff: float = Field(default=0.5, ge=0)
    """The most that is waited before the second attempt; doubled for each further one."""
    longest_wait: float = Field(default=60.0, ge=0)
    """A server that asks for more than this (Retry-After) is given up on."""
    largest: int = Field(default=64 << 20, ge=1)
    """Bytes of a reply; one that is longer is cut off, so that memory stays bounded."""


def is_transient(kind: FailureKind, status: int | None) -> bool:
    """Whether asking again may help.

    A connection that does not stand, or breaks, is tried again. A request that took too long is
    not: the server may still be at work on it, and would do it twice. Nor is a reply that is no
    completion: it is most likely another service's. Of statuses, and of the codes in error
    objects, only those are tried again that say "later".
    """
    if kind in ("status", "server_error"):
        return status in AGAIN
    return kind in ("unreachable", "dropped")


def wait_before(attempt: int, policy: RetryPolicy, retry_after: float | None) -> float:
    """Seconds to wait before `attempt` (2, 3, ...): what the server asked for, else exponential
    backoff with full jitter."""
    if retry_after is not None:
        return retry_after
    ceiling = min(policy.longest_wait, policy.backoff * 2 ** min(attempt - 2, 64))
    return random.uniform(0, ceiling)


def retry_after(header: str | None, now: float | None = None) -> float | None:
    """The seconds that a Retry-After header asks for (a number or an HTTP date); None: nothing
    that can be read. RFC 9110, 10.2.3."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        date = timestamp(header)
        if date is None:
            return None
        seconds = date - (time.time() if now is None else now)
    return max(0.0, seconds) if math.isfinite(seconds) else None


def asked_wait(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """The seconds that a response's headers ask to wait: `retry-after-ms`, else `Retry-After`.

    A date is held against the server's own clock, where its `Date` shows that it differs from ours.
    """
    milliseconds = retry_after(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    here = time.time() if now is None else now
    there = timestamp(headers.get("Date"))
    if there is not None and abs(there - here) > 2:  # Date is cut to whole seconds
        here = there
    return retry_after(headers.get("Retry-After"), here)


def timestamp(header: str | None) -> float | None:
    """Seconds since 1970 of an HTTP date."""
    if header is None:
        return None
    try:
        return email.utils.parsedate_to_datetime(header).timestamp()
    except (ValueError, OverflowError):
        return None
