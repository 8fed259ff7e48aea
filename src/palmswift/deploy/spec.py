"""What is served and how: one server as data, checked, and as `swift deploy` arguments."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)

from palmswift.deploy.adapters import base_of_adapter
from palmswift.deploy.backends import (
    Backend,
    context_length,
    engine_arguments,
    engine_problems,
    generation_defaults,
    vllm_environment,
)
from palmswift.deploy.keyed import KEY_VARIABLE
from palmswift.deploy.request_bounds import bounds_for
from palmswift.errors import InputError, Problem
from palmswift.launchers.arguments import (
    OFFLINE,
    child_environment,
    serving_arguments,
    source_arguments,
)
from palmswift.launchers.checkpoint_files import read_document, weight_faults
from palmswift.launchers.plugin_files import plugin_arguments
from palmswift.launchers.run_folder import RunFolder
from palmswift.recipes.recipe import SwiftValue

_OWN_ARGUMENTS = {
    "model": "the model",
    "adapters": "the adapter",
    "infer_backend": "--backend",
    "served_model_name": "--name",
    "host": "--host",
    "port": "--port",
    "api_key": f"the environment variable {KEY_VARIABLE}",
}
"""`swift deploy` arguments that a ServerSpec's own fields decide, and what sets them."""

_PLUGIN = Path(__file__).with_name("plugins") / "bounded_server.py"

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


class ServerSpec(BaseModel):
    """One server: a model under a name at an address, and the rest of what decides its answers."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    name: str = Field(min_length=1)
    """What clients send as `model`."""
    model: str = Field(min_length=1)
    """A folder or a hub id; an existing folder becomes an absolute path."""
    adapter: Path | None = None
    """A LoRA checkpoint on that model."""
    backend: Backend = "transformers"
    """What computes the answers."""
    server: Literal["swift", "vllm"] = "swift"
    """What speaks HTTP: `swift deploy`, or vLLM's own server (palmswift.deploy.vllm_server)."""
    more_adapters: dict[str, Path] = Field(default_factory=dict)
    """Further adapters on the same base by the names that clients send; for vLLM's own server."""
    base_name: str | None = None
    """What clients call the untouched base beside its adapters; for vLLM's own server."""
    host: str = Field(default="127.0.0.1", min_length=1)
    port: int = Field(default=0, ge=0, le=65535)
    """0: a free one is picked when the server starts."""
    swift: dict[str, SwiftValue] = Field(default_factory=dict)
    """Further `swift deploy` arguments: template, torch_dtype, enable_thinking, ..."""
    env: dict[str, str] = Field(default_factory=dict)
    """Environment of the server's processes, over our own."""
    ready_timeout: float = Field(default=600.0, gt=0)
    """Seconds until the first completion has to have come back."""
    api_key: SecretStr | None = Field(default=None, exclude=True)
    """What clients have to send as a bearer token; None asks for nothing."""

    @model_validator(mode="before")
    @classmethod
    def _vllms_own_backend(cls, values: Any) -> Any:
        """vLLM's own server has no other backend."""
        if isinstance(values, dict) and values.get("server") == "vllm":
            return {**values, "backend": "vllm"}
        return values

    @field_validator("model")
    @classmethod
    def _absolute_folder(cls, model: str) -> str:
        folder = Path(model).expanduser()
        return str(folder.resolve()) if folder.is_dir() else model

    @field_validator("adapter")
    @classmethod
    def _absolute_adapter(cls, adapter: Path | None) -> Path | None:
        return None if adapter is None else adapter.expanduser().resolve()


def spec_of_run(run: RunFolder, *, merged: bool = True) -> ServerSpec:
    """What a finished run serves, as its recipe says; `model_copy(update=...)` changes parts.

    A checkpoint with an adapter is served on the run's base model, or merged where the recipe has
    it merged, unless `merged` is false. `InputError` when the run has no checkpoint.
    """
    found, trained = run.facts("train").get("checkpoint"), run.facts("model").get("model")
    if not run.is_done("train") or not found or not trained:
        raise InputError(
            f"{run.path.name} has no trained model to serve",
            remedy=f"python launchers/train.py --resume {run.path.name}",
        )
    base, checkpoint = str(trained), run.path / str(found)
    if merged and run.recipe.export.merge and run.is_done("merge"):
        checkpoint = run.path / str(run.facts("merge")["merged"])
    has_adapter = (checkpoint / "adapter_config.json").is_file()
    return ServerSpec(
        name=run.recipe.served_name,
        model=base if has_adapter else str(checkpoint),
        adapter=checkpoint if has_adapter else None,
        backend=run.recipe.deploy.backend,
        server=run.recipe.deploy.server,
        port=run.recipe.deploy.port,
        swift=_run_arguments(run, base if has_adapter else str(checkpoint)),
        env=child_environment(run.recipe, base),
        ready_timeout=run.recipe.deploy.ready_timeout,
    )


