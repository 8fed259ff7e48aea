"""Labels of KTO rows: every spelling of yes and no."""

from __future__ import annotations

from typing import Any

from palmswift.data.columns import blank
from palmswift.data.row import RowError

_YES = """
    true t yes y 1 1.0 good positive desirable chosen like up thumbs_up 👍
    是 好 对 真 正确 喜欢 赞 优 正面
"""
_NO = """
    false f no n 0 0.0 bad negative undesirable rejected dislike down thumbs_down 👎
    否 坏 不好 不是 不对 不喜欢 错 错误 假 差 踩 负面
"""
_SPELLINGS = {**dict.fromkeys(_YES.split(), True), **dict.fromkeys(_NO.split(), False)}

_PLAIN = ("true", "false", "desirable", "undesirable")


def read_label(value: Any) -> bool:
    """What a label says. RowError: it is missing, or neither yes nor no."""
    if isinstance(value, bool):
        return value
    if blank(value):
        raise RowError("no_label", "the label is blank")
    if isinstance(value, (str, int, float)):
        label = _SPELLINGS.get(str(value).strip().casefold().replace(" ", "_"))
        if label is not None:
            return label
    raise RowError("broken_label", f"the label is {value!r}")


def is_plain_label(value: Any) -> bool:
    """Whether a value can only be a label for KTO, and no class or score."""
    if isinstance(value, str):
        return value.strip().casefold() in _PLAIN
    return isinstance(value, bool)
