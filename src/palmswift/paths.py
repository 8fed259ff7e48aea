"""Where palmswift's files lie: the checkout that is worked in, or the copies in the wheel."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_CHECKOUT = _PACKAGE.parents[1]
_MARKS = ("recipes/bases", "launchers/templates", "pyproject.toml")
"""What a checkout has; many a project of another kind has a folder called recipes."""


def user_path(name: str) -> Path:
    """The path that a user names, `~` expanded where there is such a home."""
    try:
        return Path(name).expanduser()
    except RuntimeError:  # no such user
        return Path(name)


def project_root() -> Path:
    """The folder that holds `recipes/`: the working folder, else the checkout, else the wheel's."""
    for root in (Path.cwd(), _CHECKOUT):
        if all((root / name).exists() for name in _MARKS):
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


def project_path(name: str) -> Path:
    """A file named in a recipe: absolute, or relative to the working folder or the project."""
    path = user_path(name)
    try:
        here = path.is_absolute() or path.exists()
    except (OSError, ValueError):  # a name that no file system takes
        here = True
    return path.absolute() if here else project_root() / path
