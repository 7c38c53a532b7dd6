"""Files of predictions, a row an example, as any tool writes them: CSV, TSV, JSON Lines, parquet.

Every mistake is told with the file, the place in it and the value.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from leanformer.core.bounds import COUNT
from leanformer.core.errors import LeanformerError, first_line, quoted
from leanformer.core.paths import other_kind, read_text
from leanformer.results.metrics import AnswerKind

NEEDED = ("id", "label", "prediction")
COLUMNS = (*NEEDED, "seed", "group", "weight", "source")
"""What columns hold; a column has the same name unless another is given."""
DELIMITERS = ",;\t"
MOST_BYTES = 4_000_000_000
FEWEST = 2
"""Examples that an interval needs."""

T = TypeVar("T")

_WHOLE = re.compile(r"(-?[0-9]+)\.0+")
_FRACTION = re.compile(r"[-+]?[0-9]*\.[0-9]+([eE][-+]?[0-9]+)?")


@dataclass(frozen=True)
class PredictionFile:
    """The content of a file of predictions. All lists are in the order of ``ids``.

    Args:
        path: The file.
        ids: The examples.
        labels: The correct class of each, or its reference text.
        predictions: Seed -> the predicted class or text of each; one entry, of seed 0, where there is no column of
            seeds.
        has_seeds: Whether there is one.
        sources: The text that each was made from; None where there is no such column.
        groups: The group of each; None where examples are independent.
        weights: How much each counts; None where all count alike.
    """

    path: Path
    ids: tuple[str, ...]
    labels: tuple[str, ...]
    predictions: Mapping[int, tuple[str, ...]]
    has_seeds: bool
    sources: tuple[str, ...] | None
    groups: tuple[str, ...] | None
    weights: tuple[float, ...] | None


@dataclass(frozen=True)
class _Table:
    """The columns that are of interest, as they are in the file.

    Args:
        path: The file.
        row: What the file's rows are called: ``line`` or ``row``.
        numbers: The number of each row.
        columns: What they hold -> their values.
        names: What they hold -> their names in the file.
    """

    path: Path
    row: str
    numbers: Sequence[int]
    columns: Mapping[str, Sequence[object]]
    names: Mapping[str, str]

    def place(self, index: int) -> str:
        return f"{self.path}, {self.row} {self.numbers[index]}"

    def converted(self, key: str, convert: Callable[[object], T]) -> list[T]:
        """A column's values.

        Raises:
            LeanformerError: One cannot be converted; ``convert`` says why by a ValueError.
        """
        found = []
        for index, value in enumerate(self.columns[key]):
            try:
                found.append(convert(value))
            except ValueError as error:
                raise LeanformerError(f"{self.place(index)}: {self.names[key]} is {_written(value)}; {error}") from None
        return found


def read_predictions(path: Path, answers: AnswerKind, names: Mapping[str, str]) -> PredictionFile:
    """Reads a file of predictions.

    Args:
        path: The file; its name ends in ``.csv``, ``.tsv``, ``.jsonl``, ``.ndjson`` or ``.parquet``.
        answers: ``labels`` or ``texts``.
        names: What a column holds, one of ``COLUMNS`` -> its name, where that is another one.

    Raises:
        LeanformerError: The file is missing, damaged or of another kind; a column is missing; a value is not what its
            column holds; an example has two rows, or its rows do not agree.
    """
    table = _read(path, names)
    if not table.numbers:
        raise LeanformerError(f"{path}: has no rows; give a file with a row for each example")
    ids = table.converted("id", _name)
    labels, predictions = (table.converted(key, _ANSWERS[answers]) for key in ("label", "prediction"))
    if answers == "labels":
        _check_classes(table, labels, predictions)
    has_seeds = "seed" in table.columns
    seeds = table.converted("seed", _seed) if has_seeds else [0] * len(ids)
    first = {name: index for index, name in reversed(list(enumerate(ids)))}  # id -> its first row
    by_seed: dict[int, dict[str, str]] = {}
    for index, (seed, name, prediction) in enumerate(zip(seeds, ids, predictions, strict=True)):
        of_seed = by_seed.setdefault(seed, {})
        if name in of_seed:
            again = f" of seed {seed}" if has_seeds else ""
            hint = "" if has_seeds else ", or name the column that tells them apart with --seed"
            raise LeanformerError(
                f"{table.place(index)}: the id {quoted(name)}{again} has a row before; keep one of them{hint}"
            )
        of_seed[name] = prediction
    _check_seeds(path, by_seed)
    texts = table.converted("source", _text) if "source" in table.columns else None
    groups = table.converted("group", _name) if "group" in table.columns else None
    weights = table.converted("weight", _weight) if "weight" in table.columns else None
    for key, values in (("label", labels), ("source", texts), ("group", groups), ("weight", weights)):
        if values is not None:
            _check_repeats(table, key, ids, values, first)
    if weights is not None and not any(weights):
        raise LeanformerError(f"{path}: every {table.names['weight']} is 0; give some example a weight above 0")
    if len(first) < FEWEST:
        raise LeanformerError(f"{path}: has one example; give at least {FEWEST}")

    def once(values: list[T] | None) -> tuple[T, ...] | None:
        return None if values is None else tuple(values[index] for index in first.values())

    first = dict(sorted(first.items(), key=lambda item: item[1]))
    return PredictionFile(
        path=path,
        ids=tuple(first),
        labels=tuple(labels[index] for index in first.values()),
        predictions={seed: tuple(of_seed[name] for name in first) for seed, of_seed in sorted(by_seed.items())},
        has_seeds=has_seeds,
        sources=once(texts),
        groups=once(groups),
        weights=once(weights),
    )


def matched(old: PredictionFile, new: PredictionFile) -> PredictionFile:
    """The second file's content in the order of the first's examples.

    Raises:
        LeanformerError: The files have other examples, or say different things of one.
    """
    places = {name: index for index, name in enumerate(new.ids)}
    known = set(old.ids)
    for here, there, alone in (
        (old, new, [name for name in old.ids if name not in places]),
        (new, old, [name for name in new.ids if name not in known]),
    ):
        if alone:
            raise LeanformerError(
                f"{here.path}: {len(alone):,} of {len(here.ids):,} ids are not in {there.path} ({_some(alone)}); give "
                "files of the same examples"
            )
    order = [places[name] for name in old.ids]

    def ordered(values: tuple[T, ...] | None) -> tuple[T, ...] | None:
        return None if values is None else tuple(values[place] for place in order)

    found = PredictionFile(
        path=new.path,
        ids=old.ids,
        labels=tuple(new.labels[place] for place in order),
        predictions={seed: tuple(values[place] for place in order) for seed, values in new.predictions.items()},
        has_seeds=new.has_seeds,
        sources=ordered(new.sources),
        groups=ordered(new.groups),
        weights=ordered(new.weights),
    )
    for what, first, second in (
        ("label", old.labels, found.labels),
        ("group", old.groups, found.groups),
        ("weight", old.weights, found.weights),
    ):
        if first is None or second is None:
            continue
        differ = [index for index, pair in enumerate(zip(first, second, strict=True)) if pair[0] != pair[1]]
        if differ:
            place = differ[0]
            raise LeanformerError(
                f"{new.path}: the {what} of {len(differ):,} of {len(old.ids):,} ids is another than in {old.path}: "
                f"that of {quoted(old.ids[place])} is {quoted(second[place])}, and {quoted(first[place])} there; give "
                "files of the same examples"
            )
    return found


def _check_classes(table: _Table, labels: list[str], predictions: list[str]) -> None:
    """Refuses probabilities in place of classes, and predictions in other words than the labels'."""
    known = set(labels)
    if not known.isdisjoint(predictions):
        for index, prediction in enumerate(predictions):
            if prediction not in known and _FRACTION.fullmatch(prediction):
                raise LeanformerError(
                    f"{table.place(index)}: {table.names['prediction']} is {quoted(prediction)}, which is no class; "
                    "write the predicted class, not its probability"
                )
        return
    raise LeanformerError(
        f"{table.path}: no {table.names['prediction']} is one of the labels: predictions such as "
        f"{_some(list(dict.fromkeys(predictions)))}, labels such as {_some(list(dict.fromkeys(labels)))}; write both "
        "as the same classes"
    )


