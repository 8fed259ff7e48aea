from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support_recipes import WHOLE, problem_about, problems_of, write_recipe

from palmswift.errors import InputError
from palmswift.recipes import catalogue
from palmswift.recipes.check import EXPLICIT, OWNED
from palmswift.recipes.load import load_checked
from palmswift.recipes.source import recipe_names, recipes_dir
from palmswift.recipes.yaml_text import dump, parse


def test_all_problems_are_told_at_once_each_with_its_line(tmp_path: Path) -> None:
    text = WHOLE.replace("lora_rank: 16", "lora_rnk: 16\n  optim: adam\n  output_dir: x")
    text = text.replace("gpu_mib: 8188", "gpu_mib: -1\n  colour: red").replace("seed: 42\n", "\n")
    path = write_recipe(tmp_path, text)
    lines = {problem.what.split()[0].rstrip(":"): problem.where for problem in problems_of(path)}
    assert lines == {
        "swift.lora_rnk": f"{path}:14",
        "swift.optim": f"{path}:15",
        "swift.output_dir": f"{path}:16",
        "budget.gpu_mib": f"{path}:18",
        "budget.colour": f"{path}:19",
        "swift.seed": f"{path}:5",
    }


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("train_type: lora", "tuner_type"),
        ("sft_type: lora", "tuner_type"),
        ("model_id_or_path: x", "model"),
        ("quantization_bit: 4", "quant_bits"),
        ("metric: acc", "eval_metric"),
        ("lora_rnk: 8", "lora_rank"),
        ("lora-rank: 8", "lora_rank"),
        ("--lora_rank: 8", "lora_rank"),
    ],
)
def test_an_old_or_misspelt_argument_is_answered_with_its_name(
    tmp_path: Path, name: str, remedy: str
) -> None:
    path = write_recipe(tmp_path, WHOLE.replace("lora_rank: 16", name))
    key = name.partition(":")[0]
    assert remedy in problem_about(f"swift.{key}", problems_of(path)).remedy


@pytest.mark.parametrize(
    ("setting", "word"),
    [
        ("lora_rank: '8'", "whole number"),
        ("lora_rank: 8.5", "whole number"),
        ("lora_rank: true", "whole number"),
        ("lora_rank: [8]", "one value"),
        ("lora_alpha: .nan", "a number"),
        ("lora_rank: -1", "above 0"),
        ("learning_rate: 0", "above 0"),
        ("gradient_checkpointing: no", "true or false"),
        ("gradient_checkpointing: 1", "true or false"),
        ("quant_bits: 5", "none of 1, 2, 3, 4, 8, float8"),
        ("optim: adam", "nearest"),
        ("lora_dtype: bf16", "old name"),
        ("target_modules: []", "empty"),
        ("model_type: 1.10", "quotes"),
        ("lora_rank: ", "no value"),
        ("lora_rank: [1, a]", "none of"),
    ],
)
def test_a_wrong_value_is_told_once_with_what_is_wanted(
    tmp_path: Path, setting: str, word: str
) -> None:
    key = setting.partition(":")[0]
    path = write_recipe(tmp_path, WHOLE.replace("lora_rank: 16", setting))
    assert word in problem_about(f"swift.{key}", problems_of(path)).what


def test_swift_may_not_split_the_rows_a_second_time(tmp_path: Path) -> None:
    path = write_recipe(
        tmp_path, WHOLE.replace("split_dataset_ratio: 0", "split_dataset_ratio: 0.01")
    )
    problem = problem_about("swift.split_dataset_ratio", problems_of(path))
    assert "data.val_ratio" in problem.remedy


@pytest.mark.parametrize(
    "setting",
    [
        "quant_bits: '4'\n  quant_method: bnb",
        "learning_rate: 1e-4",
        "learning_rate: 1",
        "target_modules: all-linear",
        "target_modules: [q_proj, v_proj]",
        "report_to: [tensorboard]",
        "lr_scheduler_kwargs: {min_lr: 1e-6}",
        "save_strategy: no",
    ],
)
def test_what_swift_takes_is_taken(tmp_path: Path, setting: str) -> None:
    load_checked(write_recipe(tmp_path, WHOLE.replace("lora_rank: 16", setting)))


