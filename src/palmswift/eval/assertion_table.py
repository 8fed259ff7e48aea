"""The table of assertions in eval/suites/README.md: python -m palmswift.eval.assertion_table"""

from __future__ import annotations

from typing import Any, get_args

from palmswift.eval.suites.assertions import KINDS, Demand
from palmswift.files import with_part, write_text
from palmswift.paths import project_root

BEGIN = "<!-- assertions: written by python -m palmswift.eval.assertion_table -->"
END = "<!-- end of assertions -->"


def table() -> str:
    """A line for each kind: its keys, with defaults, and when it holds."""
    lines = ["| kind | keys | holds when |", "|---|---|---|"]
    lines += [f"| `{_kind(kind)}` | {_keys(kind)} | {_meaning(kind)} |" for kind in KINDS]
    return "\n".join(lines)


def with_table(readme: str) -> str:
    """`readme` with the part between its two marks renewed. ValueError: a mark is missing."""
    return with_part(readme, BEGIN, END, table())


def _kind(kind: type[Demand]) -> str:
    return str(get_args(kind.model_fields["kind"].annotation)[0])


def _keys(kind: type[Demand]) -> str:
    """The keys of a kind; those that must be given are bold."""
    shown = []
    for name, field in kind.model_fields.items():
        if name in {*Demand.model_fields, "kind"}:
            continue
        key = f"`{field.alias or name}`"
        shown.append(f"**{key}**" if field.is_required() else f"{key}{_default(field)}")
    return ", ".join(shown) or "–"


def _default(field: Any) -> str:
    value = field.get_default(call_default_factory=True)
    if value in (None, [], {}, False):
        return ""
    shown = ", ".join(map(str, value)) if isinstance(value, list) else f"{value}"
    return f" ({shown})"


def _meaning(kind: type[Demand]) -> str:
    text = " ".join((kind.__doc__ or "").split())
    return text.replace("|", "\\|").replace("<", "&lt;")


def main() -> int:
    """Renew the table in eval/suites/README.md; returns 0."""
    path = project_root() / "eval/suites/README.md"
    write_text(path, with_table(path.read_text(encoding="utf-8")))
    print(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
