"""The command by which people rate answers from 1 to 5 without knowing whose they are."""

from __future__ import annotations

import argparse
import getpass
import re
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from palmswift.command import Console, Done, make_parser, run
from palmswift.errors import InputError
from palmswift.eval.flags import whole
from palmswift.eval.judging.answer_files import read_candidates
from palmswift.eval.judging.judge_report import Coefficient
from palmswift.eval.judging.rating_sheet import (
    BlindAnswer,
    BlindRating,
    Sheet,
    SheetItem,
    blinded,
    make_sheet,
    opened,
    read_blind,
)
from palmswift.eval.judging.ratings import RatedAnswer, RatingFile, merge, read_ratings
from palmswift.eval.judging.rubrics import Language, Rubric, chosen, load_rubrics
from palmswift.eval.suites.suite import load_suite
from palmswift.files import write_json, write_text

_EXAMPLES = """
python eval/rate.py --predictions a.jsonl b.jsonl                      # here, in the terminal
python eval/rate.py --predictions P.jsonl --suite S.yaml --page rate.html    # a page to send round
python eval/rate.py --predictions P.jsonl --suite S.yaml --import ratings-anna.json
python eval/rate.py --merge anna.json ben.json                         # do the raters agree?
"""
_KEYS = "one digit a rubric, such as 4 5 3; s passes over, b goes back, q saves and leaves"


