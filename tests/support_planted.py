"""Faults that are planted in real trainings on a CPU, each with the class that it is told as."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
VAL = str(ROOT / "data/samples/clinic/val.jsonl")
BUDGET = str(ROOT / "tests/data/plugins/memory_budget.py")

_NEW_NAMESPACE = 0x00020000  # CLONE_NEWNS: mounts of its own


class Job(NamedTuple):
    """The training that a fault is planted in, before it begins."""

    folder: Path
    """Its working folder."""
    model: Path
    arguments: list[str]


class Fault(NamedTuple):
    """What is done otherwise than in a training that ends well."""

    kind: str
    """The class that it is told as; empty: it ends well."""
    arguments: dict[str, object]
    """In place of the usual ones; None takes one out. `{folder}` stands for the working folder."""
    plant: Callable[[Job], object] | None = None
    """Done in the child, in which ms-swift is imported already."""
    env: dict[str, str] = {}  # noqa: RUF012  # never changed
    command: str = "sft"
    phase: str = ""


_OWN_MODEL: dict[str, object] = {"model": "{folder}/model"}
_OWN_ROWS: dict[str, object] = {"dataset": "{folder}/rows.jsonl"}
_OWN_PLUGIN: dict[str, object] = {"external_plugins": "{folder}/plugin.py"}
_OF_THE_HUB: dict[str, object] = {"model": "Qwen/Qwen3-0.6B", "use_hf": "true"}


def _memory(phase: str, more: Mapping[str, object] | None = None) -> Fault:
    arguments = {"external_plugins": BUDGET, **(more or {})}
    env = {"PALMSWIFT_TEST_MEMORY": f"{phase}=1"}
    return Fault("out_of_memory", arguments, env=env, phase=phase)


def _rows(*rows: object) -> Callable[[Job], object]:
    text = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
    return lambda job: (job.folder / "rows.jsonl").write_text(text, encoding="utf-8")


def _plugin(text: str) -> Callable[[Job], object]:
    return lambda job: (job.folder / "plugin.py").write_text(text, encoding="utf-8")


def _both(*plants: Callable[[Job], object]) -> Callable[[Job], object]:
    return lambda job: [plant(job) for plant in plants]


def _own_model(damage: Callable[[Path], object]) -> Callable[[Job], object]:
    def plant(job: Job) -> None:
        shutil.copytree(job.model, job.folder / "model")
        damage(job.folder / "model")

    return plant


def _cut(name: str, size: int) -> Callable[[Path], object]:
    return lambda folder: os.truncate(folder / name, size)


def _config(**changes: object) -> Callable[[Path], object]:
    def damage(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))

    return damage


def _without_tokenizer(folder: Path) -> None:
    for file in folder.glob("*token*"):
        file.unlink()


def _fewer_tokens(folder: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder)
    model.resize_token_embeddings(300)
    model.save_pretrained(folder)


def _when_it_trains(act: Callable[[], object]) -> Callable[[Job], object]:
    def plant(job: Job) -> None:
        from swift.trainers.mixin import SwiftMixin

        train = SwiftMixin.train

        def acting(self: Any, *args: Any, **options: Any) -> Any:
            act()
            return train(self, *args, **options)

        SwiftMixin.train = acting

    return plant


def _signal(number: int) -> Callable[[Job], object]:
    return _when_it_trains(lambda: os.kill(os.getpid(), number))


def _too_much_host_memory() -> None:
    import torch

    torch.empty(1 << 46)


def _no_more_files() -> None:
    number = len(list(Path("/proc/self/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (number, number))


def _small_disk(options: str) -> Callable[[Job], object]:
    def plant(job: Job) -> None:
        assert ctypes.CDLL(None).unshare(_NEW_NAMESPACE) == 0
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)
        folder = job.folder / "small"
        folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        subprocess.run(mount, check=True)

    return plant


def _as_nobody(job: Job) -> None:
    (job.folder / "theirs").mkdir()
    job.folder.parent.chmod(0o755)
    os.seteuid(65534)


def _no_network(job: Job) -> None:
    import huggingface_hub.constants

    for module in _hub_modules():
        module.HF_HUB_OFFLINE = False
    huggingface_hub.constants.HF_HUB_CACHE = str(job.folder)
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"):
        os.environ[name] = "http://127.0.0.1:9"


def _hub_modules() -> list[Any]:
    return [
        module
        for name, module in list(sys.modules.items())
        if name.startswith("huggingface_hub") and hasattr(module, "HF_HUB_OFFLINE")
    ]


def _hub(status: int, code: str, message: str) -> Callable[[Job], object]:
    """A hub on loopback that answers everything so."""

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", message)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, *args: object) -> None:
            pass

    def plant(job: Job) -> None:
        import huggingface_hub.hf_api

        server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        _no_network(job)
        os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1"
        address = f"http://127.0.0.1:{server.server_port}"
        huggingface_hub.constants.ENDPOINT = address
        huggingface_hub.hf_api.api.endpoint = address

    return plant


def _damaged_cache(job: Job) -> None:
    import swift.dataset.loader as loader

    rows, cache = job.folder / "rows.jsonl", str(job.folder / "cache")
    shutil.copy(VAL, rows)
    load = import_module("datasets").load_dataset
    load("json", data_files=str(rows), split="train", cache_dir=cache)
    for file in Path(cache).rglob("*.arrow"):
        os.truncate(file, 300)

    def cached(*args: Any, **options: Any) -> Any:
        return load(*args, **{**options, "cache_dir": cache})

    loader.hf_load_dataset = cached


def _resume(
    damage: Callable[[Path], object] = lambda saved: None, **first: str
) -> Callable[[Job], object]:
    """A training of two steps before, with `first` arguments; its checkpoint is damaged then."""

    def plant(job: Job) -> None:
        from swift.pipelines import sft_main

        child = os.fork()
        if child == 0:
            words = [word.replace("/out", "/first") for word in job.arguments]
            at = words.index("--resume_from_checkpoint")
            del words[at : at + 2]
            for name, value in first.items():
                words[words.index(f"--{name}") + 1] = value
            sft_main(words)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        damage(job.folder / "first" / "checkpoint-2")

    return plant


def _fewer_parameters(saved: Path) -> None:
    import torch

    state = torch.load(saved / "optimizer.pt")
    state["param_groups"][0]["params"].pop()
    torch.save(state, saved / "optimizer.pt")


_FROM: dict[str, object] = {
    "resume_from_checkpoint": "{folder}/first/checkpoint-2",
    "max_steps": 4,
    "optim": "adamw_torch",
}

_GRPO: dict[str, object] = {
    **_OWN_PLUGIN,
    **_OWN_ROWS,
    "rlhf_type": "grpo",
    "reward_funcs": "mine",
    "num_generations": 2,
    "max_completion_length": 8,
    "per_device_train_batch_size": 2,
}

_REWARD = """from swift.rewards import ORM, orms


