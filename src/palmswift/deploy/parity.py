"""The `parity` command: whether the model that answers is the model that was trained."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from palmswift.command import Console, Done, make_parser, run

if TYPE_CHECKING:
    from palmswift.deploy.parity_judge import Compared, Limits, ParityReport
    from palmswift.deploy.parity_probe import Said
    from palmswift.deploy.parity_truth import Expected, Truth
    from palmswift.recipes.recipe import Recipe

EXAMPLES = """
python deploy/parity.py --run latest
python deploy/parity.py --run latest --against http://127.0.0.1:8000
python deploy/parity.py --run latest --against http://127.0.0.1:8000 --model my-lora --json
python deploy/parity.py --run latest --prepare
"""


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(
        "parity.py",
        "Compare a server with the training: the tokens of each prompt, the greedy answers, and "
        "their probabilities. Exit code 1 when it is not the trained model.",
        EXAMPLES,
    )
    parser.add_argument(
        "--run", default="latest", metavar="RUN", help="`latest`, a run's name, or its folder"
    )
    parser.add_argument(
        "--against", metavar="URL", help="the server (default: the run's own on its recipe's port)"
    )
    parser.add_argument("--model", metavar="NAME", help="the name that the server knows it by")
    parser.add_argument(
        "--prepare",
        action="store_true",
        help="only ask the trained model, while the card is free; a later call compares",
    )
    parser.add_argument(
        "--rows", type=int, metavar="N", help="prompts taken from the run's rows (8)"
    )
    parser.add_argument("--max-tokens", type=int, metavar="N", help="tokens of each answer (48)")
    parser.add_argument(
        "--max-divergence",
        type=float,
        metavar="NATS",
        help="mean difference of log-probabilities that still counts as the same (0.05)",
    )
    parser.add_argument(
        "--tie",
        type=float,
        metavar="NATS",
        help="distance of the two likeliest tokens under which rounding may decide (0.1 in "
        "float32, 0.5 in 16 bits)",
    )
    return parser


def base_url(address: str) -> str:
    """The address with `/v1`, whichever way it was written."""
    whole = address if "://" in address else f"http://{address}"
    return f"{whole.rstrip('/').removesuffix('/v1')}/v1"


def limits_of(recipe: Recipe) -> Limits:
    """What counts as the same for weights of the recipe's type.

    A bfloat16 number between 16 and 32, as logits are, is 0.125 from the next; two backends may
    round a few of these apart.
    """
    from palmswift.deploy.parity_judge import Limits

    exact = recipe.swift.get("torch_dtype") == "float32"
    return Limits(tie=0.1 if exact else 0.5, divergence=0.05)


def decoder(truth: Truth) -> Callable[[Sequence[int]], str]:
    """Text of tokens, special ones shown."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(Path(truth.tokenizer) / "tokenizer.json"))
    return lambda ids: str(tokenizer.decode([*ids], skip_special_tokens=False))


def compare(
    truth: Truth, run_name: str, address: str, model: str | None, key: str | None, limits: Limits
) -> ParityReport:
    """Ask the server every prompt and judge; `ChildError` when it is not there."""
    from palmswift.deploy.parity_judge import in_doubt, judge, report
    from palmswift.deploy.parity_probe import Probe

    decode = decoder(truth)
    compared: list[Compared] = []
    tells = False
    with Probe(base_url(address), model, key) as probe:
        for expected in truth.expected:

            def doubted(said: Said, expected: Expected = expected) -> bool:
                return in_doubt(expected, said, truth, limits)

            seen = probe.observe(expected.prompt, truth.max_tokens, doubted)
            tells = tells or seen.plain.prompt_ids is not None
            compared.append(judge(expected, seen, truth, limits, decode))
    return report(run_name, probe.base_url, probe.model, truth, compared, tells_tokens=tells)


def lines(found: ParityReport, truth: Truth) -> list[str]:
    """The report for people."""
    from palmswift.deploy.parity_judge import CAUSES

    total = len(found.prompts)
    told = "tokens" if found.tells_tokens else "number of tokens (the server tells no more)"
    same = sum(one.prompt in ("same", "same_length") for one in found.prompts)
    answers = [one.answer for one in found.prompts]
    ties = f", {answers.count('tie')} more but for a close call" if "tie" in answers else ""
    said = [
        f"prompts   {same} of {total} have the {told} of the training",
        f"answers   {answers.count('same')} of {total} are the trained model's{ties}",
    ]
    if found.divergence is not None:
        said.append(f"weights   log-probabilities {found.divergence:.2g} nats a token apart")
    policy = "false" if _answers_at_once(truth) else "true"
    for cause, names in found.causes.items():
        what, remedy = CAUSES[cause]
        shown = next(one for one in found.prompts if one.cause == cause)
        said.append(f"{cause}: {what} ({len(names)} of {total} prompts)")
        said.append(f"  {shown.name}: {shown.detail}")
        said.append(f"  -> {remedy.format(thinking=policy, stop=truth.stop_ids)}")
    verdict = "the served model is the trained one" if found.passed else "NOT the trained model"
    return [*said, f"parity    {verdict}"]


def _answers_at_once(truth: Truth) -> bool:
    """Whether prompts end with a closed think block, so that the answer follows at once."""
    return any(
        name.startswith("thinking_on") and len(ids) < len(expected.prompt_ids)
        for expected in truth.expected
        for name, ids in expected.variants.items()
        if "system" not in name
    )


def _body(args: argparse.Namespace, console: Console) -> Done:
    import os

    from palmswift.deploy.keyed import KEY_VARIABLE
    from palmswift.deploy.parity_truth import MAX_TOKENS, ROWS, truth_of_run
    from palmswift.files import write_json
    from palmswift.launchers.run_folder import find_run

    _check(args)
    folder = find_run(args.run)
    console.note(f"run       {folder.path}")
    most = ROWS if args.rows is None else args.rows
    truth = truth_of_run(folder, most=most, max_tokens=args.max_tokens or MAX_TOKENS)
    if args.prepare:
        console.say(f"asked     {len(truth.expected)} prompts; compare with --against URL")
        return Done({"run": str(folder.path), "prompts": len(truth.expected)})
    address = args.against or f"127.0.0.1:{folder.recipe.deploy.port}"
    key = os.environ.get(KEY_VARIABLE) or None
    said = {"tie": args.tie, "divergence": args.max_divergence}
    limits = limits_of(folder.recipe)._replace(**{k: v for k, v in said.items() if v is not None})
    found = compare(truth, folder.path.name, address, args.model, key, limits)
    write_json(folder.path / "deploy" / "parity.json", found.model_dump(mode="json"))
    for line in lines(found, truth):
        console.say(line)
    return Done({**found.model_dump(mode="json"), "passed": found.passed}, 0 if found.passed else 1)


def _check(args: argparse.Namespace) -> None:
    """`InputError` for numbers that make no sense."""
    from palmswift.errors import InputError, Problem

    least = {"rows": 0, "max_tokens": 1, "max_divergence": 0, "tie": 0}
    problems = [
        Problem(f"must be at least {low}", f"--{name.replace('_', '-')}")
        for name, low in least.items()
        if (value := getattr(args, name)) is not None and not value >= low
    ]
    if problems:
        raise InputError("the comparison makes no sense this way", problems)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; its exit code."""
    return run(_parser(), _body, argv)
