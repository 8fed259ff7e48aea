"""Checks a recipe against itself and against ms-swift's arguments, and tells every problem."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from palmswift.errors import Problem
from palmswift.files import is_file
from palmswift.paths import project_path
from palmswift.recipes.catalogue import (
    Flag,
    check_value,
    load_catalogue,
    load_renames,
    nearest,
)
from palmswift.recipes.launch_rules import given_by_launch, launch_problems
from palmswift.recipes.method_rules import (
    METHOD_IDLE,
    METHOD_RULES,
    given_to_method,
    recipe_problems,
)
from palmswift.recipes.mlx_rules import mlx_problems
from palmswift.recipes.plugins import is_plugin_file, shipped_plugins
from palmswift.recipes.rules import Machine, Settings, this_machine, training_problems
from palmswift.recipes.shape import shape_problems
from palmswift.recipes.source import RecipeText, recipe_names, recipes_dir
from palmswift.recipes.yaml_text import Key

_SECRET = "swift prints its whole command line, so a secret would land in the logs"
_BY_ENVIRONMENT = "take it away and set {} in your shell"

OWNED: dict[str, dict[str, str]] = {
    "swift": {
        "adapters": "a recipe trains an adapter of its own; `model` says what it stands on",
        "add_version": "the run folder is new for each run; take it away",
        "cached_dataset": "rows go through palmswift's data gate; write data.train",
        "cached_val_dataset": "rows go through palmswift's data gate; write data.val",
        "custom_register_path": "write plugins: [FILE.py]",
        "dataset": "write data.train, or --data on the command line",
        "ddp_backend": "it follows from the device; take it away",
        "deepspeed": "write launch.strategy: zero2 (or zero3, ...), and launch.strategy_file for"
        " a JSON of your own",
        "device_groups": "write launch.scheduler: ray and launch.processes",
        "external_plugins": "write plugins: [FILE.py]",
        "fsdp": "write launch.strategy: fsdp2",
        "fsdp_config": "write launch.strategy: fsdp2 and launch.strategy_file",
        "hub_token": f"{_SECRET}; {_BY_ENVIRONMENT.format('MODELSCOPE_API_TOKEN or HF_TOKEN')}",
        "ignore_args_error": "a mistyped argument would pass in silence; take it away",
        "logging_nan_inf_filter": "a loss that is NaN would pass in silence; take it away",
        "logging_dir": "TensorBoard's files lie in the run folder; take it away",
        "model": "write model.id",
        "model_revision": "write model.revision",
        "output_dir": "checkpoints lie in the run folder; take it away",
        "push_to_hub_token": f"{_SECRET}; {_BY_ENVIRONMENT.format('HF_TOKEN')}",
        "resume_from_checkpoint": "use --resume on the command line",
        "rlhf_type": "write task",
        "teacher_model": "write teacher.id",
        "teacher_model_revision": "write teacher.revision",
        "swanlab_secret": f"{_SECRET}; take it away",
        "swanlab_token": f"{_SECRET}; {_BY_ENVIRONMENT.format('SWANLAB_API_KEY')}",
        "system": "write data.system",
        "use_hf": "write model.source: huggingface",
        "use_ray": "write launch.scheduler: ray",
        "val_dataset": "write data.val",
    },
    "deploy.swift": {
        "adapters": "palmswift serves what the run trained; take it away",
        "api_key": f"{_SECRET}; palmswift makes one when it serves beyond this machine",
        "enable_thinking": "one policy for training and serving: write swift.enable_thinking",
        "external_plugins": "write plugins: [FILE.py]",
        "host": "use --host on the command line; 127.0.0.1 otherwise",
        "hub_token": f"{_SECRET}; {_BY_ENVIRONMENT.format('MODELSCOPE_API_TOKEN or HF_TOKEN')}",
        "ignore_args_error": "a mistyped argument would pass in silence; take it away",
        "infer_backend": "write deploy.backend",
        "merge_lora": "write export.merge",
        "model": "palmswift serves what the run trained; take it away",
        "model_revision": "write model.revision",
        "port": "write deploy.port",
        "result_path": "logs lie in the run folder; take it away",
        "served_model_name": "write deploy.served_name",
        "use_hf": "write model.source: huggingface",
    },
}
"""Arguments that palmswift sets itself, by section, each with what to write instead."""

EXPLICIT = {
    "enable_thinking": (
        "unset means on up to ms-swift 4.3.0, off from 4.3.1, and on in `vllm serve`",
        "write true or false",
    ),
    "eval_strategy": (
        "unset follows save_strategy, and becomes `no` without validation rows",
        "write steps, epoch or no",
    ),
    "load_from_cache_file": (
        "its default was true before ms-swift 3.9; an old cache hides changed rows",
        "write false",
    ),
    "loss_scale": (
        "from ms-swift 4.3.1 `+ignore_empty_think` is added to it for Qwen3",
        "write default+ignore_empty_think, or another strategy in full",
    ),
    "max_length": (
        "unset means the model's own length, 40960 tokens for Qwen3",
        "write the longest row that is to be trained on, in tokens",
    ),
    "seed": ("a run that is to be repeated names its seed", "write seed: 42"),
    "split_dataset_ratio": (
        "its default was 0.01 before ms-swift 3.6, then 0; palmswift splits the rows itself",
        "write split_dataset_ratio: 0",
    ),
    "truncation_strategy": (
        "unset drops rows that are too long",
        "write delete, left or right",
    ),
}
"""Arguments that every recipe says: why, and what to write. Their defaults change the meaning."""


POSITIVE = {
    "eval_steps",
    "gradient_accumulation_steps",
    "learning_rate",
    "logging_steps",
    "lora_alpha",
    "lora_rank",
    "max_length",
    "num_train_epochs",
    "per_device_eval_batch_size",
    "per_device_train_batch_size",
    "save_steps",
}
"""Numbers that ms-swift's parser takes at any value, and that mean nothing at 0 or below."""


