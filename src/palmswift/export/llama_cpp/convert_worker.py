"""Runs llama.cpp's own converter, with the pre-tokenizer declared where it has no hash of one.

`python -m palmswift.export.llama_cpp.convert_worker FOLDER NAME ARGUMENTS...`: FOLDER has
`convert_hf_to_gguf.py`, NAME is a pre-tokenizer that was checked (`-`: none), and ARGUMENTS are
the converter's own.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any


def _declare(text_model: Any, name: str) -> None:
    """Let the converter take `name` where its own table does not know the tokenizer."""
    by_hash = text_model.get_vocab_base_pre

    def by_hash_else_declared(self: Any, tokenizer: Any) -> str:
        try:
            return str(by_hash(self, tokenizer))
        except NotImplementedError:
            return name

    text_model.get_vocab_base_pre = by_hash_else_declared


def main(argv: Sequence[str]) -> int:
    """Convert; the exit code."""
    folder, name, *arguments = argv
    # In front of the package index's gguf: the converter goes with the one beside it.
    sys.path[:0] = [folder, f"{folder}/gguf-py"]
    script = importlib.import_module("convert_hf_to_gguf")
    if name != "-":
        whole = hasattr(script, "TextModel")  # before it was divided into modules
        _declare((script if whole else importlib.import_module("conversion.base")).TextModel, name)
    sys.argv = ["convert_hf_to_gguf.py", *arguments]
    script.main()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
