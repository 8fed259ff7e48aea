from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from palmswift.errors import InputError
from palmswift.eval.asking.conversation import Case
from palmswift.eval.verdicts.contamination import CHARACTERS, WORDS, find_leaks

WORD_LIST = [f"{a}{b}" for a in ("ba", "ko", "ti", "mu", "re") for b in ("la", "no", "shi", "xu")]


def chinese(draw: random.Random, length: int) -> str:
    """Random Chinese of the 3000 first characters of the block."""
    return "".join(chr(draw.randrange(0x4E00, 0x4E00 + 3000)) for _ in range(length))


def english(draw: random.Random, length: int) -> str:
    """Random words, of which no 13 in a row repeat by chance."""
    return " ".join(draw.choice(WORD_LIST) + draw.choice(WORD_LIST) for _ in range(length))


def train_file(path: Path, rows: Sequence[tuple[str, str]]) -> Path:
    """Rows of a question and an answer."""
    lines = [
        json.dumps(
            {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]},
            ensure_ascii=False,
        )
        for q, a in rows
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_planted_leaks_are_all_found_and_nothing_else_is(tmp_path: Path) -> None:
    draw = random.Random(4)
    cases, rows, planted = [], [], {}
    for n in range(400):
        text = chinese if n % 2 else english
        case = Case(id=f"c{n}", question=text(draw, 45), reference=text(draw, 45))
        cases.append(case)
        kind = n // 2 % 8
        around = text(draw, 30), text(draw, 30)
        gap = "" if n % 2 else " "
        assert case.question is not None and case.reference is not None
        if kind == 0:
            rows.append((case.question, text(draw, 40)))
            planted[case.id] = "question"
        elif kind == 1:  # the whole question, but for case, width and punctuation
            changed = (
                case.question.upper().replace(" ", ", ") if not n % 2 else "  ".join(case.question)
            )
            rows.append((f"“{changed}”！", text(draw, 40)))
            planted[case.id] = "question"
        elif kind == 2:  # a run of it, inside another text
            run = (
                case.question[7 : 7 + CHARACTERS]
                if n % 2
                else " ".join(case.question.split()[5 : 5 + WORDS])
            )
            rows.append((around[0] + gap + run + gap + around[1], text(draw, 40)))
            planted[case.id] = "passage"
        elif kind == 3:
            rows.append((text(draw, 40), case.reference))
            planted[case.id] = "answer"
        elif kind == 4:  # a run too short to count
            run = (
                case.question[3 : 3 + CHARACTERS - 1]
                if n % 2
                else " ".join(case.question.split()[3 : 3 + WORDS - 1])
            )
            rows.append((around[0] + gap + run + gap + around[1], text(draw, 40)))
    rows += [(chinese(draw, 60), english(draw, 60)) for _ in range(2000)]
    draw.shuffle(rows)
    found = find_leaks(cases, [train_file(tmp_path / "train.jsonl", rows)])
    assert found.leaks == planted
    assert found.rows == len(rows)
    assert found.known_questions == {c for c, kind in planted.items() if kind != "answer"}


def test_a_short_question_leaks_only_whole_and_a_short_answer_not_at_all(tmp_path: Path) -> None:
    cases = [
        Case(id="hello", question="你好", reference="是的"),
        Case(id="other", question="几点开门", reference="是的"),
    ]
    path = train_file(tmp_path / "t.jsonl", [("你好！", "是的"), ("请问几点开门呢", "是的")])
    assert find_leaks(cases, [path]).leaks == {"hello": "question"}


def test_a_form_that_many_cases_share_is_no_leak(tmp_path: Path) -> None:
    form = "请根据下面的材料用一句话回答问题，不要写出推理的过程："
    draw = random.Random(1)
    cases = [Case(id=f"c{n}", question=form + chinese(draw, 10)) for n in range(5)]
    path = train_file(tmp_path / "t.jsonl", [(form + chinese(draw, 10), "好")])
    assert find_leaks(cases, [path]).leaks == {}


def test_every_text_of_every_format_is_searched(tmp_path: Path) -> None:
    question = "What does a visit to the clinic in the old town cost me?"
    case = Case(id="c", question=question)
    (tmp_path / "a.csv").write_text(f'query,response\n"{question}",12\n', encoding="utf-8")
    (tmp_path / "b.json").write_text(json.dumps([{"deep": {"er": [question]}}]), encoding="utf-8")
    (tmp_path / "c.txt").write_text(f"{question}\n", encoding="utf-8")
    for path in sorted(tmp_path.iterdir()):
        assert find_leaks([case], [path]).leaks == {"c": "question"}, path
    with pytest.raises(InputError):
        find_leaks([case], [tmp_path / "none.jsonl"])


def test_a_run_across_two_rows_or_with_odd_characters_is_no_leak(tmp_path: Path) -> None:
    draw = random.Random(2)
    question = chinese(draw, 30)
    case = Case(id="c", question=question)
    path = train_file(tmp_path / "t.jsonl", [(question[:15], "好"), (question[15:], "好")])
    assert find_leaks([case], [path]).leaks == {}
    lone = json.dumps({"messages": [{"role": "user", "content": "\ud800" + question + "\x00"}]})
    path.write_text(lone + "\n", encoding="utf-8")
    assert find_leaks([case], [path]).leaks == {"c": "question"}


def test_files_larger_than_a_batch_are_searched_to_their_end(tmp_path: Path) -> None:
    draw = random.Random(3)
    cases = [Case(id=f"c{n}", question=chinese(draw, 40)) for n in range(3)]
    filler = [(chinese(draw, 900), "好") for _ in range(1300)]
    rows = [(cases[0].turns[0].content, "好"), *filler, (cases[1].turns[0].content, "好")]
    path = train_file(tmp_path / "t.jsonl", rows)
    assert find_leaks(cases, [path]).leaks == {"c0": "question", "c1": "question"}
