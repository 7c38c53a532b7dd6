"""Parallel text: sentence pairs for training, validation and testing."""

from __future__ import annotations

from dataclasses import dataclass

from leanformer.config import TextDataConfig
from leanformer.data.languages import same_language
from leanformer.data.pairs import SentencePairs, clean_pairs, divide_pairs
from leanformer.data.text_checks import leak_warning, left_out_warning, present, untranslated_warning
from leanformer.data.text_sources import read_source
from leanformer.errors import LeanformerError
from leanformer.warning import StudyWarning


@dataclass(frozen=True)
class TextData:
    """What a translator learns from.

    Attributes:
        notes: in words: what was found, left out and divided, with counts.
        warnings: what the reader of the results has to know of these pairs.
    """

    train: SentencePairs
    validation: SentencePairs
    test: SentencePairs
    notes: tuple[str, ...]
    warnings: tuple[StudyWarning, ...] = ()


def load_text(config: TextDataConfig) -> TextData:
    """The sentence pairs of a source, divided; equal configurations and files give equal pairs.

    Args:
        config: the study's ``data`` section.

    Raises:
        LeanformerError: for a source that cannot be read or understood, for sides that are not aligned, and for splits
            without pairs: see docs/text-data.md for all the cases.
    """
    if same_language(config.source_language, config.target_language):
        raise LeanformerError(
            f"data.target_language: {config.target_language!r} is the source language too; give two languages"
        )
    # 1. Read the source's splits.
    splits, notes = read_source(config)

    # 2. Leave out pairs with an empty side, both sides together.
    found: list[StudyWarning | None] = []
    for role, pairs in splits.items():
        splits[role], left_out = clean_pairs(pairs)
        if left_out and not len(splits[role]):
            raise LeanformerError(
                f"data.source {config.source}: all {left_out:,} pairs of the {role} split have an empty side; give it "
                "pairs with text on both"
            )
        if left_out:
            notes.append(f"{role}: {left_out:,} of {len(pairs):,} pairs left out, as a side is empty")
        found.append(left_out_warning(role, left_out, len(pairs), "a side is empty; see whether lines are missing"))

    # 3. Set aside the splits that the source lacks, and apply the limits.
    divided, division_notes = divide_pairs(splits, config)
    notes += division_notes
    notes += [f"{role}: {len(divided[role]):,} pairs" for role in ("train", "validation", "test")]

    # 4. Look for what makes results wrong without any error.
    found += [leak_warning(divided["train"], divided[role], role) for role in ("validation", "test")]
    found.append(untranslated_warning(divided))
    return TextData(divided["train"], divided["validation"], divided["test"], tuple(notes), tuple(present(found)))
