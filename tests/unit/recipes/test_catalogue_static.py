"""Flags are read from wheels that nobody installs."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest

from palmswift.recipes.catalogue import read_document
from palmswift.recipes.catalogue_static import (
    COMMANDS,
    admitted,
    main,
    read_wheels,
    write_catalogues,
)

TRANSFORMERS = '''
from dataclasses import dataclass, field
from .enums import Strategy
from .logging import levels
if True:
    import torch

@dataclass
class TrainingArguments:
    """
    Args:
        lr (`float`, *optional*): The rate.
            It goes on here.
    """
    names_of_all = ["a"]
    best = "slow"
    if True:
        if True:
            best = "fast"
    lr: float = field(default=5e-5, metadata={"help": "rate", "aliases": ["--rate", "-r"]})
    how: Strategy | str = field(default=Strategy.STEPS)
    speed: str = field(default=best)
    seen: bool | None = None
    only: str | None = field(default=None, metadata={"choices": ["x", "y"]})
    hidden: int = field(init=False, default=1)
    report: None | str | list[str] = None
    shared: int = -1
'''
ENUMS = """
from enum import Enum
class ExplicitEnum(str, Enum):
    pass
class Strategy(ExplicitEnum):
    NO = "no"
    STEPS = "steps"
"""
ARGUMENTS = """
from dataclasses import dataclass, field
from typing import ClassVar, Dict, List, Literal, Optional, Union
from transformers.training_args import TrainingArguments as HfArguments
from ..constants import SIZES, LIMIT

class NoDataclass:
    left_out: int = 1

@dataclass
class Shared(NoDataclass):
    kind: ClassVar[str] = "a"
    model: Optional[str] = None
    words: List[str] = field(default_factory=list)
    numbers: Optional[List[int]] = None
    sizes: List[int] = field(default_factory=lambda: SIZES)
    bits: Literal[4, 8, "float8", None] = None
    extra: Optional[Union[dict, str]] = None
    other: Union[str, dict, None] = None
    limit: int = LIMIT * 2
    told: str = compute()
    late: "Optional[float]" = None
    thing: Unknown = None

@dataclass
class SftArguments(Shared, HfArguments):
    shared: int = 2

PretrainArguments = None
"""

CONSTANTS = """
try:
    SIZES = [1, 2]
except ImportError:
    SIZES = []
LIMIT = 4
"""


def _wheel(folder: Path, name: str, files: dict[str, str]) -> None:
    with zipfile.ZipFile(folder / name, "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    """A folder with an ms-swift 9.1.0 of two classes and the transformers that it admits."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    others = "".join(
        f"\n@dataclass\nclass {names[0]}(Shared):\n    own: int = 0\n"
        for command, names in COMMANDS.items()
        if command not in ("sft", "pt", "merge-lora")
    )
    ours = {
        "swift/arguments/__init__.py": "from .all import *\n",
        "swift/arguments/all.py": ARGUMENTS.replace("PretrainArguments = None", "")
        + "\n@dataclass\nclass PretrainArguments(SftArguments):\n    limit: int = 7\n"
        + others,
        "swift/constants.py": CONSTANTS,
        "ms_swift-9.1.0.dist-info/METADATA": "Requires-Dist: transformers<8.1,>=7.0\n",
    }
    base = {
        "transformers/training_args.py": TRANSFORMERS,
        "transformers/enums.py": ENUMS,
    }
    _wheel(folder, "ms_swift-9.1.0-py3-none-any.whl", ours)
    _wheel(folder, "transformers-8.0.2-py3-none-any.whl", base)
    _wheel(folder, "transformers-8.1.0-py3-none-any.whl", {})
    (folder / "notes.txt").touch()
    return folder


def _flag(kind: str, default: Any = None, **more: Any) -> dict[str, Any]:
    return {"kind": kind, "default": default, **more}


def test_each_field_is_read_as_the_parser_would_take_it(wheels: Path) -> None:
    (built,) = read_wheels(wheels).values()
    assert built["ms_swift"] == "9.1.0"
    assert built["transformers"] == "8.0.2"
    assert built["classes"]["Shared"] == {
        "model": _flag("str"),
        "words": _flag("str", [], many=True),
        "numbers": _flag("int", many=True),
        "sizes": _flag("int", [1, 2], many=True),
        "bits": _flag("choice", choices=[4, 8, "float8"]),
        "extra": _flag("json"),
        "other": _flag("json"),
        "limit": _flag("int", 8),
        "told": _flag("str"),
        "late": _flag("float"),
        "thing": _flag("str"),
    }
    assert built["classes"]["transformers.TrainingArguments"] == {
        "lr": _flag("float", 5e-5, aliases=["--rate", "-r"], doc="The rate. It goes on here."),
        "how": _flag("choice", "steps", choices=["no", "steps"]),
        "speed": _flag("str", "fast"),
        "seen": _flag("bool"),
        "only": _flag("choice", choices=["x", "y"]),
        "report": _flag("str"),
        "shared": _flag("int", -1),
    }


def test_classes_come_base_first_so_that_the_last_one_wins(wheels: Path) -> None:
    (built,) = read_wheels(wheels).values()
    assert built["commands"]["pt"] == [
        *("transformers.TrainingArguments", "Shared", "SftArguments", "PretrainArguments"),
    ]
    assert built["classes"]["PretrainArguments"] == {"limit": _flag("int", 7)}


def test_an_older_release_is_written_as_its_difference_to_the_newest(
    wheels: Path, tmp_path: Path
) -> None:
    (built,) = read_wheels(wheels).values()
    older = {**built, "ms_swift": "9.0.4", "classes": {**built["classes"]}}
    older["classes"]["Shared"] = {**built["classes"]["Shared"], "gone": _flag("int")}
    del older["classes"]["Shared"]["late"]
    out = tmp_path / "out"
    first, second = write_catalogues({"9.1.0": built, "9.0.4": older}, out)
    assert read_document("9.1.0", out) == built
    assert read_document("9.0.4", out) == older
    assert second.stat().st_size < first.stat().st_size / 3
    (third,) = write_catalogues({"9.0.3": {**older, "ms_swift": "9.0.3"}}, out)
    assert '"after": "9.1.0"' in third.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ("<5.17.0,>=4.33", "5.16.1"),
        (">=4.33,<5", "4.57.6"),
        ("", "5.19.0"),
        ("<4.33", None),
        (">=5.16.2,<5.20.0", "5.19.0"),
    ],
)
def test_the_newest_transformers_that_a_release_admits_is_taken(
    bounds: str, expected: str | None
) -> None:
    assert admitted(bounds, ["4.57.6", "5.16.1", "5.19.0"]) == expected


def test_a_release_without_its_transformers_is_refused(wheels: Path) -> None:
    (wheels / "transformers-8.0.2-py3-none-any.whl").unlink()
    with pytest.raises(ValueError, match=r"needs a wheel of transformers<8\.1,>=7\.0"):
        read_wheels(wheels)
    with pytest.raises(SystemExit, match="name the folder"):
        main([])
