"""Write labels.jsonl and two_voices.jsonl: the pairs of preference.jsonl in other forms."""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent

CARELESS = 2
"""How often two_voices.jsonl has the bad answer for each time that it has the good one."""

Pair = dict[str, str]


def labels(pairs: Sequence[Pair]) -> Iterator[dict[str, object]]:
    """Both answers of each pair as rows of their own, with whether the answer is wanted."""
    for pair in pairs:
        for side in ("chosen", "rejected"):
            asked = {"system": pair["system"], "prompt": pair["prompt"]}
            yield {**asked, "completion": pair[side], "label": side == "chosen"}


def two_voices(pairs: Sequence[Pair]) -> Iterator[dict[str, object]]:
    """Dialogues that answer each question well once, and carelessly more often."""
    for pair in pairs:
        for side in ("chosen", *["rejected"] * CARELESS):
            turns = {"system": pair["system"], "user": pair["prompt"], "assistant": pair[side]}
            yield {"messages": [{"role": role, "content": text} for role, text in turns.items()]}


def main() -> None:
    """Write both files into a folder, this one unless told otherwise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE)
    folder: Path = parser.parse_args().out
    with (HERE / "preference.jsonl").open(encoding="utf-8") as stream:
        pairs = [json.loads(line) for line in stream]
    for name, rows in (("labels", labels(pairs)), ("two_voices", two_voices(pairs))):
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")


if __name__ == "__main__":
    main()
