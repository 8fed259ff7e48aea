"""Reads dataclasses from source text: lineage, annotations and defaults, without importing them."""

from __future__ import annotations

import ast
import enum
import operator
import typing
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import NoneType
from typing import Any, NamedTuple

_BUILTINS = {kind.__name__: kind for kind in (str, int, float, bool, dict, list, tuple, set)}
_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
MISSING = object()
"""The value of a field that has no default, or one that only running code could tell."""


class Unreadable(Exception):
    """An expression whose value only running code could tell."""


class Imported(NamedTuple):
    """A name that a module takes from another one."""

    module: str
    name: str


@dataclass
class Module:
    """The names that a module binds at its top."""

    name: str
    is_package: bool
    names: dict[str, ast.ClassDef | ast.expr | Imported] = field(default_factory=dict)
    stars: list[str] = field(default_factory=list)
    """Modules that it takes every name of."""


class Sources:
    """Python source by module name, from wheels or from folders of packages."""

    def __init__(self, roots: Sequence[zipfile.ZipFile | Path]) -> None:
        self._roots = roots
        self._modules: dict[str, Module | None] = {}

    def module(self, name: str) -> Module | None:
        """The module called `name`; None: no root has it."""
        if name not in self._modules:
            self._modules[name] = self._read(name)
        return self._modules[name]

    def _read(self, name: str) -> Module | None:
        path = name.replace(".", "/")
        for ending, is_package in ((".py", False), ("/__init__.py", True)):
            text = self._text(path + ending)
            if text is not None:
                module = Module(name, is_package)
                _bind(module, ast.parse(text).body)
                return module
        return None

    def _text(self, path: str) -> str | None:
        for root in self._roots:
            if isinstance(root, zipfile.ZipFile):
                if path in root.NameToInfo:
                    return root.read(path).decode("utf-8")
            elif (root / path).is_file():
                return (root / path).read_text(encoding="utf-8")
        return None


def _bind(module: Module, body: Sequence[ast.stmt]) -> None:
    """Note what the statements bind; a branch that runs wins over the one in its place."""
    for node in body:
        match node:
            case ast.ClassDef(name=name):
                module.names[name] = node
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                module.names[name] = value
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                module.names[name] = value
            case ast.ImportFrom():
                _bind_import(module, node)
            case ast.If():
                _bind(module, node.orelse)
                _bind(module, node.body)
            case ast.Try():
                for handler in node.handlers:
                    _bind(module, handler.body)
                _bind(module, node.body)


def _bind_import(module: Module, node: ast.ImportFrom) -> None:
    source = node.module or ""
    if node.level:
        package = module.name if module.is_package else module.name.rpartition(".")[0]
        for _ in range(node.level - 1):
            package = package.rpartition(".")[0]
        source = f"{package}.{source}".rstrip(".")
    for alias in node.names:
        if alias.name == "*":
            module.stars.append(source)
        else:
            module.names[alias.asname or alias.name] = Imported(source, alias.name)


class Bound(NamedTuple):
    """What a name stands for, and the module that says so."""

    module: Module
    node: ast.ClassDef | ast.expr


@dataclass(frozen=True)
class DataClass:
    """A class, and the fields that it declares itself if it is a dataclass."""

    module: Module
    """Its module's names, and its own body's over them."""
    node: ast.ClassDef
    fields: dict[str, ast.AnnAssign]

    @property
    def label(self) -> str:
        """Its name, with the package before it unless that is swift."""
        package = self.module.name.partition(".")[0]
        return self.node.name if package == "swift" else f"{package}.{self.node.name}"

    @property
    def doc(self) -> str:
        """Its docstring as it is written."""
        return ast.get_docstring(self.node, clean=False) or ""


