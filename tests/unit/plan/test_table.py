from __future__ import annotations

import re

import pytest

from palmswift.paths import project_root
from palmswift.plan.fit import Conditions, plan_under
from palmswift.plan.table import with_table
from palmswift.recipes.load import load_checked
from palmswift.recipes.source import recipe_names, recipes_dir


def test_the_committed_table_is_the_one_that_would_be_written() -> None:
    readme = (recipes_dir() / "README.md").read_text(encoding="utf-8")
    assert readme == with_table(readme), "run python -m palmswift.plan.table"
    assert all(f"`{name}`" in readme for name in recipe_names())


def test_a_readme_without_the_marks_is_not_overwritten() -> None:
    with pytest.raises(ValueError, match="lacks"):
        with_table("# Recipes\n")


@pytest.mark.parametrize("name", ["README.md", "README.zh.md"])
def test_the_peaks_in_the_readme_are_the_planner_s(name: str) -> None:
    text = (project_root() / name).read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|.* (\d+) token\w* \| (\d+) MiB", text, re.MULTILINE)
    assert len(rows) > 5
    for recipe, length, peak in rows:
        plan = plan_under(load_checked(recipe).recipe, Conditions())
        assert (plan.length, plan.peak_mib) == (int(length), int(peak)), recipe
