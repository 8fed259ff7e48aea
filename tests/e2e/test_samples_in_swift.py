"""ms-swift's own loader and template take every row that the gate gives of the bundled samples."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import support_data
from support_data import SPEC, CharacterJudge, read_rows
from support_e2e import ROOT
from support_loader import Asked, Loaded

from palmswift.data.row import Kind
from palmswift.data.sanitize import sanitize
from palmswift.files import write_json, write_text
from palmswift.recipes.recipe import DataSettings, EmbeddedModel

pytestmark = pytest.mark.e2e

SAMPLES = ROOT / "data" / "samples"
OFFLINE = {"MODELSCOPE_OFFLINE": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}

KINDS: list[Kind] = ["sft", "pt", "dpo", "kto", "grpo"]
OPEN, CLOSE = "<|im_start|>", "<|im_end|>\n"


def sources(folder: Path, kind: Kind) -> list[Path]:
    """Samples of the kind; texts and labels are made of the clinic's."""
    clinic = SAMPLES / "clinic"
    if kind == "sft":
        names = ("clinic/train.jsonl", "chitchat/dialogues.json", "bike_shop/train.csv")
        return [*(SAMPLES / name for name in names), clinic / "formats" / "messy.jsonl"]
    if kind == "dpo":
        return [clinic / "preference.jsonl"]
    if kind == "grpo":
        return [SAMPLES / "arithmetic" / "train.jsonl"]
    made = folder / ("texts.txt" if kind == "pt" else "labels.jsonl")
    pairs = read_rows(clinic / "preference.jsonl")
    if kind == "pt":
        write_text(made, "\n".join(row["chosen"] for row in pairs))
        return [made]
    labels = [
        {"prompt": row["prompt"], "completion": row[side], "label": spelling}
        for row in pairs
        for side, spelling in (("chosen", "是"), ("rejected", "否"))
    ]
    return [support_data.write_rows(made, labels)]


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> dict[Kind, Path]:
    """train.jsonl of each kind."""
    files: dict[Kind, Path] = {}
    with pytest.MonkeyPatch.context() as patch:
        # Whether the rows are short enough is asked of ms-swift below.
        patch.setattr("palmswift.data.gate.TemplateJudge", CharacterJudge)
        patch.setattr("support_data.MAX_LENGTH", 10_000)
        for kind in KINDS:
            folder = tmp_path_factory.mktemp(kind)
            out, log = folder / "out", folder / "log"
            told, given = DataSettings(val_ratio=0), sources(folder, kind)
            report = sanitize(given, [], out, settings=told, template=SPEC, log=log, kind=kind)
            files[kind] = out / "train.jsonl"
            assert report.train_rows == len(read_rows(files[kind])) == report.kept
    return files


@pytest.fixture(scope="module")
def loaded(clean: dict[Kind, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[Kind, Loaded]:
    """What ms-swift makes of them, asked in one process because its import takes so long."""
    folder = tmp_path_factory.mktemp("model")
    corpus = SAMPLES / "clinic" / "train.jsonl"
    spec = EmbeddedModel(vocab_size=800, hidden_size=64, corpus=[str(corpus)])
    write_text(folder / "embedded.json", spec.model_dump_json())
    make = [sys.executable, "-m", "palmswift.hub.embedded"]
    subprocess.run([*make, folder / "embedded.json", folder], check=True, capture_output=True)
    arguments = {"model": str(folder), "model_type": "qwen3", "template": "qwen3"}
    requests = [Asked(str(path), kind, arguments) for kind, path in clean.items()]
    write_json(folder / "requests.json", requests)
    program = ROOT / "tests" / "support_loader.py"
    answered = subprocess.run(
        [sys.executable, program, folder / "requests.json"],
        capture_output=True,
        text=True,
        env={**os.environ, **OFFLINE},
    )
    assert answered.returncode == 0, answered.stderr
    answers = json.loads(answered.stdout.splitlines()[-1])
    return {kind: Loaded(*answer) for kind, answer in zip(clean, answers, strict=True)}


@pytest.mark.parametrize("kind", KINDS)
def test_every_row_is_loaded_and_encoded(
    clean: dict[Kind, Path], loaded: dict[Kind, Loaded], kind: Kind
) -> None:
    rows = len(read_rows(clean[kind]))
    assert rows >= 50
    assert (loaded[kind].rows, loaded[kind].encoded) == (rows, rows)


def test_a_dialogue_trains_its_answers_and_the_ends_of_them(
    clean: dict[Kind, Path], loaded: dict[Kind, Loaded]
) -> None:
    for row, (text,), (trained,) in zip(
        read_rows(clean["sft"])[:2], loaded["sft"].texts, loaded["sft"].trained, strict=True
    ):
        system, question, answer = (message["content"] for message in row["messages"])
        assert text == (
            f"{OPEN}system\n{system}{CLOSE}{OPEN}user\n{question}{CLOSE}"
            f"{OPEN}assistant\n<think>\n\n</think>\n\n{answer}{CLOSE}"
        )
        assert trained == f"{answer}{CLOSE}"


def test_a_text_trains_whole_but_for_its_first_token_which_follows_nothing(
    clean: dict[Kind, Path], loaded: dict[Kind, Loaded]
) -> None:
    for row, (text,), (trained,) in zip(
        read_rows(clean["pt"])[:2], loaded["pt"].texts, loaded["pt"].trained, strict=True
    ):
        assert text == f"{row['messages'][0]['content']}<|im_end|>"
        first = text.removesuffix(trained)
        # The tokenizer's longest token has six bytes, which are two characters of Chinese.
        assert 1 <= len(first) <= 2


def test_a_pair_trains_both_answers_to_one_question(
    clean: dict[Kind, Path], loaded: dict[Kind, Loaded]
) -> None:
    row, (chosen, rejected) = read_rows(clean["dpo"])[0], loaded["dpo"].texts[0]
    answers = (row["messages"][-1]["content"], row["rejected_response"])
    assert chosen.endswith(f"{answers[0]}{CLOSE}") and rejected.endswith(f"{answers[1]}{CLOSE}")
    assert chosen.removesuffix(f"{answers[0]}{CLOSE}") == rejected.removesuffix(
        f"{answers[1]}{CLOSE}"
    )


def test_labels_and_solutions_reach_the_trainer(loaded: dict[Kind, Loaded]) -> None:
    assert "label" in loaded["kto"].columns
    assert "solution" in loaded["grpo"].columns
    assert loaded["grpo"].texts[0][0].endswith(f"{OPEN}assistant\n<think>\n\n</think>\n\n")