class ClassReader:
    """Finds classes in the sources and works their expressions out."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._enums: dict[tuple[str, str], Any] = {}

    def find(self, module: str, name: str) -> DataClass | None:
        """The class that `module` calls `name`; None: it has no class of that name."""
        here = self._sources.module(module)
        found = self._resolve(here, name) if here else None
        if found is None or not isinstance(found.node, ast.ClassDef):
            return None
        return _data_class(found.module, found.node)

    def lineage(self, cls: DataClass) -> list[DataClass]:
        """The class and those that it inherits from, in Python's method resolution order."""
        parents = []
        for base in cls.node.bases:
            if isinstance(base, ast.Name):
                found = self.find(cls.module.name, base.id)
                parents += [found] if found else []
        return [cls, *_merged([*(self.lineage(parent) for parent in parents), parents])]

    def type_of(self, module: Module, node: ast.expr) -> Any:
        """The type that an annotation means; a class that is no Enum becomes an opaque type."""
        match node:
            case ast.Constant(value=None):
                return NoneType
            case ast.Constant(value=str(text)):
                return self.type_of(module, ast.parse(text, mode="eval").body)
            case ast.BinOp(left=left, op=ast.BitOr(), right=right):
                return typing.Union[self.type_of(module, left), self.type_of(module, right)]  # noqa: UP007
            case ast.Subscript(value=outer, slice=inner):
                return self._generic(module, outer, inner)
            case ast.Name(id=name) | ast.Attribute(attr=name):
                return self._named_type(module, name)
        raise Unreadable(ast.unparse(node))

    def value_of(self, module: Module, node: ast.expr) -> Any:
        """The value of an expression. Unreadable: only running code could tell."""
        match node:
            case ast.Constant(value=value):
                return value
            case ast.List(elts=parts) | ast.Tuple(elts=parts) | ast.Set(elts=parts):
                return [self.value_of(module, part) for part in parts]
            case ast.Dict(keys=keys, values=values) if None not in keys:
                return {
                    self.value_of(module, key): self.value_of(module, value)
                    for key, value in zip(keys, values, strict=True)
                    if key is not None
                }
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -self.value_of(module, operand)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
                return _OPERATORS[type(op)](
                    self.value_of(module, left), self.value_of(module, right)
                )
            case ast.Call(func=ast.Name(id="list" | "dict" as kind), args=[]):
                return _BUILTINS[kind]()
            case ast.Attribute(value=ast.Name(id=owner), attr=member):
                return self._member(module, owner, member)
            case ast.Name(id=name):
                found = self._resolve(module, name)
                if found and isinstance(found.node, ast.expr):
                    return self.value_of(found.module, found.node)
        raise Unreadable(ast.unparse(node))

    def _generic(self, module: Module, outer: ast.expr, inner: ast.expr) -> Any:
        name = outer.attr if isinstance(outer, ast.Attribute) else ast.unparse(outer)
        parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
        if name == "Literal":
            return typing.Literal[tuple(self.value_of(module, part) for part in parts)]
        types = tuple(self.type_of(module, part) for part in parts)
        kind: Any = _BUILTINS.get(name.lower(), getattr(typing, name, None))
        if kind is None:
            raise Unreadable(ast.unparse(outer))
        return kind[types if len(types) > 1 else types[0]]

    def _named_type(self, module: Module, name: str) -> Any:
        if name in _BUILTINS:
            return _BUILTINS[name]
        found = self._resolve(module, name)
        if found and isinstance(found.node, ast.ClassDef):
            return self._enum(found.module, found.node) or type(name, (), {})
        return getattr(typing, name, type(name, (), {}))

    def _enum(self, module: Module, node: ast.ClassDef) -> Any:
        """The class as an Enum; None: it is none."""
        bases = {ast.unparse(base).rpartition(".")[2] for base in node.bases}
        if not bases & {"Enum", "ExplicitEnum", "StrEnum"}:
            return None
        key = (module.name, node.name)
        if key not in self._enums:
            members = dict(self._members(module, node))
            self._enums[key] = enum.Enum(node.name, members)
        return self._enums[key]

    def _members(self, module: Module, node: ast.ClassDef) -> Iterator[tuple[str, Any]]:
        for line in node.body:
            match line:
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    yield name, self.value_of(module, value)

    def _member(self, module: Module, owner: str, member: str) -> Any:
        found = self._resolve(module, owner)
        if found and isinstance(found.node, ast.ClassDef):
            for name, value in self._members(found.module, found.node):
                if name == member:
                    return value
        raise Unreadable(f"{owner}.{member}")

    def _resolve(self, here: Module, name: str) -> Bound | None:
        """Where a name is bound, through any number of imports."""
        bound = here.names.get(name)
        if isinstance(bound, Imported):
            source = self._sources.module(bound.module)
            return self._resolve(source, bound.name) if source else None
        if bound is not None:
            return Bound(here, bound)
        for star in here.stars:
            source = self._sources.module(star)
            found = self._resolve(source, name) if source else None
            if found is not None:
                return found
        return None


def _data_class(module: Module, node: ast.ClassDef) -> DataClass:
    decorators = {ast.unparse(one).partition("(")[0] for one in node.decorator_list}
    fields = {}
    if {"dataclass", "dataclasses.dataclass"} & decorators:
        for line in node.body:
            match line:
                case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation):
                    if "ClassVar" not in ast.unparse(annotation):
                        fields[name] = line
    scope = replace(module, names=dict(module.names))
    _bind(scope, [line for line in node.body if not isinstance(line, ast.AnnAssign)])
    return DataClass(scope, node, fields)


def _merged(lines: list[list[DataClass]]) -> list[DataClass]:
    """C3: the first head that is in no other line's tail, again and again."""
    merged: list[DataClass] = []
    lines = [list(line) for line in lines if line]
    while lines:
        tails = {(c.module.name, c.node.name) for line in lines for c in line[1:]}
        head = next(c for c, *_ in lines if (c.module.name, c.node.name) not in tails)
        merged.append(head)
        key = (head.module.name, head.node.name)
        kept = ([c for c in line if (c.module.name, c.node.name) != key] for line in lines)
        lines = [line for line in kept if line]
    return merged
