"""The `serve` command: a run or a model folder in, an OpenAI-compatible endpoint out."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from palmswift.command import Console, Done, make_parser, run
from palmswift.errors import INTERRUPTED, InputError, Problem

if TYPE_CHECKING:
    from palmswift.deploy.server import Server
    from palmswift.deploy.spec import ServerSpec

EXAMPLES = """
python deploy/serve.py --run latest
python deploy/serve.py --run latest --port 8001 --detach
python deploy/serve.py --run latest --base
python deploy/serve.py --run latest --server vllm --also older=runs/my-run/train/checkpoint-80
python deploy/serve.py --model models/Qwen3-0.6B --adapter runs/my-run/train/checkpoint-80
python deploy/serve.py --model Qwen/Qwen3-0.6B --set enable_thinking=false --dry-run
export PALMSWIFT_API_KEY=$(openssl rand -hex 24); python deploy/serve.py --run latest --host 0.0.0.0
"""

DEFAULT_PORT = 8000


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(
        "serve.py",
        "Serve a trained run or a model over the OpenAI protocol, with `swift deploy`.",
        EXAMPLES,
    )
    parser.add_argument(
        "--run", metavar="RUN", help="`latest`, a run's name under runs/, or its folder"
    )
    parser.add_argument(
        "--base", action="store_true", help="serve the run's untouched base model instead"
    )
    parser.add_argument("--model", metavar="DIR", help="a model folder or a hub id")
    parser.add_argument("--adapter", metavar="DIR", help="a LoRA checkpoint on that model")
    parser.add_argument("--name", help="the model name that clients send")
    parser.add_argument("--host", help="address to listen on (127.0.0.1); others ask for a key")
    parser.add_argument(
        "--port", type=int, help=f"port to listen on ({DEFAULT_PORT}); 0 picks a free one"
    )
    parser.add_argument(
        "--backend",
        choices=("transformers", "vllm", "sglang", "lmdeploy"),
        help="what computes the answers (transformers)",
    )
    parser.add_argument(
        "--server",
        choices=("swift", "vllm"),
        help="`swift deploy` (the default), or vLLM's own server: several models, metrics",
    )
    parser.add_argument(
        "--also",
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="a further adapter on the same base under NAME (--server vllm); may be repeated",
    )
    parser.add_argument(
        "--base-name", metavar="NAME", help="the base beside its adapters (--server vllm: `base`)"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a further `swift deploy` argument, such as max_batch_size=4; may be repeated",
    )
    parser.add_argument(
        "--ready-timeout",
        type=float,
        metavar="S",
        help="seconds until the first completion has to have come back (600)",
    )
    parser.add_argument(
        "--detach", action="store_true", help="leave it running and come back when it is ready"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print the command; start and write nothing"
    )
    return parser


class _Chosen(NamedTuple):
    """What is served, and the run folder that it comes from."""

    spec: ServerSpec
    run: Path | None


def _chosen(args: argparse.Namespace) -> _Chosen:
    from palmswift.deploy.spec import base_of_run, spec_of_run
    from palmswift.launchers.run_folder import find_run

    if bool(args.run) == bool(args.model):
        raise InputError("say what is served", remedy="either --run latest or --model DIR")
    if args.model:
        if args.base:
            raise InputError("--base is the base model of a run", remedy="--run latest --base")
        return _Chosen(_changed(args, _spec_of_model(args)), None)
    if args.adapter:
        raise InputError("--adapter goes with --model", remedy="--run serves the run's own adapter")
    folder = find_run(args.run)
    spec = base_of_run(folder) if args.base else spec_of_run(folder)
    return _Chosen(_changed(args, spec), folder.path)


def _spec_of_model(args: argparse.Namespace) -> ServerSpec:
    from palmswift.deploy.spec import ServerSpec

    last = args.adapter or args.model
    return ServerSpec(
        name=args.name or Path(last).expanduser().resolve().name,
        model=args.model,
        adapter=args.adapter,
        port=DEFAULT_PORT,
    )


def _changed(args: argparse.Namespace, spec: ServerSpec) -> ServerSpec:
    """The spec with what the command line and the environment say over it."""
    from pydantic import ValidationError

    from palmswift.deploy.keyed import KEY_VARIABLE
    from palmswift.deploy.settings import parse_settings
    from palmswift.deploy.spec import ServerSpec

    words = ("name", "host", "port", "backend", "server", "base_name")
    asked = {key: getattr(args, key) for key in words}
    asked["ready_timeout"] = args.ready_timeout
    changes = {key: value for key, value in asked.items() if value is not None}
    changes["more_adapters"] = named_folders(args.also)
    changes["swift"] = {**spec.swift, **parse_settings(args.set)}
    changes["api_key"] = os.environ.get(KEY_VARIABLE) or None
    try:
        return ServerSpec.model_validate({**spec.model_dump(), **changes})
    except ValidationError as error:
        problems = [
            Problem(item["msg"], "--" + str(item["loc"][0]).replace("_", "-"))
            for item in error.errors()
        ]
        raise InputError(f"{spec.name} cannot be served", problems) from None


def named_folders(words: Sequence[str]) -> dict[str, Path]:
    """`NAME=DIR` words; `InputError` with every one that is not."""
    from palmswift.paths import user_path

    pairs = [word.partition("=") for word in words]
    problems = [
        Problem("is not NAME=DIR", f"--also {word}")
        for word, (name, _, folder) in zip(words, pairs, strict=True)
        if not name or not folder
    ]
    if problems:
        raise InputError("the adapters cannot be read", problems)
    return {name: user_path(folder).resolve() for name, _, folder in pairs}


def _body(args: argparse.Namespace, console: Console) -> Done:
    from palmswift.deploy.spec import check_spec

    spec, run_path = _chosen(args)
    check_spec(spec)
    spec = _on_this_card(args, spec, run_path, console)
    if args.dry_run:
        return _dry_run(spec, console)
    from palmswift.deploy.server import Server
    from palmswift.deploy.state import servers_dir

    server = Server(
        spec,
        folder=servers_dir() if run_path is None else run_path / "deploy",
        run=run_path,
        detached=args.detach,
        note=console.note,
    )
    console.note(f"serving {_what(spec)} as {spec.name}, backend {spec.backend}")
    with server:
        seconds = sum(phase.seconds for phase in server.phases)
        console.note(f"ready after {seconds:.1f} s")
        _say_how(server, console, detached=args.detach)
        if not args.detach:
            return _until_its_end(server, console)
        state = server.leave()
    phases = {phase.name: phase.seconds for phase in server.phases}
    return Done({**state.model_dump(mode="json"), "ready_seconds": phases})


def _on_this_card(
    args: argparse.Namespace, spec: ServerSpec, run: Path | None, console: Console
) -> ServerSpec:
    """The spec with the planner's context, requests and memory, where there is a card."""
    from palmswift.deploy.fitting import fitted
    from palmswift.deploy.settings import parse_settings
    from palmswift.launchers.run_folder import find_run

    recipe = None if run is None else find_run(str(run)).recipe
    return fitted(spec, recipe, asked=parse_settings(args.set), note=console.note)


