from __future__ import annotations

from pathlib import Path

import pytest

from palmswift.recipes import schema
from palmswift.recipes.check import OWNED
from palmswift.recipes.source import recipes_dir


def test_the_committed_schema_is_the_one_that_would_be_written() -> None:
    committed = (recipes_dir() / "recipe.schema.json").read_text(encoding="utf-8")
    assert committed == schema.as_text(schema.build()), "run python -m palmswift.recipes.schema"


@pytest.mark.parametrize(
    "path", sorted(recipes_dir().glob("**/*.yaml")), ids=lambda path: path.stem
)
def test_every_recipe_and_base_names_the_schema_to_editors(path: Path) -> None:
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    marker = "# yaml-language-server: $schema="
    assert first.startswith(marker)
    assert (path.parent / first.removeprefix(marker)).is_file()


def test_the_schema_offers_no_argument_that_palmswift_sets() -> None:
    offered = schema.build()["properties"]["swift"]["properties"]
    assert not set(offered) & set(OWNED["swift"])
    assert offered["quant_bits"]["enum"] == [1, 2, 3, 4, 8, "float8", None]


def test_the_schema_explains_a_recipes_own_keys() -> None:
    gpu = schema.build()["$defs"]["Budget"]["properties"]["gpu_mib"]
    assert "0: it runs on the CPU" in gpu["description"]
