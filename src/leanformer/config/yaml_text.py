"""The YAML of study files: read without its surprises and within bounds, and written so that it reads back equal.

YAML 1.1's readings that silently turn one value into another are left out: ``010`` is not eight, ``1:30`` not ninety,
``no`` and ``on`` are words, ``2024-01-01`` is text. Numbers and truth values are those of YAML 1.2's core schema, in
decimal digits.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import yaml

from leanformer.core.errors import LeanformerError, quoted
from leanformer.core.fields import Section
from leanformer.core.paths import read_text

MOST_BYTES = 1_000_000
"""Bytes of a file."""
MOST_VALUES = 50_000
"""Values of a document, including those that its aliases repeat."""
DEEPEST = 24
"""How deep mappings and lists may be nested."""
MOST_DIGITS = 30
"""Digits of a whole number."""

_STRING = yaml.resolver.BaseResolver.DEFAULT_SCALAR_TAG
_MERGE = "tag:yaml.org,2002:merge"
_FLOAT = re.compile(r"[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?$")
_RESOLVED = {
    # PyYAML tries them in this order: a number without a point and an exponent is a whole number.
    "bool": (re.compile(r"(?:true|True|TRUE|false|False|FALSE)$"), "tTfF"),
    "int": (re.compile(r"[-+]?(?:0|[1-9][0-9]*)$"), "-+0123456789"),
    "float": (re.compile(_FLOAT.pattern[:-1] + r"$|[-+]?\.(?:inf|Inf|INF)$|\.(?:nan|NaN|NAN)$"), "-+.0123456789"),
    "null": (re.compile(r"(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
    "merge": (re.compile(r"<<$"), "<"),
}


def _wrong(problem: str, mark: yaml.Mark) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


class _Loader(yaml.SafeLoader):
    """A loader with bounds, without tags, and with keys that are distinct texts."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0
        self._values = 0
        self._sizes: dict[int, int] = {}  # of each node that is complete, by its identity

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Makes the next node, and counts its values with those that its aliases repeat."""
        event = self.peek_event()
        mark, before = event.start_mark, self._values
        is_alias = isinstance(event, yaml.AliasEvent)
        if getattr(event, "tag", None) is not None:
            raise _wrong(f"the tag {event.tag!r} is not allowed; write plain values", mark)
        self._depth += 1
        if self._depth > DEEPEST:
            raise _wrong(f"mappings and lists are nested more than {DEEPEST} deep", mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if is_alias and id(node) not in self._sizes:
            raise _wrong(f"the alias {event.anchor!r} is inside of what it refers to", mark)
        self._values += self._sizes[id(node)] if is_alias else 1
        if self._values > MOST_VALUES:
            raise _wrong(f"more than {MOST_VALUES:,} values, including those that aliases repeat", mark)
        if not is_alias:
            self._sizes[id(node)] = self._values - before
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Makes a mapping's node, and checks its keys before any ``<<`` adds others."""
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _wrong("a key must be a text, not a list or a mapping", key.start_mark)
            if key.tag not in (_STRING, _MERGE):
                word = quoted(key.value).strip("'")
                kind = key.tag.rpartition(":")[2]
                raise _wrong(f"YAML reads the key {word} as {_KINDS[kind]}; put it in quotes", key.start_mark)
            if key.value in seen:
                raise _wrong(f"the key {quoted(key.value)} is given twice", key.start_mark)
            seen.add(key.value)
        return node

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """A whole number, which may not have too many digits."""
        if len(node.value) > MOST_DIGITS + 1:
            raise _wrong(f"a whole number of more than {MOST_DIGITS} digits", node.start_mark)
        return int(node.value)


_KINDS = {"bool": "a truth value", "int": "a number", "float": "a number", "null": "nothing"}
_Loader.yaml_implicit_resolvers = {}
for _name, (_pattern, _first) in _RESOLVED.items():
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", _pattern, list(_first))
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


class _Dumper(yaml.SafeDumper):
    """A dumper that quotes every text that would be read as something else, here or by a reader of YAML 1.1."""


_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", *_RESOLVED["float"])


def read_file(path: Path) -> Any:
    """What a file holds.

    Raises:
        LeanformerError: It cannot be read, or is no YAML within the bounds; the message names the line.
    """
    return _load(read_text(path, MOST_BYTES), str(path))


def read_value(text: str, where: str) -> Any:
    """A value that is written in YAML.

    Args:
        text: The value.
        where: What to name as the place of a mistake.

    Raises:
        LeanformerError: It is no YAML within the bounds.
    """
    return _load(text, where, ": the value is not YAML that can be read")


def write(data: Mapping[str, Any]) -> str:
    """Plain data as YAML that reads back equal."""
    text: str = yaml.dump(dict(data), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    return text


def _load(text: str, where: str, what: str = "") -> Any:
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark and not what else ""
        problem = f"{error.problem}" + (f" ({error.context})" if error.context else "")
        if error.problem == "but found another document":
            problem = "there are several documents; write one"
        raise LeanformerError(f"{where}{line}{what}: {problem}") from None
    except yaml.reader.ReaderError as error:
        raise LeanformerError(
            f"{where}{what}: the character U+{error.character:04X} is not allowed in YAML (at {error.position + 1:,})"
        ) from None


def plain(value: Any, where: str, keys: tuple[str, ...] = (), depth: int = 0) -> Any:
    """Data that a caller gave, in the types that JSON has: mappings with text as keys, lists, text, numbers, null.

    Args:
        value: The data; paths become text, tuples lists, and sections of a study mappings.
        where: What to name as the place of a mistake.
        keys: The keys that lead to ``value``.
        depth: How deep ``value`` is nested.

    Raises:
        LeanformerError: Something else is among them, or they are nested too deep.
    """
    place = f"{where}: {'.'.join(key[:60] for key in keys)}: " if keys else f"{where}: "
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, str):
        return _encodable(value, place)
    if isinstance(value, int):
        if abs(value) >= 10**MOST_DIGITS:
            raise LeanformerError(f"{place}a whole number of more than {MOST_DIGITS} digits")
        return value
    if depth >= DEEPEST:
        raise LeanformerError(f"{place}mappings and lists are nested more than {DEEPEST} deep")
    if isinstance(value, Section):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        for key in value:
            # Whole numbers become text as in JSON: transformers' id2label has such keys.
            if not isinstance(key, str | int) or isinstance(key, bool):
                raise LeanformerError(f"{place}a key must be a text, not {quoted(key)}")
        texts = {_encodable(str(plain(key, where, keys)), place): inner for key, inner in value.items()}
        return {key: plain(inner, where, (*keys, key), depth + 1) for key, inner in texts.items()}
    if isinstance(value, list | tuple):
        return [plain(inner, where, keys, depth + 1) for inner in value]
    if isinstance(value, PathLike):
        return _encodable(fspath(value), place)
    raise LeanformerError(f"{place}{quoted(value)} is neither a mapping, a list, a text nor a number")


def _encodable(text: str, place: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise LeanformerError(f"{place}{quoted(text)} holds half a character (a lone surrogate); remove it") from None
    return text
