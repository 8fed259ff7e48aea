"""The chat template that a GGUF file carries: one that makes the tokens that were trained on.

llama.cpp renders the Jinja template in the file, and thinks unless it is told otherwise; ms-swift
trained with a template, a system prompt and a thinking policy of its own. So what the recipe says
is written into the template, and what comes out is compared with the training's tokens.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from palmswift.deploy.parity_truth import Expected, Truth

CHATML = """\
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""
"""For a model without a chat template that fits: messages as they are, nothing stripped."""


class Policy(NamedTuple):
    """What of the training is to hold whatever a request says."""

    thinking: bool | None
    """`enable_thinking`; None: the template's own default."""
    system: str | None
    """Put in front of a conversation that has none."""


class Chosen(NamedTuple):
    """A template, and how far it is the training's."""

    text: str
    origin: str
    """`the model's own`, `the model's own with the training's policy` or `plain ChatML`."""
    same: int
    """Prompts whose tokens are those of the training."""
    total: int
    first: str
    """The first prompt that differs, and where; empty when none does."""


def with_policy(template: str, policy: Policy) -> str:
    """The template, with the policy said in front of it in its own language."""
    lines = []
    if policy.system:
        words = json.dumps(policy.system, ensure_ascii=False)
        lines.append("{%- if not messages or messages[0].role != 'system' %}")
        first = f"{{'role': 'system', 'content': {words}}}"
        lines.append(f"    {{%- set messages = [{first}] + messages %}}")
        lines.append("{%- endif %}")
    if policy.thinking is not None:
        lines.append(f"{{%- set enable_thinking = {str(policy.thinking).lower()} %}}")
    return "\n".join([*lines, template])


def candidates(own: str | None, policy: Policy) -> dict[str, str]:
    """Templates by their origin, the one that changes least first."""
    found = {} if own is None else {"the model's own": own}
    if own is not None and policy != Policy(None, None):
        found["the model's own with the training's policy"] = with_policy(own, policy)
    return {**found, "plain ChatML": with_policy(CHATML, policy)}


def choose(own: str | None, policy: Policy, truth: Truth) -> Chosen:
    """The first template that makes the training's tokens of every prompt, else the best."""
    encode = encoder(Path(truth.tokenizer))
    tried = [
        _compared(text, origin, truth.expected, encode)
        for origin, text in candidates(own, policy).items()
    ]
    return max(tried, key=lambda one: one.same)  # the first of those that are as good


def unchecked(own: str | None, policy: Policy) -> Chosen:
    """What is taken when there is nothing to compare with."""
    name, text = [*candidates(own, policy).items()][-2 if own is not None else -1]
    return Chosen(text, name, 0, 0, "")


def _compared(
    text: str, origin: str, expected: Sequence[Expected], encode: Callable[[str], list[int]]
) -> Chosen:
    same, first = 0, ""
    for one in expected:
        try:
            made = render(text, one.prompt.messages)
        except TemplateError as error:
            made, why = "", f"the template fails: {error}"
        else:
            why = f"it makes {made[-60:]!r}"
        if made and encode(made) == one.prompt_ids:
            same += 1
        else:
            first = first or f"{one.prompt.name}: {why}"
    return Chosen(text, origin, same, len(expected), first)


def encoder(folder: Path) -> Callable[[str], list[int]]:
    """What the tokenizer in `folder` makes of a prompt's text, nothing added."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return lambda text: [*tokenizer.encode(text, add_special_tokens=False).ids]


def render(template: str, messages: Sequence[dict[str, str]]) -> str:
    """The prompt's text as transformers and llama.cpp render it, nothing about thinking said.

    `TemplateError`: the template cannot be read or refuses the messages.
    """
    settings = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    settings.filters["tojson"] = lambda value, **_: json.dumps(value, ensure_ascii=False)

    def refuse(reason: str) -> None:
        raise TemplateError(reason)

    settings.globals["raise_exception"] = refuse
    told: dict[str, Any] = {"messages": [*messages], "add_generation_prompt": True}
    return settings.from_string(template).render(**told)


def own_template(folder: Path) -> str | None:
    """The chat template that lies beside the weights."""
    alone = folder / "chat_template.jinja"
    if alone.is_file():
        return alone.read_text(encoding="utf-8")
    config = folder / "tokenizer_config.json"
    if not config.is_file():
        return None
    told = json.loads(config.read_text(encoding="utf-8")).get("chat_template")
    return told if isinstance(told, str) else None
