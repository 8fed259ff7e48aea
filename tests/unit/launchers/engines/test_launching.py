"""What a launch becomes on this machine: arguments, meeting point, cards, logs, remarks."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
from support_runs import make_recipe

from palmswift.errors import InputError
from palmswift.launchers.arguments import TrainingPaths, training_arguments, training_environment
from palmswift.launchers.engines.arguments import rank_log_environment
from palmswift.launchers.engines.commands import command_of, launch_files, launch_remarks
from palmswift.launchers.engines.node import node_rank
from palmswift.launchers.engines.place import placed
from palmswift.launchers.engines.ranks import quote_rank_logs
from palmswift.recipes.recipe import Recipe
from palmswift.recipes.yaml_text import parse
from palmswift.setup.gpus import Gpu, GpuReport

PATHS = TrainingPaths("M", Path("/r/train.jsonl"), None, Path("/r/train"))
GPU = {"gpu_mib": 8188}


def _recipe(launch: dict[str, Any], **more: Any) -> Recipe:
    swift = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 8}
    return make_recipe(**{"launch": launch, "swift": swift, **more})


def test_processes_on_a_cpu_are_given_what_lets_them_find_each_other() -> None:
    arguments = training_arguments(_recipe({"processes": 2}), PATHS)
    assert arguments["use_cpu"] is True
    assert arguments["ddp_backend"] == "gloo"
    assert arguments["gradient_accumulation_steps"] == 4
    plugins = arguments["external_plugins"]
    assert isinstance(plugins, list)
    assert any("one_training" in str(plugin) for plugin in plugins)


def test_one_process_is_launched_as_ever() -> None:
    recipe = _recipe({})
    arguments = training_arguments(recipe, PATHS)
    assert arguments["gradient_accumulation_steps"] == 8
    assert not {"ddp_backend", "deepspeed", "fsdp"} & set(arguments)
    assert "NPROC_PER_NODE" not in training_environment(recipe, "M")


@pytest.mark.parametrize(
    ("launch", "expected"),
    [
        ({"strategy": "zero3_offload"}, {"deepspeed": "zero3_offload"}),
        ({"strategy": "zero2", "strategy_file": "/x/ds.json"}, {"deepspeed": "/x/ds.json"}),
        ({"strategy": "fsdp2"}, {"gradient_checkpointing": False}),
    ],
)
def test_a_strategy_is_given_to_ms_swift_and_starts_torchrun_even_for_one_process(
    launch: dict[str, str], expected: dict[str, Any]
) -> None:
    recipe = _recipe(launch, budget=GPU)
    assert training_arguments(recipe, PATHS).items() >= expected.items()
    assert training_environment(recipe, "M")["NPROC_PER_NODE"] == "1"


@pytest.mark.parametrize("strategy", ["fsdp2", "fsdp2_offload"])
def test_fsdp2_gathers_the_weights_it_saves_so_that_they_can_be_served(strategy: str) -> None:
    file = training_arguments(_recipe({"strategy": strategy}, budget=GPU), PATHS)["fsdp"]
    config = json.loads(Path(str(file)).read_text(encoding="utf-8"))
    assert config["fsdp_config"]["state_dict_type"] == "FULL_STATE_DICT"
    assert config["fsdp_config"]["fsdp_version"] == 2
    assert ("offload" in config["fsdp"]) == (strategy == "fsdp2_offload")


def test_a_node_says_which_it_is_and_where_the_nodes_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = _recipe({"nodes": 2, "master": "10.0.0.1:29500", "node_rank": 1})
    expected = {"NNODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"}
    assert training_environment(placed(recipe), "M").items() >= expected.items()
    monkeypatch.setenv("PALMSWIFT_NODE_RANK", "0")
    monkeypatch.setenv("PALMSWIFT_MASTER", "n1:20001")
    environment = training_environment(placed(recipe), "M")
    assert (environment["NODE_RANK"], environment["MASTER_ADDR"]) == ("0", "n1")
    monkeypatch.setenv("PALMSWIFT_NODE_RANK", "2")
    with pytest.raises(InputError, match="with 2 nodes it is 0 to 1"):
        placed(recipe)


def test_two_trainings_on_one_machine_meet_at_two_ports() -> None:
    recipe = _recipe({"processes": 2})
    masters = {placed(recipe).launch.master for _ in range(8)}
    assert len(masters) > 1
    host, _, port = str(masters.pop()).rpartition(":")
    with socket.socket() as probe:
        probe.bind((host, int(port)))


@pytest.mark.parametrize(
    ("free", "processes", "said", "visible"),
    [
        ([4000, 7000, 6000], 1, None, "1"),
        ([4000, 7000, 6000], 2, None, "1,2"),
        ([4000, 7000], 2, None, None),
        ([4000, 7000, 6000], 1, "0", None),
    ],
)
def test_a_training_sees_as_many_cards_as_it_has_processes_the_roomiest(
    monkeypatch: pytest.MonkeyPatch,
    free: list[int],
    processes: int,
    said: str | None,
    visible: str | None,
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if said is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", said)
    gpus = tuple(Gpu("RTX", "580", 8188, mib, "8.9") for mib in free)
    monkeypatch.setattr("palmswift.launchers.engines.place.ask_gpus", lambda: GpuReport(gpus))
    env = placed(_recipe({"processes": processes}, budget=GPU)).env
    assert env.get("CUDA_VISIBLE_DEVICES") == visible
    assert ("CUDA_DEVICE_ORDER" in env) == (visible is not None)


def test_what_a_further_process_printed_is_kept_and_quoted_in_the_training_log(
    tmp_path: Path,
) -> None:
    launch = _recipe({"processes": 3}).launch
    environment = rank_log_environment(launch, tmp_path)
    assert environment["PET_REDIRECTS"] == "1:3,2:3"
    folder = Path(environment["PET_LOG_DIR"]) / "none_x" / "attempt_0" / "1"
    folder.mkdir(parents=True)
    (folder / "stderr.log").write_text("torch.OutOfMemoryError: CUDA out of memory\n")
    log = tmp_path / "train.log"
    log.write_text("ChildFailedError\n")
    quote_rank_logs(tmp_path, log)
    assert "--- process 1, stderr.log ---\ntorch.OutOfMemoryError" in log.read_text()


def test_the_batch_and_the_rows_left_out_are_said() -> None:
    recipe = _recipe({"processes": 4})
    assert launch_remarks(recipe, 41) == [
        "4 processes x 2 rows x 2 accumulated: 2 x 8 rows a step, as in one process",
        "1 of 41 rows is left out: ms-swift gives each of 4 processes the same number",
    ]
    assert len(launch_remarks(recipe, 40)) == 1
    assert launch_remarks(_recipe({}), 41) == []


def test_ray_gets_ms_swifts_yaml_with_a_worker_for_each_process(tmp_path: Path) -> None:
    recipe = _recipe({"scheduler": "ray", "processes": 2, "ray": {"address": "h:6379"}}, budget=GPU)
    files = launch_files(recipe, PATHS, tmp_path)
    document = parse(files["ray.yaml"], "ray.yaml").value
    group = {"device": "GPU", "ranks": 2, "workers": ["default"]}
    assert document["use_ray"] is True
    assert document["device_groups"] == {"nproc_per_node": 2, "default": group}
    assert document["gradient_accumulation_steps"] == 4
    command = command_of(recipe, PATHS, tmp_path)
    assert command.argv[-2:] == ["sft", str(tmp_path / "ray.yaml")]
    assert command.env["RAY_ADDRESS"] == "h:6379"
    assert "NPROC_PER_NODE" not in command.env


@pytest.mark.parametrize(
    ("environment", "rank"),
    [
        ({"SLURM_NODEID": "1"}, 1),
        ({"JOB_COMPLETION_INDEX": "2"}, 2),
        ({"PALMSWIFT_NODE_RANK": "0", "SLURM_NODEID": "1"}, 0),
    ],
)
def test_a_jobs_node_knows_its_number_by_its_schedulers_variable(
    environment: dict[str, str], rank: int
) -> None:
    assert node_rank(environment) == rank
    with pytest.raises(InputError, match="part of a job"):
        node_rank({})
