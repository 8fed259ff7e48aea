from __future__ import annotations

import base64
import json
import random
import re
import shutil
import subprocess
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from support_eval import arithmetic, prediction, suite_of

from palmswift.eval.asking.conversation import Case
from palmswift.eval.asking.journal import Prediction
from palmswift.eval.reports.page import differences, render
from palmswift.eval.reports.report import Against, EvaluationReport, build_report
from palmswift.eval.verdicts.contamination import Contamination
from palmswift.eval.verdicts.gate import Gate

CASES = arithmetic(30)
PLAIN = {"metrics": ["exact_match"]}
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-headless-shell")


def rows(right: int, *, endpoint: str = "tuned") -> list[Prediction]:
    """Answers to all cases, of which the first `right` are right."""
    return [
        prediction(case, str(n + 1) if n < right else "?", endpoint=endpoint)
        for n, case in enumerate(CASES)
    ]


def report(*, base: int = 28, tuned: int = 2) -> EvaluationReport:
    """A report in which `tuned` lost most of what `base` could."""
    gate = Gate(metric="exact_match", tag="sums", endpoint="tuned", min=0.9)
    known = Contamination({"sum-0": "question"}, 5, ["train.jsonl"])
    suite = suite_of(*CASES, gates=[gate])
    return build_report(suite, [*rows(tuned), *rows(base, endpoint="base")], (), Against(known))


class Page(HTMLParser):
    """Collects what a browser would make of the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.handlers: list[str] = []
        self.styles: list[str] = []
        self.words = ""
        self.blocks: dict[str, str] = {}
        self._block = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        self.styles += [value or "" for name, value in attrs if name == "style"]
        self._block = dict(attrs).get("id") or "" if tag == "script" else ""

    def handle_endtag(self, tag: str) -> None:
        self._block = ""

    def handle_data(self, data: str) -> None:
        self.words += data
        if self._block:
            self.blocks[self._block] = self.blocks.get(self._block, "") + data

    @property
    def data(self) -> dict[str, Any]:
        """What the page's script shows."""
        text = self.blocks["data"]
        if not text.startswith("{"):
            text = zlib.decompress(base64.b64decode(text)).decode()
        found: dict[str, Any] = json.loads(text)
        return found


HOSTILE = [
    "</script><script>document.title='owned'</script>",
    '"><img src=x onerror="document.title=\'owned\'">',
    "' onmouseover='document.title=1",
    "<!-- --><svg/onload=document.title='owned'>",
    "{{ 7*7 }}{% raw %}",
    "</p></div></article><h1>PASSED</h1>",
    "<script\u2028>x</script>",
    "javascript:document.title='owned'",
    "<iframe srcdoc='<script>parent.document.title=1</script>'>",
    "\\u003cscript>\\",
]


def hostile_report(text: str) -> EvaluationReport:
    """A report that has `text` wherever a suite or a model can put one."""
    case = Case.model_validate(
        {
            "id": text,
            "messages": [{"role": "system", "content": text}, {"role": "user", "content": text}],
            "reference": f"{text} b",
            "tags": [text],
            "assertions": [{"kind": "contains", "value": f"{text} a"}],
        }
    )
    said = prediction(case, f"<think>{text}</think>{text} a", reasoning=text)
    worse = prediction(case, f"{text} c", endpoint="v2")
    return build_report(suite_of(case), [said.model_copy(update={"endpoint": "base"}), worse])


@pytest.mark.parametrize("hostile", HOSTILE)
def test_no_text_of_a_suite_or_an_answer_becomes_markup(hostile: str) -> None:
    attacked, calm = Page(render(hostile_report(hostile))), Page(render(hostile_report("calm")))
    assert attacked.tags == calm.tags
    assert attacked.handlers == []
    assert attacked.data["cases"][0]["id"] == hostile
    assert hostile in attacked.words


def test_the_page_needs_no_network_and_states_verdict_counts_and_meaning() -> None:
    text = render(report())
    page = Page(text)
    assert page.addresses == []
    assert page.styles == [], "the content policy would block them"
    assert "url(" not in text
    assert "@import" not in text
    words = " ".join(page.words.split())
    for said in (
        "HURT",
        "变差了",
        "2/30",
        "28/30",
        "the first 20 of 26",
        "not that it generalises",
        "1 questions stand in train.jsonl",
    ):
        assert said in words


def test_every_text_is_there_in_both_languages() -> None:
    text = render(report())
    assert text.count('<span lang="en">') == text.count('<span lang="zh">') > 60
    assert re.findall(r'<span lang="(?:en|zh)"></span>', text) == []


