"""What all tests stand on."""

from __future__ import annotations

import os
import signal

from hypothesis import settings

pytest_plugins = ["support_workers"]


def pytest_configure() -> None:
    """Let Ctrl-C and a hang-up reach what the tests start, as from a terminal.

    A shell has SIGINT ignored for what it runs in the background (`pytest &`, some CI runners), and
    `nohup` SIGHUP; children inherit that.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


# The same examples in every checking of a commit, new ones at each run on a developer's machine.
settings.register_profile("fixed", derandomize=True, deadline=None)
settings.register_profile("searching", deadline=None)
settings.load_profile("fixed" if os.environ.get("CI") else "searching")
