"""ms-swift's template itself, in training mode; imported by the template's child process alone."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import Any, Literal, NamedTuple

import torch
from swift.arguments import BaseArguments, PretrainArguments
from swift.arguments.base_args.data_args import DataArguments
from swift.arguments.base_args.generation_args import GenerationArguments
from swift.arguments.base_args.quant_args import QuantizeArguments
from swift.dataset import RowPreprocessor
from swift.dataset.preprocessor import MessagesPreprocessor
from swift.loss_scale.base import LossScale
from swift.loss_scale.other import IgnoreEmptyThinkLossScale, IgnoreThinkPrefixLossScale
from swift.template.base import Template
from swift.template.template_inputs import StdTemplateInputs
from tokenizers import decoders

from palmswift.data.row import Kind
from palmswift.data.template import TemplateSpec
from palmswift.data.verdict import Counts, Measured

_OF_THE_RUN = {"packing", "padding_free", "lazy_tokenize", "sequence_parallel_size"}
_OF_THE_RUN |= {"attn_impl", "experts_impl", "device_map", "max_memory", "ddp_timeout"}
"""Arguments that ask for hardware or for weights and leave a row's tokens as they are."""

_READ_COLUMNS = {field.name for field in fields(StdTemplateInputs)}
_READ_COLUMNS |= {"system", "add_eos", *inspect.signature(LossScale.__call__).parameters}

_READ_LOSS_SCALES = (LossScale, IgnoreEmptyThinkLossScale, IgnoreThinkPrefixLossScale)

_LENGTH = re.compile(r"length of row\((\d+)\)")


def template_arguments(spec: TemplateSpec) -> BaseArguments:
    """ms-swift's arguments as the command of the recipe would resolve them.

    `BaseArguments` turns `truncation_strategy delete` into an error a row, appends
    `+ignore_empty_think` to the loss scale of hybrid thinking models, and reads `max_length` from
    the model when the recipe has none (swift/arguments/base_args).
    """
    known = {field.name for field in fields(BaseArguments)} - _OF_THE_RUN
    for group in (DataArguments, QuantizeArguments, GenerationArguments):
        known -= {field.name for field in fields(group)}
    given = {**_defaults(spec), **spec.arguments}
    chosen: dict[str, Any] = {name: value for name, value in given.items() if name in known}
    # As in SftArguments: training does not take settings over from a checkpoint's args.json.
    chosen.setdefault("load_args", False)
    return BaseArguments(**chosen)


def _defaults(spec: TemplateSpec) -> dict[str, Any]:
    """What `swift pt` and `swift rlhf` set by default, other than `swift sft`."""
    if spec.command == "pt":
        of_pt = {field.name: field.default for field in fields(PretrainArguments)}
        return {name: of_pt[name] for name in ("use_chat_template", "loss_scale")}
    if spec.command == "rlhf":
        # RLHFArguments._set_loss_scale and ._init_grpo (swift/arguments/rlhf_args.py)
        rlhf_type = spec.arguments.get("rlhf_type")
        turns = rlhf_type in ("grpo", "gkd") and spec.arguments.get("multi_turn_scheduler")
        loss_scale = "default" if rlhf_type == "orpo" or turns else "last_round"
        truncation = {"truncation_strategy": "left"} if rlhf_type == "grpo" else {}
        return {"loss_scale": loss_scale, **truncation}
    return {}


class Encoded(NamedTuple):
    """One sequence of tokens that a row becomes."""

    side: Literal["chosen", "rejected"] | None
    input_ids: list[int]
    labels: list[int]


