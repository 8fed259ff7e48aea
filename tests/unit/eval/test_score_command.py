from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from support_eval import sums, write_rows, write_suite

from palmswift.eval.fake.server import FakeServer, Plan, Unigram
from palmswift.eval.reports.report import read_report
from palmswift.eval.run import main as run_suite
from palmswift.eval.score_command import main
from palmswift.files import read_jsonl

ANSWERS = [{"id": "1", "answer": "周一休诊。"}, {"id": "2", "answer": "<think>想</think>八点。"}]
REFERENCES = [{"id": "2", "reference": "八点。"}, {"id": "1", "reference": "周二休诊。"}]


def scored(capsys: pytest.CaptureFixture[str], *words: str | Path) -> dict[str, dict[str, float]]:
    capsys.readouterr()
    assert main([*map(str, words), "--json"]) == 0
    document: dict[str, dict[str, dict[str, float]]] = json.loads(capsys.readouterr().out)
    return document["metrics"]


def test_rows_are_joined_by_id_and_thinking_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = write_rows(tmp_path / "a.jsonl", ANSWERS)
    references = write_rows(tmp_path / "r.jsonl", REFERENCES)
    metrics = scored(capsys, "--predictions", answers, "--references", references)
    assert set(metrics) == {"exact_match", "chrf", "bleu"}
    assert (metrics["exact_match"]["count"], metrics["exact_match"]["n"]) == (1, 2)
    assert 0 < metrics["bleu"]["value"] < 100


def test_without_ids_rows_are_joined_by_order_and_messages_are_references(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = write_rows(tmp_path / "a.jsonl", [{"answer": "一"}, {"answer": None}])
    turns = [
        [{"role": "user", "content": "?"}, {"role": "assistant", "content": a}] for a in "一二"
    ]
    references = write_rows(tmp_path / "r.jsonl", [{"messages": turn} for turn in turns])
    words = ("--predictions", answers, "--references", references, "--metrics", "exact_match")
    assert scored(capsys, *words) == {"exact_match": {"value": 0.5, "n": 2, "count": 1}}


def test_files_that_do_not_fit_together_are_refused_with_every_partnerless_id(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = write_rows(tmp_path / "a.jsonl", ANSWERS)
    other = write_rows(
        tmp_path / "r.jsonl", [{"id": "2", "reference": "x"}, {"id": "3", "output": "y"}]
    )
    assert main(["--predictions", str(answers), "--references", str(other)]) == 2
    told = capsys.readouterr().err
    assert "'1' has no partner" in told
    assert "'3' has no partner" in told
    longer = write_rows(tmp_path / "l.jsonl", [{"reference": "x"}] * 3)
    assert main(["--predictions", str(answers), "--references", str(longer)]) == 2
    assert "2 rows" in capsys.readouterr().err
    assert main(["--predictions", str(answers), "--references", str(tmp_path / "gone")]) == 2


def test_all_cheap_metrics_are_there_and_identical_chinese_scores_full(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"id": "1", "answer": "周一休诊。"}, {"id": "2", "answer": "八点，OK 😀"}]
    answers = write_rows(tmp_path / "a.jsonl", rows)
    references = write_rows(
        tmp_path / "r.jsonl", [{"id": row["id"], "reference": row["answer"]} for row in rows]
    )
    words = ("--predictions", answers, "--references", references, "--metrics")
    found = scored(
        capsys, *words, "exact_match", "bleu", "chrf", "rouge", "similarity", "diversity"
    )
    full = {name: number["value"] for name, number in found.items() if not DIVERSE & {name}}
    assert set(full.values()) == {1.0, 100.0}
    assert set(full) == {
        *("exact_match", "bleu", "chrf", "similarity"),
        *("rouge_1", "rouge_2", "rouge_l", "rouge_1_word", "rouge_2_word", "rouge_l_word"),
    }
    assert found["distinct_1"]["value"] == 1


DIVERSE = {"distinct_1", "distinct_2", "self_bleu", "entropy", "repetition"}


def test_of_several_references_the_best_counts_and_each_rows_scores_are_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = write_rows(tmp_path / "a.jsonl", [{"id": "1", "answer": "休诊"}])
    references = write_rows(tmp_path / "r.jsonl", [{"id": "1", "references": ["不开", "休诊"]}])
    rows = tmp_path / "rows.jsonl"
    words = ("--predictions", answers, "--references", references, "--rows", rows)
    found = scored(capsys, *words, "--metrics", "exact_match", "rouge")
    assert found["rouge_l"]["value"] == 100
    [row] = list(read_jsonl(rows))
    assert (row["id"], row["exact_match"], row["rouge_2"]) == ("1", 1.0, 100.0)


def test_a_suites_references_are_joined_by_its_cases(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = write_suite(tmp_path / "s.yaml", 3)
    answers = write_rows(
        tmp_path / "a.jsonl", [{"id": f"sum-{n}", "answer": str(n + 1)} for n in (2, 0, 1)]
    )
    found = scored(capsys, "--predictions", answers, "--references", suite)
    assert found["exact_match"]["count"] == 3


def test_perplexity_is_the_servers_own_and_unsupported_is_no_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    language = Unigram({"天": 0.5, "地": 0.25}, unknown=0.001)
    answers = write_rows(tmp_path / "a.jsonl", [{"question": "？", "answer": "x"}])
    references = write_rows(tmp_path / "r.jsonl", [{"reference": "天地"}])
    words: list[str | Path] = ["--predictions", answers, "--references", references]
    words += ["--metrics", "perplexity"]
    with FakeServer(language=language) as server:
        found = scored(capsys, *words, "--endpoint", server.base_url)
    assert found["nats_per_token"]["value"] == pytest.approx(math.log(8) / 2, abs=1e-9)
    assert found["perplexity"]["value"] == pytest.approx(8**0.5, abs=1e-9)
    assert found["bits_per_byte"]["value"] == pytest.approx(0.5, abs=1e-9)
    with FakeServer(language=language, offers=frozenset()) as server:
        assert main([*map(str, words), "--endpoint", server.base_url, "--json"]) == 3
        assert json.loads(capsys.readouterr().out)["metrics"] == {}
    assert main([str(word) for word in words]) == 2
    assert "--perplexity-model" in capsys.readouterr().err
    assert main([*map(str, words[:-1]), "bertscore"]) == 2
    assert "--bertscore-model" in capsys.readouterr().err


def test_scoring_again_with_more_metrics_sends_nothing(tmp_path: Path) -> None:
    suite, out = write_suite(tmp_path / "s.yaml", 4), tmp_path / "out"
    with FakeServer({q: Plan(a) for q, a in sums(4).items()}) as server:
        words = ["--suite", str(suite), "--out", str(out)]
        assert run_suite([*words, "--endpoint", server.base_url]) == 0
        before = len(server.requests)
        document = json.loads(suite.read_text())
        document["metrics"] = ["exact_match", "rouge", "similarity", "diversity"]
        document["cases"][0]["assertions"] = [{"kind": "number", "value": 1}]
        suite.write_text(json.dumps(document))
        assert run_suite(words) == 0
        assert len(server.requests) == before
    metrics = read_report(out / "evaluation_report.json").summary("tuned").metrics
    assert metrics["rouge_l"].value == 100
    assert {"similarity", "distinct_1", "repetition"} <= metrics.keys()
