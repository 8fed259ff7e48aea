"""The front is light: no command imports torch, transformers, ms-swift or what they drag in."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from support_deploy import REPOSITORY

from palmswift.__main__ import COMMANDS
from palmswift.recipes.plugins import shipped_plugins

HEAVY = ("torch", "transformers", "swift", "peft", "datasets", "numpy", "pandas", "modelscope")
NOT_FOR_HELP = (*HEAVY, "rich", "aiohttp", "requests", "sacrebleu", "jinja2")

CALLS = """
import contextlib, importlib, json, os, sys
imported = {}
for name, module, words in json.loads(sys.argv[1]):
    before = set(sys.modules)
    with contextlib.redirect_stdout(open(os.devnull, "w")):
        try:
            code = importlib.import_module(module).main(words)
        except SystemExit as end:
            code = end.code
    imported[name] = [code, sorted({new.partition(".")[0] for new in set(sys.modules) - before})]
print(json.dumps(imported))
"""
"""Calls commands in turn; prints each one's exit code and what it was the first to import."""


def _call(calls: list[tuple[str, str, list[str]]]) -> dict[str, tuple[int, list[str]]]:
    done = subprocess.run(
        [sys.executable, "-c", CALLS, json.dumps(calls)],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-800:]
    found: dict[str, tuple[int, list[str]]] = json.loads(done.stdout)
    return found


def _culprits(found: dict[str, tuple[int, list[str]]], forbidden: tuple[str, ...]) -> Any:
    return {
        name: sorted({*new} & {*forbidden})
        for name, (_, new) in found.items()
        if {*new} & {*forbidden}
    }


def test_no_help_imports_what_a_help_has_no_need_of() -> None:
    found = _call([(word, module, ["--help"]) for word, (module, _) in COMMANDS.items()])
    assert {code for code, _ in found.values()} == {0}
    assert _culprits(found, NOT_FOR_HELP) == {}


@pytest.mark.parametrize("room", ["recipes", "plan", "launchers", "deploy", "pipeline"])
def test_the_help_of_rooms_that_many_words_pass_through_needs_no_pydantic(room: str) -> None:
    modules = [module for module, _ in COMMANDS.values() if module.startswith(f"palmswift.{room}")]
    found = _call([(module, module, ["--help"]) for module in modules])
    assert found
    assert _culprits(found, ("pydantic", "yaml", "psutil")) == {}


def test_commands_that_load_no_model_import_no_torch() -> None:
    found = _call(
        [
            ("dry", "palmswift.launchers.train", ["--recipe", "qwen3_8b_4bit", "--dry-run"]),
            ("whole", "palmswift.pipeline", ["--recipe", "demo_cpu", "--dry-run"]),
            ("plan", "palmswift.plan.commands", ["--recipe", "qwen3_8b_4bit"]),
            ("fit", "palmswift.plan.commands", ["--recipe", "qwen3_8b_4bit", "--fit"]),
            ("server", "palmswift.plan.commands", ["--recipe", "qwen3_8b_4bit", "--serve"]),
            ("list", "palmswift.recipes_command", ["list"]),
            ("check", "palmswift.recipes_command", ["check"]),
            ("diff", "palmswift.recipes_command", ["diff", "demo_cpu", "demo_cpu_lora"]),
            ("runs", "palmswift.runs_command", ["list"]),
            ("export", "palmswift.recipes_command", ["export", "demo_cpu", "--to", "sh"]),
        ]
    )
    assert {code for code, _ in found.values()} == {0}
    assert _culprits(found, HEAVY) == {}


def test_no_module_but_a_worker_imports_torch_when_it_is_imported() -> None:
    # parts of children, which the front starts and never imports; plugins are ms-swift's to import
    workers = {"real_template", "batch_template", "template_samples", "bounded_server"}
    workers |= {*shipped_plugins()}
    source = REPOSITORY / "src" / "palmswift"
    names = [
        ".".join(("palmswift", *file.relative_to(source).with_suffix("").parts))
        for file in sorted(source.rglob("*.py"))
        if not file.stem.startswith("__")
        and not file.stem.endswith("_worker")
        and file.stem not in workers
    ]
    assert len(names) > 50
    text = (
        "import importlib, sys\n"
        f"for name in {names}: importlib.import_module(name)\n"
        f"print(sorted({{*{HEAVY[:6]}}} & {{*sys.modules}}))"
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
