"""Modules as texts: their definitions, what these use, and how they read with other names and without some members."""

from __future__ import annotations

import ast
import importlib.util
import inspect
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache

from leanformer.core.errors import LeanformerError


@dataclass(frozen=True)
class Lines:
    """Consecutive lines of a module, with the comment above them.

    Args:
        nodes: The statements there.
        first: The first line, counted from 1.
        last: The last line.
    """

    nodes: tuple[ast.stmt, ...]
    first: int
    last: int


@dataclass(frozen=True)
class Member:
    """A method, a class or a documented class variable inside a class, which may be left out where nothing uses it."""

    name: str
    lines: Lines


@dataclass(frozen=True)
class Definition:
    """A function, a class or an assignment at the top of a module.

    Args:
        name: The name that it defines.
        lines: Its lines, with the text that documents an assignment.
        members: Those of a class.
        effects: Later statements of the module that change what it defines.
        declared: Whether a type is all that is said of it: its value is given elsewhere.
    """

    name: str
    lines: Lines
    members: tuple[Member, ...] = ()
    effects: list[Lines] = field(default_factory=list)
    declared: bool = False

    def nodes(self, without: Collection[str] = ()) -> Iterator[ast.AST]:
        """All nodes of its syntax tree, but for those of the members that are left out."""
        left_out = {id(node) for member in self.members if member.name in without for node in member.lines.nodes}
        waiting: list[ast.AST] = [*self.lines.nodes, *(node for effect in self.effects for node in effect.nodes)]
        while waiting:
            node = waiting.pop()
            if id(node) not in left_out:
                yield node
                waiting.extend(ast.iter_child_nodes(node))


@dataclass(frozen=True)
class Imported:
    """What an import binds a name to: a module, or a name in it."""

    module: str
    name: str | None


