"""The JSON Schemas of suites and reports, written into eval/: python -m palmswift.eval.schema"""

from __future__ import annotations

import json
import sys
from typing import Any

from palmswift.eval.reports.report import EvaluationReport
from palmswift.eval.suites.suite import SuiteFile
from palmswift.files import write_text
from palmswift.paths import project_root


def suite_schema() -> str:
    """The schema of suites, for editors, as JSON text ending with a newline."""
    return _text(SuiteFile.model_json_schema())


def report_schema() -> str:
    """The schema of `evaluation_report.json`, as JSON text ending with a newline."""
    return _text(EvaluationReport.model_json_schema(mode="serialization"))


def _text(schema: dict[str, Any]) -> str:
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return json.dumps(schema, ensure_ascii=False, indent=2) + "\n"


if __name__ == "__main__":
    folder = project_root() / "eval"
    write_text(folder / "suites" / "suite.schema.json", suite_schema())
    write_text(folder / "report.schema.json", report_schema())
    sys.stdout.write(f"{folder}/suites/suite.schema.json\n{folder}/report.schema.json\n")
