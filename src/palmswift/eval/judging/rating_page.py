"""The rating page: one HTML file without a network, for the keyboard, that saves as it goes."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import jinja2

from palmswift.eval.judging.rating_sheet import Sheet
from palmswift.eval.judging.rubrics import Rubric

_TEMPLATES = Path(__file__).parent / "templates"


def render(sheet: Sheet, rubrics: Sequence[Rubric], title: str) -> str:
    """The page's HTML. Its content policy lets only its own script run, and nothing be fetched."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = (_TEMPLATES / "rate.js").read_text(encoding="utf-8")
    return environment.get_template("rate.html.j2").render(
        title=title,
        data=_document(sheet, rubrics),
        style=(_TEMPLATES / "rate.css").read_text(encoding="utf-8"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _document(sheet: Sheet, rubrics: Sequence[Rubric]) -> str:
    """What the script works with; nothing in it tells whose an answer is. As JSON that cannot end
    the element that holds it."""
    items = [
        {
            "system": item.system,
            "question": item.question,
            "reference": item.reference,
            "answers": [{"id": answer.id, "text": answer.text} for answer in item.answers],
        }
        for item in sheet.items
    ]
    document = {
        "sheet": sheet.id,
        "seed": sheet.seed,
        "rubrics": [rubric.model_dump() for rubric in rubrics],
        "items": items,
    }
    text = json.dumps(document, ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
