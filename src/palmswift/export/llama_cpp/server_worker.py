"""`llama-server` where there is no such program: the same server, out of the package xllamacpp.

`python -m palmswift.export.llama_cpp.server_worker -m FILE.gguf --host H --port P ...`, with the
few of llama-server's own options that are used here.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence

import xllamacpp


def _parsed(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("-m", dest="model", required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--alias", required=True)
    parser.add_argument("-c", dest="context", type=int, default=0)
    parser.add_argument("-np", dest="parallel", type=int, default=1)
    parser.add_argument("-t", dest="threads", type=int, default=-1)
    parser.add_argument("--jinja", action="store_true")
    parser.add_argument("--check-tensors", action="store_true")
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    """Serve until a signal comes."""
    told = _parsed(argv)
    settings = xllamacpp.CommonParams()
    settings.model.path = told.model
    settings.hostnames = [told.host]
    settings.port = told.port
    settings.model_alias = {told.alias}
    settings.n_ctx = told.context
    settings.n_parallel = told.parallel
    settings.cpuparams.n_threads = told.threads
    settings.use_jinja = told.jinja
    settings.check_tensors = told.check_tensors
    wanted = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, wanted)  # the server's own threads inherit it
    running = xllamacpp.Server(settings)
    signal.sigwait(wanted)
    del running
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
