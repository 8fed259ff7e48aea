from __future__ import annotations

import json
import random
import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support_data import MAX_LENGTH, SPEC, CharacterJudge, pair, read_rows, write_rows
from support_rows import turns

from palmswift.data.report import DataReport
from palmswift.data.row import Kind
from palmswift.data.sanitize import sanitize
from palmswift.data.template import Judgement
from palmswift.errors import ChildError, GateError, InputError
from palmswift.recipes.recipe import DataSettings

GOOD = [pair(f"question {number}", f"answer {number}") for number in range(20)]

NO_SPLIT = DataSettings(val_ratio=0)


@pytest.fixture(autouse=True)
def characters_are_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """ms-swift, whose import takes half a minute, is asked in tests/integration."""
    monkeypatch.setattr("palmswift.data.gate.TemplateJudge", CharacterJudge)


def clean(
    train: Sequence[Path],
    out: Path,
    val: Sequence[Path] = (),
    settings: DataSettings | None = None,
    kind: Kind = "sft",
) -> DataReport:
    return sanitize(
        train,
        val,
        out,
        settings=settings or DataSettings(),
        template=SPEC,
        log=out.with_name("template.log"),
        kind=kind,
    )


def clean_rows(
    folder: Path, rows: Sequence[Any], kind: Kind = "sft", **settings: Any
) -> DataReport:
    """Clean rows without a split into `folder / "out"`, unless `settings` say otherwise."""
    data = write_rows(folder / "data.jsonl", rows)
    told = DataSettings(**{"val_ratio": 0, **settings})
    return clean([data], folder / "out", settings=told, kind=kind)


def kept_rows(out: Path) -> list[Any]:
    files = [out / name for name in ("train.jsonl", "val.jsonl")]
    return [row for file in files if file.exists() for row in read_rows(file)]


def codes(out: Path) -> list[tuple[int, str]]:
    """Line and code of every rejected row."""
    return [(row["line"], row["code"]) for row in read_rows(out / "rejected.jsonl")]


def found(report: DataReport) -> dict[str, int]:
    return {finding.code: finding.count for finding in report.findings}


def prose(length: int, seed: int) -> str:
    """Words that no other seed gives in this order."""
    choose = random.Random(seed)
    return " ".join(f"w{choose.randrange(5000)}" for _ in range(length))


def test_every_row_is_kept_or_stands_in_rejected_with_its_place_and_itself(tmp_path: Path) -> None:
    bad = pair("only a question", "")
    report = clean_rows(tmp_path, [*GOOD, bad, pair("long", "x" * MAX_LENGTH), GOOD[3]])
    assert (report.read, report.kept, report.rejected, report.train_rows) == (23, 20, 3, 20)
    rejected = read_rows(tmp_path / "out" / "rejected.jsonl")
    assert codes(tmp_path / "out") == [
        (21, "blank_answer"),
        (22, "over_length"),
        (23, "duplicate"),
    ]
    assert rejected[0]["row"] == bad
    assert rejected[1]["row"] == pair("long", "x" * MAX_LENGTH)
    assert rejected[2]["detail"].endswith("data.jsonl:4")
    assert {row["source"] for row in rejected} == {str(tmp_path / "data.jsonl")}


def test_rejected_rows_stand_in_the_order_of_the_files_whichever_check_found_them(
    tmp_path: Path,
) -> None:
    late, early = pair("long", "x" * MAX_LENGTH), pair("blank", "")
    first = write_rows(tmp_path / "b.jsonl", [late, *GOOD, early])
    second = write_rows(tmp_path / "a.jsonl", [early, pair("longer", "y" * MAX_LENGTH), early])
    clean([first, second], tmp_path / "out")
    rejected = read_rows(tmp_path / "out" / "rejected.jsonl")
    assert [(Path(row["source"]).name, row["number"]) for row in rejected] == [
        ("b.jsonl", 1),
        ("b.jsonl", 22),
        ("a.jsonl", 1),
        ("a.jsonl", 2),
        ("a.jsonl", 3),
    ]


