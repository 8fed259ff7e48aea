"""The commands of quickstart.py: install, status, test, and the ones that run palmswift."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from palmswift.command import Console, Done, make_parser, run
from palmswift.errors import InputError, Problem
from palmswift.setup.environment import PROJECT, PYTHON, Environment
from palmswift.setup.install import BASE_EXTRAS, Wish, ensure, install
from palmswift.setup.status import package_table, status_lines, status_of
from palmswift.setup.steps import ending

EXAMPLES = """
python3 quickstart.py demo
python3 quickstart.py demo --recipe demo_cpu_lora
python3 quickstart.py test -k recipes
python3 quickstart.py status --json
python3 quickstart.py install --gpu --vllm
python3 quickstart.py train --recipe qwen3_8b_4bit --data my.jsonl
python3 quickstart.py full --recipe qwen3_8b_4bit --data my.jsonl
python3 quickstart.py evaluate --suite eval/suites/clinic.yaml --endpoint http://127.0.0.1:8000/v1
"""

SCRIPTS = {
    "demo": "launchers/pipeline.py",
    "full": "launchers/pipeline.py",
    "train": "launchers/train.py",
    "evaluate": "eval/run.py",
}
"""The commands that are one of palmswift's own, which gets all words after the command."""

COMMANDS = {
    "demo": "the whole job with a small model: data, training, serving, test (recipe demo_cpu)",
    "test": "ruff, mypy and pytest, which gets all words after the command",
    "status": "what is installed, what is wrong and how to mend it (exit code 1 if something is)",
    "install": "make the environment or bring it up to date",
    "train": "launchers/train.py with the words after the command",
    "evaluate": "eval/run.py with the words after the command",
    "full": "launchers/pipeline.py with the words after the command: train, serve, test",
}

_CHECKS = (("ruff", "check"), ("ruff", "format", "--check"), ("mypy",))
_TEST_GRACE_SECONDS = 30.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command of quickstart.py; its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    split = _after_command(words)
    own, rest = words, []
    if split and (words[split - 1] == "test" or words[split - 1] in SCRIPTS):
        own, rest = words[:split], words[split:]
    parser = _parser()

    def body(args: argparse.Namespace, console: Console) -> Done:
        environment = Environment(args.venv)
        if args.command == "status":
            return _status(environment, console)
        if args.command == "install":
            return _install(environment, args, console)
        if {"-h", "--help"} & set(rest) and environment.lacks(BASE_EXTRAS):
            console.say(parser.format_help())
            return Done({})
        if args.command == "test":
            return _test(environment, rest, console)
        _run_script(environment, args.command, rest, console)

    return run(parser, body, own)


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(
        "quickstart.py", "Set palmswift up on this machine, and run it here.", EXAMPLES
    )
    commands = "; ".join(f"{name}: {purpose}" for name, purpose in COMMANDS.items())
    parser.add_argument("command", choices=list(COMMANDS), metavar="COMMAND", help=commands)
    parser.add_argument(
        "--venv",
        type=Path,
        default=PROJECT / ".venv",
        metavar="FOLDER",
        help="the environment, before the command (default: .venv beside quickstart.py)",
    )
    group = parser.add_argument_group("install")
    build = group.add_mutually_exclusive_group()
    build.add_argument("--gpu", action="store_true", help="torch with CUDA, whatever is found here")
    build.add_argument("--cpu", action="store_true", help="torch for the CPU, GPU or not")
    group.add_argument("--vllm", action="store_true", help="with vLLM, to serve faster")
    group.add_argument("--dev", action="store_true", help="with the tools that `test` needs")
    group.add_argument("--pip", action="store_true", help="with pip alone, without uv")
    return parser


def _after_command(words: Sequence[str]) -> int:
    """The index after the first word that is a command; 0 when there is none."""
    for index, word in enumerate(words):
        if word in COMMANDS and (index == 0 or words[index - 1] != "--venv"):
            return index + 1
    return 0


def _install(environment: Environment, args: argparse.Namespace, console: Console) -> Done:
    extras = frozenset(name for name in ("vllm", "dev") if getattr(args, name))
    gpu = True if args.gpu else False if args.cpu else None
    stamp = environment.stamp()
    reason = environment.lacks(BASE_EXTRAS | extras)
    if not reason and stamp.get("python") != PYTHON:
        reason = f"it has Python {stamp.get('python')}, this is {PYTHON}"
    if not reason and gpu is not None and stamp.get("build") != ("gpu" if gpu else "cpu"):
        reason = f"it is for the {stamp.get('build')}"
    differing = [row["name"] for row in package_table(environment) if not row["agrees"]]
    if not reason and differing:
        reason = f"{', '.join(differing)} not as tested"
    if not reason:
        console.note(f"{environment.folder} is up to date")
        return Done({"environment": str(environment.folder), **stamp})
    document = install(environment, Wish(extras, gpu, args.pip), console, reason=reason)
    console.note(f"to use it in this shell: source {environment.bin / 'activate'}")
    return Done(document)


def _status(environment: Environment, console: Console) -> Done:
    document = status_of(environment)
    if not console.json_output:
        console.say("\n".join(status_lines(document)))
    return Done(document, 1 if document["problems"] else 0)


def _test(environment: Environment, words: Sequence[str], console: Console) -> Done:
    """Run all checks, pytest last; a failure does not keep the others from running."""
    ensure(environment, frozenset({"dev"}), console)
    failed = []
    for program, *arguments in (*_CHECKS, ("pytest", *words)):
        title = " ".join([program, *arguments[:1]])
        console.note(f"== {title}")
        process = subprocess.Popen(
            [str(environment.bin / program), *arguments],
            env=environment.variables(),
            cwd=PROJECT,
            start_new_session=True,
        )
        with ending(process, _TEST_GRACE_SECONDS):
            if process.wait():
                failed.append(title)
    if failed:
        console.note(f"failed: {', '.join(failed)}")
    return Done({"failed": failed}, 1 if failed else 0)


def _run_script(
    environment: Environment, command: str, words: Sequence[str], console: Console
) -> NoReturn:
    """Become the script, so that the terminal, signals and the exit code are its own."""
    script = PROJECT / SCRIPTS[command]
    if not script.is_file():
        raise InputError("the checkout is not whole", [Problem("is missing", str(script))])
    ensure(environment, frozenset(), console)
    recipe = any(word == "--recipe" or word.startswith("--recipe=") for word in words)
    default = ["--recipe", "demo_cpu"] if command == "demo" and not recipe else []
    sys.stdout.flush()
    arguments = [str(environment.python), str(script), *default, *words]
    os.execve(environment.python, arguments, environment.variables())
