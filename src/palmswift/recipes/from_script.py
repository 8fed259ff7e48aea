"""Makes a recipe of a script's `swift` commands, and says what of it palmswift does itself."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

from palmswift.errors import InputError, Problem
from palmswift.files import is_file
from palmswift.paths import user_path
from palmswift.recipes.catalogue import load_catalogue
from palmswift.recipes.check import EXPLICIT, OWNED
from palmswift.recipes.launch import Strategy, accumulation_of_one
from palmswift.recipes.recipe import SwiftValue, Task, flag_words
from palmswift.recipes.swift_script import TRAINING, SwiftCall

DEFAULT_GPU_MIB = 8188

_DATA_FILE = re.compile(r"\.(jsonl?|csv|tsv|txt|parquet)$", re.IGNORECASE)
_SAMPLED = re.compile(r"#\d+$")
_SECRET = re.compile(r"(TOKEN|SECRET|PASSWORD|KEY)$", re.IGNORECASE)
_LAUNCH = {"NPROC_PER_NODE": "processes", "NNODES": "nodes"}
_QWEN3_CONTEXT = 40960  # max_position_embeddings of the hybrid Qwen3 models


class Imported(NamedTuple):
    """A recipe as it will be written, and everything a reader has to know about it."""

    values: dict[str, Any]
    notes: list[Problem]


def recipe_of(
    calls: Sequence[SwiftCall], script: str, name: str, gpu_mib: int = DEFAULT_GPU_MIB
) -> Imported:
    """The recipe of the first training among `calls`; others say how it is merged and served.

    Without a training the first call's model is what the recipe tunes. InputError: an argument
    that only a running shell knows, or one that ms-swift does not have; all of them at once.
    """
    main = next((call for call in calls if call.command in TRAINING), calls[0])
    making = _Making(script, main)
    making.recipe["name"] = name
    making.recipe["summary"] = f"Imported from {Path(script).name}"
    if main.command in TRAINING:
        making.training(gpu_mib)
    else:
        making.model_only(gpu_mib)
    for call in calls:
        if call is main and call.command in TRAINING:
            continue
        if call.command in ("deploy", "export"):
            making.after(call)
        else:
            what = f"`swift {call.command}` is not part of a recipe"
            remedy = "it is left out; --take N imports another command of the script"
            making.note(call, what, remedy=remedy)
    if making.problems:
        raise InputError(f"{script} cannot be imported as it stands", making.problems)
    recipe = {key: value for key, value in making.recipe.items() if value not in ({}, [])}
    return Imported(recipe, making.notes)


class _Making:
    """A recipe while it is put together."""

    def __init__(self, script: str, main: SwiftCall) -> None:
        self.script = script
        self.main = main
        self.notes: list[Problem] = []
        self.problems: list[Problem] = []
        self.recipe: dict[str, Any] = {
            **{"name": "", "summary": "", "task": "sft"},
            **{"model": {}, "data": {}, "swift": {}, "env": {}, "plugins": []},
            **{"launch": {}, "export": {}, "deploy": {}, "budget": {}},
        }

    def note(self, call: SwiftCall, what: str, key: str = "", remedy: str = "") -> None:
        line = call.lines.get(key, call.line)
        self.notes.append(Problem(what, f"{self.script}:{line}", remedy))

    def training(self, gpu_mib: int) -> None:
        call = self.main
        self._begin(call)
        self._model(call)
        self._task(call)
        self._data(call)
        self._strategy(call)
        for name in ("external_plugins", "custom_register_path"):
            self.recipe["plugins"] += _words(self._taken(call, name))
        owned = OWNED["swift"]
        for name, value in call.arguments.items():
            if name in owned:
                self.note(call, f"--{name} is left out", name, _of_a_script(owned[name]))
            elif self._is_known(call, name):
                self.recipe["swift"][name] = value
        self._say_in_full(call)
        self._budget(call, gpu_mib)

    def model_only(self, gpu_mib: int) -> None:
        """The recipe of a script that trains nothing."""
        call = self.main
        self._begin(call)
        self._model(call)
        self.note(call, "nothing is trained in it; the training part says only what it has to")
        thinks = self._taken(call, "enable_thinking")
        if thinks is not None:
            self.recipe["swift"]["enable_thinking"] = thinks
        if call.command == "infer":
            trained = load_catalogue().flags("sft")
            for name, value in call.arguments.items():
                if name in trained and name not in OWNED["swift"] and self._is_known(call, name):
                    self.recipe["swift"][name] = value
        self.recipe["swift"]["split_dataset_ratio"] = 0
        self._say_in_full(call)
        self._budget(call, gpu_mib)

    def after(self, call: SwiftCall) -> None:
        """What an export or a deployment says of the result."""
        if call is not self.main:
            self._begin(call, env=False)
        if self._taken(call, "merge_lora") is True:
            self.recipe["export"]["merge"] = True
        if call.command == "export":
            kept = {"model", "adapters", "output_dir"}
            for name in set(call.arguments) - kept - {"model_type", "template"}:
                what = f"--{name} of `swift export` is not part of a recipe"
                self.note(call, what, name, "run that command by hand after the training")
            return
        for name, key in (("infer_backend", "backend"), ("port", "port")):
            value = self._taken(call, name)
            if value is not None:
                self.recipe["deploy"][key] = value
        served = self._taken(call, "served_model_name")
        if served is not None:
            self.recipe["deploy"]["served_name"] = served
        owned = OWNED["deploy.swift"]
        settings: dict[str, SwiftValue] = {}
        for name, value in call.arguments.items():
            if name in owned:
                remedy = _of_a_script(owned[name])
                self.note(call, f"--{name} of `swift deploy` is left out", name, remedy)
            elif self._is_known(call, name):
                settings[name] = value
        if settings:
            self.recipe["deploy"]["swift"] = settings

    def _begin(self, call: SwiftCall, *, env: bool = True) -> None:
        self.problems += call.problems
        self.notes += call.notes
        for name, value in call.env.items() if env else ():
            if name in _LAUNCH and value.isdecimal():
                if value != "1":
                    self.recipe["launch"][_LAUNCH[name]] = int(value)
            elif name == "USE_HF":
                call.arguments.setdefault("use_hf", value.lower() in ("1", "true"))
            elif _SECRET.search(name):
                self.note(call, f"{name} is left out", name, "set it in your shell")
            elif name in call.unknown:
                what = f"{name} is left out: {', '.join(call.unknown[name])} is not in the script"
                self.note(call, what, name, "set it in your shell")
            else:
                self.recipe["env"][name] = value

    def _taken(self, call: SwiftCall, name: str) -> SwiftValue | None:
        """The argument, which is then no longer among the call's; None: it is not given."""
        if name in call.arguments and self._is_known(call, name):
            return call.arguments.pop(name)
        return None

    def _is_known(self, call: SwiftCall, name: str) -> bool:
        """Whether the script itself says the whole value; what does not is a problem."""
        parts = call.unknown.get(name)
        if parts:
            what = f"--{name}: only a running shell knows {', '.join(parts)}"
            remedy = "write the value out, or give it with --define NAME=VALUE"
            self.problems.append(Problem(what, f"{self.script}:{call.lines[name]}", remedy))
            call.unknown.pop(name)
        return not parts

    def _model(self, call: SwiftCall) -> None:
        model = self._taken(call, "model")
        if model is None and not self.problems:
            remedy = "add --model to the command (an adapter's args.json names its base)"
            where = f"{self.script}:{call.line}"
            self.problems.append(Problem("no --model is given", where, remedy))
        hub = "huggingface" if self._taken(call, "use_hf") is True else "modelscope"
        self.recipe["model"] = _source(str(model), hub, self._taken(call, "model_revision"))
        teacher = self._taken(call, "teacher_model")
        revision = self._taken(call, "teacher_model_revision")
        if teacher is not None:
            self.recipe["teacher"] = _source(str(teacher), hub, revision)
        if call.arguments.get("teacher_model_type") == call.arguments.get("model_type"):
            call.arguments.pop("teacher_model_type", None)  # as palmswift says it by itself

    def _task(self, call: SwiftCall) -> None:
        task = call.command
        if task == "rlhf":
            task = str(self._taken(call, "rlhf_type") or "dpo")  # ms-swift's default
        if task not in get_args(Task):
            known = ", ".join(get_args(Task))
            where = f"{self.script}:{call.lines.get('rlhf_type', call.line)}"
            self.problems.append(
                Problem(f"{task} is no task of a recipe", where, f"known: {known}")
            )
        self.recipe["task"] = task

    def _strategy(self, call: SwiftCall) -> None:
        """How the weights are split: a name, or a file of the user's own for DeepSpeed or FSDP."""
        launch = self.recipe["launch"]
        for name in ("deepspeed", "fsdp"):
            value = self._taken(call, name)
            if value is None:
                continue
            if value in get_args(Strategy):
                launch["strategy"] = value
                continue
            launch["strategy"] = "zero2" if name == "deepspeed" else "fsdp2"
            launch["strategy_file"] = str(value)
            what = f"launch.strategy: {launch['strategy']} is taken for {value}"
            self.note(call, what, name, "write the stage that the file is for, such as zero3")
        world = launch.get("processes", 1) * launch.get("nodes", 1)
        if world == 1:
            return
        each = call.arguments.get("gradient_accumulation_steps")
        if not isinstance(each, int):  # swift/trainers/arguments.py: for 16 rows a step
            each = math.ceil(accumulation_of_one(call.arguments) / world)
        call.arguments["gradient_accumulation_steps"] = each * world
        what = f"gradient_accumulation_steps {each} of each of {world} processes becomes"
        what += f" {each * world}: a recipe says it for one process, whatever number trains"
        self.note(call, what, "gradient_accumulation_steps")

    def _data(self, call: SwiftCall) -> None:
        data = self.recipe["data"]
        for name, key in (("dataset", "train"), ("val_dataset", "val")):
            lines = call.lines.get(name, call.line)
            for entry in _words(self._taken(call, name)):
                file = _SAMPLED.sub("", entry)
                if not _DATA_FILE.search(file) and not is_file(user_path(file)):
                    what = f"{entry} is a data set of a hub, and a recipe reads files"
                    remedy = "fetch it, and give its file with --data"
                    self.notes.append(Problem(what, f"{self.script}:{lines}", remedy))
                    continue
                if file != entry:
                    what = f"{entry}: all rows of the file are taken"
                    self.notes.append(Problem(what, f"{self.script}:{lines}"))
                data.setdefault(key, []).append(file)
        ratio = self._taken(call, "split_dataset_ratio")
        data["val_ratio"] = ratio if ratio and "val" not in data else 0
        if ratio:
            self.note(call, "palmswift splits the rows itself", "split_dataset_ratio")
        self.recipe["swift"]["split_dataset_ratio"] = 0
        system = self._taken(call, "system")
        if system is not None:
            data["system"] = system

    def _say_in_full(self, call: SwiftCall) -> None:
        """What ms-swift would decide by itself, and a recipe says."""
        swift = self.recipe["swift"]
        held_out = bool(self.recipe["data"].get("val_ratio") or self.recipe["data"].get("val"))
        follows = str(swift.get("save_strategy", "steps")) if held_out else "no"
        meant: dict[str, SwiftValue] = {
            "enable_thinking": _always_thinks(self.recipe),
            "eval_strategy": follows,
            "load_from_cache_file": False,
            "loss_scale": _loss_scale(self.recipe),
            "seed": 42,
            "truncation_strategy": "delete",
        }
        if _is_hybrid(self.recipe):
            meant["max_length"] = _QWEN3_CONTEXT
        added = {name: value for name, value in meant.items() if name not in swift}
        swift.update(added)
        if added:
            shown = ", ".join(f"{name} {' '.join(flag_words(added[name]))}" for name in added)
            self.note(call, f"said in full, as ms-swift takes it by itself: {shown}")
        if "max_length" not in swift:
            self.note(call, "max_length is not in the script", remedy=EXPLICIT["max_length"][1])

    def _budget(self, call: SwiftCall, gpu_mib: int) -> None:
        on_cpu = call.arguments.get("use_cpu") is True
        self.recipe["budget"] = {"gpu_mib": 0 if on_cpu else gpu_mib}
        if not on_cpu:
            what = f"budget.gpu_mib: {gpu_mib} is taken, since no script says for which card it is"
            self.note(call, what, remedy="--gpu-mib MIB says it")


