"""BERTScore and perplexity with small real models, against the formulas written out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter
from support_eval import ROOT

from palmswift.errors import InputError
from palmswift.eval.measures.bertscore import bertscore
from palmswift.eval.measures.perplexity import Passage, from_model
from palmswift.eval.suites.assertions import Assertion
from palmswift.eval.suites.checking import Subject, check
from palmswift.eval.suites.python_check import Functions
from palmswift.eval.suites.suite import load_suite
from palmswift.recipes.recipe import EmbeddedModel

TEXTS = ["周一休诊，周二开门。", "周二到周日都开门。", "closed on monday", "open", "周一休诊"]
PASSAGES = [
    Passage("zh", [{"role": "user", "content": "几点开门？"}], "早上八点开门。"),
    Passage(
        "more",
        [
            {"role": "system", "content": "客服"},
            {"role": "user", "content": "你好"},
            {"role": "assistant", "content": "您好"},
            {"role": "user", "content": "地址？"},
        ],
        "听溪路18号，ring the bell.",
    ),
]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of two layers with random weights, and a vocabulary of characters."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder: Path = tmp_path_factory.mktemp("bert")
    letters = sorted(set("".join(TEXTS)) - {" "})
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters]
    words += [f"##{letter}" for letter in letters if letter.isascii()]
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Qwen3 with random weights."""
    from palmswift.hub.embedded import build_embedded

    folder: Path = tmp_path_factory.mktemp("qwen")
    spec = EmbeddedModel(hidden_size=32, intermediate_size=64, vocab_size=400, seed=5)
    build_embedded(spec, [ROOT / "data/samples/clinic/val.jsonl"], folder)
    return folder


def oracle(folder: Path, answer: str, reference: str) -> tuple[float, float, float]:
    """BERTScore of one pair, written out in numpy with one text a pass and no padding."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)

    def vectors(text: str) -> Any:
        tokens = tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            layers = model(**tokens, output_hidden_states=True).hidden_states
        found = layers[1][0].numpy().astype(np.float64)
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    alike = vectors(answer) @ vectors(reference).T
    precision = alike.max(axis=1)[1:-1].mean()
    recall = alike.max(axis=0)[1:-1].mean()
    return precision, recall, 2 * precision * recall / (precision + recall)


def test_bertscore_is_the_published_formula(bert: Path) -> None:
    pairs = [(answer, [reference]) for answer in TEXTS for reference in TEXTS]
    found = bertscore([*pairs, ("", [""]), ("", [TEXTS[0]])], bert, layer=1)
    for (answer, [reference]), score in zip(pairs, found.scores, strict=False):
        assert score == pytest.approx(oracle(bert, answer, reference), abs=1e-5)
        if answer == reference:
            assert score == pytest.approx((1, 1, 1), abs=1e-6)
    by_pair = {(a, of[0]): score for (a, of), score in zip(pairs, found.scores, strict=False)}
    for (answer, reference), score in by_pair.items():
        swapped = by_pair[reference, answer]
        assert (score.precision, score.recall) == pytest.approx((swapped.recall, swapped.precision))
    assert [score.f1 for score in found.scores[-2:]] == [1, 0]
    assert found.signature.startswith(f"{bert.name}|layer:1|weights:")
    best = bertscore([(TEXTS[0], [TEXTS[2], TEXTS[1]])], bert, layer=1).scores[0]
    assert best.f1 == pytest.approx(max(by_pair[TEXTS[0], TEXTS[n]].f1 for n in (1, 2)), abs=1e-6)


def test_an_assertion_holds_answers_to_a_bertscore_and_a_group_may_have_it(bert: Path) -> None:
    same = {"kind": "bertscore", "model": bert.name, "layer": 1, "min": 99.9}
    demand = TypeAdapter[Assertion](Assertion)
    with Functions(bert.parent) as call:

        def state(assertion: dict[str, Any], answer: str, *references: str) -> str:
            return check(demand.validate_python(assertion), Subject(answer, references), call).state

        assert state(same, TEXTS[0], TEXTS[2], TEXTS[0]) == "passed"
        assert state(same, TEXTS[2], TEXTS[0]) == "failed"
        assert state({**same, "not": True}, TEXTS[2], TEXTS[0]) == "passed"
        assert state({"kind": "any", "of": [same]}, TEXTS[3], TEXTS[3]) == "passed"
        assert state(same, TEXTS[0]) == "error", "without a reference there is nothing to say"
        assert state({**same, "layer": 9}, TEXTS[0], TEXTS[0]) == "error"


def test_a_suite_whose_bertscore_has_no_model_is_refused_by_line(
    bert: Path, tmp_path: Path
) -> None:
    path = tmp_path / "s.yaml"
    for model, said in (("gone", "no file"), (str(bert), "which layer")):
        path.write_text(
            "name: s\ncases:\n- id: a\n  question: q\n  reference: r\n  assertions:\n"
            f"  - {{kind: bertscore, model: '{model}', min: 80}}\n",
            encoding="utf-8",
        )
        with pytest.raises(InputError, match=said) as caught:
            load_suite(path)
        assert "s.yaml:3" in str(caught.value)


def test_a_model_that_is_not_there_or_a_layer_that_it_has_not_is_told(
    bert: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="no model there"):
        bertscore([("a", ["b"])], tmp_path)
    with pytest.raises(InputError, match="which layer"):
        bertscore([("a", ["b"])], bert)
    with pytest.raises(InputError, match="layer 9 of a model with 2"):
        bertscore([("a", ["b"])], bert, layer=9)


def test_the_local_loss_is_the_models_own_on_the_text_alone(qwen: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    found = from_model(qwen, PASSAGES)
    assert not found.failed
    tokenizer = AutoTokenizer.from_pretrained(qwen)
    model = AutoModelForCausalLM.from_pretrained(qwen)
    for passage, loss in zip(PASSAGES, found.losses, strict=True):
        prompt = tokenizer.apply_chat_template(
            list(passage.prompt), tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
        before = tokenizer(prompt)["input_ids"]
        ids = before + tokenizer(passage.text)["input_ids"]
        labels = [-100] * len(before) + ids[len(before) :]
        with torch.no_grad():
            mean = model(torch.tensor([ids]), labels=torch.tensor([labels])).loss.item()
        assert loss.tokens == len(ids) - len(before)
        assert loss.nats == pytest.approx(mean * loss.tokens, rel=1e-5)
        assert loss.bytes == len(passage.text.encode())
