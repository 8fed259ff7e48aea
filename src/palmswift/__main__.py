"""The `palmswift` command: one word for each of the scripts, loaded only when it is called."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from palmswift import __version__

COMMANDS = {
    "recipes": (
        "palmswift.recipes_command",
        "list, check, copy, compare, import and export recipes",
    ),
    "plan": ("palmswift.plan.commands", "predict a recipe's peak memory"),
    "sanitize": ("palmswift.data.sanitize", "clean data files, and say which rows were left out"),
    "preview": ("palmswift.data.preview", "show rows as the model sees them"),
    "stats": ("palmswift.data.stats", "say what a data set is like"),
    "convert": ("palmswift.data.convert", "write a data file in another shape"),
    "train": ("palmswift.launchers.train", "train what a recipe says"),
    "runs": ("palmswift.runs_command", "list, compare, follow, clean up and repeat runs"),
    "export": ("palmswift.export.command", "merge, quantise or convert a run's model, with proof"),
    "serve": ("palmswift.deploy.serve", "serve a run or a model"),
    "status": ("palmswift.deploy.status", "show the servers that run"),
    "logs": ("palmswift.deploy.logs", "show what a server has written"),
    "stop": ("palmswift.deploy.stop", "stop a detached server"),
    "production": (
        "palmswift.deploy.production",
        "write Docker, systemd, Kubernetes and metrics files for a run",
    ),
    "parity": ("palmswift.deploy.parity", "compare a server with the trained model"),
    "suite": ("palmswift.eval.make_suite", "make a suite of the rows that a run held out"),
    "eval": ("palmswift.eval.run", "test served models with a suite"),
    "compare": ("palmswift.eval.compare", "say whether one model's answers are better"),
    "batch": ("palmswift.eval.batch", "answer a file of questions"),
    "score": ("palmswift.eval.score_command", "score predictions against references"),
    "perplexity": ("palmswift.eval.perplexity_command", "compare how likely models find texts"),
    "consistency": ("palmswift.eval.consistency_command", "say how alike repeated answers are"),
    "judge": ("palmswift.eval.judge_command", "have answers rated by another model"),
    "rate": ("palmswift.eval.rate", "rate answers yourself, without knowing whose they are"),
    "chat": ("palmswift.eval.chat", "chat with a served model"),
    "bench": ("palmswift.eval.bench", "measure a served model under load"),
    "pipeline": ("palmswift.pipeline", "the whole job: data, training, serving, test"),
}
"""Each word's module (its `main` takes the remaining words) and what it is for."""


def main(argv: Sequence[str] | None = None) -> int:
    """Hand the words after the first to that word's command; its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    word = words[0] if words else "--help"
    if word in ("-h", "--help"):
        sys.stdout.write(_help())
        return 0
    if word == "--version":
        sys.stdout.write(f"palmswift {__version__}\n")
        return 0
    if word not in COMMANDS:
        sys.stderr.write(_unknown(word))
        return 2
    module = importlib.import_module(COMMANDS[word][0])
    code = module.main(words[1:])
    return int(code)


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {purpose}" for name, (_, purpose) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: palmswift COMMAND ...",
            "       palmswift --version",
            "",
            *lines,
            "",
            "palmswift COMMAND --help shows a command's options, with examples",
            "",
        ]
    )


def _unknown(word: str) -> str:
    from difflib import get_close_matches

    like = get_close_matches(word, COMMANDS, n=1)
    hint = f"did you mean {like[0]}? " if like else ""
    return f"error: no command {word!r}\n  -> {hint}palmswift --help lists all of them\n"


if __name__ == "__main__":
    raise SystemExit(main())
