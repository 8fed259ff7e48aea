"""The commands of quickstart.py: install, status, test, and the ones that run palmswift."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NoReturn

from palmswift.command import Console, Done, make_parser, run
from palmswift.errors import ChildError, InputError, Problem
from palmswift.setup.environment import PROJECT, Environment
from palmswift.setup.install import BASE_EXTRAS, Wish, ensure, install
from palmswift.setup.status import status_lines, status_of
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

_CHECKS = (("ruff", "check"), ("ruff", "format", "--check"))
_BESIDE = ("mypy",)
_PYTEST = ("pytest", "-n", "auto", "--dist", "loadgroup", "--durations=30", "--durations-min=5")
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
        gpu = True if args.gpu else False if args.cpu else None
        extras = frozenset(name for name in ("vllm", "dev") if getattr(args, name))
        wish = Wish(extras, gpu, args.pip, args.fresh)
        if args.command == "status":
            return _status(environment, console)
        if args.command == "install":
            return _install(environment, wish, console)
        if {"-h", "--help"} & set(rest) and environment.lacks(BASE_EXTRAS):
            console.say(parser.format_help())
            return Done({})
        if args.command == "test":
            return _test(environment, wish, rest, console)
        _run_script(environment, wish, [args.command, *rest], console)

    return run(parser, body, own)


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS))
    commands = "".join(f"\n  {name:<{width}}  {purpose}" for name, purpose in COMMANDS.items())
    summary = f"Set palmswift up on this machine, and run it here.\n\ncommands:{commands}"
    parser = make_parser("quickstart.py", summary, EXAMPLES)
    parser.add_argument(
        "command", choices=list(COMMANDS), metavar="COMMAND", help="one of the commands above"
    )
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
    group.add_argument("--fresh", action="store_true", help="delete the environment first")
    group.add_argument("--pip", action="store_true", help="with pip alone, without uv")
    return parser


def _after_command(words: Sequence[str]) -> int:
    """The index after the first word that is a command; 0 when there is none."""
    for index, word in enumerate(words):
        if word in COMMANDS and (index == 0 or words[index - 1] != "--venv"):
            return index + 1
    return 0


def _install(environment: Environment, wish: Wish, console: Console) -> Done:
    stamp = install(environment, wish, console)
    console.note(
        f"to use it in this shell: source {shlex.quote(str(environment.bin / 'activate'))}"
    )
    return Done({"environment": str(environment.folder), **stamp})


def _status(environment: Environment, console: Console) -> Done:
    document = status_of(environment)
    if not console.json_output:
        console.say("\n".join(status_lines(document)))
    return Done(document, 1 if document["problems"] else 0)


def _test(environment: Environment, wish: Wish, words: Sequence[str], console: Console) -> Done:
    """Run all checks and tests; a failure does not keep the others from running.

    mypy runs beside pytest, and what it says is shown after that. pytest uses all cores
    (tests/support_workers.py); `-n0` among the user's words keeps it to one process.
    """
    # A part of the tests asks a real vLLM, whose CPU build there is for Linux alone.
    if_possible = frozenset({"vllm"} if sys.platform == "linux" else ())
    wish = wish._replace(extras=wish.extras | {"dev"}, if_possible=if_possible)
    ensure(environment, wish, console)
    out = sys.stderr if console.json_output else None
    failed = []

    def check(check: Sequence[str], title: str) -> None:
        console.note(f"== {title}")
        with _running(environment, check, out) as process:
            if process.wait():
                failed.append(title)

    for words_of_check in _CHECKS:
        check(words_of_check, " ".join(words_of_check))
    with tempfile.TemporaryFile() as said, _running(environment, _BESIDE, said) as beside:
        check([*_PYTEST, *words], "pytest")
        console.note("== mypy")
        if beside.wait():
            failed.append("mypy")
        said.seek(0)
        print(said.read().decode(errors="replace"), end="", flush=True, file=out or sys.stdout)
    if failed:
        console.note(f"failed: {', '.join(failed)}")
    return Done({"failed": failed}, 1 if failed else 0)


@contextmanager
def _running(
    environment: Environment, words: Sequence[str], out: IO[Any] | None
) -> Iterator[subprocess.Popen[bytes]]:
    """A program of the environment in the checkout; ended if the block is left by an exception."""
    program, *arguments = words
    try:
        process = subprocess.Popen(
            [str(environment.bin / program), *arguments],
            stdout=out,
            stderr=None if out is None else subprocess.STDOUT,
            env=environment.variables(),
            cwd=PROJECT,
            start_new_session=True,
        )
    except OSError as error:
        raise ChildError(
            f"{program} cannot be started: {error.strerror}",
            remedy="python3 quickstart.py install --dev --fresh",
        ) from error
    with ending(process, _TEST_GRACE_SECONDS):
        yield process


def _run_script(
    environment: Environment, wish: Wish, words: Sequence[str], console: Console
) -> NoReturn:
    """Become the script, so that the terminal, the signals and the exit code are its own."""
    command, *rest = words
    script = PROJECT / SCRIPTS[command]
    if not script.is_file():
        raise InputError("the checkout is not whole", [Problem("is missing", str(script))])
    ensure(environment, wish, console)
    named = any(word == "--recipe" or word.startswith("--recipe=") for word in rest)
    default = ["--recipe", "demo_cpu"] if command == "demo" and not named else []
    arguments = [str(environment.python), str(script), *default, *rest]
    sys.stdout.flush()
    os.execve(environment.python, arguments, environment.variables())
