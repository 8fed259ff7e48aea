"""A real file system of a few MiB, to be filled or made read-only under a command that runs.

A tmpfs, in this order: in a mount namespace of a user namespace (no rights needed, and nothing of
it is seen outside), else mounted by `sudo -n` (or as root) and unmounted afterwards. Where neither
is allowed, the mount's own error is raised.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

_MOUNT = 'mount -t tmpfs -o "size=$1,mode=0700" tmpfs "$2" && echo ready && exec cat'


class SmallDisk:
    """A mounted file system; only `words` can be sure to see what is on it."""

    def __init__(self, folder: Path, enter: Sequence[str], mount: Sequence[str]) -> None:
        self.folder = folder
        self._enter = list(enter)
        self._mount = list(mount)

    def words(self, *words: str | Path, cwd: Path | None = None) -> list[str]:
        """A command as one that runs where the file system is, in `cwd` (that of now without one).

        It keeps its process id. A working folder is of the namespace in which it was entered:
        relative paths would lead past the mount if it were taken along.
        """
        return [*self._enter, "env", f"--chdir={cwd or Path.cwd()}", *map(str, words)]

    def shell(self, script: str, *words: str | Path) -> str:
        """What a shell script prints there, in the folder; its arguments are `words`."""
        done = subprocess.run(
            self.words("sh", "-ec", f'cd "$0" && {script}', self.folder, *words),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def resize(self, size: str) -> None:
        """Make room, or take it away: `size` is tmpfs's own word, such as 3m."""
        self._remount(f"size={size}")

    def read_only(self, yes: bool = True) -> None:
        """Refuse all writing from now on, also root's; or allow it again."""
        self._remount("ro" if yes else "rw")

    def _remount(self, option: str) -> None:
        words = [*self._mount, "-o", f"remount,{option}", str(self.folder)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    @property
    def free(self) -> int:
        """Bytes that can still be written."""
        blocks, size = self.shell("stat -f -c '%a %S' .").split()
        return int(blocks) * int(size)

    def copy(self, name: str, place: Path) -> Path:
        """A copy, outside, of what lies in the folder under `name`."""
        self.shell('tar -cf "$1" -C "$2" .', tarred := place.with_suffix(".tar"), name)
        shutil.unpack_archive(tarred, place, "tar")
        return place


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[SmallDisk]:
    """A file system of that size (`3m`, `256k`) in `folder` for the block; then all is gone."""
    folder.mkdir(parents=True, exist_ok=True)
    unshare = ["unshare", "--user", "--map-root-user", "--mount"]
    holder = subprocess.Popen(
        [*unshare, "sh", "-c", _MOUNT, "sh", size, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert holder.stdin is not None and holder.stdout is not None
    try:
        if holder.stdout.readline() == "ready\n":
            inside = ["nsenter", f"--target={holder.pid}", "--user", "--mount"]
            inside = [*inside, "--preserve-credentials", "--"]
            yield SmallDisk(folder, inside, [*inside, "mount"])
            return
    finally:
        holder.communicate()  # the end of its input is its end, and the namespace's
    with _mounted(folder, size) as disk:
        yield disk


@contextlib.contextmanager
def _mounted(folder: Path, size: str) -> Iterator[SmallDisk]:
    """The file system where everybody sees it, for whom may mount."""
    sudo = ["sudo", "-n"] if shutil.which("sudo") else []
    options = f"size={size},mode=0777"
    mount = [*sudo, "mount"]
    subprocess.run([*mount, "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
    try:
        yield SmallDisk(folder, [], mount)
    finally:
        subprocess.run([*sudo, "umount", "--lazy", str(folder)], check=True)
