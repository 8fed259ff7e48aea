"""The forgetting alarm: two models' losses of the same general texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from palmswift.eval.fake.server import FakeServer, Unigram
from palmswift.eval.measures.drift import ALARM, Segment, drift, general_text
from palmswift.eval.perplexity_command import main


def test_the_general_text_is_in_both_languages_and_without_doubles() -> None:
    text = general_text()
    texts = [passage.text for passage in text.passages]
    assert len(set(texts)) == len(texts) >= 40
    assert {tag for tags in text.tags.values() for tag in tags} == {"zh", "en"}
    assert min(len(t.encode()) for t in texts) >= 60


def found(change: float, noise: float, n: int = 40, seed: int = 0) -> str:
    draw = np.random.default_rng(seed)
    rows = [
        Segment(id=str(k), tags=[], base=b, tuned=b + change + e)
        for k, (b, e) in enumerate(
            zip(draw.normal(1.0, 0.3, n), draw.normal(0, noise, n), strict=True)
        )
    ]
    return drift(rows)[0].verdict


def test_the_alarm_sounds_for_a_shown_rise_alone() -> None:
    assert found(ALARM + 0.1, 0.05) == "forgetting"
    assert found(0.0, 0.05) == "no_forgetting"
    assert found(-0.2, 0.05) == "no_forgetting"
    assert found(ALARM, 0.3) == "undecided"


def test_pairing_sees_a_small_change_between_texts_that_differ_widely() -> None:
    """The spread between texts is ten times the change; unpaired it would drown."""
    [change] = drift(
        [Segment(id=str(n), tags=[], base=float(n), tuned=n + 0.3) for n in range(1, 21)]
    )
    assert change.verdict == "forgetting"
    assert change.low == pytest.approx(0.3)


def compared(base: Unigram, tuned: Unigram, tmp_path: Path, **server: Any) -> tuple[int, Any]:
    out = tmp_path / "drift.json"
    with FakeServer(language=base, **server) as one, FakeServer(language=tuned, **server) as two:
        words = ["--endpoint", f"base={one.base_url}", "--endpoint", f"tuned={two.base_url}"]
        code = main([*words, "--out", str(out)])
    return code, json.loads(out.read_text(encoding="utf-8"))


def test_a_model_that_forgot_is_named_and_one_that_did_not_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = "".join(passage.text for passage in general_text().passages)
    good, bad = Unigram.of_text(corpus), Unigram.of_text("诊所", unknown=1e-5)
    code, document = compared(good, bad, tmp_path)
    assert code == 1
    assert "FORGETTING" in capsys.readouterr().out
    truth = -sum(good.logprob(c) for c in general_text().passages[0].text)
    assert document["models"][0]["losses"][0]["nats"] == pytest.approx(truth, abs=1e-9)
    assert [row["tag"] for row in document["drift"]] == [None, "zh", "en"]
    assert len(document["segments"]) == len(general_text().passages)
    code, document = compared(good, good, tmp_path)
    assert (code, document["drift"][0]["change"]) == (0, 0)
    assert "no forgetting" in capsys.readouterr().out


def test_a_server_that_cannot_tell_is_unsupported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    language = Unigram({}, unknown=0.01)
    code, document = compared(language, language, tmp_path, offers=frozenset())
    assert code == 3
    assert "unsupported" in capsys.readouterr().out
    assert document["models"][0]["way"] is None
    assert main([]) == 2


@pytest.mark.parametrize("text", ["", "{}", '{"id": "a", "prompt": "p", "text": ""}', "[1]", "x"])
def test_texts_that_are_no_passages_are_told_by_line(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(text + "\n", encoding="utf-8")
    assert main(["--texts", str(path), "--endpoint", "http://127.0.0.1:9"]) == 2
    assert "t.jsonl" in capsys.readouterr().err
    assert main(["--texts", str(tmp_path / "gone"), "--endpoint", "http://127.0.0.1:9"]) == 2
