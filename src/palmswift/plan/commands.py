"""`plan`: tells before anything is downloaded whether a recipe fits the GPU."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from palmswift.command import Console, Done, make_parser, run
from palmswift.errors import InputError

if TYPE_CHECKING:
    from palmswift.plan.fit import Plan

_EXAMPLES = """
python launchers/plan.py --recipe qwen3_8b_4bit
python launchers/plan.py --recipe qwen3_8b_4bit --gpu-mib 12288 --length 4096
python launchers/plan.py --recipe qwen3_8b_4bit --set swift.lora_rank=64
python launchers/plan.py --recipe qwen3_4b_4bit --supervised 256 --json
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0: it fits; 1: it does not; 2: the recipe is wrong or cannot be predicted."""
    parser = make_parser(
        "plan.py",
        "Predict the peak GPU memory of a recipe's training, phase by phase.",
        _EXAMPLES,
    )
    parser.add_argument("--recipe", required=True, metavar="NAME", help="a recipe's name or file")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a recipe's key"
    )
    parser.add_argument(
        "--gpu-mib", type=_positive, metavar="MIB", help="memory of the card (the recipe's budget)"
    )
    parser.add_argument(
        "--length", type=_positive, metavar="TOKENS", help="longest row (the recipe's max_length)"
    )
    parser.add_argument(
        "--supervised",
        type=_positive,
        metavar="TOKENS",
        help="most tokens of a row that have a loss (all of them)",
    )
    return run(parser, _plan, argv)


def _plan(arguments: argparse.Namespace, console: Console) -> Done:
    from palmswift.plan.fit import plan_recipe  # pydantic's 0.2 s are not for --help
    from palmswift.recipes.load import load_checked

    recipe = load_checked(arguments.recipe, arguments.set).recipe
    plan = plan_recipe(
        recipe,
        gpu_mib=arguments.gpu_mib,
        length=arguments.length,
        supervised=arguments.supervised,
    )
    if plan.fits is None:
        raise InputError(
            f"the memory of {plan.recipe} cannot be predicted: {plan.remark}",
            remedy="train with it and watch the peak, or change what is named",
        )
    console.say(report(plan))
    return Done(plan.model_dump(mode="json"), 0 if plan.fits else 1)


def report(plan: Plan) -> str:
    """The plan as lines of text."""
    from palmswift.plan.fit import CONTEXT_MIB, FRAGMENTATION

    if plan.device == "cpu":
        return f"{plan.recipe}: {plan.remark}"
    counted = "all supervised" if plan.supervised is None else f"{plan.supervised} supervised"
    lines = [
        f"{plan.recipe}: {plan.model}, rows of {plan.length} tokens, {counted}",
        "",
        "standing (MiB, predicted)",
        *(f"  {name:<22}{size:>7}" for name, size in plan.terms_mib["standing"].items()),
        "",
        "peak by phase (MiB, predicted)",
    ]
    for phase, size in plan.phases_mib.items():
        mark = "  <- the highest" if phase == plan.limiting_phase else ""
        lines.append(f"  {phase:<22}{size:>7}{mark}")
    lines += [
        "",
        f"{plan.limiting_phase}: "
        + ", ".join(f"{name} {mib}" for name, mib in plan.terms_mib[plan.limiting_phase].items()),
        f"card {plan.gpu_mib} MiB, usable {plan.usable_mib} (less {CONTEXT_MIB} for the context,"
        f" {FRAGMENTATION:.0%} for fragmentation)",
    ]
    if plan.measured_peak_mib is not None:
        lines.append(f"measured peak {plan.measured_peak_mib} MiB")
    verdict = "fits" if plan.fits else "DOES NOT FIT"
    spare = plan.usable_mib - plan.peak_mib
    lines.append(f"{verdict}: peak {plan.peak_mib} MiB predicted, {spare:+d} MiB to spare")
    lines.append(_length_line(plan))
    return "\n".join(lines)


def _length_line(plan: Plan) -> str:
    if plan.longest_length == 0:
        return "no length fits: take a smaller rank, an 8-bit optimizer or a smaller model"
    return f"longest row that fits: {plan.longest_length} tokens (predicted)"


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number above 0")
    return int(text)
