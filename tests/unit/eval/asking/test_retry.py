from __future__ import annotations

import pytest

from palmswift.eval.asking.retry import RetryPolicy, is_transient, retry_after, wait_before


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504])
def test_statuses_that_mean_later_are_asked_again(status: int) -> None:
    assert is_transient("status", status)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422, 501])
def test_statuses_that_mean_no_are_not(status: int) -> None:
    assert not is_transient("status", status)


def test_a_broken_connection_is_asked_again_but_not_what_took_too_long_or_is_garbage() -> None:
    assert is_transient("unreachable", None)
    assert not is_transient("timeout", None)
    assert not is_transient("garbage", 200)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("2", 2.0),
        ("0.5", 0.5),
        ("-3", 0.0),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 40.0),
        ("soon", None),
        ("nan", None),
        ("inf", None),
        (None, None),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(
    header: str | None, seconds: float | None
) -> None:
    assert retry_after(header, now=60.0) == seconds


def test_the_server_decides_the_wait_and_else_it_grows_up_to_a_bound() -> None:
    policy = RetryPolicy(backoff=1, longest_wait=3)
    assert wait_before(2, policy, 1.5) == 1.5
    assert all(wait_before(2, policy, None) <= 1 for _ in range(50))
    assert all(wait_before(20, policy, None) <= 3 for _ in range(50))
