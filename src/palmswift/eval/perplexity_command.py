"""The command that takes texts' losses under one model, or compares two models by them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from palmswift.command import Console, Done, make_parser, run
from palmswift.errors import InputError
from palmswift.eval.flags import (
    add_asking_flags,
    add_endpoint_flags,
    endpoints_of,
    policy_of,
    positive,
)
from palmswift.eval.measures.drift import Drift, GeneralText, drift, general_text, segments
from palmswift.eval.measures.perplexity import Losses, Passage, from_model, through_endpoint
from palmswift.eval.suites.suite import load_suite
from palmswift.files import write_json

_WORDS = {
    "forgetting": "FORGETTING: general text has become clearly less likely",
    "no_forgetting": "no forgetting shown: general text is about as likely as before",
    "undecided": "undecided: the interval holds both; more or longer texts would tell",
}

_EXAMPLES = """
python eval/perplexity.py --endpoint base=URL --endpoint tuned=URL         # forgetting alarm
python eval/perplexity.py --endpoint tuned=URL --suite S.yaml              # of a suite's references
python eval/perplexity.py --folder base=models/b --folder tuned=runs/r/export --out drift.json
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 0 done, 1 forgetting, 2 wrong input, 3 a model does not answer."""
    parser = make_parser(
        "eval/perplexity.py",
        "How likely models find texts as their own answers, through the chat template: nats per\n"
        "token, bits per byte. Without --suite the texts are general passages in Chinese and\n"
        "English; of two models the first is the base, and when they have become less likely\n"
        "under the second, it forgets. Needs a server with /tokenize and prompt_logprobs or echo\n"
        "(vLLM), swift deploy with vLLM, or the models' folders.",
        _EXAMPLES,
    )
    add_endpoint_flags(parser, several=True)
    parser.add_argument(
        "--folder", action="append", default=[], metavar="LABEL=DIR", help="a model on this disk"
    )
    parser.add_argument("--suite", type=Path, metavar="YAML", help="the references of its cases")
    parser.add_argument("--texts", type=Path, metavar="JSONL", help="of id, prompt, text, tags")
    parser.add_argument("--work", type=Path, metavar="DIR", help="keep replies there, to go on")
    parser.add_argument("--out", type=Path, metavar="JSON", help="write all numbers there")
    parser.add_argument("--timeout", type=positive, default=600.0, metavar="SECONDS")
    add_asking_flags(parser)
    return run(parser, _body, argv)


def _body(args: argparse.Namespace, console: Console) -> Done:
    if args.suite is not None and args.texts is not None:
        raise InputError("--suite and --texts: one of them")
    text = _of_suite(args.suite) if args.suite is not None else general_text(args.texts)
    found = _measured(args, text.passages, console)
    for losses in found:
        _print(losses, console)
    usable = [losses for losses in found if losses.way is not None]
    document: dict[str, Any] = {"models": [_document(losses) for losses in found]}
    code = 0
    if len(found) == 2 and len(usable) == 2:
        both = segments(usable[0], usable[1], text.tags)
        changes = drift(both)
        for change in changes:
            console.say(_line(change))
        if args.suite is None and changes:
            console.say(_WORDS[changes[0].verdict])
            code = int(changes[0].verdict == "forgetting")
        document["drift"] = [change.model_dump() for change in changes]
        document["segments"] = [segment.model_dump() for segment in both]
    elif len(usable) < len(found):
        code = 3
    if args.out is not None:
        write_json(args.out, document)
        console.say(f"numbers: {args.out}")
    return Done(document, code)


def _of_suite(path: Path) -> GeneralText:
    """A suite's references as passages; what follows a model's own answer has no fixed prompt."""
    cases = [c for c in load_suite(path).cases if c.reference and c.after is None]
    if not cases:
        raise InputError(f"{path}: no case has a reference")
    passages = [Passage(case.id, case.conversation(), case.reference or "") for case in cases]
    return GeneralText(passages, {case.id: case.tags for case in cases})


def _measured(
    args: argparse.Namespace, passages: Sequence[Passage], console: Console
) -> list[Losses]:
    import tempfile

    folders = [_folder(word) for word in args.folder]
    endpoints = endpoints_of(args, args.endpoint, "model")
    if not folders and not endpoints:
        raise InputError("no model", remedy="--endpoint [LABEL=]URL or --folder LABEL=DIR")
    with tempfile.TemporaryDirectory() as temporary:
        work = args.work or Path(temporary)
        found = [
            through_endpoint(
                endpoint,
                passages,
                work / "losses.jsonl",
                policy_of(args),
                concurrency=args.concurrency,
                note=console.note,
            )
            for endpoint in endpoints
        ]
    return found + [from_model(path, passages, label) for label, path in folders]


def _folder(word: str) -> tuple[str, Path]:
    label, sign, path = word.partition("=")
    if not sign:
        label, path = Path(word).name, word
    if not (Path(path) / "config.json").is_file():
        raise InputError(f"{path}: no model there", remedy="a folder with config.json and weights")
    return label, Path(path)


def _print(losses: Losses, console: Console) -> None:
    total = losses.total
    if total is None:
        console.say(f"{losses.label}: unsupported: {losses.reason or 'no text has a loss'}")
        console.say(f"  its weights tell it as well: --folder {losses.label}=DIR")
        return
    console.say(
        f"{losses.label}: {total.nats_per_token:.4f} nats/token, "
        f"{total.bits_per_byte:.4f} bits/byte, perplexity {total.perplexity:.2f} "
        f"({len(losses.losses)} texts, {losses.way})"
    )
    for name, why in list(losses.failed.items())[:3]:
        console.say(f"  no loss of {name}: {why}")


def _line(change: Drift) -> str:
    span = "" if change.low is None else f" [{change.low:+.4f}, {change.high:+.4f}]"
    name = change.tag or "all"
    return f"{name}: {change.change:+.4f} bits/byte{span} over {change.n} texts"


def _document(losses: Losses) -> dict[str, Any]:
    total = losses.total
    numbers = {}
    if total is not None:
        numbers = {
            "nats_per_token": total.nats_per_token,
            "bits_per_byte": total.bits_per_byte,
            "perplexity": total.perplexity,
        }
    return {**losses.model_dump(), **numbers}


if __name__ == "__main__":
    raise SystemExit(main())
