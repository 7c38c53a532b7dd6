"""Cross-validation: all examples of a source in one pool, divided into folds, of which each is tested once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold

from leanformer.config.base import CrossValidationConfig, DataConfig
from leanformer.core.errors import LeanformerError
from leanformer.data.groups import divide_groups

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Fold:
    """The examples of a pool that models are trained on, and those that are tested; in a study of all folds, the first
    fold's training examples, and all examples as those that are tested in turn.

    Args:
        train: Their numbers, ascending; validation examples are still among them.
        test: Likewise.
        note: What was done, in words.
    """

    train: Rows
    test: Rows
    note: str


def take_fold(
    config: DataConfig, roles: Iterable[str], classes: Rows, groups: Sequence[str] | None, unit: str = "group"
) -> Fold:
    """Divides the training split of a source, which is the pool, with ``split_seed`` and the seed of the fold.

    Args:
        config: The study's section, with ``cross_validation``.
        roles: What the source has splits for.
        classes: The class of each example, (n,); all the same where there are none.
        groups: The group of each example, (n,), which stays whole; None: folds are stratified by class.
        unit: The word for a group.

    Raises:
        LeanformerError: The source has a test split of its own, or too few examples or groups for the folds.
    """
    settings = config.cross_validation
    assert settings is not None
    if "test" in roles:
        raise LeanformerError(
            f"data.cross_validation: {config.source} has its own test split; leave cross_validation out to test on "
            "that, or give all examples in one split"
        )
    seed = int(np.random.SeedSequence((config.split_seed, settings.seed)).generate_state(1)[0])
    if groups is None:
        folds, how = _stratified(settings, classes, seed), "stratified by class"
    else:
        folds, how = _grouped(settings, classes, groups, seed, unit), f"of {len(set(groups)):,} whole {unit}s"
    tested = folds == (settings.fold or 1)
    train, test = np.flatnonzero(~tested), np.flatnonzero(tested)
    if settings.fold is None:
        note = f"cross-validation: {len(folds):,} examples in {settings.folds} folds for each seed ({how})"
        return Fold(train, np.arange(len(folds)), note)
    note = f"fold {settings.fold} of {settings.folds}: {len(test):,} of {len(folds):,} examples are tested ({how})"
    return Fold(train, test, note)


def _stratified(settings: CrossValidationConfig, classes: Rows, seed: int) -> Rows:
    """The fold of each example, from 1: of each class the folds have equal numbers, but for one example."""
    fewest = int(np.unique(classes, return_counts=True)[1].min())
    if fewest < settings.folds:
        raise LeanformerError(
            f"data.cross_validation: {settings.folds} folds, and a class has {fewest} "
            f"example{'s' * (fewest != 1)}, too few for one in each; "
            + (f"give {fewest} folds or fewer, or " if fewest > 1 else "give ")
            + "more examples of this class"
        )
    folds = np.zeros(len(classes), np.int64)
    divided = StratifiedKFold(settings.folds, shuffle=True, random_state=seed).split(classes, classes)
    for number, (_, tested) in enumerate(divided, 1):
        folds[tested] = number
    return folds


def _grouped(settings: CrossValidationConfig, classes: Rows, groups: Sequence[str], seed: int, unit: str) -> Rows:
    """The fold of each example, from 1: of nearly equal sizes, as far as whole groups allow (``divide_groups``)."""
    count = len(set(groups))
    if count < settings.folds:
        raise LeanformerError(
            f"data.cross_validation: {settings.folds} folds, and there {'is' if count == 1 else 'are'} {count} "
            f"{unit}{'s' * (count != 1)}, which stay{'s' * (count == 1)} whole; "
            + (f"give {count} folds or fewer, or more {unit}s" if count > 1 else f"give more {unit}s")
        )
    names = np.asarray(groups, object)
    folds = np.full(len(names), settings.folds)  # the last fold has what the others leave
    left = np.arange(len(names))
    for number in range(1, settings.folds):
        others = settings.folds - number
        wanted = round(len(left) / (others + 1))
        taken = divide_groups(names[left], classes[left], wanted, seed, role="fold", missing=others)
        folds[left[taken]] = number
        left = left[~taken]
    return folds