def base_of_run(run: RunFolder) -> ServerSpec:
    """The untouched base model of a run, served as the tuned one is, under the name `base`."""
    tuned, base = spec_of_run(run), str(run.facts("model")["model"])
    changes = {"name": "base", "model": base, "adapter": None, "swift": _run_arguments(run, base)}
    return ServerSpec.model_validate({**tuned.model_dump(), **changes})


def _run_arguments(run: RunFolder, model: str) -> dict[str, SwiftValue]:
    source = source_arguments(run.recipe, model)
    if Path(model).is_dir():
        source.pop("model_revision", None)
    source.pop("model")
    if run.recipe.plugins:
        source["external_plugins"] = [*plugin_arguments(run.recipe.plugins)]
    return {**source, **serving_arguments(run.recipe)}


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server on `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def reachable_host(host: str) -> str:
    """The host for a URL on this machine: loopback in place of "all interfaces"."""
    local = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{local}]" if ":" in local else local


def deploy_arguments(spec: ServerSpec, port: int) -> dict[str, SwiftValue]:
    """Every argument of `swift deploy` but the key, what decides behaviour written out."""
    arguments: dict[str, SwiftValue] = {"model": spec.model}
    if spec.adapter is not None:
        # Without a name: a named adapter fails on batched requests (HTTP 400, "Length of
        # `adapter_names` should be the same as the number of inputs") in ms-swift 4.6.0.
        arguments["adapters"] = [str(spec.adapter)]
    arguments |= {
        "infer_backend": spec.backend,
        "served_model_name": spec.name,
        "host": spec.host,
        "port": port,
        # Requests and replies are people's words: they do not go into the log unasked.
        "verbose": False,
        "log_interval": -1,
    }
    arguments["external_plugins"] = [str(_PLUGIN), *_plugins_of(spec)]
    arguments |= generation_defaults(spec.model)
    arguments |= engine_arguments(spec.backend, spec.model, spec.adapter, spec.swift)
    return {**arguments, **settings_of_backend(spec)}


def _plugins_of(spec: ServerSpec) -> list[str]:
    """The plugins of the spec, else those that ms-swift would find in the weights' args.json."""
    said = spec.swift.get("external_plugins")
    if said is None:
        trained = read_document(Path(spec.adapter or spec.model) / "args.json") or {}
        said = trained.get("external_plugins")
    return [str(one) for one in said] if isinstance(said, list) else []


def settings_of_backend(spec: ServerSpec) -> dict[str, SwiftValue]:
    """The spec's own settings, without those that its backend would take no notice of."""
    lacking = ["external_plugins"]  # ours stands before them
    if spec.backend != "transformers":
        lacking += ["max_batch_size", "attn_impl"]
    return {name: value for name, value in spec.swift.items() if name not in lacking}


def deploy_environment(spec: ServerSpec) -> dict[str, str]:
    """What the server's processes get beside our own environment; never the key."""
    environment = {"PYTHONUNBUFFERED": "1", **bounds_for(context_length(spec.model, spec.swift))}
    if Path(spec.model).is_dir():
        environment |= OFFLINE
    if spec.backend == "vllm":
        environment |= vllm_environment()
    return environment | spec.env


def check_spec(spec: ServerSpec) -> None:
    """Refuse what cannot be served, all reasons at once (`InputError`)."""
    problems = [*_model_problems(spec.model), *_name_problems(spec.name)]
    for adapter in filter(None, [spec.adapter, *spec.more_adapters.values()]):
        problems += _adapter_problems(adapter)
    problems += _several_problems(spec)
    adapters = [*filter(None, [spec.adapter]), *spec.more_adapters.values()]
    on_cpu = spec.env.get("CUDA_VISIBLE_DEVICES") == ""
    problems += engine_problems(spec.backend, adapters, spec.swift, cpu=on_cpu)
    problems += [
        Problem(f"{key} is not set this way", f"swift.{key}", f"it is set by {owner}")
        for key, owner in _OWN_ARGUMENTS.items()
        if key in spec.swift
    ]
    problems += _key_problems(spec)
    if problems:
        raise InputError(f"{spec.name} cannot be served", problems)


def _model_problems(model: str) -> list[Problem]:
    folder = Path(model)
    if not folder.exists():
        if _HUB_ID.fullmatch(model) and not folder.parent.is_dir():
            return []
        return [Problem("there is no such folder", model, "--model takes a folder or a hub id")]
    if (folder / "adapter_config.json").is_file():
        base = base_of_adapter(folder) or "BASE"
        remedy = f"--model {base} --adapter {folder}"
        return [Problem("this is an adapter, which is served on its base model", model, remedy)]
    if not (folder / "config.json").is_file():
        return [Problem("this is not a model folder: it has no config.json", model)]
    if not any([*folder.glob("*.safetensors"), *folder.glob("*.bin")]):
        return [Problem("this model folder has no weights (*.safetensors)", model)]
    return _torn_problems(folder)


def _torn_problems(folder: Path) -> list[Problem]:
    """Weights that a killed copy or a full disk cut short; a loader would find them late."""
    if not any(folder.glob("*.safetensors")):
        return []
    remedy = "copy or download it again; of a run, another checkpoint: launchers/runs.py show RUN"
    return [Problem(fault, str(folder), remedy) for fault in weight_faults(folder)]


def _adapter_problems(adapter: Path) -> list[Problem]:
    where = str(adapter)
    if not adapter.is_dir():
        return [Problem("there is no such adapter folder", where)]
    problems = []
    if not (adapter / "adapter_config.json").is_file():
        what = "this is not an adapter: it has no adapter_config.json"
        problems.append(Problem(what, where, f"a whole model is served with --model {adapter}"))
    elif not any(adapter.glob("adapter_model.*")):
        problems.append(Problem("this adapter has no weights (adapter_model.safetensors)", where))
    else:
        problems += _torn_problems(adapter)
    if "=" in where:
        # swift/arguments/deploy_args.py splits every adapter at "=" into a name and a path.
        what = "ms-swift cannot read an adapter path with `=` in it"
        problems.append(Problem(what, where, "rename the folder, or serve a copy of it"))
    return problems


def _name_problems(name: str) -> list[Problem]:
    if name.startswith("-") or any(not character.isprintable() for character in name):
        return [Problem(f"{name!r} cannot be a served model's name", "--name")]
    return []


def _several_problems(spec: ServerSpec) -> list[Problem]:
    """What speaks against several models on one server."""
    several = [*spec.more_adapters, *([spec.base_name] if spec.base_name else [])]
    if several and spec.server == "swift":
        # ms-swift 4.6.0 answers batched requests to named adapters with HTTP 400.
        what = "several models on one server need vLLM's own"
        return [Problem(what, ", ".join(several), "--server vllm")]
    names = [spec.name, *several]
    problems = [problem for name in several for problem in _name_problems(name)]
    problems += [
        Problem("two models on one server cannot have one name", name)
        for name in dict.fromkeys(names)
        if names.count(name) > 1
    ]
    return [*problems, *(Problem("a name cannot have `=` in it", n) for n in several if "=" in n)]


def _key_problems(spec: ServerSpec) -> list[Problem]:
    if spec.api_key is None:
        if is_loopback(spec.host):
            return []
        what = f"others can reach {spec.host}, so this server has to ask for a key"
        return [Problem(what, "--host", f"export {KEY_VARIABLE}=$(openssl rand -hex 24)")]
    key = spec.api_key.get_secret_value()
    if len(key) < 8 or not key.isascii() or any(c.isspace() or not c.isprintable() for c in key):
        what = "the key has to be at least 8 printable ASCII characters without spaces"
        return [Problem(what, KEY_VARIABLE, "openssl rand -hex 24 makes one")]
    return []
