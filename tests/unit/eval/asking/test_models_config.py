from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from palmswift.errors import InputError
from palmswift.eval.asking.endpoint import Endpoint, load_endpoints

URL = "http://127.0.0.1:8000/v1"


def loaded(folder: Path, document: Any) -> list[Endpoint]:
    path = folder / "models_config.json"
    path.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    return load_endpoints(path)


@pytest.mark.parametrize(
    "document",
    [
        [{"name": "qwen3 8b", "base_url": URL, "model": "qwen3"}],
        {"models": [{"label": "qwen3 8b", "api_base": URL, "model_name": "qwen3"}]},
        {"models": {"qwen3 8b": {"url": "127.0.0.1:8000", "served_model_name": "qwen3"}}},
        {"qwen3 8b": {"api_url": f"{URL}/chat/completions", "model": "qwen3", "api_key": "EMPTY"}},
    ],
)
def test_the_usual_spellings_name_the_same_endpoint(tmp_path: Path, document: Any) -> None:
    [endpoint] = loaded(tmp_path, document)
    assert (endpoint.label, endpoint.base_url, endpoint.model) == ("qwen3-8b", URL, "qwen3")


def test_what_is_sent_with_every_request_is_kept_and_what_is_switched_off_is_left_out(
    tmp_path: Path,
) -> None:
    document = {
        "models": [
            {"name": "基础", "url": URL, "temperature": 0.3, "extra_body": {"top_k": 5}},
            {"name": "off", "url": URL, "enabled": False},
            {"name": "keyed", "url": URL, "api_key_env": "SOME_KEY", "description": "x"},
        ]
    }
    base, keyed = loaded(tmp_path, document)
    assert base.label == "基础"
    assert base.extra == {"temperature": 0.3, "top_k": 5}
    assert keyed.api_key_env == "SOME_KEY"


def test_all_that_is_not_understood_is_told_and_a_key_is_not_repeated(tmp_path: Path) -> None:
    document = {
        "a": {"url": URL, "colour": "red"},
        "b": {"url": URL, "api_key": "sk-secret"},
        "c": {"model": "m"},
        "d": 7,
    }
    with pytest.raises(InputError) as caught:
        loaded(tmp_path, document)
    text = str(caught.value)
    assert len(caught.value.problems) == 4
    assert "`colour` is not understood" in text
    assert "api_key_env" in text
    assert "sk-secret" not in text


@pytest.mark.parametrize("document", [{}, [], {"models": []}])
def test_a_file_without_models_is_refused(tmp_path: Path, document: Any) -> None:
    with pytest.raises(InputError, match="mistake"):
        loaded(tmp_path, document)


def test_names_that_become_one_label_are_refused(tmp_path: Path) -> None:
    document = [{"name": "a b", "url": URL}, {"name": "a-b", "url": URL}]
    with pytest.raises(InputError, match="more than once"):
        loaded(tmp_path, document)


def test_limits_of_a_provider_are_read_from_yaml(tmp_path: Path) -> None:
    path = tmp_path / "models.yaml"
    limits = "{requests_per_minute: 60, tokens_per_minute: 1000, concurrency: 2}"
    path.write_text(f"endpoints: [{{label: a, base_url: '{URL}', limits: {limits}}}]")
    [endpoint] = load_endpoints(path)
    assert endpoint.limits.concurrency == 2
    path.write_text(f"endpoints: [{{label: a, base_url: '{URL}', limits: {{rpm: 3}}}}]")
    with pytest.raises(InputError, match="unknown key `rpm`"):
        load_endpoints(path)
