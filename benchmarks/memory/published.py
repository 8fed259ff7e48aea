"""What others publish for one small card, each with its source, to compare a measurement with."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Published(BaseModel):
    """A figure that we did not measure."""

    model_config = ConfigDict(frozen=True)

    who: str
    what: str
    figure: str
    source: str


PUBLISHED = (
    Published(
        who="Unsloth",
        what="Llama-3.1-8B QLoRA, r=32 on all linear layers, batch 1, 8 GB: longest context",
        figure="2972 tokens",
        source="docs.unsloth.ai/basics/unsloth-benchmarks",
    ),
    Published(
        who="Unsloth",
        what="QLoRA of 8B: least memory",
        figure="6 GB",
        source="unsloth.ai/docs, unsloth-requirements",
    ),
    Published(
        who="torchtune",
        what="Llama-3.1-8B QLoRA on an RTX 4090, batch 2, packed to 2048, compiled",
        figure="7.4 GiB, 2413 tokens/s",
        source="github.com/pytorch/torchtune, README",
    ),
    Published(
        who="LLaMA-Factory",
        what="QLoRA of 7B in 4 bits (estimated by its authors)",
        figure="6 GB",
        source="github.com/hiyouga/LLaMA-Factory, README",
    ),
    Published(
        who="ms-swift",
        what="Qwen2.5-7B, bnb QLoRA, r=8, 2048 tokens",
        figure="10 GB",
        source="github.com/modelscope/ms-swift, examples",
    ),
)
