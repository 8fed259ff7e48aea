"""The kinds of GGUF that are made, and how far each may move a model's probabilities."""

from __future__ import annotations

from typing import NamedTuple


class Kind(NamedTuple):
    """A form of the weights."""

    outtype: str | None
    """The converter's own word for it; None: llama.cpp quantises what the converter wrote."""
    limit: float
    """Mean difference of log-probabilities, in nats a token, up to which parity holds."""


_WHOLE, _QUANTISED = 0.05, 0.1
"""The first is what `deploy/parity.py` allows by itself. The second divides 4 bits from 2 on the
demo's small Qwen3: q4_k_m 0.07, q3_k_m 0.08, q2_k 0.13 (benchmarks/records/gguf-kinds-*.json)."""

KINDS: dict[str, Kind] = {
    "f32": Kind("f32", _WHOLE),
    "f16": Kind("f16", _WHOLE),
    "bf16": Kind("bf16", _WHOLE),
    "q8_0": Kind(None, _WHOLE),
    **{
        name: Kind(None, _QUANTISED)
        for name in (
            *("q6_k", "q5_k_m", "q5_k_s", "q4_k_m", "q4_k_s", "q4_0"),
            *("q3_k_l", "q3_k_m", "q3_k_s", "q2_k"),
        )
    },
}
"""Names as llama.cpp has them."""
