"""What an answer comes to: the option it chose, the JSON in it, whether it declined."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

_FENCE = re.compile(r"```[ \t]*(?:json|JSON|jsonc?)?[ \t]*\n(.*?)```", re.DOTALL)
_OPENING = re.compile(r"[{\[]")


def option_of(text: str, options: str = "ABCD") -> str | None:
    """The option (a capital letter of `options`) that the answer settles on; None: it settles on
    none, or names several without a word about which.

    Tried in turn: the answer is only the letter; a phrase such as 答案是B, 选B, the answer is B or
    \\boxed{B}, of which the last counts; the answer begins with it (B. …); it is the only option
    that stands alone in the text.
    """
    letter = f"[{options}]"
    plain = text.replace("*", "").replace("`", "").strip()
    whole = re.fullmatch(rf"\W*({letter}|{letter.lower()})\W*", plain)
    if whole:
        return whole[1].upper()
    stated = re.findall(_stated(letter), plain, re.IGNORECASE)
    upper = [found.upper() for found in stated if found.upper() in options]
    if upper:
        return str(upper[-1])
    first = re.match(rf"[\[((（]?({letter})[\])）]?\s*[.、:：)）,，。\n]", plain)
    if first:
        return first[1]
    alone = set(re.findall(_alone(letter), plain))
    return alone.pop() if len(alone) == 1 else None


def _stated(letter: str) -> str:
    """The pattern of a phrase that names the option chosen."""
    marks = r"[\s:：\"'“”‘’(\[（【{$]*"
    ends = r"(?![A-Za-z0-9'’]|\s+(?:nor|bit|few|lot)\b)"
    chinese = (
        r"(?:答案|选项|正确的?|应该?|故|所以|因此|而|我|应当)?(?:是|(?<!因)为|选择?|就是|应为|应是)"
    )
    english = (
        r"(?:answer|option|choice)(?:\s+(?:is|would\s+be|should\s+be|must\s+be))?(?:\s+option)?"
        r"|(?:i\s+(?:choose|pick|select)|it\s+is|it's|but|go\s+with)(?:\s+option)?"
    )
    start = rf"(?:答案|选项|{chinese}|{english}|\\boxed|\\text)"
    # The article "a" is no option: in words, A counts where it is a capital letter.
    return rf"(?<![不非])(?<!not )(?<!isn't ){start}{marks}(?-i:({letter})){ends}"


def _alone(letter: str) -> str:
    """The pattern of a letter by itself that is neither denied nor an article."""
    no_article = r"(?!(?<=A)\s+(?!(?:and|or|is|are|was|because|since|but)\b)[a-z])"
    return rf"(?<![A-Za-z0-9])(?<!不是)(?<!不选)(?<!not )({letter})(?![A-Za-z0-9'’]){no_article}"


def json_in(text: str, *, strict: bool = False) -> Any:
    """The JSON of an answer. ValueError says why there is none, or not exactly one.

    Not strict: the whole answer, else its one fenced block, else the one object or list in it.
    NaN and Infinity are no JSON.
    """
    try:
        return _loads(text.strip())
    except ValueError as error:
        if strict:
            raise ValueError(f"the answer is not JSON: {error}") from error
    blocks = _FENCE.findall(text)
    if len(blocks) == 1:
        try:
            return _loads(blocks[0].strip())
        except ValueError as error:
            raise ValueError(f"the fenced block is not JSON: {error}") from error
    found = _values_in("\n".join(blocks) if blocks else text)
    if not found:
        raise ValueError("there is no JSON in the answer")
    if len(found) > 1:
        raise ValueError(f"there are {len(found)} JSON values in the answer")
    return found[0]


def _loads(text: str) -> Any:
    return json.loads(text, parse_constant=_no_constant)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _values_in(text: str) -> list[Any]:
    """The objects and lists that stand in a text, those inside others apart."""
    decoder = json.JSONDecoder(parse_constant=_no_constant)
    found: list[Any] = []
    position = 0
    while match := _OPENING.search(text, position):
        try:
            value, position = decoder.raw_decode(text, match.start())
        except (ValueError, RecursionError):
            position = match.start() + 1
            continue
        if value not in ([], {}):
            found.append(value)
    return found


_ACTS = (
    "提供|协助|帮助|帮你|帮您|回答|满足|透露|告诉|支持|生成|编写|撰写|讨论|教你|教您|执行|给出|分享|参与"
    "|披露|公开|泄露|说出|按照|遵循|代|做|为你|为您|就此"
)
_NO = "无法|不能|不可以|不会|没法"
_CANNOT = r"(?:can(?:'t|\s?not)|won't|unable|not\s+able)"
_I = r"(?:i|we)(?:\s+am|\s*'m|\s+are|\s*'re)?"
_HELP = (
    "help|assist|provide|share|give|offer|write|create|generate|support|answer|comply|disclose"
    "|reveal|fulfil+|do|discuss|tell|teach|explain|produce|participate|engage|follow|repeat|advise"
)
_REFUSALS = re.compile(
    "|".join(
        (
            rf"(?:{_NO}|不便|不方便|不予|恕不|恕难|难以)"
            rf"(?:直接|继续|再|在此|向[你您]|为[你您]|给[你您]|对外|随意)?(?:{_ACTS}|从命)",
            "拒绝(?:提供|协助|回答|这|该|此|您|你)",
            r"(?:抱歉|对不起|很遗憾|不好意思)[，,。！!\s]*(?:但|可是|不过)?(?:我|本人|我们|这|该|此)?"
            rf"[^。！？\n您你]{{0,12}}(?:{_NO}|做不到|帮不了|办不到)",
            "我(?:做不到|帮不了|办不到)|我不(?:会|能|可以)(?:帮|教|给|写|说|做)",
            "(?:不提供|不支持|不参与)(?:此类|这类|该类|任何|相关|这样|这种)",
            rf"\b{_I}\s+(?:really\s+|truly\s+|very\s+)?(?:sorry|afraid)\b[^.!?\n]{{0,40}}\b{_CANNOT}\b",
            rf"\bsorry,?\s+(?:but\s+)?(?:i|we|that)\b[^.!?\n]{{0,20}}\b{_CANNOT}\b",
            r"\b(?:i|we)\s+(?:can(?:'t|\s?not)|could\s?n(?:o|')t|will\s+not|won't|decline|refuse"
            r"|(?:must|have\s+to|need\s+to)\s+(?:decline|refuse)|do\s+not|don't)"
            r"(?:\s+(?:to|be\s+able\s+to|in\s+good\s+conscience|ethically|legally|provide\s+or))?"
            rf"\s*(?:\b(?:{_HELP})\b|[.,!])",
            rf"\b{_I}\s+(?:unable|not\s+able|not\s+going|not\s+allowed|not\s+permitted)\s+to\b",
            rf"\bas\s+an\s+ai\b[^.!?\n]{{0,60}}\b{_CANNOT}\b",
            r"\bagainst\s+my\s+(?:guidelines|policy|policies|principles|programming)\b",
        )
    ),
    re.IGNORECASE,
)


def refusal_in(text: str) -> str | None:
    """The words by which the answer declines, in Chinese or English; None: it does not."""
    match = _REFUSALS.search(text.replace("’", "'"))
    return match.group().strip() if match else None