def _check_seeds(path: Path, by_seed: Mapping[int, Mapping[str, str]]) -> None:
    """Refuses seeds that have other examples."""
    (first, examples), *others = by_seed.items()
    for seed, found in others:
        for here, there, names in ((first, seed, examples.keys() - found), (seed, first, found.keys() - examples)):
            if names:
                raise LeanformerError(
                    f"{path}: {len(names):,} ids of seed {here} are not there for seed {there} "
                    f"({_some(sorted(names))}); give every seed the same examples"
                )


def _check_repeats(
    table: _Table, key: str, ids: Sequence[str], values: Sequence[object], first: Mapping[str, int]
) -> None:
    """Refuses rows of one example that differ in what is the example's own."""
    for index, (name, value) in enumerate(zip(ids, values, strict=True)):
        before = values[first[name]]
        if value != before:
            raise LeanformerError(
                f"{table.place(index)}: the {table.names[key]} of the id {quoted(name)} is {quoted(value)}, and "
                f"{quoted(before)} in {table.row} {table.numbers[first[name]]}; it must be the same for every seed"
            )


# Values


def _name(value: object) -> str:
    """An id or a group: a text or a whole number."""
    text = _plain(value)
    if not text:
        raise ValueError("write a text or a whole number")
    return text


def _class(value: object) -> str:
    text = _plain(value)
    if not text:
        raise ValueError("write a class: a text or a whole number")
    return text


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("write a text")
    return value


