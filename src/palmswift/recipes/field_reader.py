"""What transformers' parser makes of a dataclass's field, from its source alone.

It follows `HfArgumentParser._parse_dataclass_field` of transformers 5.19 (4.57 is the same).
"""

from __future__ import annotations

import ast
import enum
import json
from types import NoneType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

from palmswift.recipes.class_reader import MISSING, ClassReader, DataClass, Unreadable

_LOG_LEVELS = ["detail", "debug", "info", "warning", "error", "critical", "passive"]
_RUN = {"trainer_log_levels.keys()": _LOG_LEVELS}
"""What only running code could tell, with its value in transformers 4.57 to 5.19."""


class _Field(NamedTuple):
    default: Any
    metadata: dict[str, Any]
    init: bool


def read_flag(
    reader: ClassReader, cls: DataClass, name: str, doc: str | None
) -> dict[str, Any] | None:
    """The flag of one field as the catalogue has it; None for one that is no argument."""
    line = cls.fields[name]
    field = _field(reader, cls, line.value)
    if not field.init:
        return None
    hint = reader.type_of(cls.module, line.annotation)
    flag: dict[str, Any] = {"kind": "str", "default": _plain(field.default)}
    kind = _stripped(hint)
    if get_origin(kind) is Literal or (isinstance(kind, type) and issubclass(kind, enum.Enum)):
        flag["kind"] = "choice"
        flag["choices"] = [choice for choice in _choices(kind) if choice is not None]
    elif kind is bool or kind == Union[bool, None]:  # noqa: UP007  # compared as typing has it
        flag["kind"] = "bool"
    elif get_origin(kind) is list or kind is list:
        flag["kind"] = _name(get_args(kind)[0])
        flag["many"] = True
    else:
        flag["kind"] = _name(kind)
    if "choices" in field.metadata:
        flag |= {"kind": "choice", "choices": list(field.metadata["choices"])}
    if dict in (hint, *get_args(hint)):
        flag["kind"] = "json"
    aliases = field.metadata.get("aliases", [])
    if aliases:
        flag["aliases"] = [aliases] if isinstance(aliases, str) else sorted(aliases)
    if doc:
        flag["doc"] = doc
    return flag


def _stripped(hint: Any) -> Any:
    """The type without the `str` or the None beside it, as the parser takes them away."""
    if get_origin(hint) is not Union:
        return hint
    parts = get_args(hint)
    if NoneType not in parts:
        return parts[0] if parts[1] is str else parts[1]
    if bool not in parts:
        return parts[0] if parts[1] is NoneType else parts[1]
    return hint


def _choices(kind: Any) -> list[Any]:
    if get_origin(kind) is Literal:
        return list(get_args(kind))
    return [member.value for member in kind]


def _name(kind: Any) -> str:
    return kind.__name__ if kind in (int, float, str) else "str"


def _field(reader: ClassReader, cls: DataClass, value: ast.expr | None) -> _Field:
    """The default, the aliases, and whether it is an argument at all."""
    if value is None:
        return _Field(MISSING, {}, True)
    if not (isinstance(value, ast.Call) and ast.unparse(value.func).endswith("field")):
        return _Field(_value(reader, cls, value), {}, True)
    given = {keyword.arg: keyword.value for keyword in value.keywords}
    default: Any = MISSING
    if "default" in given:
        default = _value(reader, cls, given["default"])
    factory = given.get("default_factory")
    if isinstance(factory, ast.Lambda):
        default = _value(reader, cls, factory.body)
    elif isinstance(factory, ast.Name):
        default = _value(reader, cls, ast.Call(factory, [], []))
    init = "init" not in given or _value(reader, cls, given["init"]) is True
    return _Field(default, _metadata(reader, cls, given.get("metadata")), init)


def _metadata(reader: ClassReader, cls: DataClass, node: ast.expr | None) -> dict[str, Any]:
    """The entries of a field's metadata that change its argument."""
    if not isinstance(node, ast.Dict):
        return {}
    entries = {
        key.value: value
        for key, value in zip(node.keys, node.values, strict=True)
        if isinstance(key, ast.Constant) and key.value in ("aliases", "choices")
    }
    read = {
        name: _RUN.get(ast.unparse(value), _value(reader, cls, value))
        for name, value in entries.items()
    }
    return {str(name): value for name, value in read.items() if value is not MISSING}


def _value(reader: ClassReader, cls: DataClass, node: ast.expr) -> Any:
    try:
        return reader.value_of(cls.module, node)
    except Unreadable:
        return MISSING


def _plain(value: Any) -> Any:
    if value is MISSING:
        return None
    try:
        json.dumps(value)
    except TypeError:
        return repr(value)
    return value
