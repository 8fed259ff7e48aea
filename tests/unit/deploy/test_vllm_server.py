"""vLLM's own server is told all that decided the training's answers, and several models by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support_deploy import adapter_folder, model_folder

from palmswift.deploy.server import server_command
from palmswift.deploy.spec import ServerSpec, check_spec, deploy_environment
from palmswift.deploy.vllm_server import served_names, vllm_arguments
from palmswift.errors import InputError


@pytest.fixture
def spec(tmp_path: Path) -> ServerSpec:
    """A base with the run's adapter and an older one."""
    model, own, older = tmp_path / "model", tmp_path / "own", tmp_path / "older"
    model_folder(model)
    adapter_folder(own)
    adapter_folder(older)
    return ServerSpec(
        name="tuned",
        model=str(model),
        adapter=own,
        server="vllm",
        more_adapters={"older": older},
        port=8000,
        swift={"torch_dtype": "bfloat16", "enable_thinking": False, "template": "qwen3"},
    )


def test_base_and_adapters_stand_side_by_side_under_their_names(spec: ServerSpec) -> None:
    check_spec(spec)
    arguments = vllm_arguments(spec, 8000)
    assert served_names(spec) == ["tuned", "older", "base"]
    assert arguments["served-model-name"] == ["base"]
    assert arguments["lora-modules"] == [
        f"tuned={spec.adapter}",
        f"older={spec.more_adapters['older']}",
    ]
    assert arguments["max-loras"] == 2
    assert arguments["lora-target-modules"] == ["q_proj"]


def test_a_whole_model_is_served_under_its_own_name(spec: ServerSpec) -> None:
    alone = spec.model_copy(update={"adapter": None, "more_adapters": {}})
    assert served_names(alone) == ["tuned"]
    arguments = vllm_arguments(alone, 8000)
    assert arguments["served-model-name"] == ["tuned"]
    assert "enable-lora" not in arguments


def test_what_decides_an_answer_is_said_in_vllms_words(spec: ServerSpec) -> None:
    quantised = {"quant_method": "bnb", "quant_bits": 4, "max_model_len": 2048}
    flags = {
        "vllm_enforce_eager": True,
        "vllm_enable_prefix_caching": False,
        "vllm_max_num_seqs": 4,
    }
    whole = spec.model_copy(update={"swift": {**spec.swift, **quantised, **flags}})
    arguments = vllm_arguments(whole, 8000)
    assert arguments["dtype"] == "bfloat16"
    assert arguments["default-chat-template-kwargs"] == {"enable_thinking": False}
    assert arguments["generation-config"] == "vllm"
    assert arguments["quantization"] == "bitsandbytes"
    assert arguments["max-model-len"] == 2048
    assert arguments["enforce-eager"] == []
    assert arguments["no-enable-prefix-caching"] == []
    assert arguments["max-num-seqs"] == 4


def test_what_vllm_cannot_do_is_refused_by_name(spec: ServerSpec) -> None:
    changed = spec.model_copy(update={"swift": {"system": "be short", "stop_words": ["x"]}})
    with pytest.raises(InputError) as caught:
        vllm_arguments(changed, 8000)
    assert {problem.where for problem in caught.value.problems} == {
        "swift.system",
        "swift.stop_words",
    }


def test_the_command_is_vllms_with_flags_that_have_no_value(spec: ServerSpec) -> None:
    command = server_command(spec, 8123)
    assert command.argv[1:3] == ["-m", "vllm.entrypoints.openai.api_server"]
    after = command.argv[command.argv.index("--enable-lora") + 1]
    assert after == "--lora-modules"
    assert command.argv[command.argv.index("--port") + 1] == "8123"
    assert "swift" not in deploy_environment(spec).get("VLLM_PLUGINS", "none")


def test_several_models_on_ms_swifts_server_are_refused(spec: ServerSpec) -> None:
    with pytest.raises(InputError, match="--server vllm"):
        check_spec(spec.model_copy(update={"server": "swift"}))


def test_two_models_of_one_name_and_a_broken_adapter_are_told_together(
    spec: ServerSpec, tmp_path: Path
) -> None:
    changed = spec.model_copy(
        update={"base_name": "tuned", "more_adapters": {"gone": tmp_path / "gone"}}
    )
    with pytest.raises(InputError) as caught:
        check_spec(changed)
    told = str(caught.value)
    assert "cannot have one name" in told
    assert "no such adapter folder" in told


def test_its_backend_is_vllm_whatever_the_recipe_computes_with(spec: ServerSpec) -> None:
    assert spec.backend == "vllm"


def test_how_tokens_are_chosen_is_said_as_ms_swifts_server_does(spec: ServerSpec) -> None:
    chosen = {"do_sample": True, "temperature": 0.6, "top_k": 20, "repetition_penalty": 1.1}
    (Path(spec.model) / "generation_config.json").write_text(json.dumps(chosen))
    assert vllm_arguments(spec, 1)["override-generation-config"] == {
        "temperature": 0.6,
        "top_k": 20,
        "repetition_penalty": 1.0,
    }
    own = spec.model_copy(update={"swift": {**spec.swift, "temperature": 0.1}})
    defaults = vllm_arguments(own, 1)["override-generation-config"]
    assert isinstance(defaults, dict)
    assert defaults["temperature"] == 0.1


def test_a_base_whose_end_token_is_not_the_trainings_is_refused(spec: ServerSpec) -> None:
    model = Path(spec.model)
    tokens = [{"id": 0, "content": "<|endoftext|>"}, {"id": 2, "content": "<|im_end|>"}]
    (model / "tokenizer.json").write_text(json.dumps({"added_tokens": tokens}))
    (model / "tokenizer_config.json").write_text('{"eos_token": "<|endoftext|>"}')
    (model / "generation_config.json").write_text('{"eos_token_id": 0}')
    with pytest.raises(InputError, match="never stop"):
        vllm_arguments(spec, 8000)
    (model / "generation_config.json").write_text('{"eos_token_id": [0, 2]}')
    vllm_arguments(spec, 8000)
    (model / "generation_config.json").unlink()
    (model / "tokenizer_config.json").write_text('{"eos_token": {"content": "<|im_end|>"}}')
    vllm_arguments(spec, 8000)
