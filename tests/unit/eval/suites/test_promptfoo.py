from __future__ import annotations

from pathlib import Path

import pytest

from palmswift.errors import InputError
from palmswift.eval.suites.interop import read_suite

EXAMPLE = """
description: Translations
prompts:
  - 'Translate into {{language}}: {{input}}'
  - file://chat.json
providers: [openai:gpt-5]
defaultTest:
  assert:
    - {type: not-icontains, value: as an AI}
tests:
  - vars: {language: French, input: Hello world}
    description: greeting
    assert:
      - {type: contains-any, value: 'Bonjour, Salut'}
      - {type: latency, threshold: 5000}
  - vars: {language: German, input: Good}
    assert:
      - {type: equals, value: Gut, weight: 2}
      - {type: starts-with, value: 'G.'}
      - {type: is-json}
      - {type: contains-json, value: {type: object}}
      - {type: not-regex, value: '\\d'}
      - {type: icontains-all, value: ['{{input}}', g]}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "promptfooconfig.yaml"
    path.write_text(text, encoding="utf-8")
    (folder / "chat.json").write_text(
        '[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "{{input}}?"}]',
        encoding="utf-8",
    )
    return path


def test_a_promptfoo_file_is_a_suite_of_its_prompts_and_tests(tmp_path: Path) -> None:
    suite = read_suite(write(tmp_path, EXAMPLE))
    assert (suite.name, suite.description) == ("promptfooconfig", "Translations")
    assert [case.id for case in suite.cases] == ["1.1", "1.2", "2.1", "2.2"]
    first, chat = suite.cases[:2]
    assert first.turns[0].content == "Translate into French: Hello world"
    assert [(t.role, t.content) for t in chat.turns] == [
        ("system", "Be brief."),
        ("user", "Hello world?"),
    ]
    assert first.tags == ["greeting"]
    demands = [a.model_dump(by_alias=True, exclude_defaults=True) for a in first.assertions]
    assert demands == [
        {"kind": "contains", "value": "as an AI", "ignore_case": True, "not": True},
        {"kind": "contains_any", "values": ["Bonjour", "Salut"]},
        {"kind": "latency", "max": 5.0},
    ]
    second = [a.model_dump(by_alias=True, exclude_defaults=True) for a in suite.cases[2].assertions]
    assert second[1:] == [
        {"kind": "exact", "value": "Gut", "weight": 2.0},
        {"kind": "regex", "pattern": r"\\AG\\.".replace("\\\\", "\\")},
        {"kind": "json", "strict": True},
        {"kind": "json_schema", "schema": {"type": "object"}},
        {"kind": "regex", "pattern": r"\d", "not": True},
        {"kind": "contains_all", "values": ["Good", "g"], "ignore_case": True},
    ]


def test_everything_that_is_not_supported_is_named_at_once_with_its_line(tmp_path: Path) -> None:
    bad = (
        EXAMPLE
        + """
  - vars: {language: Dutch, input: x}
    repeat: 3
    assert:
      - {type: llm-rubric, value: is polite}
      - {type: javascript, value: 'output.length > 3'}
      - {type: equals, value: x, transform: output.trim()}
  - vars: {language: Dutch}
scenarios: []
nunjucksFilters: {}
"""
    )
    with pytest.raises(InputError) as caught:
        read_suite(write(tmp_path, bad))
    said = str(caught.value)
    for words in (
        "`scenarios` is not supported",
        "`nunjucksFilters` is not supported",
        "`repeat` is not supported",
        "the assertion `llm-rubric` is not supported",
        "the assertion `javascript` is not supported",
        "`transform` of an assertion is not supported",
        "'input' is undefined",
    ):
        assert words in said
    assert "promptfooconfig.yaml:29" in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("prompts: p.txt\ntests: []\n", "`prompts` is not a list"),
        ("prompts: [a]\ntests: file://t.csv\n", "`tests` is not a list"),
        ("prompts: [a]\ntests: []\n", "there are no tests"),
        ("prompts: [file://none.txt]\n", "not readable"),
        ("prompts: [file://run.py]\n", "only .txt"),
        ("prompts: [{id: x}]\n", "a prompt is a text"),
        ("prompts: [a]\ntests: [5]\n", "a test is a map"),
        ("prompts: [a]\ntests: [{assert: [{value: 1}]}]\n", "a map with a `type`"),
        ("prompts: [a]\ntests: [{assert: [{type: regex, value: '('}]}]\n", "regular expression"),
        ("prompts: [a]\ntests: [{assert: [{type: latency}]}]\n", "`latency`"),
        ("prompts: [a]\ntests: [{assert: [{type: is-json, value: '[1]'}]}]\n", "is an object"),
        ("prompts: ['{{']\n", "unexpected 'end of template'"),
        ("prompts: ['{{ ().__class__ }}']\n", "unsafe"),
        (
            "prompts: [a]\ntests: [{threshold: 1, assert: [{type: equals, value: a}]}]\n",
            "threshold",
        ),
    ],
)
def test_what_cannot_be_read_is_told(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        read_suite(write(tmp_path, text))
    assert said in str(caught.value)


def test_our_own_suites_are_read_as_before(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("name: s\ncases: [{id: a, question: q}]\n", encoding="utf-8")
    assert read_suite(path).name == "s"
