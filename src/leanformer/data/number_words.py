"""The built-in text: numbers written out in two languages by ``num2words``, as many as wanted and without a download.

A number is in one split only, whatever its kind, so that a translator's test numbers are new to it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple

from num2words import CONVERTER_CLASSES

from leanformer.config.translation import NumberWordsConfig, TextDataConfig
from leanformer.core.errors import LeanformerError
from leanformer.data.pairs import SentencePairs

YEARS = range(1000, 3000)  # people read these as years, and many languages read years otherwise than numbers
WORDS_OF_THEIR_OWN = 20  # up to this, numbers have words that longer numbers do not contain, such as "zero"
PLURALS = {"cardinal": "cardinal numbers", "ordinal": "ordinal numbers", "year": "years", "currency": "amounts"}


class Spoken(NamedTuple):
    """A number and the kind of words that it is written in; ``currency`` counts hundredths, such as cents."""

    kind: str
    number: int


def number_words(config: TextDataConfig) -> dict[str, SentencePairs]:
    """Numbers in words: ``config.numbers`` of them, in ``train``, ``validation`` and ``test``.

    Raises:
        LeanformerError: for a language, kind or currency that ``num2words`` does not have, and for too few numbers.
    """
    languages = [
        converter_of(getattr(config, key), f"data.{key}", "number-words")
        for key in ("source_language", "target_language")
    ]
    for language in languages:
        _check_kinds(language, config.numbers)
    drawn = draw_numbers(config.numbers, config.split_seed)
    return {
        role: SentencePairs(*(in_words(spoken, language, config.numbers) for language in languages))
        for role, spoken in drawn.items()
    }


def draw_numbers(config: NumberWordsConfig, seed: int) -> dict[str, list[Spoken]]:
    """Distinct numbers for each split, short ones as often as long ones as far as there are so many.

    Each number is of one kind; the kinds are equally frequent, except years, of which there are few: at most half of
    the numbers from 1000 to 2999 become years where there are other kinds.

    Raises:
        LeanformerError: there are not so many distinct numbers.
    """
    rng = random.Random(seed)
    kinds = tuple(dict.fromkeys(config.kinds))
    others = [kind for kind in kinds if kind != "year"]
    years = range(YEARS.start, min(YEARS.stop, config.largest + 1))
    if "year" in kinds and not years:
        raise LeanformerError(
            f"data.numbers.largest: years run from {YEARS.start} to {YEARS.stop - 1}, and {config.largest} is less; "
            f"set it to {YEARS.start} or more, or {_without('year', config)}"
        )
    lowest = 1 if "ordinal" in kinds else 0  # few languages have a word for "zeroth"
    numbers = range(lowest, config.largest + 1) if others else years
    wanted = config.train + config.validation + config.test
    if wanted > len(numbers):
        raise LeanformerError(
            f"data.numbers: train, validation and test want {wanted:,} distinct numbers, and there are "
            f"{len(numbers):,} from {numbers.start:,} to {numbers.stop - 1:,}; lower them, or "
            + (f"set data.numbers.largest to {lowest + wanted - 1}" if others else "add another of data.numbers.kinds")
        )
    drawn: list[Spoken] = []
    if "year" in kinds:
        count = min(wanted // len(kinds), len(years) // 2) if others else wanted
        drawn = [Spoken("year", number) for number in rng.sample(years, count)]
    if others:
        rest = _draw_by_length(numbers, wanted - len(drawn), {number for _, number in drawn}, rng)
        drawn += [Spoken(rng.choice(others), number) for number in rest]
    rng.shuffle(drawn)
    drawn.sort(key=lambda spoken: spoken.number > WORDS_OF_THEIR_OWN)  # stable: the training split comes first
    train, validation = config.train, config.train + config.validation
    return {"train": drawn[:train], "validation": drawn[train:validation], "test": drawn[validation:]}


def _draw_by_length(numbers: range, count: int, taken: set[int], rng: random.Random) -> list[int]:
    """``count`` of ``numbers`` that are not taken, equally many of each number of digits as long as there are some."""
    by_length = [
        range(max(numbers.start, 10 ** (digits - 1) if digits > 1 else 0), min(numbers.stop, 10**digits))
        for digits in range(1, len(str(numbers.stop - 1)) + 1)
    ]
    free = [len(part) - sum(number in part for number in taken) for part in by_length]
    drawn: list[int] = []
    for left, index in enumerate(sorted(range(len(free)), key=free.__getitem__)):
        part = by_length[index]
        quota = min(free[index], (count - len(drawn)) // (len(free) - left))
        candidates = rng.sample(part, min(len(part), quota + len(taken)))
        drawn += [number for number in candidates if number not in taken][:quota]
    return drawn


def converter_of(language: str, key: str, source: str) -> str:
    """The language's name in ``num2words``, which writes ``pt_BR`` for ``pt-BR``.

    Args:
        language: Its code.
        key: The study's key that names it, for the message.
        source: The built-in source, likewise.

    Raises:
        LeanformerError: There is no such language.
    """
    name = language.replace("-", "_")
    if name not in CONVERTER_CLASSES:
        raise LeanformerError(
            f"{key}: {source} has no language {language!r}; there are {', '.join(sorted(CONVERTER_CLASSES))}"
        )
    return name


def _check_kinds(language: str, config: NumberWordsConfig) -> None:
    """Makes sure that the language has every kind, before numbers are drawn: some kinds fail for all numbers."""
    for kind in config.kinds:
        if kind == "currency":
            currencies: Sequence[str] = sorted(getattr(CONVERTER_CLASSES[language], "CURRENCY_FORMS", ()))
            if currencies and config.currency not in currencies:
                raise LeanformerError(
                    f"data.numbers.currency: num2words writes no {config.currency} in {language!r}; there "
                    f"{'is' if len(currencies) == 1 else 'are'} {', '.join(currencies)}"
                )
        if not _try_words(Spoken(kind, 2001), language, config.currency) and not _try_words(
            Spoken(kind, 1), language, config.currency
        ):
            raise LeanformerError(
                f"data.numbers.kinds: num2words writes no {PLURALS[kind]} in {language!r}; {_without(kind, config)}, "
                "or take another language"
            )


def _without(kind: str, config: NumberWordsConfig) -> str:
    """What to do where a kind is not available: leave it out, unless it is the only one."""
    what = f"leave {kind} out of" if len(set(config.kinds)) > 1 else f"take another than {kind} in"
    return f"{what} data.numbers.kinds"


def in_words(drawn: Sequence[Spoken], language: str, config: NumberWordsConfig) -> tuple[str, ...]:
    """The numbers in words.

    Args:
        drawn: The numbers.
        language: As of ``converter_of``.
        config: The kinds, and the currency.

    Raises:
        LeanformerError: ``num2words`` cannot write one.
    """
    words = tuple(_try_words(spoken, language, config.currency) for spoken in drawn)
    missing = [spoken for spoken, text in zip(drawn, words, strict=True) if not text]
    if missing:
        found = min(missing, key=lambda spoken: spoken.number)
        start = YEARS.start if found.kind == "year" else 1
        tried = (Spoken(found.kind, number) for number in range(start, found.number + 1))
        least = next(spoken for spoken in tried if not _try_words(spoken, language, config.currency))
        raise LeanformerError(
            f"data.numbers: num2words cannot write {least.number:,} as {least.kind} in {language!r}; set "
            f"data.numbers.largest to less than {least.number}, or {_without(least.kind, config)}"
        )
    return words


def _try_words(spoken: Spoken, language: str, currency: str) -> str:
    """The number in words, without outer or double spaces; empty where ``num2words`` has none."""
    kind, number = spoken
    converter = CONVERTER_CLASSES[language]
    try:
        if kind == "currency":
            # A whole number is cents in some languages and the currency itself in others; a decimal is clear to all.
            if currency not in converter.CURRENCY_FORMS:
                return ""
            words = converter.to_currency(Decimal(number) / 100, currency=currency)
        else:
            words = getattr(converter, f"to_{kind}")(number)
    except Exception:  # of any type: kinds that are not implemented, and the converters' own bugs
        return ""
    return " ".join(str(words).split())
