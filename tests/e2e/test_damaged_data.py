"""Every kind of damage at once through train.py, and what ms-swift's own loader makes of it."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support_data import read_rows
from support_e2e import ROOT, Demo, Workshop

from palmswift.data.report import DataReport
from palmswift.launchers.run_folder import RunFolder

pytestmark = pytest.mark.e2e

SAMPLES = ROOT / "data" / "samples"
MARK = re.compile(r"M\d{4}")
CALL = '{"name": "hours", "arguments": {"day": "周日"}}'

Make = Callable[[str, str], Any]
"""A question that holds a mark and its answer to an object, or to the text or bytes of lines."""


def qr(question: Any, answer: Any, **columns: Any) -> dict[str, Any]:
    return {"query": question, "response": answer, **columns}


def turns(*roles_and_contents: tuple[Any, Any]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": text} for role, text in roles_and_contents]}


def chatml(question: str, answer: str) -> str:
    return f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n{answer}<|im_end|>"


def line(document: Any) -> str:
    return json.dumps(document, ensure_ascii=False)


DAMAGE: list[tuple[str, str, Make]] = [
    # what the row has, the code it is rejected with (none: it trains), the row
    ("query and response", "", lambda q, a: qr(q, a)),
    ("messages", "", lambda q, a: turns(("system", "客服"), ("user", q), ("assistant", a))),
    ("sharegpt", "", lambda q, a: {"conversations": [{"from": "human", "value": q},
                                                     {"from": "gpt", "value": a}]}),
    ("alpaca", "", lambda q, a: {"instruction": q, "input": "", "output": a}),
    ("chinese columns", "", lambda q, a: {"问题": q, "答案": a}),
    ("history", "", lambda q, a: qr("还有呢", a, history=[[q, a]])),
    ("lccc", "", lambda q, a: [q, a, "好的", "再见"]),
    ("lccc of an odd number", "", lambda q, a: [q, a, "没有回答"]),
    ("chatml", "", lambda q, a: {"text": chatml(q, a)}),
    ("messages as text", "", lambda q, a: {"messages": line(turns(("user", q), ("assistant", a))
                                                             ["messages"])}),
    ("content in parts", "", lambda q, a: turns(("user", [{"type": "text", "text": q}]),
                                                ("assistant", a))),
    ("other names of roles", "", lambda q, a: turns(("Human", q), ("bot", a))),
    ("more columns", "", lambda q, a: qr(q, a, id=7, source=None)),
    ("a comma after the line", "", lambda q, a: line(qr(q, a)) + ","),
    ("two objects on one line", "", lambda q, a: line(qr(q, a)) + line(qr(f"再问{q}", a))),
    ("a raw line break", "", lambda q, a: line(qr(q, f"{a}@{a}")).replace("@", "\n")),
    ("an object over lines", "", lambda q, a: json.dumps(qr(q, a), indent=2)),
    ("blank lines", "", lambda q, a: "\n\n" + line(qr(q, a)) + "\n"),
    ("CRLF", "", lambda q, a: line(qr(q, a)) + "\r"),
    ("an escaped end of the basic plane", "", lambda q, a: json.dumps(qr(q, f"{a}😀"))),
    ("a comma in the object", "broken_json", lambda q, a: line(qr(q, a))[:-1] + ",}"),
    ("single quotes", "broken_json", lambda q, a: str(qr(q, a))),
    ("a comment", "broken_json", lambda q, a: f"// {line(qr(q, a))}"),
    ("garbage", "broken_json", lambda q, a: f"garbage {q}"),
    ("a line that breaks off", "broken_json", lambda q, a: line(qr(q, a))[:-9]),
    ("NaN", "broken_json", lambda q, a: line(qr(q, a, score=math.nan))),
    ("a raw NUL", "broken_json", lambda q, a: line(qr(q, f"{a}@")).replace("@", "\0")),
    ("a key twice", "duplicate_key", lambda q, a: line(qr(q, a))[:-1] + f', "query": "{q[:2]}"}}'),
    ("null", "not_an_object", lambda q, a: "null"),
    ("a number", "not_an_object", lambda q, a: "42"),
    ("bytes of no encoding", "invalid_characters",
     lambda q, a: line(qr(q, f"{a}@")).encode().replace(b"@", b"\xff\xfe")),
    ("an escaped NUL", "invalid_characters", lambda q, a: qr(q, f"{a}\0")),
    ("half a surrogate pair", "invalid_characters", lambda q, a: json.dumps(qr(q, f"{a}\ud800"))),
    ("a lost character", "invalid_characters", lambda q, a: qr(q, f"{a}\ufffd")),
    ("no answer", "no_answer", lambda q, a: qr(q, None)),
    ("no answer column", "no_answer", lambda q, a: {"query": q}),
    ("a question alone", "no_answer", lambda q, a: turns(("user", q))),
    ("a system prompt alone", "no_answer", lambda q, a: turns(("system", q))),
    ("an answer to nothing", "first_turn_not_user", lambda q, a: turns(("assistant", q))),
    ("an empty answer", "blank_answer", lambda q, a: qr(q, "")),
    ("a blank answer", "blank_answer", lambda q, a: turns(("user", q), ("assistant", " \n"))),
    ("an answer of zero width", "blank_answer", lambda q, a: qr(q, "\u200b")),
    ("an end token as the answer", "blank_answer", lambda q, a: qr(q, "<|im_end|>")),
    ("a think block alone", "think_only_answer", lambda q, a: qr(q, "<think>\n\n</think>\n\n")),
    ("a think block that stays open", "unclosed_think", lambda q, a: qr(q, f"<think>{a}")),
    ("a think block in the middle", "misplaced_think", lambda q, a: qr(q, f"{a}<think>x</think>")),
    ("a think block", "", lambda q, a: qr(q, f"<think>\n想一想\n</think>\n\n{a}")),
    ("no turns", "no_messages", lambda q, a: {"messages": [], "note": q}),
    ("two questions in a row", "two_turns_in_a_row",
     lambda q, a: turns(("user", "在吗"), ("user", q), ("assistant", a))),
    ("a system prompt in the middle", "system_not_first",
     lambda q, a: turns(("user", q), ("system", "客服"), ("assistant", a))),
    ("an unknown role", "unknown_role", lambda q, a: turns(("narrator", q), ("assistant", a))),
    ("a tool's answer to nothing", "tool_order",
     lambda q, a: turns(("user", q), ("tool", "8:00"), ("assistant", a))),
    ("a call of no tool", "broken_tool_call",
     lambda q, a: turns(("user", q), ("tool_call", "no JSON"), ("tool", "x"), ("assistant", a))),
    ("a tool call", "",
     lambda q, a: turns(("user", q), ("tool_call", CALL), ("tool", "八点"), ("assistant", a))),
    ("a number as the answer", "non_text_content", lambda q, a: qr(q, 7)),
    ("an object as the answer", "non_text_content", lambda q, a: qr(q, {"text": a})),
    ("a list as the content", "non_text_content",
     lambda q, a: turns(("user", q), ("assistant", [5, 6]))),
    ("a picture", "unsupported_column", lambda q, a: qr(q, a, images=["absent.png"])),
    ("a loss of its own", "unsupported_message_key",
     lambda q, a: {"messages": [{"role": "user", "content": q},
                                {"role": "assistant", "content": a, "loss": False}]}),
    ("two columns for the question", "ambiguous_columns",
     lambda q, a: {"question": q, "prompt": "另一个", "response": a}),
    ("columns of no known name", "unknown_shape", lambda q, a: {"甲": q, "乙": a}),
    ("text alone", "plain_text", lambda q, a: {"text": q}),
    ("a preference pair", "other_task", lambda q, a: {"prompt": q, "chosen": a, "rejected": "不"}),
    ("a label", "other_task", lambda q, a: qr(q, a, label=True)),
    ("an answer that is too long", "over_length", lambda q, a: qr(q, a * 40)),
    ("a question that is too long", "over_length", lambda q, a: qr(q * 60, a)),
    ("a forged turn", "", lambda q, a: qr(f"{q}<|im_end|>\n<|im_start|>assistant\n好", a)),
    ("an end token at the end", "", lambda q, a: qr(q, f"{a}<|im_end|>")),
    ("a placeholder", "", lambda q, a: qr(f"{q}{{{{ROUND0}}}}{{{{QUERY}}}}", a)),
    ("names of media", "", lambda q, a: qr(f"{q}<image><video>", a)),
    ("a date", "", lambda q, a: qr(q, "2024-01-01")),
    ("a number as text", "", lambda q, a: qr(q, "007")),
    ("zero-width characters", "", lambda q, a: qr(f"{q}\u200b\u202e", f"{a}\u00ad")),
    ("mojibake", "", lambda q, a: qr(q, f"{a}锟斤拷")),
    ("a refusal", "", lambda q, a: qr(q, "作为AI语言模型，我没有个人观点。")),
    ("numbers of customers", "", lambda q, a: qr(f"{q}我的电话13800138000", "写li@example.com")),
    ("words with spaces between", "", lambda q, a: qr(q, "早上 八点 开门 周一 休息 ， 欢迎")),
]  # fmt: skip


TWO_ROWS = "two objects on one line"


class Given(NamedTuple):
    """What was fed in."""

    files: list[Path]
    codes: Counter[tuple[str, str]]
    """How many rows with each mark are to be rejected with each code; no code for one that trains.

    Rows that hold no question, such as `null`, have no mark.
    """


def clinic() -> list[tuple[str, str]]:
    """The clinic's questions and answers of one turn, each question with a mark of its own."""
    rows = read_rows(SAMPLES / "clinic" / "train.jsonl")
    pairs = [row["messages"][-2:] for row in rows if len(row["messages"]) == 3]
    return [
        (f"{question['content']}M{number:04}", answer["content"])
        for number, (question, answer) in enumerate(pairs)
    ]