class Mine(ORM):
    def __call__(self, completions, solution, **kwargs):
        return [VALUE for one in completions]


orms["mine"] = Mine
"""


def _reward(value: str) -> Callable[[Job], object]:
    question = {"messages": [{"role": "user", "content": "拜拜"}], "solution": "再见"}
    return _both(_rows(*[question] * 4), _plugin(_REWARD.replace("VALUE", value)))


_TRACEBACK = """Traceback (most recent call last):
  File "train.py", line 1, in <module>
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"""


def _dialogue(text: str, **of_the_answer: object) -> dict[str, object]:
    answer = {"role": "assistant", "content": text, **of_the_answer}
    return {"messages": [{"role": "user", "content": text}, answer]}


_KILLED_AT_THE_FIRST_STEP = """import os, signal
from transformers import Qwen3Model


def killed(*args, **options):
    os.kill(os.getpid(), signal.SIGKILL)


Qwen3Model.forward = killed
"""

_KILLED_WORKER = """import os, signal
from swift.dataset import LazyLLMDataset
from torch.utils.data import get_worker_info

get = LazyLLMDataset.__getitem__


def killed(self, index):
    if get_worker_info() is not None:
        os.kill(os.getpid(), signal.SIGKILL)
    return get(self, index)


LazyLLMDataset.__getitem__ = killed
"""

_EVALUATES: dict[str, object] = {"eval_strategy": "steps", "eval_steps": 2, "val_dataset": VAL}

PLANTED: dict[str, Fault] = {
    "good": Fault("", _EVALUATES),
    "good_grpo": Fault("", _GRPO, _reward("float(len(one) % 3)"), command="rlhf"),
    "good_with_a_row_of_an_error": Fault(
        "", {**_OWN_ROWS, "max_length": 4096}, _rows(*[_dialogue(_TRACEBACK)] * 8)
    ),
    "killed_after_a_row_of_an_error": Fault(
        "killed",
        {**_OWN_ROWS, **_OWN_PLUGIN, "max_length": 4096},
        _both(_rows(*[_dialogue(_TRACEBACK)] * 8), _plugin(_KILLED_AT_THE_FIRST_STEP)),
    ),
    # Memory
    "oom_load": _memory("load"),
    "oom_encode": _memory("encode"),
    "oom_forward": _memory("forward"),
    "oom_backward": _memory("backward"),
    "oom_optimizer": _memory("optimizer"),
    "oom_evaluation": _memory("evaluation", {**_EVALUATES, "eval_steps": 1}),
    "oom_save": _memory("save"),
    "host_memory": Fault("host_memory", {}, _when_it_trains(_too_much_host_memory)),
    # Arguments
    "bad_flag": Fault("unknown_argument", {"lora_rnk": 8}),
    "bad_choice": Fault("bad_value", {"tuner_type": "lroa"}),
    "bad_type": Fault("bad_value", {"lora_rank": "eight"}),
    "bad_combination": Fault(
        "bad_value", {**_EVALUATES, "load_best_model_at_end": "true", "save_strategy": "epoch"}
    ),
    "bad_metric": Fault(
        "bad_value",
        {**_EVALUATES, "load_best_model_at_end": "true", "metric_for_best_model": "eval_mine"},
    ),
    "bad_targets": Fault("bad_targets", {"target_modules": "q_prj"}),
    "unknown_model_type": Fault("unknown_model_type", {"model_type": "qwen99"}),
    "unknown_template": Fault("unknown_template", {"template": "qwen99"}),
    "ambiguous_type": Fault("ambiguous_type", {"model_type": None, "template": None}),
    # The model
    "missing_model": Fault("missing_model", {"model": "{folder}/nothing"}),
    "no_weights": Fault(
        "broken_model", _OWN_MODEL, _own_model(lambda model: (model / "model.safetensors").unlink())
    ),
    "torn_weights": Fault("broken_model", _OWN_MODEL, _own_model(_cut("model.safetensors", 5000))),
    "weights_of_another_shape": Fault(
        "broken_model", _OWN_MODEL, _own_model(_config(intermediate_size=80))
    ),
    "unknown_architecture": Fault(
        "unknown_model_type",
        {**_OWN_MODEL, "model_type": None, "template": None},
        _own_model(_config(model_type="qwen9", architectures=["Qwen9ForCausalLM"])),
    ),
    "no_tokenizer": Fault("no_rows", _OWN_MODEL, _own_model(_without_tokenizer)),
    "broken_tokenizer": Fault(
        "broken_tokenizer", _OWN_MODEL, _own_model(_cut("tokenizer.json", 1000))
    ),
    "model_with_fewer_tokens": Fault("tokenizer_mismatch", _OWN_MODEL, _own_model(_fewer_tokens)),
    # Hubs
    "network": Fault("network", _OF_THE_HUB, _no_network),
    "network_modelscope": Fault(
        "network",
        {"model": "Qwen/Qwen3-0.6B"},
        _no_network,
        {"MODELSCOPE_OFFLINE": "0", "MODELSCOPE_CACHE": "{folder}"},
    ),
    "hub_offline": Fault("offline", _OF_THE_HUB),
    "hub_gated": Fault("hub_auth", _OF_THE_HUB, _hub(403, "GatedRepo", "Access is restricted")),
    "hub_not_found": Fault("hub_not_found", _OF_THE_HUB, _hub(404, "RepoNotFound", "Not found")),
    # The machine and its packages
    "no_bf16": Fault("no_bf16", {"torch_dtype": "bfloat16", "bf16": "true", "use_cpu": None}),
    "no_cuda": Fault("no_cuda", {"use_cpu": None, "device_map": "cuda:0"}),
    "no_deepspeed": Fault("missing_package", {"deepspeed": "zero2"}),
    "no_flash_attention": Fault("no_flash_attention", {"attn_impl": "flash_attention_2"}),
    "too_many_files": Fault("too_many_files", {}, _when_it_trains(_no_more_files)),
    "disk_full": Fault("disk_full", {"output_dir": "{folder}/small"}, _small_disk("size=64k")),
    "read_only": Fault("read_only", {"output_dir": "{folder}/small/out"}, _small_disk("ro")),
    "not_permitted": Fault("not_permitted", {"output_dir": "{folder}/theirs/out"}, _as_nobody),
    "worker_killed": Fault(
        "worker_killed", {**_OWN_PLUGIN, "dataloader_num_workers": 1}, _plugin(_KILLED_WORKER)
    ),
    # Data
    "broken_data": Fault(
        "broken_data",
        _OWN_ROWS,
        lambda job: (job.folder / "rows.jsonl").write_text('{"messages": [{"role": "user", "con'),
    ),
    "missing_data": Fault("missing_data", {"dataset": "{folder}/gone.jsonl"}),
    "data_without_columns": Fault("no_rows", _OWN_ROWS, _rows(*[{"a": 1}] * 4)),
    "all_rows_too_long": Fault("no_rows", {"max_length": 2, "truncation_strategy": "delete"}),
    "bad_row_in_strict": Fault(
        "broken_data",
        {**_OWN_ROWS, "strict": "true"},
        _rows(*[_dialogue("再见", role="robot")] * 4),
    ),
    "batch_larger_than_the_data": Fault(
        "no_steps",
        {
            **{"per_device_train_batch_size": 100, "dataloader_drop_last": "true"},
            **{"max_steps": -1, "num_train_epochs": 1},
        },
    ),
    "damaged_cache": Fault(
        "dataset_cache", {**_OWN_ROWS, "load_from_cache_file": "true"}, _damaged_cache
    ),
    # Going on
    "resume_other_optimizer": Fault("resume_mismatch", _FROM, _resume(optim="sgd")),
    "resume_fewer_parameters": Fault("resume_mismatch", _FROM, _resume(_fewer_parameters)),
    "resume_torn_optimizer": Fault("resume_torn", _FROM, _resume(_cut("optimizer.pt", 2000))),
    "resume_torn_adapter": Fault(
        "resume_torn", _FROM, _resume(_cut("adapter_model.safetensors", 2000))
    ),
    "resume_torn_state": Fault("resume_torn", _FROM, _resume(_cut("trainer_state.json", 100))),
    "resume_missing": Fault("resume_missing", {"resume_from_checkpoint": "{folder}/checkpoint-9"}),
    # Code of the user's
    "reward_raised": Fault("reward_raised", _GRPO, _reward("1 / 0"), command="rlhf"),
    "reward_unknown": Fault(
        "reward_unknown", {**_GRPO, "reward_funcs": "hers"}, _reward("1.0"), command="rlhf"
    ),
    "plugin_raised": Fault(
        "plugin_raised", _OWN_PLUGIN, _plugin("raise RuntimeError('not today')\n")
    ),
    "plugin_syntax": Fault("plugin_raised", _OWN_PLUGIN, _plugin("def broken(:\n    pass\n")),
    "plugin_without_its_package": Fault(
        "plugin_raised", _OWN_PLUGIN, _plugin("import flash_linear_attention\n")
    ),
    # Signals
    "interrupted": Fault("interrupted", {}, _signal(signal.SIGINT)),
    "terminated": Fault("terminated", {}, _signal(signal.SIGTERM)),
    "killed": Fault("killed", {}, _signal(signal.SIGKILL)),
    "crashed": Fault("crashed", {}, _when_it_trains(lambda: ctypes.string_at(0))),
    # They end well by their exit code
    "nan_loss": Fault(
        "loss_not_finite", {"learning_rate": 1e38, "max_steps": 6, "tuner_type": "full"}
    ),
    "exploding_loss": Fault(
        "loss_exploded",
        {
            **{"learning_rate": 5, "max_steps": 12, "tuner_type": "full", "optim": "sgd"},
            **{"lr_scheduler_type": "constant", "max_grad_norm": 1e9},
        },
    ),
    "unchanged": Fault("weights_unchanged", {"learning_rate": 0.0, "max_steps": 4}),
    "no_trained_tokens": Fault(
        "no_trained_tokens",
        {**_OWN_ROWS, "max_length": 32, "truncation_strategy": "right"},
        _rows(*[_dialogue("再见，祝您身体健康。" * 20)] * 8),
    ),
    "flat_reward": Fault("reward_flat", _GRPO, _reward("1.0"), command="rlhf"),
}
