from __future__ import annotations

import pytest

from palmswift.plan.table import with_table
from palmswift.recipes.source import recipe_names, recipes_dir


def test_the_committed_table_is_the_one_that_would_be_written() -> None:
    readme = (recipes_dir() / "README.md").read_text(encoding="utf-8")
    assert readme == with_table(readme), "run python -m palmswift.plan.table"
    assert all(f"`{name}`" in readme for name in recipe_names())


def test_a_readme_without_the_marks_is_not_overwritten() -> None:
    with pytest.raises(ValueError, match="lacks"):
        with_table("# Recipes\n")
