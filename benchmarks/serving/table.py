"""Writes what the newest records of serving say into benchmarks/README.md and deploy/README.md.

python -m benchmarks.serving.table
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.eval.record import RECORDS, ROOT
from palmswift.files import with_part, write_text

BEGIN = "<!-- written by: python -m benchmarks.serving.table -->"
END = "<!-- end of what the records of serving say -->"
READMES = (ROOT / "benchmarks" / "README.md", ROOT / "deploy" / "README.md")


def main() -> int:
    """Write the part between the marks anew in both files; 0."""
    for readme in READMES:
        text = readme.read_text(encoding="utf-8")
        write_text(readme, with_part(text, BEGIN, END, written()))
        print(readme)
    return 0


def written() -> str:
    """The three records as a table and two sentences."""
    load, start, path = (newest(part) for part in ("load", "start", "path"))
    machine = load["machine"]
    return "\n".join(
        [
            f"Measured on {load['date']}, {machine['cores']} cores, no GPU, load"
            f" {machine['load_1min_before']:.1f} before; {load['tokens']} tokens an answer.",
            "",
            *_loads(load),
            "",
            _starts(start),
            "",
            _path(path),
        ]
    )


def newest(part: str) -> dict[str, Any]:
    """The last record of a part. FileNotFoundError: there is none."""
    found = sorted(RECORDS.glob(f"serving-{part}-*.json"))
    if not found:
        raise FileNotFoundError(f"{RECORDS} has no record serving-{part}-DATE.json")
    document: dict[str, Any] = json.loads(Path(found[-1]).read_text(encoding="utf-8"))
    return document


def _loads(record: dict[str, Any]) -> list[str]:
    users = record["users"]
    named = " | ".join(f"{count} at once" for count in users)
    lines = [f"| tokens/s, first token, requests/s | {named} |", "|---|" + "---|" * len(users)]
    for label, server in record["servers"].items():
        cells = " | ".join(_level(level) for level in server["levels"])
        lines.append(f"| {label} | {cells} |")
    return lines


def _level(level: dict[str, Any]) -> str:
    tokens = level.get("output_tokens_per_second")
    rate = "-" if tokens is None else f"{tokens:.0f}"
    first = f"{1000 * level['ttft_p50']:.0f} ms" if "ttft_p50" in level else "-"
    failed = f" ({level['errors']} failed)" if level["errors"] else ""
    doubted = "" if level["valid"] else " (client too busy)"
    return f"{rate}, {first}, {level['requests_per_second']:.1f}{failed}{doubted}"


def _starts(record: dict[str, Any]) -> str:
    medians = record["median_s"]
    (_, bare), (_, ours) = medians.items()
    phases = ", ".join(f"{name} {s:.1f}" for name, s in ours.items() if name != "all")
    count = len(next(iter(record["rounds"].values())))
    return (
        f"From the command to the first completion (medians of {count} starts each, in turn): bare"
        f" `swift deploy` {bare['all']:.1f} s, of which its wrapper {bare['starting']:.1f};"
        f" `deploy/serve.py` {ours['all']:.1f} s ({phases}), ratio {record['ratio_of_all']:.2f}."
        " What is left is the import of torch, transformers and ms-swift."
    )


def _path(record: dict[str, Any]) -> str:
    ratios = record["ratio_to_bare"]
    ours = [
        f"`{label}` {ratio:.3f}" for label, ratio in ratios.items() if label.startswith("serve")
    ]
    listening = next(s for label, s in record["listening"].items() if label.startswith("serve"))
    return (
        "A request for one token, one at a time, as a ratio to bare `swift deploy`:"
        f" {', '.join(ours)} ({record['requests_each']} requests each, in turn; a server's odd and"
        f" even requests differ by {record['noise']:.3f}; a ratio under 1 shows how far processes"
        " of one program differ). The process that listens is ms-swift's own"
        f" (`{listening['program']}`): there is no proxy. Of ours it has a look at a request's size"
        " before it is read, and the key's check."
    )


if __name__ == "__main__":
    raise SystemExit(main())
