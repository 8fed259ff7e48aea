"""The key reaches ms-swift's server by environment and is printed nowhere."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SWIFT = {
    "arguments.py": "class DeployArguments:\n    api_key = None\n",
    "utils.py": (
        "def parse_args(kind, argv):\n"
        "    made = kind()\n"
        "    made.model = argv[1]\n"
        "    return made, argv[2:]\n"
    ),
    "pipelines.py": (
        "import secrets\n"
        "def deploy_main(args):\n"
        "    print(f'args: {vars(args)!r}')\n"
        "    print(secrets.compare_digest('a-key-nobody-knows', args.api_key))\n"
    ),
    "__init__.py": "",
}
"""As much of ms-swift 4.6.0's modules as the key passes through."""


def keyed(folder: Path, *words: str, key: str | None) -> subprocess.CompletedProcess[str]:
    for name, text in SWIFT.items():
        file = folder / "swift" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    environment.pop("PALMSWIFT_API_KEY", None)
    if key is not None:
        environment["PALMSWIFT_API_KEY"] = key
    argv = [sys.executable, "-m", "palmswift.deploy.keyed", *words]
    return subprocess.run(argv, capture_output=True, text=True, env=environment, check=False)


def test_the_server_compares_the_key_and_never_prints_it(tmp_path: Path) -> None:
    done = keyed(tmp_path, "deploy", "--model", "m", key="a-key-nobody-knows")
    assert done.stdout.splitlines()[-1] == "True"
    assert "***" in done.stdout
    assert "nobody" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["deploy", "--model", "m"], None),
        (["serve"], "a-key"),
        (["deploy", "a", "b", "c"], "a-key"),
    ],
)
def test_without_a_key_or_with_unknown_words_nothing_is_served(
    tmp_path: Path, words: list[str], key: str | None
) -> None:
    done = keyed(tmp_path, *words, key=key)
    assert done.returncode != 0
    assert "args:" not in done.stdout
