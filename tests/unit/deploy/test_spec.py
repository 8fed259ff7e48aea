"""What is served is checked before anything starts, and said in full to `swift deploy`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from pydantic import SecretStr
from support_deploy import adapter_folder, model_folder, spec_of

from palmswift.deploy.spec import (
    ServerSpec,
    base_of_run,
    check_spec,
    deploy_arguments,
    deploy_environment,
    is_loopback,
    reachable_host,
    spec_of_run,
)
from palmswift.errors import InputError
from palmswift.launchers.plugin_files import plugin_path
from palmswift.launchers.run_folder import RunFolder
from palmswift.recipes.catalogue import load_catalogue
from palmswift.recipes.recipe import Recipe


def recipe(plugins: Sequence[str] = (), **deploy: object) -> Recipe:
    return Recipe.model_validate(
        {
            "plugins": [*plugins],
            "name": "clinic",
            "summary": "A clinic's answers",
            "model": {"id": "Qwen/Qwen3-0.6B", "revision": "v1"},
            "swift": {"template": "qwen3", "enable_thinking": False, "learning_rate": 1e-4},
            "deploy": {"port": 8123, "swift": {"max_batch_size": 4}, **deploy},
            "budget": {"gpu_mib": 8192},
        }
    )


def finished_run(folder: Path, *, adapter: bool, plugins: Sequence[str] = ()) -> RunFolder:
    run = RunFolder.create(recipe(plugins), parent=folder)
    checkpoint = run.training / "checkpoint-10"
    (adapter_folder if adapter else model_folder)(checkpoint)
    with run.stage("model") as facts:
        facts["model"] = "Qwen/Qwen3-0.6B"
    with run.stage("train") as facts:
        facts["checkpoint"] = str(checkpoint.relative_to(run.path))
    return run


def problems_of(spec: ServerSpec) -> str:
    with pytest.raises(InputError) as caught:
        check_spec(spec)
    return str(caught.value)


def test_a_lora_run_serves_its_adapter_on_the_base_model(tmp_path: Path) -> None:
    run = finished_run(tmp_path, adapter=True)
    spec = spec_of_run(run)
    assert (spec.name, spec.model, spec.port) == ("clinic", "Qwen/Qwen3-0.6B", 8123)
    assert spec.adapter == run.training / "checkpoint-10"
    assert spec.swift["model_revision"] == "v1"


def test_a_full_run_serves_its_checkpoint(tmp_path: Path) -> None:
    run = finished_run(tmp_path, adapter=False)
    spec = spec_of_run(run)
    assert (spec.model, spec.adapter) == (str(run.training / "checkpoint-10"), None)
    assert "model_revision" not in spec.swift


def test_what_decides_an_answer_is_served_as_it_was_trained(tmp_path: Path) -> None:
    arguments = deploy_arguments(spec_of_run(finished_run(tmp_path, adapter=True)), 8123)
    assert arguments["template"] == "qwen3"
    assert arguments["enable_thinking"] is False
    assert arguments["max_batch_size"] == 4
    assert "learning_rate" not in arguments


def test_plugins_are_given_by_their_whole_path(tmp_path: Path) -> None:
    run = finished_run(tmp_path, adapter=True, plugins=["tiled_mlp", "own/plugin.py"])
    given = deploy_arguments(spec_of_run(run), 8123)["external_plugins"]
    own = [str(plugin_path("tiled_mlp")), str(plugin_path("own/plugin.py"))]
    assert isinstance(given, list)
    assert given[1:] == own
    assert Path(str(given[0])).name == "bounded_server.py"
    assert base_of_run(run).swift["external_plugins"] == own


def test_the_plugins_that_a_checkpoint_names_are_kept_beside_ours(tmp_path: Path) -> None:
    adapter = adapter_folder(tmp_path / "adapter")
    (adapter / "args.json").write_text('{"external_plugins": ["own.py"]}')
    given = deploy_arguments(spec_of(tmp_path, adapter=adapter), 1)["external_plugins"]
    assert isinstance(given, list)
    assert given[1:] == ["own.py"]


def test_the_untouched_base_is_served_like_the_tuned_model(tmp_path: Path) -> None:
    run = finished_run(tmp_path, adapter=True)
    tuned, base = spec_of_run(run), base_of_run(run)
    assert (base.name, base.model, base.adapter) == ("base", "Qwen/Qwen3-0.6B", None)
    assert base.swift == tuned.swift


def test_a_run_without_a_model_is_refused_with_the_way_on(tmp_path: Path) -> None:
    run = RunFolder.create(recipe(), parent=tmp_path)
    with pytest.raises(InputError, match="--resume"):
        spec_of_run(run)


def test_every_argument_is_known_to_the_supported_ms_swift(tmp_path: Path) -> None:
    flags = load_catalogue().flags("deploy")
    spec = spec_of(tmp_path, adapter=adapter_folder(tmp_path / "adapter"))
    for backend in ("transformers", "vllm"):
        arguments = deploy_arguments(spec.model_copy(update={"backend": backend}), 8000)
        assert set(arguments) <= set(flags)


def test_the_server_is_loopback_and_keeps_contents_out_of_its_log(tmp_path: Path) -> None:
    arguments = deploy_arguments(spec_of(tmp_path), 8000)
    assert arguments["host"] == "127.0.0.1"
    assert arguments["verbose"] is False


@pytest.mark.parametrize(("rank", "served"), [(8, 8), (12, 16), (64, 64), (200, 256)])
def test_vllm_is_given_a_lora_rank_that_it_takes(tmp_path: Path, rank: int, served: int) -> None:
    adapter = adapter_folder(tmp_path / "adapter", rank)
    arguments = deploy_arguments(spec_of(tmp_path, adapter=adapter, backend="vllm"), 8000)
    assert arguments["vllm_max_lora_rank"] == served


def test_a_local_model_asks_no_hub(tmp_path: Path) -> None:
    assert deploy_environment(spec_of(tmp_path))["HF_HUB_OFFLINE"] == "1"
    assert "HF_HUB_OFFLINE" not in deploy_environment(ServerSpec(name="q", model="Qwen/Q"))


def test_the_key_is_in_no_argument_no_environment_and_no_dump(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, api_key=SecretStr("secret-key-1"))
    told = f"{deploy_arguments(spec, 1)} {deploy_environment(spec)} {spec!r} {spec.model_dump()}"
    assert "secret-key-1" not in told


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    spec = ServerSpec(
        name="-x",
        model=str(tmp_path / "absent"),
        adapter=tmp_path / "a=b",
        host="0.0.0.0",
        swift={"port": 1},
    )
    told = problems_of(spec)
    for part in ("no such folder", "no such adapter", "cannot be a served", "key", "--port"):
        assert part in told


def test_an_adapter_given_as_model_is_told_its_base(tmp_path: Path) -> None:
    adapter = adapter_folder(tmp_path / "checkpoint-3")
    told = problems_of(ServerSpec(name="x", model=str(adapter)))
    assert f"--model Qwen/Qwen3-0.6B --adapter {adapter}" in told


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_torn_model_folder_is_refused(tmp_path: Path, missing: str) -> None:
    model = model_folder(tmp_path / "model")
    (model / missing).unlink()
    assert "has no" in problems_of(ServerSpec(name="x", model=str(model)))


@pytest.mark.parametrize("missing", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_torn_adapter_is_refused(tmp_path: Path, missing: str) -> None:
    adapter = adapter_folder(tmp_path / "adapter")
    (adapter / missing).unlink()
    assert missing in problems_of(spec_of(tmp_path, adapter=adapter))


def test_an_adapter_path_that_ms_swift_would_split_is_refused(tmp_path: Path) -> None:
    adapter = adapter_folder(tmp_path / "r=8")
    assert "`=`" in problems_of(spec_of(tmp_path, adapter=adapter))


@pytest.mark.parametrize("key", ["short", "with a space in it", "schlüssel-schlüssel"])
def test_a_key_that_no_header_carries_is_refused(tmp_path: Path, key: str) -> None:
    assert "PALMSWIFT_API_KEY" in problems_of(spec_of(tmp_path, api_key=SecretStr(key)))


def test_another_host_is_served_with_a_key(tmp_path: Path) -> None:
    check_spec(spec_of(tmp_path, host="0.0.0.0", api_key=SecretStr("long-enough-key")))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_hosts_need_no_key(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example", "127.0.0.1.example"])
def test_other_hosts_do(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("host", "url_host"),
    [("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("::1", "[::1]"), ("10.0.0.7", "10.0.0.7")],
)
def test_a_url_names_a_host_that_can_be_reached(host: str, url_host: str) -> None:
    assert reachable_host(host) == url_host
