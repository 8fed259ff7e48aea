"""Holds ms-swift's own serving engine to its max_model_len: an ms-swift plugin for `swift deploy`.

What it does: with `--max_model_len N` no request becomes longer than N tokens, its answer counted.
ms-swift 4.6.0 writes N into the config of the loaded model and goes on bounding requests by what
stood there before, the 40,960 tokens of a Qwen3: one long question, or an answer without an end,
then takes all memory of a small card, and every other request with it. `deploy/serve.py` names this
plugin by itself.

What it saves: nothing of itself; it keeps what the planner promised.

What it costs: nothing; a number is set once when the model is loaded.

When it cannot act, nothing is changed: another engine serves (vLLM has a bound of its own), or no
max_model_len is said.

Settings: none. Training is as without it.
"""

from __future__ import annotations

import functools
from typing import Any

from swift.infer_engine import TransformersEngine
from swift.utils import HfConfigFactory, get_logger


def bounded(init: Any) -> Any:
    """The engine's `__init__`, after which its bound is that of the config of the loaded model."""

    @functools.wraps(init)
    def around(self: Any, *arguments: Any, **settings: Any) -> None:
        init(self, *arguments, **settings)
        limit = HfConfigFactory.get_max_model_len(self.model.config)
        if limit and (self.max_model_len is None or limit < self.max_model_len):
            get_logger().info(f"served_length: no request is longer than {limit} tokens")
            self.max_model_len = limit

    return around


TransformersEngine.__init__ = bounded(TransformersEngine.__init__)
