from __future__ import annotations

import json
from pathlib import Path

import pytest
from support_data import CharacterJudge, pair, write_rows
from support_report import sample_of

from palmswift.data.preview import coloured, main, marked

RECIPE = ["--recipe", "qwen3_8b_4bit", "--model", "nowhere"]


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("palmswift.data.preview.TemplateJudge", CharacterJudge)
    data = [pair(f"问{number}", f"答{number}") for number in range(1, 9)]
    data[2] = pair("空", "")
    data[3] = pair("长", "x" * 300)
    return write_rows(tmp_path / "rows.jsonl", data)


def test_the_first_rows_are_shown_and_those_left_out_say_why(
    rows: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(rows), *RECIPE, "-n", "4"]) == 0
    told = capsys.readouterr().out
    assert "⟦答1⟧" in told and "⟦答2⟧" in told and "答5" not in told
    assert "rows.jsonl:3  left out  blank_answer" in told
    assert "rows.jsonl:4  left out  over_length" in told


def test_rows_are_chosen_by_their_number_in_the_file(
    rows: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(rows), *RECIPE, "--row", "8", "--row", "2", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [row["place"].rpartition(":")[2] for row in document["rows"]] == ["2", "8"]
    (sample,) = document["rows"][1]["samples"]
    assert sample["spans"] == [{"text": "答8", "n_tokens": 2, "trained": True}]


def test_the_page_holds_the_rows_that_were_shown(rows: Path, tmp_path: Path) -> None:
    assert main([str(rows), *RECIPE, "-n", "1", "--html", str(tmp_path / "p.html")]) == 0
    page = (tmp_path / "p.html").read_text(encoding="utf-8")
    assert '<span class="trained">答1</span>' in page and "答2" not in page


@pytest.mark.parametrize(
    ("flags", "code", "told"),
    [
        (["--row", "99"], 1, "no such row"),
        (["-n", "0"], 2, "counted from 1"),
        (["--row", "0"], 2, "counted from 1"),
        (["--rule", "over_length=drop"], 2, "reject, truncate, split"),
    ],
)
def test_a_wrong_call_is_told(
    rows: Path, flags: list[str], code: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(rows), *RECIPE, *flags]) == code
    assert told in capsys.readouterr().err


def test_what_is_trained_on_is_marked_with_and_without_colours() -> None:
    sample = sample_of("<|im_start|>user\nhi", "yes [b]<|im_end|>\n")
    assert marked(sample) == "<|im_start|>user↵\nhi⟦yes [b]<|im_end|>↵\n⟧"
    text = coloured(sample)
    trained = [
        text.plain[span.start : span.end] for span in text.spans if "green" in str(span.style)
    ]
    assert "".join(trained).replace("\n", "") == "yes [b]<|im_end|>↵"
