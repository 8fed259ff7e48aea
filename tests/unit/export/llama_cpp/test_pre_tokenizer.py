"""A tokenizer is declared to llama.cpp only where llama.cpp cuts text by the same rule."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from palmswift.export.llama_cpp.pre_tokenizer import pre_tokenizer_of

Document = dict[str, Any]

QWEN3: Document = {
    "normalizer": {"type": "NFC"},
    "pre_tokenizer": {
        "type": "Sequence",
        "pretokenizers": [
            {
                "type": "Split",
                "pattern": {
                    "Regex": "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}"
                    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
                },
                "behavior": "Isolated",
                "invert": False,
            },
            {
                "type": "ByteLevel",
                "add_prefix_space": False,
                "trim_offsets": False,
                "use_regex": False,
            },
        ],
    },
    "model": {"type": "BPE", "dropout": None, "unk_token": None, "byte_fallback": False},
}
GPT2: Document = {
    "normalizer": None,
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
    "model": {"type": "BPE"},
}


def test_qwens_rule_is_qwen2_and_its_normalisation_is_told() -> None:
    found = pre_tokenizer_of(QWEN3)
    assert (found.name, found.normalises, found.reason) == ("qwen2", True, "")


def test_the_byte_level_rule_alone_is_gpt_2() -> None:
    found = pre_tokenizer_of(GPT2)
    assert (found.name, found.normalises) == ("gpt-2", False)


def _other_digits(document: Document) -> None:
    split = document["pre_tokenizer"]["pretokenizers"][0]
    split["pattern"]["Regex"] = split["pattern"]["Regex"].replace("\\p{N}|", "\\p{N}{1,3}|")


def _space_in_front(document: Document) -> None:
    document["pre_tokenizer"]["pretokenizers"][1]["add_prefix_space"] = True


def _cut_twice(document: Document) -> None:
    document["pre_tokenizer"]["pretokenizers"][1]["use_regex"] = True


def _lower_case(document: Document) -> None:
    document["normalizer"] = {"type": "Lowercase"}


def _unigram(document: Document) -> None:
    document["model"] = {"type": "Unigram"}


def _dropout(document: Document) -> None:
    document["model"]["dropout"] = 0.1


def _nothing(document: Document) -> None:
    document.clear()


CHANGES: list[tuple[Callable[[Document], None], str]] = [
    (_other_digits, "a rule that llama"),
    (_space_in_front, "a rule that llama"),
    (_cut_twice, "a rule that llama"),
    (_lower_case, "Lowercase"),
    (_unigram, "Unigram"),
    (_dropout, "dropout"),
    (_nothing, "no byte-pair encoding"),
]


@pytest.mark.parametrize(
    ("change", "reason"), CHANGES, ids=lambda one: getattr(one, "__name__", "")
)
def test_anything_else_has_no_name_but_a_reason(
    change: Callable[[Document], None], reason: str
) -> None:
    document = copy.deepcopy(QWEN3)
    change(document)
    found = pre_tokenizer_of(document)
    assert found.name is None
    assert reason in found.reason
