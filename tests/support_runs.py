"""What tests of the launchers share: recipes, run folders, and a stand-in for `swift`."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from support_data import CharacterJudge
from support_deploy import REPOSITORY, model_folder

from palmswift.launchers.run_folder import RunFolder
from palmswift.recipes.recipe import Recipe
from palmswift.recipes.yaml_text import dump

PROGRAM = r'''
"""`swift sft`, `export` and `deploy`: real processes and files, without a model."""
import json, os, subprocess, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

sys.path.insert(0, "TESTS")
from support_checkpoints import Numbers, write_adapter, write_base, write_model

HERE = Path(__file__).parent
command, words = sys.argv[1], sys.argv[2:]
if command == "child":
    time.sleep(600)
flags = {}
for word in words:
    if word.startswith("--"):
        values = flags.setdefault(word[2:], [])
    else:
        values.append(word)
with (HERE / "calls.jsonl").open("a") as calls:
    calls.write(json.dumps({"command": command, **flags}) + "\n")
mode = (HERE / "mode").read_text()


def checkpoint(out, step):
    if flags["tuner_type"] == ["full"]:
        write_model(out, step, {"layer.weight": Numbers("F32", [float(step)] * 4)})
    else:
        write_adapter(out, step)


def fail_as(name):
    """End as a real training did."""
    print((Path("TESTS") / "data/training_logs" / f"{name}.log").read_text(encoding="utf-8"))
    raise SystemExit(1)


def spend(step):
    """In mode `small FLAG=MOST...`, run out of memory at step 3 when a flag is over its most."""
    for limit in mode.split()[1:] if mode.startswith("small") and step == 3 else []:
        flag, most = limit.split("=")
        if int(flags[flag][0]) > int(most):
            fail_as("oom_evaluation" if "eval" in flag else "oom_backward")


def sft():
    out = Path(flags["output_dir"][0])
    out.mkdir(parents=True, exist_ok=True)
    if mode == "oom":
        print("torch.OutOfMemoryError: CUDA out of memory")
        raise SystemExit(1)
    if mode == "killed":
        raise SystemExit(247)
    if mode == "flaky" and not (HERE / "failed").exists():
        (HERE / "failed").touch()
        fail_as("network_modelscope")
    if mode == "nothing":
        return
    begun = int(flags.get("resume_from_checkpoint", ["-0"])[0].rpartition("-")[2])
    with (out / "logging.jsonl").open("a") as log:
        for step in range(begun + 1, 5):
            spend(step)
            loss = float("nan") if mode == "nan" else 4.0 / step
            for row in ({"loss": loss}, {"eval_loss": 5.0 / step}):
                log.write(json.dumps({**row, "global_step/max_steps": f"{step}/4"}) + "\n")
            log.flush()
            if step % 2 == 0:
                checkpoint(out, step)
            if mode == "hang" and step == 3:
                subprocess.Popen([sys.executable, "-S", __file__, "child"])
                (HERE / "hanging").touch()
                time.sleep(600)
            if mode in ("orderly", "deaf", "late") and step == 3:
                await_the_request(out, step)


def await_the_request(out, step):
    control = Path(os.environ["PALMSWIFT_CONTROL"])
    (control / "stepping").write_text("{}")
    (HERE / "hanging").touch()
    while mode == "deaf" or not (control / "stop").exists():
        time.sleep(0.02)
    if mode == "orderly":
        checkpoint(out, step)
        (control / "stopped").write_text(json.dumps({"step": step}))
        raise SystemExit(0)


def export():
    if mode != "nothing":
        out = Path(flags["output_dir"][0])
        layer = Numbers("BF16", [0.5] * 64, (8, 8))
        write_base(
            out,
            {"model.layers.0.mlp.up_proj.weight": layer, "w": Numbers("BF16", [1.0, 2.0])},
        )
        (out / "model.safetensors").chmod(0o600)  # as ms-swift leaves it


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def reply(self, status, document):
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.reply(200, {})

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        question = request["messages"][-1]["content"]
        if question == "refuse" and mode == "refusing":
            return self.reply(400, {"message": "not now"})
        if question == "refuse" and mode == "hang":
            (HERE / "hanging").touch()
            time.sleep(600)
        text = "ok" if request["model"] != "base" else "no"
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        self.reply(200, {"object": "chat.completion", "choices": [choice]})


def deploy():
    server = ThreadingHTTPServer((flags["host"][0], int(flags["port"][0])), Handler)
    server.daemon_threads = True
    server.serve_forever()


{"sft": sft, "export": export, "deploy": deploy}[command]()
'''


TESTS = Path(__file__).resolve().parent


class StandIn:
    """The stand-in program in a folder; what it does next, and how it was called."""

    def __init__(self, folder: Path, mode: str = "good") -> None:
        self.folder = folder
        self.program = folder / "swift.py"
        self.program.write_text(PROGRAM.replace("TESTS", str(TESTS)), encoding="utf-8")
        self.set(mode)

    def set(self, mode: str) -> None:
        """What it does from the next call on: good, nan, oom, killed, nothing, hang, refusing.

        At step 3 `orderly` stops in good order when asked, `deaf` does not hear, `late` ends first.
        `flaky` fails once for want of a network, `small FLAG=MOST...` runs out of memory beyond it.
        """
        (self.folder / "mode").write_text(mode)

    @property
    def variable(self) -> str:
        """What PALMSWIFT_SWIFT has to be."""
        return shlex.join([sys.executable, "-S", str(self.program)])

    @property
    def calls(self) -> list[dict[str, Any]]:
        """The command and the flags (lists of words) of every call so far."""
        file = self.folder / "calls.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def is_hanging(self) -> bool:
        """Whether it hangs: a training at step 3, with a child, or a server at a question."""
        return (self.folder / "hanging").exists()


def prepare_project(folder: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """Make `folder` the project and the working folder, with the stand-in for its `swift`.

    Rows are judged by their characters in place of ms-swift's template.
    """
    (folder / "recipes" / "bases").mkdir(parents=True)
    (folder / "launchers").symlink_to(REPOSITORY / "launchers")
    (folder / "pyproject.toml").touch()
    monkeypatch.chdir(folder)
    monkeypatch.setattr("palmswift.data.gate.TemplateJudge", CharacterJudge)
    tools = folder / "tools"
    tools.mkdir()
    stand_in = StandIn(tools)
    monkeypatch.setenv("PALMSWIFT_SWIFT", stand_in.variable)
    return stand_in


def write_project_recipe(folder: Path, name: str = "mine", **changes: Any) -> Path:
    """A recipe in the project at `folder` that trains on the CPU, its rows, model and suite."""
    for file, count in (("train.jsonl", 6), ("val.jsonl", 2)):
        rows = [{"query": f"{file} {number}", "response": "ok"} for number in range(count)]
        (folder / file).write_text("".join(json.dumps(row) + "\n" for row in rows))
    suite = {
        "name": "small",
        "cases": [
            {"id": "one", "question": "how?", "reference": "ok", "tags": ["known"]},
            {"id": "two", "question": "refuse", "reference": "ok", "tags": ["known"]},
        ],
        "gates": [{"metric": "exact_match", "endpoint": "tuned", "min": 1.0}],
    }
    (folder / "suite.yaml").write_text(dump(suite))
    values: dict[str, Any] = {
        "name": name,
        "summary": "a recipe for tests",
        "model": {"id": str(model_folder(folder / "model")), "source": "local"},
        "data": {"train": ["train.jsonl"], "val": ["val.jsonl"]},
        "swift": {
            "tuner_type": "lora",
            "enable_thinking": False,
            "eval_strategy": "steps",
            "load_from_cache_file": False,
            "loss_scale": "default",
            "max_length": 128,
            "seed": 42,
            "split_dataset_ratio": 0,
            "truncation_strategy": "delete",
        },
        "eval": {"suite": "suite.yaml"},
        "budget": {"gpu_mib": 0, "disk_mib": 1},
    }
    path = folder / "recipes" / f"{name}.yaml"
    path.write_text(dump({**values, **changes}), encoding="utf-8")
    return path


def make_recipe(**changes: Any) -> Recipe:
    """A small CPU recipe; `changes` replace its keys."""
    values: dict[str, Any] = {
        "name": "tiny",
        "summary": "a recipe for tests",
        "model": {"id": "Qwen/Qwen3-0.6B"},
        "data": {"train": ["train.jsonl"], "val": ["val.jsonl"]},
        "swift": {"tuner_type": "lora", "eval_strategy": "steps", "learning_rate": 1.0e-4},
        "budget": {"gpu_mib": 0, "disk_mib": 1},
    }
    return Recipe.model_validate({**values, **changes})


def make_run(parent: Path, **changes: Any) -> RunFolder:
    """A new run folder under `parent`."""
    return RunFolder.create(make_recipe(**changes), parent=parent)
