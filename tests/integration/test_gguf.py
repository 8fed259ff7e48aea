"""GGUF by llama.cpp's own converter and quantiser, asked through llama.cpp's own server.

The models are Qwen3s of random weights whose tokenizer cuts text as Qwen2's does.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFReader
from support_gguf import POLICY, truth_of, write_model

from palmswift.command import Console
from palmswift.deploy.parity_judge import ParityReport
from palmswift.deploy.parity_truth import Truth
from palmswift.errors import ChildError, InputError
from palmswift.export import gguf as stage
from palmswift.export.gguf import composed, gguf_stage
from palmswift.export.llama_cpp import tools
from palmswift.export.llama_cpp.checks import Looked, Wanted, look_at
from palmswift.export.llama_cpp.proof import prove, serving, standard_for
from palmswift.export.llama_cpp.templates import CHATML, Policy, with_policy
from palmswift.export.manifest import Exported, read_manifest
from palmswift.export.ollama import ollama_stage
from palmswift.launchers.run_folder import RunFolder
from palmswift.recipes.recipe import Recipe

SYSTEM = Policy(thinking=False, system='Say "yes", 是, or {{ nothing }}.\nNo more.')


class Bench:
    """A tuned model, its base, what both say, and a run that made the one of the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tuned = write_model(folder / "tuned", 3)
        self.base = write_model(folder / "base", 4)
        self.truth = truth_of(self.tuned, self.base)
        recipe = Recipe.model_validate(
            {
                "name": "toy",
                "summary": "random weights",
                "model": {"id": "maker/Toy", "source": "huggingface"},
                "data": {"system": "Be kind."},
                "budget": {"gpu_mib": 0},
                "swift": {"template": "qwen3", "enable_thinking": False, "tuner_type": "full"},
            }
        )
        self.run = RunFolder.create(recipe, parent=folder / "含 空格")
        with self.run.stage("model") as facts:
            facts["model"] = str(self.base)
        with self.run.stage("train") as facts:
            facts["checkpoint"] = str(Path("../..") / "tuned")

    def export(self, model: Path, kind: str) -> Exported:
        """What the export makes of a model; the truth is there already."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stage, "truth_of", lambda run: self.truth)
            return gguf_stage(self.run, model, kind, Console(json_output=True))

    def asked(self, file: Path, kind: str) -> ParityReport:
        """What llama.cpp's server makes of a file."""
        server = tools.server(None)
        assert server is not None
        log = self.folder / f"{file.stem}.log"
        truth: Truth = composed(self.truth)
        return prove(
            server,
            file,
            truth,
            run_name="toy",
            log=log,
            standard=standard_for(self.run, kind, None),
        )

    def quantised(self, source: Path, kind: str) -> Path:
        """A file quantised by llama.cpp, by the stage's own tool."""
        out = self.folder / f"{source.stem}-{kind}.gguf"
        words = [*tools.quantiser(None).argv, str(source), str(out), kind.upper(), "1"]
        subprocess.run(words, check=True, capture_output=True)
        return out


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Both models, and what they answer."""
    return Bench(tmp_path_factory.mktemp("gguf"))


@pytest.fixture(scope="module")
def whole(bench: Bench) -> Exported:
    """The tuned model's weights as they are."""
    return bench.export(bench.tuned, "f32")


@pytest.fixture(scope="module")
def four_bit(bench: Bench, whole: Exported) -> Exported:
    """The usual kind for a small card; made after the other, on the same run."""
    return bench.export(bench.tuned, "q4_k_m")


def wanted(kind: str, template: str | None = None) -> Wanted:
    """What a file of the bench's model has to be."""
    told = with_policy(CHATML, POLICY) if template is None else template
    return Wanted(kind, told, "qwen2", {"<|im_end|>": 2})


def failed(looked: Looked) -> list[str]:
    """The names of the checks that failed."""
    return [check.name for check in looked.checks if not check.passed]


def changed(source: Path, out: Path, *words: str) -> Path:
    """A copy with other metadata, by the gguf package's own script."""
    module = "gguf.scripts.gguf_new_metadata"
    subprocess.run([sys.executable, "-m", module, *words, source, out], check=True)
    return out


def test_whole_weights_are_the_trained_model_to_the_token(whole: Exported) -> None:
    assert whole.passed, whole.model_dump_json(indent=1)
    assert whole.parity is not None
    assert whole.parity.same_prompts == whole.parity.prompts == 4
    assert whole.parity.divergence is not None and whole.parity.divergence < 0.01


