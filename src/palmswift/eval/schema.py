"""The JSON Schema of suites, for editors: python -m palmswift.eval.schema > suite.schema.json"""

from __future__ import annotations

import json
import sys

from palmswift.eval.suite import SuiteFile


def suite_schema() -> str:
    """The schema as JSON text, ending with a newline."""
    schema = SuiteFile.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return json.dumps(schema, ensure_ascii=False, indent=2) + "\n"


if __name__ == "__main__":
    sys.stdout.write(suite_schema())
