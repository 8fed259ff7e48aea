"""The `runs` command: list, show, compare, follow, clean up and repeat runs."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from palmswift.command import Console, Done, make_parser, run
from palmswift.errors import ChildError, InputError

if TYPE_CHECKING:
    from palmswift.launchers.reproduce import Original
    from palmswift.launchers.run_folder import RunFolder
    from palmswift.launchers.run_list import RunLine

_EXAMPLES = """
python launchers/runs.py list
python launchers/runs.py show latest
python launchers/runs.py compare demo_cpu-20261124-150309 latest
python launchers/runs.py tail latest
python launchers/runs.py clean
python launchers/runs.py clean --yes
python launchers/runs.py reproduce latest --dry-run
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; its exit code."""
    parser = make_parser(
        "runs.py", "List, show, compare, follow, clean up and repeat runs.", _EXAMPLES
    )
    words = parser.add_subparsers(dest="word", required=True, metavar="WORD")
    words.add_parser("list", parents=[_json()], help="all runs: state, steps, loss, time, size")
    show = words.add_parser("show", parents=[_json()], help="what a run was and came to")
    compare = words.add_parser("compare", parents=[_json()], help="how two runs differ")
    tail = words.add_parser("tail", parents=[_json()], help="follow a run that is going on")
    clean = words.add_parser("clean", parents=[_json()], help="delete what nobody needs again")
    again = words.add_parser("reproduce", parents=[_json()], help="repeat a run, checked first")
    for parser_of_run in (show, tail):
        parser_of_run.add_argument("run", help="`latest`, a name under runs/, or a folder")
    compare.add_argument("first", help="`latest`, a name under runs/, or a folder")
    compare.add_argument("second", help="another one")
    tail.add_argument(
        "--only", choices=("events", "log"), help="the events alone, or the child's output alone"
    )
    clean.add_argument(
        "runs", nargs="*", metavar="RUN", help="runs to delete wholly; without any, see below"
    )
    clean.add_argument("--yes", action="store_true", help="delete; without it nothing is")
    again.add_argument("run", help="`latest`, a name under runs/, a folder, or a kept run.json")
    again.add_argument(
        "--data", action="append", default=[], metavar="FILE", help="where the rows lie now"
    )
    again.add_argument(
        "--val", action="append", default=[], metavar="FILE", help="where validation rows lie now"
    )
    again.add_argument("--force", action="store_true", help="start although something differs")
    again.add_argument("--dry-run", action="store_true", help="say what differs; start nothing")
    clean.description = (
        "Says what can go: checkpoints that are neither the best nor the last, in finished runs "
        "what only resuming reads, and runs that ended without a checkpoint. --yes deletes it. A "
        "run that is going on is never touched."
    )
    return run(parser, _choose, argv)


def _json() -> argparse.ArgumentParser:
    """`--json` after the word as well as before it."""
    parent = argparse.ArgumentParser(add_help=False)
    parent.add_argument("--json", action="store_true", default=argparse.SUPPRESS)
    return parent


def _choose(args: argparse.Namespace, console: Console) -> Done:
    words: dict[str, Callable[[argparse.Namespace, Console], Done]] = {
        "list": _list,
        "show": _show,
        "compare": _compare,
        "tail": _tail,
        "clean": _clean,
        "reproduce": _reproduce,
    }
    return words[args.word](args, console)


def _list(args: argparse.Namespace, console: Console) -> Done:
    from palmswift.launchers.run_list import list_runs
    from palmswift.paths import runs_dir

    lines = list_runs()
    if not lines:
        console.note(f"there is no run under {runs_dir()} yet")
    table = [("run", "state", "steps", "loss", "eval", "time", "size")]
    table += [_cells(line) for line in lines]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table if lines else []:
        left = [cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True)]
        right = [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
        console.say("  ".join([*left, *right]).rstrip())
    for line in lines:
        if line.job is not None and line.state != "done":
            console.note(f"{line.run}: {line.job}")
        if line.state in ("failed", "damaged") and line.remark:
            console.note(f"{line.run}: {line.remark}")
        elif line.state in ("died", "interrupted"):
            console.note(f"{line.run}: python launchers/train.py --resume {line.run} goes on")
    return Done({"runs": [line.model_dump(mode="json") for line in lines]})


def _cells(line: RunLine) -> tuple[str, str, str, str, str, str, str]:
    from palmswift.launchers.event_text import duration
    from palmswift.launchers.run_list import size_words

    at = f" ({line.stage})" if line.state not in ("done", "damaged") and line.stage else ""
    return (
        line.run,
        line.state + at,
        "-" if line.steps is None else str(line.steps),
        "-" if line.loss is None else f"{line.loss:.4g}",
        "-" if line.eval_loss is None else f"{line.eval_loss:.4g}",
        "-" if line.seconds is None else duration(line.seconds),
        size_words(line.bytes),
    )


def _show(args: argparse.Namespace, console: Console) -> Done:
    from palmswift.launchers.run_folder import find_run
    from palmswift.launchers.run_list import line_of
    from palmswift.launchers.run_show import show_lines

    folder = find_run(args.run)
    line = line_of(folder.path)
    for label, text in show_lines(folder, line):
        console.say(f"{label:<10} {text}".rstrip())
    return Done(
        {**line.model_dump(mode="json"), "state_file": folder.state.model_dump(mode="json")}
    )


def _compare(args: argparse.Namespace, console: Console) -> Done:
    from palmswift.launchers.run_compare import compare
    from palmswift.launchers.run_folder import find_run

    first, second = find_run(args.first), find_run(args.second)
    found = compare(first, second)
    console.say(f"{first.path.name} -> {second.path.name}")
    part = ""
    for difference in found:
        if difference.part != part:
            part = difference.part
            console.say(part)
        console.say(f"  {difference}")
    if not found:
        console.say("nothing differs")
    return Done(
        {
            "first": first.path.name,
            "second": second.path.name,
            "differences": [difference._asdict() for difference in found],
        }
    )


def _tail(args: argparse.Namespace, console: Console) -> Done:
    from palmswift.launchers.run_folder import find_run
    from palmswift.launchers.run_list import line_of
    from palmswift.launchers.run_tail import follow

    path = find_run(args.run).path
    for text in follow(path, events=args.only != "log", log=args.only != "events"):
        console.say(text)
    line = line_of(path)
    console.say(f"{path.name} is {line.state}" + (f": {line.remark}" if line.remark else ""))
    return Done(line.model_dump(mode="json"))


def _clean(args: argparse.Namespace, console: Console) -> Done:
    from palmswift.launchers.run_clean import delete, superfluous, whole_run
    from palmswift.launchers.run_list import size_words
    from palmswift.paths import runs_dir

    if args.runs:
        items = [whole_run(path) for path in dict.fromkeys(map(_named, args.runs))]
    else:
        folders = sorted(file.parent for file in runs_dir().glob("*/run.json"))
        items = [item for folder in folders for item in superfluous(folder)]
    total = sum(item.bytes for item in items)
    for item in items:
        inside = os.path.relpath(item.path, runs_dir())
        where = str(item.path) if inside.startswith("..") else inside
        console.say(f"{size_words(item.bytes):>8}  {where}  ({item.why})")
    if args.yes:
        delete(items)
    freed = "freed" if args.yes else "would be freed; --yes deletes them"
    console.say(f"{size_words(total)} in {len(items)} places {freed}" if items else "nothing to do")
    rows = [{**item._asdict(), "path": str(item.path)} for item in items]
    return Done({"items": rows, "bytes": total, "deleted": args.yes})


def _named(name: str) -> Path:
    """The folder of a run that may be damaged. `latest` is no name to delete by."""
    from palmswift.files import is_file
    from palmswift.launchers.run_folder import find_run
    from palmswift.paths import runs_dir, user_path

    if name == "latest":
        raise InputError("`latest` may be another run than you think", remedy="name the run")
    for path in (user_path(name), runs_dir() / name):
        if is_file(path / "run.json"):
            return path.resolve()
    return find_run(name).path  # which says which there are


def _reproduce(args: argparse.Namespace, console: Console) -> Done:
    from palmswift.launchers.reproduce import (
        original,
        refuse,
        results_compared,
        was_recovered,
        what_differs,
        with_moved_data,
    )

    found = with_moved_data(original(args.run), args.data, args.val)
    differences = what_differs(found)
    document: dict[str, Any] = {
        "reproduces": found.name,
        "differences": [difference._asdict() for difference in differences],
    }
    if not args.force:
        refuse(found, differences)
    for difference in differences:
        console.note(f"differs  {difference.part} {difference}")
    document["recovered"] = was_recovered(found)
    if document["recovered"]:
        changes = ", ".join(document["recovered"])
        console.note(
            f"note     {found.name} ran out of memory on its way and went on with {changes}; the "
            "repetition begins as the recipe says, and is changed again if it must be"
        )
    if args.dry_run:
        console.say(
            f"{found.name} can be repeated here: data, model, code, versions and hardware are as "
            f"they were"
            if not differences
            else f"{found.name} would be repeated although {len(differences)} things differ"
        )
        return Done(document)
    folder, came_of_it = _launched_again(found, console, force=args.force)
    document["run"] = str(folder.path)
    if isinstance(came_of_it, dict):
        compare = f"python launchers/runs.py compare {found.name} {folder.path.name}"
        console.say(f"compare  once it has ended: {compare}")
        return Done({**came_of_it, **document})
    console.say(f"trained  {came_of_it}")
    document["results"] = results_compared(found.state, folder)
    for line in document["results"]:
        console.say(line)
    return Done(document)


def _launched_again(
    found: Original, console: Console, *, force: bool
) -> tuple[RunFolder, Path | dict[str, Any]]:
    """The new run, and its checkpoint, or what is told where none comes of it here."""
    from palmswift.launchers.run_folder import RunFolder
    from palmswift.launchers.train import launch
    from palmswift.launchers.training import preflight, write_plan
    from palmswift.paths import runs_dir

    overrides = found.state.overrides
    preflight(found.recipe, runs_dir(), force=force, overrides=overrides)
    folder = RunFolder.create(found.recipe, overrides=overrides, reproduces=found.name)
    write_plan(folder)
    try:
        return folder, launch(folder, console)
    except ChildError as error:
        raise ChildError(
            f"{found.name} did not come to its end this time: {error.summary}",
            error.problems,
            remedy=error.remedy,
        ) from error


if __name__ == "__main__":
    raise SystemExit(main())
