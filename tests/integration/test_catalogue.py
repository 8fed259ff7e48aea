"""The shipped catalogue against the ms-swift that is installed (imports swift: 20 to 60 s)."""

from __future__ import annotations

import subprocess
import sys

import pytest

from palmswift.recipes.catalogue import CATALOGUES, installed_version

_BUILD = """
from palmswift.recipes.catalogue_build import as_text, build
from pathlib import Path
import sys
Path(sys.argv[1]).write_text(as_text(build()), encoding="utf-8")
"""


@pytest.mark.e2e
def test_the_shipped_catalogue_is_that_of_the_installed_ms_swift(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    built = tmp_path_factory.mktemp("catalogue") / "built.json"
    subprocess.run([sys.executable, "-c", _BUILD, str(built)], check=True, timeout=600)
    shipped = CATALOGUES / f"ms-swift-{installed_version()}.json"
    assert built.read_text(encoding="utf-8") == shipped.read_text(encoding="utf-8"), (
        "run python -m palmswift.recipes.catalogue_build"
    )
