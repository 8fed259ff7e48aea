"""The data report as one HTML page that needs no network, in English and Chinese."""

from __future__ import annotations

import base64
import difflib
import hashlib
import re
import shlex
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from palmswift.data.chart import chart
from palmswift.data.policy import CHANGES, CHECKS
from palmswift.data.report import DataReport, Pair
from palmswift.data.sample import SampleRow
from palmswift.files import write_text

if TYPE_CHECKING:
    from jinja2 import Template

_FOLDER = Path(__file__).parent / "templates"
_PIECES = re.compile(
    r"(?P<control><\|[^|<>\s]{1,40}\|>|</?(?:think|tool_call|tool_response|tools)>)|(?P<line>\n)"
)
_LONGEST = 3000
"""Characters of a span that the page shows."""
_LONGEST_DIFFERENCE = 2000
"""Characters; difflib is quadratic."""


class Piece(NamedTuple):
    """A piece of a span: ordinary text, a control token, or a line break."""

    kind: Literal["text", "control", "line"]
    text: str


class Part(NamedTuple):
    """A piece of one of two texts, and whether the other lacks it."""

    text: str
    differs: bool


def write_page(path: Path, report: DataReport) -> None:
    """Write the report's page to `path` atomically."""
    write_text(path, render("report.html.j2", _title(report), **_report_context(report)))


def write_samples(path: Path, title: str, samples: Sequence[SampleRow]) -> None:
    """Write a page of nothing but sample rows to `path` atomically."""
    write_text(path, render("samples.html.j2", title, samples=samples))


def render(template: str, title: str, own: Path | None = None, /, **context: object) -> str:
    """A page whose content policy lets its own style and script run, and nothing else.

    `own` is another room's folder: its templates go before those here, its page.css after ours.
    """
    style, script = (
        (_FOLDER / name).read_text(encoding="utf-8") for name in ("report.css", "report.js")
    )
    if own is not None:
        style += (own / "page.css").read_text(encoding="utf-8")
    return _template(template, own).render(
        title=title,
        style=style,
        script=script,
        # What stands between the tags is hashed, the line breaks around it too.
        policy="default-src 'none'; base-uri 'none'; form-action 'none'; "
        f"style-src '{_hash(style)}'; script-src '{_hash(script)}'",
        **context,
    )


def _title(report: DataReport) -> str:
    first = report.files[0].source if report.files else ""
    more = f" + {len(report.files) - 1}" if len(report.files) > 1 else ""
    return f"{first}{more}: data report"


def _report_context(report: DataReport) -> dict[str, object]:
    limit = report.template.max_length if report.template else None
    return {
        "report": report,
        "checks": CHECKS,
        "changes": CHANGES,
        "chart": chart(report.tokens, limit) if report.tokens else None,
        "chosen_rules": {
            code: action
            for code, action in report.rules.items()
            if action != CHECKS[code].actions[0]
        },
    }


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@cache
def _template(name: str, own: Path | None = None) -> Template:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader([own, _FOLDER] if own is not None else _FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["n"] = lambda number: f"{number:,}"
    environment.filters["breakable"] = lambda code: Markup("_<wbr>").join(code.split("_"))
    environment.filters["flags"] = shlex.join
    environment.filters["pieces"] = pieces
    environment.filters["differences"] = differences
    return environment.get_template(name)


def shortened(text: str) -> str:
    """Both ends of a very long text, with the number of characters between them."""
    if len(text) <= _LONGEST:
        return text
    head, tail = text[: _LONGEST // 3 * 2], text[-_LONGEST // 3 :]
    return f"{head} … ({len(text) - len(head) - len(tail):,}) … {tail}"


def pieces(text: str) -> Iterator[Piece]:
    """The text with its control tokens and line breaks apart; of a long one, both ends."""
    text = shortened(text)
    begin = 0
    for match in _PIECES.finditer(text):
        if match.start() > begin:
            yield Piece("text", text[begin : match.start()])
        yield Piece("control" if match["control"] else "line", match[0])
        begin = match.end()
    if begin < len(text):
        yield Piece("text", text[begin:])


def differences(pair: Pair) -> tuple[list[Part], list[Part]]:
    """Both texts of the pair in parts, marked where the other differs; whole when very long."""
    first, second = pair.first_text, pair.second_text
    if max(len(first), len(second)) > _LONGEST_DIFFERENCE:
        return [Part(first, False)], [Part(second, False)]
    matcher = difflib.SequenceMatcher(None, first, second, autojunk=False)
    left, right = [], []
    for kind, i, j, k, n in matcher.get_opcodes():
        left.append(Part(first[i:j], kind != "equal"))
        right.append(Part(second[k:n], kind != "equal"))
    return left, right