def test_a_tokenizer_that_llama_cpp_has_no_hash_of_is_declared_by_its_own_rule(
    whole: Exported,
) -> None:
    reader = GGUFReader(whole.path)
    field = reader.get_field("tokenizer.ggml.pre")
    assert field is not None and field.contents() == "qwen2"
    assert any("NFC" in remark for remark in whole.remarks)


def test_a_quantised_file_is_of_the_kind_asked_and_its_loss_is_a_figure(
    whole: Exported, four_bit: Exported
) -> None:
    assert four_bit.found.startswith("q4_k_m")
    assert four_bit.bytes < whole.bytes / 4
    assert all(check.passed for check in four_bit.checks), four_bit.model_dump_json(indent=1)
    assert four_bit.parity is not None and four_bit.parity.divergence is not None
    assert whole.parity is not None and whole.parity.divergence is not None
    assert four_bit.parity.divergence > whole.parity.divergence
    assert four_bit.parity.same_prompts == 4


def test_the_file_says_what_it_is_of(four_bit: Exported) -> None:
    reader = GGUFReader(four_bit.path)
    told = {name: field.contents() for name, field in reader.fields.items() if "general" in name}
    assert told["general.name"] == "toy"
    assert told["general.quantized_by"].startswith("palmswift ")
    assert told["general.base_model.0.repo_url"] == "https://huggingface.co/maker/Toy"
    assert told["general.base_model.0.organization"] == "maker"


def test_only_the_file_its_manifest_and_its_proof_are_left(four_bit: Exported) -> None:
    folder = four_bit.path.parent
    names = {"palmswift-export.json", "parity.json", four_bit.path.name}
    assert {file.name for file in folder.iterdir()} == names
    manifest = read_manifest(folder)
    assert manifest is not None
    assert manifest.stop_tokens == {"<|im_end|>": 2}
    assert manifest.parity == four_bit.parity


