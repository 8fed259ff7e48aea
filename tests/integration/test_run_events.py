"""The plugin run_events in ms-swift's own trainers: supervised, pre-training, DPO, KTO and GRPO.

ms-swift is imported once; each training is a fork of that process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from palmswift.hub.source import embedded_model
from palmswift.launchers.events import (
    AttemptEvent,
    CheckpointEvent,
    EvaluationEvent,
    Event,
    EventJournal,
    PhaseEvent,
    StepEvent,
)
from palmswift.launchers.feed import Feed
from palmswift.launchers.plugin_files import plugin_path
from palmswift.recipes.recipe import EmbeddedModel

STEPS = 3
ROWS = 8

FORKS = """
import json, os, sys
from swift.pipelines import pretrain_main, rlhf_main, sft_main
mains = {"sft": sft_main, "pt": pretrain_main, "rlhf": rlhf_main}
for command, words, log in json.loads(sys.argv[1]):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(file, 1)
            os.dup2(file, 2)
            mains[command](words)
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""

REWARD = """
from swift.rewards import ORM, orms
class Length(ORM):
    def __call__(self, completions, **named):
        return [float(len(text) % 7) for text in completions]
orms["length"] = Length
"""


class Trained(NamedTuple):
    """What a training told."""

    events: list[Event]
    log: str

    def of(self, kind: type[Any]) -> list[Any]:
        """The events of a kind."""
        return [event for event in self.events if isinstance(event, kind)]


def _dialogue(number: int, **more: object) -> dict[str, object]:
    messages = [
        {"role": "user", "content": f"question {number}"},
        {"role": "assistant", "content": f"answer {number}"},
    ]
    return {"messages": messages, **more}


def _text(number: int) -> dict[str, object]:
    return {"messages": [{"role": "assistant", "content": f"a text about {number}"}]}


def _prompt(number: int) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": f"question {number}"}], "solution": "1"}


METHODS: dict[str, tuple[str, list[str], Callable[[int], dict[str, object]]]] = {
    "sft": ("sft", [], _dialogue),
    "pt": ("pt", [], _text),
    "dpo": ("rlhf", [], lambda number: _dialogue(number, rejected_response="no")),
    "kto": ("rlhf", [], lambda number: _dialogue(number, label=number % 2 == 0)),
    "grpo": (
        "rlhf",
        ["--reward_funcs", "length", "--num_generations", "2", "--max_completion_length", "8"],
        _prompt,
    ),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trained]:
    """One training of each method, three steps with an evaluation and a checkpoint."""
    work = tmp_path_factory.mktemp("methods")
    corpus = work / "corpus.jsonl"
    corpus.write_text("".join(json.dumps(_dialogue(number)) + "\n" for number in range(40)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("palmswift.hub.source.models_dir", lambda: work / "models")
        shape = EmbeddedModel(hidden_size=32, intermediate_size=64, corpus=[str(corpus)])
        model = embedded_model("tiny", shape, work / "model.log", lambda line: None)
    (work / "reward.py").write_text(REWARD)
    runs, feeds = [], {}
    for name, (command, more, row) in METHODS.items():
        output = work / name
        rows = work / f"{name}.jsonl"
        rows.write_text("".join(json.dumps(row(number)) + "\n" for number in range(ROWS)))
        plugins = [str(plugin_path("run_events")), str(work / "reward.py")]
        words = [*_words(str(model), rows, output), "--external_plugins", *plugins, *more]
        if command == "rlhf":
            words += ["--rlhf_type", name]
        runs.append((command, words, str(work / f"{name}.log")))
        journal = EventJournal(work / f"{name}.events.jsonl")
        feeds[name] = Feed(output, work / f"{name}.log", journal, AttemptEvent(command=command))
    done = subprocess.run(
        [sys.executable, "-c", FORKS, json.dumps(runs)],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            **{"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
            **{"MODELSCOPE_OFFLINE": "1", "HF_HUB_OFFLINE": "1"},
        },
        cwd=work,
    )
    logs = {name: (work / f"{name}.log").read_text(errors="replace") for name in METHODS}
    codes = dict(zip(METHODS, done.stdout.split(), strict=False))
    assert codes == dict.fromkeys(METHODS, "0"), "\n".join(
        [done.stderr[-2000:], *(logs[name][-2000:] for name in METHODS if codes.get(name) != "0")]
    )
    return {name: Trained(feeds[name].poll(), logs[name]) for name in METHODS}


def _words(model: str, rows: Path, output: Path) -> list[str]:
    arguments = {
        **{"model": model, "model_type": "qwen3", "template": "qwen3", "torch_dtype": "float32"},
        **{"dataset": str(rows), "val_dataset": str(rows), "output_dir": str(output)},
        **{"tuner_type": "lora", "lora_rank": "2", "target_modules": "all-linear"},
        **{"use_cpu": "true", "add_version": "false", "check_model": "false"},
        **{"report_to": "none", "dataset_num_proc": "1", "dataloader_num_workers": "0"},
        **{"load_from_cache_file": "false", "split_dataset_ratio": "0", "max_length": "128"},
        **{"per_device_train_batch_size": "2", "per_device_eval_batch_size": "4"},
        **{"gradient_accumulation_steps": "2", "gradient_checkpointing": "false"},
        **{"max_steps": str(STEPS), "logging_steps": "1", "eval_strategy": "steps"},
        **{"eval_steps": str(STEPS), "save_strategy": "steps", "save_steps": str(STEPS)},
        **{"enable_thinking": "false", "learning_rate": "1e-3"},
    }
    return [word for name, value in arguments.items() for word in (f"--{name}", value)]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_tells_its_phases_in_order(method: str, trained: dict[str, Trained]) -> None:
    phases = [event.phase for event in trained[method].of(PhaseEvent)]
    assert phases[:4] == ["load", "encode", "prepare", "train"]
    assert phases[-1] == "end"
    assert "evaluate" in phases and "save" in phases
    [saved] = trained[method].of(CheckpointEvent)
    assert saved.name == f"checkpoint-{STEPS}"
    assert trained[method].of(EvaluationEvent)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_tells_its_speed_and_memory(method: str, trained: dict[str, Trained]) -> None:
    steps = trained[method].of(StepEvent)
    assert [step.step for step in steps] == list(range(1, STEPS + 1))
    for step in steps:
        assert step.loss is not None and step.learning_rate is not None
        assert step.tokens_per_second > step.supervised_per_second > 0
        assert step.memory_mib > 100


def test_supervised_tokens_are_those_that_the_loss_counts(trained: dict[str, Trained]) -> None:
    """Of plain text every token is trained on but the first, of a dialogue the answer's alone."""
    shares = {
        method: [
            step.supervised_per_second / step.tokens_per_second
            for step in trained[method].of(StepEvent)
        ]
        for method in ("sft", "pt")
    }
    assert all(share > 0.8 for share in shares["pt"])
    assert all(share < 0.8 for share in shares["sft"])


def test_a_methods_own_numbers_are_kept(trained: dict[str, Trained]) -> None:
    assert "rewards/margins" in trained["dpo"].of(StepEvent)[0].metrics
    assert "reward" in trained["grpo"].of(StepEvent)[0].metrics
