"""Every expensive thing of the end-to-end tests, done once: the three demos, and two servers.

Modules that use them stay in one process of `pytest -n` (tests/support_workers.py).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support_e2e import (
    Demo,
    RunningServer,
    Workshop,
    has_vllm,
    served,
)
from support_forks import warm_swift

# `quickstart.py test` installs vLLM's CPU build where uv can; there is none but for Linux.
collect_ignore_glob = [] if has_vllm() else ["test_vllm*.py"]


@pytest.fixture(scope="session", autouse=True)
def no_proxy() -> Iterator[None]:
    """A proxy for the web is none for the servers of this machine."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("NO_PROXY", "no_proxy"):
            patch.setenv(name, "127.0.0.1,localhost")
        yield


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """An environment for commands, in which ms-swift is imported already.

    Not for tests of what becomes of processes: the trainings are children of another one.
    """
    with warm_swift(tmp_path_factory.mktemp("warm")) as environment:
        yield environment


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """The working folder of all tests but those of the adapters."""
    return Workshop(tmp_path_factory.mktemp("workshop"))


@pytest.fixture(scope="session")
def demo(workshop: Workshop) -> Demo:
    """The README's main command, come to its end."""
    finished = workshop.call("python3", "quickstart.py", "demo")
    return Demo(workshop, workshop.run_of("demo_cpu"), finished)


@pytest.fixture(scope="session")
def server(demo: Demo) -> Iterator[RunningServer]:
    """The demo's model, served in the background."""
    with served(demo.workshop, "--run", demo.run.path.name) as running:
        yield running


@pytest.fixture(scope="session")
def shared_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the models are made that several demos stand on; one folder for all processes.

    palmswift itself sees to it that one trains a base and the others wait for it.
    """
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # each process has a folder of its own in it
    models = folder / "models"
    models.mkdir(exist_ok=True)
    return models


@pytest.fixture(scope="session")
def adapters(tmp_path_factory: pytest.TempPathFactory, shared_models: Path) -> Workshop:
    """The working folder of the demos with an adapter."""
    return Workshop(tmp_path_factory.mktemp("workshop-adapters"), shared_models)


def _pipeline(workshop: Workshop, recipe: str) -> Demo:
    finished = workshop.call("python", "launchers/pipeline.py", "--recipe", recipe)
    return Demo(workshop, workshop.run_of(recipe), finished)


@pytest.fixture(scope="session")
def lora_demo(adapters: Workshop) -> Demo:
    """The pipeline of demo_cpu_lora, come to its end."""
    return _pipeline(adapters, "demo_cpu_lora")


@pytest.fixture(scope="session")
def qlora_demo(adapters: Workshop, lora_demo: Demo) -> Demo:
    """The pipeline of demo_cpu_qlora, come to its end; it ran after demo_cpu_lora's."""
    return _pipeline(adapters, "demo_cpu_qlora")


@pytest.fixture(scope="session")
def vllm_server(lora_demo: Demo) -> Iterator[RunningServer]:
    """vLLM's own server on the CPU: the LoRA demo's adapter, an older one, and their base."""
    last = lora_demo.run.path / str(lora_demo.run.facts("train")["checkpoint"])
    [older] = {*lora_demo.run.training.glob("checkpoint-[0-9]*")} - {last}
    with served(
        lora_demo.workshop,
        *("--run", lora_demo.run.path.name, "--server", "vllm", "--also", f"older={older}"),
        *("--set", "vllm_max_model_len=512", "--set", "vllm_enforce_eager=true"),
        env={"VLLM_CPU_KVCACHE_SPACE": "1"},
    ) as running:
        yield running
