from __future__ import annotations

from pathlib import Path

import pytest
from support_eval import ROOT, write_rows

from palmswift.errors import InputError
from palmswift.eval.suites.dataset import DatasetSource
from palmswift.eval.suites.suite import load_suite, suite_from_datasets


def row(question: str, answer: str, system: str | None = None) -> dict[str, object]:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": [{"role": "system", "content": system}, *turns] if system else turns}


def test_the_bundled_suite_loads_with_its_three_tags_and_its_gate() -> None:
    suite = load_suite(ROOT / "eval/suites/clinic.yaml")
    assert suite.tags == ["trained", "reworded", "facts"]
    trained = [case for case in suite.cases if "trained" in case.tags]
    assert len(trained) >= 100
    assert all(case.reference and case.assertions for case in trained)
    assert [(g.tag, g.endpoint, g.min) for g in suite.gates if g.metric == "exact_match"] == [
        ("trained", "tuned", 0.9)
    ]


def test_a_row_is_asked_up_to_its_last_answer_which_is_the_reference(tmp_path: Path) -> None:
    turns = [
        {"role": "user", "content": "一"},
        {"role": "assistant", "content": "1"},
        {"role": "user", "content": "二"},
        {"role": "assistant", "content": "2"},
    ]
    path = write_rows(tmp_path / "d.jsonl", [{"messages": turns}])
    [case] = suite_from_datasets("s", [DatasetSource(path=str(path))], system="客服").cases
    assert case.reference == "2"
    assert case.conversation() == [{"role": "system", "content": "客服"}, *turns[:-1]]


def test_the_suites_system_prompt_goes_only_where_none_is(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "d.jsonl", [row("a", "b"), row("a", "b", "mine")])
    suite = suite_from_datasets("s", [DatasetSource(path=str(path))], system="theirs")
    assert [case.conversation()[0]["content"] for case in suite.cases] == ["theirs", "mine"]


def test_ids_follow_content_and_a_row_in_two_datasets_is_one_case(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", [row("a", "1"), row("b", "2"), row("a", "1")])
    write_rows(tmp_path / "b.jsonl", [row("b", "2")])
    path = tmp_path / "s.yaml"
    path.write_text(
        "name: s\nfrom_dataset:\n- {path: a.jsonl, tags: [x]}\n- {path: b.jsonl, tags: [y]}\n"
    )
    suite = load_suite(path)
    assert [case.tags for case in suite.cases] == [["x"], ["x", "y"]]
    assert len({case.id for case in suite.cases}) == 2


def test_limit_takes_the_first_rows(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [row(str(n), "x") for n in range(9)])
    suite = suite_from_datasets("s", [DatasetSource(path=str(path), limit=3)])
    assert [case.turns[-1].content for case in suite.cases] == ["0", "1", "2"]


def test_all_mistakes_of_a_suite_are_told_at_once_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(
        """name: s
descripton: x
cases:
  - id: one
    question: q
    assertions:
      - {kind: contians, value: a}
      - {kind: regex, pattern: "("}
  - id: two
    question: 12
gates:
  - {metric: bleu}
"""
    )
    with pytest.raises(InputError) as caught:
        load_suite(path)
    places = {problem.where.split(" ")[0] for problem in caught.value.problems}
    assert places == {f"{path}:{line}" for line in (2, 7, 8, 10, 12)}
    assert any("description" in problem.remedy for problem in caught.value.problems)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "a map of keys"),
        ("- a", "a map of keys"),
        ("name: [", "YAML"),
        ("name: s", "no cases"),
        ("name: s\nname: t\ncases: []", "twice"),
        ("name: s\ncases:\n- {id: a, question: q}\n- {id: a, question: r}", "given before"),
        ("name: s\ncases:\n- {id: a}", "question"),
        ("name: s\ncases:\n- {id: a, question: q, assertions: [{kind: exact}]}", "reference"),
        (
            "name: s\ncases:\n- {id: a, question: q, tags: [x]}\n"
            "gates: [{metric: bleu, tag: y, min: 1}]",
            "no case has the tag 'y'",
        ),
        ("name: s\nfrom_dataset: [{path: gone.jsonl}]", "gone.jsonl"),
        (
            "name: s\ncases:\n- {id: a, question: q, "
            "assertions: [{kind: any, of: [{kind: python, function: gone.py:f}]}]}",
            "no file .*gone.py",
        ),
        ("name: s\ncases:\n- {id: a, question: q, after: b}", "set by the suite itself"),
        (
            "name: s\ncases:\n- {id: a, question: q, then: [{question: r}]}\n"
            "- {id: a+1, question: q}",
            "given before",
        ),
        (
            "name: s\ncases:\n- id: a\n  question: q\n  then:\n"
            "  - {question: r, assertions: [{kind: similarity, min: 0.5}]}",
            "`then` 1: `similarity` needs",
        ),
        ("name: s\ncases:\n- {id: a, question: q, request: {stream: true}}", "cannot set stream"),
        ('name: s\ncases:\n- {id: a, question: "\\ud800"}', "UTF-8"),
    ],
)
def test_a_suite_that_cannot_run_is_refused_in_one_message(
    tmp_path: Path, text: str, told: str
) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=told):
        load_suite(path)


def test_rows_that_give_no_case_are_named_by_line(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text(
        '{"messages": []}\nnot json\n{"messages": [{"role": "user", "content": "a"}]}\n'
    )
    with pytest.raises(InputError) as caught:
        suite_from_datasets("s", [DatasetSource(path=str(path))])
    assert [problem.where for problem in caught.value.problems] == [
        f"{path}:{line}" for line in (1, 2, 3)
    ]