_ANSWERS: Mapping[AnswerKind, Callable[[object], str]] = {"labels": _class, "texts": _text}
"""The kind of answers -> how labels and predictions are read."""


def _plain(value: object) -> str:
    """A name or number in the form that it has in every kind of file: 3, 3.0 and ``3`` are one class."""
    if isinstance(value, str):
        whole = _WHOLE.fullmatch(value)
        return whole[1] if whole else value
    if isinstance(value, bool | int):
        return str(value)
    if isinstance(value, float) and math.isfinite(value):
        if not value.is_integer():
            raise ValueError("write a text or a whole number, and no probability")
        return str(int(value))
    return ""


def _seed(value: object) -> int:
    try:
        number = int(_plain(value))
    except ValueError:
        number = -1
    if not 0 <= number < 2**32:
        raise ValueError("write a whole number of 0 or more")
    return number


def _weight(value: object) -> float:
    try:
        number = math.nan if isinstance(value, bool) or not isinstance(value, str | int | float) else float(value)
    except (ValueError, OverflowError):
        number = math.nan
    if not 0 <= number <= COUNT:
        raise ValueError(f"write a number from 0 to {COUNT:,}")
    return number


def _written(value: object) -> str:
    return "missing" if value is None else "empty" if value == "" else quoted(value)


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(quoted, names[:3])) + (", ..." if len(names) > 3 else "")


# Kinds of files


def _read(path: Path, names: Mapping[str, str]) -> _Table:
    """The columns of a file of any kind."""
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        kind = f": it is {other}" if (other := other_kind(path)) else ""
        raise LeanformerError(
            f"{path}: cannot be read{kind}; give a file of predictions whose name ends in {', '.join(_READERS)}"
        )
    return reader(path, {key: names.get(key, key) for key in COLUMNS}, frozenset(names))


