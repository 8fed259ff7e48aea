from __future__ import annotations

import subprocess
import sys

_COMMANDS = (
    *("run", "batch", "bench", "score_command", "chat", "make_suite", "judge_command", "rate"),
    *("perplexity_command", "consistency_command"),
)


def test_the_commands_load_nothing_heavy_before_they_need_it() -> None:
    modules = ", ".join(f"palmswift.eval.{m}" for m in _COMMANDS)
    heavy = {
        "torch",
        "transformers",
        "swift",
        "aiohttp",
        "numpy",
        "sacrebleu",
        "jinja2",
        "rich",
        "requests",
    }
    done = subprocess.run(
        [sys.executable, "-c", f"import sys, {modules}; print({heavy!r} & set(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "set()"
