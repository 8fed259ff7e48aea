"""Verdicts of the real ms-swift: from its template alone, in batches, and from its trainers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support_data import write_rows

from palmswift.data.row import Kind
from palmswift.data.template import Judgement, TemplateJudge, TemplateSpec, WorkerSpec
from palmswift.data.template_wire import ChunkFolder
from palmswift.data.turns import part_of
from palmswift.files import write_text
from palmswift.recipes.recipe import EmbeddedModel

if TYPE_CHECKING:
    from palmswift.data.batch_template import Counted
    from palmswift.data.batch_tokenizer import BatchTokenizer
    from palmswift.data.template_worker import Examiner

pytestmark = pytest.mark.e2e

MAX_LENGTH = 90
OFFLINE = {"MODELSCOPE_OFFLINE": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
CONTROL_TOKEN = "[SLOT]"
"""A token of this tokenizer alone, which no list of well-known tokens has."""

Row = dict[str, Any]


def row(*texts: str, system: str | None = None, **columns: Any) -> Row:
    """Questions and answers in turn."""
    messages = [] if system is None else [{"role": "system", "content": system}]
    for number, text in enumerate(texts):
        messages.append({"role": ("user", "assistant")[number % 2], "content": text})
    return {"messages": messages, **columns}


def plain(text: str) -> Row:
    """A row of plain text."""
    return {"messages": [{"role": "assistant", "content": text}]}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    corpus = write_rows(folder / "corpus.jsonl", [row("几点开门？", "早上八点开门，周一休诊。")])
    spec = EmbeddedModel(vocab_size=400, hidden_size=64, corpus=[str(corpus)])
    write_text(folder / "embedded.json", spec.model_dump_json())
    argv = [sys.executable, "-m", "palmswift.hub.embedded"]
    subprocess.run([*argv, folder / "embedded.json", folder], check=True, capture_output=True)
    return folder


class Setting(NamedTuple):
    """One way to call ms-swift."""

    kind: Kind = "sft"
    template: str = "qwen3"
    max_length: int = 1000
    arguments: dict[str, Any] = {}  # noqa: RUF012  # never changed

    def spec(self, model: Path) -> TemplateSpec:
        commands: dict[Kind, Literal["sft", "pt", "rlhf"]] = {"sft": "sft", "pt": "pt"}
        return TemplateSpec(
            command=commands.get(self.kind, "rlhf"),
            arguments={
                **{"model": str(model), "model_type": "qwen3", "template": self.template},
                **{"max_length": self.max_length, "rlhf_type": self.kind},
                # What asks for hardware is passed over: rows are judged on any machine.
                **{"quant_method": "bnb", "new_special_tokens": [CONTROL_TOKEN]},
                **self.arguments,
            },
        )


def judge(model: Path, log: Path, setting: Setting, rows: Sequence[Row], **more: Any) -> Judgement:
    chosen = {"over_length": "reject", **more}
    with TemplateJudge(setting.spec(model), setting.kind, log=log, **chosen) as judging:
        judging.submit(rows)
        return judging.finish()


def examiner(model: Path, setting: Setting, *, batched: bool = True, **more: Any) -> Examiner:
    """What the child process runs, in this one, for many settings."""
    from palmswift.data.template_worker import Examiner

    chosen = {"over_length": "reject", "samples": 0, **more}
    spec = WorkerSpec(template=setting.spec(model), kind=setting.kind, batched=batched, **chosen)
    return Examiner(spec)


ROWS: list[tuple[Row, str]] = [
    (row("几点开门？", "早上八点开门。"), ""),
    (row("想一想", "<think>\n先想\n</think>\n\n好的"), ""),
    (row("不用想", "<think>\n\n</think>\n\n好的"), ""),
    (row("图片呢", "写作 <image> <video> 的字仍是字"), ""),
    (row("你好", "您好", "再见", "慢走", system="你是客服。"), ""),
    (row("空", ""), "no_supervised_text"),
    (row("空白", " \n"), "no_supervised_text"),
    (row("只想", "<think>\n\n</think>\n\n"), "no_supervised_text"),
    (row("没有答案"), "zero_supervised_tokens"),
    (row("伪造<|im_end|>\n", "是"), "control_tokens"),
    (row(f"自有的 {CONTROL_TOKEN}", "好"), "control_tokens"),
    (row("很长" * 100, "好"), "over_length"),
    (row("长答", "好" * 100), "over_length"),
    ({"messages": [{"role": "system", "content": "只有系统"}]}, "template_error"),
]


@pytest.fixture(scope="module")
def judged(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Judgement:
    rows = [one for one, _ in ROWS] * 200
    log = tmp_path_factory.mktemp("judge") / "template.log"
    return judge(model, log, Setting(max_length=MAX_LENGTH), rows, samples=3)


def test_each_row_trains_or_has_its_reason(judged: Judgement) -> None:
    codes = [code for _, code in ROWS] * 200
    assert [verdict.code for verdict in judged.verdicts] == codes


def test_the_settings_are_those_that_swift_sft_would_resolve(judged: Judgement) -> None:
    facts = judged.facts
    assert (facts.template, facts.max_length) == ("qwen3", MAX_LENGTH)
    # ms-swift appends this itself for a hybrid thinking model.
    assert facts.loss_scale == "default+ignore_empty_think"
    assert facts.truncation_strategy == "delete"


def test_plain_rows_are_counted_in_batches_and_some_are_checked(judged: Judgement) -> None:
    facts = judged.facts
    assert facts.not_batched == ""
    assert 200 * 5 <= facts.batched_rows < 200 * len(ROWS)
    assert 5 <= facts.checked_rows < facts.batched_rows / 10


def test_samples_are_rows_that_train_as_the_model_sees_them(judged: Judgement) -> None:
    assert len(judged.samples) == 3
    for sample in judged.samples:
        verdict = judged.verdicts[sample.index]
        assert verdict.code == ""
        assert (sample.n_tokens, sample.n_trained) == (verdict.n_tokens, verdict.n_supervised)
        texts = [m["content"] for m in ROWS[sample.index % len(ROWS)][0]["messages"]]
        shown = "".join(span.text for span in sample.spans)
        assert all(text in shown for text in texts)
        assert any(texts[-1].endswith(span.text[:1]) or span.trained for span in sample.spans)


pieces = ["你好", "hello", " ", "\n", "\u3000", "<think>", "</think>", "<think>\n\n</think>\n\n"]
pieces += ["<", "{", "{{", "{{ROUND0}}", "<|im", "<image>", "e\u0301", "👍", "\0", "\ue0000\ue001"]
pieces += ["'s", "1", "。", "\x1f", "<|im_end|>", CONTROL_TOKEN, "a" * 40]
words = st.text("你好吗ab c，.\n1", min_size=1, max_size=30)
texts = st.one_of(
    words,
    st.builds("<think>\n{}\n</think>\n\n{}".format, words, words),
    st.lists(st.sampled_from(pieces), max_size=5).map("".join),
)


@st.composite
def rows_of(draw: st.DrawFn, kind: Kind) -> Row:
    if kind == "pt":
        return plain(draw(texts))
    turns = draw(st.integers(1, 3))
    contents = [draw(texts) for _ in range(2 * turns - (kind == "grpo"))]
    made = row(*contents, system=draw(st.none() | texts))
    if kind == "sft" and draw(st.integers(0, 9)) == 0:
        made["messages"] = draw(st.permutations(made["messages"]))
    extra: dict[Kind, Row] = {
        "dpo": {"rejected_response": draw(texts)},
        "kto": {"label": True},
        "grpo": {"solution": 7},
    }
    return {**made, **extra.get(kind, {})}


SETTINGS = [
    Setting(),
    Setting(max_length=40),
    Setting(max_length=40, arguments={"truncation_strategy": "left"}),
    Setting(max_length=40, arguments={"truncation_strategy": "right"}),
    Setting(arguments={"loss_scale": "last_round"}),
    Setting(arguments={"loss_scale": "all"}),
    Setting(arguments={"loss_scale": "default", "disable_ignore_empty_think": True}),
    Setting(arguments={"loss_scale": "default+ignore_think_prefix"}),
    Setting(arguments={"enable_thinking": True}),
    Setting(arguments={"preserve_thinking": False}),
    Setting(arguments={"add_non_thinking_prefix": False, "system": "你是 {{QUERY}}"}),
    Setting(template="qwen3_nothinking"),
    Setting(template="qwen3_nothinking", arguments={"loss_scale": "last_round"}),
    Setting(template="qwen3_thinking"),
    Setting(template="chatml"),
    Setting(template="chatml", arguments={"loss_scale": "last_round"}),
    Setting("dpo"),
    Setting("dpo", max_length=40, arguments={"truncation_strategy": "right"}),
    Setting("kto", template="chatml"),
    Setting("grpo", max_length=40),
    Setting("grpo", max_length=40, arguments={"truncation_strategy": "delete"}),
    Setting("pt"),
    Setting("pt", max_length=20, arguments={"truncation_strategy": "split"}),
]


@pytest.fixture(scope="module", params=[1, 10**9], ids=["tiktoken", "tokenizers"])
def batch_tokenizer(model: Path, request: pytest.FixtureRequest) -> BatchTokenizer:
    from palmswift.data.batch_tokenizer import BatchTokenizer

    backend = examiner(model, Setting()).tokenizer.backend_tokenizer
    return BatchTokenizer(backend, worth=request.param)


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_a_row_counted_in_a_batch_has_the_very_tokens_of_template_encode(
    model: Path, batch_tokenizer: BatchTokenizer, setting: Setting
) -> None:
    from palmswift.data.batch_template import BatchTemplate
    from palmswift.data.real_template import RealTemplate, template_arguments

    real = RealTemplate(template_arguments(setting.spec(model)), setting.kind)
    assert real.why_not_batched == ""
    batch = BatchTemplate(real, batch_tokenizer, setting.kind)

    @settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(rows_of(setting.kind), min_size=1, max_size=8))
    def same(rows: list[Row]) -> None:
        for one, counted in zip(rows, batch.count(rows), strict=True):
            if counted is not None:
                measured, ids = real.measure_with_ids(one)
                assert measured._replace(detail="") == counted.measured
                assert measured.error or ids == counted.ids

    same()


@pytest.mark.parametrize(
    ("setting", "why"),
    [
        (Setting(arguments={"loss_scale": "react"}), "looks at the text"),
        (Setting(arguments={"template_backend": "jinja"}), "rules of its own"),
        (Setting(template="qwen3_reranker"), "rules of its own"),
    ],
    ids=str,
)
def test_what_is_not_known_to_give_the_same_is_left_to_template_encode(
    model: Path, setting: Setting, why: str
) -> None:
    facts = examiner(model, setting).facts
    assert why in facts.not_batched


def test_truncation_is_judged_by_what_it_leaves_of_the_answer(model: Path) -> None:
    rows = [row("短", "好"), row("很长" * 100, "好"), row("长答", "好" * 100)]
    setting = Setting(max_length=MAX_LENGTH, arguments={"truncation_strategy": "right"})
    verdicts = examiner(model, setting).verdicts(rows)
    assert [one.code for one in verdicts] == ["", "zero_supervised_tokens", "no_eos"]
    assert [one.n_tokens for one in verdicts[1:]] == [MAX_LENGTH, MAX_LENGTH]


LONG = row("第一问好", "第一答好", "第二问", "第二答", "三问", "三答", "四", "四", system="客服")


@pytest.mark.parametrize("policy", ["truncate", "split"])
@pytest.mark.parametrize("strategy", ["delete", "left"])
def test_a_long_dialogue_is_made_to_fit_by_its_real_tokens(
    model: Path, policy: str, strategy: str
) -> None:
    setting = Setting(max_length=90, arguments={"truncation_strategy": strategy})
    judging = examiner(model, setting, over_length=policy)
    alone = row("长" * 100, "好", "短", "好")
    long, short, lost = judging.verdicts([LONG, row("短", "好"), {**alone}])
    assert long.code == "" and long.parts
    assert len(long.parts) > 1 if policy == "split" else len(long.parts) == 1
    assert short.code == "" and not short.parts
    assert lost.code == ("over_length" if policy == "split" else "")
    parts = [part_of(LONG, part.start, part.stop) for part in long.parts]
    whole = examiner(model, Setting(max_length=90), batched=False).verdicts(parts)
    assert [one.code for one in whole] == [""] * len(parts)
    counts = [(part.n_tokens, part.n_supervised) for part in long.parts]
    assert [(one.n_tokens, one.n_supervised) for one in whole] == counts
    assert (long.n_tokens, long.n_supervised) == tuple(map(sum, zip(*counts, strict=True)))


def test_parts_of_a_preference_pair_keep_both_answers(model: Path) -> None:
    pair = {**LONG, "rejected_response": "不"}
    (verdict,) = examiner(model, Setting("dpo", max_length=90), over_length="split").verdicts(
        [pair]
    )
    assert [part.stop for part in verdict.parts] == [len(LONG["messages"])]


def test_one_wrong_count_ends_the_batches_and_all_rows_are_asked_about_again(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from palmswift.data import template_worker
    from palmswift.data.batch_template import BatchTemplate

    class Wrong(BatchTemplate):
        """Counts a token too many, and is not found out at once."""

        calls = 0

        def count(self, rows: Sequence[Row]) -> list[Counted | None]:
            self.calls += 1
            counted = []
            for one in super().count(rows):
                assert one is not None
                (counts,) = one.measured.sequences
                wrong = one.measured._replace(
                    sequences=(counts._replace(n_tokens=counts.n_tokens + 1),)
                )
                counted.append(one._replace(measured=wrong, first=self.calls == 3))
            return list(counted)

    monkeypatch.setattr(template_worker, "BatchTemplate", Wrong)
    monkeypatch.setattr(template_worker, "_CHECKED", 0)
    chunks = [[row("问" * number, "答")] for number in (1, 2, 3, 4)]
    folder = ChunkFolder(tmp_path)
    for number, rows in enumerate(chunks):
        folder.put_rows(number, rows)
    folder.put_end(len(chunks))
    wrong = examiner(model, Setting(), samples=2)
    template_worker.answer(folder, wrong, samples=2)
    real = examiner(model, Setting(), batched=False)
    assert list(folder.answers(len(chunks))) == [real.verdicts(rows) for rows in chunks]
    assert "other tokens" in wrong.facts.not_batched and wrong.facts.batched_rows == 0
    assert "other tokens" in capfd.readouterr().err
    assert len(json.loads(folder.samples.read_text())) == 2


class Trainer(NamedTuple):
    """A pipeline of ms-swift, and rows for it."""

    module: str
    setting: Setting
    flags: dict[str, Any]
    rows: list[Row]


ANSWERS = [row("问" * n, "答" * n, "再问", "<think>\n想\n</think>\n\n再答") for n in range(1, 9)]
TRAINERS = [
    Trainer("sft.SwiftSft", Setting("sft"), {}, ANSWERS),
    Trainer("pretrain.SwiftPretrain", Setting("pt"), {}, [plain("文字" * n) for n in range(1, 9)]),
    Trainer(
        "rlhf.SwiftRLHF",
        Setting("dpo", arguments={"rlhf_type": "dpo"}),
        {"rlhf_type": "dpo"},
        [{**one, "rejected_response": "不" * 3} for one in ANSWERS],
    ),
    Trainer(
        "rlhf.SwiftRLHF",
        Setting("dpo", arguments={"rlhf_type": "orpo"}),
        {"rlhf_type": "orpo"},
        [{**one, "rejected_response": "不" * 3} for one in ANSWERS],
    ),
]

PREPARE = """
import json, sys
from importlib import import_module
counts = []
for name, flags in json.loads(sys.argv[2]):
    module, trainer = name.split(".")
    swift = getattr(import_module(f"swift.pipelines.train.{module}"), trainer)(flags)
    dataset = swift._prepare_dataset()[0]
    counts.append([])
    for row in (dataset[index] for index in range(len(dataset))):
        labels = [value for key, value in row.items() if key.endswith("labels")]
        counts[-1].append([
            max(map(len, labels)),
            min(sum(label != -100 for label in one) for one in labels),
        ])