def check_recipe(text: RecipeText, machine: Machine | None = None) -> list[Problem]:
    """Everything that is wrong with a recipe: its text, keys, types, names and arguments.

    `machine` stands in for this one, which decides whether a paged optimizer pages.
    """
    by_key = shape_problems(text.values, text.place)
    for section, command in ((("swift",), _command(text.values)), (("deploy", "swift"), "deploy")):
        for key, problem in _flag_problems(text, section, command).items():
            by_key.setdefault(key, problem)
    return [
        *text.problems,
        *by_key.values(),
        *_name_problems(text),
        *_unsaid_problems(text),
        *_merge_problems(text),
        *_plugin_problems(text),
        *_rule_problems(text, by_key, machine or this_machine()),
        *recipe_problems(text.values, text.place),
    ]


def _command(values: Mapping[str, Any]) -> str:
    task = values.get("task", "sft")
    return task if task in ("sft", "pt") else "rlhf"


def _name_problems(text: RecipeText) -> list[Problem]:
    """A shipped recipe is called as its file; a model that a recipe makes has that recipe."""
    problems = []
    name = text.values.get("name")
    if text.path.resolve().parent == recipes_dir().resolve() and name != text.path.stem:
        what = f"name is {name!r} in a file called {text.path.name}"
        problems.append(Problem(what, text.place(("name",)), f"write name: {text.path.stem}"))
    model = text.values.get("model")
    made = model.get("id") if isinstance(model, dict) and model.get("source") == "recipe" else None
    if made is not None and made not in recipe_names():
        like = nearest(str(made), recipe_names())
        hint = f"did you mean {' or '.join(like)}?" if like else "palmswift recipes list"
        what = f"model.id: no recipe is called {made!r}"
        problems.append(Problem(what, text.place(("model", "id")), hint))
    return problems


def _flag_problems(text: RecipeText, section: Key, command: str) -> dict[Key, Problem]:
    """What is wrong with the arguments of one section: name, ownership, type, choice."""
    arguments: Any = text.values
    for part in section:
        arguments = arguments.get(part) if isinstance(arguments, dict) else None
    if not isinstance(arguments, dict):
        return {}  # absent, or a wrong type that the shape check tells
    catalogue = load_catalogue()
    flags = catalogue.flags(command)
    title = f"`swift {command}` of ms-swift {catalogue.ms_swift}"
    owned = OWNED[".".join(section)]
    problems: dict[Key, Problem] = {}
    for name, value in arguments.items():
        key = (*section, name)
        label, where = ".".join(key), text.place(key)
        if name in owned:
            problems[key] = Problem(f"{label} is set by palmswift", where, owned[name])
        elif name not in flags:
            what = f"{label} is not an argument of {title}"
            problems[key] = Problem(what, where, _what_instead(name, flags))
        else:
            problem = _value_problem(label, name, value, flags[name], where)
            if problem is not None:
                problems[key] = problem
    return problems


