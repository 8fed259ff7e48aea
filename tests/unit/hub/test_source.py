"""Models are made whole, once, and again when what they are made of changes; without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_deploy import model_folder
from support_recipes import make_checkout

from palmswift.errors import ChildError, InputError
from palmswift.hub.source import (
    MANIFEST,
    cached_model,
    content_key,
    copy_trained,
    embedded_model,
    missing_model,
)
from palmswift.recipes.recipe import EmbeddedModel, ModelSource


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder that is the project, so that models/ is made there."""
    monkeypatch.chdir(make_checkout(tmp_path))
    return tmp_path


def _make(folder: Path) -> None:
    (folder / "weights").write_text("whole")


def _refuse(folder: Path) -> None:
    raise AssertionError("made a second time")


def _names(project: Path) -> list[str]:
    return sorted(path.name for path in (project / "models").iterdir() if path.name[0] != ".")


def test_a_model_is_made_once_and_then_found(project: Path) -> None:
    folder = cached_model("m", "key", _make)
    assert cached_model("m", "key", _refuse) == folder == project / "models" / "m-key"
    assert (folder / "weights").read_text() == "whole"


def test_another_key_is_another_model(project: Path) -> None:
    cached_model("m", "one", _make)
    cached_model("m", "two", _make)
    assert _names(project) == ["m-one", "m-two"]


def test_a_torn_folder_is_made_again(project: Path) -> None:
    folder = cached_model("m", "key", _make)
    (folder / MANIFEST).unlink()
    (folder / "half").touch()
    assert cached_model("m", "key", _make) == folder
    assert sorted(file.name for file in folder.iterdir()) == [MANIFEST, "weights"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ChildError("no"), OSError("full")])
def test_a_making_that_stops_leaves_no_folder(project: Path, error: BaseException) -> None:
    def stop(folder: Path) -> None:
        _make(folder)
        raise error

    with pytest.raises(type(error)):
        cached_model("m", "key", stop)
    assert _names(project) == []
    assert not list((project / "models").glob(".*.part"))


def test_what_a_killed_maker_left_is_made_again(project: Path) -> None:
    part = project / "models" / ".m-key.part"
    part.mkdir(parents=True)
    (part / "half").touch()
    folder = cached_model("m", "key", _make)
    assert not (folder / "half").exists()


def test_two_processes_make_one_model_and_the_second_waits(project: Path) -> None:
    text = (
        "import sys, time; from pathlib import Path\n"
        "from palmswift.hub.source import cached_model\n"
        "def make(folder):\n"
        "    print('making', flush=True); sys.stdin.readline(); (folder / 'weights').touch()\n"
        "cached_model('m', 'key', make)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", text], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as first:
        assert first.stdin is not None and first.stdout is not None
        first.stdout.readline()
        said: list[str] = []

        def note(line: str) -> None:
            said.append(line)
            assert first.stdin is not None
            print("go on", file=first.stdin, flush=True)

        folder = cached_model("m", "key", _refuse, note)
    assert (folder / "weights").is_file()
    assert "waiting for it" in said[0]


@given(st.dictionaries(st.text(max_size=4), st.integers() | st.text(max_size=4), max_size=4))
def test_a_key_changes_with_its_parts_and_not_with_their_order(parts: dict[str, object]) -> None:
    key = content_key(parts)
    assert content_key(dict(reversed(parts.items()))) == key
    assert content_key({**parts, "more": 1}) != key
    assert content_key(parts, "x") != key


def test_a_key_changes_with_a_files_content_and_not_with_its_place(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_text("rows")
    second.write_text("rows")
    assert content_key(first) == content_key(second)
    second.write_text("other rows")
    assert content_key(first) != content_key(second)


def test_a_local_model_without_a_config_is_told(project: Path) -> None:
    folder = model_folder(project / "model")
    assert missing_model(ModelSource(id=str(folder), source="local")) is None
    (folder / "config.json").unlink()
    assert "config.json" in str(missing_model(ModelSource(id=str(folder), source="local")))


def test_a_hub_model_is_not_asked_for_here(project: Path) -> None:
    assert missing_model(ModelSource(id="Qwen/Qwen3-8B")) is None


def test_an_embedded_model_without_its_corpus_is_told_before_and_refused(project: Path) -> None:
    spec = EmbeddedModel(corpus=["gone.jsonl"])
    source = ModelSource(id="m", source="embedded", embedded=spec)
    assert "gone.jsonl" in str(missing_model(source))
    with pytest.raises(InputError, match=r"gone\.jsonl"):
        embedded_model("m", spec, project / "log")


def test_an_embedded_model_that_cannot_be_made_is_a_child_error_with_the_cause(
    project: Path,
) -> None:
    (project / "corpus.jsonl").write_text("no JSON\n")
    (project / "torch.py").write_text("raise ImportError('no torch here')")
    with pytest.raises(ChildError, match="could not be made") as caught:
        embedded_model("m", EmbeddedModel(corpus=["corpus.jsonl"]), project / "log")
    assert "no torch here" in caught.value.summary
    assert str(project / "log") in caught.value.remedy
    assert _names(project) == []


def test_a_checkpoint_is_copied_without_what_only_its_training_needs(tmp_path: Path) -> None:
    checkpoint, folder = tmp_path / "checkpoint-4", tmp_path / "model"
    checkpoint.mkdir()
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "optimizer.pt", "args.json"):
        (checkpoint / name).touch()
    (checkpoint / "trainer_state.json").touch()
    (checkpoint / "runs").mkdir()
    copy_trained(checkpoint, folder)
    assert sorted(file.name for file in folder.iterdir()) == ["config.json", "model.safetensors"]
