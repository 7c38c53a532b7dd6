"""Sentence pairs, and which of them are for training, for validation and for testing.

Both sides of a pair are always kept or left out together, and everything that is left out is counted in the notes.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from leanformer.config.translation import TextDataConfig
from leanformer.core.errors import LeanformerError
from leanformer.data.folds import Fold, take_fold
from leanformer.data.groups import check_enough, divide_groups

FEWEST_TESTED = 2
"""Fewest sentences of a test split: samples drawn from a single one have no variance."""


@dataclass(frozen=True)
class SentencePairs:
    """Sentences and their translations: ``targets[i]`` is that of ``sources[i]``."""

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    groups: tuple[str, ...] | None = None
    """The name of each pair's group, such as its document; None where each pair stands for itself."""

    def __post_init__(self) -> None:
        if len(self.sources) != len(self.targets):
            raise ValueError(f"{len(self.sources)} sources, but {len(self.targets)} targets")
        if self.groups is not None and len(self.groups) != len(self.sources):
            raise ValueError(f"{len(self.sources)} pairs, but {len(self.groups)} groups")

    def __len__(self) -> int:
        return len(self.sources)

    def select(self, rows: Iterable[int]) -> SentencePairs:
        """The pairs of these rows, in their order."""
        rows = list(rows)
        return SentencePairs(
            tuple(self.sources[row] for row in rows),
            tuple(self.targets[row] for row in rows),
            None if self.groups is None else tuple(self.groups[row] for row in rows),
        )

    def without(self, rows: Iterable[int]) -> SentencePairs:
        """The pairs but for these rows."""
        left_out = set(rows)
        return self.select(row for row in range(len(self)) if row not in left_out)


def clean_pairs(pairs: SentencePairs) -> tuple[SentencePairs, int]:
    """The pairs without outer white space and line breaks, and how many with an empty side were left out."""
    cleaned = SentencePairs(
        tuple(map(_one_line, pairs.sources)),
        tuple(map(_one_line, pairs.targets)),
        None if pairs.groups is None else tuple(map(_one_line, pairs.groups)),
    )
    kept = [row for row, (source, target) in enumerate(_rows(cleaned)) if source and target]
    return cleaned.select(kept), len(pairs) - len(kept)


def _one_line(text: str) -> str:
    """A text on one line, without outer white space; other white space within it is kept."""
    return re.sub(r"\s*[\r\n]\s*", " ", text.strip())


def _rows(pairs: SentencePairs) -> Iterable[tuple[str, str]]:
    return zip(pairs.sources, pairs.targets, strict=True)


def fold_of_pairs(splits: Mapping[str, SentencePairs], config: TextDataConfig) -> Fold:
    """The fold of a cross-validation: groups stay whole, and a source sentence with all its translations.

    Args:
        splits: each split by its role; ``train`` is there.

    Raises:
        LeanformerError: see ``take_fold``.
    """
    train = splits["train"]
    one_class = np.zeros(len(train), np.int64)
    if train.groups is None:
        return take_fold(config, splits, one_class, train.sources, "source sentence")
    return take_fold(config, splits, one_class, train.groups)


