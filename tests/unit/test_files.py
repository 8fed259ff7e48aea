"""Files are whole or absent, whatever happens while they are written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palmswift.files import (
    atomic_text,
    is_file,
    locked,
    read_jsonl,
    sha256_of,
    write_json,
    write_jsonl,
    write_text,
)

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("ab\n名"), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=30, deadline=None)  # each example waits for the disk twice
@given(rows=st.lists(_JSON, max_size=6))
def test_rows_are_read_back_as_they_were_written(rows: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "deep" / "rows.jsonl"
        assert write_jsonl(path, rows) == len(rows)
        assert list(read_jsonl(path)) == rows
        write_json(path, rows)
        assert json.loads(path.read_text(encoding="utf-8")) == rows


@settings(max_examples=30, deadline=None)
@given(before=st.none() | st.text("ab", max_size=3), written=st.integers(0, 4))
def test_an_exception_leaves_the_old_file_and_nothing_beside_it(
    before: str | None, written: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        if before is not None:
            path.write_text(before)

        def rows() -> Any:
            yield from range(written)
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            write_jsonl(path, rows())
        assert (path.read_text() if path.exists() else None) == before
        assert [file.name for file in Path(folder).iterdir()] == ["file"] * (before is not None)


def test_a_killed_writer_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    text = (
        "import os, signal, sys; from pathlib import Path\n"
        "from palmswift.files import atomic_text\n"
        "with atomic_text(Path(sys.argv[1])) as stream:\n"
        "    stream.write('new'); stream.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", text, str(path)], check=False)
    assert path.read_text() == "old"


def test_a_file_appears_only_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with atomic_text(path) as stream:
        stream.write("whole")
        stream.flush()
        assert not path.exists()
    assert path.read_text() == "whole"


def test_the_users_umask_is_kept(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        write_text(tmp_path / "private", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "private").stat().st_mode & 0o777 == 0o600


def test_text_that_is_no_utf8_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "file", "\udcff")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", ".", "gone"])
def test_no_name_is_too_odd_to_be_asked_about(tmp_path: Path, name: str) -> None:
    assert not is_file(tmp_path / name)


def test_a_hash_is_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_of(tmp_path / "file") == expected


def test_a_lock_is_held_by_one_and_ends_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    text = (
        "import sys, time; from pathlib import Path\n"
        "from palmswift.files import locked\n"
        "with locked(Path(sys.argv[1])):\n"
        "    print('held', flush=True); time.sleep(60)\n"
    )
    argv = [sys.executable, "-c", text, str(path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(BlockingIOError), locked(path):
            pass
        holder.kill()
    with locked(path, wait=True), pytest.raises(BlockingIOError), locked(path):
        pass
