"""Runs a coroutine so that Ctrl-C and SIGTERM cancel it in order, whatever it is waiting for."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def run_interruptible(work: Coroutine[Any, Any, Result]) -> Result:
    """What `work` returns, as `asyncio.run` does.

    A signal cancels `work`; once it has cleaned up, KeyboardInterrupt is raised with the signal's
    number as its argument. A handler that raises would do so within whatever task is running.
    """
    got: list[signal.Signals] = []

    async def guarded() -> Result:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None

        def stop(number: signal.Signals) -> None:
            got.append(number)
            task.cancel()

        before = {number: signal.getsignal(number) for number in _SIGNALS}
        try:
            # RuntimeError, ValueError: not in the main thread, where no signal arrives
            with contextlib.suppress(RuntimeError, ValueError):
                for number in _SIGNALS:
                    loop.add_signal_handler(number, stop, number)
            return await work
        finally:
            for number, handler in before.items():
                if loop.remove_signal_handler(number):
                    signal.signal(number, handler)

    try:
        return asyncio.run(guarded())
    except asyncio.CancelledError:
        if not got:
            raise
        raise KeyboardInterrupt(got[0]) from None