def divide_pairs(
    splits: Mapping[str, SentencePairs], config: TextDataConfig
) -> tuple[dict[str, SentencePairs], list[str]]:
    """The pairs of ``train``, ``validation`` and ``test``; what the source lacks is set aside from its training split.

    First the test split (``test_fraction`` of the distinct source sentences, each with all its translations; in a
    cross-validation it is there already), then the validation split (``validation_fraction`` of the rest), then the
    limits; so a sentence that is set aside is never one that is trained on. Where pairs have groups, whole groups are
    set aside instead, nearest to that fraction of the pairs; limits draw pairs, so that as many groups as possible
    stay. All choices are drawn with ``split_seed``.

    Args:
        splits: each split by its role; ``train`` is there, the others may be.

    Returns:
        All three, and in words what was done.

    Raises:
        LeanformerError: when a split is empty, in the source or after the division; when there are too few groups.
    """
    divided = dict(splits)
    notes: list[str] = []
    for role, pairs in divided.items():
        if len(pairs) == 0:
            raise LeanformerError(f"data.source {config.source}: the {role} split is empty; it needs sentence pairs")
    if problem := _too_few(divided):
        raise LeanformerError(f"data.source {config.source}: {problem}")
    missing = [role for role in ("test", "validation") if role not in divided]
    if divided["train"].groups is not None:
        check_enough(divided["train"].groups, missing)
    for role in missing:
        key = f"{role}_fraction"
        fraction: float = getattr(config, key)
        train = divided["train"]
        distinct = list(dict.fromkeys(train.sources))
        count = round(fraction * len(distinct))
        left = len(missing) - missing.index(role)
        if problem := _division_problem(fraction, len(distinct), count, role, left):
            raise LeanformerError(f"data.{key}: {problem}")
        if train.groups is not None:
            one_class = np.zeros(len(train), np.int64)
            wanted = round(fraction * len(train))
            taken = divide_groups(train.groups, one_class, wanted, config.split_seed, role=role, missing=left)
            divided["train"] = train.select(np.flatnonzero(~taken).tolist())
            divided[role] = train.select(np.flatnonzero(taken).tolist())
            notes.append(
                f"no {role} split: {fraction:.3g} of the training pairs set aside ({len(divided[role]):,} of "
                f"{len(train):,} pairs, {len(set(divided[role].groups or ())):,} of {len(set(train.groups)):,} groups, "
                f"seed {config.split_seed})"
            )
            continue
        held_out = set(random.Random(config.split_seed).sample(distinct, count))
        divided["train"] = train.select(row for row, source in enumerate(train.sources) if source not in held_out)
        divided[role] = train.select(row for row, source in enumerate(train.sources) if source in held_out)
        notes.append(
            f"no {role} split: {fraction:.3g} of the training sentences set aside ({len(divided[role]):,} of "
            f"{len(train):,} pairs, seed {config.split_seed}; no source sentence is on both sides)"
        )
    for role in ("train", "validation", "test"):
        limit: int | None = getattr(config, f"{role}_limit")
        pairs = divided[role]
        if limit is not None and limit < len(pairs):
            chosen = random.Random(config.split_seed).sample(range(len(pairs)), limit)
            divided[role] = pairs.select(sorted(chosen))
            notes.append(f"{role} split limited to {limit:,} of {len(pairs):,} pairs (seed {config.split_seed})")
    return divided, notes


def _too_few(splits: Mapping[str, SentencePairs]) -> str | None:
    """Why the training split cannot give the splits that are missing."""
    wanted = {"training": 1}
    if "validation" not in splits:
        wanted["validation"] = 1
    if "test" not in splits:
        wanted["test"] = FEWEST_TESTED
    there, needed = len(set(splits["train"].sources)), sum(wanted.values())
    if len(wanted) == 1 or there >= needed:
        return None
    sentences = "sentence" if there == 1 else "sentences"
    parts = ", ".join(f"{count} for {name}" for name, count in wanted.items())
    return (
        f"{there} distinct source {sentences} to divide, which is too few to train and judge with; give {needed} or "
        f"more ({parts})"
    )


def _division_problem(fraction: float, distinct: int, count: int, role: str, left: int) -> str | None:
    """What is wrong with setting sentences aside, and what would be right.

    Args:
        fraction: The fraction that is to be set aside.
        distinct: The number of distinct sentences.
        count: The number to set aside.
        role: The split that they are for.
        left: How many splits the rest is for, training included.
    """
    if 0 < count <= distinct - left:
        return None
    empty = role if count == 0 else "train" if count == distinct else "validation"
    if count == 0:
        fewest = FEWEST_TESTED if role == "test" else 1
        remedy = f"a larger fraction, {math.ceil(1000 * fewest / distinct) / 1000:g} or more"
    else:
        remedy = "a smaller fraction"
    return (
        f"{fraction:g} of {distinct:,} distinct source sentences leaves the {empty} split empty; the data has no "
        f"{role} split, so give {remedy}"
    )
