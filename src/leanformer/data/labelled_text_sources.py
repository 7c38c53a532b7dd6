"""Where labelled texts come from: the source that a study names, its splits, and the columns of text and label."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets

from leanformer.config.text_classification import ClassTextDataConfig
from leanformer.core.errors import LeanformerError
from leanformer.core.paths import source_path
from leanformer.data.hub import SourceSplit, check_hub, load_dataset, quiet, refuse_subset
from leanformer.data.number_languages import SOURCE, number_languages
from leanformer.data.text_files import DELIMITERS, QUOTED, Row, csv_rows, first_row
from leanformer.data.text_reading import read_text, split_lines, unpacked_name
from leanformer.data.text_tables import TABLE_FORMATS, check_packed, load_table, suffix_of
from leanformer.data.walking import check_tables, files_below

READ_HERE = (".csv", ".tsv")
FILE_SUFFIXES = (*READ_HERE, *TABLE_FORMATS)
TEXTS = ("text", "sentence", "content", "document", "review", "comment", "tweet", "utterance", "body", "description")
"""Usual names of a column of texts, the likeliest first."""
PAIRS = (
    ("sentence1", "sentence2"),
    ("text1", "text2"),
    ("text_a", "text_b"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("question", "passage"),
    ("query", "document"),
    ("text", "second_text"),
)
"""Usual names of the two columns of a pair."""
LABELS = ("label", "labels", "class", "category", "target", "sentiment", "intent", "topic")
"""Usual names of a column of labels, the likeliest first."""
_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,17}")


@dataclass(frozen=True)
class Columns:
    """The names of the columns that are read.

    Args:
        text: Of the texts.
        second: Of the other text of each pair; None where there are no pairs.
        label: Of the labels.
    """

    text: str
    second: str | None
    label: str

    @property
    def texts(self) -> tuple[str, ...]:
        """The columns of texts."""
        return (self.text,) if self.second is None else (self.text, self.second)

    def in_words(self) -> str:
        """A note on them."""
        return f"columns: {' and '.join(self.texts)} (text), {self.label} (label)"


def open_texts(config: ClassTextDataConfig) -> dict[str, SourceSplit]:
    """The splits of ``config.source`` by its own names, in the forms that docs/text-classification.md lists.

    Raises:
        LeanformerError: for a source that is missing, cannot be reached or read, or that holds no tables.
    """
    if config.source == SOURCE:
        return number_languages(config)
    path = source_path(config.source)
    if path.is_dir():
        return _open_directory(path, config)
    if path.is_file():
        refuse_subset(config.source, config.subset)
        suffix = suffix_of(path)
        if suffix in TABLE_FORMATS:
            return load_table(config.source, path)
        if suffix in READ_HERE:
            return {"train": _read_table(path, "train", config)}
        raise LeanformerError(
            f"data.source {config.source}: is a file of another kind; give one of {', '.join(FILE_SUFFIXES)}, packed "
            "(.gz) or not"
        )
    check_hub(config.source, "no such directory or file")
    with quiet():
        return load_dataset(config.source, config.source, config.subset)


def _open_directory(directory: Path, config: ClassTextDataConfig) -> dict[str, SourceSplit]:
    """A data set in the hub's layout, or a table that is read here for each split."""
    below = files_below(directory)
    tables = [file for file in below if suffix_of(file) in TABLE_FORMATS]
    here = [file for file in below if suffix_of(file) in READ_HERE and file.parent == directory]
    if tables and here:
        raise LeanformerError(
            f"data.source {config.source}: holds {tables[0].name} and {here[0].name}; give all splits in files of one "
            "kind"
        )
    if tables:
        check_tables(below)
        for table in tables:
            check_packed(table)
        with quiet():
            return load_dataset(config.source, str(directory), config.subset)
    if not here:
        raise LeanformerError(
            f"data.source {config.source}: holds no tables of texts ({', '.join(FILE_SUFFIXES)}); give some"
        )
    refuse_subset(config.source, config.subset)
    splits: dict[str, SourceSplit] = {}
    for file in here:
        name = unpacked_name(file).stem
        if name in splits:
            raise LeanformerError(f"{directory}: two files are both the split {name!r}; keep one of them")
        splits[name] = _read_table(file, name, config)
    return splits


