"""How the tests are dealt out to several processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

CONFTEST = """
import os
import pytest

pytest_plugins = ["support_workers"]

@pytest.fixture(scope="session")
def demo():
    print_line("demo")

@pytest.fixture(scope="module")
def small(request):
    print_line("small")

def pytest_runtest_call(item):
    print_line(item.path.name)

def print_line(what):
    with open(os.environ["TOLD"], "a") as told:
        told.write(f"{os.getpid()} {what}\\n")
"""

MODULES = {
    "tests/unit/test_short.py": "def test_it(small): pass\ndef test_more(small): pass\n",
    "tests/unit/test_brief.py": "def test_it(small): pass\ndef test_more(small): pass\n",
    "tests/e2e/test_served.py": "def test_it(demo): pass\ndef test_other(): pass\n",
    "tests/e2e/test_asked.py": "def test_it(demo): pass\n",
    "tests/e2e/test_long.py": "def test_it(small): pass\ndef test_more(small): pass\n",
}


class Told:
    """What the tests told, each line with the process that told it."""

    def __init__(self, text: str) -> None:
        self.lines = [tuple(line.split()) for line in text.splitlines()]

    def processes(self, *what: str) -> list[str]:
        """The processes that told one of these, once for each line."""
        return [process for process, told in self.lines if told in what]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with a few modules of tests."""
    for name, text in {"conftest.py": CONFTEST, **MODULES}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text(f"[pytest]\npythonpath = {ROOT / 'tests'}\n")
    return tmp_path


def told_by(project: Path, *words: str) -> Told:
    """What the tests of the project tell, run as `quickstart.py test` runs them."""
    told = project / "told"
    env = {**os.environ, "TOLD": str(told), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    env["PYTEST_ADDOPTS"] = ""
    for name in [name for name in env if name.startswith("PYTEST_XDIST")]:
        del env[name]
    options = ("-p", "xdist", "--import-mode=importlib", "-n", "auto", "--dist", "loadgroup")
    argv = [sys.executable, "-m", "pytest", *options, *words]
    done = subprocess.run(argv, cwd=project, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return Told(told.read_text(encoding="utf-8"))


def test_modules_are_dealt_out_whole_and_those_with_a_shared_fixture_together(
    project: Path,
) -> None:
    told = told_by(project, "-n", "3")
    assert len(told.processes("demo")) == 1
    assert len(set(told.processes("demo", "test_served.py", "test_asked.py"))) == 1
    for module in ("test_short.py", "test_brief.py", "test_long.py"):
        assert len(told.processes(module)) == 2
        assert len(set(told.processes(module))) == 1
    assert len(told.processes("small")) == 3
    assert len({process for process, _ in told.lines}) > 1


def test_what_takes_long_comes_first(project: Path) -> None:
    order = [name for _, name in told_by(project, "-n", "1").lines if name.endswith(".py")]
    assert set(order[:3]) == {"test_served.py", "test_asked.py"}
    assert order[3:5] == ["test_long.py"] * 2


@pytest.mark.parametrize("words", [["-k", "more"], ["tests/unit/test_short.py"]])
def test_a_few_tests_run_in_one_process(project: Path, words: list[str]) -> None:
    assert len({process for process, _ in told_by(project, *words).lines}) == 1
