"""Where a training's numbers are shown besides its own files: TensorBoard, W&B, SwanLab.

One key chooses: `swift.report_to`, ms-swift's own argument. What it needs is asked for before
anything is fetched; keys come from the environment or the tracker's own login, never from a recipe,
which is copied into every run.
"""

from __future__ import annotations

import importlib.util
import netrc
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from palmswift.errors import Problem
from palmswift.recipes.recipe import Recipe, SwiftValue, flag_words

_OFFLINE = {"offline", "disabled", "dryrun", "local"}


class Tracker(NamedTuple):
    """A service that numbers are sent to."""

    package: str
    key: str
    """The environment variable with the key; empty: it needs none."""
    mode: str
    """The environment variable that takes it offline."""
    login: str
    """What a person types to log in once."""
    offline: str
    """How it is kept on this machine."""


TRACKERS: Mapping[str, Tracker] = {
    "tensorboard": Tracker("tensorboard", "", "", "", ""),
    "wandb": Tracker(
        "wandb", "WANDB_API_KEY", "WANDB_MODE", "wandb login", "export WANDB_MODE=offline"
    ),
    "swanlab": Tracker(
        "swanlab",
        "SWANLAB_API_KEY",
        "SWANLAB_MODE",
        "swanlab login",
        "--set swift.swanlab_mode=local",
    ),
}

_SECRETS = ("swanlab_token", "swanlab_secret", "hub_token")
"""ms-swift's arguments that hold a key; they would stand in run.json and command.sh."""


def reported_to(recipe: Recipe) -> list[str]:
    """The names in `swift.report_to`; ms-swift's default is TensorBoard."""
    return flag_words(recipe.swift.get("report_to", ["tensorboard"]))


def tracking_problems(recipe: Recipe) -> Iterator[Problem]:
    """What is missing for the trackers that the recipe reports to."""
    for name in _SECRETS:
        if recipe.swift.get(name):
            yield Problem(
                "a key is not for a recipe, which every run copies",
                f"swift.{name}",
                f"take it out; {_way_in(name)}",
            )
    environment = {**os.environ, **recipe.env}
    for name in reported_to(recipe):
        tracker = TRACKERS.get(name)
        if tracker is None:
            continue
        where = f"swift.report_to: {name}"
        if importlib.util.find_spec(tracker.package) is None:
            yield Problem(
                f"the package {tracker.package} is not installed",
                where,
                f"pip install {tracker.package}, or take {name} out of swift.report_to",
            )
        if tracker.key in recipe.env:
            yield Problem(
                "a key is not for a recipe, which every run copies",
                f"env.{tracker.key}",
                f"take it out; export {tracker.key}=… in your shell",
            )
        elif tracker.key and not _may_report(tracker, recipe, environment):
            yield Problem(
                f"{tracker.key} is not set, and nobody is logged in",
                where,
                f"export {tracker.key}=…, or `{tracker.login}`; without the network: "
                f"{tracker.offline}",
            )


def _way_in(name: str) -> str:
    if name == "swanlab_token":
        return "export SWANLAB_API_KEY=… in your shell, or `swanlab login`"
    return "log in with the service's own command, or by its environment variable"


def _may_report(tracker: Tracker, recipe: Recipe, environment: Mapping[str, str]) -> bool:
    """Whether there is a key, a login, or no need of one."""
    if environment.get(tracker.key) or environment.get(tracker.mode, "").lower() in _OFFLINE:
        return True
    if tracker.package == "swanlab" and recipe.swift.get("swanlab_mode") == "local":
        return True
    return _is_logged_in(tracker, environment)


def _is_logged_in(tracker: Tracker, environment: Mapping[str, str]) -> bool:
    """Whether the tracker's own login command has left a key."""
    home = Path.home()
    if tracker.package == "wandb":
        host = environment.get("WANDB_BASE_URL", "https://api.wandb.ai").split("//")[-1]
        file = Path(environment.get("NETRC", home / ".netrc"))
        try:
            return netrc.netrc(file).authenticators(host.partition("/")[0]) is not None
        except (OSError, netrc.NetrcParseError):
            return False
    folder = Path(environment.get("SWANLAB_SAVE_DIR", home / ".swanlab"))
    return any((place / ".netrc").is_file() for place in (folder, Path(".swanlab")))


def tracking_arguments(recipe: Recipe, run: str) -> dict[str, SwiftValue]:
    """The run's own name for the trackers, which would call each run by its output folder."""
    names: dict[str, SwiftValue] = {}
    chosen = reported_to(recipe)
    if "wandb" in chosen:
        names["run_name"] = run
    if "swanlab" in chosen:
        names["swanlab_exp_name"] = run
        # ms-swift names the mode itself, so that the variable would be passed over.
        if os.environ.get(TRACKERS["swanlab"].mode, "").lower() in _OFFLINE:
            names["swanlab_mode"] = "local"
    return names


def tracking_environment(recipe: Recipe, output: Path) -> dict[str, str]:
    """Where W&B and SwanLab keep their files: in the run, and not where the command was called."""
    chosen = reported_to(recipe)
    found: dict[str, str] = {}
    if "wandb" in chosen:
        found |= {"WANDB_PROJECT": "palmswift", "WANDB_DIR": str(output)}
    if "swanlab" in chosen:
        found["SWANLAB_LOG_DIR"] = str(output / "swanlog")
    return {name: value for name, value in found.items() if name not in os.environ}
