"""The names of the ms-swift plugins that come with palmswift (`launchers/plugins/NAME.py`)."""

from __future__ import annotations

from pathlib import Path

PLUGINS = Path(__file__).parents[1] / "launchers" / "plugins"


def shipped_plugins() -> list[str]:
    """Names that a recipe's `plugins` may have beside files, sorted."""
    return sorted(path.stem for path in PLUGINS.glob("[!_]*.py"))


def is_plugin_file(entry: str) -> bool:
    """Whether an entry of `plugins` names a file rather than a shipped plugin."""
    return "/" in entry or entry.endswith(".py")
