"""Trains with mlx-lm what a configuration says: `python mlx_worker.py train --config FILE`.

It is run by its path, by a Python that has mlx-lm and need not have palmswift. The loop, LoRA and
the optimizer are mlx-lm's and MLX's; this file brings the tokens that ms-swift's template made,
and leaves what ms-swift leaves: logging.jsonl, and checkpoint-N folders that PEFT, ms-swift and
vLLM read. In checkpoint-N/mlx stand mlx-lm's own form of an adapter and the optimizer's state, from
which a training goes on to the same numbers as one that was not interrupted.

Three things are as in ms-swift and not as in `mlx_lm.lora`: every answer of a dialogue is trained
on, not the last alone; rows are shuffled anew in each epoch and none is left out; gradients are
clipped.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import yaml
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.tuner.callbacks import TrainingCallback
from mlx_lm.tuner.trainer import TrainingArgs, evaluate, train
from mlx_lm.tuner.utils import linear_to_lora_layers
from mlx_lm.utils import hf_repo_to_path, load

PAD_TO = 32
"""Batches are padded to a multiple of this, so that MLX compiles for few lengths."""

CONTROL = "PALMSWIFT_CONTROL"
"""The folder through which the launcher asks for an orderly end (launchers/stopping.py)."""

Row = tuple[list[int], list[list[int]]]


def read_rows(path: str | None) -> list[Row]:
    """Tokens and the spans that are trained on."""
    if path is None:
        return []
    with Path(path).open(encoding="utf-8") as lines:
        return [(row["ids"], row["trained"]) for row in map(json.loads, lines)]


def as_batch(rows: Sequence[Row], longest: int) -> tuple[mx.array, mx.array]:
    """Padded tokens and the mask of those with a loss, both rows x length, cut at `longest`."""
    width = min(longest, max(len(ids) for ids, _ in rows))
    width = 1 + PAD_TO * math.ceil((width - 1) / PAD_TO)
    tokens = np.zeros((len(rows), width), np.int32)
    mask = np.zeros((len(rows), width), np.float32)
    for index, (ids, spans) in enumerate(rows):
        kept = min(len(ids), longest)
        tokens[index, :kept] = ids[:kept]
        for start, end in spans:
            mask[index, start : min(end, kept)] = 1
    return mx.array(tokens), mx.array(mask)


def loss(model: Any, tokens: mx.array, mask: mx.array) -> tuple[mx.array, mx.array]:
    """Mean cross entropy over the trained tokens, and their number."""
    logits = model(tokens[:, :-1])
    trained = mask[:, 1:]
    count = mx.maximum(trained.sum(), 1)
    entropy = nn.losses.cross_entropy(logits, tokens[:, 1:]) * trained
    return entropy.astype(mx.float32).sum() / count, count


class ClippedAdamW(optim.AdamW):  # type: ignore[misc]  # mlx is not followed by mypy
    """AdamW that first scales gradients down to a norm, as torch's trainers do."""

    def __init__(self, max_norm: float, **named: Any) -> None:
        super().__init__(**named)
        self.max_norm = max_norm

    def update(self, model: Any, gradients: Any) -> None:
        """Clip, then step."""
        if self.max_norm:
            gradients, _ = optim.clip_grad_norm(gradients, self.max_norm)
        super().update(model, gradients)


def schedule(config: dict[str, Any], steps: int) -> Any:
    """The rate by optimizer step: warmed up linearly from 0, then as transformers has it."""
    rate, said = config["learning_rate"], config["warmup"]
    warm = math.ceil(said * steps) if said < 1 else int(said)
    rest = max(1, steps - warm)
    after: Any = optim.linear_schedule(rate, rate, rest)
    if config["schedule"] == "cosine":
        after = optim.cosine_decay(rate, rest)
    elif config["schedule"] == "linear":
        after = optim.linear_schedule(rate, 0.0, rest)
    if warm == 0:
        return after
    return optim.join_schedules([optim.linear_schedule(0.0, rate, warm), after], [warm])


