"""An Ollama Modelfile for a GGUF file: the training's template, stop tokens, system prompt, policy.

Ollama has no Jinja: its templates are Go's. This one renders ChatML, message by message with
nothing stripped, which is what ms-swift trains Qwen's models with; that it makes the training's
tokens is checked on the run's own prompts (https://docs.ollama.com/modelfile).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from palmswift.errors import InputError
from palmswift.export.llama_cpp.templates import Policy, encoder
from palmswift.export.manifest import Check, Exported, manifest_of, read_manifest, write_manifest
from palmswift.files import write_text
from palmswift.launchers.checkpoint_files import read_document
from palmswift.recipes.recipe import SwiftValue
from palmswift.recipes.source import shown

if TYPE_CHECKING:
    from palmswift.command import Console
    from palmswift.deploy.parity_truth import Truth
    from palmswift.launchers.run_folder import RunFolder

_START, _END = "<|im_start|>", "<|im_end|>"
_NO_THOUGHTS = "<think>\n\n</think>\n\n"
_CONTEXT = 8192
"""Tokens of context where the model takes as many: Ollama's own 4096 cuts long prompts silently."""


def go_template(thinking: bool | None) -> str:
    """ChatML in Go's template language, for `enable_thinking` of the training.

    Without any trimming mark, so that every line break below is one of the prompt.
    """
    turn = f"{_START}{{{{ .Role }}}}\n{{{{ .Content }}}}{_END}\n"
    opening = f"{_START}assistant\n"
    if thinking is False:
        opening += _NO_THOUGHTS
    elif thinking is None:  # a model that can do both: as the request asks
        opening += f"{{{{ if and .IsThinkSet (not .Think) }}}}{_NO_THOUGHTS}{{{{ end }}}}"
    return f"{{{{ range .Messages }}}}{turn}{{{{ end }}}}{opening}"


def rendered(messages: Sequence[Mapping[str, str]], policy: Policy) -> str:
    """What Ollama makes of a conversation by `go_template`, nothing about thinking asked.

    It puts SYSTEM in front of a conversation that does not begin with a system prompt.
    """
    turns = [*messages]
    if policy.system and (not turns or turns[0]["role"] != "system"):
        turns.insert(0, {"role": "system", "content": policy.system})
    text = "".join(f"{_START}{one['role']}\n{one['content']}{_END}\n" for one in turns)
    return f"{text}{_START}assistant\n{_NO_THOUGHTS if policy.thinking is False else ''}"


def modelfile(
    source: str,
    policy: Policy,
    stops: Sequence[str],
    parameters: Mapping[str, SwiftValue],
    licence: str | None,
) -> str:
    """The Modelfile's text. `InputError`: a system prompt that it cannot hold."""
    if policy.system and '"""' in policy.system:
        raise InputError(
            'a Modelfile cannot hold the system prompt: it has """ in it',
            remedy="give the system prompt in each request, and train with one that can be written",
        )
    lines = [f"FROM {source}", f'TEMPLATE """{go_template(policy.thinking)}"""']
    if policy.system:
        lines.append(f'SYSTEM """{policy.system}"""')
    lines += [f'PARAMETER stop "{stop}"' for stop in stops]
    lines += [f"PARAMETER {name} {value}" for name, value in parameters.items()]
    if licence and '"""' not in licence:
        lines.append(f'LICENSE """{licence.strip()}"""')
    return "\n".join(lines) + "\n"