def test_kept_rows_hold_messages_only_and_keep_their_order(tmp_path: Path) -> None:
    report = clean_rows(tmp_path, [{**row, "id": 7} for row in GOOD])
    assert read_rows(tmp_path / "out" / "train.jsonl") == [
        turns(("user", row["query"]), ("assistant", row["response"])) for row in GOOD
    ]
    assert not (tmp_path / "out" / "val.jsonl").exists()
    assert (report.held_out, report.changes) == ("none", {"columns_dropped": 20})


def test_rows_on_one_line_of_an_array_are_told_apart(tmp_path: Path) -> None:
    data = tmp_path / "data.json"
    data.write_text(json.dumps([GOOD[0], GOOD[1], GOOD[0], GOOD[2]]), encoding="utf-8")
    report = clean([data], tmp_path / "out")
    assert (report.kept, report.rejected) == (3, 1)
    assert read_rows(tmp_path / "out" / "rejected.jsonl")[0]["number"] == 3


def test_what_json_cannot_hold_is_rejected_as_it_was_read(tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    lines = [json.dumps(row) for row in GOOD]
    lines.append('{"query": "q", "response": "a", "note": "\\ud800"}')
    lines.append(json.dumps({**pair("q2", "x" * MAX_LENGTH), "note": "\udc80"}))
    data.write_text("\n".join(lines), encoding="utf-8")
    report = clean([data], tmp_path / "out", settings=NO_SPLIT)
    assert report.kept == 21
    (rejected,) = read_rows(tmp_path / "out" / "rejected.jsonl")
    assert rejected["row"]["note"] == "\udc80"


SAFE_RULES = {
    "near_duplicate": "reject",
    "near_in_train": "reject",
    "conflicting_answers": "reject",
    "unusual_length": "reject",
}


@pytest.mark.parametrize("rules", [{}, SAFE_RULES, {"over_length": "split"}])
def test_sanitising_the_result_again_changes_nothing(tmp_path: Path, rules: dict[str, str]) -> None:
    settings = DataSettings(system="be kind\n", val_ratio=0.2, rules=rules)
    text = prose(14, 1)
    rows: list[Any] = [
        *(pair(f"question {number}", f"answer {number}") for number in range(40)),
        *(pair(text, f"good {number}") for number in range(3)),
        pair(text + " and", "good 0"),
        pair(" spaced ", "\nout\n"),
        pair("", "x"),
        {"instruction": "a"},
        turns(*[("user", "u" * 60), ("assistant", "a" * 60)] * 3),
        turns(*[("user", "u" * 60), ("assistant", "b" * 60)] * 2),
        pair("how long", "z" * 150),
    ]
    data = write_rows(tmp_path / "data.jsonl", rows)
    first, second = tmp_path / "first", tmp_path / "second"
    clean([data], first, settings=settings)
    report = clean([first / "train.jsonl"], second, [first / "val.jsonl"], settings)
    assert (report.rejected, report.changes) == (0, {})
    for name in ("train.jsonl", "val.jsonl"):
        assert (second / name).read_bytes() == (first / name).read_bytes()


def test_validation_rows_that_are_trained_on_are_rejected(tmp_path: Path) -> None:
    train = write_rows(tmp_path / "train.jsonl", GOOD[:10])
    val = write_rows(tmp_path / "val.jsonl", [GOOD[0], *GOOD[10:13], GOOD[10]])
    report = clean([train], tmp_path / "out", [val])
    assert (report.train_rows, report.val_rows, report.held_out) == (10, 3, "files")
    assert report.files[1].reasons == {"also_in_train": 1, "duplicate": 1}


def test_equal_rows_are_kept_where_the_rules_say_so_and_stay_on_one_side(tmp_path: Path) -> None:
    report = clean_rows(
        tmp_path,
        [row for row in GOOD for _ in range(3)],
        rules={"duplicate": "keep"},
        val_ratio=0.2,
    )
    assert (report.kept, found(report)["duplicate"]) == (60, 40)
    train, val = (read_rows(tmp_path / "out" / f"{side}.jsonl") for side in ("train", "val"))
    assert len(val) == 12
    assert not [row for row in val if row in train]


def test_near_duplicates_are_told_and_kept_unless_the_rules_reject_them(tmp_path: Path) -> None:
    text = prose(30, 1)
    rows = [*GOOD, pair(text, "fine"), pair(text + " too", "fine"), pair(text + " or so", "fine")]
    report = clean_rows(tmp_path, rows)
    assert (report.kept, found(report)) == (23, {"near_duplicate": 2})
    assert report.near_duplicates is not None
    assert (report.near_duplicates.clusters, report.near_duplicates.rows) == (1, 3)
    (shown,) = report.near_duplicates.examples
    assert shown.first.endswith(":21") and shown.first_text == f"{text}\nfine"
    assert shown.similarity is not None and shown.similarity > 0.8
    clean_rows(tmp_path, rows, rules={"near_duplicate": "reject"})
    assert codes(tmp_path / "out") == [(22, "near_duplicate"), (23, "near_duplicate")]


def test_the_prompt_of_all_rows_does_not_make_them_alike(tmp_path: Path) -> None:
    report = clean_rows(tmp_path, GOOD, system=prose(20, 1))
    assert report.kept == 20 and report.near_duplicates is None


def test_validation_rows_that_nearly_stand_in_training_are_told(tmp_path: Path) -> None:
    text = prose(30, 1)
    train = write_rows(tmp_path / "train.jsonl", [*GOOD, pair(text, "fine")])
    val = write_rows(tmp_path / "val.jsonl", [pair(text + " too", "fine"), pair("other", "row")])
    report = clean([train], tmp_path / "out", [val])
    assert (found(report), report.val_rows) == ({"near_in_train": 1}, 2)
    strict = DataSettings(rules={"near_in_train": "reject"})
    report = clean([train], tmp_path / "out", [val], strict)
    assert report.files[1].reasons == {"near_in_train": 1}


def test_one_question_with_two_answers_is_told_and_both_go_where_the_rules_reject_it(
    tmp_path: Path,
) -> None:
    rows = [*GOOD, pair("question 3", "another answer")]
    report = clean_rows(tmp_path, rows)
    assert (report.kept, found(report)) == (21, {"conflicting_answers": 2})
    assert report.conflicts is not None
    assert (report.conflicts.questions, report.conflicts.rows) == (1, 2)
    assert report.conflicts.examples[0].second_text == "question 3\nanother answer"
    clean_rows(tmp_path, rows, rules={"conflicting_answers": "reject"})
    rejected = read_rows(tmp_path / "out" / "rejected.jsonl")
    assert [row["line"] for row in rejected] == [4, 21]
    assert rejected[0]["detail"] == f"{tmp_path / 'data.jsonl'}:21 says otherwise"


@pytest.mark.parametrize(
    ("kind", "rows", "conflicting"),
    [
        ("kto", [{**pair("q", "a"), "label": True}, {**pair("q", "a"), "label": False}], 2),
        ("kto", [{**pair("q", "a"), "label": True}, {**pair("q", "b"), "label": False}], 0),
        ("dpo", [{**pair("q", "a"), "rejected_response": "b"}] * 1, 0),
        (
            "dpo",
            [
                {**pair("q", "a"), "rejected_response": "b"},
                {**pair("q", "b"), "rejected_response": "a"},
                {**pair("q", "c"), "rejected_response": "a"},
            ],
            2,
        ),
        ("pt", [{"text": "one"}, {"text": "two"}], 0),
    ],
)
def test_a_contradiction_is_what_the_task_takes_for_one(
    tmp_path: Path, kind: Kind, rows: list[Any], conflicting: int
) -> None:
    report = clean_rows(tmp_path, rows, kind)
    assert report.kept == len(rows)
    assert found(report).get("conflicting_answers", 0) == conflicting


def test_rows_that_ask_the_same_or_are_nearly_the_same_never_straddle(tmp_path: Path) -> None:
    groups = [[pair(f"question {n}", f"answer {n}{letter}") for letter in "abc"] for n in range(20)]
    texts = [prose(30, n) for n in range(20)]
    groups += [[pair(text, "fine"), pair(text + " too", "fine")] for text in texts]
    rows = [row for group in groups for row in group]
    random.Random(0).shuffle(rows)
    report = clean_rows(tmp_path, rows, val_ratio=0.3)
    assert report.held_out == "split" and 28 <= report.val_rows <= 30
    sides = {}
    for side in ("train", "val"):
        for row in read_rows(tmp_path / "out" / f"{side}.jsonl"):
            sides[row["messages"][0]["content"], row["messages"][1]["content"]] = side
    for group in groups:
        assert len({sides[row["query"], row["response"]] for row in group}) == 1


def test_the_same_rows_are_held_out_in_whatever_order_they_come(tmp_path: Path) -> None:
    rows = [pair(f"q{number}", "a") for number in range(200)]
    clean_rows(tmp_path, rows, val_ratio=0.1)
    held = {json.dumps(row) for row in read_rows(tmp_path / "out" / "val.jsonl")}
    clean_rows(tmp_path, rows[::-1], val_ratio=0.1)
    assert {json.dumps(row) for row in read_rows(tmp_path / "out" / "val.jsonl")} == held
    assert len(held) == 20


def test_answers_of_unusual_length_are_told(tmp_path: Path) -> None:
    rows = [pair(f"question {n}", prose(3, n)) for n in range(30)]
    report = clean_rows(tmp_path, [*rows, pair("and this?", "z" * 150), pair("or that?", "!")])
    assert found(report) == {"unusual_length": 2}
    assert clean_rows(tmp_path, [*rows[:10], pair("and this?", "z" * 150)]).findings == []
    clean_rows(tmp_path, [*rows, pair("!", "z" * 150)], rules={"unusual_length": "reject"})
    (rejected,) = read_rows(tmp_path / "out" / "rejected.jsonl")
    assert rejected["detail"].startswith("150 characters, where half of the answers have ")


LONG = turns(*[("user", "u" * 60), ("assistant", "a" * 60), ("user", "v"), ("assistant", "b" * 99)])


def test_a_row_that_is_too_long_becomes_the_parts_that_fit(tmp_path: Path) -> None:
    report = clean_rows(tmp_path, [*GOOD, LONG], system="s", rules={"over_length": "split"})
    assert (report.kept, report.parts, report.train_rows) == (21, 1, 22)
    assert report.changes["split_at_turns"] == 1
    assert report.tokens is not None and report.tokens.tokens.max == 120
    first, second = read_rows(tmp_path / "out" / "train.jsonl")[-2:]
    assert first == turns(("system", "s"), ("user", "u" * 60), ("assistant", "a" * 60))
    assert second == turns(("system", "s"), ("user", "v"), ("assistant", "b" * 99))


def test_a_row_that_is_too_long_loses_its_first_turns(tmp_path: Path) -> None:
    report = clean_rows(tmp_path, [*GOOD, LONG], rules={"over_length": "truncate"})
    assert (report.kept, report.parts, report.train_rows) == (21, 0, 21)
    assert report.changes["older_turns_dropped"] == 1
    assert read_rows(tmp_path / "out" / "train.jsonl")[-1] == turns(
        ("user", "v"), ("assistant", "b" * 99)
    )


def test_a_part_that_stands_elsewhere_is_written_once(tmp_path: Path) -> None:
    alike = turns(
        ("user", "u" * 60), ("assistant", "a" * 60), ("user", "w"), ("assistant", "c" * 99)
    )
    whole = turns(("user", "w"), ("assistant", "c" * 99))
    swapped = turns(*[(turn["role"], turn["content"]) for turn in LONG["messages"][2:]] * 3)
    report = clean_rows(
        tmp_path, [LONG, alike, *GOOD, whole, swapped], rules={"over_length": "split"}
    )
    kept = [json.dumps(row) for row in read_rows(tmp_path / "out" / "train.jsonl")]
    assert len(kept) == len(set(kept)) == 23
    assert codes(tmp_path / "out") == [(2, "duplicate"), (24, "duplicate")]
    assert (report.kept, report.parts) == (22, 1)


def test_a_column_of_nothing_but_dates_is_rejected_and_one_other_text_saves_it(
    tmp_path: Path,
) -> None:
    dates = [pair(f"2024-01-{day:02}", f"2024-02-{day:02}") for day in range(1, 20)]
    with pytest.raises(GateError, match="none of the 19 training rows"):
        clean_rows(tmp_path, dates)
    assert {code for _, code in codes(tmp_path / "out")} == {"only_timestamps"}
    assert clean_rows(tmp_path, [*dates, pair("when", "then")]).kept == 20
    answers = [pair(f"question {day}", f"2024-02-{day:02}") for day in range(1, 20)]
    assert clean_rows(tmp_path, answers).kept == 19


def test_dates_held_out_by_themselves_are_rejected(tmp_path: Path) -> None:
    train = write_rows(tmp_path / "train.jsonl", [*GOOD, pair("2024-01-01", "2024-01-02")])
    val = write_rows(tmp_path / "val.jsonl", [pair("2024-02-01", "2024-01-02")])
    with pytest.raises(GateError, match="none of the 1 validation rows"):
        clean([train], tmp_path / "out", [val])
    assert codes(tmp_path / "out") == [(1, "only_timestamps")]


@pytest.mark.parametrize("seed", range(12))
def test_a_side_is_never_left_with_dates_alone(tmp_path: Path, seed: int) -> None:
    rows = [*GOOD[:2], *(pair(f"2024-01-{day:02}", f"2024-02-{day:02}") for day in range(1, 4))]
    report = clean_rows(tmp_path, rows, val_ratio=0.2, seed=seed)
    assert report.val_rows >= 1
    for side in ("train", "val"):
        kept = read_rows(tmp_path / "out" / f"{side}.jsonl")
        assert any(not row["messages"][0]["content"].startswith("2024") for row in kept)


def test_columns_of_mixed_types_lose_the_rows_that_differ(tmp_path: Path) -> None:
    rows: list[Any] = [
        {**turns(("user", f"sum {n}?")), "solution": str(n), "level": n, "facts": {"ok": True}}
        for n in range(6)
    ]
    rows[2]["level"] = "hard"
    rows[3]["facts"] = {"ok": ["no"]}
    rows[4]["level"] = None
    report = clean_rows(tmp_path, rows, "grpo")
    assert report.kept == 4
    assert [row["detail"] for row in read_rows(tmp_path / "out" / "rejected.jsonl")] == [
        "`level` is text here, number in most rows",
        "`facts.ok` is list here, true or false in most rows",
    ]


def test_the_token_spread_and_histogram_hold_every_measured_row(tmp_path: Path) -> None:
    report = clean_rows(tmp_path, [*GOOD, pair("long", "x" * 300)])
    assert report.tokens is not None
    assert report.tokens.tokens.min == len("question 1answer 1")
    assert sum(part.kept for part in report.tokens.histogram) == 20
    assert report.tokens.over_length is not None and report.tokens.over_length.max == 304


def test_sample_rows_have_their_places_and_are_rows_that_are_kept(tmp_path: Path) -> None:
    report = clean_rows(tmp_path, [pair("long", "x" * 300), *GOOD])
    assert [Path(row.place).name for row in report.samples][:2] == ["data.jsonl:2", "data.jsonl:3"]
    assert len(report.samples) == 7


def test_when_all_rows_are_rejected_the_reasons_are_told_and_kept(tmp_path: Path) -> None:
    out = tmp_path / "out"
    good = write_rows(tmp_path / "good.jsonl", GOOD)
    clean([good], out)
    bad = write_rows(tmp_path / "bad.jsonl", [pair("q", ""), pair("q", " "), {"zzz": "t"}])
    with pytest.raises(GateError) as caught:
        clean([bad], out)
    told = str(caught.value)
    assert "none of the 3 training rows" in told
    assert "2 x blank_answer" in told and "1 x unknown_shape" in told
    assert str(out / "rejected.jsonl") in told
    assert len(read_rows(out / "rejected.jsonl")) == 3
    # Rows of the earlier run would be trained on as if they were these.
    assert not (out / "train.jsonl").exists() and not (out / "val.jsonl").exists()


def test_validation_files_without_a_usable_row_fail(tmp_path: Path) -> None:
    train = write_rows(tmp_path / "train.jsonl", GOOD)
    val = write_rows(tmp_path / "val.jsonl", [{"query": "q"}])
    with pytest.raises(GateError, match="none of the 1 validation rows"):
        clean([train], tmp_path / "out", [val])
    assert not (tmp_path / "out" / "train.jsonl").exists()


def test_one_row_is_too_few_to_hold_any_out(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "data.jsonl", GOOD[:1])
    with pytest.raises(GateError, match="too few"):
        clean([data], tmp_path / "out")
    assert clean([data], tmp_path / "out", settings=NO_SPLIT).train_rows == 1


def test_rows_that_all_ask_the_same_cannot_be_split(tmp_path: Path) -> None:
    rows = [pair("what is it", f"answer {number}") for number in range(9)]
    with pytest.raises(GateError, match="all 9 rows ask the same"):
        clean_rows(tmp_path, rows, val_ratio=0.1)
    assert clean_rows(tmp_path, rows).kept == 9


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """As a full disk would, the system refuses to write more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    data = write_rows(
        tmp_path / "data.jsonl", [pair(f"question {n}", "x" * 150) for n in range(9000)]
    )
    with files_of_at_most(1 << 19), pytest.raises(InputError, match="cannot be written") as caught:
        clean([data], tmp_path / "out", settings=NO_SPLIT)
    assert "free as much space" in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.jsonl"]


def test_a_request_that_cannot_be_met_names_its_problems_and_leaves_earlier_results(
    tmp_path: Path,
) -> None:
    data, out = write_rows(tmp_path / "data.jsonl", GOOD), tmp_path / "out"
    clean([data], out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(InputError) as caught:
        clean([], out, settings=DataSettings(columns={"frage": "q"}))
    told = str(caught.value)
    assert "frage" in told and "no file to train on" in told
    with pytest.raises(InputError, match="absent"):
        clean([data, tmp_path / "absent.csv"], out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


class Interrupted(CharacterJudge):
    def finish(self, progress: Any = None) -> Judgement:
        raise KeyboardInterrupt


class Broken(CharacterJudge):
    def finish(self, progress: Any = None) -> Judgement:
        raise ChildError("no ms-swift here")


@pytest.mark.parametrize(
    ("judge", "error"), [(Interrupted, KeyboardInterrupt), (Broken, ChildError)]
)
def test_whatever_ends_the_run_no_row_file_is_left(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    judge: type[CharacterJudge],
    error: type[BaseException],
) -> None:
    data, out = write_rows(tmp_path / "data.jsonl", GOOD), tmp_path / "out"
    clean([data], out)
    monkeypatch.setattr("palmswift.data.gate.TemplateJudge", judge)
    with pytest.raises(error):
        clean([data], out)
    assert list(out.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.jsonl", "out"]


def test_ctrl_c_while_the_rows_are_written_leaves_none_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = write_rows(tmp_path / "data.jsonl", GOOD), tmp_path / "out"
    from palmswift.data.tally import ReportBuilder

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ReportBuilder, "finish", interrupted)
    with pytest.raises(KeyboardInterrupt):
        clean([data], out)
    assert not out.exists()
    out.mkdir()
    with pytest.raises(KeyboardInterrupt):
        clean([data], out)
    assert list(out.iterdir()) == []