def _value_problem(label: str, name: str, value: Any, flag: Flag, where: str) -> Problem | None:
    new = load_renames().values.get(name, {}).get(value) if isinstance(value, str) else None
    if new is not None:
        return Problem(f"{label}: {value!r} is an old name", where, f"write {new}")
    if name == "split_dataset_ratio" and value != 0:
        return Problem(f"{label} is {value}", where, "write 0; data.val_ratio is what splits")
    fault = check_value(flag, value)
    if fault is None and name in POSITIVE and isinstance(value, int | float) and value <= 0:
        fault = f"{value} is not above 0"
    if fault is None:
        return None
    remedy = "" if flag.choices else flag.doc  # ms-swift's text on choices is not always current
    return Problem(f"{label}: {fault}", where, remedy)


def _what_instead(name: str, flags: Mapping[str, Flag]) -> str:
    renames = load_renames().names
    for old, new in renames.items():
        if new.new == name and old in flags:  # an older ms-swift is installed
            return f"the installed ms-swift calls it {old}"
    rename = renames.get(name)
    if rename is not None:
        note = f" ({rename.note})" if rename.note else ""
        return f"it is called {rename.new} since ms-swift {rename.since}{note}"
    plain = name.strip("-").replace("-", "_")
    if plain in flags:
        return f"write {plain}"
    like = nearest(plain, flags)
    return f"did you mean {' or '.join(like)}?" if like else "take it away"


def _unsaid_problems(text: RecipeText) -> list[Problem]:
    swift = text.values.get("swift", {})
    if not isinstance(swift, dict):
        return []
    return [
        Problem(f"swift.{name} is not said: {why}", text.place(("swift",)), remedy)
        for name, (why, remedy) in EXPLICIT.items()
        if name not in swift
    ]


def _rule_problems(
    text: RecipeText, wrong: Mapping[Key, Problem], machine: Machine
) -> Iterator[Problem]:
    """What does not go together, among the arguments that are right by themselves."""
    swift = text.values.get("swift")
    if not isinstance(swift, dict):
        return
    command = _command(text.values)
    flags = load_catalogue().flags(command)
    said = {
        name: value
        for name, value in swift.items()
        if name in flags and not any(key[:2] == ("swift", name) for key in wrong)
    }
    settings = Settings(said, flags, command, machine, given_by_launch(text.values))

    def place(name: str) -> str:
        return text.place(("swift", name))

    launch = text.values.get("launch")
    if isinstance(launch, dict) and launch.get("engine") == "mlx":
        task, model = text.values.get("task", "sft"), text.values.get("model")
        source = model.get("source", "modelscope") if isinstance(model, dict) else ""
        yield from mlx_problems(str(task), source, settings, place)
    yield from training_problems(settings, place)
    if not any(key[0] == "launch" for key in wrong):
        yield from launch_problems(text.values, settings, lambda name: text.place(("launch", name)))
    # early_stop_interval is every command's; the rest is read by `swift rlhf` alone
    idle = METHOD_IDLE if command == "rlhf" else ()
    behind = given_to_method(text.values) if command == "rlhf" else {}
    of_method = Settings(said, flags, command, machine, behind)
    yield from training_problems(of_method, place, METHOD_RULES, idle)


def _plugin_problems(text: RecipeText) -> list[Problem]:
    """A plugin that is not there would stop ms-swift after the data has been prepared."""
    plugins = text.values.get("plugins")
    problems = []
    for entry in plugins if isinstance(plugins, list) else []:
        if not isinstance(entry, str):
            continue  # told by the shape check
        where = text.place(("plugins",))
        if is_plugin_file(entry):
            if not is_file(project_path(entry)):
                remedy = "a path is relative to the project, or absolute"
                problems.append(Problem(f"plugins: there is no file {entry!r}", where, remedy))
        elif entry not in shipped_plugins():
            like = nearest(entry, shipped_plugins()) or shipped_plugins()
            what = f"plugins: none is called {entry!r}"
            remedy = f"shipped: {', '.join(like)}; a file of your own ends with .py"
            problems.append(Problem(what, where, remedy))
    return problems


def _merge_problems(text: RecipeText) -> list[Problem]:
    """A merge is told to be impossible here, not after hours of training."""
    swift, export = text.values.get("swift"), text.values.get("export")
    tuner = swift.get("tuner_type") if isinstance(swift, dict) else None
    if tuner != "full" or not isinstance(export, dict) or export.get("merge") is not True:
        return []
    what = "export.merge: full tuning leaves no adapter to merge"
    return [Problem(what, text.place(("export", "merge")), "take it away")]
