"""Corruptions of sentences, as people write in a hurry: typing errors, letters' case, missing punctuation.

Typing errors are after Belinkov and Bisk 2018, "Synthetic and natural noise both break neural machine translation",
ICLR, and Pruthi, Dhingra and Lipton 2019, "Combating adversarial misspellings with robust word recognition", ACL: two
neighboring letters change places, or one is left out or written twice.
"""

from __future__ import annotations

import re
import unicodedata

import numpy as np

from leanformer.data.corruptions import TEXTS, corrupts

TYPOS = 0.1
"""The probability that a word has a typing error."""
SHORTEST = 3
"""Letters of the shortest word that may have one."""

INNER = "'’-‐‑.,:/"
"""Punctuation that stays between two letters or digits: it is part of a word or a number there."""

_WORD = re.compile(rf"[^\W\d_]{{{SHORTEST},}}")


@corrupts(TEXTS, "typos", "a typing error in each word of 3 letters or more with a probability of 10 %")
def typos(sentence: str, random: np.random.Generator) -> str:
    """Two letters swapped, one left out or one doubled, each as likely; the first letter stays in its place."""

    def mistyped(found: re.Match[str]) -> str:
        word = found[0]
        if random.random() >= TYPOS:
            return word
        place = int(random.integers(1, len(word)))
        kind = random.integers(3)
        if kind == 0:
            first = min(place, len(word) - 2)
            return word[:first] + word[first + 1] + word[first] + word[first + 2 :]
        return word[:place] + (word[place] * 2 if kind == 1 else "") + word[place + 1 :]

    return _WORD.sub(mistyped, sentence)


@corrupts(TEXTS, "lower-case", "all letters small")
def lower_case(sentence: str, random: np.random.Generator) -> str:
    """Small letters alone."""
    return sentence.lower()


@corrupts(TEXTS, "upper-case", "all letters capital")
def upper_case(sentence: str, random: np.random.Generator) -> str:
    """Capital letters alone."""
    return sentence.upper()


@corrupts(TEXTS, "no-punctuation", "no punctuation, but within words and numbers")
def no_punctuation(sentence: str, random: np.random.Generator) -> str:
    """Without punctuation; apostrophes, hyphens and decimal points within a word or number stay.

    A sentence that is nothing but punctuation stays as it is.
    """
    kept = "".join(
        character
        for place, character in enumerate(sentence)
        if not unicodedata.category(character).startswith("P")
        or (character in INNER and sentence[place - 1 : place].isalnum() and sentence[place + 1 : place + 2].isalnum())
    )
    return " ".join(kept.split()) or sentence
