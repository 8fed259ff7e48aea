"""A quantisation is handed to llm-compressor's Python, whole or not at all, and looked at."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest
from support_runs import TESTS, StandIn, make_run, prepare_project, write_project_recipe

from palmswift.errors import InputError
from palmswift.export import quantise
from palmswift.export.command import main
from palmswift.export.manifest import read_manifest
from palmswift.launchers import train
from palmswift.launchers.run_folder import find_run
from palmswift.recipes.catalogue import load_catalogue

PROGRAM = """
import json, sys
from pathlib import Path

sys.path.insert(0, "TESTS")
from support_checkpoints import Numbers, write_base

here = Path(__file__).parent
spec = json.loads(Path(sys.argv[1]).read_text())
(here / "spec.json").write_text(json.dumps(spec))
if (here / "fails").exists():
    Path(spec["out"]).mkdir()
    (Path(spec["out"]) / "half").touch()
    raise SystemExit("RuntimeError: it went wrong")
out = write_base(
    Path(spec["out"]),
    {
        "model.layers.0.mlp.up_proj.weight": Numbers("F8_E4M3", [56] * 64, (8, 8)),
        "model.layers.0.mlp.up_proj.weight_scale": Numbers("BF16", [1.0] * 8),
        "w": Numbers("BF16", [1.0, 2.0]),
    },
)
groups = {"group_0": {"weights": {"num_bits": 8, "type": "float"}}}
config = {"quant_method": "compressed-tensors", "config_groups": groups}
told = {"model_type": "qwen3", "quantization_config": config}
(out / "config.json").write_text(json.dumps(told))
"""


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a Python that stands for one with llm-compressor; a run is there to export."""
    stand_in: StandIn = prepare_project(tmp_path, monkeypatch)
    assert stand_in.calls == []
    write_project_recipe(tmp_path)
    assert train.main(["--recipe", "mine"]) == 0
    folder = tmp_path / "quant tool"
    folder.mkdir()
    (folder / "child.py").write_text(PROGRAM.replace("TESTS", str(TESTS)))
    program = folder / "python"
    child = shlex.join([sys.executable, "-S", str(folder / "child.py")])
    program.write_text(f'#!/bin/sh\nif [ "$1" = -c ]; then exit 0; fi\nexec {child} "$2"\n')
    program.chmod(0o755)
    monkeypatch.setenv(quantise.PYTHON_VARIABLE, str(program))
    return folder


def test_fp8_is_made_of_the_merged_model_and_looked_at(tool: Path) -> None:
    assert main(["--quant", "fp8", "--no-parity"]) == 0
    run = find_run("latest")
    spec = json.loads((tool / "spec.json").read_text())
    assert spec["model"] == str(run.path / "export" / "merged")
    assert (spec["method"], spec["bits"]) == ("fp8", 8)
    manifest = read_manifest(run.path / "export" / "fp8")
    assert manifest is not None
    assert (manifest.asked, manifest.found) == ("fp8", "compressed-tensors 8 bit")
    assert {check.name for check in manifest.checks} == {"whole", "finite", "quantised", "size"}
    assert all(check.passed for check in manifest.checks)


def test_one_that_failed_leaves_nothing_that_could_be_taken_for_whole(
    tool: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tool / "fails").touch()
    capsys.readouterr()
    assert main(["--quant", "fp8", "--no-parity"]) == 3
    assert "fp8 could not be made: RuntimeError: it went wrong" in capsys.readouterr().err
    export = find_run("latest").path / "export"
    assert sorted(path.name for path in export.iterdir()) == ["command.sh", "merged"]
    (tool / "fails").unlink()
    assert main(["--quant", "fp8", "--no-parity"]) == 0
    (tool / "spec.json").unlink()
    assert main(["--quant", "fp8", "--no-parity"]) == 0
    assert not (tool / "spec.json").exists()  # it was whole, and was not made again


def test_bitsandbytes_is_asked_for_as_the_recipe_was_trained(tmp_path: Path) -> None:
    run = make_run(tmp_path, swift={"bnb_4bit_quant_type": "fp4", "model_type": "qwen3"})
    asked = quantise.wanted("bnb", 4)
    arguments = quantise.bnb_arguments(run, Path("m"), Path("o"), asked)
    assert arguments["bnb_4bit_quant_type"] == "fp4"
    assert arguments.keys() <= load_catalogue().flags("export").keys()
    eight = quantise.bnb_arguments(run, Path("m"), Path("o"), quantise.wanted("bnb", 8))
    assert (eight["quant_bits"], "bnb_4bit_quant_type" in eight) == (8, False)


def test_memory_and_disk_are_looked_at_before_the_model_is_loaded(tmp_path: Path) -> None:
    found = [*quantise.room_problems(quantise.wanted("awq", None), 10**15, tmp_path)]
    assert ["whole model in memory" in found[0].what, "are written" in found[1].what] == [
        True,
        True,
    ]


def test_a_method_that_there_is_not_is_refused() -> None:
    with pytest.raises(InputError, match="one of bnb, awq, gptq, fp8"):
        quantise.wanted("hqq", None)
