"""The child process that asks ms-swift's template: `python -m palmswift.data.template_worker SPEC`.

It loads config and tokenizer, never weights, and needs no GPU.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import swift
import torch
from swift.arguments import BaseArguments
from swift.arguments.base_args.data_args import DataArguments
from swift.arguments.base_args.generation_args import GenerationArguments
from swift.arguments.base_args.quant_args import QuantizeArguments
from swift.dataset import RowPreprocessor
from swift.dataset.preprocessor import MessagesPreprocessor

from palmswift.data.template import TemplateFacts, Verdict, WorkerSpec
from palmswift.files import read_jsonl, write_jsonl, write_text
from palmswift.recipes.recipe import SwiftValue

_OF_THE_RUN = {"packing", "padding_free", "lazy_tokenize", "sequence_parallel_size"}
_OF_THE_RUN |= {"attn_impl", "experts_impl", "device_map", "max_memory", "ddp_timeout"}
"""Arguments that ask for hardware or for weights and leave a row's tokens as they are."""

_LENGTH = re.compile(r"length of row\((\d+)\)")


def template_arguments(given: dict[str, SwiftValue]) -> BaseArguments:
    """ms-swift's arguments as `swift sft` would resolve them for this recipe.

    `BaseArguments` turns `truncation_strategy delete` into an error a row, appends
    `+ignore_empty_think` to the loss scale of hybrid thinking models, and reads `max_length` from
    the model when the recipe has none (swift/arguments/base_args).
    """
    known = {field.name for field in fields(BaseArguments)} - _OF_THE_RUN
    for group in (DataArguments, QuantizeArguments, GenerationArguments):
        known -= {field.name for field in fields(group)}
    chosen: dict[str, Any] = {name: value for name, value in given.items() if name in known}
    # As in SftArguments: training does not take settings over from a checkpoint's args.json.
    chosen.setdefault("load_args", False)
    return BaseArguments(**chosen)


class Examiner:
    """ms-swift's template in training mode, asked about one row after the other."""

    def __init__(self, arguments: BaseArguments) -> None:
        _, processor = arguments.get_model_processor(load_model=False)
        self._template = arguments.get_template(processor)
        self._template.set_mode("train")
        self._preprocess = MessagesPreprocessor().preprocess
        # The method is wrapped to try each bad row three times (swift/template/base.py).
        self._encode: Callable[..., Any] = inspect.unwrap(type(self._template).encode)
        tokenizer = self._template.tokenizer
        added = tokenizer.added_tokens_decoder.values()
        self._control_tokens = sorted(
            {token.content for token in added if token.special} | set(tokenizer.all_special_tokens)
        )
        self._eos = self._template.template_meta.stop_token_id

    def verdict(self, index: int, row: dict[str, Any]) -> Verdict:
        """What the row trains on, or the error that would make ms-swift drop it."""
        texts = [message["content"] for message in row["messages"]]
        control = next((t for t in self._control_tokens if any(t in text for text in texts)), None)
        try:
            prepared = self._preprocess(row)
            RowPreprocessor._check_messages(prepared)
            with torch.inference_mode():
                encoded = self._encode(self._template, prepared, return_length=True)
        except Exception as error:  # noqa: BLE001  # whatever ms-swift raises, it drops the row
            length = _LENGTH.search(str(error))
            return Verdict(
                index=index,
                n_tokens=int(length.group(1)) if length else 0,
                control_token=control,
                error=type(error).__name__,
                detail=str(error)[:300],
            )
        labels = encoded["labels"]
        supervised = [label for label in labels if label != -100]
        text = self._template.tokenizer.decode(supervised, skip_special_tokens=True)
        return Verdict(
            index=index,
            n_tokens=len(encoded["input_ids"]),
            n_supervised=len(supervised),
            has_text=bool(text.strip()),
            # The suffix is the stop token and, in ChatML, a line break after it.
            ends_with_eos=self._eos in labels[-2:],
            control_token=control,
        )

    def verdicts(self, rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """The verdict on each row, in order, as JSON objects."""
        for index, row in enumerate(rows):
            yield self.verdict(index, row).model_dump()


def main(argv: Sequence[str]) -> int:
    """Answer for every row that SPEC.json names; verdicts and facts become files."""
    (spec_file,) = argv
    spec = WorkerSpec.model_validate_json(Path(spec_file).read_text(encoding="utf-8"))
    arguments = template_arguments(spec.template.arguments)
    write_jsonl(spec.verdicts, Examiner(arguments).verdicts(read_jsonl(spec.rows)))
    facts = TemplateFacts(
        template=arguments.template,
        max_length=arguments.max_length,
        truncation_strategy=arguments.truncation_strategy,
        loss_scale=arguments.loss_scale,
        swift_version=swift.__version__,
    )
    write_text(spec.facts, facts.model_dump_json())
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
