"""What goes with exported weights: the training's chat template, stop tokens, licence, a card.

ms-swift trains with a template, a system prompt and a thinking policy of its own; other servers
(vLLM, TGI, SGLang's own) render the folder's chat_template.jinja. So the template is compared with
the training's tokens, prompt by prompt, and what the recipe says is written into it where it must.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from palmswift.errors import InputError
from palmswift.export.llama_cpp.templates import Chosen, Policy, choose, own_template
from palmswift.export.manifest import Check
from palmswift.files import write_json, write_text
from palmswift.launchers.checkpoint_files import read_document

if TYPE_CHECKING:
    from palmswift.deploy.parity_truth import Truth
    from palmswift.launchers.run_folder import RunFolder

CARD = "README.md"


def carry_template(run: RunFolder, folder: Path, truth: Truth) -> Check:
    """Write the chat template that makes the training's tokens; how far one does."""
    swift = run.training_recipe.swift
    thinking, system = swift.get("enable_thinking"), swift.get("system")
    policy = Policy(
        thinking=thinking if isinstance(thinking, bool) else None,
        system=system if isinstance(system, str) else None,
    )
    chosen = choose(own_template(folder), policy, truth)
    _write_template(folder, chosen)
    told = f"{chosen.origin}: {chosen.same} of {chosen.total} prompts have the training's tokens"
    detail = "; ".join(filter(None, (told, chosen.first)))
    return Check(name="template", passed=chosen.same == chosen.total, detail=detail)


def _write_template(folder: Path, chosen: Chosen) -> None:
    """One place for it: servers differ in which of two they would take."""
    config = read_document(folder / "tokenizer_config.json")
    if config is not None and config.pop("chat_template", None) is not None:
        write_json(folder / "tokenizer_config.json", config)
    write_text(folder / "chat_template.jinja", chosen.text)


def carry_stops(folder: Path, truth: Truth) -> Check:
    """Make generation_config.json end answers where the training ended them."""
    file = folder / "generation_config.json"
    known = read_document(file) or {}
    told = known.get("eos_token_id")
    stops = told if isinstance(told, list) else [] if told is None else [told]
    missing = [one for one in truth.stop_ids if one not in stops]
    if missing:
        write_json(file, {**known, "eos_token_id": [*missing, *stops]})
    detail = f"added {missing}, which ended answers in training" if missing else ""
    return Check(name="stop tokens", passed=True, detail=detail)


def write_card(run: RunFolder, folder: Path, base: Path, what: str) -> None:
    """README.md: what this is, of which model, under which licence, and how it is served."""
    recipe = run.training_recipe
    licence = _licence(base)
    head = [f"base_model: {recipe.model.id}"] if "/" in recipe.model.id else []
    head += [f"license: {licence}"] if licence else []
    if head:
        head = ["---", *head, "library_name: transformers", "---", ""]
    kept = sorted(file.name for file in folder.glob("LICEN*"))
    lines = [
        *head,
        f"# {recipe.served_name}",
        "",
        f"{recipe.summary}. {what}, made by palmswift from {recipe.model.id}"
        f" ({run.path.name}); palmswift-export.json has the whole story.",
        "",
        f"Licence: that of the base{f', in {kept[0]}' if kept else ''}"
        f"{f' ({licence})' if licence else ''}.",
        "",
        "```",
        "python deploy/serve.py --model .",
        "```",
        "",
    ]
    write_text(folder / CARD, "\n".join(lines))


def _licence(base: Path) -> str:
    """The licence that the base's own model card names."""
    try:
        lines = (base / CARD).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    if not lines or lines[0].strip() != "---":
        return ""
    for line in lines[1:]:
        if line.strip() == "---":
            break
        if line.startswith("license:"):
            return line.partition(":")[2].strip()
    return ""


def require_free_folder(out: Path) -> None:
    """`InputError` where a folder has something in it already: nothing of another's is replaced."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(
            f"{out} is there already, with other things in it",
            remedy="--out takes a folder that is new or empty",
        )
