"""Translation memories (TMX 1.4), and what other XML files of sentence pairs share with them.

XML is decoded here and handed to the parser as text: expat itself knows few encodings. Files that declare entities are
refused before anything is expanded; no file of translations needs them, and a few lines of them can fill any memory.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from xml.etree import ElementTree
from xml.parsers import expat

from leanformer.core.errors import LeanformerError
from leanformer.data.languages import match_codes
from leanformer.data.pairs import SentencePairs
from leanformer.data.text_reading import marked_encoding, read_parts

XML_LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"
NATIVE_CODE = frozenset({"bpt", "ept", "ph", "it", "ut"})  # TMX elements that hold a document format's own markup
DECLARED = re.compile(rb"""<\?xml[^>]*?\sencoding\s*=\s*["']([A-Za-z][\w.-]*)["']""")
NO_ENCODINGS = frozenset({"idna", "punycode", "raw-unicode-escape", "undefined", "unicode-escape"})
"""Encodings that Python counts among those of text, but in which no file is written."""
UNMARKED = ((b"<\0", "utf-16-le"), (b"\0<", "utf-16-be"))  # how UTF-16 begins where it has no byte order mark


def read_tmx(file: Path, languages: tuple[str, str], group: str | None = None) -> tuple[SentencePairs, int]:
    """The translation units of a TMX 1.4 file that have both languages, and the number of those that do not.

    ``en`` matches ``en-US`` and the other way round; where several of a unit match, the exact code is preferred. Inline
    elements are flattened: the sentence's text is kept, the document's markup is removed. Elements may have a
    namespace.

    Args:
        file: The file.
        languages: Source and target.
        group: The type of the property (``prop``) of units, or of their variants, that names each pair's group.

    Raises:
        LeanformerError: for XML that is not well-formed, ends early or declares entities, for an unknown encoding, for
            a unit without the property, and where no unit has both languages.
    """
    groups: list[str] = []
    pairs: list[tuple[str, str]] = []
    others = 0
    seen: dict[str, None] = {}
    for unit in _units(file):
        variants = _variants(unit)
        seen.update(dict.fromkeys(variants))
        source, target = match_codes(variants, languages)
        if source is not None and target is not None:
            pairs.append((variants[source], variants[target]))
            if group is not None:
                groups.append(_property(file, unit, group, len(pairs) + others))
        else:
            others += 1
    if not pairs:
        there = f"its languages are {', '.join(seen)}" if seen else "it holds no translation units"
        raise LeanformerError(f"{file}: no unit has both {languages[0]} and {languages[1]}; {there}")
    sources, targets = zip(*pairs, strict=True)
    return SentencePairs(sources, targets, None if group is None else tuple(groups)), others


def _units(file: Path) -> Iterator[ElementTree.Element]:
    """The translation units one by one: the file may be larger than memory."""
    parser: ElementTree.XMLPullParser[ElementTree.Element] = ElementTree.XMLPullParser(("end",))
    try:
        for text in chain(without_entities(file, _decoded(file)), [None]):
            parser.feed(text) if text is not None else parser.close()
            for _, *rest in parser.read_events():
                element = rest[0]
                if isinstance(element, ElementTree.Element) and _local(element) == "tu":
                    yield element
                    element.clear()
    except ElementTree.ParseError as error:
        raise LeanformerError(xml_problem(file, error)) from error


def _decoded(file: Path) -> Iterator[str]:
    """The text of an XML file, a part at a time, by its byte order mark or by the encoding that it declares."""
    decoder: codecs.IncrementalDecoder | None = None
    encoding, line = "", 1
    for part in chain(read_parts(file), [b""]):
        if decoder is None:
            if not part:
                raise LeanformerError(f"{file}: is empty; fill it or remove it")
            mark, encoding = _encoding(file, part)
            part = part.removeprefix(mark)
            decoder = codecs.getincrementaldecoder(encoding)()
        try:
            text = decoder.decode(part, final=not part)
        except UnicodeDecodeError as error:
            line += error.object[: error.start].decode(encoding, "replace").count("\n")
            raise LeanformerError(
                f"{file}, line {line}: byte 0x{error.object[error.start]:02x} is not {encoding}; convert the file to "
                "UTF-8 and let its first line say so"
            ) from error
        line += text.count("\n")
        yield text


def _encoding(file: Path, start: bytes) -> tuple[bytes, str]:
    """The byte order mark of an XML file, if any, and its encoding."""
    if marked := marked_encoding(start):
        return marked
    for beginning, encoding in UNMARKED:
        if start.startswith(beginning):
            return b"", encoding
    declared = DECLARED.match(start)
    name = declared[1].decode() if declared else "utf-8"
    if name.lower().startswith("ucs-2"):
        name = "utf-16"  # as Python calls it
    try:
        found = codecs.lookup(name)
    except LookupError:
        found = None
    if found is not None and found.name.startswith(("utf-16", "utf-32")):
        found = codecs.lookup("utf-8")  # else the declaration could not have been read: the file was converted later
    if found is None or not found._is_text_encoding or found.name in NO_ENCODINGS:
        raise LeanformerError(
            f"{file}, line 1: the encoding {name!r} is not known; convert the file to UTF-8 and let its first line say "
            "so"
        )
    return b"", found.name


class _PrologEnds(Exception):  # noqa: N818 - no error, but how a handler of expat ends its parser
    """The first element has begun: after it no entity can be declared."""


def without_entities(file: Path, parts: Iterable[str]) -> Iterator[str]:
    """Passes the parts of an XML text on unchanged, each after a check that no entity is declared up to its end.

    Raises:
        LeanformerError: An entity is declared.
    """
    prolog = expat.ParserCreate()

    def refuse(name: str, *_: object) -> None:
        raise LeanformerError(
            f"{file}: declares the entity {name!r}, and entities could fill the memory; remove the declarations "
            "(<!ENTITY ...>), and write what they stand for"
        )

    def stop(*_: object) -> None:
        raise _PrologEnds

    prolog.EntityDeclHandler = refuse
    prolog.StartElementHandler = stop
    in_prolog = True
    for part in parts:
        if in_prolog:
            try:
                prolog.Parse(part)
            except _PrologEnds:
                in_prolog = False
            except expat.ExpatError:
                in_prolog = False  # the parser of the whole text says what is wrong, and where
        yield part


def xml_problem(file: Path, error: ElementTree.ParseError) -> str:
    """What is wrong with an XML file, in one line."""
    line, _ = error.position
    reason = str(error).split(":")[0]
    if reason in ("no element found", "unclosed token", "unclosed CDATA section"):
        return f"{file}, line {line}: not whole XML ({reason}); copy or download the file again"
    return f"{file}, line {line}: not well-formed XML ({reason}); fix that line, or export the file again"


def _variants(unit: ElementTree.Element) -> dict[str, str]:
    """The texts of a translation unit by language code as the file writes it."""
    variants: dict[str, str] = {}
    for variant in unit.iter():
        if _local(variant) != "tuv":
            continue
        segment = next((child for child in variant if _local(child) == "seg"), None)
        code = variant.get(XML_LANGUAGE) or variant.get("lang") or ""
        if segment is not None:
            # Line breaks and indents of the file are removed; other spaces of Unicode belong to the sentence.
            variants.setdefault(code, re.sub(r"[ \t\r\n]+", " ", _flat_text(segment)).strip())
    return variants


def _property(file: Path, unit: ElementTree.Element, kind: str, number: int) -> str:
    """The first property of this type in a unit, whose number is for the message."""
    found: dict[str, str] = {}
    for element in unit.iter():
        if _local(element) == "prop":
            found.setdefault(element.get("type", ""), (element.text or "").strip())
    if not found.get(kind):
        there = f"it has {', '.join(map(repr, found))}" if found else "it has none"
        raise LeanformerError(f"data.group: {file}, unit {number}: no property {kind!r}; {there}")
    return found[kind]


def _flat_text(element: ElementTree.Element) -> str:
    """The text of an element without its inline markup, however deep that is."""
    parts: list[str] = []
    ahead: list[ElementTree.Element | str] = [element]
    while ahead:
        part = ahead.pop()
        if isinstance(part, str):
            parts.append(part)
            continue
        parts.append(part.text or "")
        for child in reversed(part):
            ahead.append(child.tail or "")
            if _local(child) not in NATIVE_CODE:
                ahead.append(child)
    return "".join(parts)


def _local(element: ElementTree.Element) -> str:
    """An element's name without its namespace."""
    return element.tag.rpartition("}")[2]
