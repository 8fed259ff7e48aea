"""What nvidia-smi tells about the GPUs and their driver."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import NamedTuple

_FIELDS = ("name", "driver_version", "memory.total", "memory.free", "compute_cap", "memory.used")


class Gpu(NamedTuple):
    """One GPU; memory in MiB, None where the driver does not tell (unified memory)."""

    name: str
    driver: str
    total_mib: int | None
    free_mib: int | None
    compute: str
    """Compute capability, such as 8.9; empty when the driver is too old to tell."""
    used_mib: int | None = None

    @property
    def cuda_mib(self) -> int | None:
        """What CUDA calls the card's memory: the driver's own share is in the total alone."""
        if self.free_mib is None or self.used_mib is None:
            return None
        return self.free_mib + self.used_mib


class GpuReport(NamedTuple):
    """The GPUs, the newest CUDA that the driver runs, and why there are none if it failed."""

    gpus: tuple[Gpu, ...] = ()
    cuda: str = ""
    error: str = ""


def ask_gpus() -> GpuReport:
    """The NVIDIA GPUs of this machine; an empty report where nvidia-smi is missing."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return GpuReport()
    for count in (len(_FIELDS), 4):  # drivers before 510 know no compute_cap
        query = f"--query-gpu={','.join(_FIELDS[:count])}"
        code, text = _ask(program, query, "--format=csv,noheader,nounits")
        if code == 0:
            break
    else:
        return GpuReport(error=text.strip() or f"nvidia-smi ended with code {code}")
    found = re.search(r"CUDA (?:UMD )?Version:\s*([\d.]+)", _ask(program)[1])
    gpus = tuple(_gpu(line) for line in text.splitlines() if line.strip())
    return GpuReport(gpus, found.group(1) if found else "")


def _gpu(line: str) -> Gpu:
    name, driver, total, free, compute, used = (*map(str.strip, line.split(",")), *[""] * 5)[:6]
    return Gpu(name, driver, _mib(total), _mib(free), compute, _mib(used))


def _mib(text: str) -> int | None:
    return int(text) if text.isdigit() else None


def _ask(program: str, *arguments: str) -> tuple[int, str]:
    try:
        done = subprocess.run(
            [program, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return 1, str(error)
    return done.returncode, done.stdout
