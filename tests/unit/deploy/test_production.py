"""The production folder: each file as its own program reads it, serving what the run trained."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from support_deploy import adapter_folder, model_folder

from palmswift.deploy.backends import vllm_environment
from palmswift.deploy.board import PANELS
from palmswift.deploy.ports import free_port, listens
from palmswift.deploy.production import main, slug_of
from palmswift.launchers.run_folder import RunFolder
from palmswift.process import ProcessGroup, group_members
from palmswift.recipes.recipe import Recipe

METRICS = Path(__file__).parents[2] / "data" / "metrics" / "vllm_0_32_types.txt"

Made = Callable[..., Path]


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """Writes the folder for a finished LoRA run, under a path with spaces and Chinese."""
    base, checkpoint = tmp_path / "模型 base", "checkpoint-10"
    model_folder(base)
    recipe = Recipe.model_validate(
        {
            "name": "clinic_qwen3",
            "summary": "A clinic's answers",
            "model": {"id": str(base), "source": "local"},
            "swift": {"template": "qwen3", "enable_thinking": False, "torch_dtype": "bfloat16"},
            "budget": {"gpu_mib": 8192},
        }
    )
    run = RunFolder.create(recipe, parent=tmp_path / "runs 运行")
    adapter_folder(run.training / checkpoint)
    with run.stage("model") as facts:
        facts["model"] = str(base)
    with run.stage("train") as facts:
        facts["checkpoint"] = f"train/{checkpoint}"

    def make(*words: str) -> Path:
        out = tmp_path / "生产 folder"
        assert main(["--run", str(run.path), "--out", str(out), *words]) == 0
        return out

    return make


def document(path: Path) -> Any:
    """A YAML file's content."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def test_compose_takes_the_file_as_it_is(made: Made) -> None:
    out = made("--replicas", "2")
    schema = ["--builtin-schema", "vendor.compose-spec", str(out / "compose.yaml")]
    checked = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", *schema], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_service_listens_on_this_machine_alone_and_needs_its_key(made: Made) -> None:
    services = document(made() / "compose.yaml")["services"]
    ports = [port for service in services.values() for port in service.get("ports", ())]
    assert ports and all(port.startswith("127.0.0.1:") for port in ports)
    assert services["server-1"]["environment"]["VLLM_API_KEY"].startswith("${PALMSWIFT_API_KEY:?")


def test_the_containers_paths_are_those_that_compose_mounts(made: Made) -> None:
    out = made()
    server = document(out / "compose.yaml")["services"]["server-1"]
    mounts = {volume["target"]: volume for volume in server["volumes"]}
    assert all(Path(mount["source"]).is_dir() and mount["read_only"] for mount in mounts.values())
    command = json.loads(
        re.findall(r"^CMD (\[.*\])$", (out / "Dockerfile").read_text(encoding="utf-8"), re.M)[-1]
    )
    named = [word.rpartition("=")[2] for word in command if "/models/" in word]
    assert sorted(named) == sorted(mounts)
    assert not any("生产" in word or "模型" in word for word in command)


def test_several_replicas_stand_behind_one_port_and_each_is_scraped(made: Made) -> None:
    out = made("--replicas", "3", "--port", "8123")
    services = document(out / "compose.yaml")["services"]
    replicas = [name for name in services if name.startswith("server-")]
    assert len(replicas) == 3
    assert not any("ports" in services[name] for name in replicas)
    assert services["balancer"]["ports"] == ["127.0.0.1:8123:8000"]
    devices = [
        services[name]["deploy"]["resources"]["reservations"]["devices"][0]["device_ids"]
        for name in replicas
    ]
    assert devices == [["0"], ["1"], ["2"]]
    balanced = (out / "nginx.conf").read_text(encoding="utf-8")
    assert re.findall(r"server (server-\d):8000", balanced) == replicas
    (scraped,) = document(out / "prometheus.yml")["scrape_configs"]
    assert scraped["static_configs"][0]["targets"] == [f"{name}:8000" for name in replicas]


