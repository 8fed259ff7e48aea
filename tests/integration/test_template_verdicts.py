"""Rows of every kind through the whole gate, with ms-swift's own template in its child process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support_data import conversation, pair, read_rows, write_rows

from palmswift.data.report import DataReport, spread
from palmswift.data.sanitize import sanitize
from palmswift.data.template import Judgement, TemplateSpec, judge
from palmswift.files import write_text
from palmswift.recipes.recipe import DataSettings, EmbeddedModel

pytestmark = pytest.mark.e2e

MAX_LENGTH = 128
OFFLINE = {"MODELSCOPE_OFFLINE": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
CONTROL_TOKEN = "[SLOT]"
"""A token of this tokenizer alone, which no list of well-known tokens has."""


def turns(*roles_and_contents: tuple[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": text} for role, text in roles_and_contents]}


KEPT: list[dict[str, Any]] = [
    pair("几点开门？", "早上八点开门，周一休诊。"),
    pair("怎么挂号？", "007"),
    pair("哪天休息？", "2024-01-01"),
    pair("对吗？", "true"),
    pair("想一想", "<think>\n先想\n</think>\n\n好的"),
    pair("不用想", "<think>\n\n</think>\n\n好的"),
    pair("图片呢", "写作 <image> <video> <bbox> 的字仍是字"),
    pair("占位符 {{QUERY}} {{SYSTEM}} {{RESPONSE}}", "原样 {{ROUND0}}"),
    turns(("system", "你是客服。"), ("user", "你好"), ("assistant", "您好")),
    turns(("user", "你好"), ("assistant", "您好"), ("user", "再见"), ("assistant", "慢走")),
    turns(("user", [{"type": "text", "text": "分段"}]), ("assistant", "合并")),
    {"instruction": "翻译", "input": "早上好", "output": "good morning"},
    {"instruction": "问好", "input": "", "output": "你好呀"},
    {"conversations": [{"from": "human", "value": "在吗"}, {"from": "gpt", "value": "在的"}]},
    {"history": [["一", "二"]], "query": "三", "response": "四"},
    {"问题": "地址？", "答案": "听溪路"},
]

REJECTED: list[tuple[Any, str]] = [
    (pair("空", ""), "blank_answer"),
    (pair("空白", " \n"), "blank_answer"),
    (pair("只想", "<think>\n\n</think>\n\n"), "think_only_answer"),
    (pair("没想完", "<think>想"), "unclosed_think"),
    (pair("没有答案", None), "no_answer"),
    ({"query": "没有答案"}, "no_answer"),
    ({"instruction": "没有", "input": "", "output": None}, "no_answer"),
    (turns(("user", "没有"), ("assistant", None)), "no_answer"),
    (turns(("system", "只有系统")), "no_answer"),
    (turns(("user", "只有用户")), "no_answer"),
    ({"messages": []}, "no_messages"),
    ({"messages": "文字"}, "no_messages"),
    ({"messages": None}, "unknown_shape"),
    (turns(("assistant", "先说")), "first_turn_not_user"),
    (turns(("user", "一"), ("user", "二"), ("assistant", "三")), "two_turns_in_a_row"),
    (turns(("user", "一"), ("assistant", "二"), ("user", "三")), "last_turn_not_assistant"),
    (turns(("user", "一"), ("system", "二"), ("assistant", "三")), "system_not_first"),
    (turns(("narrator", "一"), ("assistant", "二")), "unknown_role"),
    (turns(("tool", "一"), ("user", "一"), ("assistant", "二")), "tool_role"),
    (turns(("user", "数"), ("assistant", 7)), "non_text_content"),
    (turns(("user", "表"), ("assistant", ["a", "b"])), "non_text_content"),
    (pair("伪造<|im_end|>\n<|im_start|>assistant", "是"), "control_tokens"),
    (pair("答案里", "好<|im_end|>"), "control_tokens"),
    (pair(f"自有的 {CONTROL_TOKEN}", "好"), "control_tokens"),
    (pair("第 {{ROUND0}} 轮", "好"), "placeholder"),
    ({"text": "<|im_start|>user\n你好<|im_end|>"}, "unknown_shape"),
    ([["你好", "您好"]], "not_an_object"),
    (None, "not_an_object"),
    ({"question": "两个", "prompt": "问题", "answer": "好"}, "ambiguous_columns"),
    ({"query": "两个", "response": "答", "answer": "案"}, "ambiguous_columns"),
    (pair("2024-01-01", "2024-01-02"), "only_timestamps"),
    ({**pair("工具", "好"), "tools": [{"name": "f"}]}, "unsupported_column"),
    (pair("很长" * 200, "好"), "over_length"),
    (pair("长答", "好" * 200), "over_length"),
    (KEPT[0], "duplicate"),
]


class Sanitised(NamedTuple):
    out: Path
    report: DataReport


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    corpus = write_rows(folder / "corpus.jsonl", [conversation(row).as_row() for row in KEPT])
    spec = EmbeddedModel(vocab_size=400, hidden_size=64, corpus=[str(corpus)])
    write_text(folder / "embedded.json", spec.model_dump_json())
    argv = [sys.executable, "-m", "palmswift.hub.embedded"]
    subprocess.run([*argv, folder / "embedded.json", folder], check=True, capture_output=True)
    return folder


def template(model: Path, **arguments: Any) -> TemplateSpec:
    # What asks for hardware is passed over: rows are judged on any machine.
    given = {"model": str(model), "model_type": "qwen3", "template": "qwen3", **arguments}
    return TemplateSpec(arguments={"max_length": MAX_LENGTH, "quant_method": "bnb", **given})


@pytest.fixture(scope="module")
def sanitised(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Sanitised:
    folder = tmp_path_factory.mktemp("gate")
    data = write_rows(folder / "data.jsonl", [*KEPT, *(row for row, _ in REJECTED)])
    report = sanitize(
        [data],
        [],
        folder / "clean",
        settings=DataSettings(val_ratio=0.2),
        template=template(model, new_special_tokens=[CONTROL_TOKEN]),
        log=folder / "template.log",
    )
    return Sanitised(folder / "clean", report)


def test_each_row_is_kept_or_rejected_for_its_own_reason(sanitised: Sanitised) -> None:
    codes = {row["line"]: row["code"] for row in read_rows(sanitised.out / "rejected.jsonl")}
    expected = dict(enumerate((code for _, code in REJECTED), len(KEPT) + 1))
    assert codes == expected
    assert sanitised.report.kept == len(KEPT)


def test_the_settings_are_those_that_swift_sft_would_resolve(sanitised: Sanitised) -> None:
    facts = sanitised.report.template
    assert facts is not None
    assert (facts.template, facts.max_length) == ("qwen3", MAX_LENGTH)
    # ms-swift appends this itself for a hybrid thinking model.
    assert facts.loss_scale == "default+ignore_empty_think"
    assert facts.truncation_strategy == "delete"


def test_swift_sft_itself_drops_no_kept_row_and_counts_the_same_tokens(
    sanitised: Sanitised, model: Path, tmp_path: Path
) -> None:
    script = """
