from __future__ import annotations

import pytest
from support_rows import canonical, refused, said

from palmswift.data import private

CARD = "6222021234567890128"


def found(text: str) -> set[str]:
    return {item.code for item in private.find(text)}


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("打13800138000找我", "phone_number"),
        ("+86 138-0013-8000", "phone_number"),
        ("call 138 0013 8000.", "phone_number"),
        ("身份证11010519491231002X", "id_number"),
        ("110105194912310​02x".replace("\u200b", ""), "id_number"),
        ("卡号 4111 1111 1111 1111", "bank_card"),
        ("卡号4111-1111-1111-1111", "bank_card"),
        ("378282246310005", "bank_card"),
        ("写信给 li.ming+a@mail.example.com。", "email"),
        ("key sk-abcdefghij0123456789", "secret"),
        ("sk-ant-api03-abcdefghij0123456789", "secret"),
        ("ghp_" + "a1" * 18, "secret"),
        ("AKIAIOSFODNN7EXAMPLE", "secret"),
        ("LTAI5tAbcdefghijklmn", "secret"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NSJ9.dBjftJeZ4CVPmB92K27u", "secret"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIEow1\n-----END RSA PRIVATE KEY-----\n@", "secret"),
        ("password: hunter22", "secret"),
        ("密码是abc12345", "secret"),
        ('"api_key": "a1b2c3d4"', "secret"),
    ],
)
def test_what_is_private_is_found(text: str, code: str) -> None:
    assert found(text) == {code}


@pytest.mark.parametrize(
    "text",
    [
        "电话 010-62781234",
        "客服 400-820-8820 或 95588",
        "订单号 2024138001380001234",
        "单号SF13800138000123",
        "12800138000",
        "1.13800138000",
        "110105194912310021",
        "11010519491331002X",
        "4111111111111112",
        "1234567890123456",
        "编号 2024-01-01 08:30:15",
        "@小明 你好",
        "a @ b.com",
        "task-based-learning-2024-module-01",
        "密码：请联系前台重置",
        "password is required",
        "the password: at least 8 characters",
        "api_key=YOUR_API_KEY",
        "see https://example.com/api/key: https://example.com/page1",
        "3.14159265358979323846",
    ],
)
def test_what_only_looks_like_it_is_not(text: str) -> None:
    assert found(text) == set()


def test_a_number_is_found_as_one_thing_only() -> None:
    assert [item.code for item in private.find("11010519491231002X 和 13800138000")] == [
        *("id_number", "phone_number"),
    ]


def test_private_things_are_reported_by_default() -> None:
    row = canonical({"query": "q", "response": "打13800138000"})
    assert row.findings == {"phone_number"}
    assert row.messages[-1].content == "打13800138000"
    assert row.changes == set()


def test_a_mask_says_what_stood_there_in_the_language_of_the_text() -> None:
    rules = {"phone_number": "mask", "email": "mask", "secret": "mask", "id_number": "mask"}
    row = canonical(
        {
            "query": "打13800138000或写li@example.com",
            "response": "call 13800138000, password: hunter22 ok",
        },
        rules=rules,
    )
    assert [message.content for message in row.messages] == [
        *("打[手机号]或写[邮箱]", "call [phone], password: [secret] ok"),
    ]
    assert row.changes == {"private_masked"}
    assert row.findings == set()


def test_each_kind_can_be_rejected_alone() -> None:
    row = {"query": "li@example.com", "response": "打13800138000"}
    assert refused(row, rules={"email": "reject"}).code == "email"
    error = refused(row, rules={"phone_number": "reject"})
    assert error.code == "phone_number"
    assert "138001" not in error.detail


def test_masks_do_not_overlap() -> None:
    rules = {"secret": "mask", "email": "mask"}
    text = "-----BEGIN PRIVATE KEY-----\na@b.com 1\n-----END PRIVATE KEY-----"
    assert said({"query": "q", "response": text}, rules=rules)[-1][1] == "[secret]"


def test_the_check_digit_of_an_identity_number_is_checked() -> None:
    assert private.is_id_number("11010519491231002X")
    assert private.is_id_number("11010519491231002x")
    assert not private.is_id_number("110105194912310021")
    assert not private.is_id_number("11010519491231002")