class RealTemplate:
    """Asked about one row after the other."""

    def __init__(self, arguments: BaseArguments, kind: Kind) -> None:
        _, processor = arguments.get_model_processor(load_model=False)
        self.template = arguments.get_template(processor)
        # As SwiftRLHF._prepare_template does (swift/pipelines/train/rlhf.py).
        self.template.set_mode({"dpo": "rlhf", "kto": "kto"}.get(kind, "train"))
        self._kind = kind
        self._preprocess = MessagesPreprocessor().preprocess
        # The method is wrapped to try each bad row three times (swift/template/base.py).
        self._encode: Callable[..., Any] = inspect.unwrap(type(self.template).encode)
        self.tokenizer = self.template.tokenizer
        added = self.tokenizer.added_tokens_decoder.values()
        self.control_tokens = sorted(
            {token.content for token in added if token.special}
            | set(self.tokenizer.all_special_tokens)
        )
        self.eos: int = self.template.template_meta.stop_token_id
        self.suffix: list[int] = self.template._encode_context_list(
            self.template.template_meta.suffix
        )[0]
        self.telling = frozenset(self._telling_strings())

    @property
    def limit(self) -> tuple[int | None, bool]:
        """The most tokens a row may have, and whether a longer one is an error (or else cut)."""
        return self.template.max_length, self.template.truncation_strategy == "raise"

    @property
    def why_not_batched(self) -> str:
        """Why rows of this template cannot be counted in batches; empty when they can.

        What is said of texts in palmswift.data.batch_template was read in the base template, the
        loss scales below and the byte-level tokenizers, and holds for no others.
        """
        template = self.template
        if type(template) is not Template or template.template_backend != "swift":
            return f"{type(template).__name__} has rules of its own"
        scales = getattr(template.loss_scale, "loss_scales", [template.loss_scale])
        unknown = [type(s).__name__ for s in scales if type(s) not in _READ_LOSS_SCALES]
        if unknown or not template.loss_scale.is_binary_loss_scale:
            return f"the loss scale {template._loss_scale} looks at the text"
        if template.model_meta.is_multimodal or template.is_encoder_decoder:
            return "the model takes more than text"
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is None or not isinstance(backend.decoder, decoders.ByteLevel):
            return f"{type(self.tokenizer).__name__} is not a byte-level tokenizer"
        return ""

    def _telling_strings(self) -> Iterator[str]:
        meta = self.template.template_meta
        yield from self.control_tokens
        yield from Template.special_tokens
        for prefix in (
            meta.thinking_prefix,
            meta.non_thinking_prefix,
            meta.history_thinking_prefix,
        ):
            if prefix.strip():
                yield prefix.strip()
        for word in meta.stop_words:
            if isinstance(word, str) and word.strip():
                yield word.strip()
        for scale in getattr(self.template.loss_scale, "loss_scales", [self.template.loss_scale]):
            # Regular expressions that match at the start of an answer and begin with a tag.
            for pattern in getattr(scale, "loss_scale_map", None) or ():
                yield pattern.removeprefix("^").replace("\\", "").partition(">")[0]

    def reads(self, column: str) -> bool:
        """Whether a column of this name makes a difference to the template.

        StdTemplateInputs.from_dict, TemplateInputs.from_dict (swift/template/template_inputs.py),
        MessagesPreprocessor.preprocess, and keyword arguments of LossScale.__call__.
        """
        return column in _READ_COLUMNS or column.startswith(("rejected_", "positive_", "negative_"))

    def strings(self, messages: Sequence[dict[str, str]]) -> list[tuple[str | list[int], bool]]:
        """What is tokenised, one after the other, or is tokens already; and whether trained on."""
        recorded: list[tuple[str | list[int], bool]] = []
        encode = self.template._encode_context_list

        def record(contexts: list[str | list[int]], scales: list[float] | None = None) -> Any:
            if not recorded:  # it is called again for the suffix
                weights = scales or [0.0] * len(contexts)
                recorded.extend((c, w > 0) for c, w in zip(contexts, weights, strict=True))
            return encode(contexts, scales)

        self.template._encode_context_list = record
        try:
            with self.unlimited(), torch.inference_mode():
                inputs = StdTemplateInputs.from_dict({"messages": list(messages)})
                self.template._encode_truncated(inputs)
        finally:
            del self.template._encode_context_list
        return recorded

    @contextmanager
    def unlimited(self) -> Iterator[None]:
        """Rows are neither refused nor cut for their length inside the block."""
        limit, self.template.max_length = self.template.max_length, None
        try:
            yield
        finally:
            self.template.max_length = limit

    def sequences(self, row: dict[str, Any]) -> list[Encoded]:
        """What the row becomes in training; whatever ms-swift raises for it."""
        row = {**row, "messages": [dict(message) for message in row["messages"]]}
        if self._kind == "grpo" and row["messages"][-1]["role"] == "assistant":
            row["messages"].pop()  # ms-swift does (swift.utils.remove_response)
        prepared = self._preprocess(row)
        RowPreprocessor._check_messages(prepared)
        RowPreprocessor._check_rejected_response(prepared)
        with torch.inference_mode():
            encoded = self._encode(self.template, prepared, return_length=True)
        if isinstance(encoded, list):  # truncation_strategy split, for plain text only
            ids, labels = ([i for part in encoded for i in part[key]] for key in _KEYS)
            return [Encoded(None, ids, labels)]
        if "input_ids" in encoded:
            return [Encoded(None, *(encoded[key] for key in _KEYS))]
        sides: tuple[Literal["chosen", "rejected"], ...] = ("chosen", "rejected")
        return [
            Encoded(side, *(encoded[f"{side}_{key}"] for key in _KEYS))
            for side in sides
            if f"{side}_input_ids" in encoded
        ]

    def measure(self, row: dict[str, Any]) -> Measured:
        """The row's tokens counted, or the error that would make ms-swift drop it."""
        return self.measure_with_ids(row)[0]

    def measure_with_ids(self, row: dict[str, Any]) -> tuple[Measured, list[list[int]]]:
        """The same, and the tokens of each of the row's sequences."""
        control = self._control_token(row)
        try:
            sequences = self.sequences(row)
        except Exception as error:  # noqa: BLE001  # whatever ms-swift raises, it drops the row
            length = _LENGTH.search(str(error))
            measured = Measured(
                control_token=control,
                error=type(error).__name__,
                detail=str(error)[:300],
                n_tokens=int(length.group(1)) if length else 0,
            )
            return measured, []
        measured = Measured(tuple(map(self._count, sequences)), control)
        return measured, [sequence.input_ids for sequence in sequences]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of the tokens, control tokens included."""
        text: str = self.tokenizer.decode(
            list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return text

    def _count(self, sequence: Encoded) -> Counts:
        supervised = [label for label in sequence.labels if label != -100]
        text = self.tokenizer.decode(supervised, skip_special_tokens=True)
        return Counts(
            n_tokens=len(sequence.input_ids),
            n_supervised=len(supervised),
            has_text=bool(text.strip()),
            # The suffix is the stop token and, in ChatML, a line break after it.
            ends_with_eos=self.eos in sequence.labels[-2:],
        )

    def _control_token(self, row: dict[str, Any]) -> str | None:
        texts = [message["content"] for message in row["messages"]]
        texts.append(row.get("rejected_response") or "")
        return next(
            (t for t in self.control_tokens if any(t in text for text in texts)),
            None,
        )


_KEYS = ("input_ids", "labels")
