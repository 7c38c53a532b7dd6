"""Numbers in words: what is drawn, what is written, and what num2words does not have."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import pytest
from num2words import num2words

from leanformer.config.translation import NumberWordsConfig, TextDataConfig
from leanformer.core.errors import LeanformerError
from leanformer.data.number_words import draw_numbers, number_words

ALL_KINDS = ("cardinal", "ordinal", "year", "currency")


def numbers(**keys: Any) -> NumberWordsConfig:
    return NumberWordsConfig(**{"train": 400, "validation": 30, "test": 70, **keys})


def written(source: str = "en", target: str = "de", seed: int = 0, **keys: Any) -> Any:
    config = TextDataConfig(source_language=source, target_language=target, split_seed=seed, numbers=numbers(**keys))
    return number_words(config)


@pytest.mark.parametrize("kinds", [("cardinal",), ALL_KINDS, ("year",), ("ordinal", "year")])
def test_no_number_is_in_two_splits_or_stands_twice(kinds: Any) -> None:
    drawn = draw_numbers(numbers(kinds=kinds), seed=3)
    assert {role: len(part) for role, part in drawn.items()} == {"train": 400, "validation": 30, "test": 70}
    everything = [spoken.number for part in drawn.values() for spoken in part]
    assert len(set(everything)) == 500
    assert {spoken.kind for part in drawn.values() for spoken in part} == set(kinds)


def test_short_numbers_are_as_frequent_as_long_ones() -> None:
    drawn = draw_numbers(NumberWordsConfig(train=3000, validation=100, test=500, largest=999_999), seed=0)
    lengths = Counter(len(str(spoken.number)) for part in drawn.values() for spoken in part)
    assert (lengths[1], lengths[2]) == (10, 90)  # all there are
    for digits in (3, 4, 5, 6):
        assert lengths[digits] == pytest.approx(875, abs=1)
    test_lengths = Counter(len(str(spoken.number)) for spoken in drawn["test"])
    assert all(90 < test_lengths[digits] < 160 for digits in (3, 4, 5, 6))


def test_kinds_are_equally_frequent_and_each_has_its_range() -> None:
    drawn = draw_numbers(numbers(kinds=ALL_KINDS), seed=1)
    everything = [spoken for part in drawn.values() for spoken in part]
    counts = Counter(spoken.kind for spoken in everything)
    assert counts["year"] == 125
    assert all(90 < counts[kind] < 160 for kind in ALL_KINDS)
    assert all(1000 <= spoken.number <= 2999 for spoken in everything if spoken.kind == "year")
    assert all(1 <= spoken.number <= 1_000_000 for spoken in everything)


def test_at_most_half_of_the_year_numbers_become_years() -> None:
    drawn = draw_numbers(numbers(kinds=("cardinal", "year"), largest=2999, train=2800, validation=100, test=100), 0)
    counts = Counter(spoken.kind for part in drawn.values() for spoken in part)
    assert counts == {"year": 1000, "cardinal": 2000}  # 0 to 2999, every one of them


def test_words_that_no_longer_number_teaches_are_trained_on() -> None:
    for seed in range(5):
        drawn = draw_numbers(numbers(largest=499, train=400, validation=30, test=70), seed)
        assert set(range(21)) <= {spoken.number for spoken in drawn["train"]}


def test_the_seed_decides() -> None:
    assert written(seed=5) == written(seed=5)
    assert written(seed=5)["test"] != written(seed=6)["test"]


def test_both_sides_write_the_same_number() -> None:
    drawn = draw_numbers(numbers(kinds=ALL_KINDS), 0)
    splits = written(kinds=ALL_KINDS)
    for role, part in drawn.items():
        for spoken, source, target in zip(part, splits[role].sources, splits[role].targets, strict=True):
            if spoken.kind != "currency":
                assert source == num2words(spoken.number, lang="en", to=spoken.kind)
                assert target == num2words(spoken.number, lang="de", to=spoken.kind)
            else:
                euros, cents = divmod(spoken.number, 100)
                assert source == f"{num2words(euros)} euro, {num2words(cents)} {'cent' if cents == 1 else 'cents'}"
                assert target.startswith(num2words(euros, lang="de").removesuffix("s"))


def test_a_currency_is_counted_in_hundredths_in_every_language() -> None:
    """num2words takes a whole number for cents in most languages, and for the currency itself in Thai."""
    drawn = draw_numbers(numbers(kinds=("currency",)), 0)["train"]
    thai = written(target="th", kinds=("currency",), currency="USD")["train"].targets
    spoken, text = next((spoken, text) for spoken, text in zip(drawn, thai, strict=True) if spoken.number > 10_000)
    assert text.startswith(num2words(spoken.number // 100, lang="th"))


@pytest.mark.parametrize(("source", "target"), [("pt-BR", "fr_CH"), ("ru", "ja"), ("tr", "ar")])
def test_other_languages(source: str, target: str) -> None:
    splits = written(source, target)
    sources, targets = splits["train"].sources, splits["train"].targets
    assert len(set(sources)) == len(set(targets)) == 400
    assert not any("  " in text or text != text.strip() for text in (*sources, *targets))


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "language": (
        {"target": "xx"},
        r"data\.target_language: number-words has no language 'xx'; there are am, ar, .*, de, en, .*, vi$",
    ),
    "language that starts like another": ({"source": "english"}, r"data\.source_language: .* no language 'english'"),
    "ordinals": (
        {"target": "cs", "kinds": ("ordinal",)},
        r"data\.numbers\.kinds: num2words writes no ordinal numbers in 'cs'; take another than ordinal in "
        r"data\.numbers\.kinds, or take another language$",
    ),
    "years": ({"source": "sv", "kinds": ("year",)}, r"num2words writes no years in 'sv'; take another than year"),
    "years by a missing method": ({"source": "vi", "kinds": ("year",)}, r"num2words writes no years in 'vi'"),
    "amounts": ({"target": "da", "kinds": ("currency",)}, r"num2words writes no amounts in 'da'; take another"),
    "amounts in one currency only, unseen": (
        {"target": "ar", "kinds": ("currency",)},
        r"num2words writes no amounts in 'ar'",
    ),
    "currency": (
        {"target": "ja", "kinds": ("currency",)},
        r"data\.numbers\.currency: num2words writes no EUR in 'ja'; there is JPY$",
    ),
    "unknown currency": (
        {"kinds": ("currency",), "currency": "XXX"},
        r"data\.numbers\.currency: num2words writes no XXX in 'en'; there are AUD, .*, USD",
    ),
    "a number that one language lacks": (
        {"target": "am"},
        r"num2words cannot write [\d,]+ as cardinal in 'am'; set data\.numbers\.largest to less than 1100, or "
        r"take another",
    ),
    "too few numbers": (
        {"largest": 300},
        r"data\.numbers: .* want 500 distinct numbers, and there are 301 from 0 to 300; lower them, or set "
        r"data\.numbers\.largest to 499$",
    ),
    "too few ordinals": ({"largest": 499, "kinds": ("ordinal",)}, "there are 499 from 1 to 499"),
    "too few years": (
        {"kinds": ("year",), "train": 2000},
        r"want 2,100 distinct numbers, and there are 2,000 from 1,000 to 2,999; .* or add another of data\.numbers",
    ),
    "years out of range": (
        {"kinds": ALL_KINDS, "largest": 600},
        r"data\.numbers\.largest: years run from 1000 to 2999, and 600 is less; set it to 1000 or more, or leave "
        r"year out",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_there_is_not_is_one_clear_line(case: str) -> None:
    keys, message = BAD[case]
    with pytest.raises(LeanformerError) as caught:
        written(**keys)
    assert re.search(message, str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("case", ["too few numbers", "too few ordinals", "years out of range", "ordinals"])
def test_what_an_error_advises_works(case: str) -> None:
    keys = dict(BAD[case][0])
    with pytest.raises(LeanformerError) as caught:
        written(**keys)
    if found := re.search(r" set (?:it|data\.numbers\.largest) to (\d+)", str(caught.value)):
        keys["largest"] = int(found[1])
    else:
        keys["kinds"] = ("cardinal",)
    assert written(**keys)["train"].sources


def test_numbers_below_the_one_that_a_language_lacks_can_be_written() -> None:
    with pytest.raises(LeanformerError) as caught:
        written(target="am")
    found = re.search(r"to less than (\d+)", str(caught.value))
    assert found
    assert written(target="am", largest=int(found[1]) - 1)["train"].targets
