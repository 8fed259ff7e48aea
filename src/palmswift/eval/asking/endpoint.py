"""The servers that are asked: where they are, which model, with which key."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from palmswift.errors import InputError
from palmswift.eval.asking.models_config import endpoints_of, is_models_config
from palmswift.eval.asking.pace import Limits
from palmswift.eval.suites.document import read_yaml, validated

_TAILS = ("/chat/completions", "/completions", "/models")


class Endpoint(BaseModel):
    """An OpenAI-compatible server under a label."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: str = Field(min_length=1, pattern=r"^[\w.+-]+$")
    """What results are kept under; `base` is the one that others are compared with."""
    base_url: str
    """Up to and with the version, such as http://127.0.0.1:8000/v1."""
    model: str | None = None
    """The model name to send; null: the first that /v1/models lists."""
    api_key_env: str | None = None
    """The environment variable that holds the key; null: no key is sent."""
    extra: dict[str, Any] = Field(default_factory=dict)
    """Further fields of the request, such as chat_template_kwargs."""
    limits: Limits = Field(default_factory=Limits)
    """How fast the endpoint may be asked."""
    fingerprint: bool = True
    """Whether the model is probed, so that answers of other weights are not taken for its own."""

    @field_validator("base_url")
    @classmethod
    def _normal(cls, url: str) -> str:
        """The URL without a trailing slash or route; `/v1` is added to a bare host."""
        url = url.strip().rstrip("/")
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is not an http(s) address such as http://127.0.0.1:8000/v1")
        try:
            _ = parts.port
        except ValueError as error:
            raise ValueError(f"{url!r}: {error}") from error
        if parts.username or parts.password:
            raise ValueError("no name or password in the address: use `api_key_env`")
        path = parts.path
        for tail in _TAILS:
            path = path.removesuffix(tail)
        return f"{parts.scheme}://{parts.netloc}{path.rstrip('/') or '/v1'}"

    def key(self) -> str | None:
        """The API key, null when none is sent; InputError when its variable is not set."""
        if self.api_key_env is None:
            return None
        key = os.environ.get(self.api_key_env)
        if not key:
            raise InputError(
                f"endpoint {self.label}: the environment variable {self.api_key_env} is not set",
                remedy=f"export {self.api_key_env}=...",
            )
        return key


class EndpointList(BaseModel):
    """A file of endpoints."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    endpoints: list[Endpoint] = Field(min_length=1)

    @model_validator(mode="after")
    def _labels_differ(self) -> EndpointList:
        labels = [endpoint.label for endpoint in self.endpoints]
        twice = sorted({label for label in labels if labels.count(label) > 1})
        if twice:
            raise ValueError(f"the label {', '.join(twice)} is used more than once")
        return self


def load_endpoints(path: Path) -> list[Endpoint]:
    """The endpoints of a YAML file (`endpoints: [{label, base_url}]`) or a models_config.json."""
    known = [*EndpointList.model_fields, *Endpoint.model_fields, *Limits.model_fields]
    document = read_yaml(path)
    if is_models_config(document):
        document = document._replace(value=endpoints_of(document))
    return validated(EndpointList, document, known).endpoints


def parse_endpoints(
    words: Sequence[str],
    *,
    label: str,
    model: str | None = None,
    api_key_env: str | None = None,
    extra: dict[str, Any] | None = None,
    limits: Limits | None = None,
) -> list[Endpoint]:
    """The endpoints that `--endpoint` words name: `URL` (under `label`) or `LABEL=URL`."""
    from pydantic import ValidationError

    endpoints, problems = [], []
    for word in words:
        head, equals, tail = word.partition("=")
        named = equals and "/" not in head and ":" not in head
        try:
            endpoints.append(
                Endpoint(
                    label=head if named else label,
                    base_url=tail if named else word,
                    model=model,
                    api_key_env=api_key_env,
                    extra=extra or {},
                    limits=limits or Limits(),
                )
            )
        except ValidationError as error:
            problems += [e["msg"].removeprefix("Value error, ") for e in error.errors()]
    labels = [endpoint.label for endpoint in endpoints]
    problems += [
        f"two endpoints are called {name!r}: write --endpoint LABEL=URL"
        for name in dict.fromkeys(labels)
        if labels.count(name) > 1
    ]
    if problems:
        from palmswift.errors import Problem

        raise InputError(
            "the endpoints are not usable",
            [Problem(text, "--endpoint") for text in problems],
            remedy="--endpoint http://127.0.0.1:8000/v1, or --endpoint base=http://...",
        )
    return endpoints
