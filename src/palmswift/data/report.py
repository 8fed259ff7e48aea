"""The data report: every row accounted for, by file, code and change, with token counts.

`python -m palmswift.data.report` writes data/report.schema.json, the description of report.json.
"""

from __future__ import annotations

import json
import sys
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from palmswift.data.policy import Action
from palmswift.data.row import Kind
from palmswift.data.sample import SampleRow
from palmswift.data.template import TemplateFacts
from palmswift.files import write_text
from palmswift.paths import project_root

Use = Literal["train", "val"]
"""What a file was given for, or what a row is used for."""


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class FileReport(_Document):
    """What became of one input file's rows; `read = kept + rejected`, or it does not exist."""

    source: str
    """The file as it was given."""
    use: Use
    format: str
    """What the file was read as, such as `jsonl`."""
    encoding: str
    read: int
    kept: int
    rejected: int
    shapes: dict[str, int]
    """Shape to the number of kept rows that had it."""
    reasons: dict[str, int]
    """Reason code to the number of rows rejected for it."""
    notes: list[str] = Field(default_factory=list)
    """What was assumed or passed over in reading it, such as a hidden sheet."""

    @model_validator(mode="after")
    def _every_row_accounted_for(self) -> FileReport:
        if self.read != self.kept + self.rejected or self.rejected != sum(self.reasons.values()):
            raise ValueError(f"{self.source}: read {self.read}, {self.kept}+{self.rejected} known")
        return self


class Example(_Document):
    """One row that a code was given to."""

    place: str
    """`file:line`."""
    detail: str
    """What is wrong with this very row; empty where the code says it all."""
    row: str = ""
    """The beginning of the row as JSON; empty where it may hold what is nobody's business."""


class CodeReport(_Document):
    """The rows that one code was given to, over all files."""

    code: str
    """A key of `palmswift.data.policy.CHECKS`."""
    meaning: str
    meaning_zh: str
    count: int
    examples: list[Example]
    """The first few rows."""


class Spread(_Document):
    """How a count is spread over rows; percentiles by nearest rank."""

    min: int
    median: int
    p90: int
    p95: int
    p99: int
    max: int
    total: int


class Bin(_Document):
    """Rows of `start` to `stop - 1` tokens: those written, and those over the length limit."""

    start: int
    stop: int | None
    """Null for the last bin when it holds all rows from `start` on."""
    kept: int
    over_length: int


class TokenReport(_Document):
    """What the template counted, in tokens a row; spreads are over the rows written."""

    tokens: Spread
    supervised: Spread
    """Tokens that the loss counts."""
    histogram: list[Bin]
    over_length: Spread | None = None
    """Tokens of the rows rejected as over_length; null without any."""


class Pair(_Document):
    """Two rows beside each other."""

    first: str
    """`file:line` of the row that stands earlier."""
    second: str
    first_text: str
    second_text: str
    similarity: float | None = None
    """Estimated Jaccard similarity, 0 to 1; null where it was not measured."""


class NearReport(_Document):
    """Clusters of rows that are nearly the same; exact duplicates are gone by then."""

    clusters: int
    """Clusters of at least two rows."""
    rows: int
    """Rows in those clusters."""
    largest: int
    """Rows in the largest of them."""
    examples: list[Pair]


class ConflictReport(_Document):
    """Questions that stand with more than one answer."""

    questions: int
    rows: int
    """Rows that ask one of those questions."""
    examples: list[Pair]


class UnreadColumns(_Document):
    """Columns of rows that no shape was recognised in."""

    columns: list[str]
    count: int
    """Rows with exactly these columns."""
    characters: dict[str, float]
    """Column to the mean length of its text, over the first rows."""


class Suggestion(_Document):
    """Something to do that would make the training set or the run better."""

    code: str
    """What it is about; stays the same from version to version."""
    en: str
    zh: str
    flags: list[str] = Field(default_factory=list)
    """Words to add to the command line; empty where no flag does it."""


class DataReport(_Document):
    """`report.json`: what was read, kept and rejected, and what the kept rows are like."""

    version: int = 2
    kind: Kind = "sft"
    files: list[FileReport]
    read: int
    kept: int
    """Rows read that are trained on or held out."""
    rejected: int
    train_rows: int
    val_rows: int
    parts: int = 0
    """Rows written beyond one for each kept row, from rows that were split at their turns."""
    held_out: Literal["files", "split", "none"]
    """Where validation rows come from."""
    val_ratio: float
    seed: int
    rules: dict[str, Action] = Field(default_factory=dict)
    """Every check that leaves a choice, and what was done about it."""
    changes: dict[str, int]
    """Kind of change (`palmswift.data.policy.CHANGES`) to the number of kept rows."""
    reasons: list[CodeReport]
    """Why rows were rejected, the most frequent first."""
    findings: list[CodeReport] = Field(default_factory=list)
    """What was found in rows that were kept, the most frequent first."""
    near_duplicates: NearReport | None = None
    """Null when there are none."""
    conflicts: ConflictReport | None = None
    """Null when there are none."""
    unread_columns: list[UnreadColumns] = Field(default_factory=list)
    """Of the rows rejected as unknown_shape or ambiguous_columns, the most frequent first."""
    template: TemplateFacts | None
    """Null when no row came as far as the template."""
    tokens: TokenReport | None
    """Null when no row is kept."""
    samples: list[SampleRow] = Field(default_factory=list)
    suggestions: list[Suggestion] = Field(default_factory=list)
    """The most useful first."""

    @model_validator(mode="after")
    def _sums_agree(self) -> DataReport:
        files = self.files
        sums = [sum(file.read for file in files), sum(file.kept for file in files)]
        if [self.read, self.kept] != sums or self.read != self.kept + self.rejected:
            raise ValueError("the counts of the files do not add up to the report's")
        if self.kept + self.parts != self.train_rows + self.val_rows:
            raise ValueError("kept rows are not the rows trained on and held out")
        return self


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of report.json, each field with what it means."""
    from palmswift.data import sample, template
    from palmswift.recipes.schema import field_docs

    built = DataReport.model_json_schema()
    built["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    built["title"] = "palmswift's data report (report.json)"
    docs: dict[tuple[str, str], str] = {}
    for module in (sys.modules[DataReport.__module__], sample, template):
        docs |= field_docs(module)
    for name, section in {"DataReport": built, **built["$defs"]}.items():
        for key, field in section.get("properties", {}).items():
            if (name, key) in docs:
                field["description"] = docs[name, key]
    return built


def schema_text() -> str:
    """The schema as it is committed."""
    return json.dumps(schema(), ensure_ascii=False, indent=1, sort_keys=True) + "\n"


def main() -> int:
    """Write the schema beside the data commands; returns 0."""
    path = project_root() / "data" / "report.schema.json"
    write_text(path, schema_text())
    print(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
