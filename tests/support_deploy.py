"""A stand-in for `swift deploy`: real processes and real HTTP, without a model.

As `swift` does, the program starts a child that serves, in the same process group, and ends with
the child's exit code. How it misbehaves is said by STANDIN in its environment (ServerSpec.env).
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from palmswift.deploy import stop
from palmswift.deploy.spec import ServerSpec

REPOSITORY = Path(__file__).resolve().parents[1]

PROGRAM = r"""
import json, os, signal, socket, subprocess, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MODE = os.environ.get("STANDIN", "")
argv = sys.argv[1:]
if argv[0] != "--child":
    if MODE == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("run sh: `%s`" % " ".join(argv), flush=True)
    raise SystemExit(subprocess.run([sys.executable, "-S", __file__, "--child", *argv]).returncode)

flags = dict(zip(argv[2::2], argv[3::2]))
name, host, port = flags["--served_model_name"], flags["--host"], int(flags["--port"])
key = os.environ.get("PALMSWIFT_API_KEY") if MODE != "keyless" else None
if MODE == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if MODE == "stray":
    subprocess.Popen(["sleep", "600"], start_new_session=True)
if MODE == "die":
    print("Traceback (most recent call last):\nModuleNotFoundError: No module named 'vllm'")
    raise SystemExit(1)
print("[INFO:swift] args: DeployArguments(...)", flush=True)
if MODE == "mute":
    time.sleep(600)
if MODE == "moves":
    with socket.socket() as other:
        other.bind(("", 0))
        port = other.getsockname()[1]


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def reply(self, status, document):
        body = document.encode() if isinstance(document, str) else json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.reply(200, {})

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if key and self.headers.get("Authorization") != "Bearer " + key:
            return self.reply(400, {"message": "API key error"})
        if MODE == "garbage":
            return self.reply(200, "<html>hello</html>")
        if MODE == "refuses" or request["model"] != name:
            return self.reply(400, {"message": "Length of `adapter_names` should be the same"})
        if request["messages"][0]["content"] == "die":
            os._exit(3)
        message = {"role": "assistant", "content": "ok"}
        self.reply(200, {"model": name, "choices": [{"message": message}]})


server = ThreadingHTTPServer((host, port), Handler)
server.daemon_threads = True
print("INFO:     Started server process [%d]" % os.getpid())
print("INFO:     Uvicorn running on http://%s:%d (Press CTRL+C to quit)" % (host, port), flush=True)
server.serve_forever()
"""


def stand_in(folder: Path) -> str:
    """Write the program into `folder`; what PALMSWIFT_SWIFT has to be."""
    program = folder / "stand_in.py"
    program.write_text(PROGRAM, encoding="utf-8")
    return shlex.join([sys.executable, "-S", str(program)])


def whole_tensor_file(file: Path, name: str = "w") -> None:
    """Write a safetensors file with one small tensor."""
    header = json.dumps({name: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    file.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))


def model_folder(folder: Path) -> Path:
    """A folder that looks like a model."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text('{"model_type": "qwen3"}')
    whole_tensor_file(folder / "model.safetensors")
    return folder


def adapter_folder(folder: Path, rank: int = 8, module: str = "layers.0.self_attn.q_proj") -> Path:
    """A folder that looks like a LoRA checkpoint with weights of one module."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"r": rank, "base_model_name_or_path": "Qwen/Qwen3-0.6B"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    weight = f"base_model.model.model.{module}.lora_A.weight"
    whole_tensor_file(folder / "adapter_model.safetensors", weight)
    return folder


def spec_of(folder: Path, mode: str = "", **changes: object) -> ServerSpec:
    """A server of a model under `folder`, which misbehaves as `mode` says."""
    values: dict[str, object] = {
        "name": "demo",
        "model": str(model_folder(folder / "模型 1")),
        "env": {"STANDIN": mode},
        "ready_timeout": 20.0,
    }
    return ServerSpec.model_validate({**values, **changes})


def project(folder: Path) -> Path:
    """A working folder that palmswift takes for its project, so that runs/ is made there."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("recipes", "launchers", "pyproject.toml"):
        (folder / name).symlink_to(REPOSITORY / name)
    return folder


def command_environment(folder: Path, mode: str = "") -> dict[str, str]:
    """Environment for a deploy/*.py process that uses the stand-in in `folder`."""
    return {**os.environ, "PALMSWIFT_SWIFT": stand_in(folder), "STANDIN": mode}


@contextmanager
def working_in_a_project(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder is a project of its own, `swift` is the stand-in; all servers are ended
    and leave no process."""
    made = project(folder)
    monkeypatch.chdir(made)
    for name, value in command_environment(folder.parent).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("PALMSWIFT_API_KEY", raising=False)
    yield made
    assert stop.main(["--all"]) == 0
    assert processes_of(folder.parent) == []


def processes_of(folder: Path) -> list[psutil.Process]:
    """Living processes whose command line names something in `folder`."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        words = process.info["cmdline"] or []
        if process.info["status"] != psutil.STATUS_ZOMBIE and str(folder) in " ".join(words):
            found.append(process)
    return found
