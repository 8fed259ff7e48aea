"""Adds up the time that a training spends in palmswift's callbacks: an ms-swift plugin.

Loaded after the plugins that watch a training. When the training ends it writes accounting.json in
output_dir: `seconds` inside them, and `calls`.
"""

from __future__ import annotations

import functools
import json
import sys
import time
from pathlib import Path
from typing import Any

from swift.trainers.mixin import SwiftMixin
from transformers import TrainerCallback

_spent = [0.0, 0]


def _timed(function: Any) -> Any:
    @functools.wraps(function)
    def timed(*args: Any, **named: Any) -> Any:
        begun = time.perf_counter()
        try:
            return function(*args, **named)
        finally:
            _spent[0] += time.perf_counter() - begun
            _spent[1] += 1

    return timed


def _install() -> None:
    for name, module in list(sys.modules.items()):
        if not name.startswith("_swift_external_"):
            continue
        for kind in vars(module).values():
            if isinstance(kind, type) and issubclass(kind, TrainerCallback):
                for method, function in list(vars(kind).items()):
                    if method.startswith("on_") or method == "count":
                        setattr(kind, method, _timed(function))
    train = SwiftMixin.train

    @functools.wraps(train)
    def train_accounted(self: Any, *args: Any, **named: Any) -> Any:
        result = train(self, *args, **named)
        document = {"seconds": _spent[0], "calls": _spent[1]}
        Path(self.args.output_dir, "accounting.json").write_text(json.dumps(document))
        return result

    SwiftMixin.train = train_accounted


_install()