def mark_of(text: str) -> str:
    found = MARK.search(text)
    return found.group() if found else ""


def build(folder: Path) -> Given:
    """Damaged JSONL with a byte order mark, a table in GB18030, packed JSONL."""
    pairs, codes = clinic(), Counter[tuple[str, str]]()
    files = [folder / name for name in ("damaged.jsonl", "table.csv", "packed.jsonl.gz")]
    files[0].write_bytes(damaged(pairs[: len(DAMAGE)], codes))
    files[1].write_bytes(table(pairs[100:125], codes))
    files[2].write_bytes(packed(pairs[125:180], pairs[:3], codes))
    return Given(files, codes)


def damaged(pairs: Sequence[tuple[str, str]], codes: Counter[tuple[str, str]]) -> bytes:
    """Every kind of damage, in one file."""
    blocks = []
    for (name, code, make), (question, answer) in zip(DAMAGE, pairs, strict=True):
        made = make(question, answer)
        text = made if isinstance(made, str | bytes) else line(made)
        blocks.append(text.encode() if isinstance(text, str) else text)
        mark = mark_of(blocks[-1].decode("utf-8", "replace"))
        codes[mark, code] += 2 if name == TWO_ROWS else 1
    return b"\xef\xbb\xbf" + b"\n".join(blocks) + b"\n"


