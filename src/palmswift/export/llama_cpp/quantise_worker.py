"""`llama-quantize` where there is no such program: the same function, called through cyllama.

`python -m palmswift.export.llama_cpp.quantise_worker SOURCE.gguf OUT.gguf TYPE THREADS`
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from cyllama.llama import llama_cpp
from gguf import LlamaFileType


def main(argv: Sequence[str]) -> int:
    """Quantise with llama.cpp's `llama_model_quantize`; its exit code."""
    source, out, kind, threads = argv
    settings = llama_cpp.LlamaModelQuantizeParams()
    settings.ftype = LlamaFileType[f"MOSTLY_{kind}"].value
    settings.nthread = int(threads)
    llama_cpp.model_quantize(source, out, settings)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