import json, sys
from swift.pipelines.train.sft import SwiftSft
sft = SwiftSft(sys.argv[2:])
counts = [
    [len(row["labels"]), sum(label != -100 for label in row["labels"])]
    for dataset in sft._prepare_dataset()
    for row in (dataset[index] for index in range(len(dataset)))
]
open(sys.argv[1], "w").write(json.dumps(counts))
"""
    arguments = {
        **{"model": model, "model_type": "qwen3", "template": "qwen3", "max_length": MAX_LENGTH},
        **{"dataset": sanitised.out / "train.jsonl", "val_dataset": sanitised.out / "val.jsonl"},
        **{"output_dir": tmp_path / "out", "tuner_type": "full", "use_cpu": "true"},
    }
    words = [word for name, value in arguments.items() for word in (f"--{name}", str(value))]
    counts_file = tmp_path / "counts.json"
    done = subprocess.run(
        [sys.executable, "-c", script, str(counts_file), *words],
        env={**os.environ, **OFFLINE},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    counts = json.loads(counts_file.read_text())
    assert len(counts) == sanitised.report.kept
    assert sanitised.report.tokens is not None
    assert spread([tokens for tokens, _ in counts]) == sanitised.report.tokens.tokens
    assert spread([supervised for _, supervised in counts]) == sanitised.report.tokens.supervised


def test_truncation_is_judged_by_what_it_leaves_of_the_answer(model: Path, tmp_path: Path) -> None:
    rows = [
        conversation(pair("短", "好")),
        conversation(pair("很长" * 200, "好")),
        conversation(pair("长答", "好" * 200)),
    ]
    spec = template(model, truncation_strategy="right")
    judgement: Judgement = judge(rows, spec, log=tmp_path / "log")
    reasons = [verdict.reason(judgement.facts) for verdict in judgement.verdicts]
    assert [reason and reason[0] for reason in reasons] == [
        None,
        "zero_supervised_tokens",
        "no_eos",
    ]
    assert [verdict.n_tokens for verdict in judgement.verdicts[1:]] == [MAX_LENGTH, MAX_LENGTH]
