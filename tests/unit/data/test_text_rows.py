from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from palmswift.data.read import DataFile, open_files
from palmswift.data.row import Rejection


def opened(tmp_path: Path, text: str) -> DataFile:
    path = tmp_path / "f.txt"
    path.write_bytes(text.encode())
    (file,) = open_files([path])
    assert file.format == "text"
    return file


def texts(file: DataFile) -> list[tuple[int, Any]]:
    """The line and the text of every row; all of them can be read."""
    rows = list(file.rows())
    assert not [row for row in rows if isinstance(row, Rejection)]
    assert [row.place.number for row in rows] == list(range(1, len(rows) + 1))
    return [(row.place.line, row.value) for row in rows if not isinstance(row, Rejection)]


def turn(role: str, content: str) -> str:
    return f"<|im_start|>{role}\n{content}<|im_end|>\n"


PAIR = turn("user", "q") + turn("assistant", "a\n\nb")
PAIR_TEXT = PAIR.strip()


def test_without_blank_lines_each_line_is_a_text(tmp_path: Path) -> None:
    file = opened(tmp_path, "one\r\n  two \r\nthree")
    assert texts(file) == [(1, "one"), (2, "two"), (3, "three")]
    assert "each line" in file.notes[0]


def test_blank_lines_part_paragraphs_of_wrapped_lines(tmp_path: Path) -> None:
    file = opened(tmp_path, "\n\none\r\ntwo\r\n\r\n \t\r\nthree\nfour\n\n")
    assert texts(file) == [(3, "one\ntwo"), (7, "three\nfour")]
    assert "blank lines" in file.notes[0]


def test_of_long_lines_each_is_a_text_though_some_are_blank(tmp_path: Path) -> None:
    long = "很长的一行。" * 60
    assert texts(opened(tmp_path, f"{long}\n{long}\n\n{long}\nshort\n")) == [
        (1, long),
        (2, long),
        (4, long),
        (5, "short"),
    ]


@pytest.mark.parametrize(
    "gap", ["\n", "\n\n\n", "---\n", "\n---\n\n", "<|endoftext|>\n", "=====\n"]
)
def test_what_parts_dialogues_parts_them(tmp_path: Path, gap: str) -> None:
    both = PAIR + PAIR
    file = opened(tmp_path, f"{both}{gap}{both}{gap}{PAIR}")
    assert [text for _, text in texts(file)] == [both.strip(), both.strip(), PAIR_TEXT]


def test_a_system_turn_begins_a_dialogue_though_nothing_else_parts_them(tmp_path: Path) -> None:
    led = turn("system", "s") + PAIR + PAIR
    assert [text for _, text in texts(opened(tmp_path, led * 3))] == [led.strip()] * 3


def test_blank_lines_between_all_turns_part_nothing(tmp_path: Path) -> None:
    spaced = [turn("system", "s"), turn("user", "q"), turn("assistant", "a")]
    spaced += [turn("user", "r"), turn("assistant", "b")]
    text = "\n".join(spaced) + "\n"
    assert [row.count("<|im_start|>") for _, row in texts(opened(tmp_path, text * 3))] == [5] * 3


def test_a_blank_line_after_the_system_turn_does_not_cut_it_off(tmp_path: Path) -> None:
    text = f"{turn('system', 's')}\n{PAIR}\n{turn('system', 's')}\n{PAIR}"
    assert [row.count("<|im_start|>") for _, row in texts(opened(tmp_path, text))] == [3, 3]


def test_turns_on_one_line_are_turns(tmp_path: Path) -> None:
    line = "<|im_start|>user\\nq<|im_end|><|im_start|>assistant\\na<|im_end|><|endoftext|>"
    rows = texts(opened(tmp_path, f"{line}\n{line}\n"))
    assert [line for line, _ in rows] == [1, 2]
    assert all(text.count("<|im_start|>") == 2 for _, text in rows)


def test_many_questions_with_nothing_between_are_a_dialogue_each_and_few_are_one(
    tmp_path: Path,
) -> None:
    many = opened(tmp_path, PAIR * 30)
    assert [text for _, text in texts(many)] == [PAIR_TEXT] * 30
    assert "blank line" in many.notes[0]
    assert len(texts(opened(tmp_path, PAIR * 5))) == 1


@pytest.mark.parametrize(
    "broken",
    [
        "<|im_start|>user\nq\n<|im_start|>assistant\na\n",
        "stray text\n",
        "<|im_start|>assistant\na\n",
    ],
)
def test_a_broken_dialogue_leaves_those_beside_it(tmp_path: Path, broken: str) -> None:
    rows = [
        text for _, text in texts(opened(tmp_path, "\n".join([PAIR, PAIR, broken, PAIR, PAIR])))
    ]
    assert rows.count(PAIR_TEXT) >= 3
    assert rows[-2:] == [PAIR_TEXT, PAIR_TEXT]
    assert any(broken.strip() in row for row in rows)


def test_jsonl_in_a_text_file_is_read_as_such(tmp_path: Path) -> None:
    path = tmp_path / "f.txt"
    path.write_text('{"q": 1}\n{"q": 2}\n')
    (file,) = open_files([path])
    assert file.format == "jsonl"
    assert len(list(file.rows())) == 2


def test_a_paragraph_that_is_too_large_costs_itself(tmp_path: Path) -> None:
    line = "word " * 40 + "\n"
    text = "one\n\n" + line * (1 + (16 << 20) // len(line)) + "\ntwo\n"
    rows = list(opened(tmp_path, text).rows())
    assert [getattr(row, "code", "ok") for row in rows] == ["ok", "row_too_large", "ok"]