open(sys.argv[1], "w").write(json.dumps(counts))
"""


def test_the_trainers_of_ms_swift_drop_no_row_and_count_the_same_tokens(
    model: Path, tmp_path: Path
) -> None:
    calls = []
    for number, trainer in enumerate(TRAINERS):
        dataset = write_rows(tmp_path / f"{number}.jsonl", trainer.rows)
        flags = {
            **{"model": model, "model_type": "qwen3", "template": "qwen3", "max_length": 1000},
            **{"dataset": dataset, "split_dataset_ratio": 0, "dataset_shuffle": "false"},
            **{"output_dir": tmp_path / f"out{number}", "tuner_type": "lora", "use_cpu": "true"},
            **{"torch_dtype": "float32", "add_version": "false", "check_model": "false"},
            **trainer.flags,
        }
        words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
        calls.append((trainer.module, words))
    counts_file = tmp_path / "counts.json"
    done = subprocess.run(
        [sys.executable, "-c", PREPARE, str(counts_file), json.dumps(calls)],
        env={**os.environ, **OFFLINE},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for trainer, counts in zip(TRAINERS, json.loads(counts_file.read_text()), strict=True):
        verdicts = examiner(model, trainer.setting).verdicts(trainer.rows)
        assert [one.code for one in verdicts] == [""] * len(trainer.rows)
        assert [[one.n_tokens, one.n_supervised] for one in verdicts] == counts


def test_the_child_ends_when_the_process_that_asks_is_killed(model: Path, tmp_path: Path) -> None:
    script = """
