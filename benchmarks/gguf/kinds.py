"""Every kind of GGUF of one run's model: its size, and how far its answers are from the training's.

`python -m benchmarks.gguf.kinds --run latest --whole FILE.gguf`, where FILE is what
`launchers/export.py --gguf f32` made of the run, and the run was compared before
(`deploy/parity.py --run RUN --prepare`). It measures no time.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from palmswift.export.gguf import composed, truth_of
from palmswift.export.llama_cpp import tools
from palmswift.export.llama_cpp.kinds import KINDS
from palmswift.export.llama_cpp.proof import prove
from palmswift.export.proof import Standard
from palmswift.files import write_json
from palmswift.launchers.record import hardware, package_versions
from palmswift.launchers.run_folder import find_run, utc_now

RECORDS = Path(__file__).parents[1] / "records"


def measured(whole: Path, kind: str, truth: Any, folder: Path) -> dict[str, Any]:
    """One kind, made of the whole file."""
    file = folder / f"{kind}.gguf"
    words = [*tools.quantiser(None).argv, str(whole), str(file), kind.upper(), "2"]
    subprocess.run(words, check=True, capture_output=True)
    form, server = KINDS[kind], tools.server(None)
    if server is None:
        raise SystemExit(f"no llama.cpp: {tools.EXTRA}")
    standard = Standard(form.limit, "quantisation_loss", lossy=form.outtype is None)
    log = folder / f"{kind}.log"
    found = prove(server, file, truth, run_name=kind, log=log, standard=standard)
    answers = [one.answer for one in found.prompts]
    return {
        "bytes": file.stat().st_size,
        "ratio": round(file.stat().st_size / whole.stat().st_size, 4),
        "divergence_nats_a_token": found.divergence,
        "limit": form.limit,
        "same_prompts": sum(one.prompt == "same" for one in found.prompts),
        "same_answers": answers.count("same"),
        "close_calls": answers.count("tie"),
        "prompts": len(answers),
        "causes": sorted(found.causes),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Measure all kinds and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", default="latest")
    parser.add_argument("--whole", type=Path, required=True)
    told = parser.parse_args(argv)
    run = find_run(told.run)
    truth = composed(truth_of(run))
    with tempfile.TemporaryDirectory() as scratch:
        kinds = {
            kind: measured(told.whole, kind, truth, Path(scratch))
            for kind, form in KINDS.items()
            if form.outtype in (None, "f16", "bf16")
        }
    server = tools.server(None)
    record = {
        "measured": utc_now(),
        "command": "python -m benchmarks.gguf.kinds --run RUN --whole FILE.gguf",
        "machine": hardware(),
        "versions": package_versions(),
        "tools": [tools.quantiser(None).origin, server.origin if server else None],
        "recipe": run.recipe.name,
        "whole_bytes": told.whole.stat().st_size,
        "kinds": kinds,
    }
    write_json(RECORDS / f"gguf-kinds-{utc_now()[:10]}.json", record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
