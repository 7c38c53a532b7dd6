"""Which examples are for training, for validation and for testing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from leanformer.config.images import ImageDataConfig
from leanformer.core.errors import LeanformerError
from leanformer.data.splits import make_splits, name_splits


def splits_of(labels: list[int], **keys: Any) -> dict[str, set[int]]:
    splits, _ = make_splits({"train": np.array(labels, dtype=np.int64)}, ImageDataConfig(**keys))
    assert {split.source_split for split in splits.values()} == {"train"}
    return {role: set(split.rows.tolist()) for role, split in splits.items()}


def test_splits_do_not_overlap_and_lose_nothing() -> None:
    splits = splits_of([row % 3 for row in range(300)])
    assert {role: len(rows) for role, rows in splits.items()} == {"train": 216, "validation": 24, "test": 60}
    assert splits["train"] | splits["validation"] | splits["test"] == set(range(300))
    for rows in splits.values():
        assert np.bincount([row % 3 for row in rows]).tolist() == [len(rows) // 3] * 3  # stratified


def test_splits_follow_their_seed() -> None:
    labels = [row % 3 for row in range(300)]
    assert splits_of(labels) == splits_of(labels)
    assert splits_of(labels)["test"] != splits_of(labels, split_seed=1)["test"]
    assert splits_of(labels)["train"] != splits_of(labels, split_seed=1)["train"]


def test_limits_take_from_the_same_splits() -> None:
    labels = [row % 3 for row in range(300)]
    whole, limited = splits_of(labels), splits_of(labels, train_limit=30, test_limit=2)
    assert limited["train"] < whole["train"]
    assert limited["test"] < whole["test"]
    assert limited["validation"] == whole["validation"]
    assert (len(limited["train"]), len(limited["test"])) == (30, 2)
    assert np.bincount([row % 3 for row in limited["train"]]).tolist() == [10, 10, 10]
    assert splits_of(labels, train_limit=10_000) == whole


@pytest.mark.parametrize("seed", range(5))
def test_rare_classes_stay_in_training(seed: int) -> None:
    labels = [0] * 20 + [1] * 20 + [2]
    splits = splits_of(labels, split_seed=seed)
    assert 40 in splits["train"]
    many = [row % 50 for row in range(100)]  # fewer validation examples than classes
    assert {many[row] for row in splits_of(many, split_seed=seed)["train"]} == set(range(50))


@pytest.mark.parametrize(
    ("count", "keys", "message"),
    [
        (
            3,
            {"test_fraction": 0.34},
            r"data\.validation_fraction: 0\.1 of 2 training examples leaves the validation split empty; the data has "
            "no validation split, so give a larger fraction",
        ),
        (20, {"test_fraction": 0}, r"data\.test_fraction: 0 of 20 training examples leaves the test split empty"),
        (
            20,
            {"test_fraction": 0.99},
            r"data\.test_fraction: 0\.99 of 20 training examples leaves the train split empty; .* larger data set",
        ),
        (0, {}, r"data\.source digits: the train split is empty; it needs examples"),
    ],
)
def test_a_split_that_would_be_empty(count: int, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(LeanformerError, match=message):
        splits_of([row % 2 for row in range(count)], **keys)


def test_names_of_splits() -> None:
    assert name_splits(["Test", "extra", "dev", "TRAIN"], "x") == {
        "train": "TRAIN",
        "validation": "dev",
        "test": "Test",
    }
    assert name_splits(["train", "test", "evaluation"], "x") == {"train": "train", "test": "test"}
    assert name_splits(["train", "holdout", "test2"], "x") == {"train": "train", "test": "holdout"}
    assert name_splits(["train", "test2"], "x") == {"train": "train", "test": "test2"}
    with pytest.raises(LeanformerError, match=r"data\.source x: splits test1 and test2 are both for test; keep one"):
        name_splits(["train", "test1", "test2"], "x")
    assert name_splits(["everything"], "x") == {"train": "everything"}
    with pytest.raises(LeanformerError, match=r"data\.source x: splits val and dev are both for validation; keep one"):
        name_splits(["train", "val", "dev"], "x")
    with pytest.raises(
        LeanformerError, match=r"data\.source x: no training split among a, b; one must be named 'train'"
    ):
        name_splits(["a", "b"], "x")


def test_a_training_limit_below_the_number_of_classes_is_fine() -> None:
    assert len(splits_of([row % 10 for row in range(100)], train_limit=3)["train"]) == 3