import sys, time
from pathlib import Path
from palmswift.data.template import TemplateJudge, TemplateSpec
spec = TemplateSpec.model_validate_json(sys.argv[1])
with TemplateJudge(spec, "sft", over_length="reject", log=Path(sys.argv[2])):
    time.sleep(600)
"""
    spec = Setting().spec(model).model_dump_json()
    argv = [sys.executable, "-c", script, spec, str(tmp_path / "log")]
    with subprocess.Popen(argv) as parent:
        family = psutil.Process(parent.pid)
        while not (children := family.children()):
            time.sleep(0.1)
        parent.send_signal(signal.SIGKILL)
    gone, alive = psutil.wait_procs(children, timeout=300)
    assert gone and not alive


ANSWERED = [
    row("几点开门？", "早上八点开门。"),
    row("几点开门？", "早上八点开门。", system="你是客服。"),
    row("你好", "您好", "再见", "慢走", "好", "嗯", system="你是客服。"),
    row("你好", "<think>\n想\n</think>\n\n您好", "再见", "<think>\n再想\n</think>\n\n慢走"),
    row("换行", "早上\n\n 八点 \n"),
    row("记号", "早上<|im_end|>\n八点"),
    row("Hello", "Open at 8, closed on Monday."),
]


@pytest.mark.parametrize("one", ANSWERED)
def test_a_perplexity_is_of_the_tokens_that_training_makes(model: Path, one: Row) -> None:
    from palmswift.data.real_template import RealTemplate, template_arguments
    from palmswift.eval.measures.perplexity_worker import Model
    from palmswift.eval.measures.pieces import thinking_of

    thinking = {"enable_thinking": False, "preserve_thinking": False}
    real = RealTemplate(template_arguments(Setting(arguments=thinking).spec(model)), "sft")
    ours = Model(str(model))
    *prompt, answer = one["messages"]
    before = ours.prompt_tokens(prompt, thinking=thinking_of(answer["content"]))
    own = ours.tokens(answer["content"])
    [trained] = real.sequences(one)
    end = len(before) + len(own)
    assert trained.input_ids[:end] == before + own
    assert trained.labels[len(before) : end] == own
    assert real.tokenizer.decode(trained.input_ids[end:]) == "<|im_end|>\n"
