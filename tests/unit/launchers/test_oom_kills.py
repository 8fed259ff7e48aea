"""The system's own counters tell whether it killed a process for want of memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from palmswift.launchers.oom_kills import oom_kills


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@pytest.mark.parametrize(
    ("group", "file"),
    [
        ("0::/user.slice/run-1.scope\n", "user.slice/run-1.scope/memory.events"),
        ("0::/\n", "memory.events"),  # as a container sees itself
        ("0::/docker/abc\n", "memory.events"),  # its path outside, its root inside
        ("9:name=systemd:/\n4:memory:/jobs/7\n0::/\n", "memory/jobs/7/memory.oom_control"),
        ("4:cpu,memory:/jobs/7\n", "memory/memory.oom_control"),
    ],
)
def test_the_counter_of_our_own_group_goes_first(tmp_path: Path, group: str, file: str) -> None:
    _write(tmp_path / "proc/self/cgroup", group)
    _write(tmp_path / "proc/vmstat", "pgfault 9\noom_kill 40\n")
    _write(tmp_path / "cgroup" / file, "oom 3\noom_kill 2\noom_group_kill 0\n")
    assert oom_kills(tmp_path / "proc", tmp_path / "cgroup") == 2


def test_else_the_whole_machine_s_counts_and_else_it_is_not_known(tmp_path: Path) -> None:
    _write(tmp_path / "proc/vmstat", "pgfault 9\noom_kill 40\n")
    assert oom_kills(tmp_path / "proc", tmp_path / "cgroup") == 40
    assert oom_kills(tmp_path / "nothing", tmp_path / "cgroup") is None
