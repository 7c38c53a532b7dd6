"""One file of definitions from many modules: those that are reached from a few, and no others."""

from __future__ import annotations

import ast
import builtins
import importlib
import importlib.util
import textwrap
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from leanformer.core.errors import LeanformerError
from leanformer.model.portable.source import Definition, Imported, Source, read_source

WIDTH = 120  # characters of a line


@dataclass(frozen=True)
class Reference:
    """A definition in a module."""

    module: str
    name: str


@dataclass
class _Used:
    """What a definition uses.

    Args:
        references: (line, first byte, byte behind the last) of a name -> what it refers to in the file's own text.
        imports: Name -> what it refers to outside.
        words: Attributes, which may be methods.
    """

    references: dict[tuple[int, int, int], Reference] = field(default_factory=dict)
    imports: dict[str, Imported] = field(default_factory=dict)
    words: set[str] = field(default_factory=set)


class Bundle:
    """The definitions of some packages' modules that are reached from the ones added, for one file of their own.

    A method, a class in a class and a class variable stay where their name is used anywhere, or where they override
    something of a class from outside; other names inside functions are not followed further.

    Args:
        packages: The packages whose definitions are copied; all others are imported in the file.
        stand_ins: Definition -> the one that takes its place.
        first: The module whose definitions come first: nothing is made of others when it is imported.
    """

    def __init__(self, packages: Collection[str], stand_ins: Mapping[Reference, Reference], first: str) -> None:
        self._packages = frozenset(packages)
        self._stand_ins = stand_ins
        self._first = {first}
        self._reached: dict[Reference, None] = {}
        self._imports: dict[str, Imported] = {}
        self._words: set[str] = set()
        self._overridden: set[str] = set()
        self._read: dict[tuple[Reference, frozenset[str]], _Used] = {}

    def add(self, item: Any) -> str:
        """Adds a class or function with all that it reaches, or, from another package, its import.

        Returns:
            Its name in the file.
        """
        if self._is_inside(item.__module__):
            reference = self._settled(Reference(item.__module__, item.__name__))
            self._reached.setdefault(reference)
            return reference.name
        package = item.__module__.partition(".")[0]
        whole = getattr(importlib.import_module(package), item.__name__, None)
        self._import(item.__name__, Imported(package if whole is item else item.__module__, item.__name__))
        return str(item.__name__)

    def overrides(self, kind: type) -> None:
        """Lets methods stay that override something in a class of the file's own end, which has no source."""
        outside = [base for base in kind.__mro__ if not self._is_inside(base.__module__) and base is not object]
        self._overridden.update(*(vars(base) for base in outside))

    def text(self) -> str:
        """The imports and definitions, those that others are made of first."""
        self._reach()
        names = self._names()
        parts = [self._import_lines()]
        for module in self._in_order():
            source = read_source(module)
            texts: dict[int, str] = {}
            for definition in (source.definitions[one.name] for one in self._reached if one.module == module):
                if not definition.declared:
                    texts[definition.lines.first] = self._text_of(source, definition, names)
            if texts:
                title = "\n".join(textwrap.wrap(f"{module}: {source.summary}", WIDTH - 2))
                parts.append(textwrap.indent(title, "# ", lambda line: True))
                parts.extend(text for _, text in sorted(texts.items()))
        return "\n\n\n".join(parts) + "\n"

    # What is reached

    def _reach(self) -> None:
        """Follows all references, again where a method has become reached that was not."""
        before = None
        while before != (len(self._reached), len(self._words), len(self._imports), len(self._overridden)):
            before = (len(self._reached), len(self._words), len(self._imports), len(self._overridden))
            for reference in list(self._reached):
                source = read_source(reference.module)
                definition = source.definitions.get(reference.name)
                if definition is None:
                    raise LeanformerError(
                        f"{reference.name!r} is not defined at the top of the module {reference.module!r}"
                    )
                if isinstance(made := getattr(source.module, reference.name, None), type):
                    self.overrides(made)
                used = self._used(source, definition)
                for found in used.references.values():
                    self._reached.setdefault(found)
                for name, imported in used.imports.items():
                    self._import(name, imported)
                self._words |= used.words

    def _left_out(self, definition: Definition) -> frozenset[str]:
        """The members of a class that nothing uses."""
        return frozenset(
            member.name
            for member in definition.members
            if not member.name.startswith("__")
            and member.name not in self._words
            and member.name not in self._overridden
        )

    def _used(self, source: Source, definition: Definition) -> _Used:
        """What a definition uses without the members that are left out."""
        without = self._left_out(definition)
        key = Reference(source.name, definition.name), without
        if key not in self._read:
            used = self._read[key] = _Used()
            for node in definition.nodes(without):
                self._note(source, node, used)
        return self._read[key]

    def _note(self, source: Source, node: ast.AST, used: _Used) -> None:
        """Adds what a node of a syntax tree uses."""
        if isinstance(node, ast.Attribute):
            used.words.add(node.attr)
            module = self._module_of(source, node.value)
            if module is not None:
                used.references[_place(node)] = self._settled(Reference(module, node.attr))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr":
            used.words |= {str(word.value) for word in node.args[1:2] if isinstance(word, ast.Constant)}
        elif isinstance(node, ast.Name) and self._module_of(source, node) is None:
            found = self._found(source, node.id)
            if isinstance(found, Reference):
                used.references[_place(node)] = found
            elif found is not None:
                used.imports[node.id] = found

    def _found(self, source: Source, name: str) -> Reference | Imported | None:
        """What a name at the top of a module refers to; None for a name of Python's own, or of a function's."""
        if name in source.definitions:
            return self._settled(Reference(source.name, name))
        imported = source.imports.get(name)
        if imported is None or imported.module == "__future__":
            return None
        if imported.name is None or not self._is_inside(imported.module):
            return imported
        return self._found(read_source(imported.module), imported.name)

    def _module_of(self, source: Source, node: ast.expr) -> str | None:
        """The module inside that a name is bound to; None where it is no such name."""
        imported = source.imports.get(node.id) if isinstance(node, ast.Name) else None
        if imported is None or not self._is_inside(imported.module):
            return None
        if imported.name is None:
            raise LeanformerError(f"the module {source.name!r} uses {imported.module!r} as a whole")
        return _submodule(imported)

    def _settled(self, reference: Reference) -> Reference:
        return self._stand_ins.get(reference, reference)

    def _is_inside(self, module: str) -> bool:
        return module.partition(".")[0] in self._packages

    def _import(self, name: str, imported: Imported) -> None:
        if self._imports.setdefault(name, imported) != imported:
            raise LeanformerError(f"{name!r} is imported from {self._imports[name].module!r} and {imported.module!r}")

    # How it reads

    def _names(self) -> dict[Reference, str]:
        """The names in the file: where two modules define the same one, that of the later module says whose it is."""
        order = {module: number for number, module in enumerate(self._in_order())}
        names: dict[Reference, str] = {}
        taken = {*self._imports, *vars(builtins)}
        for reference in sorted(self._reached, key=lambda one: order[one.module]):
            name = reference.name
            if name in taken:
                name = f"{name}_of_{reference.module.rpartition('.')[2]}"
            taken.add(name)
            names[reference] = name
        return names

    def _text_of(self, source: Source, definition: Definition, names: Mapping[Reference, str]) -> str:
        changed = {
            place: names[found]
            for place, found in self._used(source, definition).references.items()
            if names[found] != source.word(place)
        }
        own, place = names[Reference(source.name, definition.name)], source.place_of_name(definition)
        if place is not None and own != definition.name:
            changed[place] = own
        bound = {node.arg for node in definition.nodes() if isinstance(node, ast.arg)}
        for place in changed:
            assert source.word(place) not in bound, (
                f"{source.name}: a parameter {source.word(place)} hides a definition"
            )
        return source.text_of(definition, self._left_out(definition), changed)

    def _in_order(self) -> list[str]:
        """The modules of what is reached: those of stand-ins, then each after those that it imports from."""
        order: dict[str, None] = {}

        def visit(module: str, above: frozenset[str]) -> None:
            if module in order or module in above:
                return
            for imported in read_source(module).imports.values():
                if self._is_inside(imported.module):
                    visit(_submodule(imported) or imported.module, above | {module})
            order[module] = None

        modules = {reference.module for reference in self._reached}
        for module in sorted(modules - self._first):
            visit(module, frozenset())
        return [*sorted(modules & self._first), *(module for module in order if module in modules - self._first)]

    def _import_lines(self) -> str:
        whole: list[str] = []
        parts: dict[str, list[str]] = {}
        for name, imported in sorted(self._imports.items()):
            if imported.name is None:
                whole.append(f"import {imported.module}" + (f" as {name}" if name != imported.module else ""))
            else:
                written = imported.name if imported.name == name else f"{imported.name} as {name}"
                parts.setdefault(imported.module, []).append(written)
        lines = ["from __future__ import annotations", "", *sorted(whole)]
        for module, names in sorted(parts.items()):
            line = f"from {module} import {', '.join(names)}"
            if len(line) > WIDTH:
                inner = textwrap.fill(", ".join(names), WIDTH - 4, initial_indent="    ", subsequent_indent="    ")
                line = f"from {module} import (\n{inner},\n)"
            lines.append(line)
        return "\n".join(lines)


def _place(node: ast.expr) -> tuple[int, int, int]:
    assert node.end_col_offset is not None
    return node.lineno, node.col_offset, node.end_col_offset


@cache
def _submodule(imported: Imported) -> str | None:
    """The module that an import of a name gives; None where it gives something in a module."""
    if imported.name is None:
        return None
    name = f"{imported.module}.{imported.name}"
    is_package = hasattr(importlib.import_module(imported.module), "__path__")
    return name if is_package and importlib.util.find_spec(name) is not None else None
