"""What is taken out of the pinned source package, and that no other is."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from palmswift.errors import ChildError
from palmswift.export.llama_cpp.fetch import SCRIPT, fetched_converter, unpack

ROOT = "llama_cpp_python-0.3.36/vendor/llama.cpp"
KEPT = ["LICENSE", SCRIPT, "conversion/base.py", "gguf-py/gguf/__init__.py"]
LEFT = ["src/llama.cpp", "conversion/data.bin", "gguf-py/tests/test_quants.py"]


def archive(folder: Path, names: list[str]) -> tuple[Path, str]:
    """A source package with these files, and its hash."""
    file = folder / "source.tar.gz"
    with tarfile.open(file, "w:gz") as stream:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(name)
            stream.addfile(member, io.BytesIO(name.encode()))
    return file, hashlib.sha256(file.read_bytes()).hexdigest()


def test_the_converter_its_library_and_the_licence_are_kept(tmp_path: Path) -> None:
    file, digest = archive(tmp_path, [f"{ROOT}/{name}" for name in [*KEPT, *LEFT]])
    made = unpack(file, tmp_path / "converter", digest)
    found = {str(one.relative_to(made)) for one in made.rglob("*") if one.is_file()}
    assert found == set(KEPT)


def test_a_name_that_leads_out_of_the_folder_is_left_out(tmp_path: Path) -> None:
    names = [f"{ROOT}/{SCRIPT}", f"{ROOT}/conversion/../../../evil.py"]
    file, digest = archive(tmp_path, names)
    unpack(file, tmp_path / "converter", digest)
    assert not [*tmp_path.rglob("evil.py")]


def test_another_source_package_than_was_tested_is_refused(tmp_path: Path) -> None:
    file, _ = archive(tmp_path, [f"{ROOT}/{SCRIPT}"])
    with pytest.raises(ChildError, match="is not the llama-cpp-python"):
        unpack(file, tmp_path / "converter")
    assert not (tmp_path / "converter").exists()


def test_a_package_without_the_converter_is_refused(tmp_path: Path) -> None:
    file, digest = archive(tmp_path, [f"{ROOT}/LICENSE"])
    with pytest.raises(ChildError, match="holds no"):
        unpack(file, tmp_path / "converter", digest)


def test_a_cache_that_cannot_be_written_is_told_with_the_way_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(ChildError, match="cannot be written") as raised:
        fetched_converter(print)
    assert "--llama-cpp DIR" in raised.value.remedy