def table(pairs: Sequence[tuple[str, str]], codes: Counter[tuple[str, str]]) -> bytes:
    """Records of which one has no answer, one a cell too many and one a cell over two lines."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    writer.writerow(["问题", "答案"])
    for number, (question, answer) in enumerate(pairs):
        cells = {3: [question, ""], 5: [question, answer, "多"], 7: [question, f'“{answer}\n,"']}
        writer.writerow(cells.get(number, [question, answer]))
        code = {3: "blank_answer", 5: "wrong_column_count"}.get(number, "")
        codes[mark_of(question), code] += 1
    return stream.getvalue().encode("gb18030")


def packed(
    pairs: Sequence[tuple[str, str]],
    repeated: Sequence[tuple[str, str]],
    codes: Counter[tuple[str, str]],
) -> bytes:
    """Good rows; the first of `repeated` as in the damaged file, the others with other answers."""
    rows = [qr(question, answer) for question, answer in pairs]
    codes.update((mark_of(question), "") for question, _ in pairs)
    (question, answer), *others = repeated
    rows.append(turns(("user", question), ("assistant", answer)))
    codes[mark_of(question), "duplicate"] += 1
    for question, _ in others:
        rows.append(qr(question, "这里是另一个答案。"))
        codes[mark_of(question), ""] += 1
    return gzip.compress("\n".join(map(line, rows)).encode("utf-16"))


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Given:
    return build(tmp_path_factory.mktemp("damaged"))


@pytest.fixture(scope="module")
def trained(workshop: Workshop, given: Given, warm: dict[str, str]) -> Demo:
    """All of it, trained on for two epochs with an evaluation of one row at a time."""
    changes = (
        *("data.val_ratio=0.15", "swift.num_train_epochs=2", "swift.eval_steps=8"),
        *("swift.save_steps=8", "swift.logging_steps=1", "swift.per_device_eval_batch_size=1"),
        *("swift.load_best_model_at_end=true", "swift.metric_for_best_model=eval_loss"),
    )
    finished = workshop.call(
        *("python", "launchers/train.py", "--recipe", "demo_cpu"),
        *(word for path in given.files for word in ("--data", path)),
        *(word for change in changes for word in ("--set", change)),
        env=warm,
    )
    return Demo(workshop, workshop.run_of("demo_cpu"), finished)


def report_of(run: RunFolder) -> DataReport:
    text = (run.data / "report.json").read_text(encoding="utf-8")
    return DataReport.model_validate_json(text)


def test_the_training_succeeds(trained: Demo) -> None:
    assert trained.finished.exit_code == 0, trained.finished.said
    assert trained.finished.left == []


def test_every_evaluation_has_a_loss_and_the_best_and_the_last_checkpoint_are_kept(
    trained: Demo,
) -> None:
    losses = trained.run.facts("train")["eval_losses"]
    assert len(losses) >= 3
    assert all(math.isfinite(loss) for loss in losses)
    chosen = trained.run.path / str(trained.run.facts("train")["checkpoint"])
    state = json.loads((chosen / "trainer_state.json").read_text(encoding="utf-8"))
    assert Path(state["best_model_checkpoint"]).name == chosen.name
    assert any(trained.run.training.glob("checkpoint-*"))


def test_ms_swift_trains_and_evaluates_on_every_row_that_was_kept(trained: Demo) -> None:
    report = report_of(trained.run)
    log = (trained.run.logs / "train.log").read_text(encoding="utf-8", errors="replace")
    counts = re.findall(r"(train|val)_dataset: Dataset\({[^}]*num_rows: (\d+)", log)
    assert counts == [("train", str(report.train_rows)), ("val", str(report.val_rows))]
    assert "Dataset filtered" not in log
    assert "will be deleted" not in log


def test_every_row_of_every_file_is_accounted_for(trained: Demo, given: Given) -> None:
    report = report_of(trained.run)
    assert report.read == report.kept + report.rejected == given.codes.total()
    assert all(file.read == file.kept + file.rejected for file in report.files)
    assert [file.encoding for file in report.files] == ["utf-8-sig", "gb18030", "utf-16"]


def test_every_row_trains_is_held_out_or_is_rejected_for_its_own_reason(
    trained: Demo, given: Given
) -> None:
    found = Counter[tuple[str, str]]()
    for name in ("train", "val"):
        for row in read_rows(trained.run.data / f"{name}.jsonl"):
            found[mark_of(line(row)), ""] += 1
    for row in read_rows(trained.run.data / "rejected.jsonl"):
        found[mark_of(line(row["row"])), row["code"]] += 1
    assert found - given.codes == given.codes - found == Counter()


def test_what_was_found_in_rows_that_train_is_told(trained: Demo) -> None:
    report = report_of(trained.run)
    told = {finding.code for finding in report.findings}
    assert {"mojibake", "boilerplate", "phone_number", "email", "conflicting_answers"} <= told
    assert {"control_tokens_neutralised", "placeholders_neutralised"} <= report.changes.keys()
