"""Every expensive thing of the end-to-end tests, done once: the three demos, and a server.

A toy run keeps one core busy, so the demos with an adapter run beside the tests of the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from support_e2e import (
    Command,
    Demo,
    Finished,
    RunningServer,
    VllmServer,
    Workshop,
    has_vllm,
    served,
)

# `quickstart.py test` installs vLLM's CPU build where uv can; there is none but for Linux.
collect_ignore_glob = [] if has_vllm() else ["test_vllm*.py"]

ADAPTERS = {"lora_demo": "demo_cpu_lora", "qlora_demo": "demo_cpu_qlora"}
"""Fixtures, and the recipes that they run."""


@pytest.fixture(scope="session", autouse=True)
def no_proxy() -> Iterator[None]:
    """A proxy for the web is none for the servers of this machine."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("NO_PROXY", "no_proxy"):
            patch.setenv(name, "127.0.0.1,localhost")
        yield


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """The working folder of all tests but those of the adapters."""
    return Workshop(tmp_path_factory.mktemp("workshop"))


@pytest.fixture(scope="session")
def demo(workshop: Workshop, vllm: VllmServer) -> Demo:
    """The README's main command, come to its end."""
    finished = workshop.call("python3", "quickstart.py", "demo")
    run = workshop.run_of("demo_cpu")
    vllm.start_if_asked_for(run)
    return Demo(workshop, run, finished)


@pytest.fixture(scope="session")
def vllm(request: pytest.FixtureRequest, workshop: Workshop) -> Iterator[VllmServer]:
    """A vLLM that starts beside the tests as soon as there is a model, if a test asks for it."""
    asked = any("vllm_server" in getattr(x, "fixturenames", ()) for x in request.session.items)
    server = VllmServer(workshop, asked)
    yield server
    server.close()


@pytest.fixture(scope="session")
def vllm_server(demo: Demo, vllm: VllmServer) -> RunningServer:
    """The demo's model, served by vLLM's own server on the CPU; ready.

    Its template thinks unless told otherwise: send `chat_template_kwargs: {enable_thinking: false}`
    to get the trained answers.
    """
    return vllm.ready()


@pytest.fixture(scope="session")
def server(demo: Demo) -> Iterator[RunningServer]:
    """The demo's model, served in the background."""
    with served(demo.workshop, "--run", demo.run.path.name) as running:
        yield running


class _Lane:
    """Commands that run one after the other beside the tests."""

    def __init__(self, workshop: Workshop) -> None:
        self.workshop = workshop
        self.results: dict[str, Future[Finished]] = {}
        self._pool = ThreadPoolExecutor(max_workers=1)
        self._running: Command | None = None

    def add(self, recipe: str) -> None:
        """Put a pipeline at the end of the lane."""
        self.results[recipe] = self._pool.submit(self._run, recipe)

    def _run(self, recipe: str) -> Finished:
        words = ("python", "launchers/pipeline.py", "--recipe", recipe)
        with self.workshop.started(*words) as command:
            self._running = command
            return command.wait()

    def close(self) -> None:
        """End what runs and forget what waits."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._running is not None:
            self._running.end()
        self._pool.shutdown()


@pytest.fixture(scope="session", autouse=True)
def adapter_lane(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[_Lane]:
    """The demos with an adapter that the collected tests ask for, under way from the start.

    They have a working folder of their own, so that `latest` means one run there and here.
    """
    lane = _Lane(Workshop(tmp_path_factory.mktemp("workshop-adapters")))
    asked = {name for item in request.session.items for name in getattr(item, "fixturenames", ())}
    for fixture, recipe in ADAPTERS.items():
        if fixture in asked:
            lane.add(recipe)
    try:
        yield lane
    finally:
        lane.close()


@pytest.fixture(scope="session")
def shared_models(adapter_lane: _Lane) -> Path:
    """The models that the demos with an adapter make, for others that stand on the same base."""
    folder = adapter_lane.workshop.folder / "models"
    folder.mkdir(exist_ok=True)
    return folder


def _from_lane(lane: _Lane, fixture: str) -> Demo:
    recipe = ADAPTERS[fixture]
    finished = lane.results[recipe].result()
    return Demo(lane.workshop, lane.workshop.run_of(recipe), finished)


@pytest.fixture(scope="session")
def lora_demo(adapter_lane: _Lane) -> Demo:
    """The pipeline of demo_cpu_lora, come to its end."""
    return _from_lane(adapter_lane, "lora_demo")


@pytest.fixture(scope="session")
def qlora_demo(adapter_lane: _Lane) -> Demo:
    """The pipeline of demo_cpu_qlora, come to its end; it ran after demo_cpu_lora's."""
    return _from_lane(adapter_lane, "qlora_demo")
