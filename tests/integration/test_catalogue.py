"""The shipped catalogues: the static reader against the real parser, and against itself."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import distribution, version
from pathlib import Path
from typing import Any

import pytest
from support_deploy import REPOSITORY

from palmswift.recipes.catalogue import CATALOGUES, read_document
from palmswift.recipes.catalogue_static import as_text, read_catalogue
from palmswift.recipes.class_reader import Sources

_BUILD = """
import json, sys
from pathlib import Path
from support_catalogue import build
Path(sys.argv[1]).write_text(json.dumps(build()), encoding="utf-8")
"""


def _static() -> dict[str, Any]:
    """The installed version's catalogue, read from its sources."""
    folders = [
        Path(str(distribution(name).locate_file(""))) for name in ("ms-swift", "transformers")
    ]
    return read_catalogue(Sources(folders), version("ms-swift"), version("transformers"))


@pytest.mark.e2e
def test_the_static_reader_finds_what_the_real_parser_of_the_installed_ms_swift_has(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    built = tmp_path_factory.mktemp("catalogue") / "built.json"
    subprocess.run(
        [sys.executable, "-c", _BUILD, str(built)],
        check=True,
        timeout=600,
        cwd=REPOSITORY / "tests",
    )
    assert _static() == json.loads(built.read_text(encoding="utf-8"))


def test_the_shipped_catalogue_is_that_of_the_installed_ms_swift() -> None:
    shipped = CATALOGUES / f"ms-swift-{version('ms-swift')}.json"
    assert as_text(_static()) == shipped.read_text(encoding="utf-8"), (
        "python -m palmswift.recipes.catalogue_static WHEELS writes it anew"
    )
    assert read_document(version("ms-swift")) == _static()
