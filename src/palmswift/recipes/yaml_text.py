"""Reads YAML into plain values and keeps the line of every key, so that errors can point at it.

Scalars follow YAML 1.2's core schema: `no` and `on` are text, not booleans, `1e-4` is a number
(PyYAML's YAML 1.1 makes it text), dates are text. Aliases and other tags are
refused.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import yaml

from palmswift.errors import Problem

Key = tuple[str, ...]
"""Where a value stands in a document: the keys from the top."""

_STR, _MAP, _SEQ = (f"tag:yaml.org,2002:{name}" for name in ("str", "map", "seq"))
_NULL, _BOOL, _INT, _FLOAT = (
    f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float")
)
_CORE = {
    _NULL: (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    _BOOL: (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    _INT: (r"[-+]?[0-9]+", list("-+0123456789")),
    _FLOAT: (
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
}
_PATTERNS = {tag: re.compile(rf"^(?:{pattern})$") for tag, (pattern, _) in _CORE.items()}


class _Loader(yaml.SafeLoader):
    """Resolves the core schema only."""


class _Dumper(yaml.SafeDumper):
    """Keeps the YAML 1.1 rules too, and so quotes whatever either version reads otherwise."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        """Double quotes where PyYAML would fold a Unicode line break into a space."""
        broken = any(mark in text for mark in "\x85\u2028\u2029")
        return self.represent_scalar(_STR, text, style='"' if broken else None)


_Dumper.add_representer(str, _Dumper.represent_text)
_Loader.yaml_implicit_resolvers = {}
for _class in (_Loader, _Dumper):
    for _tag, (_, _first) in _CORE.items():
        _class.add_implicit_resolver(_tag, _PATTERNS[_tag], _first)


class YamlText(NamedTuple):
    """A document's value, the line of each key in it (from 1), and what was wrong with it."""

    value: Any
    lines: dict[Key, int]
    problems: list[Problem]


def parse(text: str, name: str) -> YamlText:
    """Read one YAML document; `name` stands before the line in its problems.

    What cannot be read at all (syntax, depth) leaves the value None and one problem.
    """
    reader = _Reader(name)
    try:
        node = _Loader(text).get_single_node()
        value = None if node is None else reader.value(node, ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        what = error.problem or error.context or "is not YAML"
        return _unreadable(f"{name}:{line}", f"broken YAML: {what}")
    except yaml.YAMLError as error:  # a character that YAML does not allow, which has no line
        return _unreadable(name, f"broken YAML: {error}".replace("\n", " "))
    except RecursionError:  # PyYAML recurses into nested collections
        return _unreadable(name, "nested too deeply")
    return YamlText(value, reader.lines, reader.problems)


def dump(value: Any) -> str:
    """`value` as YAML that this module, PyYAML and YAML 1.2 readers all read alike."""
    text: str = yaml.dump(
        value, Dumper=_Dumper, allow_unicode=True, sort_keys=False, default_flow_style=False
    )
    return text


class _Reader:
    """Turns nodes into values, noting each key's line and what is refused."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lines: dict[Key, int] = {}
        self.problems: list[Problem] = []
        self._seen: set[int] = set()

    def value(self, node: yaml.Node, key: Key) -> Any:
        if id(node) in self._seen:
            self._refuse(node, "an alias points here, and aliases are not read", "write it out")
            return None
        self._seen.add(id(node))
        if node.tag not in {_STR, _MAP, _SEQ, *_CORE}:
            self._refuse(node, f"the tag {node.tag} is not read here", "write the plain value")
            return None
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, key)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, key) for item in node.value]
        return self._scalar(node)

    def _mapping(self, node: yaml.MappingNode, key: Key) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name_node, value_node in node.value:
            if name_node.tag != _STR:
                self._refuse(name_node, "a key that is not text", "put it in quotes")
                continue
            name = name_node.value
            here = (*key, name)
            if name in values:
                what = f"`{'.'.join(here)}` stands twice (first on line {self.lines[here]})"
                self._refuse(name_node, what, "keep one of them")
                continue
            self.lines[here] = name_node.start_mark.line + 1
            values[name] = self.value(value_node, here)
        return values

    def _scalar(self, node: yaml.Node) -> Any:
        text = str(node.value)
        if node.tag in _PATTERNS and not _PATTERNS[node.tag].match(text):
            self._refuse(node, f"{text[:40]!r} does not fit its tag {node.tag}")
            return None
        try:
            return _convert(node.tag, text)
        except ValueError:  # more digits than Python turns into a number
            self._refuse(node, f"a number of {len(text)} digits")
            return None

    def _refuse(self, node: yaml.Node, what: str, remedy: str = "") -> None:
        self.problems.append(Problem(what, f"{self.name}:{node.start_mark.line + 1}", remedy))


def _convert(tag: str, text: str) -> Any:
    if tag == _NULL:
        return None
    if tag == _BOOL:
        return text.lower() == "true"
    if tag == _INT:
        return int(text)
    if tag == _FLOAT:
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text


def _unreadable(where: str, what: str) -> YamlText:
    return YamlText(None, {}, [Problem(what, where)])
