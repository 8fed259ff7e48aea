"""What all tests stand on."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """Let Ctrl-C reach what the tests start, as from a terminal.

    A shell has SIGINT ignored for what it runs in the background (`pytest &`, some CI runners), and
    children inherit that.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
