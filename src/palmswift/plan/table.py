"""Writes the table of recipes in recipes/README.md, from the recipes and the planner.

`python -m palmswift.plan.table`
"""

from __future__ import annotations

from palmswift.files import with_part, write_text
from palmswift.plan.fit import Plan, plan_recipe
from palmswift.recipes.load import load_checked
from palmswift.recipes.recipe import Recipe
from palmswift.recipes.source import recipe_names, recipes_dir

BEGIN = "<!-- written by: python -m palmswift.plan.table -->"
END = "<!-- end of the written part -->"


def table() -> str:
    """The shipped recipes as a Markdown table, GPU recipes first, the larger card before."""
    recipes = [load_checked(name).recipe for name in recipe_names()]
    recipes.sort(key=lambda recipe: (-recipe.budget.gpu_mib, recipe.name))
    lines = [
        "| recipe | what for | card | longest row | LoRA rank | peak MiB | longest that fits |",
        "|---|---|---|---|---|---|---|",
        *(_row(recipe) for recipe in recipes),
    ]
    return "\n".join(lines)


def with_table(readme: str) -> str:
    """`readme` with the table between its two marks renewed. ValueError: a mark is missing."""
    return with_part(readme, BEGIN, END, table())


def main() -> int:
    """Renew the table in recipes/README.md; returns 0."""
    path = recipes_dir() / "README.md"
    write_text(path, with_table(path.read_text(encoding="utf-8")))
    print(path)
    return 0


def _row(recipe: Recipe) -> str:
    swift = recipe.swift
    tuned_by = swift.get("tuner_type", "lora")
    rank = swift.get("lora_rank", 8) if tuned_by == "lora" else tuned_by
    card = _card(recipe) if recipe.needs_gpu else "none (CPU)"
    plan = plan_recipe(recipe)
    fitting = plan.longest_length or "-"
    cells = (f"`{recipe.name}`", recipe.summary, card, swift["max_length"], rank, _peak(plan))
    return "| " + " | ".join(map(str, (*cells, fitting))) + " |"


def _card(recipe: Recipe) -> str:
    launch = recipe.launch
    kind = "Mac" if launch.engine == "mlx" else "NPU" if launch.device == "npu" else "GPU"
    count = f"{launch.world} x " if launch.world > 1 else ""
    return f"{count}{recipe.budget.gpu_mib / 1024:.0f} GB {kind}"


def _peak(plan: Plan) -> str:
    if plan.measured_peak_mib is not None:
        return f"{plan.measured_peak_mib} measured"
    if plan.device == "cpu" or plan.fits is None:
        return "-"
    return f"{plan.peak_mib} predicted"


if __name__ == "__main__":
    raise SystemExit(main())
