"""Which examples are for training, for validation and for testing.

A split is a list of row numbers into one split of the source, so that nothing is copied; the same labels and the same
configuration give the same rows every time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from leanformer.config.classification import ClassDataConfig
from leanformer.core.errors import LeanformerError
from leanformer.core.warning import StudyWarning
from leanformer.data.folds import Rows, take_fold
from leanformer.data.groups import check_enough, divide_groups
from leanformer.data.labels import Labels

SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "validate", "validating", "valid", "val", "dev", "devel", "development"),
    "test": ("test", "testing", "eval", "evaluation", "holdout", "heldout"),
}
ADDED_WORDS = frozenset({"data", "dataset", "folder", "image", "images", "imgs", "photos", "seg", "set", "split"})
"""What people write beside a split's name: ``seg_train``, ``test-images``."""


def plain_role(name: str) -> str | None:
    """What a split of exactly this name is for: ``train``, ``validation`` or ``test``; None for other names."""
    return next((role for role, names in SPLIT_NAMES.items() if name.lower() in names), None)


def role_of(name: str) -> str | None:
    """As ``plain_role``, also for a name with numbers and added words, such as ``Hold-out`` or ``train_images2017``."""
    words = [word for word in re.split(r"[\W\d_]+", name.lower()) if word and word not in ADDED_WORDS]
    return plain_role("".join(words).removesuffix("set"))


@dataclass(frozen=True)
class SplitRows:
    """Some rows of one split of the source: ``rows`` is (n,), ascending, counted from 0."""

    source_split: str
    rows: Rows


def name_splits(found: list[str], source: str) -> dict[str, str]:
    """What each split of the source is for: role -> the source's name, such as ``{"validation": "dev", ...}``.

    A role's own name is preferred to its other names (``test`` to ``holdout``), and these to a name with numbers or
    words added. A single split is training data under any name but one of a test or validation split.

    Raises:
        LeanformerError: without a training split, or when two splits claim one role.
    """
    roles: dict[str, str] = {}
    for role in SPLIT_NAMES:
        own = [name for name in found if name.lower() == role]
        plain = own or [name for name in found if plain_role(name) == role]
        added = [name for name in found if role_of(name) == role]
        matches = plain or added
        if len(matches) > 1:
            raise LeanformerError(
                f"data.source {source}: splits {' and '.join(matches)} are both for {role}; keep one of them"
            )
        if matches:
            roles[role] = matches[0]
    if not roles and len(found) == 1:
        roles["train"] = found[0]
    if "train" not in roles:
        raise LeanformerError(
            f"data.source {source}: no training split among {', '.join(found)}; one must be named 'train'"
        )
    return roles


