"""What is told of suspicious sentence pairs, and whether what errors on splits advise helps."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from leanformer.config.translation import NumberWordsConfig, TextDataConfig
from leanformer.core.errors import LeanformerError
from leanformer.data.text_sources import TextData, load_text

Pair = tuple[str, str]
TRAIN = [(f"Sentence number {number} é", f"Satz Nummer {number}") for number in range(100)]
FRESH = [(f"another one, {number}", f"noch einer, {number}") for number in range(20)]


def load(root: Path, train: Sequence[Pair], test: Sequence[Pair] = FRESH, **keys: Any) -> TextData:
    validation = [(f"held out {number}", f"zur Seite {number}") for number in range(10)]
    for name, pairs in {"train": train, "dev": validation, "test": test}.items():
        (root / f"{name}.tsv").write_text("".join(f"{source}\t{target}\n" for source, target in pairs))
    return load_text(TextDataConfig(source=str(root), source_language="en", target_language="de", **keys))


def told(data: TextData) -> list[tuple[str, int]]:
    return [(warning.code, warning.count) for warning in data.warnings]


@pytest.mark.parametrize(
    ("leaked", "kind"),
    [
        (TRAIN[3], "1 whole"),
        ((TRAIN[3][0], "anders"), "1 by the source sentence"),
        ((f" {TRAIN[3][0].upper().replace(' ', '  ')} ", "anders"), "1 by a source in other case or spaces"),
        ((unicodedata.normalize("NFD", TRAIN[3][0]), "anders"), "1 by a source in other case or spaces"),
        (("different", TRAIN[3][1]), "1 by the target sentence alone"),
        (("different", TRAIN[3][1].lower()), "1 by the target sentence alone"),
    ],
)
def test_each_kind_of_leak(tmp_path: Path, leaked: Pair, kind: str) -> None:
    data = load(tmp_path, TRAIN, [*FRESH, leaked])
    assert told(data) == [("leaked-sentences", 1)]
    assert str(data.warnings[0]) == (
        f"warning: test: 1 of 21 pairs are in the training split too ({kind}); models score too well on what they were "
        "trained on, so remove these pairs from the training data [leaked-sentences]"
    )
    assert told(load(tmp_path, [pair for pair in TRAIN if pair != TRAIN[3]], [*FRESH, leaked])) == []  # as advised


def test_leaks_count_once_and_in_each_split(tmp_path: Path) -> None:
    train = [*TRAIN, ("held out 1", "zur Seite 1"), ("x", "zur Seite 2")]
    data = load(tmp_path, train, [TRAIN[0], (TRAIN[1][0], "y"), (TRAIN[2][0].lower(), TRAIN[2][1]), ("z", TRAIN[4][1])])
    assert told(data) == [("leaked-sentences", 2), ("leaked-sentences", 4)]
    assert "(1 whole, 1 by the target sentence alone)" in str(data.warnings[0])
    assert (
        "(1 whole, 1 by the source sentence, 1 by a source in other case or spaces, 1 by the target sentence alone)"
        in str(data.warnings[1])
    )


def test_what_is_not_trained_on_does_not_leak(tmp_path: Path) -> None:
    assert told(load(tmp_path, [*TRAIN, *FRESH])) == [("leaked-sentences", 20)]
    limited = load(tmp_path, [*TRAIN, *FRESH], train_limit=40)
    left = len(set(FRESH) & set(zip(limited.train.sources, limited.train.targets, strict=True)))
    assert 0 < left < 20
    assert told(limited) == [("leaked-sentences", left)]


@pytest.mark.parametrize("kind", ["cardinal", "ordinal", "year", "currency"])
def test_number_words_are_beyond_suspicion(kind: Any) -> None:
    numbers = NumberWordsConfig(kinds=(kind,), train=600, validation=60, test=80, largest=3000)
    assert told(load_text(TextDataConfig(numbers=numbers))) == []


def test_sides_that_are_the_same(tmp_path: Path) -> None:
    data = load(tmp_path, [(source, source.upper()) for source, _ in TRAIN[:51]] + TRAIN[51:])
    assert told(data) == [("untranslated-pairs", 51)]
    assert "51 of 100 pairs of train have the same sentence on both sides; check whether" in str(data.warnings[0])
    assert told(load(tmp_path, [(source, source) for source, _ in TRAIN[:50]] + TRAIN[50:])) == []


def test_many_empty_sides(tmp_path: Path) -> None:
    data = load(tmp_path, [*TRAIN[:89], *((source, "") for source, _ in TRAIN[89:])])
    assert told(data) == [("pairs-left-out", 11)]
    assert "train: 11 of 100 pairs left out, as a side is empty" in str(data.warnings[0])
    assert told(load(tmp_path, [*TRAIN[:90], *((source, " ") for source, _ in TRAIN[90:])])) == []


@pytest.mark.parametrize(
    ("pairs", "fractions"), [(4, {}), (4, {"test_fraction": 0.9}), (5, {}), (7, {"test_fraction": 0.99})]
)
def test_the_fraction_that_an_error_advises_works(tmp_path: Path, pairs: int, fractions: dict[str, float]) -> None:
    file = tmp_path / "p.tsv"
    file.write_text("".join(f"{source}\t{target}\n" for source, target in TRAIN[:pairs]))
    keys: dict[str, Any] = {"source_language": "en", "target_language": "de", **fractions}
    for _ in range(6):
        try:
            data = load_text(TextDataConfig(source=str(file), **keys))
        except LeanformerError as error:
            larger = re.match(r"data\.(\w+): .* give a larger fraction, ([\d.]+) or more$", str(error))
            smaller = re.match(r"data\.(\w+): .* give a smaller fraction$", str(error))
            if larger is not None:
                keys[larger[1]] = float(larger[2])
            elif smaller is not None:
                keys[smaller[1]] *= 0.5
            else:
                raise
    assert min(map(len, (data.train, data.validation, data.test))) >= 1


def test_the_number_of_sentences_that_an_error_advises_works(tmp_path: Path) -> None:
    file = tmp_path / "p.tsv"
    for count in (1, 3, 4):
        file.write_text("".join(f"{source}\t{target}\n" for source, target in TRAIN[:count]))
        config = TextDataConfig(
            source=str(file), source_language="en", target_language="de", test_fraction=0.5, validation_fraction=0.5
        )
        if count < 4:
            with pytest.raises(LeanformerError, match=r"too few to train and judge with; give 4 or more \("):
                load_text(config)
        else:
            data = load_text(config)
            assert [len(data.train), len(data.validation), len(data.test)] == [1, 1, 2]
