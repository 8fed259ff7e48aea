"""The command that makes a suite of a run's held-out rows, or of any file of conversations."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from palmswift.command import Console, Done, make_parser, run
from palmswift.data.read import read_rows
from palmswift.data.row import Rejection
from palmswift.errors import InputError
from palmswift.eval.asking.conversation import Message, content_id, messages_of
from palmswift.eval.flags import whole
from palmswift.eval.judging.answer_files import (
    ANSWER_KEYS,
    QUESTION_KEYS,
    REFERENCE_KEYS,
    first_text,
)
from palmswift.eval.suites.suite import load_suite
from palmswift.files import write_text

TAG_COLUMNS = ("tags", "tag", "category", "topic", "label", "标签", "类别", "分类")
_NUMBERLIKE = re.compile(r"[-+.]?\d[\w.+-]*")
_NOT_TAGGED = "held_out"
_LONGEST_TAG = 40
_SHOWN = 3

_EXAMPLES = """
palmswift suite latest --out mine.yaml                  # of the rows that the last run held out
python eval/make_suite.py data/val.jsonl --out mine.yaml --name shop
python eval/make_suite.py data/val.jsonl --out mine.yaml --own-answers --max-cases 100
python eval/make_suite.py data/val.jsonl --out mine.yaml --demand similarity --min 0.6
"""


class Made(NamedTuple):
    """The cases of a file."""

    cases: list[dict[str, Any]]
    """As they are written."""
    system: str | None
    """The system prompt that all of them share."""
    rows: int
    left_out: list[str]
    """Rows without a case: where, and why."""
    merged: int
    """Rows that asked what another asks: their answers are further references of one case."""


def main(argv: Sequence[str] | None = None) -> int:
    """Write the suite; 0 done, 2 there is no run or no row that can be asked."""
    parser = make_parser(
        "eval/make_suite.py",
        "Make a suite of a run's held-out rows, or of a file of conversations: the last answer is\n"
        "the reference, what stands before it is asked. Questions that stand there twice become\n"
        "one case with several references. Edit the file afterwards: it is yours.",
        _EXAMPLES,
    )
    parser.add_argument(
        "source", metavar="RUN|FILE", help="a run (a folder, its name, `latest`), or .jsonl/.json"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="YAML")
    parser.add_argument("--name", help="the suite's name; default: that of the run or file")
    parser.add_argument(
        "--tag-from",
        metavar="COLUMN",
        help=f"the column that gives tags; default: the first of {', '.join(TAG_COLUMNS[:4])} …",
    )
    parser.add_argument("--max-cases", type=whole, metavar="N", help="the first N only")
    parser.add_argument("--repeats", type=whole, default=1, metavar="N", help="ask each N times")
    parser.add_argument(
        "--own-answers",
        action="store_true",
        help="of a longer conversation ask every turn, each after the model's own answers",
    )
    parser.add_argument(
        "--demand",
        choices=("none", "exact", "similarity", "rouge_l"),
        default="none",
        help="what every answer is held to; none: it is measured, not judged",
    )
    parser.add_argument(
        "--min", type=float, metavar="X", help="of similarity (0 to 1; 0.6) or rouge_l (0-100; 50)"
    )
    parser.add_argument("--force", action="store_true", help="replace the file that is there")
    return run(parser, _body, argv)


def _body(args: argparse.Namespace, console: Console) -> Done:
    if args.out.exists() and not args.force:
        raise InputError(f"{args.out}: is there already", remedy="another --out, or --force")
    path, name = find_rows(args.source)
    made = cases_of_file(path, args.tag_from, own_answers=args.own_answers)
    if not made.cases:
        raise InputError(
            f"{path}: no row gives a case"
            + "".join(f"\n  {why}" for why in made.left_out[:_SHOWN]),
            remedy="rows have `messages` that end with an answer, or `question` and `answer`",
        )
    cases = made.cases[: args.max_cases]
    demand = _demand(args.demand, args.min)
    for case in cases:
        if args.repeats > 1:
            case["repeats"] = args.repeats
        for part in (case, *case.get("then", [])):
            if demand is not None:
                part["assertions"] = [demand]
    document: dict[str, Any] = {"name": args.name or name}
    document["description"] = f"Made of {path.name}: {len(cases)} of {made.rows} rows."
    if made.system is not None:
        document["system"] = made.system
    document |= {"cases": cases, "gates": [{"metric": "error_rate", "max": 0}]}
    write_text(args.out, suite_text(document))
    tags = load_suite(args.out).tags  # what was written is a suite
    console.say(f"{args.out}: {len(cases)} cases, tags: {', '.join(tags)}")
    if made.merged:
        console.say(f"{made.merged} rows asked the same as another: further references")
    if made.left_out:
        console.say(f"{len(made.left_out)} rows give no case: {made.left_out[0]}")
    console.say(f"try it: python eval/run.py --suite {args.out} --endpoint URL --out report")
    return Done(
        {
            "suite": str(args.out),
            "cases": len(cases),
            "rows": made.rows,
            "merged": made.merged,
            "left_out": made.left_out,
            "tags": tags,
        }
    )


def find_rows(source: str) -> tuple[Path, str]:
    """The file that is meant, and a name for its suite."""
    path = Path(source)
    if path.is_file():
        return path, path.stem
    from palmswift.launchers.run_folder import find_run

    folder = find_run(source)
    held_out = folder.data / "val.jsonl"
    if not held_out.is_file():
        raise InputError(
            f"{folder.path.name}: no row was held out",
            remedy="give a file, or train with --set data.val_ratio=0.1",
        )
    return held_out, folder.recipe.name


def cases_of_file(path: Path, tag_column: str | None = None, *, own_answers: bool = False) -> Made:
    """The cases of a file's rows, in order."""
    cases: dict[str, dict[str, Any]] = {}
    systems: set[str | None] = set()
    left_out: list[str] = []
    rows = merged = 0
    for row in read_rows(path):
        rows += 1
        if isinstance(row, Rejection):
            left_out.append(f"{row.place}: {row.detail}")
            continue
        try:
            case, system = _case(row.value, tag_column, own_answers)
        except ValueError as error:
            left_out.append(f"{row.place}: {error}")
            continue
        first = cases.setdefault(case["id"], case)
        systems.add(system)
        if first is not case:
            merged += 1
            known = [first["reference"], *first.get("references", [])]
            if case["reference"] not in known:
                first["references"] = [*first.get("references", []), case["reference"]]
            first["tags"] = list(dict.fromkeys([*first["tags"], *case["tags"]]))
    shared = systems.pop() if len(systems) == 1 else None
    for case in cases.values():
        _tidy(case, shared)
    return Made(list(cases.values()), shared, rows, left_out, merged)


