"""`plan`: tells before anything is downloaded whether a recipe fits the GPU."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from palmswift.command import Console, Done, make_parser, run
from palmswift.errors import GateError, InputError

if TYPE_CHECKING:
    from palmswift.plan.fit import Conditions, Plan
    from palmswift.recipes.recipe import Recipe

_EXAMPLES = """
python launchers/plan.py --recipe qwen3_8b_4bit
python launchers/plan.py --recipe qwen3_8b_4bit --gpu-mib 12288 --length 4096
python launchers/plan.py --recipe qwen3_8b_4bit --set swift.lora_rank=64 --fit --out my.yaml
python launchers/plan.py --recipe qwen3_8b_4bit --data-report runs/NAME
python launchers/plan.py --recipe qwen3_4b_4bit --supervised 256 --json
python launchers/plan.py --recipe qwen3_8b_4bit --serve
python launchers/plan.py --recipe qwen3_8b_4bit --serve --backend vllm --weights awq --parallel 2
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
        "--card", metavar="NAME", help="a card by name, such as 'RTX 4060', for memory and speed"
    )
    parser.add_argument(
        "--headless", action="store_true", help="no desktop takes its share of the card"
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
    parser.add_argument(
        "--data-report",
        metavar="PATH",
        help="a run, or data/report.json: plan for the rows as they are, not for the worst case",
    )
    parser.add_argument(
        "--fit", action="store_true", help="change what is needed until it fits, quality last"
    )
    parser.add_argument("--out", metavar="FILE", help="write the recipe that --fit found")
    parser.add_argument(
        "--serve", action="store_true", help="plan the server of the result, not its training"
    )
    parser.add_argument(
        "--backend",
        metavar="NAME",
        help="with --serve: transformers, vllm or llama.cpp (the recipe's)",
    )
    parser.add_argument(
        "--weights",
        metavar="KIND",
        help="with --serve: bf16, bnb-4bit, awq, fp8, q8_0, q4_k_m ... (as trained)",
    )
    parser.add_argument(
        "--parallel",
        type=_positive,
        metavar="N",
        help="with --serve: requests at a time that have to fit (as many as do)",
    )
    return run(parser, _body, argv)


def _body(arguments: argparse.Namespace, console: Console) -> Done:
    from palmswift.plan.cards import card_called
    from palmswift.plan.fit import plan_under  # pydantic's 0.2 s are not for --help
    from palmswift.plan.report import plan_text
    from palmswift.recipes.load import load_checked

    if arguments.out and not arguments.fit:
        raise InputError("--out is where --fit writes its recipe", remedy="add --fit")
    recipe = load_checked(arguments.recipe, arguments.set).recipe
    conditions = _conditions(arguments, recipe)
    if arguments.serve:
        return _serve(arguments, recipe, conditions, console)
    if arguments.backend or arguments.weights or arguments.parallel:
        what = "--backend, --weights and --parallel are of a server"
        raise InputError(what, remedy="add --serve")
    if arguments.fit and recipe.needs_gpu:
        return _fit(arguments, recipe, conditions, console)
    if arguments.fit:
        raise InputError(f"{recipe.name} runs on the CPU: there is no card to fit")
    card = card_called(arguments.card) if arguments.card else None
    plan = plan_under(recipe, conditions, card)
    _require_prediction(plan)
    console.say(plan_text(plan, arguments.set))
    return Done(plan.model_dump(mode="json"), 0 if plan.fits else 1)


def _conditions(arguments: argparse.Namespace, recipe: Recipe) -> Conditions:
    from palmswift.plan.cards import CARDS, DESKTOP_MIB, card_called
    from palmswift.plan.fit import Conditions
    from palmswift.plan.lengths import read_lengths

    gpu_mib = arguments.gpu_mib
    if arguments.card:
        card = card_called(arguments.card)
        if card is None:
            known = ", ".join(card.name for card in CARDS)
            raise InputError(
                f"no data of a card called {arguments.card!r}",
                remedy=f"--gpu-mib N, or one of: {known}",
            )
        gpu_mib = gpu_mib or card.mib
    return Conditions(
        gpu_mib=gpu_mib or recipe.budget.gpu_mib,
        desktop_mib=0 if arguments.headless else DESKTOP_MIB,
        length=arguments.length,
        supervised=arguments.supervised,
        lengths=read_lengths(arguments.data_report) if arguments.data_report else None,
    )


def _fit(
    arguments: argparse.Namespace, recipe: Recipe, conditions: Conditions, console: Console
) -> Done:
    from palmswift.plan.cards import card_called
    from palmswift.plan.fit import plan_under
    from palmswift.plan.report import changes_text, plan_text
    from palmswift.plan.search import fit, recipe_yaml

    before = plan_under(recipe, conditions)
    _require_prediction(before)
    fitted = fit(recipe, conditions)
    if fitted is None:
        raise GateError(
            f"nothing that is known makes {recipe.name} fit {conditions.gpu_mib} MiB: its peak is"
            f" {before.peak_mib} MiB, and the card gives {before.usable_mib}",
            remedy="a larger card, or a recipe with a smaller model",
        )
    made_by = f"palmswift plan --recipe {recipe.name} --gpu-mib {before.gpu_mib} --fit"
    name = Path(arguments.out).stem if arguments.out else f"{recipe.name}_fitted"
    text = recipe_yaml(fitted, made_by, name)
    if arguments.out:
        _write(Path(arguments.out), text)
    card = card_called(arguments.card) if arguments.card else None
    plan = plan_under(fitted.recipe, conditions.model_copy(update={"length": None}), card)
    console.say(plan_text(plan))
    console.say()
    console.say(changes_text(fitted.changes))
    console.say()
    if arguments.out:
        console.say(f"wrote {arguments.out}; train it: --recipe {arguments.out}")
    else:
        console.say(text.rstrip())
    document = {
        "plan": plan.model_dump(mode="json"),
        "before": before.model_dump(mode="json"),
        "changes": [change.model_dump(mode="json") for change in fitted.changes],
        "recipe": text,
        "out": arguments.out,
    }
    return Done(document)


def _serve(
    arguments: argparse.Namespace, recipe: Recipe, conditions: Conditions, console: Console
) -> Done:
    from palmswift.plan.serving import ServingConditions, plan_serving
    from palmswift.plan.serving_text import commands_of, serving_text, ways_of, ways_text

    if not recipe.needs_gpu:
        raise InputError(f"{recipe.name} runs on the CPU: no GPU memory is needed")
    asked = ServingConditions(
        gpu_mib=conditions.gpu_mib,
        desktop_mib=conditions.desktop_mib,
        context=conditions.length,
        parallel=arguments.parallel,
    )
    chosen = asked._replace(backend=arguments.backend, weights=arguments.weights)
    plan, ways = plan_serving(recipe, chosen), ways_of(recipe, asked)
    console.say(serving_text(plan))
    console.say()
    console.say(ways_text(ways))
    document = {
        "plan": plan.model_dump(mode="json"),
        "settings": plan.settings,
        "commands": commands_of(plan) if plan.fits else [],
        "ways": [way.model_dump(mode="json") for way in ways if way is not None],
    }
    return Done(document, 0 if plan.fits else 1)


def _write(path: Path, text: str) -> None:
    from palmswift.files import write_text

    if path.suffix not in (".yaml", ".yml") or not path.stem.replace("-", "_").isidentifier():
        raise InputError(
            f"{path} cannot be a recipe's file: its name is the recipe's, of letters and digits",
            remedy="--out my_recipe.yaml",
        )
    if path.exists():
        raise InputError(f"{path} is there already", remedy="name another file")
    write_text(path, text)


def _require_prediction(plan: Plan) -> None:
    if plan.fits is None:
        raise InputError(
            f"the memory of {plan.recipe} cannot be predicted: {plan.remark}",
            remedy="train with it and watch the peak, or change what is named",
        )


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number above 0")
    return int(text)
