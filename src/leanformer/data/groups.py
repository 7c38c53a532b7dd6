"""Test examples that depend on each other: photos of one object, sentences of one document. Each has a group's name.

A group is what was drawn as a whole when the data were collected. Splits keep groups whole, as a model knows a new
photo of an object that it was trained on; intervals count groups, as ten photos of one object say less than those of
ten objects.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from leanformer.core.errors import LeanformerError
from leanformer.core.warning import StudyWarning
from leanformer.data.hub import SourceSplit

FEWEST = 2
"""Fewest groups of a test split: one group has no variance."""
FEW = 10
"""Test groups below which there is a warning: the spread between so few of them is hardly known."""
DRAWS = 100
"""Divisions among which the one with the most fitting sizes is taken."""
SHOWN = 3  # names that a message lists


# Reading


def column_groups(split: SourceSplit, column: str, hint: str = "") -> list[str | None]:
    """The groups that a column names; None where it says nothing.

    Args:
        split: Some examples.
        column: The study's ``data.group``.
        hint: What else could be given, a clause for the message where there is no such column.

    Raises:
        LeanformerError: There is no such column, or it holds neither texts nor whole numbers.
    """
    features = split.examples.features
    if column not in features:
        raise LeanformerError(
            f"data.group: no column {column!r} in {split.source}, split {split.name}; there are {', '.join(features)}"
            f"{hint}"
        )
    feature = features[column]
    if not _names_groups(feature):
        raise LeanformerError(
            f"data.group: column {column!r} of {split.source} holds {getattr(feature, 'dtype', feature)}; groups are "
            "texts or whole numbers"
        )
    values = split.examples.select_columns([column]).with_format("arrow")[:][column].to_pylist()
    if isinstance(feature, datasets.ClassLabel):
        return [None if value is None else feature.int2str(value) for value in values]
    return [None if value in (None, "") else str(value) for value in values]


def _names_groups(feature: Any) -> bool:
    return isinstance(feature, datasets.ClassLabel) or (
        isinstance(feature, datasets.Value)
        and feature.dtype.startswith(("int", "uint", "bool", "string", "large_string", "date"))
    )


def pattern_groups(split: SourceSplit, image_column: str, pattern: str, root: Path) -> list[str]:
    """The groups that the names of image files contain: the pattern's first group in brackets, or all that it matches.

    Args:
        split: Some examples.
        image_column: The column of their images, whose paths are read where the images are not files themselves.
        pattern: A regular expression, which is searched for in each file's path below the source.
        root: The directory of the source.

    Raises:
        LeanformerError: The images have no file names, or the pattern is not found in one.
    """
    if split.files and not split.has_tables:
        paths: Sequence[str | None] = [Path(os.path.relpath(file, root)).as_posix() for file, _ in split.files]
    else:
        paths = _stored_paths(split.examples.data.column(image_column))
    groups = []
    for row, path in enumerate(paths):
        if not path:
            raise LeanformerError(
                f"data.group.pattern: {split.place(row, image_column)}: this image has no file name; name a column "
                "that holds the groups"
            )
        match = re.search(pattern, path)
        name = None if match is None else match[1] if match.re.groups else match[0]
        if not name:
            raise LeanformerError(
                f"data.group.pattern: {pattern!r} finds no group in {path!r}; every image needs one, so widen "
                "the pattern"
            )
        groups.append(name)
    return groups


def _stored_paths(column: pa.ChunkedArray) -> list[str | None]:
    """The paths in a column of images; only they are read, not the images."""
    if pa.types.is_struct(column.type) and column.type.get_field_index("path") >= 0:
        return list(pc.struct_field(column, "path").to_pylist())
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return list(column.to_pylist())
    return [None] * len(column)


# Dividing


def check_enough(groups: Iterable[str], missing: Sequence[str]) -> None:
    """Makes sure that the training split has enough groups to give the splits that are missing.

    Args:
        groups: The groups of the training examples.
        missing: ``test``, ``validation``, or both.

    Raises:
        LeanformerError: It has not.
    """
    wanted = {"training": 1} | {role: _fewest(role) for role in missing}
    there, needed = len(set(groups)), sum(wanted.values())
    if missing and there < needed:
        parts = ", ".join(f"{count} for {name}" for name, count in wanted.items())
        raise LeanformerError(
            f"data.group: the training split has {there} group{'s' * (there != 1)} to divide, and groups stay whole; "
            f"give {needed} or more ({parts}), or data with splits of their own"
        )


def _fewest(role: str) -> int:
    return FEWEST if role == "test" else 1


def divide_groups(
    groups: Sequence[str] | NDArray[Any],
    classes: NDArray[np.int64],
    count: int,
    seed: int,
    *,
    role: str,
    missing: int,
) -> NDArray[np.bool_]:
    """Which examples are set aside when groups stay whole: as nearly ``count`` as the groups allow, drawn at random.

    Each draw shuffles the groups of each class (a group's most frequent one), and takes groups from all classes in
    proportion to their examples until the number is nearest. Of ``DRAWS`` such draws it is the one that leaves the
    fewest classes without a training example, and then the one whose numbers of examples of each class differ least
    from those wanted.

    Args:
        groups: The group of each example, (n,).
        classes: Its class, (n,).
        count: How many examples to set aside.
        seed: Of the draws.
        role: The split that they are for.
        missing: How many splits the rest must still give, training included; a group at least for each.

    Returns:
        (n,), true for the examples that are set aside.
    """
    _, of_example, sizes = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    number = int(classes.max()) + 1
    totals = np.bincount(classes, minlength=number)
    wanted = totals * (count / len(classes))
    pairs, examples = np.unique(of_example * number + classes, return_counts=True)
    by_count = np.argsort(examples, kind="stable")
    main = np.empty(len(sizes), np.int64)  # (groups,)
    main[pairs[by_count] // number] = pairs[by_count] % number  # the last one written is the most frequent
    weights = np.bincount(main, sizes, minlength=number)  # examples of the groups of each class
    random = np.random.default_rng(seed)
    fewest, most = _fewest(role), len(sizes) - missing
    best: tuple[tuple[float, float], NDArray[np.bool_]] | None = None
    for _ in range(DRAWS):
        shuffled = random.permutation(len(sizes))
        order = shuffled[np.argsort(main[shuffled], kind="stable")]  # the groups of one class follow each other
        before = np.cumsum(sizes[order]) - sizes[order]
        first = np.concatenate(([0.0], np.cumsum(weights)))[main[order]]  # examples of the classes before
        places = (before - first + random.random(len(order)) * sizes[order]) / weights[main[order]]  # in its class
        order = order[np.argsort(places, kind="stable")]
        reached = np.cumsum(sizes[order])[fewest - 1 : most]
        taken = np.zeros(len(sizes), bool)
        taken[order[: fewest + int(np.abs(reached - count).argmin())]] = True
        held_out = taken[of_example]
        there = np.bincount(classes[held_out], minlength=number)
        lost = float(((there == totals) & (totals > 0)).sum())
        score = (lost, float(np.abs(there - wanted).sum()))
        if best is None or score < best[0]:
            best = score, held_out
    assert best is not None
    return best[1]


# Warnings


def shared_groups(groups: Mapping[str, Iterable[str]]) -> list[StudyWarning]:
    """The warnings about groups that are in two splits.

    Args:
        groups: The groups of the examples of each split, by its role.
    """
    own = {role: set(names) for role, names in groups.items()}
    warnings = []
    for first, second in combinations([role for role in ("train", "validation", "test") if role in own], 2):
        if both := sorted(own[first] & own[second]):
            named = ", ".join(map(repr, both[:SHOWN]))
            sentence = (
                f"{second}: {len(both):,} of {len(own[second]):,} groups have examples in the {first} split too, such "
                f"as {named}; examples of one group are alike, so keep each group in one split"
            )
            warnings.append(StudyWarning("shared-groups", sentence, len(both)))
    return warnings


def check_test_groups(groups: NDArray[np.int64]) -> list[StudyWarning]:
    """The warning about a test split of few groups.

    Args:
        groups: The group of each test example, (n,).

    Raises:
        LeanformerError: There are too few to decide.
    """
    count = len(np.unique(groups))
    if count < FEWEST:
        raise LeanformerError(
            f"data.group: all {len(groups):,} test examples are in one group, and a decision needs at least {FEWEST} "
            "groups; give test examples of more groups, or leave data.group out"
        )
    if count >= FEW:
        return []
    sentence = (
        f"the test split has {count} groups: how much groups differ is hardly known from so few, and intervals are "
        f"rough; give test examples of {FEW} groups or more"
    )
    return [StudyWarning("few-groups", sentence, count)]