@pytest.mark.parametrize("name", sorted(OWNED["swift"]))
def test_an_argument_that_palmswift_sets_is_refused_with_what_to_write(
    tmp_path: Path, name: str
) -> None:
    path = write_recipe(tmp_path, WHOLE.replace("lora_rank: 16", f"{name}: x"))
    problem = problem_about(f"swift.{name} is set by palmswift", problems_of(path))
    assert problem.remedy == OWNED["swift"][name]


def test_arguments_of_the_server_are_checked_against_deploy(tmp_path: Path) -> None:
    text = WHOLE + "deploy:\n  swift:\n    lora_rank: 8\n    port: 1\n    max_batch_size: 4\n"
    problems = problems_of(write_recipe(tmp_path, text))
    assert "swift deploy" in problem_about("deploy.swift.lora_rank", problems).what
    assert "deploy.port" in problem_about("deploy.swift.port", problems).remedy
    assert len(problems) == 2


@pytest.mark.parametrize("name", sorted(EXPLICIT))
def test_a_default_that_changed_between_versions_must_be_said(tmp_path: Path, name: str) -> None:
    text = "".join(line for line in WHOLE.splitlines(keepends=True) if f" {name}:" not in line)
    assert problem_about(f"swift.{name}", problems_of(write_recipe(tmp_path, text))).remedy


def test_an_older_ms_swift_is_answered_in_its_own_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "installed_version", lambda: "3.12.6")
    path = write_recipe(tmp_path, WHOLE.replace("lora_rank: 16", "tuner_type: lora"))
    problem = problem_about("swift.tuner_type is not an argument", problems_of(path))
    assert "ms-swift 3.12.6" in problem.what
    assert "calls it train_type" in problem.remedy
    load_checked(write_recipe(tmp_path, WHOLE.replace("lora_rank: 16", "train_type: lora")))


def test_a_task_is_checked_against_its_own_command(tmp_path: Path) -> None:
    text = WHOLE.replace("lora_rank: 16", "beta: 0.1")
    assert problem_about("swift.beta", problems_of(write_recipe(tmp_path, text)))
    load_checked(write_recipe(tmp_path, text + "task: dpo\n"))


def test_a_model_of_a_recipe_that_is_not_there_is_told(tmp_path: Path) -> None:
    text = WHOLE.replace("id: Qwen/Qwen3-8B", "id: demo_front_dsk\n  source: recipe")
    problem = problem_about("model.id", problems_of(write_recipe(tmp_path, text)))
    assert "demo_front_desk" in problem.remedy


@pytest.mark.parametrize("name", ["../x", "a b", "", "-x", "a/b"])
def test_a_name_that_makes_no_folder_is_refused(tmp_path: Path, name: str) -> None:
    path = write_recipe(tmp_path, WHOLE.replace("name: mine", f"name: '{name}'"))
    assert problem_about("name", problems_of(path))


_SOURCES = {
    path: path.read_text(encoding="utf-8")
    for path in (recipes_dir() / f"{name}.yaml" for name in recipe_names())
}


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_no_edit_of_a_recipes_text_gives_a_traceback(tmp_path: Path, data: st.DataObject) -> None:
    text = data.draw(st.sampled_from(sorted(_SOURCES.values())))
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 30)))
    new = data.draw(
        st.text(max_size=10) | st.sampled_from(["\n", ": ", "- ", "{", "&a ", "*a", "!!"])
    )
    path = write_recipe(tmp_path, text[:start] + new + text[end:])
    try:
        load_checked(path)
    except InputError as error:
        assert str(error)


_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.integers() | st.text(max_size=3), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_no_value_of_any_key_gives_a_traceback(tmp_path: Path, data: st.DataObject) -> None:
    document = parse(data.draw(st.sampled_from(sorted(_SOURCES.values()))), "file").value
    keys = sorted(parse(dump(document), "file").lines)
    *parents, last = data.draw(st.sampled_from(keys))
    target = document
    for parent in parents:
        target = target[parent]
    target[last] = data.draw(_VALUES)
    try:
        load_checked(write_recipe(tmp_path, dump(document)))
    except InputError as error:
        assert str(error)


@settings(max_examples=40, deadline=None)
@given(
    st.text(max_size=20) | st.from_regex(r"(swift|model|data)\.[a-z_.]{0,9}=.{0,8}", fullmatch=True)
)
def test_no_override_gives_a_traceback(override: str) -> None:
    try:
        load_checked("demo_cpu", [override])
    except InputError as error:
        assert str(error)
