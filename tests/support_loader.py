"""What ms-swift's loader and template make of files of rows; a program of its own.

`python support_loader.py REQUEST.json`, a list of `Asked` objects; the answer, a list of `Loaded`
objects, is the last line of stdout.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

from palmswift.data.row import Kind
from palmswift.data.template import TemplateSpec


class Asked(NamedTuple):
    """A file, and how a training would be started on it."""

    path: str
    kind: Kind
    arguments: dict[str, Any]


class Loaded(NamedTuple):
    """What came out."""

    rows: int
    """Rows that the loader gives; those that it drops are missing."""
    columns: list[str]
    encoded: int
    """Rows that the template can encode."""
    texts: list[list[str]]
    """What the sequences of the first rows decode to."""
    trained: list[list[str]]
    """The part of each that is trained on."""


def spec_of(asked: Asked) -> TemplateSpec:
    """How the template is made."""
    if asked.kind in ("sft", "pt"):
        return TemplateSpec(
            command="pt" if asked.kind == "pt" else "sft", arguments=asked.arguments
        )
    return TemplateSpec(command="rlhf", arguments={**asked.arguments, "rlhf_type": asked.kind})


def load(asked: Asked) -> Loaded:
    """Read the file as `swift sft` or `swift rlhf` does, and encode each row."""
    from swift.dataset import load_dataset

    from palmswift.data.real_template import RealTemplate, template_arguments

    rows, _ = load_dataset(
        [asked.path],
        load_from_cache_file=False,
        # swift rlhf --rlhf_type grpo leaves the columns for reward functions in.
        remove_unused_columns=asked.kind != "grpo",
    )
    template = RealTemplate(template_arguments(spec_of(asked)), asked.kind)
    sequences = [template.sequences(row) for row in rows]
    return Loaded(
        rows=len(rows),
        columns=sorted(rows.column_names),
        encoded=sum(bool(row) for row in sequences),
        texts=[[template.decode(one.input_ids) for one in row] for row in sequences[:2]],
        trained=[
            [template.decode([label for label in one.labels if label != -100]) for one in row]
            for row in sequences[:2]
        ],
    )


def main() -> None:
    """Answer the requests of the file."""
    requests = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    print(json.dumps([load(Asked(*request)) for request in requests]))


if __name__ == "__main__":
    main()
