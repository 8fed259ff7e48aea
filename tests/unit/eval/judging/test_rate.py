"""Ratings by people: blind, in a drawn order, saved as they go; at the terminal and by the page."""

from __future__ import annotations

import html as markup
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support_eval import arithmetic, call, prediction, write_rows

from palmswift.errors import InputError
from palmswift.eval.judging.answer_files import read_candidates
from palmswift.eval.judging.rating_page import render
from palmswift.eval.judging.rating_sheet import make_sheet, opened, read_blind
from palmswift.eval.judging.ratings import merge, read_ratings
from palmswift.eval.judging.rubrics import load_rubrics
from palmswift.eval.rate import main

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-headless-shell")
QUESTIONS = ["几点关门？", "How much is it?", "</script><b>x</b> 怎么样？", "同样的"]
ANSWERS = {
    "alpha": ["八点", "120 yuan", "<img src=x onerror=alert(1)>", "一样"],
    "bravo": ["九点", "about 100", "\u2028 <!-- --> 正常", "一样"],
}


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Two models' answers; to the last question they gave the same."""
    return [
        write_rows(
            tmp_path / f"{name}.jsonl",
            [
                {"id": f"q{n}", "question": question, "answer": answer, "reference": "参考"}
                for n, (question, answer) in enumerate(zip(QUESTIONS, answers, strict=True))
            ],
        )
        for name, answers in ANSWERS.items()
    ]


def sheet_of(files: list[Path], seed: int = 0) -> Any:
    return make_sheet([c for path in files for c in read_candidates(path)], seed)


def test_the_order_is_drawn_from_the_seed_and_equal_answers_are_shown_once(
    files: list[Path],
) -> None:
    sheet = sheet_of(files)
    assert sheet == sheet_of(files)
    orders = {
        tuple(
            (item.case, *(a.of[0].endpoint for a in item.answers))
            for item in sheet_of(files, n).items
        )
        for n in range(8)
    }
    assert len(orders) > 4
    counts = sorted(len(item.answers) for item in sheet.items)
    assert counts == [1, 2, 2, 2]
    [same] = [item.answers[0] for item in sheet.items if len(item.answers) == 1]
    assert sorted(candidate.endpoint for candidate in same.of) == ["alpha", "bravo"]


