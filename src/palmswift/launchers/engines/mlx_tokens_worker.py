"""Child process: turns clean rows into tokens by ms-swift's template, for MLX to train on.

`python -m palmswift.launchers.engines.mlx_tokens_worker SPEC.json`. A line of the result is `ids`,
the row's tokens, and `trained`, the [start, end) spans of those that have a loss. It loads config
and tokenizer, never weights.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from palmswift.data.real_template import RealTemplate, template_arguments
from palmswift.data.template import TemplateSpec


def spans(labels: Sequence[int]) -> list[list[int]]:
    """[start, end) of each stretch of tokens with a loss (a label that is not -100)."""
    found, position = [], 0
    for trained, group in groupby(labels, key=lambda label: label != -100):
        length = sum(1 for _ in group)
        if trained:
            found.append([position, position + length])
        position += length
    return found


def main(argv: Sequence[str]) -> int:
    """Write the token files that the spec names."""
    document = json.loads(Path(argv[0]).read_text(encoding="utf-8"))
    command = document["command"]
    spec = TemplateSpec(command=command, arguments=document["arguments"], env={})
    template = RealTemplate(template_arguments(spec), "pt" if command == "pt" else "sft")
    for split in document["splits"].values():
        with (
            Path(split["rows"]).open(encoding="utf-8") as rows,
            Path(split["tokens"]).open("w", encoding="utf-8") as tokens,
        ):
            for line in rows:
                for sequence in template.sequences(json.loads(line)):
                    row = {"ids": sequence.input_ids, "trained": spans(sequence.labels)}
                    tokens.write(json.dumps(row) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
