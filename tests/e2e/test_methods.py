"""Each way of training learns what it is for: seen in what the model holds likely, and in words.

The real ms-swift trains small models through `launchers/train.py`; one import of it serves all
(support_forks.py).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import pytest
from support_e2e import Finished, Workshop
from support_scores import Asked, Scored, Scores, chat, scores

from palmswift.deploy.spec import spec_of_run
from palmswift.launchers.run_folder import RunFolder

pytestmark = pytest.mark.e2e

CLINIC = "data/samples/clinic/preference.jsonl"
PREFERENCE = ["dpo", "orpo", "simpo", "kto"]

PLAIN_REWARD = """
from swift.rewards import ORM, orms


class Plain(ORM):
    def __call__(self, completions, solution, **columns):
        assert all(right.isdigit() for right in solution)
        return [float(text.startswith("答案是")) for text in completions]


orms["plain"] = Plain
"""

BROKEN_REWARD = """
from swift.rewards import ORM, orms


class Broken(ORM):
    def __call__(self, completions, **columns):
        raise KeyError("no column is called `answers`")


orms["broken"] = Broken
"""


class Bench:
    """Trainings in one working folder, each done once, and models that are asked."""

    def __init__(self, workshop: Workshop, warm: dict[str, str], asking: Scores) -> None:
        self.workshop = workshop
        self._warm = warm
        self._asking = asking
        self._trained: dict[tuple[str, ...], RunFolder] = {}

    def train(self, recipe: str, *changes: str) -> Finished:
        """`launchers/train.py --recipe RECIPE --set CHANGE ...`, to its end."""
        words = [word for change in changes for word in ("--set", change)]
        return self.workshop.call(
            *("python", "launchers/train.py", "--recipe", recipe, *words),
            env=self._warm,
        )

    def run(self, recipe: str, *changes: str) -> RunFolder:
        """The run of a training that has ended well."""
        key = (recipe, *changes)
        if key not in self._trained:
            finished = self.train(recipe, *changes)
            assert finished.exit_code == 0, finished.said
            assert finished.left == []
            self._trained[key] = self.workshop.run_of(recipe)
        return self._trained[key]

    def ask(self, model: str | Path, adapter: Path | None, asked: list[Asked]) -> list[Scored]:
        """What a model, with an adapter or without, thinks of each."""
        return self._asking.ask(str(model), adapter, asked)

    def ask_run(self, run: RunFolder, asked: list[Asked]) -> list[Scored]:
        """What the model of a run thinks."""
        spec = spec_of_run(run)
        return self.ask(spec.model, spec.adapter, asked)

    def ask_base(self, run: RunFolder, asked: list[Asked]) -> list[Scored]:
        """What the model that the run began with thinks."""
        return self.ask(str(run.facts("model")["model"]), None, asked)


@pytest.fixture(scope="module")
def bench(
    tmp_path_factory: pytest.TempPathFactory, shared_models: Path, warm: dict[str, str]
) -> Iterator[Bench]:
    """A working folder of its own, ms-swift imported, and a process that scores."""
    folder = tmp_path_factory.mktemp("methods")
    workshop = Workshop(folder / "workshop", shared_models)
    with scores(folder / "scores.log") as asking:
        yield Bench(workshop, warm, asking)


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def log_of(run: RunFolder, key: str) -> list[float]:
    """A number of ms-swift's own log, at each step that has it."""
    rows = rows_of(run.training / "logging.jsonl")
    return [float(row[key]) for row in rows if key in row and "step" not in row]


class Pairs(NamedTuple):
    """Questions with a good and a bad answer: those that were trained on, and the others."""

    trained: list[Asked]
    held_out: list[Asked]
    good: dict[str, str]
    """Prompt to good answer."""
    bad: dict[str, str]


def pairs_of(bench: Bench, run: RunFolder) -> Pairs:
    """The clinic's pairs as the run has split them."""
    held = {row["messages"][1]["content"] for row in rows_of(run.data / "val.jsonl")}
    pairs = Pairs([], [], {}, {})
    for row in rows_of(bench.workshop.folder / CLINIC):
        asked = Asked(chat(row["prompt"], row["system"]), [row["chosen"], row["rejected"]])
        (pairs.held_out if row["prompt"] in held else pairs.trained).append(asked)
        pairs.good[asked.prompt], pairs.bad[asked.prompt] = asked.answers
    assert len(pairs.held_out) >= 8 and len(pairs.trained) >= 40
    return pairs


def margins(scored: list[Scored]) -> list[float]:
    """By how much the good answer is likelier than the bad one (logarithms)."""
    return [one.logps[0] - one.logps[1] for one in scored]


def share(asked: list[Asked], scored: list[Scored], answers: dict[str, str]) -> float:
    """The share of questions to which the model writes this answer by itself."""
    return mean(one.greedy == answers[a.prompt] for a, one in zip(asked, scored, strict=True))


