"""Cross-validation: which fold tests which example."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_files import error_of, load, png, random_image, write_parquet

from leanformer.config.base import CrossValidationConfig
from leanformer.config.images import ImageDataConfig
from leanformer.config.translation import NumberWordsConfig, TextDataConfig
from leanformer.core.errors import LeanformerError
from leanformer.data.folds import take_fold
from leanformer.data.text_sources import TextData, load_text

CLASSES = np.arange(53) % 3


def rows_tested(folds: int, fold: int, seed: int = 0, split_seed: int = 0, **more: Any) -> np.ndarray:
    settings = CrossValidationConfig(folds=folds, fold=fold, seed=seed)
    config = ImageDataConfig(cross_validation=settings, split_seed=split_seed)
    found = take_fold(config, ["train"], **{"classes": CLASSES, "groups": None, **more})
    assert sorted([*found.train, *found.test]) == list(range(len(CLASSES)))
    assert (np.diff(found.test) > 0).all()
    return found.test


@pytest.mark.parametrize("folds", [2, 5])
def test_each_example_is_tested_once_and_classes_are_spread(folds: int) -> None:
    parts = [rows_tested(folds, fold) for fold in range(1, folds + 1)]
    assert sorted(np.concatenate(parts)) == list(range(53))
    counts = np.array([np.bincount(CLASSES[part], minlength=3) for part in parts])
    assert (counts.max(axis=0) - counts.min(axis=0) <= 1).all()


def test_each_seed_divides_anew_and_alike_again() -> None:
    first = rows_tested(5, 1).tolist()
    assert rows_tested(5, 1).tolist() == first
    assert rows_tested(5, 1, seed=1).tolist() != first
    assert rows_tested(5, 1, split_seed=1).tolist() != first


def test_a_study_of_all_folds_tests_the_pool() -> None:
    found = take_fold(ImageDataConfig(cross_validation=CrossValidationConfig(folds=5)), ["train"], CLASSES, None)
    assert found.test.tolist() == list(range(53))
    assert found.train.tolist() == [row for row in range(53) if row not in rows_tested(5, 1)]


@pytest.mark.parametrize("folds", [2, 4, 7])
def test_groups_stay_whole(folds: int) -> None:
    groups = [f"g{row % 7}" for row in range(53)]
    parts = [{groups[row] for row in rows_tested(folds, fold, groups=groups)} for fold in range(1, folds + 1)]
    assert all(parts)
    assert sum(map(len, parts)) == 7
    assert len(set().union(*parts)) == 7


def test_images_of_a_fold_are_its_own_and_not_trained_on(tmp_path: Path) -> None:
    source = write_parquet(tmp_path / "images")
    folds = [load(source, cross_validation={"folds": 4, "fold": fold}) for fold in (1, 2, 3, 4)]
    rows = []
    for data in folds:
        assert (len(data.train), len(data.validation), len(data.test)) == (13, 2, 5)
        assert data.test_rows is not None
        rows += data.test_rows.tolist()
    assert sorted(rows) == list(range(20))
    pool = load(source, cross_validation=4)
    assert len(pool.test) == 20
    assert not [warning for warning in pool.warnings if warning.code == "leaked-images"]
    assert load(source).test_rows is None


def test_a_fold_warns_of_images_that_are_in_others(tmp_path: Path) -> None:
    images = [png(random_image(row // 2)) for row in range(20)]
    source = write_parquet(tmp_path / "images", images=images, labels=[row // 2 % 2 for row in range(20)])
    one = load(source, cross_validation={"folds": 4, "fold": 1})
    assert "leaked-images" in [warning.code for warning in one.warnings]


def pairs(tmp_path: Path, count: int = 24, **keys: Any) -> TextData:
    rows = [f"satz {row % (count - 4)}\tsentence {row}" for row in range(count)]
    (tmp_path / "pairs.tsv").write_text("de\ten\n" + "\n".join(rows) + "\n")
    return load_text(TextDataConfig(source=str(tmp_path / "pairs.tsv"), **keys))


def test_a_sentence_is_in_one_fold_with_all_its_translations(tmp_path: Path) -> None:
    rows: list[int] = []
    for fold in (1, 2, 3):
        data = pairs(tmp_path, cross_validation={"folds": 3, "fold": fold})
        assert not set(data.test.sources) & {*data.train.sources, *data.validation.sources}
        assert len(data.validation)
        assert data.test_rows is not None
        rows += data.test_rows.tolist()
    assert sorted(rows) == list(range(24))
    pool = pairs(tmp_path, cross_validation=3)
    assert len(pool.test) == 24
    assert not [warning for warning in pool.warnings if warning.code == "leaked-sentences"]


def test_too_many_folds_and_a_test_split_are_one_clear_line(tmp_path: Path) -> None:
    labels = [0] * 17 + [1] * 3
    source = write_parquet(tmp_path / "images", labels=labels)
    assert "data.cross_validation: 5 folds, and a class has 3 examples" in error_of(source, cross_validation=5)
    write_parquet(tmp_path / "groups", patient=[row % 4 for row in range(20)])
    message = error_of(tmp_path / "groups", cross_validation=5, group={"column": "patient"}, label_column="label")
    assert message.startswith("data.cross_validation: 5 folds, and there are 4 groups, which stay whole; give 4 folds")
    write_parquet(source, "test")
    assert "has its own test split; leave cross_validation out" in error_of(source, cross_validation=2)
    with pytest.raises(LeanformerError, match="5 folds, and there are 3 source sentences, which stay whole"):
        pairs(tmp_path, 7, cross_validation=5)
    few = NumberWordsConfig(train=9, validation=2, test=2, largest=100)
    config = TextDataConfig(numbers=few, cross_validation=CrossValidationConfig(folds=2))
    with pytest.raises(LeanformerError, match="number-words has its own test split"):
        load_text(config)
