"""A run with an adapter becomes a GGUF file and a Modelfile by the README's command."""

from __future__ import annotations

import pytest
from support_e2e import Demo

pytestmark = pytest.mark.e2e


def test_a_lora_run_becomes_a_gguf_that_llama_cpp_answers_by_as_it_was_trained(
    lora_demo: Demo,
) -> None:
    words = ("--run", lora_demo.run.path.name, "--gguf", "q8_0", "--ollama", "--json")
    finished = lora_demo.workshop.call("python", "launchers/export.py", *words)
    assert finished.exit_code == 0, finished.said
    assert finished.left == []
    file, modelfile = finished.document["exports"]
    assert (file["kind"], modelfile["kind"]) == ("gguf-q8_0", "ollama")
    assert file["passed"] and modelfile["passed"], finished.said
    assert file["parity"]["same_prompts"] == file["parity"]["prompts"]
    assert file["parity"]["causes"] == []
    folder = lora_demo.run.path / "export"
    text = (folder / "ollama" / "Modelfile").read_text(encoding="utf-8")
    source = text.splitlines()[0].removeprefix("FROM ")
    assert (folder / "ollama" / source).is_file()
    assert text.count("<think>\n\n</think>") == 1