def assert_preference_turned(bench: Bench, run: RunFolder) -> None:
    """The base prefers and gives the bad answers, the trained model the good ones; of questions
    that were held out most good ones have become likelier beside the bad, which are not given."""
    pairs = pairs_of(bench, run)
    before, after = bench.ask_base(run, pairs.trained), bench.ask_run(run, pairs.trained)
    assert mean(margin > 0 for margin in margins(before)) <= 0.25
    assert mean(margin > 0 for margin in margins(after)) >= 0.75
    assert share(pairs.trained, before, pairs.bad) >= 0.75
    assert share(pairs.trained, after, pairs.bad) <= 0.15
    assert share(pairs.trained, after, pairs.good) >= 0.3
    base, tuned = bench.ask_base(run, pairs.held_out), bench.ask_run(run, pairs.held_out)
    gained = [new - old for new, old in zip(margins(tuned), margins(base), strict=True)]
    assert mean(gained) >= 0.75
    assert mean(gain > 0 for gain in gained) >= 0.6
    assert share(pairs.held_out, base, pairs.bad) >= 0.75
    assert share(pairs.held_out, tuned, pairs.bad) <= 0.4


@pytest.mark.parametrize("task", PREFERENCE)
def test_a_preference_turns_and_moves_questions_that_were_held_out_too(
    bench: Bench, task: str
) -> None:
    changes = ["export.merge=true"] if task == "dpo" else []
    assert_preference_turned(bench, bench.run(f"demo_cpu_{task}", *changes))


def test_the_held_out_margin_in_ms_swifts_own_log_grows(bench: Bench) -> None:
    found = log_of(bench.run("demo_cpu_dpo", "export.merge=true"), "eval_rewards/margins")
    assert len(found) >= 3
    assert found[-1] > found[0] > 0


def test_the_preference_demos_stand_on_one_base_that_was_trained_once(bench: Bench) -> None:
    runs = [
        bench.run(f"demo_cpu_{task}", *(["export.merge=true"] if task == "dpo" else []))
        for task in PREFERENCE
    ]
    assert len({run.facts("model")["model"] for run in runs}) == 1
    assert len(list((bench.workshop.folder / "runs").glob("*/base/demo_two_voices-*"))) == 1


def test_a_run_that_merges_is_served_merged_and_thinks_as_its_adapter(bench: Bench) -> None:
    run = bench.run("demo_cpu_dpo", "export.merge=true")
    merged = run.path / "export" / "merged"
    assert spec_of_run(run).model == str(merged)
    assert spec_of_run(run).adapter is None
    asked = pairs_of(bench, run).held_out
    adapter = run.path / str(run.facts("train")["checkpoint"])
    with_adapter = bench.ask(str(run.facts("model")["model"]), adapter, asked)
    whole = bench.ask_run(run, asked)
    assert [one.greedy for one in whole] == [one.greedy for one in with_adapter]
    for one, other in zip(whole, with_adapter, strict=True):
        assert one.logps == pytest.approx(other.logps, abs=0.01)


def test_merged_files_may_be_read_by_whom_the_umask_lets(bench: Bench) -> None:
    run = bench.run("demo_cpu_dpo", "export.merge=true")
    umask = os.umask(0)
    os.umask(umask)
    files = list((run.path / "export" / "merged").glob("*"))
    assert {path.stat().st_mode & 0o777 for path in files if path.is_file()} == {0o666 & ~umask}


