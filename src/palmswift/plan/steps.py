"""Changes of a recipe that save memory: what `--fit` and the recovery of a run are made of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from palmswift.errors import Problem
from palmswift.plan.recipe_run import shape_of_model
from palmswift.recipes.check import check_recipe
from palmswift.recipes.plugins import shipped_plugins
from palmswift.recipes.recipe import Recipe
from palmswift.recipes.source import RecipeText

_PLUGINS = {
    "embedding_on_cpu": "the frozen embedding stays in host memory",
    "checkpoint_offload": "layer inputs wait in host memory",
    "tiled_mlp": "the MLP takes a part of a row at a time",
}


class Step(NamedTuple):
    """One change."""

    what: str
    """As `--set` takes it; a plugin that is added as `plugins+=NAME`."""
    why: str
    apply: Callable[[Recipe], Recipe]


def set_argument(name: str, value: Any, why: str) -> Step:
    """Set one ms-swift argument."""
    shown = str(value).lower() if isinstance(value, bool) else value
    return Step(f"swift.{name}={shown}", why, lambda recipe: with_swift(recipe, **{name: value}))


def set_variable(name: str, value: str, why: str) -> Step:
    """Set one environment variable."""

    def apply(recipe: Recipe) -> Recipe:
        return recipe.model_copy(update={"env": {**recipe.env, name: value}})

    return Step(f"env.{name}={value}", why, apply)


def plugin_steps() -> list[Step]:
    """The shipped plugins that keep things in host memory or take them in parts."""
    shipped = shipped_plugins()
    return [_plugin(name, why) for name, why in _PLUGINS.items() if name in shipped]


def smaller_batch(batch: int, accumulation: int, why: str) -> Step:
    """Rows of a micro step, and micro steps of a step."""
    values = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}
    what = " ".join(f"swift.{name}={value}" for name, value in values.items())
    return Step(what, why, lambda recipe: with_swift(recipe, **values))


def smaller_rank(rank: int, alpha: Any) -> Step:
    """A smaller adapter."""
    what = f"swift.lora_rank={rank} swift.lora_alpha={alpha}"
    why = "a smaller adapter, its scale kept"
    return Step(what, why, lambda recipe: with_swift(recipe, lora_rank=rank, lora_alpha=alpha))


def with_swift(recipe: Recipe, **values: Any) -> Recipe:
    """The recipe with other ms-swift arguments."""
    return recipe.model_copy(update={"swift": {**recipe.swift, **values}})


def is_sound(recipe: Recipe) -> bool:
    """Whether `palmswift recipes check` has nothing against it."""
    return not _faults(recipe)


def is_as_sound(changed: Recipe, recipe: Recipe) -> bool:
    """Whether a change brings nothing that `palmswift recipes check` has something against."""
    return _faults(changed) <= _faults(recipe)


def _faults(recipe: Recipe) -> set[Problem]:
    values = recipe.model_dump(mode="json", exclude_none=True, exclude={"base"})
    return set(check_recipe(RecipeText(Path(recipe.name), values, {}, ())))


def _plugin(name: str, why: str) -> Step:
    def apply(recipe: Recipe) -> Recipe:
        shape = shape_of_model(recipe.model)
        full = recipe.swift.get("tuner_type") == "full"
        refused = name == "embedding_on_cpu" and (shape is None or shape.tied or full)
        if name in recipe.plugins or refused:
            return recipe
        return recipe.model_copy(update={"plugins": [*recipe.plugins, name]})

    return Step(f"plugins+={name}", why, apply)
