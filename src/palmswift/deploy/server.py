"""One running server: started, ready when it answers, ended with everything that it started."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from palmswift.deploy import vllm_server
from palmswift.deploy.backends import require_installed
from palmswift.deploy.ending import Ended, end_server
from palmswift.deploy.explain import server_error
from palmswift.deploy.keyed import KEY_VARIABLE
from palmswift.deploy.ports import free_port, holder_of, listens, require_port
from palmswift.deploy.readiness import Answer, ask
from palmswift.deploy.spec import (
    ServerSpec,
    check_spec,
    deploy_arguments,
    deploy_environment,
    reachable_host,
)
from palmswift.deploy.startup import Phase, StartWatch
from palmswift.deploy.state import (
    ServerState,
    claim,
    release,
    require_unclaimed,
    rewrite,
    seconds_after_boot,
    servers_dir,
)
from palmswift.deploy.vllm_server import vllm_arguments
from palmswift.errors import ChildError
from palmswift.files import write_text
from palmswift.launchers.render import (
    PROGRAM_VARIABLE,
    Rendered,
    direct_words,
    render_command,
    swift_program,
)
from palmswift.launchers.run_folder import utc_now
from palmswift.process import ProcessGroup, group_members, uninterrupted
from palmswift.recipes.recipe import SwiftValue

_POLL_SECONDS = 0.2
_REFUSALS = 3
"""Refused completions in a row after which waiting is given up."""


def server_command(spec: ServerSpec, port: int, *, bounded: bool = True) -> Rendered:
    """The command that serves `spec` on `port`; the key is in none of it.

    Without `bounded` vLLM's own server needs no palmswift where it runs.
    """
    if spec.server == "vllm":
        bounds: dict[str, SwiftValue] = {"middleware": vllm_server.BOUNDS} if bounded else {}
        return render_command(
            "vllm",
            vllm_arguments(spec, port) | bounds,
            env=deploy_environment(spec),
            title=f"{spec.name} on port {port}",
            program=vllm_server.PROGRAM,
        )
    program = None
    if spec.api_key is not None and not os.environ.get(PROGRAM_VARIABLE):
        program = [sys.executable, "-m", "palmswift.deploy.keyed"]
    return render_command(
        "deploy",
        deploy_arguments(spec, port),
        env=deploy_environment(spec),
        title=f"{spec.name} on port {port}",
        program=program,
    )


class Server:
    """`swift deploy` as a context manager: inside the block it answers, after it nothing is left.

    `folder` gets the log and the command as `<port>.log` and `<port>.sh`; `registry` holds the
    state files (runs/.servers).
    """

    def __init__(
        self,
        spec: ServerSpec,
        *,
        folder: Path,
        run: Path | None = None,
        detached: bool = False,
        registry: Path | None = None,
        note: Callable[[str], object] = lambda line: None,
        grace: float = 10.0,
    ) -> None:
        """`note` is told what goes on; `grace` is seconds between TERM and KILL.

        The server ends with us, even if we are killed, until it is left to itself (`leave`).
        """
        self.spec = spec
        self.folder = folder
        self.run = run
        self.detached = detached
        self.registry = registry or servers_dir()
        self.note = note
        self.grace = grace
        self.port = spec.port
        self.phases: list[Phase] = []
        self.state: ServerState | None = None
        self._process: ProcessGroup | None = None

    def __enter__(self) -> Server:
        try:
            self.start()
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def base_url(self) -> str:
        """What OpenAI clients take as `base_url`, with `/v1`."""
        return f"http://{reachable_host(self.spec.host)}:{self.port}/v1"

    @property
    def log(self) -> Path:
        """Everything that the server prints."""
        return self.folder / f"{self.port}.log"

    def check(self) -> None:
        """`InputError` when it cannot be started: the spec, a missing package, a taken port."""
        check_spec(self.spec)
        if self.spec.server == "vllm" or not os.environ.get(PROGRAM_VARIABLE):
            require_installed(self.spec.backend, self.spec.swift)
        if self.spec.port:
            require_unclaimed(self.spec.port, self.registry)
            require_port(self.spec.port)

    def start(self) -> None:
        """Start the processes; `InputError` as `check` says."""
        self.check()
        self.port = self.spec.port or free_port()
        command = server_command(self.spec, self.port)
        write_text(self.folder / f"{self.port}.sh", command.script)
        self.log.unlink(missing_ok=True)
        key = self.spec.api_key
        variable = KEY_VARIABLE if self.spec.server == "swift" else vllm_server.KEY_VARIABLE
        secret = {} if key is None else {variable: key.get_secret_value()}
        process = ProcessGroup(
            direct_words(command),
            log=self.log,
            env={**command.env, **secret},
            grace=self.grace,
        )
        process.start()
        self._process = process
        self.state = self._state_of(self._process)
        claim(self.state, self.registry)

    def _state_of(self, process: ProcessGroup) -> ServerState:
        return ServerState(
            pid=process.pid,
            started_after_boot=seconds_after_boot(process.pid),
            started_at=utc_now(),
            host=self.spec.host,
            port=self.port,
            base_url=self.base_url,
            name=self.spec.name,
            keyed=self.spec.api_key is not None,
            log=str(self.log),
            argv=process.argv,
            run=None if self.run is None else str(self.run),
            detached=self.detached,
        )

    def poll(self) -> int | None:
        """The server's exit code once it has ended, None while it runs."""
        return None if self._process is None else self._process.poll()

    def wait_ready(self) -> None:
        """Return when a real completion came back from our own process on the asked port.

        `ChildError`, with the end of the log explained: the server ended, moved to another port,
        refused the completion, does not ask for its key, or took longer than `ready_timeout`.
        """
        watch = StartWatch(self.log, self.note, self._first_phase())
        deadline = time.monotonic() + self.spec.ready_timeout
        refusals = 0
        while True:
            watch.update()
            self._require_alive()
            self._require_port_kept(watch)
            if self._process is not None and listens(group_members(self._process.pid), self.port):
                answer = self._ask(deadline)
                if answer.kind == "ok":
                    break
                refusals = refusals + 1 if answer.kind == "refused" else 0
                if refusals == _REFUSALS:
                    raise server_error(f"{self.spec.name} refuses: {answer.detail}", self.log)
            if time.monotonic() > deadline:
                raise server_error(
                    f"{self.spec.name} gave no completion within {self.spec.ready_timeout:.0f} s; "
                    f"it was {watch.phase}, and its log is {watch.quiet:.0f} s old",
                    self.log,
                )
            time.sleep(_POLL_SECONDS)
        self.phases = watch.finish()
        self._require_key_asked()

    def _first_phase(self) -> str:
        """What goes on first: `swift` says when its child is started, the others import at once."""
        if self.spec.server == "vllm":
            return "importing vLLM"
        words, swift = self._process.argv if self._process else [], swift_program()
        return "starting swift" if words[: len(swift)] == swift else "importing ms-swift"

    def _ask(self, deadline: float) -> Answer:
        key = self.spec.api_key
        patience = min(60.0, max(1.0, deadline - time.monotonic()))
        secret = None if key is None else key.get_secret_value()
        return ask(self.base_url, self.spec.name, secret, patience)

    def _require_alive(self) -> None:
        if (exit_code := self.poll()) is not None:
            raise server_error(
                f"the server ended before it was ready (exit code {exit_code})", self.log, exit_code
            )

    def _require_port_kept(self, watch: StartWatch) -> None:
        if watch.uvicorn_port not in (None, self.port):
            holder = holder_of(self.port)
            raise ChildError(
                f"port {self.port} was taken by {holder or 'another process'} during the start, "
                f"and ms-swift moved to {watch.uvicorn_port} in silence",
                remedy="start again with another --port, or --port 0",
            )

    def _require_key_asked(self) -> None:
        if self.spec.api_key is None:
            return
        if ask(self.base_url, self.spec.name, None).kind == "ok":
            raise ChildError(
                f"{self.spec.name} answers without its key, so it is not left running",
                remedy=f"unset {PROGRAM_VARIABLE} if it names a program of your own",
            )

    def note_parity(self, sentence: str) -> None:
        """Keep in the state file what came of comparing it with the trained model."""
        if self.state is not None:
            self.state = self.state.model_copy(update={"parity": sentence})
            rewrite(self.state, self.registry)

    def leave(self) -> ServerState:
        """Let the server outlive the block (and us); its state."""
        if self.state is None or self._process is None:
            raise RuntimeError("the server was not started")
        self._process.let_go()
        self._process = None
        return self.state

    def stop(self) -> Ended:
        """End every process of the server; `ChildError` when one is left."""
        if self._process is None:
            return Ended(0, 0)
        with uninterrupted():
            ended = end_server(self._process.pid, self.grace)
            self._process.stop()
            self._process = None
            if self.state is not None:
                release(self.state, self.registry)
        if ended.processes:
            self.note(ended.sentence(self.spec.name, self.port))
        return ended
