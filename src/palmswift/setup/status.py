"""The state of the machine and the environment: what is there, what is wrong, how to mend it."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from palmswift.errors import Problem
from palmswift.setup.environment import Environment
from palmswift.setup.gpus import GpuReport, ask_gpus
from palmswift.setup.install import BASE_EXTRAS
from palmswift.setup.packages import compare_packages

_MIN_FREE_DISK_GIB = 2.0
_MIN_MEMORY_GIB = 4.0


def status_of(environment: Environment) -> dict[str, Any]:
    """Everything as one JSON document; `problems` is empty when all is well."""
    report = ask_gpus()
    memory = memory_gib()
    free_disk = shutil.disk_usage(existing_folder(environment.folder)).free / (1 << 30)
    stamp = environment.stamp()
    document = {
        "python": {"version": sys.version.split()[0], "path": sys.executable},
        "environment": {
            "folder": str(environment.folder),
            "state": stamp.get("state", "missing"),
            "extras": stamp.get("extras", []),
            "build": stamp.get("build", ""),
            "log": str(environment.log) if environment.log.exists() else None,
        },
        "packages": [
            {**package._asdict(), "agrees": package.agrees}
            for package in compare_packages(environment)
        ],
        "torch": {
            "version": environment.packages().get("torch"),
            "cuda": environment.torch_cuda() or None,
        },
        "gpus": [gpu._asdict() for gpu in report.gpus],
        "driver_cuda": report.cuda or None,
        "disk": {"free_gib": round(free_disk, 1)},
        "memory": {name: round(value, 1) for name, value in memory.items()},
    }
    problems = [
        *_environment_problems(environment),
        *_gpu_problems(environment, report),
        *_machine_problems(free_disk, memory.get("total_gib", _MIN_MEMORY_GIB)),
    ]
    return {**document, "problems": [dataclasses.asdict(problem) for problem in problems]}


def memory_gib() -> dict[str, float]:
    """RAM in GiB: `total_gib`, and `available_gib` where the system tells it."""
    page = os.sysconf("SC_PAGE_SIZE")
    memory = {"total_gib": os.sysconf("SC_PHYS_PAGES") * page / (1 << 30)}
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        found = re.search(r"MemAvailable:\s+(\d+) kB", meminfo.read_text(encoding="utf-8"))
        if found:
            memory["available_gib"] = int(found.group(1)) / (1 << 20)
    return memory


def existing_folder(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next(path for path in (folder, *folder.parents) if path.is_dir())


def _environment_problems(environment: Environment) -> list[Problem]:
    remedy = "python3 quickstart.py install"
    reason = environment.lacks(BASE_EXTRAS)
    if reason:
        return [Problem(f"the environment has to be installed: {reason}", remedy=remedy)]
    return [
        Problem(str(package), remedy=remedy)
        for package in compare_packages(environment)
        if not package.agrees
    ]


def _gpu_problems(environment: Environment, report: GpuReport) -> list[Problem]:
    if report.error:
        return [
            Problem(
                f"nvidia-smi fails: {report.error.splitlines()[0]}",
                remedy="reboot if the driver was updated, else install it again",
            )
        ]
    if not report.gpus or "torch" not in environment.packages():
        return []
    built = environment.torch_cuda()
    if not built:
        return [
            Problem(
                "this machine has a GPU, and torch is a CPU build",
                remedy="python3 quickstart.py install --gpu",
            )
        ]
    if report.cuda and _major(built) > _major(report.cuda):
        return [
            Problem(
                f"torch is built for CUDA {built}, the driver runs CUDA {report.cuda} at most",
                remedy="update the NVIDIA driver, or let uv choose the build that fits it: "
                "python3 quickstart.py install --gpu --fresh",
            )
        ]
    return [
        Problem(
            f"{gpu.name} has compute capability {gpu.compute}; CUDA 13 needs 7.5",
            remedy="a GPU of the RTX 20 series or newer; for this one try a build for CUDA 12: "
            "UV_TORCH_BACKEND=cu126 python3 quickstart.py install --gpu --fresh",
        )
        for gpu in report.gpus
        if _major(built) >= 13 and gpu.compute and float(gpu.compute) < 7.5
    ]


def _machine_problems(free_disk: float, memory: float) -> list[Problem]:
    problems = []
    if free_disk < _MIN_FREE_DISK_GIB:
        problems.append(Problem(f"{free_disk:.1f} GiB of disk are free", remedy="make room"))
    if memory < _MIN_MEMORY_GIB:
        remedy = f"a machine with {_MIN_MEMORY_GIB:.0f} GiB or more"
        problems.append(Problem(f"this machine has {memory:.1f} GiB of memory", remedy=remedy))
    return problems


def _major(version: str) -> int:
    return int(version.partition(".")[0])


def status_lines(document: dict[str, Any]) -> list[str]:
    """The document for people."""
    environment, memory = document["environment"], document["memory"]
    extras = f" ({', '.join(environment['extras'])})" if environment["extras"] else ""
    cuda = document["torch"]["cuda"]
    torch = f"CUDA {cuda}" if cuda else "CPU build"
    available = memory.get("available_gib")
    of = f"{available} GiB available of " if available is not None else ""
    lines = [
        f"python       {document['python']['version']}  {document['python']['path']}",
        f"environment  {environment['state']}{extras}  {environment['folder']}",
        f"torch        {document['torch']['version']}, {torch}"
        if document["torch"]["version"]
        else "torch        not installed",
        *map(_gpu_line, document["gpus"]),
        *([] if document["gpus"] else ["gpu          none"]),
        f"driver       runs CUDA {document['driver_cuda']} at most" if document["gpus"] else "",
        f"disk         {document['disk']['free_gib']} GiB free",
        f"memory       {of}{memory['total_gib']} GiB",
        *(
            f"  {row['name']:<14} {row['installed']}"
            for row in document["packages"]
            if row["installed"]
        ),
    ]
    problems = [f"  {Problem(**problem)}" for problem in document["problems"]]
    verdict = ["", "what is wrong:", *problems] if problems else ["", "all is well"]
    return [line for line in lines if line] + verdict


def _gpu_line(gpu: dict[str, Any]) -> str:
    free = f"{gpu['free_mib']:,}" if gpu["free_mib"] is not None else "unknown"
    total = f"{gpu['total_mib']:,} MiB" if gpu["total_mib"] is not None else "unified memory"
    compute = gpu["compute"] or "unknown"
    return (
        f"gpu          {gpu['name']}: {free} free of {total}, "
        f"compute capability {compute}, driver {gpu['driver']}"
    )