def test_a_rater_at_the_terminal_is_saved_at_once_and_goes_on_where_it_was_left(
    files: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "anna.json"
    words: list[str | Path] = ["--predictions", *files, "--rater", "anna", "--out", out]
    first = call("rate", *words, stdin="nonsense\n5 4 3\n1 2 3\nb\n2 2 2\n453\nq\n")
    assert first.returncode == 0, first.stderr
    assert "alpha" not in first.stdout and "bravo" not in first.stdout
    assert "1 of 4 cases are rated" in first.stdout
    kept = read_ratings(out)
    rest = call("rate", *words, stdin="4 4 4\n" * 20)
    assert "4 of 4 cases are rated" in rest.stdout
    file = read_ratings(out)
    assert len(file.answers) == 8  # the shared text counts for both
    assert all(set(a.ratings) == {"accuracy", "professionalism", "tone"} for a in file.answers)
    by_key = {answer.key: answer.ratings for answer in file.answers}
    assert all(by_key[answer.key] == answer.ratings for answer in kept.answers)
    again = call("rate", *words, stdin="")
    assert "4 of 4 cases are rated" in again.stdout
    stranger = call("rate", *words[:-4], "--rater", "ben", "--out", out, stdin="q\n")
    assert stranger.returncode == 2 and "anna" in stranger.stderr


def page_data(html: str) -> Any:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_the_page_holds_the_answers_and_nothing_of_whose_they_are_or_from_elsewhere(
    files: list[Path],
) -> None:
    sheet = sheet_of(files)
    html = render(sheet, load_rubrics().rubrics, "t")
    assert "alpha" not in html and "bravo" not in html
    assert not re.search(r"""(?:src|href)\s*=\s*["']?\s*(?:https?:)?//""", html)
    assert "default-src 'none'" in html
    assert html.count("</script>") == 2  # an answer cannot end the element it stands in
    data = page_data(html)
    texts = {answer["text"] for item in data["items"] for answer in item["answers"]}
    assert texts == {answer for answers in ANSWERS.values() for answer in answers}


def exported(sheet: Any, rater: str, give: Any) -> bytes:
    """What the page saves."""
    answers = [
        {"id": id, "ratings": give(answer.text), "comment": ""}
        for id, answer in sheet.answers.items()
    ]
    return json.dumps(
        {
            "kind": "palmswift blind ratings",
            "version": 1,
            "sheet": sheet.id,
            "rater": rater,
            "seed": sheet.seed,
            "saved_at": "2026-01-01T00:00:00.000Z",
            "answers": answers,
        }
    ).encode()


def test_what_pages_saved_comes_back_with_its_endpoints_and_several_raters_are_merged_by_id(
    files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet = sheet_of(files, seed=7)
    paths = []
    for rater, shift in (("anna", 0), ("ben", 1)):
        path = tmp_path / f"{rater}.json"
        path.write_bytes(
            exported(sheet, rater, lambda text, n=shift: {"accuracy": 1 + (len(text) + n) % 5})
        )
        words = ["--predictions", *files, "--seed", "7", "--import", path]
        assert main([str(word) for word in words]) == 0
        paths.append(path.with_name(f"{rater}.opened.json"))
    merged = merge(read_ratings(path) for path in paths)
    assert merged.raters == ["anna", "ben"]
    assert len(merged.by_rubric["accuracy"]) == 8
    for key, given in merged.by_rubric["accuracy"].items():
        text = ANSWERS[key.endpoint][int(key.case[1:])]
        assert given["anna"] == 1 + len(text) % 5
    capsys.readouterr()
    assert main(["--merge", *map(str, paths), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["raters"] == ["anna", "ben"]
    assert document["rubrics"]["accuracy"]["alpha"]["n"] == 8
    assert set(document["rubrics"]["accuracy"]["means"]) == {"alpha", "bravo"}


def test_of_a_raters_two_files_the_later_ratings_count(files: list[Path]) -> None:
    sheet = sheet_of(files)
    rows = read_blind(exported(sheet, "anna", lambda text: {"tone": 2}), "x").answers
    late = read_blind(exported(sheet, "anna", lambda text: {"tone": 5}), "x").answers
    merged = merge(
        [
            opened(sheet, late[:1], "anna", "2026-02-02T00:00:00Z"),
            opened(sheet, rows, "anna", "2026-01-01T00:00:00Z"),
        ]
    )
    values = [given["anna"] for given in merged.by_rubric["tone"].values()]
    assert sorted(set(values)) == [2, 5]


def test_ratings_of_other_answers_or_another_seed_are_refused(
    files: list[Path], tmp_path: Path
) -> None:
    sheet = sheet_of(files)
    path = tmp_path / "anna.json"
    path.write_bytes(exported(sheet, "anna", lambda text: {"tone": 3}))
    words = ["--predictions", *files, "--import", path]
    assert main([*map(str, words), "--seed", "3"]) == 2
    with pytest.raises(InputError, match="not in these predictions"):
        opened(sheet_of(files[:1]), read_blind(path.read_bytes(), "x").answers, "anna", "now")
    for bad in (b"", b"[]", b'{"kind": "other"}', path.read_bytes().replace(b": 3", b": 6")):
        with pytest.raises(InputError, match="not what the rating page saves"):
            read_blind(bad, "x")


def test_a_runs_journal_is_rated_under_its_endpoints_without_thinking(tmp_path: Path) -> None:
    cases = arithmetic(2)
    rows = [
        prediction(case, f"<think>hm</think>{label}", endpoint=label)
        for case in cases
        for label in ("base", "tuned")
    ]
    rows.append(prediction(cases[0], "<think>never", endpoint="third"))
    path = write_rows(
        tmp_path / "predictions.jsonl",
        [json.loads(row.model_dump_json(exclude_none=True)) for row in rows],
    )
    found = read_candidates(path)
    assert {(c.endpoint, c.answer) for c in found} == {("base", "base"), ("tuned", "tuned")}
    assert {c.question for c in found} == {"0+1?", "1+1?"}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "nothing to rate"),
        (["--predictions", "gone.jsonl"], "gone.jsonl"),
        (["--merge", "gone.json"], "not readable"),
    ],
)
def test_what_cannot_be_rated_is_told(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert told in capsys.readouterr().err


DRIVER = """
const press = (key, target = document.body) =>
  target.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
const name = document.getElementById("rater");
name.value = "Anna";
name.dispatchEvent(new Event("input"));
press("e", name); // typed into a field: no command
for (const item of data.items) {
  const count = item.answers.length * data.rubrics.length;
  for (let row = 0; row < count; row += 1) press(String(1 + (row % 5)));
  press("n");
}
press("p"); press("ArrowUp"); press("0");
document.body.append(Object.assign(document.createElement("pre"), {
  id: "result", textContent: JSON.stringify(exported()) }));
document.body.append(Object.assign(document.createElement("pre"), {
  id: "kept", textContent: localStorage.getItem(KEY) }));
"""

if CHROMIUM:

    def test_the_page_is_rated_by_keys_alone_and_what_it_exports_is_read_back(
        files: list[Path], tmp_path: Path
    ) -> None:
        sheet = sheet_of(files)
        html = render(sheet, load_rubrics().rubrics, "t")
        # The page's policy lets no other script run, so it is taken out of this copy.
        html = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", html)
        page = tmp_path / "rate.html"
        page.write_text(html.replace("</body>", f"<script>{DRIVER}</script></body>"), "utf-8")
        done = subprocess.run(
            [
                *(str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu"),
                *(f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=3000"),
                *("--dump-dom", page.as_uri()),
            ],
            capture_output=True,
            timeout=60,
            check=True,
        )
        dom = done.stdout.decode()
        result, kept = (
            markup.unescape(found[1])
            for id in ("result", "kept")
            if (found := re.search(f'<pre id="{id}">(.*?)</pre>', dom, re.DOTALL))
        )
        blind = read_blind(result.encode(), "page")
        assert blind.rater == "Anna"
        assert {row.id for row in blind.answers} == set(sheet.answers)
        counts = sorted(len(row.ratings) for row in blind.answers)
        assert counts == [2, *[3] * (len(sheet.answers) - 1)]  # one was taken back
        assert json.loads(kept)["ratings"] == {row.id: row.ratings for row in blind.answers}
        assert len(opened(sheet, blind.answers, blind.rater, blind.saved_at).answers) == 8
        assert "<img" not in dom
