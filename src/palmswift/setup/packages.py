"""Which versions palmswift is tested with, beside the ones that an environment has."""

from __future__ import annotations

import re
from typing import NamedTuple

from palmswift.setup.environment import CONSTRAINTS, Environment

MAIN_PACKAGES = (
    "palmswift",
    "ms-swift",
    "torch",
    "transformers",
    "peft",
    "trl",
    "accelerate",
    "bitsandbytes",
    "modelscope",
    "datasets",
    "tokenizers",
    "safetensors",
    "numpy",
    "pydantic",
    "aiohttp",
    "requests",
    "jinja2",
    "pyyaml",
    "rich",
    "sacrebleu",
    "tensorboard",
)
"""The packages that are compared; palmswift itself has no tested version."""


class Package(NamedTuple):
    """One package: its version here, None when it is missing, and the versions tested."""

    name: str
    installed: str | None
    tested: list[str]

    @property
    def agrees(self) -> bool:
        """Whether a tested version is installed; a local part (+cpu) is a build of the same one."""
        if self.installed is None:
            return False
        return not self.tested or self.installed.partition("+")[0] in self.tested

    def __str__(self) -> str:
        here = f"{self.name} {self.installed or 'is missing'}"
        return here if self.agrees else f"{here}, tested with {' or '.join(self.tested)}"


def tested_versions() -> dict[str, list[str]]:
    """The versions in constraints.txt by package; more than one where Pythons differ."""
    tested: dict[str, list[str]] = {}
    text = CONSTRAINTS.read_text(encoding="utf-8")
    for name, version in re.findall(r"(?m)^([\w.-]+)==([^\s;]+)", text):
        tested.setdefault(name, []).append(version)
    return tested


def compare_packages(environment: Environment) -> list[Package]:
    """The main packages of an environment with their tested versions."""
    tested, installed = tested_versions(), environment.packages()
    return [Package(name, installed.get(name), tested.get(name, [])) for name in MAIN_PACKAGES]
