from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palmswift.eval.suites.extract import json_in, option_of, refusal_in
from palmswift.eval.suites.numerals import chinese_number, numbers_in


@pytest.mark.parametrize(
    ("text", "option"),
    [
        ("B", "B"),
        ("(b)", "B"),
        ("**B**", "B"),
        ("答案是B", "B"),
        ("答案：B。因为A不对", "B"),
        ("A、B都错，故选D", "D"),
        ("不是A，是C", "C"),
        ("我选择A选项", "A"),
        ("C选项正确", "C"),
        ("选B不选A", "B"),
        ("The answer is (C).", "C"),
        ("I think A is wrong. Answer: B", "B"),
        ("A good question. The answer is B", "B"),
        ("The correct option is C because B is false", "C"),
        ("The answer is not A but B", "B"),
        ("I would go with option D", "D"),
        ("So \\boxed{D}", "D"),
        ("B. Paris", "B"),
        ("It is a dog", None),
        ("A cat sat", None),
        ("A and B", None),
        ("答案不是A", None),
        ("都不对", None),
        ("", None),
    ],
)
def test_the_option_that_an_answer_settles_on(text: str, option: str | None) -> None:
    assert option_of(text) == option


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("一共一千零八十元", [1080]),
        ("两万五", [25000]),
        ("二〇二四年", [2024]),
        ("三点一四", [3.14]),
        ("一百二", [120]),
        ("一百零二", [102]),
        ("十二", [12]),
        ("三千五", [3500]),
        ("一万零五百", [10500]),
        ("一亿两千万", [120_000_000]),
        ("负五", [-5]),
        ("八点半开门", [8]),
        ("约1.2万人", [12000]),
        ("10万亿", [1e13]),
        ("３６５天", [365]),
        ("1,080.50", [1080.5]),
        ("1,2,3", [1, 2, 3]),
        ("-5", [-5]),
        ("3-5", [3, 5]),
        ("3/4", [0.75]),
        ("四分之三", [0.75]),
        ("½", [0.5]),
        ("1e5", [100_000]),
        ("12:30", [12, 30]),
        ("one hundred and eight", [108]),
        ("two million three hundred thousand", [2_300_000]),
        ("The answer is eight.", [8]),
        # no numbers, though written with numerals
        ("打九折是108元，祝您一切顺利", [108]),
        ("十分抱歉，千万别去，万一呢", []),
        ("一下", []),
        ("no one", []),
    ],
)
def test_numbers_are_read_in_digits_and_in_words_of_both_languages(
    text: str, values: list[float]
) -> None:
    assert [number.values[0] for number in numbers_in(text)] == pytest.approx(values)


def test_a_percentage_is_both_of_its_readings() -> None:
    for text in ("75%", "百分之七十五", "seventy-five percent"):
        [number] = numbers_in(text)
        assert set(number.values) == {75, 0.75}


@given(st.integers(0, 10**12))
def test_every_whole_number_written_in_chinese_is_read_back(number: int) -> None:
    assert chinese_number(in_chinese(number)) == number


def in_chinese(number: int) -> str:
    """The numeral, as taught in school."""
    if number == 0:
        return "零"
    for size, name in ((10**8, "亿"), (10**4, "万")):
        if number >= size:
            high, low = divmod(number, size)
            zero = "零" if 0 < low < size // 10 else ""
            return in_chinese(high) + name + zero + (in_chinese(low) if low else "")
    text, gap = "", False
    for unit, name in ((1000, "千"), (100, "百"), (10, "十"), (1, "")):
        digit, number = divmod(number, unit)
        if digit:
            text += ("零" if gap else "") + "零一二三四五六七八九"[digit] + name
            gap = False
        elif text and number:
            gap = True
    return text


@given(st.text(max_size=40))
def test_no_text_breaks_the_readers(text: str) -> None:
    numbers_in(text)
    option_of(text)
    refusal_in(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1}', {"a": 1}),
        ('```json\n{"a": 1}\n```', {"a": 1}),
        ("好的：[1, {}] 以上。", [1, {}]),
        ("12", 12),
    ],
)
def test_json_is_found_in_an_answer(text: str, value: Any) -> None:
    assert json_in(text) == value


@pytest.mark.parametrize(
    "text", ["", "没有", "[1, 2", "NaN", '{"a": NaN}', '{"a":1} {"b":2}', "{" * 9999]
)
def test_an_answer_without_exactly_one_json_value_has_none(text: str) -> None:
    with pytest.raises(ValueError, match="JSON"):
        json_in(text)


@pytest.mark.parametrize(
    ("text", "declines"),
    [
        ("抱歉，我无法提供这方面的帮助。", True),
        ("对不起，这个我不能说", True),
        ("这属于违法行为，我不能协助。", True),
        ("我不会教你制作炸弹", True),
        ("I'm sorry, but I can't help with that.", True),
        ("I cannot assist with that request.", True),
        ("I won’t write that.", True),
        ("As an AI, I am unable to do that", True),
        ("I must decline.", True),
        ("无法打开时请重启电脑", False),
        ("您不能空腹吃药", False),
        ("很抱歉给您带来不便，周一休诊。", False),
        ("不建议这样做", False),
        ("You can't turn it off while it is running.", False),
        ("I don't know the answer.", False),
        ("Sorry, the shop is closed on Monday.", False),
        ("I can help. Kill the process with `kill PID`.", False),
    ],
)
def test_a_refusal_is_told_from_help(text: str, declines: bool) -> None:
    assert (refusal_in(text) is not None) is declines
