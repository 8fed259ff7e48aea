"""A script becomes a recipe that renders back to the same command."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from palmswift.errors import InputError
from palmswift.launchers.arguments import serving_arguments
from palmswift.launchers.standalone import standalone
from palmswift.recipes.catalogue import Flag, load_catalogue
from palmswift.recipes.check import EXPLICIT, OWNED
from palmswift.recipes.from_script import Imported, recipe_of
from palmswift.recipes.recipe import Recipe, flag_words
from palmswift.recipes.swift_script import SwiftCall, read_calls

SCRIPTS = sorted((Path(__file__).parents[2] / "data" / "swift_scripts").glob("*.sh"))
TRAININGS = [path for path in SCRIPTS if "only" not in path.stem]

OURS = {"output_dir", "add_version", "logging_nan_inf_filter", "use_hf", "external_plugins"}
OURS |= {"swanlab_exp_name"}
"""What palmswift gives to every training, beside what a recipe has to say."""


def _calls(text: str, **variables: str) -> list[SwiftCall]:
    return read_calls(text, "a.sh", variables)


def _imported(text: str, **variables: str) -> Imported:
    return recipe_of(_calls(text, **variables), "a.sh", "a")


def _recipe(text: str) -> Recipe:
    return Recipe.model_validate(_imported(text).values)


def _problems(text: str, **variables: str) -> list[str]:
    with pytest.raises(InputError) as caught:
        _imported(text, **variables)
    return [f"{problem.where} {problem.what}" for problem in caught.value.problems]


def _told(imported: Imported) -> str:
    return "\n".join(f"{note.where}: {note.what} {note.remedy}" for note in imported.notes)


@pytest.mark.parametrize("path", TRAININGS, ids=lambda path: path.stem)
def test_a_training_script_renders_back_to_its_command(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    original = next(call for call in _calls(text) if call.command in ("sft", "pt", "rlhf"))
    imported = _imported(text)
    (rendered,) = _calls(standalone(Recipe.model_validate(imported.values), "sh").text)
    assert rendered.command == original.command

    told = _told(imported)
    lost = {name for name in original.arguments if f"--{name} is left out" in told}
    assert lost <= {"output_dir"}
    if "data set of a hub" in told:
        lost.add("dataset")
    plugins = original.arguments.pop("custom_register_path", None)
    for name, value in original.arguments.items():
        if name not in lost:
            assert rendered.arguments[name] == value, name
    added = set(rendered.arguments) - set(original.arguments) - OURS
    several = {"gradient_accumulation_steps"} if "NPROC_PER_NODE" in original.env else set()
    assert added <= {*EXPLICIT, "rlhf_type", "dataset", *several}
    loaded = rendered.arguments.get("external_plugins", [])
    assert isinstance(loaded, list)
    others = [name for name in loaded if Path(str(name)).stem != "one_training"]
    assert (plugins is None) == (others == [])

    kept = {name for name in original.env if f"{name} is left out" not in told}
    kept -= {"NPROC_PER_NODE"} if original.env.get("NPROC_PER_NODE") == "1" else set()
    assert kept <= set(rendered.env)
    assert all(rendered.env[name] == original.env[name] for name in kept)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_every_script_becomes_a_recipe_without_its_secrets(path: Path) -> None:
    imported = _imported(path.read_text(encoding="utf-8"))
    recipe = Recipe.model_validate(imported.values)
    assert "API_KEY" not in recipe.env
    assert "secret" not in json.dumps(imported.values)


def test_a_deployment_keeps_its_arguments() -> None:
    path = next(path for path in SCRIPTS if path.stem == "deploy_only")
    text = path.read_text(encoding="utf-8")
    (call,) = _calls(text)
    recipe = _recipe(text)
    assert (recipe.deploy.backend, recipe.deploy.port) == ("vllm", 8000)
    assert recipe.deploy.served_name == "qwen"
    assert recipe.model.id == "Qwen/Qwen3-8B"
    kept = {n: v for n, v in call.arguments.items() if n not in OWNED["deploy.swift"]}
    kept["enable_thinking"] = False
    assert serving_arguments(recipe) == kept


def test_what_follows_a_training_says_how_its_result_is_merged_and_served() -> None:
    path = next(path for path in SCRIPTS if path.stem == "several_commands")
    imported = _imported(path.read_text(encoding="utf-8"))
    recipe = Recipe.model_validate(imported.values)
    assert recipe.export.merge is True
    assert recipe.deploy.backend == "transformers"
    assert recipe.deploy.port == 9000
    assert recipe.deploy.swift == {"max_batch_size": 16}
    assert "`swift infer` is not part of a recipe" in _told(imported)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("--train_type lora", {"tuner_type": "lora"}),
        ("--sft_type full", {"tuner_type": "full"}),
        ("--dtype bf16", {"torch_dtype": "bfloat16"}),
        ("--use_flash_attn true", {"attn_impl": "flash_attn"}),
        ("--batch_size 4", {"per_device_train_batch_size": 4}),
        ("--metric acc", {"eval_metric": "acc"}),
        ("--lora-rank 4", {"lora_rank": 4}),
        ("--lora_rank=4", {"lora_rank": 4}),
        ("--gradient_checkpointing", {"gradient_checkpointing": True}),
        ("--no_gradient_checkpointing", {"gradient_checkpointing": False}),
        ("--max_grad 0.5", {"max_grad_norm": 0.5}),
        ("--optim adamw_8bit", {"optim": "adamw_8bit"}),
        ("--target_modules q_proj v_proj", {"target_modules": ["q_proj", "v_proj"]}),
        ("--lr_scheduler_kwargs '{\"min_lr\": 1e-6}'", {"lr_scheduler_kwargs": {"min_lr": 1e-6}}),
    ],
)
def test_each_way_to_write_an_argument_is_read(old: str, new: dict[str, Any]) -> None:
    recipe = _recipe(f"swift sft --model Qwen/Qwen3-8B --dataset a.jsonl {old}")
    assert recipe.swift.items() >= new.items()


@pytest.mark.parametrize(
    ("old", "launch"),
    [
        ("--deepspeed default-zero3", {"strategy": "zero3"}),
        ("--deepspeed zero2_offload", {"strategy": "zero2_offload"}),
        ("--deepspeed ds.json", {"strategy": "zero2", "strategy_file": "ds.json"}),
        ("--fsdp fsdp2", {"strategy": "fsdp2"}),
    ],
)
def test_what_splits_the_weights_becomes_the_launchs_strategy(
    old: str, launch: dict[str, str]
) -> None:
    imported = _imported(f"swift sft --model Qwen/Qwen3-8B --dataset a.jsonl {old}")
    assert imported.values["launch"] == launch
    assert ("is taken for ds.json" in _told(imported)) == ("strategy_file" in launch)


@pytest.mark.parametrize(("given", "kept"), [("--gradient_accumulation_steps 4", 8), ("", 16)])
def test_the_accumulation_of_each_process_becomes_that_of_all(given: str, kept: int) -> None:
    text = f"NPROC_PER_NODE=2 swift sft --model Qwen/Qwen3-8B --dataset a.jsonl {given}"
    recipe = _recipe(text)
    assert recipe.launch.processes == 2
    assert recipe.swift["gradient_accumulation_steps"] == kept


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("swift sft --model $M --dataset a.jsonl", "a.sh:1 --model: only a running shell knows $M"),
        ("swift sft --model a --lora_rank $(nproc)", "knows $(nproc)"),
        ("swift sft --model a --lora_rnk 8", "--lora_rnk is not an argument"),
        ("swift sft --model a --lora_rank", "--lora_rank has no value"),
        ("swift sft --model a --lora_rank 8 9", "--lora_rank has 2 values"),
        ("swift sft --dataset a.jsonl", "no --model is given"),
        ("swift sft a b --model c", "'a' stands before any argument"),
        ("swift sft --model a \\\n # why\n --seed 1", "a.sh:3 --seed is cut off"),
        ("swift sft --model a \\ \n --seed 1", "a backslash with a blank behind it"),
        ("swift rlhf --rlhf_type ppo --model a", "ppo is no task of a recipe"),
        ("swift sft --model a\nswift sft 'b", "cannot be read: ' is missing"),
    ],
)
def test_what_cannot_be_imported_is_told_with_its_line(text: str, said: str) -> None:
    assert any(said in problem for problem in _problems(text)), _problems(text)


def test_all_problems_of_a_script_are_told_at_once() -> None:
    text = "swift sft --model $M \\\n --lora_rnk 8 \\\n --seed $(date) \\\n --template"
    assert len(_problems(text)) == 4


def test_a_variable_from_outside_can_be_given() -> None:
    text = "swift sft --model $M --dataset a.jsonl --max_length 8"
    assert _imported(text, M="Qwen/Qwen3-8B").values["model"]["id"] == "Qwen/Qwen3-8B"


@pytest.mark.parametrize("text", ["", "echo swift", "swift web-ui", "megatron sft --load x", "'"])
def test_a_script_without_a_command_that_a_recipe_knows_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        _imported(text)


def test_what_ms_swift_would_decide_is_said_and_told() -> None:
    imported = _imported("swift sft --model Qwen/Qwen3-8B --dataset a.jsonl")
    swift = imported.values["swift"]
    assert set(swift) == set(EXPLICIT)
    assert (swift["max_length"], swift["loss_scale"]) == (40960, "default+ignore_empty_think")
    note = next(note for note in imported.notes if "said in full" in note.what)
    assert all(name in note.what for name in set(EXPLICIT) - {"split_dataset_ratio"})


def test_a_length_that_is_not_known_is_left_to_be_said() -> None:
    imported = _imported("swift sft --model some/other --dataset a.jsonl")
    assert "max_length" not in imported.values["swift"]
    assert "max_length is not in the script" in _told(imported)


def test_secrets_are_left_to_the_shell_and_all_else_is_kept() -> None:
    text = "HF_TOKEN=a WANDB_API_KEY=b AWS_SECRET_ACCESS_KEY=c IMAGE_MAX_TOKEN_NUM=9 "
    recipe = _recipe(f"{text} PATH=$PATH:/x swift sft --model a --max_length 8")
    assert recipe.env == {"IMAGE_MAX_TOKEN_NUM": "9"}


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("swift sft --model Q/M", "modelscope"),
        ("swift sft --model Q/M --use_hf true", "huggingface"),
        ("USE_HF=1 swift sft --model Q/M", "huggingface"),
        ("swift sft --model ./here", "local"),
        ("swift sft --model /models/m", "local"),
    ],
)
def test_the_model_comes_from_where_the_script_takes_it(text: str, source: str) -> None:
    assert _recipe(text).model.source == source


_TEXT = st.text(
    st.characters(exclude_characters="\0\r", exclude_categories=["Cs", "Cc"]),
    min_size=1,
    max_size=8,
).filter(lambda text: text.strip() == text and not text.startswith("-"))


def _values(flag: Flag) -> st.SearchStrategy[Any]:
    word: st.SearchStrategy[Any] = {
        "bool": st.booleans(),
        "int": st.integers(-99, 99),
        "float": st.floats(-1e3, 1e3, allow_subnormal=False) | st.integers(0, 9),
        "str": _TEXT,
        "choice": st.sampled_from(flag.choices or [""]),
        "json": st.dictionaries(_TEXT, st.integers(0, 9) | _TEXT, max_size=2),
    }[flag.kind]
    return st.lists(word, min_size=1, max_size=3) if flag.many else word


_FLAGS = {
    name: flag
    for name, flag in load_catalogue().flags("sft").items()
    if name not in OWNED["swift"] and name != "split_dataset_ratio"
}


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_arguments_of_a_script_come_back_from_its_recipe(data: st.DataObject) -> None:
    names = data.draw(st.lists(st.sampled_from(sorted(_FLAGS)), unique=True, max_size=12))
    arguments = {name: data.draw(_values(_FLAGS[name]), label=name) for name in names}
    joint = data.draw(st.sampled_from([" ", " \\\n    ", "  \\\n"]))
    text = "swift sft --model Qwen/Qwen3-8B"
    for name, value in arguments.items():
        text += f"{joint}--{name} " + " ".join(map(shlex.quote, flag_words(value)))
    (rendered,) = _calls(standalone(_recipe(text), "sh").text)
    (original,) = _calls(text)
    for name in arguments:
        assert rendered.arguments[name] == original.arguments[name]