def test_dora_and_rslora_are_one_flag_each_and_learn(bench: Bench) -> None:
    from safetensors.numpy import load_file

    run = bench.run("demo_cpu_orpo", "swift.use_dora=true", "swift.use_rslora=true")
    checkpoint = run.path / str(run.facts("train")["checkpoint"])
    config = json.loads((checkpoint / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["use_dora"] is True and config["use_rslora"] is True
    weights = load_file(checkpoint / "adapter_model.safetensors")
    assert [name for name in weights if "lora_magnitude_vector" in name]
    assert_preference_turned(bench, run)


def test_an_adapter_learns_on_a_base_in_eight_bits(bench: Bench) -> None:
    eight = ("swift.quant_method=bnb", "swift.quant_bits=8", "swift.torch_dtype=bfloat16")
    run = bench.run("demo_cpu_orpo", *eight)
    assert "Linear8bitLt" in (run.logs / "train.log").read_text(encoding="utf-8")
    assert_preference_turned(bench, run)


def test_raw_text_makes_held_out_text_likelier_and_is_continued(bench: Bench) -> None:
    run = bench.run("demo_cpu_pt")

    def asked(name: str) -> list[Asked]:
        texts = [row["messages"][0]["content"] for row in rows_of(run.data / name)]
        return [Asked(text[: len(text) // 2], [text[len(text) // 2 :]]) for text in texts]

    held_out, trained = asked("val.jsonl"), asked("train.jsonl")[:20]
    before, after = bench.ask_base(run, held_out), bench.ask_run(run, held_out)
    for one, other in zip(before, after, strict=True):
        assert other.logps[0] > 0.75 * one.logps[0]  # a quarter fewer nats, each text
    corpus = (run.data / "train.jsonl").read_text(encoding="utf-8")
    assert mean(speaks(one.greedy, corpus) for one in bench.ask_run(run, trained)) >= 0.8
    assert mean(speaks(one.greedy, corpus) for one in bench.ask_base(run, trained)) <= 0.2


def speaks(written: str, corpus: str) -> bool:
    """Whether some five characters in a row are said in the corpus too."""
    return any(written[start : start + 5] in corpus for start in range(len(written) - 4))


def test_training_stops_early_and_the_best_checkpoint_is_what_is_kept(bench: Bench) -> None:
    run = bench.run("demo_cpu_pt")
    losses = log_of(run, "eval_loss")
    best = losses.index(min(losses))
    steps_an_epoch = -(-run.facts("data")["train"] // 8)
    kept = run.facts("train")["checkpoint"]
    assert run.facts("train")["steps"] < 40 * steps_an_epoch
    assert losses[-1] > losses[best]
    assert kept == f"train/checkpoint-{(best + 1) * steps_an_epoch}"
    assert spec_of_run(run).model == str(run.path / kept)


def answered_in_form(bench: Bench, run: RunFolder) -> tuple[float, float]:
    """The share of held-out sums that base and trained model answer in the form of `format`."""
    asked = [
        Asked(chat(row["messages"][-1]["content"], thinking=True), [])
        for row in rows_of(run.data / "val.jsonl")
    ]
    before, after = bench.ask_base(run, asked), bench.ask_run(run, asked)
    return (
        mean(one.greedy.startswith("<think>") and "</answer>" in one.greedy for one in before),
        mean(one.greedy.startswith("<think>") and "</answer>" in one.greedy for one in after),
    )


def test_a_built_in_reward_rises_and_held_out_sums_are_answered_in_its_form(bench: Bench) -> None:
    run = bench.run("demo_cpu_grpo")
    for reward in ("reward", "rewards/Format/mean"):
        values = log_of(run, reward)
        assert mean(values[-5:]) > mean(values[:5]), reward
    assert mean(log_of(run, "rewards/Format/mean")[:3]) < 0.9
    assert len(log_of(run, "rewards/RightNumber/mean")) == 40
    assert answered_in_form(bench, run)[1] >= 0.9


def test_a_reward_of_ones_own_turns_the_same_base_the_other_way(bench: Bench) -> None:
    plugin = bench.workshop.folder / "plain.py"
    plugin.write_text(PLAIN_REWARD, encoding="utf-8")
    rewards = ("swift.reward_funcs=[plain]", "swift.reward_weights=[1.0]")
    run = bench.run("demo_cpu_grpo", f"plugins=[{plugin}]", *rewards)
    values = log_of(run, "rewards/Plain/mean")
    assert mean(values[-5:]) > mean(values[:5])
    assert answered_in_form(bench, run)[1] <= 0.1


def test_a_reward_that_raises_ends_the_training_with_its_own_words(bench: Bench) -> None:
    plugin = bench.workshop.folder / "broken.py"
    plugin.write_text(BROKEN_REWARD, encoding="utf-8")
    rewards = ("swift.reward_funcs=[broken]", "swift.reward_weights=[1.0]")
    finished = bench.train("demo_cpu_grpo", f"plugins=[{plugin}]", *rewards)
    assert finished.exit_code == 3, finished.said
    assert "no column is called `answers`" in finished.stderr
    assert finished.left == []


def test_a_student_comes_to_think_as_its_teacher_of_questions_it_was_not_shown(
    bench: Bench,
) -> None:
    run = bench.run("demo_cpu_gkd")
    losses = log_of(run, "eval_loss")
    assert losses[-1] < losses[0]
    questions = {row["messages"][0]["content"] for row in rows_of(run.data / "val.jsonl")}
    prompts = [Asked(chat(question, thinking=True), []) for question in sorted(questions)]
    teacher = str(run.facts("model")["teacher"])
    told = bench.ask(teacher, None, prompts)
    asked = [Asked(a.prompt, [b.greedy]) for a, b in zip(prompts, told, strict=True)]
    sure = mean(one.logps[0] for one in bench.ask(teacher, None, asked))
    before = mean(one.logps[0] for one in bench.ask_base(run, asked))
    after = mean(one.logps[0] for one in bench.ask_run(run, asked))
    assert sure - after < 0.2 * (sure - before)
