"""Which ms-swift arguments a recipe becomes: for training, and for serving what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from palmswift.launchers.engines.arguments import CHECKER, launch_arguments, launch_environment
from palmswift.launchers.plugin_files import SUPERVISION, plugin_arguments
from palmswift.launchers.tracking import tracking_arguments
from palmswift.recipes.recipe import Recipe, SwiftValue

SERVED_AS_TRAINED = (
    "model_type",
    "template",
    "torch_dtype",
    "enable_thinking",
    "add_non_thinking_prefix",
    "preserve_thinking",
    "system",
    "max_model_len",
    "attn_impl",
    "quant_method",
    "quant_bits",
    "bnb_4bit_compute_dtype",
    "bnb_4bit_quant_type",
    "bnb_4bit_use_double_quant",
)
"""Training arguments that decide an answer, so the server is given the same."""


class TrainingPaths(NamedTuple):
    """Where a training run reads and writes."""

    model: str
    """A folder or a hub id."""
    train: Path
    val: Path | None
    output: Path
    resume_from: Path | None = None
    teacher: str | None = None
    """A folder or a hub id, for the tasks that have one."""


class TrainedModel(NamedTuple):
    """What is served: a model, and the adapter on it if the weights themselves were not tuned."""

    model: str
    adapter: Path | None = None


def source_arguments(recipe: Recipe, model: str) -> dict[str, SwiftValue]:
    """The model and the hub that it comes from."""
    arguments: dict[str, SwiftValue] = {"model": model}
    if recipe.model.source in ("modelscope", "huggingface"):
        arguments["use_hf"] = recipe.model.source == "huggingface"
        if recipe.model.revision:
            arguments["model_revision"] = recipe.model.revision
    return arguments


def teacher_arguments(recipe: Recipe, teacher: str | None) -> dict[str, SwiftValue]:
    """The model that is imitated; nothing without one.

    Its hub and type are the model's own: it has the same tokenizer (`swift.teacher_model_type`
    says another type).
    """
    if recipe.teacher is None or teacher is None:
        return {}
    arguments: dict[str, SwiftValue] = {"teacher_model": teacher}
    if "model_type" in recipe.swift:
        # A folder's config does not tell a chat model from an embedding model of the same shape.
        arguments["teacher_model_type"] = recipe.swift["model_type"]
    if recipe.teacher.revision:
        arguments["teacher_model_revision"] = recipe.teacher.revision
    return arguments


def training_arguments(recipe: Recipe, paths: TrainingPaths) -> dict[str, SwiftValue]:
    """Every argument of `swift sft|pt|rlhf`, ours first, then the recipe's in its order.

    What the launch decides (the accumulation of each process) stands in the recipe's place.
    """
    arguments = source_arguments(recipe, paths.model)
    if recipe.swift_command == "rlhf":
        arguments["rlhf_type"] = recipe.task
    arguments |= teacher_arguments(recipe, paths.teacher)
    arguments["dataset"] = [str(paths.train)]
    if paths.val is not None:
        arguments["val_dataset"] = [str(paths.val)]
    arguments["output_dir"] = str(paths.output)
    # A version subfolder of ms-swift's own choosing would hide where the results lie.
    arguments["add_version"] = False
    # A loss that is NaN would be logged as 0, and the run would pass for a good one.
    arguments["logging_nan_inf_filter"] = False
    checker = [CHECKER] if recipe.launch.is_distributed else []
    if plugins := [*SUPERVISION, *checker, *recipe.plugins]:
        arguments["external_plugins"] = [*plugin_arguments(plugins)]
    arguments.update(tracking_arguments(recipe, paths.output.parent.name))
    if paths.resume_from is not None:
        arguments["resume_from_checkpoint"] = str(paths.resume_from)
    return {**arguments, **recipe.swift, **launch_arguments(recipe)}


def serving_arguments(recipe: Recipe) -> dict[str, SwiftValue]:
    """The `swift deploy` arguments that make the served model behave as the trained one."""
    kept = {name: recipe.swift[name] for name in SERVED_AS_TRAINED if name in recipe.swift}
    return {**kept, **recipe.deploy.swift}


def child_environment(recipe: Recipe, model: str) -> dict[str, str]:
    """Environment of ms-swift's processes: the recipe's, and what its model and device ask for."""
    environment: dict[str, str] = {"PYTHONUNBUFFERED": "1"}
    if not recipe.needs_gpu:
        # A CPU recipe behaves the same on a machine that has a card.
        environment["CUDA_VISIBLE_DEVICES"] = ""
    if Path(model).is_dir():
        environment |= OFFLINE
    return environment | recipe.env


def training_environment(recipe: Recipe, model: str) -> dict[str, str]:
    """Environment of the training: as of all children, and by which its processes meet."""
    return child_environment(recipe, model) | launch_environment(recipe) | recipe.env


OFFLINE: Mapping[str, str] = {"MODELSCOPE_OFFLINE": "1", "HF_HUB_OFFLINE": "1"}
"""Nothing is asked of a hub when the model is a folder; without these, retries cost seconds."""
