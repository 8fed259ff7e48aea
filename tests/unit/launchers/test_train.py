"""`train.py --dry-run` shows exactly what would run, and no recipe, however broken, a traceback."""

from __future__ import annotations

import contextlib
import io
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from support_deploy import REPOSITORY
from support_recipes import WHOLE

from palmswift.launchers.train import main
from palmswift.recipes.source import recipe_names

RENDERED = Path(__file__).with_name("rendered")


def _dry_run(*words: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main([*words, "--dry-run", "--json"]) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def _portable(script: str) -> str:
    """The script without what differs between machines."""
    lines = []
    for line in script.rstrip().splitlines():
        continued = " \\" if line.endswith(" \\") else ""
        words = [
            word.replace(str(Path(sys.executable).with_name("swift")), "swift").replace(
                str(REPOSITORY), "PROJECT"
            )
            for word in shlex.split(line.removesuffix(" \\"))
        ]
        indent = line[: len(line) - len(line.lstrip())]
        lines.append(line if line.startswith("#") else indent + shlex.join(words) + continued)
    return "\n".join(lines) + "\n"


def test_every_recipe_has_a_stored_command() -> None:
    assert sorted(path.stem for path in RENDERED.glob("*.sh")) == recipe_names()


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipes_command_is_the_stored_one(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A change of a shipped command is seen in a diff; this writes the stored ones anew:
    `PYTHONPATH=tests python tests/unit/launchers/test_train.py`."""
    monkeypatch.delenv("PALMSWIFT_SWIFT", raising=False)
    monkeypatch.chdir(REPOSITORY)
    assert main(["--recipe", name, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    script = printed[printed.index("#!/usr/bin/env bash") :]
    assert _portable(script) == (RENDERED / f"{name}.sh").read_text(encoding="utf-8")


def test_the_printed_recipe_is_the_resolved_one_and_trains_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--recipe", "qwen3_8b_4bit", "--set", "swift.lora_rank=8", "--dry-run"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(printed[: printed.index("#!/usr/bin/env bash")], encoding="utf-8")
    assert yaml.safe_load(recipe.read_text(encoding="utf-8"))["swift"]["lora_rank"] == 8
    assert main(["--recipe", str(recipe), "--dry-run"]) == 0
    assert capsys.readouterr().out == printed


def test_own_rows_take_the_place_of_the_recipes_and_of_its_suite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    document = _dry_run(
        "--recipe", "demo_cpu", "--data", "a.csv", "--data", "b.json", capsys=capsys
    )
    data = document["recipe"]["data"]
    assert data["train"] == [str(tmp_path / "a.csv"), str(tmp_path / "b.json")]
    assert data["val"] == []
    assert document["recipe"]["eval"]["suite"] is None


def test_own_validation_rows_alone_leave_the_training_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    document = _dry_run("--recipe", "demo_cpu", "--val", "v.jsonl", capsys=capsys)
    assert document["recipe"]["data"]["train"] == ["data/samples/clinic/train.jsonl"]
    assert document["recipe"]["data"]["val"] == [str(tmp_path / "v.jsonl")]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "no recipe is named"),
        (["--recipe", "qwen3_8b_4bt"], "did you mean qwen3_8b_4bit"),
        (["--recipe", "~nobody-at-all/x.yaml"], "no recipe file"),
        (["--recipe", "x" * 400], "no recipe is called"),
        (["--resume", "latest", "--dry-run"], "leave --dry-run out"),
        (["--resume", "no-such-run"], "there is no run 'no-such-run'"),
    ],
)
def test_wrong_words_are_exit_code_2_and_say_what_to_do(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert said in capsys.readouterr().err


def test_all_wrong_settings_are_told_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    faults = ("swift.lora_rnk=3", "swift.learning_rate=abc", "modl.id=3", "x", "swift.seed=")
    words = [word for fault in faults for word in ("--set", fault)]
    assert main(["--recipe", "demo_cpu", *words, "--dry-run"]) == 2
    said = capsys.readouterr().err
    assert all(f"--set {fault}: " in said for fault in faults)


def test_broken_yaml_is_told_with_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("name: mine\nswift:\n  seed: [1\nsummary: x\n")
    assert main(["--recipe", str(recipe), "--dry-run"]) == 2
    assert f"{recipe}:4: broken YAML" in capsys.readouterr().err


_MORE_LINES = ("base: qwen3_gpu", "task: dpo", "env: {A: b}", "plugins: [p.py]")
_LINES = [*WHOLE.splitlines(), *_MORE_LINES]
_ODD = (
    *("", "null", "[]", "{}", "[1, x]", "{a: {b: c}}", "-1", "1e999", ".nan", "0x10", "no", "'"),
    *(
        "!!python/x y",
        '"\\0"',
        "&a [*a]",
        "*b",
        "2024-01-01",
        "9" * 5000,
        "损失",
        "- x",
        "? y",
        "|",
    ),
)
_VALUES = st.sampled_from(_ODD) | st.text(max_size=8)


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """A good recipe with some lines changed, doubled, dropped, moved or indented."""
    lines = draw(st.permutations(_LINES)) if draw(st.booleans()) else list(_LINES)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(lines) - 1))
        key = lines[at].partition(":")[0]
        change = draw(st.sampled_from(["value", "key", "drop", "double", "indent", "text"]))
        if change == "value":
            lines[at] = f"{key}: {draw(_VALUES)}"
        elif change == "key":
            lines[at] = f"{draw(_VALUES)}:{lines[at].partition(':')[2]}"
        elif change == "drop" and len(lines) > 1:
            del lines[at]
        elif change == "double":
            lines.insert(at, lines[at])
        elif change == "indent":
            lines[at] = " " * draw(st.integers(0, 6)) + lines[at].lstrip()
        else:
            lines[at] = draw(st.text(max_size=20))
    return "\n".join(lines)


@settings(max_examples=100, deadline=None)
@given(
    text=mutated(), override=st.none() | st.text(max_size=12) | _VALUES.map("swift.seed={}".format)
)
def test_no_mutation_of_a_recipe_gives_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, text: str, override: str | None
) -> None:
    path = tmp_path_factory.getbasetemp() / "mutated.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    words = ["--recipe", str(path), "--dry-run"]
    words += [] if override is None else [f"--set={override}"]
    said, printed = io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(printed):
        code = main(words)
    assert code in (0, 2)
    if code == 2:
        assert said.getvalue().startswith("error: ")
        assert "  " in said.getvalue(), "an error says where it is or what to do"
    else:
        assert "#!/usr/bin/env bash" in printed.getvalue()


def write_rendered() -> None:
    """Write tests/unit/launchers/rendered/*.sh anew from the recipes as they are."""
    for name in recipe_names():
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            main(["--recipe", name, "--dry-run"])
        script = printed.getvalue()
        script = _portable(script[script.index("#!/usr/bin/env bash") :])
        (RENDERED / f"{name}.sh").write_text(script, encoding="utf-8")


if __name__ == "__main__":
    write_rendered()
