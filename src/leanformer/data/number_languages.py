"""The built-in texts of classification: numbers written out in one of several languages; the class is the language.

A number is in one split and in one language only, so that no test text is the translation of a training text.
"""

from __future__ import annotations

import random

import datasets

from leanformer.config.text_classification import ClassTextDataConfig
from leanformer.config.translation import NumberWordsConfig
from leanformer.data.hub import SourceSplit
from leanformer.data.number_words import converter_of, draw_numbers, in_words

SOURCE = "number-languages"


def number_languages(config: ClassTextDataConfig) -> dict[str, SourceSplit]:
    """Numbers in words: ``config.numbers`` of them, with the columns ``text`` and ``label``.

    Raises:
        LeanformerError: for a language that ``num2words`` does not have or cannot write, and for too few numbers.
    """
    numbers = config.numbers
    languages = numbers.languages
    converters = [converter_of(language, "data.numbers.languages", SOURCE) for language in languages]
    words = NumberWordsConfig(
        largest=numbers.largest, train=numbers.train, validation=numbers.validation, test=numbers.test
    )
    rng = random.Random(config.split_seed)
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=list(languages))}
    )
    splits = {}
    for role, drawn in draw_numbers(words, config.split_seed).items():
        labels = [number % len(languages) for number in range(len(drawn))]
        rng.shuffle(labels)
        texts = [""] * len(drawn)
        for label, converter in enumerate(converters):
            places = [place for place, found in enumerate(labels) if found == label]
            written = in_words([drawn[place] for place in places], converter, words)
            for place, text in zip(places, written, strict=True):
                texts[place] = text
        splits[role] = SourceSplit(
            SOURCE, role, datasets.Dataset.from_dict({"text": texts, "label": labels}, features=features)
        )
    return splits
