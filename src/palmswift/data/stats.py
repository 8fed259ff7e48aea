"""What a data set is like: rows, turns, lengths, tokens, languages, shapes, duplicates."""

from __future__ import annotations

import argparse
import contextlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel, ConfigDict

from palmswift.command import Console, Done, make_parser, run
from palmswift.data.checks import Canonicaliser
from palmswift.data.flags import (
    add_recipe_flags,
    add_row_flags,
    template_log,
    template_of,
    with_row_flags,
)
from palmswift.data.languages import language_of
from palmswift.data.lengths import Lengths, spread
from palmswift.data.policy import CHECKS, Policy, kind_of
from palmswift.data.progress import Progress, Silence, for_terminal, rows_of
from palmswift.data.read import DataFile, open_files
from palmswift.data.report import Spread
from palmswift.data.row import Kind, Rejection, RowError, SourceRow, TrainingRow
from palmswift.data.table import spread_table
from palmswift.data.template import Judgement, TemplateJudge, TemplateSpec
from palmswift.errors import GateError, InputError, Problem
from palmswift.recipes.recipe import DataSettings

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

_KINDS: tuple[Kind, ...] = get_args(Kind)
_CHUNK = 1000
_ANSWERS = ("assistant", "tool_call")


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TokenStats(_Document):
    """What the recipe's template counts."""

    tokens: Spread
    supervised: Spread
    supervised_share: float
    """Of all tokens, those that the loss counts, 0 to 1."""
    max_length: int | None
    rejected: dict[str, int]
    """Code to the usable rows that the template would leave out for it; not in the spreads."""


class DataStats(_Document):
    """A data set in numbers. Spreads are over the usable rows."""

    kind: Kind
    files: list[str]
    read: int
    usable: int
    """Rows that pass the checks of a single row."""
    rejected: dict[str, int]
    """Code to the rows that do not."""
    findings: dict[str, int]
    """Code to the usable rows that it was found in."""
    shapes: dict[str, int]
    languages: dict[str, int]
    """Language, told by its script, to the usable rows written in it."""
    turns: Spread | None
    """Messages a row, the system prompt not counted."""
    characters: Spread | None
    answer_characters: Spread | None
    """Of each answer."""
    with_system: int
    system_prompts: int
    """Different ones."""
    duplicates: int
    """Usable rows that stand earlier, word by word."""
    repeated_questions: int
    """Usable rows whose question stands earlier with another answer."""
    tokens: TokenStats | None
    """Null without a recipe, or without usable rows."""


class StatsBuilder:
    """Counts rows as they stream by."""

    def __init__(self) -> None:
        self.read = 0
        self.usable = 0
        self.rejected: Counter[str] = Counter()
        self._findings: Counter[str] = Counter()
        self._shapes: Counter[str] = Counter()
        self._languages: Counter[str] = Counter()
        self._turns: Lengths = Counter()
        self._characters: Lengths = Counter()
        self._answers: Lengths = Counter()
        self._with_system = 0
        self._systems: set[int] = set()
        self._rows: set[bytes] = set()
        self._questions: set[bytes] = set()
        self._duplicates = 0
        self._repeated = 0

    def add(self, row: TrainingRow) -> None:
        """Count a usable row."""
        self.usable += 1
        self._shapes[row.shape] += 1
        self._findings.update(row.findings)
        contents = [message.content for message in row.messages]
        self._languages[language_of(contents)] += 1
        self._characters[sum(map(len, contents))] += 1
        self._answers.update(len(text) for role, text in row.messages if role in _ANSWERS)
        has_system = bool(row.messages) and row.messages[0].role == "system"
        self._turns[len(contents) - has_system] += 1
        if has_system:
            self._with_system += 1
            self._systems.add(hash(contents[0]))
        self._see(row)

    def _see(self, row: TrainingRow) -> None:
        # Half a digest: of a million rows, two would agree by chance once in ten million runs.
        whole, question = row.digest[:8], row.question_digest[:8]
        if whole in self._rows:
            self._duplicates += 1
        elif row.messages[-1].role == "assistant" and question in self._questions:
            self._repeated += 1
        self._rows.add(whole)
        self._questions.add(question)

    def finish(self, kind: Kind, files: Sequence[DataFile], tokens: TokenStats | None) -> DataStats:
        """The numbers."""
        return DataStats(
            kind=kind,
            files=[file.source for file in files],
            read=self.read,
            usable=self.usable,
            rejected=_ranked(self.rejected),
            findings=_ranked(self._findings),
            shapes=_ranked(self._shapes),
            languages=_ranked(self._languages),
            turns=spread(self._turns) if self._turns else None,
            characters=spread(self._characters) if self._characters else None,
            answer_characters=spread(self._answers) if self._answers else None,
            with_system=self._with_system,
            system_prompts=len(self._systems),
            duplicates=self._duplicates,
            repeated_questions=self._repeated,
            tokens=tokens,
        )


def stats(
    files: Sequence[DataFile],
    kind: Kind,
    settings: DataSettings,
    template: TemplateSpec | None = None,
    *,
    log: Path | None = None,
    progress: Progress | None = None,
) -> DataStats:
    """The numbers of all files together; tokens only with a template and a `log` for its child.

    ChildError: the template could not be asked.
    """
    canonicaliser = Canonicaliser(kind, settings)
    builder = StatsBuilder()
    told = progress or Silence()
    with contextlib.ExitStack() as stack:
        judge = None
        waiting: list[dict[str, Any]] = []
        for row in rows_of(files, told):
            training = _count(row, canonicaliser, builder)
            if training is None or template is None or log is None:
                continue
            if judge is None:  # at the first row that needs it: starting takes half a minute
                over_length = Policy(settings.rules).action("over_length")
                judge = stack.enter_context(
                    TemplateJudge(template, kind, over_length=over_length, log=log, samples=0)
                )
            waiting.append(training.as_row())
            if len(waiting) == _CHUNK:
                judge.submit(waiting)
                waiting = []
        if judge is None:
            return builder.finish(kind, files, None)
        judge.submit(waiting)
        told.begin("asking ms-swift's template", builder.usable)
        judgement = judge.finish(lambda answered, _: told.at(answered))
        told.end()
        return builder.finish(kind, files, _token_stats(judgement))


