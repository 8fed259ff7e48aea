"""Writes recipes/recipe.schema.json, from which editors complete, explain and check a recipe.

`python -m palmswift.recipes.schema`. Nothing is required in it, since a recipe may leave any key
to its base, and null is allowed everywhere, since it takes a key of the base away.
"""

from __future__ import annotations

import ast
import inspect
import json
from types import ModuleType
from typing import Any

from palmswift.files import write_text
from palmswift.recipes import launch as launch_module
from palmswift.recipes import recipe as recipe_module
from palmswift.recipes.catalogue import Catalogue, Flag, load_catalogue
from palmswift.recipes.check import OWNED
from palmswift.recipes.recipe import Recipe
from palmswift.recipes.source import recipes_dir

_TYPES = {"str": "string", "int": "integer", "float": "number", "bool": "boolean"}


def build() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a recipe file."""
    catalogue = load_catalogue()
    schema = Recipe.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "A palmswift recipe"
    sections = {"Recipe": schema, **schema["$defs"]}
    docs = field_docs(recipe_module) | field_docs(launch_module)
    for name, section in sections.items():
        section.pop("required", None)
        for key, field in section.get("properties", {}).items():
            if (name, key) in docs:
                field["description"] = docs[name, key]
            section["properties"][key] = _or_null(field)
    training = {**catalogue.flags("rlhf"), **catalogue.flags("pt"), **catalogue.flags("sft")}
    schema["properties"]["swift"] = _arguments("swift", training, catalogue)
    deploying = _arguments("deploy.swift", catalogue.flags("deploy"), catalogue)
    schema["$defs"]["DeploySettings"]["properties"]["swift"] = deploying
    return schema


def as_text(schema: dict[str, Any]) -> str:
    """The schema as it is committed."""
    return json.dumps(schema, ensure_ascii=False, indent=1, sort_keys=True) + "\n"


def main() -> int:
    """Write the schema beside the recipes; returns 0."""
    path = recipes_dir() / "recipe.schema.json"
    write_text(path, as_text(build()))
    print(path)
    return 0


def _arguments(section: str, flags: dict[str, Flag], catalogue: Catalogue) -> dict[str, Any]:
    allowed = {name: flag for name, flag in flags.items() if name not in OWNED[section]}
    return {
        "type": "object",
        "description": f"Arguments of ms-swift {catalogue.ms_swift}, by their own names.",
        "additionalProperties": False,
        "properties": {name: _argument(flag) for name, flag in sorted(allowed.items())},
    }


def _argument(flag: Flag) -> dict[str, Any]:
    described: dict[str, Any] = {"description": flag.doc} if flag.doc else {}
    if flag.default is not None:
        described["default"] = flag.default
    if flag.kind == "choice":
        word: dict[str, Any] = {"enum": flag.choices}
    elif flag.kind == "json":
        word = {"type": ["object", "string"]}
    else:
        word = {"type": _TYPES[flag.kind]}
    if flag.many:
        word = {"anyOf": [word, {"type": "array", "items": word, "minItems": 1}]}
    return {**described, **_or_null(word)}


def _or_null(field: dict[str, Any]) -> dict[str, Any]:
    if "enum" in field:
        without_type = {key: value for key, value in field.items() if key != "type"}
        return {**without_type, "enum": [*field["enum"], None]}
    if "anyOf" in field:
        branches = [branch for branch in field["anyOf"] if branch != {"type": "null"}]
        return {**field, "anyOf": [*branches, {"type": "null"}]}
    if "type" in field:
        types = field["type"] if isinstance(field["type"], list) else [field["type"]]
        return {**field, "type": [*types, "null"]}
    return field


def field_docs(module: ModuleType) -> dict[tuple[str, str], str]:
    """The text under each field of the module's classes, by class and field name."""
    docs: dict[tuple[str, str], str] = {}
    for node in ast.parse(inspect.getsource(module)).body:
        if not isinstance(node, ast.ClassDef):
            continue
        for field, text in zip(node.body, node.body[1:], strict=False):
            match field, text:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str(words))),
                ):
                    docs[node.name, name] = " ".join(words.split())
    return docs


if __name__ == "__main__":
    raise SystemExit(main())
