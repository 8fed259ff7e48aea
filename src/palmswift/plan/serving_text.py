"""How a plan of a server is told: lines, commands with its numbers, all ways side by side."""

from __future__ import annotations

import shlex
from typing import Literal, NamedTuple

from palmswift.errors import InputError
from palmswift.plan.serving import ServingConditions, ServingPlan, plan_serving
from palmswift.recipes.recipe import Recipe, flag_words

_NEEDS = {
    ("vllm", "bnb-4bit"): "pip install vllm-bnb-plugin (vLLM 0.32 has no bitsandbytes of its own)",
    ("vllm", "fp8"): "a card of compute capability 8.9 or more for its 8-bit units, 8.0 to load it",
    ("transformers", "awq"): "pip install gptqmodel, which transformers loads AWQ with",
    ("transformers", "gptq"): "pip install gptqmodel optimum",
}
"""What a backend asks for besides, where that is not installed with it."""

_NAMES = {"transformers": "swift deploy", "vllm": "vLLM", "llama.cpp": "llama.cpp"}


class Ways(NamedTuple):
    """The ways to serve what a recipe trains, on one card; None: it cannot be told for it."""

    swift: ServingPlan | None
    vllm: ServingPlan | None
    gguf: ServingPlan | None

    @property
    def best(self) -> ServingPlan | None:
        """The one with most requests at a time of those that lose nothing more, if any fits.

        Where two do as well: ms-swift's own server, which is installed already.
        """
        fitting = [plan for plan in self if plan is not None and plan.fits]
        fitting.sort(key=lambda plan: (not plan.as_trained, -plan.parallel_requests))
        return fitting[0] if fitting else None


def ways_of(recipe: Recipe, conditions: ServingConditions | None = None) -> Ways:
    """Each backend's plan: weights as trained where it can, else in its usual 4 bits.

    None of them for what is made for no NVIDIA card.
    """
    asked = conditions or ServingConditions()
    if not recipe.needs_gpu or recipe.launch.engine == "mlx" or recipe.launch.device == "npu":
        return Ways(None, None, None)

    def plan(backend: str, *weights: str | None) -> ServingPlan | None:
        for kind in weights:
            try:
                return plan_serving(recipe, asked._replace(backend=backend, weights=kind))
            except InputError:
                continue
        return None

    return Ways(plan("transformers", None), plan("vllm", None, "awq"), plan("llama.cpp", None))


def serving_text(plan: ServingPlan, run: str = "latest") -> str:
    """One plan as lines of text, with its commands."""
    kv = plan.kv_bytes_per_token / 1024
    lines = [
        f"{plan.recipe}: {plan.model} served by {plan.backend}, weights {plan.weights}",
        "",
        "before the first request (MiB, predicted)",
        *(f"  {name:<22}{size:>7}" for name, size in plan.terms_mib.items()),
        "",
        f"card {plan.gpu_mib} MiB, usable {plan.usable_mib}; {plan.free_mib} left for requests",
        f"KV cache {kv:.0f} KiB a token",
    ]
    if plan.memory_fraction is not None:
        lines.append(f"memory fraction: gpu_memory_utilization {plan.memory_fraction:.2f}")
    lines.append(
        f"one request at a time: up to {plan.longest_context:,} tokens"
        f" (the limit is {plan.context_limit:,})"
    )
    if not plan.fits:
        wanted = f"{_requests(plan.wanted_requests)} of {plan.context:,} tokens at a time"
        return "\n".join([*lines, f"DOES NOT FIT: {wanted}"])
    lines += [
        f"parallel requests of {plan.context:,} tokens: {plan.parallel_requests}",
        f"fits; start it for up to {plan.max_model_len:,} tokens:",
        "",
        *(f"  {line}" for line in commands_of(plan, run)),
    ]
    if needs := _NEEDS.get((plan.backend, plan.weights)):
        lines += ["", f"needs: {needs}"]
    return "\n".join(lines)


def ways_text(ways: Ways) -> str:
    """All ways as a short table."""
    lines = ["on the same card (predicted)"]
    lines += [f"  {cell}" for cell in map(way_line, ways) if cell]
    return "\n".join(lines)


def way_line(plan: ServingPlan | None) -> str:
    """One way in a line."""
    if plan is None:
        return ""
    name = f"{_NAMES[plan.backend]}, {plan.weights}"
    return f"{name:<22}  {capacity(plan)}"


def capacity(plan: ServingPlan) -> str:
    """What a plan can do, in words."""
    if plan.fits:
        return f"{_requests(plan.parallel_requests)} of {plan.context:,} tokens at a time"
    if plan.longest_context:
        return f"does not fit: alone, a request may have {plan.longest_context:,} tokens"
    return "does not fit"


def _requests(count: int) -> str:
    return "1 request" if count == 1 else f"{count:,} requests"


def commands_of(plan: ServingPlan, run: str = "latest") -> list[str]:
    """What is typed to serve a finished run so."""
    if plan.backend == "llama.cpp":
        return [
            f"python launchers/export.py --run {shlex.quote(run)} --gguf {plan.weights}",
            "llama-server --host 127.0.0.1 --port 8000 --n-gpu-layers 99"
            f" --ctx-size {plan.parallel_requests * plan.max_model_len}"
            f" --parallel {plan.parallel_requests} --model FILE.gguf",
        ]
    chosen: Literal["--server vllm", "--backend transformers"]
    chosen = "--server vllm" if plan.backend == "vllm" else "--backend transformers"
    sets = " ".join(
        f"--set {name}={shlex.quote(' '.join(flag_words(value)))}"
        for name, value in plan.settings.items()
    )
    if plan.as_trained:
        return [f"python deploy/serve.py --run {shlex.quote(run)} {chosen} {sets}"]
    made = {"bf16": "--merge", "bnb-4bit": "--quant bnb", "bnb-8bit": "--quant bnb --bits 8"}
    wanted = made.get(plan.weights, f"--quant {plan.weights}")
    return [
        f"python launchers/export.py --run {shlex.quote(run)} {wanted}",
        f"python deploy/serve.py --model EXPORTED {chosen} {sets}",
    ]
