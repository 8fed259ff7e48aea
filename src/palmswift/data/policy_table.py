"""Writes the tables of codes and changes in data/README.md, from the policy.

`python -m palmswift.data.policy_table`
"""

from __future__ import annotations

from palmswift.data.policy import CHANGES, CHECKS
from palmswift.files import with_part, write_text
from palmswift.paths import project_root

BEGIN = "<!-- written by: python -m palmswift.data.policy_table -->"
END = "<!-- end of the written part -->"


def tables() -> str:
    """Every check with its default and other actions, and every change, as Markdown."""
    lines = [
        "| code | what it means | by default | or `--rule CODE=` |",
        "|---|---|---|---|",
        *(_check(code) for code in CHECKS),
        "",
        "| change made to a kept row | what was done |",
        "|---|---|",
        *(f"| `{name}` | {_cell(change.en)} |" for name, change in CHANGES.items()),
    ]
    return "\n".join(lines)


def with_tables(readme: str) -> str:
    """`readme` with the part between its two marks renewed. ValueError: a mark is missing."""
    return with_part(readme, BEGIN, END, tables())


def main() -> int:
    """Renew the tables in data/README.md; returns 0."""
    path = project_root() / "data" / "README.md"
    write_text(path, with_tables(path.read_text(encoding="utf-8")))
    print(path)
    return 0


def _check(code: str) -> str:
    default, *others = CHECKS[code].actions
    choices = ", ".join(f"`{action}`" for action in others)
    return f"| `{code}` | {_cell(CHECKS[code].en)} | {default} | {choices} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    raise SystemExit(main())