def _count(
    row: SourceRow | Rejection, canonicaliser: Canonicaliser, builder: StatsBuilder
) -> TrainingRow | None:
    builder.read += 1
    if isinstance(row, Rejection):
        builder.rejected[row.code] += 1
        return None
    try:
        training = canonicaliser.row(row)
    except RowError as error:
        builder.rejected[error.code] += 1
        return None
    builder.add(training)
    return training


def _token_stats(judgement: Judgement) -> TokenStats | None:
    verdicts = judgement.verdicts
    tokens: Lengths = Counter()
    supervised: Lengths = Counter()
    rejected: Counter[str] = Counter()
    for index in range(len(verdicts)):
        reason = verdicts.reason(index)
        if reason:
            rejected[reason[0]] += 1
            continue
        tokens[verdicts.n_tokens(index)] += 1
        supervised[verdicts.n_supervised(index)] += 1
    if not tokens:
        return None
    all_tokens, trained = spread(tokens), spread(supervised)
    return TokenStats(
        tokens=all_tokens,
        supervised=trained,
        supervised_share=round(trained.total / all_tokens.total, 4),
        max_length=judgement.facts.max_length,
        rejected=_ranked(rejected),
    )


def _ranked(counts: Counter[str]) -> dict[str, int]:
    return dict(counts.most_common())


def stats_tables(found: DataStats) -> Group:
    """The numbers for a terminal."""
    from rich.console import Group

    spreads = [
        ("turns", found.turns),
        ("characters", found.characters),
        ("characters an answer", found.answer_characters),
    ]
    if found.tokens:
        spreads += [("tokens", found.tokens.tokens), ("trained on", found.tokens.supervised)]
    shown = [(name, spread) for name, spread in spreads if spread]
    return Group(_facts_table(found), spread_table("a row", shown))


def _facts_table(found: DataStats) -> Table:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_header=False)
    usable = f"{found.usable:,} of {found.read:,} pass the checks of a row"
    lines = [
        ("rows", usable),
        ("shapes", _listed(found.shapes)),
        ("languages", _listed(found.languages)),
        ("system prompts", f"{found.system_prompts:,} different, in {found.with_system:,} rows"),
        ("duplicates", f"{found.duplicates:,} word by word"),
        ("repeated questions", f"{found.repeated_questions:,} with another answer"),
    ]
    lines += [(code, f"{n:,} left out: {CHECKS[code].en}") for code, n in found.rejected.items()]
    if found.tokens:
        lines.append(
            ("trained share", f"{100 * found.tokens.supervised_share:.1f} % of all tokens")
        )
        lines += [
            (code, f"{n:,} left out by the template: {CHECKS[code].en}")
            for code, n in found.tokens.rejected.items()
        ]
    lines += [(code, f"{n:,} kept: {CHECKS[code].en}") for code, n in found.findings.items()]
    for name, text in lines:
        table.add_row(name, escape(text))
    return table


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items()) or "none"


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(
        "data/stats.py",
        "Say what a data set is like: rows, turns, lengths, tokens, languages, duplicates.",
        """
        python data/stats.py my.csv
        python data/stats.py clean/train.jsonl --recipe qwen3_8b_4bit
        python data/stats.py pairs.jsonl --task dpo --json
        """,
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="any readable file")
    parser.add_argument(
        "--task", choices=_KINDS, help="what the rows are for (default: the recipe's task, or sft)"
    )
    add_recipe_flags(parser, required=False)
    add_row_flags(parser)
    return parser


def _body(arguments: argparse.Namespace, console: Console) -> Done:
    found = _with_recipe(arguments) if arguments.recipe else _without(arguments)
    if not console.json_output:
        from rich.console import Console as Terminal

        Terminal().print(stats_tables(found))
        if not arguments.recipe:
            console.say("tokens are counted with --recipe NAME")
    if not found.usable:
        reasons = [Problem(f"{n} x {CHECKS[c].en}", c) for c, n in found.rejected.items()]
        raise GateError(f"none of the {found.read} rows can be used", reasons)
    return Done(found.model_dump(mode="json"))


def _without(arguments: argparse.Namespace) -> DataStats:
    if arguments.model or arguments.set:
        raise InputError("--model and --set go with --recipe")
    settings = with_row_flags(DataSettings(), arguments)
    files = open_files(arguments.files)
    return stats(files, arguments.task or "sft", settings, progress=for_terminal())


def _with_recipe(arguments: argparse.Namespace) -> DataStats:
    from palmswift.recipes.load import load_checked

    recipe = load_checked(arguments.recipe, arguments.set).recipe
    kind = kind_of(recipe.task)
    if arguments.task not in (None, kind):
        what = f"the recipe's rows are of the kind {kind}"
        raise InputError("the task is not the recipe's", [Problem(what, "--task")])
    settings = with_row_flags(recipe.data, arguments)
    files = open_files(arguments.files)
    with template_log() as log:
        template = template_of(recipe, arguments.model, log)
        return stats(files, kind, settings, template, log=log, progress=for_terminal())


def main(argv: Sequence[str] | None = None) -> int:
    """The command `data/stats.py`; its exit code."""
    return run(_parser(), _body, argv)