class Source:
    """A module's source.

    Args:
        name: The module's name; it is imported.

    Attributes:
        definitions: Name -> what the module defines.
        imports: Name -> what the module imports.

    Raises:
        LeanformerError: The source cannot be read.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.module = importlib.import_module(name)
        try:
            text = inspect.getsource(self.module)
        except (OSError, TypeError) as error:
            raise LeanformerError(f"the source of the module {name!r} cannot be read") from error
        self._lines = text.splitlines()
        tree = ast.parse(text)
        self.summary = (ast.get_docstring(tree) or "").partition("\n")[0]
        self.definitions: dict[str, Definition] = {}
        self.imports: dict[str, Imported] = {}
        self._read(tree.body)

    def _read(self, body: list[ast.stmt]) -> None:
        for number, node in enumerate(body):
            names = _defined(node)
            if isinstance(node, ast.Import | ast.ImportFrom):
                self._note_import(node)
            elif isinstance(node, ast.If):  # of names that are for annotations alone
                self._read(node.body)
            elif names:
                following = body[number + 1] if number + 1 < len(body) else None
                text = isinstance(node, ast.Assign | ast.AnnAssign) and following is not None and _is_text(following)
                lines = self._span(node, *([following] if text and following is not None else []))
                members = self._members(node) if isinstance(node, ast.ClassDef) else ()
                declared = isinstance(node, ast.AnnAssign) and node.value is None
                for name in names:
                    self.definitions[name] = Definition(name, lines, members, declared=declared)
            elif (changed := _changed(node)) in self.definitions:
                self.definitions[changed].effects.append(self._span(node))

    def _note_import(self, node: ast.Import | ast.ImportFrom) -> None:
        if isinstance(node, ast.Import):
            for alias in node.names:
                bound = alias.asname or alias.name.partition(".")[0]
                self.imports[bound] = Imported(alias.name if alias.asname else bound, None)
            return
        module = node.module or ""
        if node.level:
            package = self.name if hasattr(self.module, "__path__") else self.name.rpartition(".")[0]
            module = importlib.util.resolve_name("." * node.level + module, package)
        for alias in node.names:
            self.imports[alias.asname or alias.name] = Imported(module, alias.name)

    def _members(self, node: ast.ClassDef) -> tuple[Member, ...]:
        """Functions and classes in a class, and class variables that are annotated as such."""
        found = []
        for number, part in enumerate(node.body):
            following = node.body[number + 1] if number + 1 < len(node.body) else None
            if isinstance(part, ast.FunctionDef | ast.ClassDef):
                found.append(Member(part.name, self._span(part)))
            elif isinstance(part, ast.AnnAssign) and "ClassVar" in ast.dump(part.annotation):
                assert isinstance(part.target, ast.Name)
                text = [following] if following is not None and _is_text(following) else []
                found.append(Member(part.target.id, self._span(part, *text)))
        return tuple(found)

    def _span(self, *nodes: ast.stmt) -> Lines:
        first = min([nodes[0].lineno, *(one.lineno for one in getattr(nodes[0], "decorator_list", []))])
        while self._lines[first - 2].strip().startswith("#"):
            first -= 1
        last = nodes[-1].end_lineno
        assert last is not None
        return Lines(nodes, first, last)

    def text_of(
        self, definition: Definition, without: Collection[str], names: Mapping[tuple[int, int, int], str]
    ) -> str:
        """A definition as it reads in another file.

        Args:
            definition: The definition, of this module.
            without: Members that are left out.
            names: (line, first byte, byte behind the last) -> what stands there instead.
        """
        dropped = {
            line
            for member in definition.members
            if member.name in without
            for line in range(member.lines.first, member.lines.last + 1)
        }
        kept: list[str] = []
        for lines in (definition.lines, *definition.effects):
            for number in range(lines.first, lines.last + 1):
                if number in dropped:
                    while not kept[-1].strip():
                        kept.pop()
                    continue
                line = self._lines[number - 1].encode()
                for (_, first, last), name in sorted((at, to) for at, to in names.items() if at[0] == number)[::-1]:
                    line = line[:first] + name.encode() + line[last:]
                kept.append(line.decode())
        node = definition.lines.nodes[0]
        if isinstance(node, ast.ClassDef) and all(part in dropped for part in (one.lineno for one in node.body)):
            kept.append("    pass")
        return "\n".join(kept).rstrip()

    def word(self, place: tuple[int, int, int]) -> str:
        """What stands at a place, as of ``text_of``."""
        line, first, last = place
        return self._lines[line - 1].encode()[first:last].decode()

    def place_of_name(self, definition: Definition) -> tuple[int, int, int] | None:
        """Where a function or class names itself, as of ``text_of``; None for an assignment, whose name is a node."""
        node = definition.lines.nodes[0]
        if not isinstance(node, ast.FunctionDef | ast.ClassDef):
            return None
        start = self._lines[node.lineno - 1].encode().index(definition.name.encode(), node.col_offset + 4)
        return node.lineno, start, start + len(definition.name.encode())


@cache
def read_source(name: str) -> Source:
    """The source of a module; see ``Source``."""
    return Source(name)


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _defined(node: ast.stmt) -> list[str]:
    """The names that a statement defines."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, ast.AnnAssign):
        targets = [node.target]
    parts = [part for target in targets for part in (target.elts if isinstance(target, ast.Tuple) else [target])]
    return [part.id for part in parts if isinstance(part, ast.Name)]


def _changed(node: ast.stmt) -> str | None:
    """The name of what a statement changes: the first argument of a call, the object of an attribute; else None."""
    place: ast.expr | None = None
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and node.value.args:
        place = node.value.args[0]
    elif isinstance(node, ast.Assign):
        target = node.targets[0]
        place = target.elts[0] if isinstance(target, ast.Tuple) else target
        while isinstance(place, ast.Attribute | ast.Subscript):
            place = place.value
    return place.id if isinstance(place, ast.Name) else None
