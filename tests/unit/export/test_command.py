"""The export command refuses what cannot be done before any work, and says what to do."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import pytest
from support_runs import StandIn, prepare_project, write_project_recipe

from palmswift.deploy import serve
from palmswift.export.command import byte_count, main
from palmswift.export.manifest import read_manifest
from palmswift.export.quantise import PYTHON_VARIABLE
from palmswift.launchers import train
from palmswift.launchers.run_folder import find_run


@pytest.fixture
def swift(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """The stand-in, in a project with Chinese and a space in its path, with a finished run."""
    folder = tmp_path / "我的 project"
    folder.mkdir()
    stand_in = prepare_project(folder, monkeypatch)
    write_project_recipe(folder)
    assert train.main(["--recipe", "mine"]) == 0
    return stand_in


def told(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What a call that is refused says."""
    capsys.readouterr()
    assert main([*words]) == 2
    return capsys.readouterr().err


def test_what_is_to_be_made_has_to_be_said(
    swift: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "--merge, --quant awq|gptq|bnb|fp8" in told(capsys)


def test_all_that_is_wrong_is_told_at_once_before_any_work(
    swift: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--merge", "--bits", "4", "--memory-limit", "10MiB", "--calibration-rows", "0")
    said = told(capsys, *words)
    assert all(word in said for word in ("--bits", "--memory-limit", "--calibration-rows"))
    assert not (find_run("latest").path / "export").exists()


def test_a_quantiser_that_is_not_there_is_told_with_what_to_do(
    swift: StandIn, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PYTHON_VARIABLE, str(Path(sys.executable).with_name("no-such-python")))
    assert "could not be started" in told(capsys, "--quant", "awq")
    assert [call["command"] for call in swift.calls] == ["sft"]


def test_bits_that_a_method_has_not_are_refused(
    swift: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "bnb has 4 or 8 bits, not 3" in told(capsys, "--quant", "bnb", "--bits", "3")


def test_a_folder_with_other_things_in_it_is_left_alone(
    swift: StandIn, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter.tex").write_text("mine")
    assert "with other things in it" in told(capsys, "--merge", "--out", str(other))
    assert [file.name for file in other.iterdir()] == ["chapter.tex"]


def test_a_torn_checkpoint_is_refused_in_words(
    swift: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    file = find_run("latest").training / "checkpoint-4" / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    assert "checkpoint-4 of mine" in told(capsys, "--quant", "bnb")


def test_a_merge_is_checked_linked_to_where_it_was_asked_and_done_once(
    swift: StandIn, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    capsys.readouterr()
    out = tmp_path / "模型 one"
    assert main(["--merge", "--no-parity", "--out", str(out), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    (made,) = document["exports"]
    assert (made["kind"], made["path"], made["found"]) == ("merged", str(out), "bfloat16")
    run = find_run("latest")
    manifest = read_manifest(out)
    assert manifest is not None
    assert manifest == read_manifest(run.path / "export" / "merged")
    assert (manifest.run, manifest.thinking) == (run.path.name, False)
    assert manifest.data == run.facts("data")["rows"]
    assert manifest.remarks == ["not compared with the trained model: --no-parity"]
    assert (out / "model.safetensors").samefile(
        run.path / "export" / "merged" / "model.safetensors"
    )
    assert main(["--merge", "--no-parity"]) == 0
    assert [call["command"] for call in swift.calls] == ["sft", "export"]


def test_an_exported_folder_is_served_with_the_thinking_policy_of_its_training(
    swift: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--merge", "--no-parity"]) == 0
    merged = find_run("latest").path / "export" / "merged"
    capsys.readouterr()
    assert serve.main(["--model", str(merged), "--dry-run"]) == 0
    assert "--enable_thinking false" in capsys.readouterr().out
    assert serve.main(["--model", str(merged), "--set", "enable_thinking=true", "--dry-run"]) == 0
    assert "--enable_thinking true" in capsys.readouterr().out


def test_an_export_without_a_manifest_is_looked_at_again(swift: StandIn) -> None:
    assert main(["--merge", "--no-parity"]) == 0
    merged = find_run("latest").path / "export" / "merged"
    (merged / "palmswift-export.json").unlink()  # as one that was killed before its end
    assert main(["--merge", "--no-parity"]) == 0
    assert read_manifest(merged) is not None


def test_an_export_with_bad_numbers_fails_with_exit_code_1(
    swift: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--merge", "--no-parity"]) == 0
    merged = find_run("latest").path / "export" / "merged"
    (merged / "palmswift-export.json").unlink()
    file = merged / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-2] + b"\x80\x7f")  # bfloat16's infinity
    capsys.readouterr()
    assert main(["--merge", "--no-parity"]) == 1
    assert "FAILED finite: NaN or infinite: w" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "count"),
    [("4GiB", 4 << 30), ("512 MiB", 512 << 20), ("1.5g", 3 << 29), ("1073741824", 1 << 30)],
)
def test_sizes_are_read_as_people_write_them(text: str, count: int) -> None:
    assert byte_count(text) == count


@pytest.mark.parametrize("text", ["", "much", "-1GiB", "nanGiB", "4XB", "1e99G"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="size"):
        byte_count(text)
