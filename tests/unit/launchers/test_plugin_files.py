"""Which file a recipe's entry of `plugins` is, and what the files that come with palmswift say."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from support_runs import make_recipe

from palmswift.errors import InputError
from palmswift.launchers.arguments import TrainingPaths, training_arguments
from palmswift.launchers.plugin_files import SUPERVISION, plugin_path
from palmswift.recipes.plugins import shipped_plugins

LEVERS = {"embedding_on_cpu", "checkpoint_offload", "tiled_mlp", "memory_log", "gpu_cap"}


def test_a_bare_name_is_a_plugin_that_comes_with_palmswift() -> None:
    assert {*shipped_plugins()} >= LEVERS
    for name in shipped_plugins():
        path = plugin_path(name)
        assert path.is_absolute()
        assert path.is_file()


def test_a_name_like_a_file_is_the_users_own_even_when_a_shipped_one_has_it(tmp_path: Path) -> None:
    own = tmp_path / "tiled_mlp.py"
    assert plugin_path(str(own)) == own
    assert plugin_path("plugins/own").is_absolute()


def test_an_unknown_name_is_refused_with_those_that_are_like_it() -> None:
    with pytest.raises(InputError) as refused:
        plugin_path("embeding_on_cpu")
    assert "embedding_on_cpu" in str(refused.value)
    with pytest.raises(InputError) as refused:
        plugin_path("xyz")
    assert {word.strip(",;") for word in str(refused.value).split()} >= LEVERS


def test_a_training_gets_whole_paths_of_shipped_plugins_and_own_files() -> None:
    paths = TrainingPaths("M", Path("/r/t.jsonl"), None, Path("/r/train"))
    recipe = make_recipe(plugins=["tiled_mlp", "a/p.py"])
    plugins = training_arguments(recipe, paths)["external_plugins"]
    assert isinstance(plugins, list)
    assert plugins[: len(SUPERVISION)] == [str(plugin_path(name)) for name in SUPERVISION]
    assert plugins[len(SUPERVISION)] == str(plugin_path("tiled_mlp"))
    assert all(Path(str(plugin)).is_absolute() for plugin in plugins)


@pytest.mark.parametrize("name", shipped_plugins())
def test_a_shipped_plugin_says_what_it_does_costs_and_takes_and_stands_alone(name: str) -> None:
    module = ast.parse(plugin_path(name).read_text(encoding="utf-8"))
    said = ast.get_docstring(module) or ""
    for word in ("What it does", "What it", "saves", "costs", "Settings:"):
        assert word in said
    imported = [
        *(node.module or "" for node in ast.walk(module) if isinstance(node, ast.ImportFrom)),
        *(a.name for node in ast.walk(module) if isinstance(node, ast.Import) for a in node.names),
    ]
    # Whoever copies one file has all of it.
    assert [each for each in imported if each.startswith("palmswift")] == []