def _read_table(file: Path, name: str, config: ClassTextDataConfig) -> SourceSplit:
    """A file of values between commas, semicolons or tabs; without names of columns there are a text and a label.

    Raises:
        LeanformerError: for a file that is not whole, a line with another number of columns, and columns without
            names that are not two.
    """
    text = read_text(file)
    lines = split_lines(text)
    if suffix_of(file) == ".tsv":
        quoted = QUOTED.fullmatch(lines[0]) is not None
        rows: list[Row] = (
            csv_rows(file, text, "\t") if quoted else [(n, line.split("\t")) for n, line in enumerate(lines, 1)]
        )
    else:
        delimiter = max(DELIMITERS, key=lambda mark: len(first_row(text, mark)))
        rows = csv_rows(file, text, delimiter)
    names = [column.strip() for column in rows[0][1]]
    given = {config.text, config.second_text, config.label, config.group} - {None}
    known = {name.lower() for name in (*TEXTS, *LABELS, *(one for pair in PAIRS for one in pair))}
    # Of two columns both must have a usual name: one may be a label, such as ``question``.
    if given & set(names) or sum(column.lower() in known for column in names) >= (2 if len(names) < 3 else 1):
        rows = rows[1:]
    elif given:
        missing = next(key for key in ("text", "second_text", "label", "group") if getattr(config, key) is not None)
        raise LeanformerError(
            f"data.{missing}: {file}, line 1: no column {getattr(config, missing)!r}; there are "
            + ", ".join(names)[:200]
        )
    elif len(names) == 2:
        names = [TEXTS[0], LABELS[0]]
    else:
        raise LeanformerError(
            f"{file}, line 1: {len(names)} column{'s' * (len(names) != 1)} without names; give two, a text and its "
            "label, or a first line with the columns' names"
        )
    if len(set(names)) < len(names):
        raise LeanformerError(f"{file}, line 1: two columns have one name; give each a name of its own")
    full = []
    for number, row in rows:
        if row == [""]:
            continue
        if len(row) != len(names):
            raise LeanformerError(
                f"{file}, line {number}: {len(row)} columns, and {len(names)} in line 1; quote the text"
            )
        full.append(row)
    columns = {column: [row[place] for row in full] for place, column in enumerate(names)}
    return SourceSplit(
        str(file),
        name,
        datasets.Dataset.from_dict({key: _typed(key, values, config) for key, values in columns.items()}),
    )


def _typed(name: str, values: list[str], config: ClassTextDataConfig) -> Any:
    """A column's values: whole numbers where all are, so that classes are in the order of their numbers."""
    if name in (config.text, config.second_text) or not values or not all(map(_WHOLE.fullmatch, values)):
        return (
            [value if value else None for value in values] if name.lower() in LABELS or name == config.label else values
        )
    return [int(value) for value in values]


# Columns


def find_columns(split: SourceSplit, config: ClassTextDataConfig) -> Columns:
    """The columns of texts and labels: those given, or those with a usual name, or the only ones that fit.

    Raises:
        LeanformerError: for a given column that is missing, and where none fits or several do.
    """
    features = split.examples.features
    for key in ("text", "second_text", "label"):
        given = getattr(config, key)
        if given is not None and given not in features:
            raise LeanformerError(
                f"data.{key}: no column {given!r} in {config.source}; there are {', '.join(features)}"
            )
    if config.second_text is not None and config.text is None:
        raise LeanformerError("data.second_text: name the column of the other text too (data.text)")
    taken = {config.text, config.second_text, config.group}
    label = config.label or _found_label(features, taken, config)
    if config.text is not None:
        chosen = [config.text, *([config.second_text] if config.second_text else [])]
        if len({*chosen, label}) < len(chosen) + 1:
            raise LeanformerError("data.text, data.second_text, data.label: give each a column of its own")
        return Columns(config.text, config.second_text, label)
    left = {name: feature for name, feature in features.items() if name not in {label, config.group}}
    for pair in PAIRS:
        if all(name in left and _is_text(left[name]) for name in pair):
            return Columns(*pair, label)
    fitting = [name for name, feature in left.items() if _is_text(feature)]
    text = next((name for name in TEXTS if name in fitting), None) or _only("text", fitting, features, config)
    return Columns(text, None, label)


def _found_label(features: datasets.Features, taken: set[str | None], config: ClassTextDataConfig) -> str:
    left = {name: feature for name, feature in features.items() if name not in taken}
    usual = next((name for name in LABELS if name in left), None)
    marked = [name for name, feature in left.items() if isinstance(feature, datasets.ClassLabel)]
    return usual or _only("label", marked, features, config)


def _only(key: str, fitting: Sequence[str], features: datasets.Features, config: ClassTextDataConfig) -> str:
    if len(fitting) == 1:
        return fitting[0]
    problem = (
        f"several {key} columns: {', '.join(fitting)}" if fitting else f"no {key} column among {', '.join(features)}"
    )
    raise LeanformerError(f"data.source {config.source}: {problem}; set data.{key} to one")


def _is_text(feature: Any) -> bool:
    return isinstance(feature, datasets.Value) and feature.dtype in ("string", "large_string")
