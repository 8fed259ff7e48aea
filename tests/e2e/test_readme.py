"""Every command of the README, as it is written there.

A command that no handling knows fails, so that none is added to the README without a proof.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from support_e2e import ROOT, Demo, Finished, RunningServer, Workshop

from palmswift.files import read_jsonl
from palmswift.launchers.run_folder import find_run

pytestmark = pytest.mark.e2e

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SHELL = ("", "bash", "sh", "shell")


def commands(readme: Path) -> list[str]:
    """The commands of a README's shell blocks, comments left out, continued lines joined."""
    text = readme.read_text(encoding="utf-8")
    blocks = [body for language, body in _BLOCK.findall(text) if language in _SHELL]
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    bare = [re.sub(r"(^|\s+)#.*", "", line).strip() for line in lines]
    return [re.sub(r"\s+", " ", line) for line in bare if line]


README = commands(ROOT / "README.md")


class Reader:
    """Somebody who tries the README on a machine without a GPU."""

    def __init__(self, workshop: Workshop, tools: Path) -> None:
        self.workshop = workshop
        self._tools = tools
        # On a machine that has a GPU, the large recipes would start to download and to train.
        program = tools / "nvidia-smi"
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)

    def types(self, line: str, stdin: str | None = None) -> Finished:
        """Run a line in a shell."""
        path = self.workshop.environment("")["PATH"]
        env = {"PATH": f"{self._tools}:{path}"}
        return self.workshop.call("bash", "-c", line, stdin=stdin, env=env)