def _of_a_script(remedy: str) -> str:
    """What is written for a recipe's author, for one whose argument has been left out."""
    return remedy.removesuffix("take it away").rstrip("; ")


def _source(model: str, hub: str, revision: SwiftValue | None) -> dict[str, Any]:
    """Where a model comes from: a folder of this machine, or the hub."""
    local = model.startswith(("/", ".", "~")) or user_path(model).is_dir()
    source = {"id": model, "source": "local" if local else hub}
    return source if revision is None else {**source, "revision": revision}


def _words(value: SwiftValue | None) -> list[str]:
    if value is None:
        return []
    return [str(word) for word in value] if isinstance(value, list) else [str(value)]


def _is_hybrid(recipe: Mapping[str, Any]) -> bool:
    """Whether the model is a Qwen3 that both thinks and does not (template qwen3)."""
    template = recipe["swift"].get("template")
    name = recipe["model"]["id"].lower().rpartition("/")[2]
    if template is not None:
        return bool(template == "qwen3")
    return re.fullmatch(r"qwen3-[\d.]+b(-a\d+b)?(-base)?", name) is not None


def _always_thinks(recipe: Mapping[str, Any]) -> bool:
    """swift/template/base.py: without enable_thinking a model thinks that cannot do otherwise."""
    named = f"{recipe['swift'].get('template', '')} {recipe['model']['id']}".lower()
    return "thinking" in named and "nothinking" not in named


def _loss_scale(recipe: Mapping[str, Any]) -> str:
    """What swift/arguments sets for the task: everything, the answers, or the last of them."""
    task = recipe["task"]
    scale = "all" if task == "pt" else "default" if task in ("sft", "orpo") else "last_round"
    if recipe["swift"].get("disable_ignore_empty_think") is True or not _is_hybrid(recipe):
        return scale
    return f"{scale}+ignore_empty_think"