def random_key() -> int:
    """MLX's random state as the seed that brings it back (a key is a seed's two halves)."""
    high, low = np.array(mx.random.state[0]).tolist()
    return int(high) << 32 | int(low)


class Run:
    """One training: its model, its sizes in optimizer steps, and what it leaves behind."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.source = Path(config["resume_from"]) if config["resume_from"] else None
        self.begins = self.saved = 0
        """Optimizer steps that were taken before this training went on, and at the last save."""
        self.window: list[list[float]] = []
        """Loss, tokens and seconds of each step since the last report."""
        self.output = Path(config["output_dir"])
        self.rows, self.val = read_rows(config["train"]), read_rows(config["val"])
        self.batch, self.accumulated = config["batch_size"], config["grad_accumulation_steps"]
        per_epoch = math.ceil(len(self.rows) / self.batch)
        # As the Trainer counts: an epoch's last step may have fewer rows.
        self.epoch_steps = math.ceil(per_epoch / self.accumulated)
        self.steps = math.ceil(self.epoch_steps * config["epochs"])
        if config["max_steps"] and config["max_steps"] > 0:
            self.steps = config["max_steps"]
        self.eval_every = self._interval(config["steps_per_eval"]) if self.val else 0
        self.save_every = self._interval(config["save_every"])
        self.best: tuple[float, int] | None = None
        self.history: list[dict[str, Any]] = []
        self.begun = time.monotonic()
        self.evaluated = -1

    def _interval(self, said: float | str | None) -> int:
        """Optimizer steps between two events; a share below 1 is of all steps. 0: never."""
        if not said:
            return 0
        if said == "epoch":
            return int(self.epoch_steps)
        number = float(said)
        return max(1, math.ceil(number * self.steps) if number < 1 else int(number))

    def load_model(self) -> None:
        """The model with what is trained of it unfrozen."""
        self.model, self.tokenizer = load(self.config["model"])
        types = {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}
        quantised = any(isinstance(m, nn.QuantizedLinear) for m in self.model.modules())
        if self.config["dtype"] in types and not quantised:
            self.model.set_dtype(types[self.config["dtype"]])
        self.model.freeze()
        if self.config["fine_tune_type"] == "full":
            self.model.unfreeze()
        else:
            linear_to_lora_layers(self.model, -1, dict(self.config["lora_parameters"]))

    def make_optimizer(self) -> None:
        """The optimizer, at its start or as the checkpoint has it; weights and chance with it."""
        self.optimizer = ClippedAdamW(
            self.config["max_grad_norm"],
            learning_rate=schedule(self.config, self.steps),
            **self.config["optimizer_config"],
        )
        if self.source is None:
            return
        full = self.config["fine_tune_type"] == "full"
        weights = self.source / ("model.safetensors" if full else "mlx/adapters.safetensors")
        self.model.load_weights(str(weights), strict=False)
        state = mx.load(str(self.source / "mlx" / "optimizer.safetensors"))
        self.optimizer.state = tree_unflatten(list(state.items()))
        told = json.loads((self.source / "trainer_state.json").read_text(encoding="utf-8"))
        self.begins = self.saved = self.evaluated = told["global_step"]
        self.history, self.window = told["log_history"], told["mlx"]["window"]
        if told["best_global_step"] is not None:
            self.best = (told["best_metric"], told["best_global_step"])
        mx.random.seed(told["mlx"]["random"])

    def batches(self, **_named: Any) -> Iterator[tuple[mx.array, mx.array]]:
        """Batches for ever, each epoch in an order of its own.

        mlx-lm asks for a batch after the step before it, so what falls between two steps (an
        evaluation, a checkpoint) is done here.
        """
        epoch, taken, before = 0, 0, self.begins * self.accumulated
        longest = self.config["max_seq_length"]
        while True:
            order = np.random.default_rng([self.config["data_seed"], epoch]).permutation(
                len(self.rows)
            )
            for start in range(0, len(order), self.batch):
                step, rest = divmod(taken, self.accumulated)
                if rest == 0 and step > self.begins:
                    self.between(step)
                if taken >= before:
                    chosen = order[start : start + self.batch]
                    yield as_batch([self.rows[index] for index in chosen], longest)
                taken += 1
            epoch += 1

    def between(self, step: int) -> None:
        """After an optimizer step: evaluate and save where that is due, and end where asked to."""
        if self.eval_every and step % self.eval_every == 0:
            self.evaluate(step)
        if self.save_every and step % self.save_every == 0:
            self.save(step)
        said = os.environ.get(CONTROL)
        if not said:
            return
        control = Path(said)
        if (control / "stop").exists():
            self.save(step)
            checkpoint = str(self.output / f"checkpoint-{step}")
            _write(control / "stopped", {"step": step, "checkpoint": checkpoint})
            raise SystemExit(0)
        if not (control / "stepping").exists():
            _write(control / "stepping", {"step": step})

    def evaluate(self, step: int) -> None:
        """Log the loss on the validation rows; the best weights so far are kept if wanted."""
        self.evaluated = step
        value = evaluate(
            self.model,
            self.val,
            self.config["val_batch_size"],
            -1,
            loss=loss,
            iterate_batches=self.val_batches,
        )
        self.model.train()
        self.log(step, {"eval_loss": value})
        if self.config["keep_best"] and (self.best is None or value < self.best[0]):
            self.best = (value, step)
            self.save(step)

    def val_batches(self, **_named: Any) -> Iterator[tuple[mx.array, mx.array]]:
        """The validation rows once."""
        size = self.config["val_batch_size"]
        for start in range(0, len(self.val), size):
            yield as_batch(self.val[start : start + size], self.config["max_seq_length"])

    def log(self, step: int, values: dict[str, Any]) -> None:
        """A line of logging.jsonl, as ms-swift writes them."""
        record = {
            **{name: round(value, 8) for name, value in values.items()},
            "epoch": round(step / self.epoch_steps, 8),
            "global_step/max_steps": f"{step}/{self.steps}",
            "elapsed_time": f"{time.monotonic() - self.begun:.0f}s",
            "memory(GiB)": round(mx.get_peak_memory() / 2**30, 2),
        }
        self.history.append({**record, "step": step})
        with (self.output / "logging.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def save(self, step: int) -> None:
        """checkpoint-STEP, which is there when it is whole."""
        if step == self.saved:
            return
        folder = self.output / f".saving-{step}"
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "mlx").mkdir(parents=True)
        state = dict(tree_flatten(self.optimizer.state))
        mx.save_safetensors(str(folder / "mlx" / "optimizer.safetensors"), state)
        if self.config["fine_tune_type"] == "full":
            self._save_model(folder)
        else:
            self._save_adapter(folder)
        told = {
            "global_step": step,
            "max_steps": self.steps,
            "best_global_step": self.best[1] if self.best else None,
            "best_metric": self.best[0] if self.best else None,
            "log_history": self.history,
            "mlx": {"random": random_key(), "window": self.window},
        }
        _write(folder / "trainer_state.json", told)
        checkpoint = self.output / f"checkpoint-{step}"
        shutil.rmtree(checkpoint, ignore_errors=True)
        folder.replace(checkpoint)
        self.saved = step
        self._forget_old()

    def _forget_old(self) -> None:
        limit = self.config["save_total_limit"]
        if not limit:
            return
        found = sorted(self.output.glob("checkpoint-*"), key=lambda p: int(p.name.split("-")[1]))
        best = f"checkpoint-{self.best[1]}" if self.best else ""
        for folder in [path for path in found if path.name != best][: max(0, len(found) - limit)]:
            shutil.rmtree(folder)

    def _save_model(self, folder: Path) -> None:
        weights = dict(tree_flatten(self.model.parameters()))
        mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "pt"})
        named = Path(self.config["model"])
        source = named if named.is_dir() else Path(hf_repo_to_path(self.config["model"]))
        for file in source.iterdir():
            if file.suffix in (".json", ".jinja", ".txt") and "index" not in file.name:
                shutil.copy(file, folder)

    def _save_adapter(self, folder: Path) -> None:
        lora = self.config["lora_parameters"]
        weights = dict(tree_flatten(self.model.trainable_parameters()))
        peft = {}
        for name, value in weights.items():
            module, _, part = name.rpartition(".lora_")
            # MLX multiplies from the right, torch from the left.
            peft[f"base_model.model.{module}.lora_{part.upper()}.weight"] = value.T
        file = str(folder / "adapter_model.safetensors")
        mx.save_safetensors(file, peft, metadata={"format": "pt"})
        described = {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": self.config["model"],
            "r": lora["rank"],
            "lora_alpha": lora["alpha"],
            "lora_dropout": lora["dropout"],
            "use_rslora": lora["use_rslora"],
            "target_modules": [key.rpartition(".")[2] for key in lora["keys"]],
            "bias": "none",
            "inference_mode": True,
        }
        _write(folder / "adapter_config.json", described)
        own = folder / "mlx"
        mx.save_safetensors(str(own / "adapters.safetensors"), weights)
        parameters = {name: lora[name] for name in ("rank", "scale", "dropout", "keys")}
        kind = {"fine_tune_type": "lora", "num_layers": -1, "lora_parameters": parameters}
        _write(own / "adapter_config.json", {**kind, "model": self.config["model"]})


class Reports(TrainingCallback):  # type: ignore[misc]  # mlx-lm is not followed by mypy
    """Hands mlx-lm's reports, one a step, on to logging.jsonl every `logging_steps`."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def on_train_loss_report(self, train_info: dict[str, Any]) -> None:
        """The mean loss since the last report; what is not reported yet is in the checkpoints."""
        run = self.run
        seconds = run.accumulated / train_info["iterations_per_second"]
        tokens = train_info["tokens_per_second"] * seconds
        run.window.append([train_info["train_loss"], tokens, seconds])
        step = run.begins + train_info["iteration"] // run.accumulated
        if step % run.config["steps_per_report"]:
            return
        losses, counts, times = zip(*run.window, strict=True)
        run.window = []
        values = {"loss": sum(losses) / len(losses), "learning_rate": train_info["learning_rate"]}
        run.log(step, {**values, "tokens_per_second": sum(counts) / sum(times)})


