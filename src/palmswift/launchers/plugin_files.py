"""The files behind a recipe's `plugins`, as ms-swift's `--external_plugins` takes them."""

from __future__ import annotations

from pathlib import Path

from palmswift.errors import InputError
from palmswift.paths import project_path
from palmswift.recipes.catalogue import nearest
from palmswift.recipes.plugins import PLUGINS, is_plugin_file, shipped_plugins

SUPERVISION: tuple[str, ...] = ("run_events", "exact_resume", "orderly_stop")
"""Shipped plugins that every training loads, beside those that its recipe names."""


def plugin_path(entry: str) -> Path:
    """The absolute path of a plugin: one that comes with palmswift, or a file of the user's own.

    `InputError` for a name that no shipped plugin has; a file is not looked for here.
    """
    if is_plugin_file(entry):
        return project_path(entry).absolute()
    names = shipped_plugins()
    if entry in names:
        return PLUGINS.resolve() / f"{entry}.py"
    like = nearest(entry, names) or names
    raise InputError(
        f"no plugin is called {entry!r}",
        remedy=f"{', '.join(like)}; a file of your own is named with its ending, {entry}.py",
    )


def plugin_arguments(entries: list[str]) -> list[str]:
    """What `--external_plugins` is given: whole paths, for ms-swift runs in another folder."""
    return [str(plugin_path(entry)) for entry in entries]
