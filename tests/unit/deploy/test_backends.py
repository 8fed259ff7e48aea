"""Each backend of `swift deploy` is told all that decides an answer, and refused what it cannot."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
from support_deploy import adapter_folder, model_folder, spec_of

from palmswift.deploy.adapters import vllm_adapter_problems, vllm_lora_rank
from palmswift.deploy.backends import (
    Backend,
    engine_arguments,
    generation_defaults,
    require_installed,
    vllm_environment,
)
from palmswift.deploy.spec import ServerSpec, check_spec, deploy_arguments
from palmswift.errors import InputError
from palmswift.recipes.catalogue import check_value, load_catalogue

TRAINED = {"template": "qwen3", "torch_dtype": "bfloat16", "enable_thinking": False}


def served(folder: Path, backend: str, **changes: Any) -> ServerSpec:
    """A whole model of 4096 tokens, trained as TRAINED says."""
    spec = spec_of(folder, backend=backend, **{"swift": TRAINED, **changes})
    config = {"model_type": "qwen3", "max_position_embeddings": 4096}
    (Path(spec.model) / "config.json").write_text(json.dumps(config))
    return spec


def faults_of(spec: ServerSpec) -> str:
    with pytest.raises(InputError) as caught:
        check_spec(spec)
    return str(caught.value)


@pytest.mark.parametrize("backend", get_args(Backend))
def test_every_backend_gets_arguments_that_ms_swift_knows_and_takes(
    tmp_path: Path, backend: str
) -> None:
    spec = served(tmp_path, backend)
    check_spec(spec)
    flags = load_catalogue().flags("deploy")
    arguments = deploy_arguments(spec, 8000)
    assert not [f for name, value in arguments.items() if (f := check_value(flags[name], value))]
    assert arguments["infer_backend"] == backend
    assert arguments.items() >= {**TRAINED, "served_model_name": "demo"}.items()


@pytest.mark.parametrize(
    ("backend", "argument"),
    [
        ("vllm", "vllm_max_model_len"),
        ("sglang", "sglang_context_length"),
        ("lmdeploy", "lmdeploy_session_len"),
    ],
)
def test_the_context_is_said_in_the_backends_own_word(
    tmp_path: Path, backend: str, argument: str
) -> None:
    assert deploy_arguments(served(tmp_path, backend), 1)[argument] == 4096
    shorter = served(tmp_path, backend, swift={**TRAINED, "max_model_len": 1024})
    assert deploy_arguments(shorter, 1)[argument] == 1024
    own = served(tmp_path, backend, swift={**TRAINED, argument: 512})
    assert deploy_arguments(own, 1)[argument] == 512


def test_what_only_the_transformers_backend_knows_is_not_given_to_others(tmp_path: Path) -> None:
    own = {**TRAINED, "max_batch_size": 4, "attn_impl": "sdpa"}
    assert deploy_arguments(served(tmp_path, "transformers", swift=own), 1)["max_batch_size"] == 4
    assert not {"max_batch_size", "attn_impl"} & {
        *deploy_arguments(served(tmp_path, "vllm", swift=own), 1)
    }


@pytest.mark.parametrize(
    ("config", "defaults"),
    [
        (None, {"temperature": 0.0, "repetition_penalty": 1.0}),
        ({"temperature": 0.6}, {"temperature": 0.0, "repetition_penalty": 1.0}),
        (
            {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95},
            {"temperature": 0.6, "top_k": 20, "top_p": 0.95, "repetition_penalty": 1.0},
        ),
        (
            {"do_sample": True, "repetition_penalty": 1.05},
            {"temperature": 1.0, "repetition_penalty": 1.0},
        ),
    ],
)
def test_how_tokens_are_chosen_is_the_models_own_default_without_a_penalty(
    tmp_path: Path, config: object, defaults: dict[str, float]
) -> None:
    model = model_folder(tmp_path / "model")
    if config is not None:
        (model / "generation_config.json").write_text(json.dumps(config))
    assert generation_defaults(str(model)) == defaults


def test_a_hubs_model_keeps_what_ms_swift_finds_in_it() -> None:
    assert generation_defaults("Qwen/Qwen3-0.6B") == {}


def test_what_a_recipe_says_of_generation_stands_over_the_models_default(tmp_path: Path) -> None:
    spec = served(tmp_path, "transformers", swift={**TRAINED, "temperature": 0.3})
    assert deploy_arguments(spec, 1)["temperature"] == 0.3


@pytest.mark.parametrize("backend", ["sglang", "lmdeploy"])
def test_an_adapter_that_ms_swift_would_drop_is_refused_with_the_way_to_merge(
    tmp_path: Path, backend: str
) -> None:
    told = faults_of(served(tmp_path, backend, adapter=adapter_folder(tmp_path / "adapter")))
    assert "the untouched base" in told
    assert "launchers/export.py" in told


@pytest.mark.parametrize(
    ("backend", "swift", "said"),
    [
        ("sglang", {"quant_method": "bnb", "quant_bits": 4}, "no bitsandbytes"),
        ("lmdeploy", {"quant_method": "bnb", "quant_bits": 4}, "no bitsandbytes"),
        ("lmdeploy", {"torch_dtype": "float32"}, "16 bits"),
        ("vllm", {"quant_method": "bnb", "quant_bits": 8}, "4 bits only"),
        ("vllm", {"quant_method": "bnb", "bnb_4bit_quant_type": "fp4"}, "nf4 only"),
    ],
)
def test_weights_that_a_backend_would_change_in_silence_are_refused(
    tmp_path: Path, backend: str, swift: dict[str, object], said: str
) -> None:
    assert said in faults_of(served(tmp_path, backend, swift={**TRAINED, **swift}))


def test_a_backend_that_needs_a_gpu_is_refused_on_the_cpu(tmp_path: Path) -> None:
    spec = served(tmp_path, "sglang", env={"CUDA_VISIBLE_DEVICES": ""})
    assert "needs a GPU" in faults_of(spec)


def test_vllm_is_told_to_quantise_what_was_trained_quantised(tmp_path: Path) -> None:
    spec = served(tmp_path, "vllm", swift={**TRAINED, "quant_method": "bnb", "quant_bits": 4})
    check_spec(spec)
    assert deploy_arguments(spec, 1)["vllm_quantization"] == "bitsandbytes"


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"modules_to_save": ["embed_tokens"]}, "modules_to_save"),
        ({"bias": "all"}, "bias"),
        ({"init_lora_weights": "pissa"}, "pissa"),
        ({"peft_type": "LOHA"}, "peft_type"),
    ],
)
def test_an_adapter_that_vllm_cannot_run_is_refused_before_the_start(
    tmp_path: Path, config: dict[str, object], said: str
) -> None:
    adapter = adapter_folder(tmp_path / "adapter")
    whole = {**json.loads((adapter / "adapter_config.json").read_text()), **config}
    (adapter / "adapter_config.json").write_text(json.dumps(whole))
    assert said in faults_of(served(tmp_path, "vllm", adapter=adapter))
    check_spec(served(tmp_path, "transformers", adapter=adapter))


def test_a_rank_of_its_own_for_a_module_counts(tmp_path: Path) -> None:
    adapter = adapter_folder(tmp_path / "adapter", rank=8)
    whole = {**json.loads((adapter / "adapter_config.json").read_text())}
    whole["rank_pattern"] = {"q_proj": 40}
    (adapter / "adapter_config.json").write_text(json.dumps(whole))
    assert vllm_lora_rank(adapter) == 64


def test_vllm_is_told_which_modules_an_adapter_changes(tmp_path: Path) -> None:
    """Otherwise it dies of a request for prompt_logprobs."""
    adapter = adapter_folder(tmp_path / "adapter")
    made = engine_arguments("vllm", str(tmp_path), adapter, {})
    assert made["vllm_engine_kwargs"] == {"lora_target_modules": ["q_proj"]}


def test_an_adapter_of_the_output_layer_is_refused_for_vllm(tmp_path: Path) -> None:
    adapter = adapter_folder(tmp_path / "adapter", module="lm_head")
    [problem] = vllm_adapter_problems(adapter)
    assert "lm_head" in problem.what


@pytest.mark.parametrize("backend", get_args(Backend))
def test_a_missing_package_is_told_with_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, backend: Backend
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError) as caught:
        require_installed(backend, {})
    assert backend in str(caught.value)
    assert "install" in caught.value.problems[0].remedy


def test_vllm_without_its_bitsandbytes_plugin_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if "plugin" in name else object()
    )
    require_installed("vllm", {})
    with pytest.raises(InputError, match="vllm-bnb-plugin"):
        require_installed("vllm", {"quant_method": "bnb"})


def test_ms_swifts_vllm_plugin_is_left_out_where_it_cannot_be_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("VLLM_PLUGINS", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "swift" not in vllm_environment()["VLLM_PLUGINS"]
    monkeypatch.setenv("VLLM_PLUGINS", "mine")
    assert vllm_environment() == {}


@pytest.mark.parametrize("cut", [0, 7, 40])
def test_weights_that_are_cut_off_are_refused_before_anything_starts(
    tmp_path: Path, cut: int
) -> None:
    model = model_folder(tmp_path / "model")
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:cut])
    assert "copy or download it again" in faults_of(ServerSpec(name="x", model=str(model)))
    adapter = adapter_folder(tmp_path / "adapter")
    weights = adapter / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:cut])
    assert str(adapter) in faults_of(spec_of(tmp_path, adapter=adapter))


def test_a_shard_that_is_missing_is_refused(tmp_path: Path) -> None:
    model = model_folder(tmp_path / "model")
    shards = ["model-1.safetensors", "model-2.safetensors"]
    (model / "model.safetensors").rename(model / shards[0])
    index = {"weight_map": dict(zip("ab", shards, strict=True))}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "model-2.safetensors is missing" in faults_of(ServerSpec(name="x", model=str(model)))


def test_choosing_a_backend_loads_none_of_them() -> None:
    code = "import sys, palmswift.deploy.server; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {*done.stdout.split()}.isdisjoint({"torch", "vllm", "transformers", "swift"})
