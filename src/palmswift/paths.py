"""Where palmswift's files lie: the checkout that is worked in, or the copies in the wheel."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_CHECKOUT = _PACKAGE.parents[1]


def project_root() -> Path:
    """The folder that holds `recipes/`: the working folder, else the checkout, else the wheel's."""
    for root in (Path.cwd(), _CHECKOUT):
        if (root / "recipes").is_dir() and (root / "pyproject.toml").is_file():
            return root
    return _PACKAGE / "_shipped"


def work_root() -> Path:
    """The folder that `runs/` and `models/` are made in: the checkout, else the working folder."""
    root = project_root()
    return root if (root / "pyproject.toml").is_file() else Path.cwd()


def runs_dir() -> Path:
    """The folder of all runs."""
    return work_root() / "runs"


def models_dir() -> Path:
    """The folder of models that palmswift made or fetched."""
    return work_root() / "models"
