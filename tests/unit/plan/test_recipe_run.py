from __future__ import annotations

import json
from pathlib import Path

import pytest

from palmswift.plan.memory import Evaluation, TrainingRun, predict
from palmswift.plan.recipe_run import Unpredicted, shape_of_model, training_run
from palmswift.plan.shapes import QWEN3, shape_of
from palmswift.recipes.load import load_checked, load_recipe

CONFIG = {
    "model_type": "qwen3", "hidden_size": 4096, "num_hidden_layers": 36,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
    "intermediate_size": 12288, "vocab_size": 151936, "tie_word_embeddings": False,
}  # fmt: skip


def test_a_recipe_is_read_as_it_will_be_trained() -> None:
    run = training_run(load_checked("qwen3_8b_4bit").recipe)
    assert run == TrainingRun(
        QWEN3["8B"],
        16,
        1024,
        optimizer="adamw_8bit",
        liger=True,
        dropout=0.0,
        accumulation=16,
        evaluation=Evaluation(),
    )


@pytest.mark.parametrize(
    ("override", "word"),
    [
        ("task=kto", "kto"),
        ("task=grpo", "grpo"),
        ("swift.tuner_type=adalora", "adalora"),
        ("swift.quant_bits=3", "4 or 8 bits"),
        ("swift.quant_method=hqq", "bnb"),
        ("swift.torch_dtype=float32", "16-bit"),
        ("swift.predict_with_generate=true", "predict_with_generate"),
        ("swift.packing=true", "packing"),
        ("plugins=[mine.py]", "mine.py"),
        ("swift.gradient_checkpointing=false", "checkpointing"),
        ("swift.optim=lomo", "lomo"),
        ("swift.target_modules=[lm_head]", "target_modules"),
        ("swift.use_dora=true", "use_dora"),
        ("swift.attn_impl=eager", "eager"),
        ("swift.tuner_backend=unsloth", "unsloth"),
        ("swift.sequence_parallel_size=2", "sequence_parallel_size"),
        ("swift.torch_compile=true", "torch_compile"),
        ("model.id=Qwen/Qwen3-30B-A3B", "30B-A3B"),
        ("launch.processes=2", "one process"),
    ],
)
def test_what_the_model_does_not_follow_is_said_and_not_guessed(override: str, word: str) -> None:
    run = training_run(load_recipe("qwen3_8b_4bit", [override]).recipe)
    assert isinstance(run, Unpredicted)
    assert word in run.reason


@pytest.mark.parametrize(
    ("model", "size"),
    [
        ("Qwen/Qwen3-8B", "8B"),
        ("qwen/qwen3-0.6b-base", "0.6B"),
        ("Qwen/Qwen3-4B-Instruct-2507", "4B"),
        ("/models/Qwen3-1.7B", "1.7B"),
    ],
)
def test_a_dense_qwen3_is_known_by_its_name(model: str, size: str) -> None:
    shape = shape_of(model)
    assert shape is not None
    assert shape._replace(positions=40960) == QWEN3[size]


def test_a_model_of_july_2025_takes_longer_contexts() -> None:
    shape = shape_of("Qwen/Qwen3-4B-Instruct-2507")
    assert shape is not None
    assert shape.positions == 262144


@pytest.mark.parametrize("model", ["Qwen/Qwen3-30B-A3B", "Qwen/Qwen2.5-7B", "Qwen/Qwen3-9B", ""])
def test_any_other_name_is_not(model: str) -> None:
    assert shape_of(model) is None


def test_a_folder_is_known_by_its_config(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    assert shape_of(str(tmp_path)) == QWEN3["8B"]


@pytest.mark.parametrize(
    ("variable", "folder"),
    [
        ("MODELSCOPE_CACHE", "models/me/Tuned-1___7B"),
        ("HF_HUB_CACHE", "models--me--Tuned-1.7B/snapshots/0123"),
    ],
)
def test_a_model_that_was_fetched_already_is_known_by_its_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, folder: str
) -> None:
    monkeypatch.setenv(variable, str(tmp_path))
    assert shape_of("me/Tuned-1.7B") is None
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    assert shape_of("me/Tuned-1.7B") == QWEN3["8B"]


def test_a_model_made_on_the_spot_has_the_shape_that_its_recipe_says() -> None:
    model = load_recipe("demo_cpu").recipe.model
    shape = shape_of_model(model)
    assert shape is not None
    assert (shape.hidden, shape.intermediate, shape.tied) == (256, 640, True)


def test_levers_full_tuning_and_batches_are_read() -> None:
    plugins = "plugins=[embedding_on_cpu, checkpoint_offload, tiled_mlp, memory_log]"
    recipe = load_recipe(
        "qwen3_8b_4bit",
        [plugins, "env.PALMSWIFT_TILED_MLP_TOKENS='512'", "swift.per_device_train_batch_size=2"],
    ).recipe
    run = training_run(recipe)
    assert isinstance(run, TrainingRun)
    assert (run.embedding_on_cpu, run.checkpoint_offload, run.tiled_mlp) == (True, True, 512)
    assert (run.batch, run.tokens, run.full) == (2, 2048, False)
    full = load_recipe("qwen3_0_6b_lora", ["swift.tuner_type=full", "swift.quant_bits=null"])
    tuned = training_run(full.recipe)
    assert isinstance(tuned, TrainingRun)
    assert (tuned.full, tuned.rank, tuned.quantized) == (True, 0, False)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"model_type": "qwen3"}', '{"model_type": "llama"}']
)
def test_a_folder_with_another_config_is_not(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    assert shape_of(str(tmp_path)) is None


def test_a_pair_of_answers_is_a_batch_of_two_with_both_models_logits() -> None:
    dpo = training_run(load_recipe("qwen3_8b_4bit", ["task=dpo"]).recipe)
    sft = training_run(load_recipe("qwen3_8b_4bit").recipe)
    assert isinstance(dpo, TrainingRun)
    assert isinstance(sft, TrainingRun)
    assert (dpo.batch, dpo.preference, dpo.tokens) == (2, True, 2048)
    assert dpo.bound
    assert not sft.bound
    logits = 16 * 2048 * 151936
    assert predict(dpo).bytes > logits
    assert predict(sft).bytes < predict(dpo).bytes - logits // 2


def test_logits_of_all_tokens_are_counted_where_they_are_all_kept() -> None:
    recipe = load_recipe("qwen3_8b_4bit", ["swift.use_logits_to_keep=false"]).recipe
    run = training_run(recipe, supervised=10)
    assert isinstance(run, TrainingRun)
    assert run.kept == 1024


def test_an_embedding_that_is_the_head_too_cannot_be_kept_off_the_card() -> None:
    run = training_run(load_recipe("qwen3_4b_4bit", ["plugins=[embedding_on_cpu]"]).recipe)
    assert isinstance(run, Unpredicted)
    assert "embedding_on_cpu" in run.reason
