"""The kinds of GGUF that are made, and how far each may move a model's probabilities."""

from __future__ import annotations

from typing import NamedTuple

from palmswift.export.proof import QUANTISED, SAME


class Kind(NamedTuple):
    """A form of the weights."""

    outtype: str | None
    """The converter's own word for it; None: llama.cpp quantises what the converter wrote."""
    limit: float
    """Mean difference of log-probabilities, in nats a token, up to which parity holds."""


KINDS: dict[str, Kind] = {
    "f32": Kind("f32", SAME),
    "f16": Kind("f16", SAME),
    "bf16": Kind("bf16", SAME),
    "q8_0": Kind(None, SAME),
    **{
        name: Kind(None, QUANTISED)
        for name in (
            *("q6_k", "q5_k_m", "q5_k_s", "q4_k_m", "q4_k_s", "q4_0"),
            *("q3_k_l", "q3_k_m", "q3_k_s", "q2_k"),
        )
    },
}
"""Names as llama.cpp has them."""