def _case(row: Any, tag_column: str | None, own_answers: bool) -> tuple[dict[str, Any], str | None]:
    """A row's case, and its system prompt; ValueError says what the row lacks."""
    fields = row if isinstance(row, dict) else {}
    turns = fields.get("messages")
    if not isinstance(turns, list):
        question = first_text(fields, QUESTION_KEYS)
        answer = first_text(fields, (*REFERENCE_KEYS, *ANSWER_KEYS))
        if question is None or answer is None:
            raise ValueError("the row has neither `messages` nor `question` and `answer`")
        turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    messages = messages_of(turns)
    system = messages[0].content if messages and messages[0].role == "system" else None
    if len(messages) < 2 or messages[-1].role != "assistant" or messages[-2].role != "user":
        raise ValueError("it does not end with a question and its answer")
    tags = _tags(fields, tag_column)
    if own_answers and _alternates(messages):
        return _dialogue(messages, tags), system
    asked = messages[:-1]
    return {
        "id": content_id([message.model_dump() for message in asked]),
        "messages": asked,
        "reference": messages[-1].content,
        "tags": tags,
    }, system


def _alternates(messages: Sequence[Message]) -> bool:
    """Whether it has several questions, each with its answer."""
    talk = [m.role for m in messages if m.role != "system"]
    return len(talk) > 2 and talk == ["user", "assistant"] * (len(talk) // 2)


def _dialogue(messages: Sequence[Message], tags: list[str]) -> dict[str, Any]:
    """A conversation in which every question is asked, after the model's own answers."""
    opening = [m for m in messages if m.role == "system"]
    talk = [m.content for m in messages if m.role != "system"]
    pairs = list(zip(talk[::2], talk[1::2], strict=True))
    then = [{"question": question, "reference": answer} for question, answer in pairs[1:]]
    return {
        "id": content_id([*(m.model_dump() for m in opening), *[q for q, _ in pairs]]),
        "messages": [*opening, Message(role="user", content=pairs[0][0])],
        "reference": pairs[0][1],
        "tags": tags,
        "then": then,
    }


def _tags(row: dict[str, Any], column: str | None) -> list[str]:
    """What the row says of itself in its column of tags."""
    for name in [column] if column is not None else TAG_COLUMNS:
        value = row.get(name)
        found = value if isinstance(value, list) else [value]
        tags = [str(item).strip() for item in found if isinstance(item, str | int) and item != ""]
        tags = [tag for tag in tags if tag and len(tag) <= _LONGEST_TAG]
        if tags:
            return list(dict.fromkeys(tags))
    return [_NOT_TAGGED]


def _tidy(case: dict[str, Any], system: str | None) -> None:
    """Leave the shared system prompt out, and write a lone question as such."""
    messages = list(case.pop("messages"))
    if system is not None:
        messages = messages[1:]
    if len(messages) == 1:
        case["question"] = messages[0].content
    else:
        case["messages"] = [message.model_dump() for message in messages]
    order = ("id", "question", "messages", "reference", "references", "tags", "then")
    tidy = {name: case[name] for name in order if name in case}
    case.clear()
    case.update(tidy)


def _demand(kind: str, least: float | None) -> dict[str, Any] | None:
    if kind == "none":
        return None
    if kind == "exact":
        return {"kind": "exact"}
    if kind == "similarity":
        return {"kind": "similarity", "min": 0.6 if least is None else least}
    return {"kind": "metric", "name": "rouge_l", "min": 50.0 if least is None else least}


class _Plain(yaml.SafeDumper):
    """Writes what stands in several places in each of them; aliases are not read again."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_str(self, data: str) -> yaml.ScalarNode:
        """What could be taken for a number (1e5, 46344e73) by YAML 1.2 is quoted."""
        style = '"' if _NUMBERLIKE.fullmatch(data) else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Plain.add_representer(str, _Plain.represent_str)


def suite_text(document: dict[str, Any]) -> str:
    """A suite as YAML, with the line by which editors find its schema."""
    text = yaml.dump(document, Dumper=_Plain, allow_unicode=True, sort_keys=False, width=100)
    return f"# yaml-language-server: $schema=suite.schema.json\n{text}"


if __name__ == "__main__":
    raise SystemExit(main())
