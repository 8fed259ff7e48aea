from __future__ import annotations

from support_eval import ROOT

from palmswift.eval.assertion_table import with_table
from palmswift.eval.schema import suite_schema


def test_the_committed_schema_is_what_the_model_says() -> None:
    committed = (ROOT / "eval/suites/suite.schema.json").read_text(encoding="utf-8")
    assert committed == suite_schema(), "python -m palmswift.eval.schema writes it anew"


def test_the_table_of_assertions_is_what_the_classes_say() -> None:
    readme = (ROOT / "eval/suites/README.md").read_text(encoding="utf-8")
    assert readme == with_table(readme), "python -m palmswift.eval.assertion_table writes it anew"