def _what(spec: ServerSpec) -> str:
    return spec.model if spec.adapter is None else f"{spec.adapter} on {spec.model}"


def _dry_run(spec: ServerSpec, console: Console) -> Done:
    from palmswift.deploy.server import server_command

    command = server_command(spec, spec.port)
    console.say(command.script.rstrip())
    return Done({"argv": command.argv, "env": command.env})


def _say_how(server: Server, console: Console, *, detached: bool) -> None:
    from palmswift.deploy.vllm_server import served_names

    key = "" if server.spec.api_key is None else " --api-key-env PALMSWIFT_API_KEY"
    console.say(f"endpoint  {server.base_url}")
    for name in served_names(server.spec):
        console.say(f"model     {name}")
    console.say(f"log       {server.log}")
    console.say(f"chat      python eval/chat.py --endpoint {server.base_url}{key}")
    stop = f"python deploy/stop.py --port {server.port}" if detached else "Ctrl-C"
    console.say(f"stop      {stop}")


def _until_its_end(server: Server, console: Console) -> Done:
    """Wait until the server ends by itself (`ChildError`) or by deploy/stop.py (130)."""
    from palmswift.deploy.explain import server_error
    from palmswift.deploy.state import read_state, state_file

    while (exit_code := server.poll()) is None:
        time.sleep(0.2)
    state = read_state(state_file(server.port, server.registry))
    if state is None or state.stopping:
        console.note(f"{server.spec.name} was stopped from outside")
        return Done({"stopped": True}, INTERRUPTED)
    raise server_error(f"the server ended by itself (exit code {exit_code})", server.log, exit_code)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; its exit code."""
    return run(_parser(), _body, argv)
