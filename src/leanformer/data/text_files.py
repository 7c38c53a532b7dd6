"""Sentence pairs in files: two aligned plain files, tab-separated values, and translation memories (TMX).

Lines end at line feeds alone: the other characters that Unicode counts as line ends stand inside of sentences, and
would shift everything behind them on one side.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from xml.etree import ElementTree

from leanformer.data.hub import first_line
from leanformer.data.pairs import SentencePairs
from leanformer.errors import LeanformerError

XML_LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"
NATIVE_CODE = frozenset({"bpt", "ept", "ph", "it", "ut"})  # TMX elements that hold a document format's own markup


def read_text(file: Path) -> str:
    """The content of a UTF-8 file, without a byte order mark.

    Raises:
        LeanformerError: for a file that cannot be read, is empty, or is not UTF-8 (with the line's number).
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise LeanformerError(f"{file}: cannot be read ({error.strerror or first_line(error)})") from error
    if not content.strip():
        raise LeanformerError(f"{file}: is empty; fill it or remove it")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise LeanformerError(
            f"{file}, line {line}: byte 0x{content[error.start]:02x} is not UTF-8; convert the file to UTF-8"
        ) from error


def read_lines(file: Path) -> list[str]:
    """The lines of a UTF-8 file, as ``read_text`` reads it."""
    lines = read_text(file).split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def read_aligned(source_file: Path, target_file: Path) -> SentencePairs:
    """Two plain files, one sentence a line, whose lines belong together by their number.

    Raises:
        LeanformerError: for a missing file and for unequal numbers of lines.
    """
    for file, partner in ((source_file, target_file), (target_file, source_file)):
        if not file.is_file():
            raise LeanformerError(f"{file}: no such file, but there is {partner}; aligned plain files come in pairs")
    sources, targets = read_lines(source_file), read_lines(target_file)
    if len(sources) != len(targets):
        raise LeanformerError(
            f"{source_file} has {len(sources):,} lines, but {target_file} has {len(targets):,}; line by line they must "
            "be each other's translation"
        )
    return SentencePairs(tuple(sources), tuple(targets))


def read_tsv(file: Path, languages: tuple[str, str]) -> SentencePairs:
    """Lines of source, tab, target; or of any columns under a first line that names both languages.

    Raises:
        LeanformerError: for a line with another number of columns, and for a first line that names one language only.
    """
    rows = [line.rstrip("\r").split("\t") for line in read_lines(file)]
    names = [name.strip() for name in rows[0]]
    columns, start = [0, 1], 0
    if any(language in names for language in languages):
        columns, start = [_named_column(file, names, language) for language in languages], 1
    elif len(names) != 2:
        raise LeanformerError(
            f"{file}, line 1: {_columns(len(names))}; wanted are two, {languages[0]} and {languages[1]}, or a first "
            "line with the columns' names, which must include both"
        )
    for number, row in enumerate(rows[start:], start=start + 1):
        if row != [""] and len(row) != len(names):
            raise LeanformerError(
                f"{file}, line {number}: {_columns(len(row))}, but line 1 has {len(names)}; a sentence holds no tab"
            )
    full = [row if len(row) == len(names) else [""] * len(names) for row in rows[start:]]  # an empty line is a pair
    source, target = columns
    return SentencePairs(tuple(row[source] for row in full), tuple(row[target] for row in full))


def _named_column(file: Path, names: Sequence[str], language: str) -> int:
    if language not in names:
        raise LeanformerError(f"{file}, line 1: no column {language!r}; there are {', '.join(names)}")
    return names.index(language)


def _columns(count: int) -> str:
    return f"{count} column{'s' * (count != 1)}"


def read_tmx(file: Path, languages: tuple[str, str]) -> tuple[SentencePairs, int]:
    """The translation units of a TMX 1.4 file that have both languages, and the number of those that do not.

    ``en`` matches ``en-US`` and the other way round; where a unit has several that match, the same code goes first.
    Inline elements are flattened: what is the sentence's text stays, what is a document's markup goes.

    Raises:
        LeanformerError: for XML that is not well-formed or ends early, and where no unit has both languages.
    """
    pairs: list[tuple[str, str]] = []
    others = 0
    seen: dict[str, None] = {}
    try:
        for _, element in ElementTree.iterparse(file):
            if element.tag != "tu":
                continue
            unit = _variants(element)
            seen.update(dict.fromkeys(unit))
            sides = [_matching(unit, language) for language in languages]
            if sides[0] is not None and sides[1] is not None:
                pairs.append((sides[0], sides[1]))
            else:
                others += 1
            element.clear()  # the file may be larger than memory
    except ElementTree.ParseError as error:
        raise LeanformerError(xml_problem(file, error)) from error
    except OSError as error:
        raise LeanformerError(f"{file}: cannot be read ({error.strerror or first_line(error)})") from error
    if not pairs:
        there = f"its languages are {', '.join(seen)}" if seen else "it holds no translation units"
        raise LeanformerError(f"{file}: no unit has both {languages[0]} and {languages[1]}; {there}")
    return SentencePairs(tuple(source for source, _ in pairs), tuple(target for _, target in pairs)), others


def xml_problem(file: Path, error: ElementTree.ParseError) -> str:
    """What is wrong with an XML file, in one line."""
    if file.stat().st_size == 0:
        return f"{file}: is empty; fill it or remove it"
    line, _ = error.position
    reason = str(error).split(":")[0]
    return f"{file}, line {line}: not whole XML ({reason}); copy or download the file again"


def _variants(unit: ElementTree.Element) -> dict[str, str]:
    """The texts of a translation unit by language code as the file writes it."""
    variants: dict[str, str] = {}
    for variant in unit.iter("tuv"):
        segment = variant.find("seg")
        code = variant.get(XML_LANGUAGE) or variant.get("lang") or ""
        if segment is not None:
            variants.setdefault(code, " ".join(flat_text(segment).split()))
    return variants


def flat_text(element: ElementTree.Element) -> str:
    """The text of an element without its inline markup."""
    parts = [element.text or ""]
    for child in element:
        if child.tag not in NATIVE_CODE:
            parts.append(flat_text(child))
        parts.append(child.tail or "")
    return "".join(parts)


def _matching(variants: dict[str, str], language: str) -> str | None:
    """The text in a language, or in one that differs in having a region."""
    wanted = _code(language)
    for code, text in variants.items():
        if _code(code) == wanted:
            return text
    for code, text in variants.items():
        own = _code(code)
        if len(own) != len(wanted) and own[0] == wanted[0]:
            return text
    return None


def _code(language: str) -> list[str]:
    return re.split("[-_]", language.lower(), maxsplit=1)


def lines_with_endings(directory: Path, languages: Iterable[str]) -> dict[str, list[Path]]:
    """The files of a directory that end in a language, by the name before that."""
    found: dict[str, list[Path]] = {}
    for language in languages:
        for file in sorted(directory.glob(f"?*.{language}")):
            if file.is_file() and not file.name.startswith("."):
                found.setdefault(file.name.removesuffix(f".{language}"), []).append(file)
    return found