def make_splits(
    labels: Mapping[str, Rows], config: ClassDataConfig, groups: Mapping[str, NDArray[np.object_]] | None = None
) -> tuple[dict[str, SplitRows], list[str]]:
    """The rows of ``train``, ``validation`` and ``test``; what the source lacks is set aside from its training split.

    First the test split (``test_fraction`` of all training rows, or the fold of a cross-validation), then the
    validation split (``validation_fraction`` of the rest), then the limits. All choices are drawn with ``split_seed``,
    in the proportions of the classes wherever there are enough examples. Groups are set aside as a whole
    (``divide_groups``); limits draw examples, so that as many groups as possible stay.

    Args:
        labels: (n,) class numbers of each split by its role; ``train`` is there, the others may be.
        groups: (n,) names of the examples' groups, likewise; None where each example stands for itself.

    Returns:
        ``{role: SplitRows}`` with ``source_split`` holding the role that the rows were taken from, and in words what
        was done.

    Raises:
        LeanformerError: when a split is empty, in the source or after the division; when there are too few groups.
    """
    splits: dict[str, SplitRows] = {}
    notes: list[str] = []
    for role, values in labels.items():
        if len(values) == 0:
            raise LeanformerError(f"data.source {config.source}: the {role} split is empty; it needs examples")
        splits[role] = SplitRows(role, np.arange(len(values)))
    if config.cross_validation is not None:
        fold = take_fold(config, labels, labels["train"], None if groups is None else groups["train"].tolist())
        splits |= {"train": SplitRows("train", fold.train), "test": SplitRows("train", fold.test)}
        notes.append(fold.note)
    missing = [role for role in ("test", "validation") if role not in splits]
    if groups is not None:
        check_enough(groups["train"][splits["train"].rows], missing)
    for role, key in (("test", "test_fraction"), ("validation", "validation_fraction")):
        if role in splits:
            continue
        fraction: float = getattr(config, key)
        train = splits["train"].rows
        count = round(fraction * len(train))
        if not 0 < count < len(train):
            empty = role if count == 0 else "train"
            raise LeanformerError(
                f"data.{key}: {fraction:g} of {len(train)} training examples leaves the {empty} split empty; "
                f"the data has no {role} split, so give a larger {'fraction' if count == 0 else 'data set'}"
            )
        if groups is None:
            kept, held_out, stratified = _divide(train, labels["train"], count, config.split_seed)
            how = "stratified by class" if stratified else "too few per class to stratify"
        else:
            own, left = groups["train"][train], len(missing) - missing.index(role)
            taken = divide_groups(own, labels["train"][train], count, config.split_seed, role=role, missing=left)
            kept, held_out = train[~taken], train[taken]
            how = f"{len(set(own[taken])):,} of {len(set(own)):,} groups, stratified by class as far as groups allow"
        splits["train"], splits[role] = SplitRows("train", kept), SplitRows("train", held_out)
        notes.append(
            f"no {role} split: {fraction:.3g} of the training examples set aside ({len(held_out):,} of {len(train):,}, "
            f"seed {config.split_seed}, {how})"
        )
    for role, limit in (("train", config.train_limit), ("test", config.test_limit)):
        split = splits[role]
        if limit is not None and limit < len(split.rows):
            excess = len(split.rows) - limit
            kept, _, _ = _divide(split.rows, labels[split.source_split], excess, config.split_seed)
            splits[role] = SplitRows(split.source_split, kept)
            notes.append(
                f"{role} split limited to {limit:,} of {len(split.rows):,} examples (seed {config.split_seed})"
            )
    return splits, notes


def _divide(rows: Rows, labels: Rows, count: int, seed: int) -> tuple[Rows, Rows, bool]:
    """``count`` rows set aside at random: the kept rows, those set aside, and whether classes kept their proportions.

    Where there are too few examples to stratify, one of each class is kept first, so that no class that can be
    learned is lost to the rows set aside.
    """
    classes, counts = np.unique(labels[rows], return_counts=True)
    if counts.min() >= 2 and count >= len(classes) and len(rows) - count >= len(classes):
        kept, held_out = train_test_split(rows, test_size=count, stratify=labels[rows], random_state=seed)
        return np.sort(kept), np.sort(held_out), True
    shuffled = np.random.default_rng(seed).permutation(rows)
    _, first = np.unique(labels[shuffled], return_index=True)
    first = np.sort(first)
    shuffled = np.concatenate((shuffled[first], np.delete(shuffled, first)))
    return np.sort(shuffled[: len(rows) - count]), np.sort(shuffled[len(rows) - count :]), False


def untrained_classes(labels: Labels, splits: Mapping[str, SplitRows], cause: str) -> list[StudyWarning]:
    """The warning about classes that a limit or a division leaves without a training example, and that are tested.

    Args:
        labels: Of the source.
        splits: Which rows each split has.
        cause: What left them without one.
    """
    own = {role: labels.numbers[split.source_split][split.rows] for role, split in splits.items()}
    lost = np.setdiff1d(np.concatenate([own["validation"], own["test"]]), own["train"]).tolist()
    if not lost:
        return []
    remedy = "give a larger limit" if cause == "data.train_limit" else "give such a class more groups"
    sentence = (
        f"classes that {cause} leaves without a training example, and that are tested: {len(lost):,} of "
        f"{len(labels.classes):,}, such as {labels.classes[lost[0]]!r}; {remedy}"
    )
    return [StudyWarning("empty-class", sentence, len(lost))]
