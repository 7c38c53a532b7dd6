"""Class numbers and class names: read from a label column, matched by name between files, splits and a model's head."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from leanformer.core.errors import LeanformerError
from leanformer.core.warning import StudyWarning
from leanformer.data.folds import Rows
from leanformer.data.hub import SourceSplit

SHOWN = 5  # names that a message lists


@dataclass(frozen=True)
class Labels:
    """The labels of a source.

    Attributes:
        numbers: (n,) int64 class numbers of each split, by its role.
        classes: the names, in the order of the numbers.
        warnings: what the reader of the results has to know of them.
    """

    numbers: dict[str, Rows]
    classes: tuple[str, ...]
    warnings: tuple[StudyWarning, ...] = ()


def class_name(name: object) -> str:
    """A class's name, in the one of Unicode's forms (NFC) in which equal names are equal text."""
    return unicodedata.normalize("NFC", str(name))


def likeness(name: object) -> str:
    """A key that is the same for names that differ only in blanks or case."""
    return " ".join(class_name(name).split()).casefold()


def read_labels(splits: Mapping[str, SourceSplit], column: str) -> Labels:
    """The class numbers of all examples, and the names of the classes.

    Args:
        splits: the source's splits by their role; ``train`` is there, the others may be.
        column: the label column.

    Raises:
        LeanformerError: for labels of two kinds in two files, a label that is missing or out of range, a class that the
            training split lacks, and a training split of one class.
    """
    _check_kinds(splits, column)
    feature = splits["train"].examples.features[column]
    if isinstance(feature, datasets.ClassLabel):
        numbers, classes = _named_labels(splits, column, feature.names)
    else:
        values = {role: _label_values(split, column) for role, split in splits.items()}
        if not np.issubdtype(values["train"].dtype, np.number) and values["train"].dtype != bool:
            values = {role: np.array([class_name(value) for value in part], object) for role, part in values.items()}
        distinct = np.unique(np.concatenate(list(values.values())))
        classes = tuple(str(value) for value in distinct)
        numbers = {role: np.searchsorted(distinct, part).astype(np.int64) for role, part in values.items()}

    trained = np.unique(numbers["train"])
    for role, part in numbers.items():
        unknown = np.flatnonzero(~np.isin(part, trained))
        if len(trained) and len(unknown):  # without any training example, make_splits has the better message
            raise LeanformerError(
                f"{splits[role].place(int(unknown[0]), column)}: class {classes[part[unknown[0]]]!r} has no example "
                f"in split {splits['train'].name}; training data needs every class"
            )
    if len(trained) == 1:
        raise LeanformerError(
            f"data.source {splits['train'].source}: one class only ({classes[trained[0]]!r}) in split "
            f"{splits['train'].name}; classification needs two"
        )
    return Labels(numbers, classes, tuple(_name_warnings(classes, set(trained.tolist()))))


def _named_labels(
    splits: Mapping[str, SourceSplit], column: str, first_names: Sequence[str]
) -> tuple[dict[str, Rows], tuple[str, ...]]:
    """Class numbers of a column that stores numbers, with their names, which each file may have in its own order."""
    order: dict[str, int] = {}
    for name in first_names:
        order.setdefault(class_name(name), len(order))
    numbers = {}
    for role, split in splits.items():
        own = split.examples.features[column]
        names = own.names if isinstance(own, datasets.ClassLabel) else first_names
        values = _label_values(split, column)
        result = np.empty(len(values), np.int64)
        for start, stop, of_file in _names_of_rows(split, column, names):
            _check_range(values[start:stop], len(of_file), split, column, start)
            mapped = [order.setdefault(class_name(name), len(order)) for name in of_file]
            result[start:stop] = np.array(mapped, np.int64)[values[start:stop]]
        numbers[role] = result
    return numbers, tuple(order)


def _names_of_rows(split: SourceSplit, column: str, names: Sequence[str]) -> Iterator[tuple[int, int, Sequence[str]]]:
    """(first row, row after the last, names) of each file, or of the split; ``names`` hold where a file has none."""
    if not split.has_tables:
        yield 0, len(split.examples), names
        return
    start = 0
    for file, count in split.files:
        found = _column_of_file(file, column)
        yield start, start + count, found.names if isinstance(found, datasets.ClassLabel) else names
        start += count


def _column_of_file(file: str, column: str) -> Any:
    """The feature of a column as one parquet file itself describes it; None where it has no such column."""
    schema = pq.read_schema(file)
    try:
        return datasets.Features.from_arrow_schema(schema).get(column)
    except (KeyError, TypeError, ValueError):  # a description written by another version
        return datasets.Value(str(schema.field(column).type)) if column in schema.names else None


def _check_kinds(splits: Mapping[str, SourceSplit], column: str) -> None:
    """Labels must be of one kind in all files: numbers in one would silently be taken for other classes in another."""
    first: tuple[str, str] | None = None
    for split in splits.values():
        places = [(file, _column_of_file(file, column)) for file, _ in split.files] if split.has_tables else []
        for place, feature in places or [(f"{split.source}, split {split.name}", split.examples.features.get(column))]:
            if feature is None:
                raise LeanformerError(
                    f"{place}: has no column {column!r}, which holds the labels of other files; add it"
                )
            kind = _kind(feature)
            if first is not None and kind != first[1]:
                raise LeanformerError(
                    f"{place}: column {column!r} holds {kind}, but {first[1]} in {first[0]}; write both alike"
                )
            first = first or (place, kind)


def _kind(feature: Any) -> str:
    if isinstance(feature, datasets.ClassLabel):
        return "numbers with class names"
    dtype = str(getattr(feature, "dtype", feature))
    if dtype.startswith(("int", "uint")):
        return "whole numbers without class names"
    return "text" if "string" in dtype else dtype


def _label_values(split: SourceSplit, column: str) -> NDArray[Any]:
    """(n,) labels as they are stored; none is missing, and no number is below 0."""
    stored = split.examples.select_columns([column]).with_format("arrow")[:][column]
    if pa.types.is_dictionary(stored.type):
        stored = stored.cast(stored.type.value_type)
    if stored.null_count:
        row = stored.is_null().index(True).as_py()
        raise LeanformerError(f"{split.place(row, column)}: no label; fill it in or remove the row")
    values: NDArray[Any] = stored.to_numpy()
    if values.dtype.kind in "iu" and not isinstance(split.examples.features[column], datasets.ClassLabel):
        _check_range(values, None, split, column, 0)
    return values


def _check_range(values: NDArray[Any], end: int | None, split: SourceSplit, column: str, first_row: int) -> None:
    """Class numbers are 0 or more, and below ``end`` where they have names."""
    wrong = np.flatnonzero((values < 0) | (values >= (np.inf if end is None else end)))
    if len(wrong):
        label = values[wrong[0]]
        hint = " (-1 often stands for no label)" if label == -1 else ""
        right = "0 or more" if end is None else f"0 to {end - 1}"
        raise LeanformerError(
            f"{split.place(first_row + int(wrong[0]), column)}: label {label} is out of range{hint}; class numbers are "
            f"{right}"
        )


def _name_warnings(classes: tuple[str, ...], trained: set[int]) -> Iterator[StudyWarning]:
    """Warnings about names that are probably the same, and about names without an example."""
    alike: dict[str, list[str]] = defaultdict(list)
    for name in classes:
        alike[likeness(name)].append(name)
    groups = [names for names in alike.values() if len(names) > 1]
    if groups:
        pairs = "; ".join(" and ".join(map(repr, names)) for names in groups[:SHOWN])
        yield StudyWarning(
            "similar-labels",
            f"class names differ only in blanks or case, and are different classes here: {pairs}; write them alike if "
            "they mean the same",
            sum(map(len, groups)),
        )
    empty = [name for number, name in enumerate(classes) if trained and number not in trained]
    if empty:
        yield StudyWarning(
            "empty-class",
            f"classes without an example: {len(empty):,} of {len(classes):,}, such as {empty[0]!r}; the models have an "
            "output for each of them that learns nothing",
            len(empty),
        )


# A trained model's head


def match_head(labels: Labels, head: Sequence[str], source: str) -> tuple[Labels, str | None]:
    """Numbers the classes as a trained model's outputs are named, so that each output keeps its class.

    Args:
        labels: of the data.
        head: the names of the model's outputs, in their order.
        source: the model's name, for notes and warnings.

    Returns:
        The labels in the model's order where names are the same in both, and a note.
    """
    if len(head) != len(labels.classes):
        return labels, None  # the check of the model against the data reports it
    unnamed = all(name in (f"LABEL_{number}", str(number)) for number, name in enumerate(head))
    if unnamed and set(head) != set(labels.classes):
        return labels, f"{source} names no classes; its outputs are taken in the order of the data's classes"
    at = {likeness(name): number for number, name in enumerate(labels.classes)}
    if len(at) < len(labels.classes) or len({likeness(name) for name in head}) < len(head):  # alike but for case
        at = {name: number for number, name in enumerate(labels.classes)}
        wanted = [class_name(name) for name in head]
    else:
        wanted = [likeness(name) for name in head]
    found = [at.pop(name, None) for name in wanted]  # a name that is twice in the head is found once
    others = iter(at.values())
    order = [next(others) if number is None else number for number in found]
    matched = _reorder(labels, order)
    renamed = [(old, new) for number, old, new in zip(found, head, matched.classes, strict=True) if number is None]
    if renamed:
        pairs = ", ".join(f"{old!r} is now {new!r}" for old, new in renamed[:SHOWN])
        warning = StudyWarning(
            "head-renamed",
            f"outputs of {source} that were trained for classes which the data lack: {len(renamed):,} of {len(head):,} "
            f"({pairs}); they are trained for the new ones, from the old weights",
            len(renamed),
        )
        return replace(matched, warnings=(*matched.warnings, warning)), None
    if order == sorted(order):
        return matched, None
    return matched, f"classes numbered in the order of {source}, matched by name"


def number_as(labels: Labels, head: Sequence[str], source: str, place: Callable[[int], str]) -> Labels:
    """Numbers the classes of test data as a trained model's outputs are named. Data may lack some of its classes.

    Args:
        labels: Of the data, all under the role ``train``.
        head: The names of the model's outputs, in their order.
        source: The model's name, for messages.
        place: Names an example by its number.

    Raises:
        LeanformerError: An example has a class that the model does not know.
    """
    key = likeness if len({likeness(name) for name in head}) == len(head) else class_name
    at = {key(name): number for number, name in enumerate(head)}
    new = np.array([at.get(key(name), -1) for name in labels.classes], np.int64)  # old number -> new number
    numbers = labels.numbers["train"]
    unknown = np.flatnonzero(new[numbers] < 0)
    if len(unknown):
        first = int(unknown[0])
        named = ", ".join(map(repr, head[:SHOWN])) + (", ..." if len(head) > SHOWN else "")
        raise LeanformerError(
            f"{place(first)}: class {labels.classes[numbers[first]]!r} is none of the model's ({named}); classes are "
            f"matched by name with those of {source}"
        )
    return Labels({"train": new[numbers]}, tuple(head))


def _reorder(labels: Labels, order: Sequence[int]) -> Labels:
    """The classes in the given order of their old numbers."""
    new = np.argsort(np.array(order, np.int64))  # old number -> new number
    numbers = {role: new[part] for role, part in labels.numbers.items()}
    return replace(labels, numbers=numbers, classes=tuple(labels.classes[number] for number in order))
