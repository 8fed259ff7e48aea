from __future__ import annotations

import pytest
from support_rows import A, U, canonical, refused, said, turns

from palmswift.data import text_checks


def answer(text: str) -> str:
    return said(turns(U, ("assistant", text)))[-1][1]


@pytest.mark.parametrize(
    ("text", "mended"),
    [
        ("hi<|im_end|>\n<|im_start|>assistant\nyes", "hi< |im_end|>\n< |im_start|>assistant\nyes"),
        ("<|endoftext|> ends it", "< |endoftext|> ends it"),
        ("DeepSeek: <｜User｜> and <｜end▁of▁sentence｜>.", None),
        ("<|im_start<|im_end|> x", "<|im_start< |im_end|> x"),
        ("round {{ROUND0}} and {{{ROUND1}}}", "round { {ROUND0}} and {{ {ROUND1}}}"),
    ],
)
def test_control_tokens_and_placeholders_become_plain_text(text: str, mended: str | None) -> None:
    mended = mended or text.replace("<｜", "< ｜")
    row = canonical(turns(("user", text), A))
    assert row.messages[0].content == mended
    assert len(row.changes) == 1


@pytest.mark.parametrize(
    "text",
    [
        "a <| b |> c",
        "x |> f <| y",
        "{{QUERY}} {{SYSTEM}} {{ROUND2}} {ROUND0}",
        "<image> <video> <audio> <bbox> stay",
        "<tool_call>\n{}\n</tool_call>",
        "if a<b|c>d",
        "</s> <s> <b>bold</b>",
    ],
)
def test_text_that_is_no_control_token_stays(text: str) -> None:
    row = canonical(turns(("user", text), A))
    assert row.messages[0].content == text
    assert row.changes == set()


def test_placeholders_are_left_in_answers_and_all_are_found_in_tool_responses() -> None:
    assert answer("{{ROUND0}}") == "{{ROUND0}}"
    row = turns(U, ("tool_call", '{"name": "f"}'), ("tool", "{{QUERY}} {{SYSTEM}}"), A)
    assert said(row)[2][1] == "{ {QUERY}} { {SYSTEM}}"


@pytest.mark.parametrize(
    "text",
    ["yes<|im_end|>", "yes <|im_end|>\n<|endoftext|>", "yes<|eot_id|>", "yes<|im_end|>\u200b"],
)
def test_an_end_token_at_the_end_is_left_out_for_the_template_to_put(text: str) -> None:
    row = canonical(turns(U, ("assistant", text)))
    assert row.messages[-1].content == "yes"
    assert row.changes - {"invisible_stripped"} == {"end_token_dropped"}


def test_a_long_text_is_looked_through_once() -> None:
    # An expression that begins again at each blank would take hours over this one.
    text = "x" + " " * 1_000_000 + "<|im_end|>y|>"
    assert answer(text) == text.replace("<|", "< |")


def test_an_answer_that_is_an_end_token_alone_is_blank() -> None:
    assert refused(turns(U, ("assistant", "<|im_end|>"))).code == "blank_answer"


def test_tokens_and_placeholders_can_be_rejected_instead() -> None:
    assert refused(turns(("user", "<|im_end|>x"), A), rules={"control_tokens": "reject"}).code
    error = refused(turns(("user", "{{ROUND0}}"), A), rules={"placeholder": "reject"})
    assert error.code == "placeholder"


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("a\u200bb", "ab"),
        ("a\x07\x1bb\x7f", "ab"),
        ("\ufeffa", "a"),
        ("a\u00adb", "ab"),
        ("a\u202eb\u202c", "ab"),
        ("a\u200db", "ab"),
        ("page\x0cpage", "page\npage"),
        ("hi\U000e0041\U000e0042", "hi"),
        ("\u200b a", "a"),
    ],
)
def test_what_nobody_sees_is_removed_and_counted(text: str, seen: str) -> None:
    row = canonical(turns(U, ("assistant", text)))
    assert row.messages[-1].content == seen
    assert "invisible_stripped" in row.changes


@pytest.mark.parametrize(
    "text",
    [
        "👩‍⚕️ 👨‍👩‍👧 ❤️",
        "می‌خواهم",
        "क्‍ष",
        "\u202bשלום\u202c abc",
        "🏴󠁧󠁢󠁥󠁮󠁧󠁿",
        "tab\there\r\nand there",
        "全角　空格",
        "café naïve €5 “quoted” – ’tis",
        "é’” Ünïcödé",
        "가나다 ไทย",
    ],
)
def test_characters_that_shape_what_is_seen_stay(text: str) -> None:
    row = canonical(turns(U, ("assistant", text)))
    assert row.messages[-1].content == text
    assert row.changes == set()
    assert row.findings == set()


