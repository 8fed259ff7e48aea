"""Writes the tables in recipes/README.md, of recipes and of how their results are served.

`python -m palmswift.plan.table`
"""

from __future__ import annotations

from palmswift.files import with_part, write_text
from palmswift.plan.fit import Plan, plan_recipe
from palmswift.plan.serving import ServingPlan
from palmswift.plan.serving_text import ways_of
from palmswift.recipes.load import load_checked
from palmswift.recipes.recipe import Recipe
from palmswift.recipes.source import recipe_names, recipes_dir

BEGIN = "<!-- written by: python -m palmswift.plan.table -->"
END = "<!-- end of the written part -->"

BEGIN_SERVING = "<!-- written by: python -m palmswift.plan.table (serving) -->"
END_SERVING = "<!-- end of the table of serving -->"


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
    """`readme` with both tables renewed between their marks. ValueError: a mark is missing."""
    readme = with_part(readme, BEGIN, END, table())
    return with_part(readme, BEGIN_SERVING, END_SERVING, serving_table())


def serving_table() -> str:
    """How the results of the GPU recipes are served on the card that they were trained on."""
    lines = ["| recipe | `swift deploy` | vLLM | llama.cpp |", "|---|---|---|---|"]
    for name in recipe_names():
        recipe = load_checked(name).recipe
        ways = ways_of(recipe)
        best = ways.best
        cells = [_way(plan, plan is not None and plan == best) for plan in ways]
        if best is not None:
            lines.append("| " + " | ".join((f"`{name}`", *cells)) + " |")
    return "\n".join(lines)


def _way(plan: ServingPlan | None, best: bool) -> str:
    if plan is None:
        return "-"
    if not plan.fits:
        least = f"1 x {plan.longest_context:,} at most" if plan.longest_context else "no"
        return f"{plan.weights}: {least}"
    said = f"{plan.weights}: {plan.parallel_requests} x {plan.context:,}"
    return f"**{said}**" if best else said


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