def test_kubernetes_waits_for_a_start_and_keeps_the_key_in_a_secret(made: Made) -> None:
    text = (made("--replicas", "2") / "kubernetes.yaml").read_text(encoding="utf-8")
    deployment, service, disruption = yaml.safe_load_all(text)
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert deployment["spec"]["replicas"] == 2
    probe = container["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 600
    assert container["env"][0]["valueFrom"]["secretKeyRef"]["key"] == "api-key"
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 1}
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"] == labels
    assert disruption["kind"] == "PodDisruptionBudget"
    assert disruption["spec"]["selector"]["matchLabels"] == labels
    (spread,) = deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]
    assert spread["topologyKey"] == "kubernetes.io/hostname"
    alone = (made() / "kubernetes.yaml").read_text(encoding="utf-8")
    assert [part["kind"] for part in yaml.safe_load_all(alone)] == ["Deployment", "Service"]


def test_machines_stand_behind_one_balancer_and_listen_only_where_they_are_told(
    made: Made,
) -> None:
    out = made("--machines", "10.0.0.5", "gpu-b.lan:9000", "[fd00::7]", "--port", "8100")
    machines = ["10.0.0.5:8100", "gpu-b.lan:9000", "[fd00::7]:8100"]
    balanced = (out / "nginx.conf").read_text(encoding="utf-8")
    assert re.findall(r"server (\S+) max_fails", balanced) == machines
    (scraped,) = document(out / "prometheus.yml")["scrape_configs"]
    assert scraped["static_configs"][0]["targets"] == machines
    services = document(out / "compose.yaml")["services"]
    assert services["server-1"]["ports"] == ["${BIND:-127.0.0.1}:8100:8000"]
    assert services["balancer"]["ports"] == ["127.0.0.1:8080:8000"]
    assert "depends_on" not in services["balancer"]
    script = (out / "server.sh").read_text(encoding="utf-8")
    assert '--host "${BIND:-127.0.0.1}"' in script
    deployment, *_ = yaml.safe_load_all((out / "kubernetes.yaml").read_text(encoding="utf-8"))
    assert deployment["spec"]["replicas"] == 3
    assert "10.0.0.5:8100" in (out / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("words", [["--machines", "a b"], ["--machines", "x;y", "h:123456"]])
def test_a_machine_that_no_configuration_could_name_is_refused(
    words: list[str], made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--out", str(tmp_path / "o"), "--replicas", "2", *words]) == 2
    told = capsys.readouterr().err
    assert told.count("is not HOST or HOST:PORT") == len(words) - 1
    assert "--machines has one server on each" in told


def test_the_alerts_ask_only_for_what_is_measured(made: Made) -> None:
    (group,) = document(made() / "alerts.yml")["groups"]
    asked = {name for rule in group["rules"] for name in re.findall(r"vllm:\w+", rule["expr"])}
    assert asked and asked <= measured_series()
    assert all(
        "{{ $labels.instance }}" in rule["annotations"]["summary"] or "sum(" in rule["expr"]
        for rule in group["rules"]
    )


STAND_IN = """
import http.server, os, sys
flags = dict(zip(sys.argv[1:], sys.argv[2:]))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path in ("/health", "/metrics") else 404)
        self.end_headers()
        self.wfile.write(os.environ["VLLM_API_KEY"].encode())
    def log_message(self, *args):
        pass
http.server.HTTPServer((flags["--host"], int(flags["--port"])), Handler).serve_forever()
"""


def test_what_the_systemd_unit_starts_answers_the_probes_of_kubernetes(
    made: Made, tmp_path: Path
) -> None:
    """The unit's own words, with a stand-in for vLLM's package before the real one."""
    port = free_port()
    out = made("--port", str(port))
    package = tmp_path / "stand-in" / "vllm" / "entrypoints" / "openai"
    package.mkdir(parents=True)
    for folder in (package, *package.parents[:2]):
        (folder / "__init__.py").touch()
    (package / "api_server.py").write_text(STAND_IN, encoding="utf-8")
    (unit,) = out.glob("*.service")
    started = re.findall(r"^ExecStart=(.*)$", unit.read_text(encoding="utf-8"), re.M)[0]
    words = [word.replace("%%", "%") for word in shlex.split(started)]
    deployment, *_ = yaml.safe_load_all((out / "kubernetes.yaml").read_text(encoding="utf-8"))
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    probes = ("startupProbe", "readinessProbe", "livenessProbe")
    paths = {container[probe]["httpGet"]["path"] for probe in probes}
    paths.add(deployment["spec"]["template"]["metadata"]["annotations"]["prometheus.io/path"])
    environment = {"PYTHONPATH": str(tmp_path / "stand-in"), "BIND": "127.0.0.1"}
    key = {"PALMSWIFT_API_KEY": "a key of this test"}
    with ProcessGroup(words, log=tmp_path / "log", env={**environment, **key}) as group:
        while not listens(group_members(group.pid), port):
            assert group.poll() is None, (tmp_path / "log").read_text(encoding="utf-8")
            time.sleep(0.05)
        for path in sorted(paths):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}") as reply:
                assert (reply.status, reply.read().decode()) == (200, "a key of this test")


def test_the_systemd_unit_starts_a_script_that_refuses_to_run_without_a_key(made: Made) -> None:
    out = made()
    (unit,) = out.glob("*.service")
    assert f'ExecStart=/usr/bin/env bash "{out}/server.sh"' in unit.read_text(encoding="utf-8")
    bash = shutil.which("bash")
    assert bash is not None
    started = subprocess.run([bash, str(out / "server.sh")], env={}, capture_output=True, text=True)
    assert started.returncode != 0
    assert "PALMSWIFT_API_KEY: set it in .env" in started.stderr


def test_the_script_gives_vllm_the_environment_that_serve_gives_it(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VLLM_PLUGINS", raising=False)
    script = (made() / "server.sh").read_text(encoding="utf-8")
    for name, value in vllm_environment().items():
        assert f"export {name}={shlex.quote(value)}\n" in script


def test_no_secret_is_written(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PALMSWIFT_API_KEY", "very-secret-key")
    out = made()
    files = [path for path in out.rglob("*") if path.is_file()]
    assert not any("very-secret-key" in path.read_text(encoding="utf-8") for path in files)


def measured_series() -> set[str]:
    """The series of vLLM 0.32's /metrics, as Prometheus has them."""
    types = dict(re.findall(r"# TYPE (\S+) (\S+)", METRICS.read_text(encoding="utf-8")))
    return {
        *(name for name, kind in types.items() if kind in ("gauge", "counter")),
        *(f"{name}_bucket" for name, kind in types.items() if kind == "histogram"),
    }


def test_the_board_asks_only_for_what_vllm_measures(made: Made) -> None:
    asked = {
        name
        for panel in PANELS
        for expression in panel.expressions.values()
        for name in re.findall(r"vllm:\w+", expression)
    }
    assert asked <= measured_series()
    (board,) = (made() / "grafana" / "dashboards").glob("*.json")
    panels = json.loads(board.read_text(encoding="utf-8"))["panels"]
    assert [panel["title"] for panel in panels] == [panel.title for panel in PANELS]
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
    assert len(places) == len(panels)


@pytest.mark.parametrize(
    ("name", "slug"),
    [("clinic_qwen3", "clinic-qwen3"), ("模型", "model"), ("A" * 90, "a" * 40), ("-x.", "x")],
)
def test_a_name_becomes_one_that_containers_may_have(name: str, slug: str) -> None:
    assert slug_of(name) == slug


def test_a_folder_of_something_else_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    words = ["--out", str(tmp_path), "--replicas", "0", "--port", "99999"]
    assert main(words) == 2
    told = capsys.readouterr().err
    assert "none of ours" in told and "--replicas" in told and "--port" in told
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