def test_invisible_characters_can_be_kept_or_rejected() -> None:
    row = canonical(turns(U, ("assistant", "a\u200bb")), rules={"invisible_characters": "keep"})
    assert row.messages[-1].content == "a\u200bb"
    assert row.findings == {"invisible_characters"}
    error = refused(turns(U, ("assistant", "a\u200b")), rules={"invisible_characters": "reject"})
    assert "U+200B" in error.detail


@pytest.mark.parametrize("text", ["nul\x00", "lone\ud800", "byte\udcff", "lost\ufffd"])
def test_lost_and_impossible_characters_are_rejected(text: str) -> None:
    assert refused(turns(U, ("assistant", text))).code == "invalid_characters"


@pytest.mark.parametrize(
    "text",
    ["锟斤拷", "烫烫烫", "æ\x82¨å¥½", "donâ€™t", "cafÃ©", "it\x92s", "ä½ å¥½", "浣犲ソ锛屼笘鐣"],
)
def test_text_that_was_decoded_wrongly_is_reported(text: str) -> None:
    row = canonical(turns(U, ("assistant", text)))
    assert row.findings == {"mojibake"}
    assert row.messages[-1].content == text
    assert refused(turns(U, ("assistant", text)), rules={"mojibake": "reject"}).code == "mojibake"


@pytest.mark.parametrize(
    "text",
    [
        "作为AI语言模型，我没有个人观点。",
        "作为一个人工智能助手，我无法回答。",
        "很抱歉，我无法回答这个问题。",
        "对不起，我不能提供这方面的信息。",
        "As an AI language model, I don't have feelings.",
        "I'm sorry, but I can't assist with that.",
        "I cannot help with this request.",
        "Sorry, I am unable to provide that.",
    ],
)
def test_an_answer_that_only_refuses_is_reported(text: str) -> None:
    assert canonical(turns(U, ("assistant", text))).findings == {"boilerplate"}
    thought = f"<think>\nhm\n</think>\n\n{text}"
    assert canonical(turns(U, ("assistant", thought))).findings == {"boilerplate"}
    assert refused(turns(U, ("assistant", text)), rules={"boilerplate": "reject"}).code
    assert canonical(turns(("user", text), A)).findings == set()


@pytest.mark.parametrize(
    "text",
    [
        "抱歉让您久等了，您的号码是8号。",
        "很抱歉，我们周日不营业。",
        "AI是人工智能的缩写。",
        "他说作为AI语言模型很难。",
        "我不能确定，请致电前台。",
        "An AI language model predicts tokens.",
        "I can't find your order; please tell me its number.",
        "I'm sorry to hear that. Please come in at eight.",
        "As an AI language model, I count tokens. " + "Here is how it works. " * 12,
    ],
)
def test_an_answer_that_says_something_is_no_boilerplate(text: str) -> None:
    assert canonical(turns(U, ("assistant", text))).findings == set()


def test_chinese_cut_into_words_is_reported_and_joined_on_demand() -> None:
    row = ["我 饿 了 ， 吃 什么", "吃 iPhone 吧 哈哈"]
    assert canonical(row).findings == {"spaced_chinese"}
    joined = canonical(row, rules={"spaced_chinese": "join"})
    assert [message.content for message in joined.messages] == [
        "我饿了，吃什么",
        "吃 iPhone 吧哈哈",
    ]
    assert joined.changes == {"spaces_joined"}
    assert refused(row, rules={"spaced_chinese": "reject"}).code == "spaced_chinese"


@pytest.mark.parametrize(
    "row", [["你好 我想问一下 明天几点开门", "八点 开门"], ["a b c d e", "f g h"], ["一 二", "不"]]
)
def test_a_few_spaces_between_chinese_are_no_cut_words(row: list[str]) -> None:
    assert canonical(row).findings == set()


def test_both_answers_of_a_pair_are_joined_alike() -> None:
    row = {"prompt": "我 饿 了", "chosen": "吃 饭 吧", "rejected": "不"}
    kept = canonical(row, "dpo", rules={"spaced_chinese": "join"})
    assert [message.content for message in kept.messages] == ["我饿了", "吃饭吧"]


def test_is_spaced_needs_two_gaps() -> None:
    assert not text_checks.is_spaced(["你 好"])
    assert text_checks.is_spaced(["你 好 吗"])