def main(argv: Sequence[str] | None = None) -> int:
    """Rate, make the page, or merge; 0 done, 2 there is nothing to rate, 130 interrupted."""
    parser = make_parser(
        "eval/rate.py",
        "Rate answers from 1 to 5 without knowing whose they are: cases and answers come in an\n"
        "order drawn from the seed, equal answers are shown once. In the terminal every rating is\n"
        "saved at once, and the same command goes on. --page makes one HTML file for raters who\n"
        "have a browser alone; what it saves is read back with --import.",
        _EXAMPLES,
    )
    parser.add_argument("--predictions", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--suite", type=Path, metavar="YAML", help="gives references and cases")
    parser.add_argument("--rubrics", type=Path, metavar="YAML", help="rubrics of your own")
    parser.add_argument("--rubric", action="append", metavar="NAME", help="this one only")
    parser.add_argument("--language", choices=("zh", "en"), default=None)
    parser.add_argument("--rater", help="your name; default: the user's")
    parser.add_argument("--seed", type=int, default=0, help="draws the order (0)")
    parser.add_argument("--max-cases", type=whole, metavar="N", help="N cases only")
    parser.add_argument("--page", type=Path, metavar="HTML", help="write the page, ask nothing")
    parser.add_argument(
        "--import", dest="imported", nargs="+", type=Path, metavar="JSON", help="what pages saved"
    )
    parser.add_argument("--merge", nargs="+", type=Path, metavar="JSON", help="raters' files")
    parser.add_argument("--out", type=Path, metavar="JSON", help="default: ratings-RATER.json")
    return run(parser, _body, argv)


def _body(args: argparse.Namespace, console: Console) -> Done:
    if args.merge:
        return _merged(args.merge, console)
    if not args.predictions:
        raise InputError("nothing to rate", remedy="--predictions FILE, or --merge for ratings")
    file = load_rubrics(args.rubrics)
    rubrics = chosen(file, args.rubric)
    suite = load_suite(args.suite) if args.suite is not None else None
    candidates = [c for path in args.predictions for c in read_candidates(path, suite)]
    sheet = make_sheet(candidates, args.seed, args.max_cases)
    if args.page is not None:
        from palmswift.eval.judging.rating_page import render

        write_text(args.page, render(sheet, rubrics, "Rate the answers · 给回答打分"))
        console.say(f"{args.page}: {len(sheet.items)} cases; send it to your raters")
        console.say("what it saves comes back with the same flags and --import FILE")
        return Done({"page": str(args.page), "cases": len(sheet.items), "sheet": sheet.id})
    if args.imported:
        return _imported(args, sheet, console)
    rater = args.rater or getpass.getuser()
    out = args.out or Path(f"ratings-{_file_name(rater)}.json")
    session = Session(sheet, rubrics, args.language or file.language, rater, out)
    done = session.run(console)
    console.say(f"{done} of {len(sheet.items)} cases are rated: {out}")
    return Done({"ratings": str(out), "rated": done, "cases": len(sheet.items)})


def _imported(args: argparse.Namespace, sheet: Sheet, console: Console) -> Done:
    """Turn what pages saved into raters' files."""
    written: list[str] = []
    for path in args.imported:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise InputError(f"{path}: not readable: {error.strerror}") from error
        blind = read_blind(data, str(path))
        if blind.seed != args.seed:
            raise InputError(
                f"{path}: its seed is {blind.seed}, not {args.seed}", remedy=f"--seed {blind.seed}"
            )
        file = opened(sheet, blind.answers, blind.rater, blind.saved_at)
        out = args.out if args.out and len(args.imported) == 1 else None
        out = out or path.with_name(f"{path.stem}.opened.json")
        write_json(out, file.model_dump(mode="json"))
        console.say(f"{blind.rater}: {len(blind.answers)} answers rated -> {out}")
        written.append(str(out))
    return Done({"ratings": written})


def _merged(paths: Sequence[Path], console: Console) -> Done:
    """Print what the raters gave and how far they agree."""
    files = [read_ratings(path) for path in paths]
    merged = merge(files)
    document: dict[str, Any] = {"raters": merged.raters, "rubrics": {}}
    console.say(f"raters: {', '.join(merged.raters)}")
    for rubric, answers in merged.by_rubric.items():
        by_endpoint: dict[str, list[float]] = {}
        for key, given in answers.items():
            by_endpoint.setdefault(key.endpoint, []).append(fmean(given.values()))
        alpha = Coefficient.of(merged.alpha(rubric))
        means = {name: fmean(values) for name, values in by_endpoint.items()}
        shown = ", ".join(f"{n} {means[n]:.2f} ({len(v)})" for n, v in by_endpoint.items())
        agrees = f"; Krippendorff's alpha {alpha}" if len(merged.raters) > 1 else ""
        console.say(f"{rubric}: {shown}{agrees}")
        document["rubrics"][rubric] = {"means": means, "alpha": alpha.model_dump()}
    return Done(document)


class _Left(Exception):
    """The rater has had enough for now."""


class _Turn(NamedTuple):
    """What the rater typed at one answer."""

    ratings: dict[str, int]
    step: int
    """-1: back a case; 0: rated; 1: pass over."""


class Session:
    """One rater at the terminal."""

    def __init__(
        self, sheet: Sheet, rubrics: Sequence[Rubric], language: Language, rater: str, out: Path
    ) -> None:
        self._sheet = sheet
        self._rubrics = rubrics
        self._language: Language = language
        self._rater = rater
        self._out = out
        self._rated: dict[str, BlindRating] = {}
        self._others: list[RatedAnswer] = []
        if out.is_file():
            file = read_ratings(out)
            if file.rater != rater:
                raise InputError(
                    f"{out}: is {file.rater}'s", remedy="--rater NAME, or another --out"
                )
            self._rated = blinded(sheet, file)
            known = {a.key for a in self._file().answers}
            self._others = [answer for answer in file.answers if answer.key not in known]

    def run(self, console: Console) -> int:
        """Ask until all is rated or the rater leaves; how many cases are rated whole."""
        console.say(_KEYS)
        place = self._next_open(0)
        try:
            while place is not None and place < len(self._sheet.items):
                place = self._case(place, console)
        except (_Left, EOFError):
            pass
        except KeyboardInterrupt:
            console.note("\nwhat was rated is saved; the same command goes on")
            raise
        return sum(self._is_rated(item) for item in self._sheet.items)

    def _is_rated(self, item: SheetItem) -> bool:
        return all(
            answer.id in self._rated
            and all(rubric.name in self._rated[answer.id].ratings for rubric in self._rubrics)
            for answer in item.answers
        )

    def _next_open(self, start: int) -> int | None:
        places = range(start, len(self._sheet.items))
        return next((n for n in places if not self._is_rated(self._sheet.items[n])), None)

    def _case(self, place: int, console: Console) -> int | None:
        """Show and ask one case; the place to go on at."""
        item = self._sheet.items[place]
        self._show(item, place, console)
        for number, answer in enumerate(item.answers):
            turn = self._ask(chr(ord("A") + number), console)
            if turn.step < 0:
                return max(0, place - 1)
            if turn.step > 0:
                break
            self._keep(answer, turn.ratings)
        return self._next_open(place + 1)

    def _show(self, item: SheetItem, place: int, console: Console) -> None:
        console.say(f"\n===== {place + 1} of {len(self._sheet.items)}")
        for name, text in (
            ("system", item.system),
            ("question", item.question),
            ("reference", item.reference),
        ):
            if text:
                console.say(f"{name}: {text}")
        _side_by_side([answer.text for answer in item.answers], console)

    def _ask(self, letter: str, console: Console) -> _Turn:
        titles = ", ".join(
            rubric.title.get(self._language, rubric.name) for rubric in self._rubrics
        )
        while True:
            typed = input(f"{letter} ({titles}) > ").strip().lower()
            if typed in ("q", "quit"):
                raise _Left
            if typed in ("b", "s"):
                return _Turn({}, -1 if typed == "b" else 1)
            digits = re.findall(r"\d", typed)
            if re.fullmatch(r"[1-5\s,]+", typed) and len(digits) == len(self._rubrics):
                names = [rubric.name for rubric in self._rubrics]
                return _Turn(dict(zip(names, map(int, digits), strict=True)), 0)
            if typed in ("?", "h"):
                self._explain(console)
            console.say(_KEYS)

    def _explain(self, console: Console) -> None:
        for rubric in self._rubrics:
            console.say(f"{rubric.title[self._language]}: {rubric.about[self._language]}")
            for rating, meaning in enumerate(rubric.scale[self._language], start=1):
                console.say(f"  {rating} {meaning}")

    def _keep(self, answer: BlindAnswer, ratings: dict[str, int]) -> None:
        """Note the ratings and save: nothing is lost when the terminal goes away."""
        before = self._rated.get(answer.id)
        more = {**(before.ratings if before else {}), **ratings}
        comment = before.comment if before else ""
        self._rated[answer.id] = BlindRating(id=answer.id, ratings=more, comment=comment)
        file = self._file()
        together = file.model_copy(update={"answers": [*self._others, *file.answers]})
        write_json(self._out, together.model_dump(mode="json"))

    def _file(self) -> RatingFile:
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        return opened(self._sheet, self._rated.values(), self._rater, now)


def _side_by_side(texts: Sequence[str], console: Console) -> None:
    """The answers beside each other where the terminal is wide enough for that."""
    import shutil

    from rich.console import Console as RichConsole
    from rich.table import Table
    from rich.text import Text

    width = shutil.get_terminal_size((100, 24)).columns
    if width < 40 * len(texts):
        for number, text in enumerate(texts):
            console.say(f"--- {chr(ord('A') + number)}\n{text}")
        return
    table = Table(width=width, show_lines=True)
    for number in range(len(texts)):
        table.add_column(chr(ord("A") + number), ratio=1)
    table.add_row(*(Text(text) for text in texts))
    screen = RichConsole(width=width)
    with screen.capture() as capture:
        screen.print(table)
    console.say(capture.get().rstrip("\n"))


def _file_name(rater: str) -> str:
    return re.sub(r"[^\w-]+", "_", rater) or "rater"


if __name__ == "__main__":
    raise SystemExit(main())