def test_a_system_prompt_that_was_trained_with_is_in_llama_cpps_prompt(
    bench: Bench, whole: Exported
) -> None:
    import requests

    template = with_policy(CHATML, SYSTEM)
    file = changed(whole.path, bench.folder / "system.gguf", "--chat-template", template)
    server = tools.server(None)
    assert server is not None
    log = bench.folder / "system.log"
    with serving(server, file, log=log, context=256, patience=60) as base_url:
        body = {"messages": [{"role": "user", "content": "hi"}]}
        reply = requests.post(
            f"{base_url.removesuffix('/v1')}/apply-template", json=body, timeout=9
        )
    assert reply.json()["prompt"] == (
        f"<|im_start|>system\n{SYSTEM.system}<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )


def test_another_chat_template_in_the_file_is_seen_and_named(bench: Bench, whole: Exported) -> None:
    thinks = with_policy(CHATML, Policy(thinking=True, system=None))
    file = changed(whole.path, bench.folder / "thinks.gguf", "--chat-template", thinks)
    assert failed(look_at(file, bench.tuned, wanted("f32"))) == ["chat template"]
    assert [*bench.asked(file, "f32").causes] == ["thinking"]
    shouts = CHATML.replace("message.content", "message.content | upper")
    file = changed(whole.path, bench.folder / "shouts.gguf", "--chat-template", shouts)
    assert "template" in bench.asked(file, "f32").causes


def test_a_model_without_its_training_is_named(bench: Bench, whole: Exported) -> None:
    made = bench.export(bench.base, "f16")
    assert made.parity is not None and made.parity.causes == ["adapter_missing"]
    assert not made.passed


def test_too_few_bits_are_named_with_what_they_cost(bench: Bench, whole: Exported) -> None:
    found = bench.asked(bench.quantised(whole.path, "q2_k"), "q2_k")
    assert [*found.causes] == ["quantisation_loss"]
    assert all(one.detail for one in found.prompts if one.cause)


def test_a_lost_stop_token_is_seen(bench: Bench, whole: Exported) -> None:
    file = bench.folder / "endless.gguf"
    shutil.copy(whole.path, file)
    script = "gguf.scripts.gguf_set_metadata"
    words = [sys.executable, "-m", script, "--force", str(file), "tokenizer.ggml.eos_token_id", "0"]
    subprocess.run(words, check=True)
    assert failed(look_at(file, bench.tuned, wanted("f32"))) == ["stop token"]


def _cut(file: Path) -> None:
    with file.open("r+b") as stream:
        stream.truncate(file.stat().st_size - 5000)


def _poison(file: Path) -> None:
    reader = GGUFReader(file, "r+")
    tensor = next(one for one in reader.tensors if one.name == "blk.1.ffn_up.weight")
    tensor.data[3, 5] = float("nan")
    reader.data.flush()


DAMAGE: dict[str, Callable[[Path], None]] = {"whole": _cut, "finite": _poison}


@pytest.mark.parametrize("check", DAMAGE)
def test_a_damaged_file_is_seen(check: str, bench: Bench, whole: Exported) -> None:
    file = bench.folder / f"{check}.gguf"
    shutil.copy(whole.path, file)
    DAMAGE[check](file)
    assert check in failed(look_at(file, bench.tuned, wanted("f32")))


def test_scales_that_are_not_finite_are_seen_in_quantised_blocks(
    bench: Bench, four_bit: Exported
) -> None:
    import numpy

    file = bench.folder / "scales.gguf"
    shutil.copy(four_bit.path, file)
    reader = GGUFReader(file, "r+")
    tensor = next(one for one in reader.tensors if one.tensor_type.name == "Q4_K")
    tensor.data[0, :2] = numpy.frombuffer(numpy.float16("inf").tobytes(), dtype=numpy.uint8)
    reader.data.flush()
    assert failed(look_at(file, bench.tuned, wanted("q4_k_m"))) == ["finite"]


def test_a_quantisation_that_was_left_out_is_seen(bench: Bench, whole: Exported) -> None:
    assert failed(look_at(whole.path, bench.tuned, wanted("q4_k_m"))) == ["kind"]


def test_a_file_of_another_model_is_seen(bench: Bench, whole: Exported, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(bench.tuned, other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    assert failed(look_at(whole.path, other, wanted("f32"))) == ["architecture"]


@pytest.fixture
def unknown(bench: Bench, tmp_path: Path) -> Iterator[Path]:
    """The model with a tokenizer that cuts by a rule that llama.cpp has not."""
    folder = tmp_path / "unknown"
    shutil.copytree(bench.tuned, folder)
    document: dict[str, Any] = json.loads((folder / "tokenizer.json").read_text())
    split = document["pre_tokenizer"]["pretokenizers"][0]
    split["pattern"]["Regex"] = split["pattern"]["Regex"].replace(r"\p{N}", r"\p{N}{1,2}")
    (folder / "tokenizer.json").write_text(json.dumps(document))
    yield folder


def test_a_tokenizer_that_llama_cpp_cannot_have_is_refused_with_the_reason(
    bench: Bench, unknown: Path
) -> None:
    with pytest.raises(ChildError, match="a rule that llama"):
        bench.export(unknown, "f16")
    assert not read_manifest(bench.run.path / "export" / "gguf-f16")


def test_what_cannot_be_made_is_refused_before_any_work(bench: Bench) -> None:
    with pytest.raises(InputError, match="q4_k_m"):
        bench.export(bench.tuned, "q4_k_n")
    with pytest.raises(InputError, match="no whole model"):
        bench.export(bench.folder, "q8_0")
    assert not (bench.run.path / "export" / "gguf-q8_0").exists()


def test_without_a_server_it_says_that_nothing_was_compared(
    bench: Bench, whole: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    def converted(job: Any, *rest: Any) -> None:
        job.folder.mkdir(parents=True)
        shutil.copy(whole.path, job.file)

    monkeypatch.setattr(tools, "server", lambda own: None)
    monkeypatch.setattr(stage, "_convert", converted)
    made = bench.export(bench.tuned, "bf16")
    assert made.parity is None
    assert any("pip install 'palmswift[gguf]'" in remark for remark in made.remarks)


def test_the_modelfile_is_of_the_file_and_its_template_is_the_trainings(
    bench: Bench, whole: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "truth_of", lambda run: bench.truth)
    made = ollama_stage(bench.run, whole, Console(json_output=True))
    assert made.passed, made.model_dump_json(indent=1)
    text = (made.path / "Modelfile").read_text(encoding="utf-8")
    source = text.splitlines()[0].removeprefix("FROM ")
    assert (made.path / source).resolve() == whole.path.resolve()
    assert 'PARAMETER stop "<|im_end|>"' in text
    assert "PARAMETER temperature 0" in text
    assert "PARAMETER num_ctx 512" in text
    assert 'SYSTEM """Be kind."""' in text
