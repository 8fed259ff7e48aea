"""Which failed requests are asked again, and after how long."""

from __future__ import annotations

import email.utils
import random
import time
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

FailureKind = Literal["unreachable", "timeout", "status", "garbage"]
"""Why a request has no answer: no or a broken connection, too slow, an HTTP error, a reply that
is no chat completion."""

_AGAIN = {408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529}


class RetryPolicy(BaseModel):
    """Patience with a server, in seconds and attempts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    attempts: int = Field(default=4, ge=1)
    connect: float = Field(default=10.0, gt=0)
    """Until the connection stands."""
    first_byte: float = Field(default=300.0, gt=0)
    """Between two reads, so also until the first byte."""
    total: float = Field(default=600.0, gt=0)
    """From sending to the last byte of one attempt."""
    backoff: float = Field(default=0.5, ge=0)
    """The most that is waited before the second attempt; doubled for each further one."""
    longest_wait: float = Field(default=60.0, ge=0)
    """A server that asks for more than this (Retry-After) is given up on."""


def is_transient(kind: FailureKind, status: int | None) -> bool:
    """Whether asking again may help.

    A request that took too long is not sent again: the server may still be at work on it, and
    would do it twice. Of the 4xx only those that say "later" are asked again.
    """
    return kind == "unreachable" or (kind == "status" and status in _AGAIN)


def wait_before(attempt: int, policy: RetryPolicy, retry_after: float | None) -> float:
    """Seconds to wait before `attempt` (2, 3, ...): what the server asked for, else exponential
    backoff with full jitter."""
    if retry_after is not None:
        return retry_after
    ceiling = min(policy.longest_wait, policy.backoff * 2 ** (attempt - 2))
    return random.uniform(0, ceiling)


def retry_after(header: str | None, now: float | None = None) -> float | None:
    """The seconds that a Retry-After header asks for (a number or an HTTP date); None: nothing
    that can be read. RFC 9110, 10.2.3."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            date = email.utils.parsedate_to_datetime(header)
        except ValueError:
            return None
        seconds = date.timestamp() - (time.time() if now is None else now)
    return max(0.0, seconds) if seconds == seconds and seconds != float("inf") else None
