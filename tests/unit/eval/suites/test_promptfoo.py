from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support_eval import ROOT

from palmswift.errors import InputError
from palmswift.eval.asking.conversation import Case
from palmswift.eval.suites.interop import read_suite
from palmswift.eval.suites.promptfoo_files import assertion_of

INIT = ROOT / "tests/data/foreign/promptfooconfig.yaml"
"""What `promptfoo init --no-interactive` writes, by promptfoo 0.121.20."""

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
    for name, rows in FILES.items():
        (folder / name).write_text(rows, encoding="utf-8")
    return path


FILES = {
    "prompts.txt": "Say {{word}}.\n---\nTranslate\ninto {{language}}: {{word}}\n--- \n\n",
    "tests.csv": "\ufefflanguage,word,__expected,__expected2,__description\n"
    'French,Hello,icontains:bonjour,"contains-any: salut, ""a, b""",greeting\n'
    'Pirate,"I\'m\nhungry",grub,not-contains: sir,\n',
    "tests.jsonl": '{"vars": {"word": "a"}}\n\n{"vars": {"word": "b"}}\n',
    "tests.yaml": "- vars: {word: c}\n"
    "  assert: [{$ref: '#/assertionTemplates/pirate', weight: 2}]\n",
    "uneven.csv": "a,b\n1,2\n3\n",
    "half.jsonl": "{}\n{\n",
    "map.yaml": "a: b\n",
    "judged.csv": "a,__expected,__suffix\nx,llm-rubric: is polite,!\n",
}
"""What a configuration may name."""


def shown(case: Case) -> list[dict[str, Any]]:
    """What a case demands, without what is left to defaults."""
    return [a.model_dump(by_alias=True, exclude_defaults=True) for a in case.assertions]


def test_prompts_and_tests_in_files_are_read_as_promptfoo_reads_them(tmp_path: Path) -> None:
    suite = read_suite(
        write(tmp_path, "prompts: file://prompts.txt\ntests: file://tests.csv\ndefaultTest: {}\n")
    )
    assert [case.turns[0].content for case in suite.cases] == [
        "Say Hello.",
        "Translate\ninto French: Hello",
        "Say I'm\nhungry.",
        "Translate\ninto Pirate: I'm\nhungry",
    ]
    assert [case.tags for case in suite.cases[1:3]] == [["greeting"], []]
    demands = [
        a.model_dump(by_alias=True, exclude_defaults=True) for a in suite.cases[0].assertions
    ]
    assert demands == [
        {"kind": "contains", "value": "bonjour", "ignore_case": True},
        {"kind": "contains_any", "values": ["salut", "a, b"]},
    ]
    demands = [
        a.model_dump(by_alias=True, exclude_defaults=True) for a in suite.cases[2].assertions
    ]
    assert demands == [
        {"kind": "exact", "value": "grub"},
        {"kind": "contains", "value": "sir", "not": True},
    ]


def test_tests_of_several_files_follow_each_other_and_templates_are_filled_in(
    tmp_path: Path,
) -> None:
    text = (
        "prompts: ['{{word}}']\n"
        "tests: [tests.jsonl, file://tests.yaml, {vars: {word: d}}]\n"
        "assertionTemplates: {pirate: {type: icontains, value: arrr}}\n"
        "defaultTest: {assert: [{$ref: '#/assertionTemplates/pirate'}]}\n"
    )
    suite = read_suite(write(tmp_path, text))
    assert [case.turns[0].content for case in suite.cases] == ["a", "b", "c", "d"]
    assert [len(case.assertions) for case in suite.cases] == [1, 1, 2, 1]
    assert suite.cases[2].assertions[1].weight == 2


@pytest.mark.parametrize(
    ("cell", "meant"),
    [
        ("Yarr", {"type": "equals", "value": "Yarr"}),
        ("yes", {"type": "equals", "value": "yes"}),
        ("note: this", {"type": "equals", "value": "note: this"}),
        ("is-json", {"type": "is-json"}),
        ("latency(500)", {"type": "latency", "threshold": 500.0}),
        ("similar(0.8): hello", {"type": "similar", "threshold": 0.8, "value": "hello"}),
        ("not-equals: a:b", {"type": "not-equals", "value": "a:b"}),
        ("fn:output.length", {"type": "fn", "value": "output.length"}),
    ],
)
def test_a_cell_means_what_it_means_to_promptfoo(cell: str, meant: dict[str, object]) -> None:
    assert assertion_of(cell) == meant


def test_the_configuration_that_promptfoo_init_writes_is_read_but_for_code_and_judges(
    tmp_path: Path,
) -> None:
    with pytest.raises(InputError) as caught:
        read_suite(INIT)
    told = [problem.what for problem in caught.value.problems]
    assert told == [
        "the assertion `javascript` is not supported",
        "the assertion `llm-rubric` is not supported",
    ]
    assert f"{INIT.name}:31" in str(caught.value)
    text = INIT.read_text(encoding="utf-8")
    known = text[: text.index("      # Prefer")] + text[text.index("  - vars:\n      topic: new") :]
    path = tmp_path / INIT.name
    path.write_text(known[: known.index("    assert:\n      # For more information on model")])
    cases = read_suite(path).cases
    assert [case.id for case in cases] == ["1.1", "1.2", "2.1", "2.2", "3.1", "3.2"]
    assert cases[5].turns[0].content == "Write a concise, funny tweet about new york city"


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
    assert shown(first) == [
        {"kind": "contains", "value": "as an AI", "ignore_case": True, "not": True},
        {"kind": "contains_any", "values": ["Bonjour", "Salut"]},
        {"kind": "latency", "max": 5.0},
    ]
    assert shown(suite.cases[2])[1:] == [
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
        ("prompts: p.txt\ntests: []\n", "p.txt: not readable"),
        ("prompts: {a: b}\ntests: []\n", "neither a text nor a list"),
        ("prompts: [a]\ntests: file://t.csv\n", "t.csv: not readable"),
        ("prompts: [a]\ntests: [run.py]\n", "run.py: only .yaml"),
        ("prompts: [a]\ntests: chat.json\n", "`role` is not supported"),
        ("prompts: [a]\ntests: uneven.csv\n", "uneven.csv:3: not as many cells"),
        ("prompts: [a]\ntests: half.jsonl\n", "half.jsonl:2: not JSON"),
        ("prompts: [a]\ntests: map.yaml\n", "map.yaml: not a list"),
        ("prompts: ['{{a}}']\ntests: judged.csv\n", "judged.csv:2"),
        ("prompts: ['{{a}}']\ntests: judged.csv\n", "the assertion `llm-rubric`"),
        ("prompts: ['{{a}}']\ntests: judged.csv\n", "`__suffix` is not supported"),
        ("prompts: [a]\ntests: [{assert: [{$ref: '#/assertionTemplates/x'}]}]\n", "with a `type`"),
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