def test_a_thousand_prompts_of_three_models_stay_below_two_megabytes() -> None:
    words = "云雀堂周一休诊其余每天上午八点半到晚八点接诊请带身份证和医保卡提前半小时到号码是四零零"
    cases, answers = [], []
    for n in range(1000):
        said = "".join(words[(n * 7 + k * (n % 11 + 1)) % len(words)] for k in range(300))
        case = Case(id=f"c{n}", question=f"{n}：{said[:60]}", reference=said, tags=[f"t{n % 5}"])
        cases.append(case)
        for label in ("base", "tuned", "third"):
            cut = n % 200
            answer = said[:cut] + label + str(n * 31 % 97) + said[cut + 5 :]
            answers.append(prediction(case, answer, endpoint=label))
    text = render(build_report(suite_of(*cases).model_copy(update=PLAIN), answers))
    assert len(text.encode()) < 2_000_000
    page = Page(text)
    assert len(page.data["cases"]) == 1000
    assert page.data["cases"][999]["reference"] == cases[999].reference, "whole, not shortened"


def test_texts_that_cannot_fit_are_shortened_and_the_page_says_so() -> None:
    case = [Case(id=f"c{n}", question="q") for n in range(40)]
    draw = random.Random(0)
    noise = ["".join(map(chr, draw.choices(range(0x4E00, 0x9000), k=40_000))) for _ in case]
    answers = [prediction(c, text) for c, text in zip(case, noise, strict=True)]
    text = render(build_report(suite_of(*case).model_copy(update=PLAIN), answers))
    assert len(text.encode()) < 2_000_000
    assert "characters to keep this page small" in text


def test_differences_rebuild_both_texts_and_are_left_out_where_they_would_not_help() -> None:
    reference, answer = "周一休诊，请改约周二。", "周一照常休诊，请改约周三。"
    segments = differences(reference, answer)
    assert "".join(s.text for s in segments if s.kind != "delete") == answer
    assert "".join(s.text for s in segments if s.kind != "insert") == reference
    assert differences("一样", "一样") == []
    assert differences("完全不同", "abcdefgh") == []
    assert differences("a" * 3000, "a" * 2999) == []


def dom(page: Path, script: str) -> str:
    """The page as chromium has built it once `script`, put at its end, has run."""
    text = page.read_text(encoding="utf-8")
    # The page's policy lets no other script run, so it is taken out of this copy.
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    page.write_text(text.replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")
    assert CHROMIUM is not None
    return loaded(page)


def loaded(page: Path) -> str:
    """The page as chromium has built it."""
    assert CHROMIUM is not None
    return subprocess.run(
        [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--virtual-time-budget=4000",
            f"--user-data-dir={page.parent / 'profile'}",
            "--dump-dom",
            page.as_uri(),
        ],
        capture_output=True,
        timeout=60,
        check=True,
    ).stdout.decode()


if CHROMIUM:

    def test_the_script_runs_under_the_pages_own_policy_and_shows_every_case(
        tmp_path: Path,
    ) -> None:
        page = tmp_path / "report.html"
        page.write_text(render(report()), encoding="utf-8")
        text = loaded(page)
        assert text.count('<article class="case">') == 30
        assert '<output id="count" class="note">30 / 30</output>' in text
        assert 'class="tag leak"' in text

    def test_filters_show_what_got_worse_and_marks_follow_the_chosen_answer(
        tmp_path: Path,
    ) -> None:
        page = tmp_path / "report.html"
        page.write_text(render(report(base=30, tuned=4)), encoding="utf-8")
        text = dom(
            page,
            "setTimeout(() => { const f = document.getElementById('filter').elements;"
            "f.change.value = 'worse'; f.against.value = 'label:base'; f.text.value = '29+1';"
            "f.text.dispatchEvent(new Event('input', {bubbles: true})); }, 500)",
        )
        assert text.count('<article class="case">') == 1
        assert "29+1?" in text
        assert '<output id="count" class="note">1 / 30</output>' in text

    def test_a_large_page_unpacks_its_cases_in_the_browser(tmp_path: Path) -> None:
        cases = [Case(id=f"c{n}", question=f"问题{n}", reference="答" * 400) for n in range(500)]
        answers = [prediction(case, f"答案{n}" * 60) for n, case in enumerate(cases)]
        page = tmp_path / "report.html"
        suite = suite_of(*cases).model_copy(update=PLAIN)
        page.write_text(render(build_report(suite, answers)), encoding="utf-8")
        assert 'type="text/plain" id="data"' in page.read_text(encoding="utf-8")
        text = loaded(page)
        assert text.count('<article class="case">') == 50
        assert "50" in text and "问题49" in text

    def test_a_browser_runs_nothing_that_an_answer_says(tmp_path: Path) -> None:
        cases = [Case(id=text, question=text, reference=text, tags=["x"]) for text in HOSTILE]
        answers = [prediction(case, case.id + "!") for case in cases]
        page = tmp_path / "report.html"
        page.write_text(render(build_report(suite_of(*cases), answers)), encoding="utf-8")
        text = loaded(page)
        assert text.count('<article class="case">') == len(HOSTILE)
        assert "<title>test: evaluation report</title>" in text
        assert "<img" not in text
        assert "<iframe" not in text