def ollama_stage(run: RunFolder, gguf: Exported, console: Console) -> Exported:
    """Write `export/ollama/Modelfile` for a GGUF file of the run.

    `InputError`: the file's manifest is gone, or the Modelfile cannot say what has to be said.
    """
    told = read_manifest(gguf.path.parent)
    if told is None:
        raise InputError(
            f"{shown(gguf.path)} has no manifest: its export did not come to its end",
            remedy=f"python launchers/export.py --run {run.path.name} --gguf KIND --ollama",
        )
    folder = run.path / "export" / "ollama"
    # What the gate puts into rows that have none; ms-swift itself is given none (recipes/check.py).
    policy = Policy(told.thinking, told.system or run.training_recipe.data.system)
    model = _model_folder(run)
    parameters = dict(_parameters(model, gguf))
    source = os.path.relpath(gguf.path, folder)
    licence = _licence(model, Path(told.base.folder))
    text = modelfile(source, policy, [*told.stop_tokens], parameters, licence)
    shutil.rmtree(folder, ignore_errors=True)
    write_text(folder / "Modelfile", text)
    made = Exported(
        kind="ollama",
        path=folder,
        asked=gguf.asked,
        found=gguf.found,
        bytes=gguf.bytes,
        settings={**parameters, "file": source},
        checks=[
            *_checks(run, gguf, policy._replace(system=told.system)),
            _stop_check(told.stop_tokens),
        ],
        parity=gguf.parity,
        remarks=[*_remarks(policy, licence, gguf)],
    )
    write_manifest(manifest_of(run, made, told.stop_tokens), folder)
    name = run.recipe.served_name
    console.note(f"ollama   ollama create {name} -f {shown(folder / 'Modelfile')}")
    return made


def _model_folder(run: RunFolder) -> Path:
    """The whole model that the file was made of, for what lies beside its weights."""
    merged = run.path / "export" / "merged"
    return merged if merged.is_dir() else run.path / str(run.facts("train")["checkpoint"])


def _parameters(model: Path, gguf: Exported) -> Iterator[tuple[str, SwiftValue]]:
    """How answers are drawn where a request does not say: as the model's own defaults have it."""
    told: dict[str, Any] = read_document(model / "generation_config.json") or {}
    sampled = bool(told.get("do_sample"))
    yield "temperature", told.get("temperature", 1.0) if sampled else 0
    for name in ("top_p", "top_k") if sampled else ():
        if told.get(name) is not None:
            yield name, told[name]
    # Ollama's own default is not 1, and changes the likeliest answer.
    yield "repeat_penalty", told.get("repetition_penalty") or 1.0
    longest = gguf.settings.get("context")
    yield "num_ctx", min(longest, _CONTEXT) if isinstance(longest, int) and longest else _CONTEXT


def _licence(*folders: Path) -> str | None:
    """The text of the first licence that lies in one of the folders."""
    for folder in folders:
        for name in ("LICENSE", "LICENSE.txt", "LICENSE.md"):
            if (folder / name).is_file():
                return (folder / name).read_text(encoding="utf-8", errors="replace")
    return None


def _checks(run: RunFolder, gguf: Exported, policy: Policy) -> Iterator[Check]:
    if gguf.parity is None:
        return
    from palmswift.export.gguf import truth_of

    yield template_check(truth_of(run), policy)


def template_check(truth: Truth, policy: Policy) -> Check:
    """Whether the Modelfile's template makes the training's tokens of every prompt."""
    encode = encoder(Path(truth.tokenizer))
    wrong = [
        one.prompt.name
        for one in truth.expected
        if encode(rendered(one.prompt.messages, policy)) != one.prompt_ids
    ]
    total = len(truth.expected)
    detail = f"{total - len(wrong)} of {total} prompts have the training's tokens"
    if wrong:
        detail += f"; not {', '.join(wrong[:3])}: the training's template is not plain ChatML"
    return Check(name="Ollama's template", passed=not wrong, detail=detail)


def _stop_check(stops: Mapping[str, int]) -> Check:
    known = [text for text in stops if text and not text.isdigit()]
    return Check(
        name="stop", passed=bool(known), detail=", ".join(known) or "no stop token has a text"
    )


def _remarks(policy: Policy, licence: str | None, gguf: Exported) -> Iterator[str]:
    if policy.thinking is not False:
        yield "thoughts stand in the answer, between <think> and </think>"
    if licence is None:
        yield "no LICENSE: none lies beside the model"
    if gguf.parity is None:
        yield "the template was not compared with the training's prompts"
    yield "tools are not in the template: Ollama refuses requests with tools"
