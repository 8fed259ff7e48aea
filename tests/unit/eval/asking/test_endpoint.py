from __future__ import annotations

from pathlib import Path

import pytest
from support_eval import ROOT

from palmswift.errors import InputError
from palmswift.eval.asking.endpoint import Endpoint, load_endpoints, parse_endpoints


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000/v1"),
        ("127.0.0.1:8000/v1/", "http://127.0.0.1:8000/v1"),
        ("http://h/v1/chat/completions", "http://h/v1"),
        ("https://h/api/v3/", "https://h/api/v3"),
        ("http://[::1]:8000/v1", "http://[::1]:8000/v1"),
    ],
)
def test_an_address_is_understood_as_people_write_it(given: str, url: str) -> None:
    assert Endpoint(label="a", base_url=given).base_url == url


def test_labels_come_before_an_equals_sign() -> None:
    both = parse_endpoints(["base=http://a/v1", "http://b/v1?x=1"], label="tuned")
    assert [endpoint.label for endpoint in both] == ["base", "tuned"]


def test_all_wrong_endpoints_are_told_at_once() -> None:
    with pytest.raises(InputError) as caught:
        parse_endpoints(
            ["ftp://x", "http://h:99999", "http://me:secret@h", "a b=http://h"], label="t"
        )
    assert len(caught.value.problems) == 4
    assert "secret" not in str(caught.value)


def test_two_endpoints_need_two_labels() -> None:
    with pytest.raises(InputError, match="LABEL=URL"):
        parse_endpoints(["http://a", "http://b"], label="tuned")


def test_the_key_comes_from_the_environment_only(monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = Endpoint(label="a", base_url="http://h", api_key_env="EVAL_TEST_KEY")
    with pytest.raises(InputError, match="EVAL_TEST_KEY"):
        endpoint.key()
    monkeypatch.setenv("EVAL_TEST_KEY", "k")
    assert endpoint.key() == "k"
    assert Endpoint(label="a", base_url="http://h").key() is None


def test_the_example_file_loads_and_a_double_label_is_refused(tmp_path: Path) -> None:
    example = load_endpoints(ROOT / "eval/models.example.yaml")
    assert [endpoint.label for endpoint in example] == ["base", "tuned"]
    path = tmp_path / "m.yaml"
    path.write_text(
        "endpoints:\n- {label: a, base_url: http://h}\n- {label: a, base_url: http://i, modle: x}\n"
    )
    with pytest.raises(InputError) as caught:
        load_endpoints(path)
    assert f"{path}:3" in str(caught.value)
    assert "did you mean `model`?" in str(caught.value)
