"""Endpoints from a `models_config.json`, as scripts that test several models keep it.

No standard says what is in such a file, so the usual spellings are understood: a list of models,
the list under `models`, or a map from names; and of each model its address, its name on the server
and what is sent with every request. What is not understood is told, not passed over.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from palmswift.errors import InputError, Problem
from palmswift.eval.suites.document import Document

_NAMES = ("label", "name", "id", "title")
_ADDRESSES = ("base_url", "api_base", "url", "api_url", "endpoint", "server", "host")
_MODELS = ("model", "model_name", "served_model_name", "model_id")
_KEYS = ("api_key_env", "key_env")
_INLINE_KEYS = ("api_key", "key", "token")
_NO_KEYS = ("", "EMPTY", "none", "None", "null", "sk-no-key-required")
_SENT = (
    *("temperature", "top_p", "top_k", "max_tokens", "seed", "stop", "repetition_penalty"),
    *("presence_penalty", "frequency_penalty", "chat_template_kwargs", "extra_body", "min_p"),
)
_PASSED_OVER = ("description", "comment", "enabled", "note", "type", "provider")


def is_models_config(document: Document) -> bool:
    """Whether the file is of this kind, and not one of `endpoints:`."""
    value = document.value
    if isinstance(value, dict):
        return "endpoints" not in value and document.path.suffix.lower() == ".json"
    return isinstance(value, list)


def endpoints_of(document: Document) -> dict[str, Any]:
    """The file as `{"endpoints": [...]}`; InputError with everything that is not understood."""
    problems: list[Problem] = []
    endpoints = []
    for place, name, model in _models(document):
        if not isinstance(model, dict):
            problems.append(Problem("is no object that describes a model", place))
        elif model.get("enabled", True) is not False:
            endpoints.append(_endpoint(place, name, model, problems))
    if not problems and not endpoints:
        problems.append(Problem("names no model", str(document.path)))
    if problems:
        raise InputError(f"{document.path}: {len(problems)} mistake(s)", problems)
    return {"endpoints": endpoints}


def _models(document: Document) -> list[tuple[str, str | None, Any]]:
    """Where each model stands, the name that it stands under, and what is said of it."""
    value = document.value
    inside: tuple[str | int, ...] = ()
    if isinstance(value, dict) and isinstance(value.get("models"), (list, dict)):
        value, inside = value["models"], ("models",)
    if isinstance(value, list):
        return [(document.where((*inside, n)), None, item) for n, item in enumerate(value)]
    return [(document.where((*inside, str(k))), str(k), item) for k, item in value.items()]


def _endpoint(
    place: str, name: str | None, model: Mapping[str, Any], problems: list[Problem]
) -> dict[str, Any]:
    """One entry of `endpoints`, as far as it is understood."""
    known = {*_NAMES, *_ADDRESSES, *_MODELS, *_KEYS, *_INLINE_KEYS, *_SENT, *_PASSED_OVER}
    for key in model.keys() - known:
        problems.append(Problem(f"`{key}` is not understood", place, f"known: {_listed(known)}"))
    address = _first(model, _ADDRESSES)
    if not isinstance(address, str):
        problems.append(Problem("no address", place, f"give one as `{_ADDRESSES[0]}`"))
    key = _first(model, _INLINE_KEYS)
    if key is not None and key not in _NO_KEYS:
        problems.append(
            Problem(
                "holds an API key, which is read from the environment alone",
                place,
                'take the key out, export it as a variable, and write "api_key_env": "ITS_NAME"',
            )
        )
    title = _first(model, _NAMES) or name or _first(model, _MODELS)
    sent = {field: model[field] for field in _SENT if field in model and field != "extra_body"}
    entry: dict[str, Any] = {
        "label": re.sub(r"[^\w.+-]+", "-", str(title)).strip("-") if title else "model",
        "base_url": address if isinstance(address, str) else "http://unknown",
        "model": _first(model, _MODELS),
        "api_key_env": _first(model, _KEYS),
        "extra": {**sent, **(model.get("extra_body") or {})},
    }
    return {field: value for field, value in entry.items() if value is not None}


def _first(model: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((model[name] for name in names if model.get(name) is not None), None)


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names))
