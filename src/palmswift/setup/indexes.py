"""Where packages come from: pip's own settings, handed on to uv, which does not read them."""

from __future__ import annotations

import ast
import contextlib
import os
import subprocess
from collections.abc import Sequence

_TO_UV = {
    "index-url": ("--default-index", ("UV_DEFAULT_INDEX", "UV_INDEX_URL")),
    "extra-index-url": ("--index", ("UV_INDEX", "UV_EXTRA_INDEX_URL")),
    "find-links": ("--find-links", ("UV_FIND_LINKS",)),
    "trusted-host": ("--allow-insecure-host", ("UV_INSECURE_HOST",)),
}
"""pip's setting, uv's option for it, and uv's variables that come before it."""


def pip_settings(python: str) -> dict[str, list[str]]:
    """The package places that pip is set to (variables before `install`, before `global`)."""
    settings: dict[str, list[str]] = {}
    lines = _configuration(python)
    for section in ("global", "install"):
        for line in lines:
            key, _, value = line.partition("=")
            where, _, name = key.partition(".")
            if where == section and name in {*_TO_UV, "cert", "proxy"}:
                with contextlib.suppress(ValueError, SyntaxError):
                    settings[name] = str(ast.literal_eval(value)).split()
    for name in (*_TO_UV, "cert", "proxy"):
        words = os.environ.get(f"PIP_{name.upper().replace('-', '_')}", "").split()
        if words:
            settings[name] = words
    return settings


def uv_arguments(settings: dict[str, list[str]], leave_out: Sequence[str] = ()) -> list[str]:
    """The same places as arguments of uv, but for those that uv's own variables set."""
    words = []
    for name, (option, variables) in _TO_UV.items():
        if name not in leave_out and not any(os.environ.get(key) for key in variables):
            words += [word for value in settings.get(name, []) for word in (option, value)]
    if "--index" in words:
        # pip takes the best version of all its indexes; uv by default stops at the first with any.
        words += ["--index-strategy", "unsafe-best-match"]
    return words


def uv_variables(settings: dict[str, list[str]]) -> dict[str, str]:
    """pip's certificate and proxy as the variables that uv reads, unless they are set."""
    wanted = {"SSL_CERT_FILE": settings.get("cert"), "HTTPS_PROXY": settings.get("proxy")}
    return {
        key: " ".join(value)
        for key, value in wanted.items()
        if value and not os.environ.get(key) and not os.environ.get(key.lower())
    }


def _configuration(python: str) -> list[str]:
    try:
        done = subprocess.run(
            [python, "-m", "pip", "config", "list"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
            errors="replace",
            timeout=60,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.splitlines() if done.returncode == 0 else []