def _write(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=2), encoding="utf-8")


def train_run(config: dict[str, Any]) -> None:
    """Train to the end and leave a checkpoint of the last step."""
    if config["device"] == "cpu":
        mx.set_default_device(mx.cpu)
    mx.random.seed(config["seed"])
    np.random.seed(config["seed"])
    run = Run(config)
    run.output.mkdir(parents=True, exist_ok=True)
    for left in run.output.glob(".saving-*"):  # of a training that was killed within a save
        shutil.rmtree(left)
    run.load_model()
    run.make_optimizer()
    iterations = (run.steps - run.begins) * run.accumulated
    settings = TrainingArgs(
        batch_size=run.batch,
        iters=iterations,
        steps_per_report=run.accumulated,
        steps_per_save=iterations + 1,  # checkpoints are ours
        adapter_file=str(run.output / "adapters.safetensors"),
        max_seq_length=config["max_seq_length"],
        grad_checkpoint=config["grad_checkpoint"],
        grad_accumulation_steps=run.accumulated,
    )
    train(
        model=run.model,
        optimizer=run.optimizer,
        train_dataset=run.rows,
        args=settings,
        loss=loss,
        iterate_batches=run.batches,
        training_callback=Reports(run),
    )
    Path(settings.adapter_file).unlink(missing_ok=True)
    if run.eval_every and run.evaluated != run.steps:
        run.evaluate(run.steps)
    run.save(run.steps)


def main(argv: Sequence[str]) -> int:
    """Read the configuration and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=["train"])
    parser.add_argument("--config", required=True, type=Path)
    given = parser.parse_args(argv)
    train_run(yaml.safe_load(given.config.read_text(encoding="utf-8")))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
