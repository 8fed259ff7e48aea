"""What ms-swift and the MLX worker each make of the same rows: two programs, asked by test_mlx.py.

`python support_mlx.py swift ROWS MODEL ADAPTER WORD...` runs with ms-swift: tokens and labels of
its own data set, and the loss of PEFT's model on them. `python support_mlx.py mlx WORKER TOKENS`
runs with mlx-lm: the batches that the worker trains on. Each prints one JSON document at the end.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from typing import Any

MASKED = -100


def of_swift(rows: str, model: str, adapter: str, words: list[str]) -> dict[str, Any]:
    """`ids` and `labels` of each row as SwiftSft trains on them.

    `loss` is that of the adapter over all trained tokens, `base_loss` that of the model without.
    """
    import torch
    from peft import PeftModel
    from swift.pipelines.train.sft import SwiftSft

    given = ["--model", model, "--dataset", rows, "--dataset_shuffle", "false"]
    program = SwiftSft([*given, *words])
    data, _ = program._prepare_dataset()
    found = [(list(row["input_ids"]), list(row["labels"])) for row in data]
    tuned = PeftModel.from_pretrained(program.model, adapter).eval()

    def loss_of_all() -> float:
        total, count = 0.0, 0
        for ids, labels in found:
            given = {"input_ids": torch.tensor([ids]), "labels": torch.tensor([labels])}
            trained = sum(label != MASKED for label in labels[1:])
            total, count = total + float(tuned(**given).loss) * trained, count + trained
        return total / count

    with torch.no_grad():
        loss = loss_of_all()
        with tuned.disable_adapter():
            base_loss = loss_of_all()
    ids, labels = zip(*found, strict=True)
    return {"ids": ids, "labels": labels, "loss": loss, "base_loss": base_loss}


def of_mlx(worker: str, tokens: str) -> dict[str, Any]:
    """`ids` and `labels` of each row, read back from a batch that holds all of them."""
    spec = importlib.util.spec_from_file_location("mlx_worker", worker)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    rows = module.read_rows(tokens)
    batch, mask = (array.tolist() for array in module.as_batch(rows, 10_000))
    ids, labels = [], []
    for (row, _), padded, trained in zip(rows, batch, mask, strict=True):
        assert not any(trained[len(row) :]), "padding is trained on"
        ids.append(padded[: len(row)])
        labels.append([x if on else MASKED for x, on in zip(padded, trained, strict=True)])
        labels[-1] = labels[-1][: len(row)]
    return {"ids": ids, "labels": labels}


if __name__ == "__main__":
    if sys.argv[1] == "swift":
        print("\n" + json.dumps(of_swift(sys.argv[2], sys.argv[3], sys.argv[4], sys.argv[5:])))
    else:
        print("\n" + json.dumps(of_mlx(*sys.argv[2:4])))