@pytest.fixture(scope="module")
def reader(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Reader:
    """A reader who has run the demo, with the `my.jsonl` that the README shows."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = [body for language, body in _BLOCK.findall(text) if language == "json"]
    assert rows, "the README shows no row of data"
    (demo.workshop.folder / "my.jsonl").write_text(rows[0], encoding="utf-8")
    return Reader(demo.workshop, tmp_path_factory.mktemp("tools"))


Handler = Callable[[Reader, str, pytest.FixtureRequest], None]


def is_the_demo(reader: Reader, line: str, request: pytest.FixtureRequest) -> None:
    """tests/e2e/test_demo.py looks at all that it leaves."""
    demo: Demo = request.getfixturevalue("demo")
    assert demo.finished.exit_code == 0, demo.finished.said


def is_what_ci_runs(reader: Reader, line: str, request: pytest.FixtureRequest) -> None:
    """Whatever runs these tests, on a bare machine it is this command."""
    assert f"exec {line}\n" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def made_this_environment(reader: Reader, line: str, request: pytest.FixtureRequest) -> None:
    """It would change the environment that runs; tests/unit/test_quickstart.py tests it apart."""
    assert reader.types(f"{line} --help").exit_code == 0


def activates(reader: Reader, line: str, request: pytest.FixtureRequest) -> None:
    """In that shell, `python` is then the one that has ms-swift."""
    done = reader.types(
        f"{line} && python -c 'import importlib.metadata as m; print(m.version(\"ms-swift\"))'"
    )
    assert done.exit_code == 0, done.said
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", done.stdout)


def is_refused_without_a_gpu(reader: Reader, line: str, request: pytest.FixtureRequest) -> None:
    """Said before anything is fetched or written, with the recipe that would run here."""
    before = sorted((reader.workshop.folder / "runs").glob("*"))
    done = reader.types(line)
    assert done.exit_code == 2, done.said
    assert "this machine has no NVIDIA GPU" in done.stderr
    assert "--recipe demo_cpu" in done.stderr
    assert "my.jsonl" not in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted((reader.workshop.folder / "runs").glob("*")) == before


def shows_the_command(reader: Reader, line: str, request: pytest.FixtureRequest) -> None:
    """The resolved recipe and the `swift sft` command."""
    done = reader.types(line)
    assert done.exit_code == 0, done.said
    assert "swift sft" in done.stdout
    assert "--quant_bits" in done.stdout


def tells_of_the_demos_run(reader: Reader, line: str, request: pytest.FixtureRequest) -> None:
    """Among the runs, and as the last one that was worked on."""
    demo: Demo = request.getfixturevalue("demo")
    demo.run.save()
    done = reader.types(line)
    assert done.exit_code == 0, done.said
    assert demo.run.path.name in done.stdout
    assert "done" in done.stdout


def serves_the_latest_run(reader: Reader, line: str, request: pytest.FixtureRequest) -> None:
    """The command is right for the demo's run; tests/e2e/test_serving.py asks the server."""
    demo: Demo = request.getfixturevalue("demo")
    demo.run.save()
    parent = reader.workshop.folder / "runs"
    assert find_run("latest", parent=parent).path == demo.run.path
    done = reader.types(f"{line} --dry-run")
    assert done.exit_code == 0, done.said
    assert str(demo.run.facts("train")["checkpoint"]) in done.stdout


def asks_the_server(reader: Reader, line: str, request: pytest.FixtureRequest) -> None:
    """As written, but for the port; what is typed into a chat is a question."""
    server: RunningServer = request.getfixturevalue("server")
    assert "http://127.0.0.1:8000/v1" in line
    done = reader.types(line.replace("http://127.0.0.1:8000/v1", server.url), "周一上班吗？\n")
    assert done.exit_code == 0, done.said
    assert done.stdout


def sanitizes_the_messy_sample(reader: Reader, line: str, request: pytest.FixtureRequest) -> None:
    """With the counts that the README tells."""
    done = reader.types(line)
    assert done.exit_code == 0, done.said
    clean = reader.workshop.folder / "clean"
    rejected = [row["code"] for row in read_jsonl(clean / "rejected.jsonl")]
    assert sorted(rejected) == ["blank_answer", "broken_json", "no_answer", "no_answer"]
    train, val = (list(read_jsonl(clean / name)) for name in ("train.jsonl", "val.jsonl"))
    assert len(train) + len(val) == 8


class Handling(NamedTuple):
    """What is done with the commands that a pattern matches as a whole."""

    pattern: str
    handler: Handler


HANDLINGS = (
    Handling(r"python3 quickstart\.py demo", is_the_demo),
    Handling(r"python3 quickstart\.py test", is_what_ci_runs),
    Handling(r"python3 quickstart\.py install", made_this_environment),
    Handling(r"source \.venv/bin/activate", activates),
    Handling(r"python launchers/train\.py --recipe qwen3_8b_4bit --dry-run", shows_the_command),
    Handling(
        r"python launchers/(train|pipeline)\.py --recipe qwen3_\w+ --data my\.jsonl",
        is_refused_without_a_gpu,
    ),
    Handling(r"python launchers/runs\.py (list|tail latest)", tells_of_the_demos_run),
    Handling(r"python deploy/serve\.py --run latest", serves_the_latest_run),
    Handling(
        r"python eval/run\.py --suite eval/suites/clinic\.yaml --endpoint \S+ --out report/",
        asks_the_server,
    ),
    Handling(r"python eval/chat\.py --endpoint \S+", asks_the_server),
    Handling(
        r"python data/sanitize\.py data/samples/clinic/formats/messy\.jsonl "
        r"--recipe demo_cpu --out clean/",
        sanitizes_the_messy_sample,
    ),
)


def handlers_of(line: str) -> list[Handler]:
    """The handlers whose pattern matches the line."""
    return [found.handler for found in HANDLINGS if re.fullmatch(found.pattern, line)]


@pytest.mark.parametrize("line", README)
def test_a_command_of_the_readme_does_what_it_is_there_for(
    line: str, reader: Reader, request: pytest.FixtureRequest
) -> None:
    handlers = handlers_of(line)
    assert len(handlers) == 1, f"{len(handlers)} handlings for: {line}"
    handlers[0](reader, line, request)


def test_no_handling_is_left_over_from_a_command_that_is_gone() -> None:
    for handling in HANDLINGS:
        assert any(re.fullmatch(handling.pattern, line) for line in README), handling.pattern


def test_both_readmes_have_the_same_commands() -> None:
    assert commands(ROOT / "README.zh.md") == README
