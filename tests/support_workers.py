"""How the tests are dealt out to the processes that run them: whole modules, the longest first.

`pytest -n auto --dist loadgroup`, as `quickstart.py test` calls it. A module stays in one process
for its fixtures' sake, and so do all modules that use one of the fixtures in SHARED. These tests
are told with its name: `tests/e2e/test_demo.py::test_the_demo_ends_well@demo`.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.scheduler import LoadGroupScheduling

SHARED = ("lora_demo", "demo")
"""Session fixtures that take minutes."""

ORDER = ("lora_demo", "demo", "test_methods.py", "e2e", "integration", "unit")
"""Fixtures, modules and folders by how long what has to do with them takes: when the short come
last, all processes end at about one time."""

MOST_WORKERS = 4
"""More would only wait for the modules that share a fixture; each may need 4 GB of memory."""


def pytest_configure(config: pytest.Config) -> None:
    """Give what a process of several starts one thread: torch's others would wait for a core."""
    if hasattr(config, "workerinput"):
        os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """How many processes `-n auto` starts: one a core, none for one module and with `-k`."""
    [first, *others] = config.args
    if config.option.keyword or (Path(first.split("::")[0]).is_file() and not others):
        return 0
    return min(_cores(), MOST_WORKERS)


def _cores() -> int:
    """The cores that this process may use: of the machine, by affinity, by its control group."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with contextlib.suppress(OSError, ValueError):  # `max` is no limit
        quota, period = map(int, Path("/sys/fs/cgroup/cpu.max").read_text().split())
        return max(1, min(cores or 1, quota // period))
    return cores or 1


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadGroupScheduling:
    """Deals out groups, and modules where there is no group, in the order that they come in."""
    from xdist.scheduler import LoadGroupScheduling

    class ByModule(LoadGroupScheduling):  # type: ignore[misc]  # xdist has no types
        def _split_scope(self, nodeid: str) -> str:
            return str(super()._split_scope(nodeid)).split("::")[0]

    config.option.loadscopereorder = False
    return ByModule(config, log)


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the marks
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the longest first, and mark those that share a fixture as a group."""
    used: dict[Path, set[str]] = {}
    for item in items:
        used.setdefault(item.path, set()).update(getattr(item, "fixturenames", ()))
    items.sort(key=lambda item: _place(item.path, used[item.path]))
    if not config.pluginmanager.hasplugin("xdist"):
        return
    for item in items:
        for fixture in [name for name in SHARED if name in used[item.path]][:1]:
            item.add_marker(pytest.mark.xdist_group(fixture))


def _place(path: Path, used: set[str]) -> int:
    """Sorts the modules."""
    return [*(name in used or name in path.parts for name in ORDER), True].index(True)