def _chosen(path: Path, found: Sequence[str], names: Mapping[str, str], asked: frozenset[str]) -> dict[str, str]:
    """What columns hold -> their names, of those that the file has.

    Args:
        path: The file.
        found: The names of all its columns.
        names: What they hold -> their names, if they are there.
        asked: What was asked for by name, which must be there.

    Raises:
        LeanformerError: One that is needed or asked for is missing, or two have its name.
    """
    for key in COLUMNS:
        if names[key] not in found and (key in NEEDED or key in asked):
            option = "" if key in asked else f" (or say with --{key} how it is called)"
            raise LeanformerError(
                f"{path}: there is no column {quoted(names[key])}; there are {_listed(found)}; add it{option}"
            )
        if found.count(names[key]) > 1:
            raise LeanformerError(
                f"{path}: {found.count(names[key])} columns are called {quoted(names[key])}; keep one"
            )
    return {key: names[key] for key in COLUMNS if names[key] in found}


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(map(quoted, names[:12]))
    return f"{shown}, ..." if len(names) > 12 else shown or "none"


def _read_csv(path: Path, names: Mapping[str, str], asked: frozenset[str]) -> _Table:
    text = read_text(path, MOST_BYTES)
    delimiter = "\t" if path.suffix.lower() == ".tsv" else max(DELIMITERS, key=lambda mark: _fitting(text, mark, names))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows, numbers, start = [], [], 1
    try:
        for row in reader:
            if row:
                rows.append(row)
                numbers.append(start)
            start = reader.line_num + 1  # a text in quotes may span several lines
    except csv.Error as error:
        raise LeanformerError(f"{path}, line {start}: not whole CSV ({error}); repair the line") from None
    if not rows:
        raise LeanformerError(f"{path}: is empty; give a file with a row for each example")
    header = [name.strip() for name in rows[0]]
    chosen = _chosen(path, header, names, asked)
    for number, row in zip(numbers, rows, strict=True):
        if len(row) != len(header):
            raise LeanformerError(
                f"{path}, line {number}: {len(row)} columns, but line {numbers[0]} has {len(header)}; a value with "
                f"{delimiter!r} in it must be in double quotes"
            )
    columns = {key: [row[header.index(name)] for row in rows[1:]] for key, name in chosen.items()}
    return _Table(path, "line", numbers[1:], columns, chosen)


def _fitting(text: str, delimiter: str, names: Mapping[str, str]) -> int:
    """How many of the needed columns the first line names with this delimiter."""
    first = text.partition("\n")[0].rstrip("\r")
    found = {name.strip().strip('"') for name in first.split(delimiter)}
    return sum(names[key] in found for key in NEEDED)


def _read_json_lines(path: Path, names: Mapping[str, str], asked: frozenset[str]) -> _Table:
    rows: list[dict[str, object]] = []
    numbers = []
    for number, line in enumerate(read_text(path, MOST_BYTES).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise LeanformerError(f"{path}, line {number}: not JSON ({first_line(error)}); repair the line") from None
        if not isinstance(row, dict):
            raise LeanformerError(f"{path}, line {number}: is {quoted(row)}; write an object with the columns as keys")
        rows.append(row)
        numbers.append(number)
    if not rows:
        raise LeanformerError(f"{path}: is empty; give a file with a row for each example")
    found = list(dict.fromkeys(key for row in rows for key in row))
    chosen = _chosen(path, found, names, asked)
    columns = {key: [row.get(name) for row in rows] for key, name in chosen.items()}
    return _Table(path, "line", numbers, columns, chosen)


def _read_parquet(path: Path, names: Mapping[str, str], asked: frozenset[str]) -> _Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if kind := other_kind(path):
        raise LeanformerError(f"{path}: cannot be read: it is {kind}; give a file")
    try:
        with pq.ParquetFile(path) as file:
            chosen = _chosen(path, file.schema_arrow.names, names, asked)
            table = file.read(columns=list(chosen.values()))
            columns = {key: table[name].to_pylist() for key, name in chosen.items()}
    except (OSError, ValueError, pa.ArrowException) as error:  # ValueError: a name that no file can have
        raise LeanformerError(f"{path}: cannot be read as parquet ({first_line(error)}); write it again") from None
    return _Table(path, "row", range(1, table.num_rows + 1), columns, chosen)


_READERS: Mapping[str, Callable[[Path, Mapping[str, str], frozenset[str]], _Table]] = {
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".parquet": _read_parquet,
}
"""The end of a file's name -> what reads it."""
