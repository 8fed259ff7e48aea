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
    from palmswift.deploy.parity_start import Checked
    from palmswift.deploy.parity_truth import Truth
    from palmswift.deploy.server import Server
    from palmswift.deploy.spec import ServerSpec
    from palmswift.launchers.run_folder import RunFolder
    from palmswift.recipes.recipe import SwiftValue

EXAMPLES = """
python deploy/serve.py --run latest
python deploy/serve.py --run latest --backend vllm --detach
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
        help="what computes the answers (the recipe's, or transformers)",
    )
    parser.add_argument(
        "--server",
        choices=("swift", "vllm"),
        help="who speaks HTTP: `swift deploy` (the recipe's, or this), or vLLM's own server, which "
        "serves several models and measures itself",
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
        "--no-parity",
        action="store_true",
        help="do not compare the server with the trained model before it is ready",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print the command; start and write nothing"
    )
    return parser


class _Chosen(NamedTuple):
    """What is served, and the run folder that it comes from."""

    spec: ServerSpec
    run: RunFolder | None
    trained: bool = False
    """Whether it is the model that the run trained."""


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
    return _Chosen(_changed(args, spec), folder, not args.base)


def _spec_of_model(args: argparse.Namespace) -> ServerSpec:
    from palmswift.deploy.spec import ServerSpec

    last = args.adapter or args.model
    return ServerSpec(
        name=args.name or Path(last).expanduser().resolve().name,
        model=args.model,
        adapter=args.adapter,
        port=DEFAULT_PORT,
        swift=exported_settings(args.model),
    )


def exported_settings(model: str) -> dict[str, SwiftValue]:
    """The arguments under which a model that `export` made answers as it was trained; else none.

    ms-swift reads a template and a system prompt from the folder, and no thinking policy.
    """
    from palmswift.launchers.checkpoint_files import EXPORT_MANIFEST, read_document
    from palmswift.paths import user_path

    told = (read_document(user_path(model) / EXPORT_MANIFEST) or {}).get("serving")
    return dict(told) if isinstance(told, dict) else {}


def _changed(args: argparse.Namespace, spec: ServerSpec) -> ServerSpec:
    """The spec with what the command line and the environment say over it."""
    from pydantic import ValidationError

    from palmswift.deploy.keyed import KEY_VARIABLE
    from palmswift.deploy.settings import parse_settings
    from palmswift.deploy.spec import ServerSpec

    if args.server == "vllm" and args.backend not in (None, "vllm"):
        raise InputError(
            f"vLLM's own server does not compute with {args.backend}",
            remedy="--backend says what computes, --server who answers: leave one of them out",
        )
    words = ("name", "host", "port", "backend", "server", "base_name")
    asked = {key: getattr(args, key) for key in words}
    asked["ready_timeout"] = args.ready_timeout
    changes = {key: value for key, value in asked.items() if value is not None}
    if args.server is None and args.backend not in (None, "vllm"):
        changes["server"] = "swift"  # whatever the recipe says: vLLM's own has no other backend
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

    chosen = _chosen(args)
    check_spec(chosen.spec)
    chosen = _on_this_card(args, chosen, console)
    if args.dry_run:
        return _dry_run(chosen.spec, console)
    from palmswift.deploy.server import Server
    from palmswift.deploy.state import servers_dir

    spec, run = chosen.spec, chosen.run
    server = Server(
        spec,
        folder=servers_dir() if run is None else run.path / "deploy",
        run=None if run is None else run.path,
        detached=args.detach,
        note=console.note,
    )
    server.check()
    truth = _truth(chosen, console) if not args.no_parity else None
    console.note(f"serving {_what(spec)} as {spec.name}, {_engine(spec)}")
    with server:
        seconds = sum(phase.seconds for phase in server.phases)
        console.note(f"ready after {seconds:.1f} s")
        if (checked := _compared(server, chosen, truth, console)) and not checked.passed:
            return _not_as_trained(checked, console)
        _say_how(server, console, detached=args.detach)
        if not args.detach:
            return _until_its_end(server, console)
        state = server.leave()
    phases = {phase.name: phase.seconds for phase in server.phases}
    return Done({**state.model_dump(mode="json"), "ready_seconds": phases})


def _on_this_card(args: argparse.Namespace, chosen: _Chosen, console: Console) -> _Chosen:
    """With the planner's context, requests and memory, where there is a card."""
    from palmswift.deploy.fitting import fitted
    from palmswift.deploy.settings import parse_settings

    recipe = None if chosen.run is None else chosen.run.recipe
    asked = parse_settings(args.set)
    return chosen._replace(spec=fitted(chosen.spec, recipe, asked=asked, note=console.note))


def _truth(chosen: _Chosen, console: Console) -> Truth | Checked | None:
    """What the trained model says, before the server takes the memory; None: nobody asked."""
    if chosen.run is None or not (chosen.trained and chosen.run.recipe.deploy.parity):
        return None
    from palmswift.deploy.parity_start import truth_before

    return truth_before(chosen.run, console.note)


def _compared(
    server: Server, chosen: _Chosen, truth: Truth | Checked | None, console: Console
) -> Checked | None:
    """Compare the ready server with the truth, and keep what came of it in its state."""
    from palmswift.deploy.parity_start import Checked, check_server

    if truth is None or chosen.run is None:
        return None
    begun = time.monotonic()
    checked = truth if isinstance(truth, Checked) else check_server(server, chosen.run, truth)
    server.note_parity(checked.sentence)
    console.note(f"compared in {time.monotonic() - begun:.1f} s")
    return checked


def _not_as_trained(checked: Checked, console: Console) -> Done:
    """Say why it is not left running; whoever calls leaves the block that ends it."""
    for line in checked.told:
        console.say(line)
    console.say("stopped   it answers otherwise than what was trained; --no-parity serves it so")
    document = {} if checked.report is None else checked.report.model_dump(mode="json")
    return Done({"passed": False, "parity": document}, 1)


def _engine(spec: ServerSpec) -> str:
    return "vLLM's own server" if spec.server == "vllm" else f"backend {spec.backend}"


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
    if server.state is not None and server.state.parity:
        console.say(f"parity    {server.state.parity}")
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
