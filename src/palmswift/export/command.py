"""The `export` command: of a finished run, a model that others can serve, checked and proven."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from palmswift.command import Console, Done, make_parser, run
from palmswift.errors import InputError

if TYPE_CHECKING:
    from palmswift.export.manifest import Exported

EXAMPLES = """
python launchers/export.py --run latest --merge
python launchers/export.py --run latest --merge --memory-limit 2GiB --out /srv/models/clinic
python launchers/export.py --run latest --quant awq
python launchers/export.py --run latest --quant bnb --bits 8 --no-parity
python launchers/export.py --run latest --gguf q4_k_m --ollama
"""

METHODS = ("awq", "gptq", "bnb", "fp8")
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def byte_count(text: str) -> int:
    """The bytes that `4GiB`, `512 MiB` or `2G` name; `argparse.ArgumentTypeError` for others."""
    word = text.strip().lower().removesuffix("b").removesuffix("i").strip()
    unit = word[-1:] if word[-1:] in _UNITS else ""
    try:
        found = float(word.removesuffix(unit)) * _UNITS[unit]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no size such as 4GiB or 512MiB") from None
    if not 0 < found < 1 << 60:
        raise argparse.ArgumentTypeError(f"{text!r} is no size that memory can have")
    return int(found)


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(
        "export.py",
        "Make a model of a finished run that others can serve: merged, quantised, GGUF. Each is "
        "checked, served, and compared with the trained model. Exit code 1 when it is not that.",
        EXAMPLES,
    )
    parser.add_argument("--run", default="latest", help="a run's name, folder, or `latest`")
    parser.add_argument("--merge", action="store_true", help="merge the adapter, in 16 bit")
    parser.add_argument("--quant", choices=METHODS, help="quantise the (merged) model")
    parser.add_argument("--bits", type=int, metavar="N", help="bits of --quant (4; fp8: 8)")
    parser.add_argument("--gguf", metavar="TYPE", help="GGUF for llama.cpp, such as q4_k_m or f16")
    parser.add_argument(
        "--ollama", action="store_true", help="an Ollama Modelfile beside the GGUF (q4_k_m)"
    )
    parser.add_argument(
        "--llama-cpp", metavar="DIR", help="your own llama.cpp for --gguf (or LLAMA_CPP)"
    )
    parser.add_argument(
        "--out", metavar="DIR", help="a new folder for the result (default: RUN/export/KIND)"
    )
    parser.add_argument(
        "--memory-limit",
        type=byte_count,
        default="4GiB",
        metavar="SIZE",
        help="memory that the merge may hold (4GiB)",
    )
    parser.add_argument(
        "--calibration-rows",
        type=int,
        default=128,
        metavar="N",
        help="training rows that awq and gptq look at (128)",
    )
    parser.add_argument(
        "--max-divergence",
        type=float,
        metavar="NATS",
        help="mean difference of log-probabilities that passes (merged 0.05, quantised 0.1, "
        "after a QLoRA training 0.25)",
    )
    parser.add_argument(
        "--no-parity", action="store_true", help="leave out the comparison with the trained model"
    )
    return parser


def _body(args: argparse.Namespace, console: Console) -> Done:
    from palmswift.export.stages import Plan, check_plan, export_stages
    from palmswift.launchers.run_folder import find_run
    from palmswift.paths import user_path

    if not (args.merge or args.quant or args.gguf or args.ollama):
        raise InputError(
            "say what is to be made of the run",
            remedy="--merge, --quant awq|gptq|bnb|fp8, --gguf q4_k_m or --ollama",
        )
    folder = find_run(args.run)
    plan = Plan(
        merge=args.merge,
        quant=args.quant,
        bits=args.bits,
        gguf=args.gguf or ("q4_k_m" if args.ollama else None),
        ollama=args.ollama,
        out=None if args.out is None else user_path(args.out).resolve(),
        llama_cpp=None if args.llama_cpp is None else user_path(args.llama_cpp).resolve(),
        parity=not args.no_parity,
        limit=args.max_divergence,
        memory_limit=args.memory_limit,
        rows=args.calibration_rows,
    )
    check_plan(plan, folder)
    with folder.lock():
        made = export_stages(folder, plan, console)
    for one in made:
        tell(one, console)
    passed = all(one.passed for one in made)
    document = {
        "run": str(folder.path),
        "passed": passed,
        "merged": next((str(one.path) for one in made if one.kind == "merged"), None),
        "exports": [one.model_dump(mode="json") | {"passed": one.passed} for one in made],
    }
    return Done(document, 0 if passed else 1)


def tell(made: Exported, console: Console) -> None:
    """Print what came of one export."""
    from palmswift.export.proof import sentence
    from palmswift.recipes.source import shown

    console.say(f"{made.kind:<9} {shown(made.path)}")
    console.say(f"          {made.found}, {made.bytes / 1e9:.3g} GB")
    for check in made.checks:
        if not check.passed:
            console.say(f"          FAILED {check.name}: {check.detail}")
    if made.parity is not None:
        quantised = made.kind not in ("merged", "model")
        verdict = "" if made.parity.passed else f"NOT the trained model ({made.parity.causes[0]}); "
        console.say(f"          {verdict}{sentence(made.parity, quantised=quantised)}")
    for remark in made.remarks:
        console.say(f"          {remark}")
    if made.path.is_dir() and made.passed and (made.path / "config.json").is_file():
        place = shlex.quote(str(shown(made.path)))
        console.say(f"serve     python deploy/serve.py --model {place}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; its exit code."""
    return run(_parser(), _body, argv)
