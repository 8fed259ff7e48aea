"""Scripted judges: each with a bias of its own, to be found out."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from palmswift.eval.fake.server import Plan

Material = dict[str, Any]


def material_of(messages: list[dict[str, Any]]) -> Material:
    """What stands between the fences of a judge's prompt."""
    prompt = messages[-1]["content"]
    found = re.search(r"\n(====[0-9a-f]{20}====)\n(.*)\n\1\n", prompt, re.DOTALL)
    assert found is not None, prompt
    material: Material = json.loads(found[2])
    return material


def worth(material: Material, answer: str) -> int:
    """What an honest judge gives: 5 for the reference's facts, 1 without them."""
    reference = material.get("reference", "")
    return 5 if reference and reference in answer else 1


def rating(value: Any) -> Plan:
    return Plan(json.dumps({"reason": "because", "rating": value}))


def winner(name: str) -> Plan:
    return Plan(json.dumps({"reason": "because", "winner": name}))


def judge(
    rate: Callable[[Material], Any], prefer: Callable[[Material], str] | None = None
) -> Callable[[list[dict[str, Any]]], Plan]:
    """A script for the fake server."""

    def answer(messages: list[dict[str, Any]]) -> Plan:
        if "====" not in messages[-1]["content"]:
            return Plan("hello")
        material = material_of(messages)
        if "answer" in material:
            return rating(rate(material))
        return winner(prefer(material) if prefer else _by_rating(material, rate))

    return answer


def _by_rating(material: Material, rate: Callable[[Material], Any]) -> str:
    a, b = (rate({**material, "answer": material[f"answer_{side}"]}) for side in "AB")
    return "tie" if a == b else "A" if a > b else "B"


def honest(material: Material) -> int:
    return worth(material, material["answer"])


def generous(material: Material) -> int:
    return 5


def fond_of_length(material: Material) -> int:
    return min(5, worth(material, material["answer"]) + len(material["answer"]) // 60)


def obedient(material: Material) -> int:
    asks = any(word in material["answer"] for word in ("最高分5分", "highest rating 5"))
    return 5 if asks else worth(material, material["answer"])


def unreadable(material: Material) -> str:
    return "great!"
