"""Sentence pairs in files: two aligned plain files, and tables with a tab, a comma or a semicolon between columns."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from leanformer.core.errors import LeanformerError
from leanformer.data.languages import is_column_name, match_codes
from leanformer.data.pairs import SentencePairs
from leanformer.data.text_reading import read_lines, read_text, split_lines

DELIMITERS = ",;\t"  # of files that end in .csv, the likeliest first
QUOTED = re.compile('\\s*"[^"\t]*"(\t"[^"\t]*")+\\s*')  # a line of columns in quotes, with tabs between them

Row = tuple[int, list[str]]
"""A row's line in its file, counted from 1, and its columns."""


def read_aligned(source_file: Path, target_file: Path, group_file: Path | None = None) -> SentencePairs:
    """Two plain files, one sentence a line, whose lines belong together by their number.

    Args:
        source_file, target_file: the sentences.
        group_file: a third such file with the name of each pair's group.

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
    if group_file is None:
        return SentencePairs(tuple(sources), tuple(targets))
    if not group_file.is_file():
        raise LeanformerError(
            f"data.group: {group_file}: no such file; with plain files it holds one line for each of {source_file}, "
            "the name of its group"
        )
    groups = read_lines(group_file)
    if len(groups) != len(sources):
        raise LeanformerError(
            f"{group_file} has {len(groups):,} lines, but {source_file} has {len(sources):,}; each line must be the "
            "group of the sentence with its number"
        )
    return SentencePairs(tuple(sources), tuple(targets), tuple(groups))


def plain_file(prefix: Path, language: str) -> Path:
    """One of several aligned plain files: ``prefix.language``, or ``prefix.language.gz`` where there is only that."""
    file = prefix.with_name(f"{prefix.name}.{language}")
    packed = file.with_name(f"{file.name}.gz")
    return packed if packed.is_file() and not file.is_file() else file


def plain_names(directory: Path, languages: Iterable[str]) -> list[str]:
    """The distinct names of a directory's aligned plain files, without the language."""
    names: dict[str, None] = {}
    for language in languages:
        for ending in (f".{language}", f".{language}.gz"):
            for file in sorted(directory.glob(f"?*{ending}")):
                if file.is_file() and not file.name.startswith("."):
                    names.setdefault(file.name.removesuffix(ending))
    return list(names)


def read_tsv(file: Path, languages: tuple[str, str], group: str | None = None) -> SentencePairs:
    """Lines of source, tab, target; or of any columns under a first line that names both languages.

    Where the names are in double quotes, the sentences may be too; the quotes are removed.

    Args:
        file: The file.
        languages: Source and target.
        group: The column that names each pair's group.

    Raises:
        LeanformerError: for a line with another number of columns, and for a first line that names one language only,
            or two columns by something else.
    """
    text = read_text(file)
    lines = split_lines(text)
    if QUOTED.fullmatch(lines[0]) and None not in match_codes(first_row(lines[0], "\t"), languages):
        # Written like comma-separated values: the sentences may be in quotes too.
        rule = "a sentence with a tab must be in double quotes"
        return _pairs(file, csv_rows(file, text, "\t"), languages, rule, group)
    rows = [(number, line.split("\t")) for number, line in enumerate(lines, start=1)]
    return _pairs(file, rows, languages, "a sentence must not contain a tab", group)


def read_csv(file: Path, languages: tuple[str, str], group: str | None = None) -> SentencePairs:
    """Comma-separated values (RFC 4180), or with semicolons or tabs instead of commas; columns as in ``read_tsv``.

    Args:
        file: The file.
        languages: Source and target.
        group: The column that names each pair's group.

    Raises:
        LeanformerError: as ``read_tsv``, and for quotes that do not close.
    """
    text = read_text(file)
    first = {delimiter: first_row(text, delimiter) for delimiter in DELIMITERS}
    named = [delimiter for delimiter, row in first.items() if None not in match_codes(row, languages)]
    two = [delimiter for delimiter, row in first.items() if len(row) == 2]
    delimiter = (named or two or [","])[0]
    rule = f"a sentence with a {delimiter!r} must be in double quotes"
    return _pairs(file, csv_rows(file, text, delimiter), languages, rule, group)


def first_row(text: str, delimiter: str) -> list[str]:
    """The columns of a table's first row with this delimiter; empty where it cannot be read so."""
    try:
        return next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error:
        return []


def csv_rows(file: Path, text: str, delimiter: str) -> list[Row]:
    """The rows of a table."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[Row] = []
    start = 1
    try:
        for row in reader:
            rows.append((start, row or [""]))
            start = reader.line_num + 1  # a sentence in quotes may span several lines
    except csv.Error as error:
        raise LeanformerError(
            f"{file}, line {start}: not whole CSV ({error}); a column that begins with a quote must end with one, and "
            "a quote inside is written twice"
        ) from error
    return rows


def _pairs(file: Path, rows: Sequence[Row], languages: tuple[str, str], rule: str, group: str | None) -> SentencePairs:
    """The pairs of a table's rows, from its two columns or from those that its first row names.

    Args:
        file: The file, for messages.
        rows: All of them, one or more.
        languages: Source and target.
        rule: The rule that a row with another number of columns breaks, for the message.
        group: The column that names each pair's group.
    """
    names = [name.strip().strip('"').strip() for name in rows[0][1]]
    columns, start = (0, 1), 0
    named = match_codes(names, languages)
    if None not in named or _names_columns(names, languages):
        if not any(named):
            raise LeanformerError(
                f"{file}, line 1: {names[0]!r} and {names[1]!r} look like the names of columns, not like a sentence "
                f"and its translation; name the columns {languages[0]} and {languages[1]} there, or remove the line"
            )
        for name, language in zip(named, languages, strict=True):
            if name is None:
                raise LeanformerError(f"{file}, line 1: no column {language!r}; there are {', '.join(names)}")
        columns, start = (names.index(str(named[0])), names.index(str(named[1]))), 1
    elif len(names) != 2:
        raise LeanformerError(
            f"{file}, line 1: {_columns(len(names))}; give two, {languages[0]} and {languages[1]}, or a first "
            "line with the columns' names, which must include both"
        )
    if group is not None and (not start or group not in names):
        there = f"; there are {', '.join(names)}" if start else ", as the first line names no columns"
        raise LeanformerError(f"data.group: {file}, line 1: no column {group!r}{there}")
    for number, row in rows[start:]:
        if row != [""] and len(row) != len(names):
            raise LeanformerError(f"{file}, line {number}: {_columns(len(row))}, but line 1 has {len(names)}; {rule}")
    # An empty line is a pair with empty sides.
    full = [row if len(row) == len(names) else [""] * len(names) for _, row in rows[start:]]
    source, target = columns
    return SentencePairs(
        tuple(row[source] for row in full),
        tuple(row[target] for row in full),
        None if group is None else tuple(row[names.index(group)] for row in full),
    )


def _names_columns(names: Sequence[str], languages: tuple[str, str]) -> bool:
    """Whether a first row that does not name both languages names columns all the same, wrongly.

    A word that is the same on both sides is a pair, such as "Text" and "text".
    """
    if any(match_codes(names, languages, as_code=True)):
        return True
    return len(names) == len({name.casefold() for name in names}) == 2 and all(map(is_column_name, names))


def _columns(count: int) -> str:
    return f"{count} column{'s' * (count != 1)}"
