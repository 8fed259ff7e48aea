"""Given to `swift deploy` as `--external_plugins`: bounded requests, 4xx for what is malformed, and
the port that was asked for.

ms-swift 4.6.0 answers 500 to messages without content, to no choice (`n: 0`), to a key that is not
ASCII, and to whatever `/infer/` cannot read. The way of a well-formed request stays its own.
For a minute after a stop it takes the closed connections for a server, and another port.
In a folder of its own, because ms-swift puts a plugin's folder before all others to import from.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import swift.arguments.deploy_args as deploy_args
import uvicorn
from fastapi import HTTPException, Request
from swift.infer_engine.protocol import ChatCompletionRequest
from swift.pipelines.infer.deploy import SwiftDeploy

from palmswift.deploy.ports import bindable
from palmswift.deploy.request_bounds import RequestBounds

_UNREADABLE = (TypeError, ValueError, LookupError, AttributeError)
"""What ms-swift's readers raise for a request that is not one."""


def _readable(read: Callable[[Any], None]) -> Callable[[Any], None]:
    """A dataclass's __post_init__, whose ValueError becomes HTTP 422."""

    @functools.wraps(read)
    def read_or_refuse(request: Any) -> None:
        if request.n is not None and request.n < 1:
            raise ValueError("n is at least 1")
        try:
            read(request)
        except _UNREADABLE as error:
            what = f"messages cannot be read ({type(error).__name__}: {error})"
            raise ValueError(f"{what}; each has a role, and a text as its content") from error

    return read_or_refuse


def _of_any_text(check: Callable[[Any, Request], str | None]) -> Callable[..., str | None]:
    """`secrets.compare_digest` takes ASCII text only, and raises TypeError for other keys."""

    @functools.wraps(check)
    def check_key(server: Any, request: Request) -> str | None:
        said = request.headers.get("authorization", "")
        return check(server, request) if said.isascii() else "API key error"

    return check_key


def _refusing(handle: Callable[[Any, Request], Any]) -> Callable[[Any, Request], Any]:
    async def handle_or_refuse(server: Any, raw_request: Request) -> Any:
        try:
            return await handle(server, raw_request)
        except _UNREADABLE as error:
            raise HTTPException(400, f"the request cannot be read: {error}"[:300]) from error

    return handle_or_refuse


def _bounded(run: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(run)
    def run_bounded(app: Any, **settings: Any) -> None:
        run(RequestBounds(app), **settings)

    return run_bounded


def _reusing(find: Callable[..., int]) -> Callable[..., int]:
    """find_free_port (swift/utils/utils.py) binds without SO_REUSEADDR, which uvicorn sets."""

    @functools.wraps(find)
    def find_port(start_port: int | None = None, retry: int = 100) -> int:
        return bindable(start_port or 0) or find(start_port, retry)

    return find_port


def _change(owner: Any, name: str, made_of: Callable[[Any], Any]) -> None:
    setattr(owner, name, made_of(getattr(owner, name)))


_change(ChatCompletionRequest, "__post_init__", _readable)
_change(SwiftDeploy, "_check_api_key", _of_any_text)
_change(SwiftDeploy, "infer_handler", _refusing)
_change(deploy_args, "find_free_port", _reusing)
_change(uvicorn, "run", _bounded)
