"""Suspicious sentence pairs: those that are both trained and tested on, those that are not translated."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from leanformer.core.warning import StudyWarning
from leanformer.data.pairs import SentencePairs

MUCH = 0.1  # fraction of a split, such as of pairs left out, above which there is a warning
MANY_UNTRANSLATED = 0.5  # fraction of a split above which there is a warning

T = TypeVar("T")


def leak_warning(train: SentencePairs, held_out: SentencePairs, role: str) -> StudyWarning | None:
    """The warning about pairs of a held-out split that are known from training; each counts once, by its best match.

    Args:
        train: The training split, as models are trained on it.
        held_out: The held-out split.
        role: The held-out split's name.
    """
    pairs = shared(_rows(held_out), _rows(train))
    sources = shared(held_out.sources, train.sources)
    alike = shared(map(folded, held_out.sources), map(folded, train.sources))
    targets = shared(map(folded, held_out.targets), map(folded, train.targets))
    whole = by_source = by_case = by_target = 0
    for source, target in _rows(held_out):
        if (source, target) in pairs:
            whole += 1
        elif source in sources:
            by_source += 1
        elif folded(source) in alike:
            by_case += 1
        elif folded(target) in targets:
            by_target += 1
    count = whole + by_source + by_case + by_target
    if not count:
        return None
    kinds = (
        (whole, "whole"),
        (by_source, "by the source sentence"),
        (by_case, "by a source in other case or spaces"),
        (by_target, "by the target sentence alone"),
    )
    return StudyWarning(
        "leaked-sentences",
        f"{role}: {count:,} of {len(held_out):,} pairs are in the training split too "
        f"({', '.join(f'{number:,} {kind}' for number, kind in kinds if number)}); models score too well "
        "on what they were trained on, so remove these pairs from the training data",
        count,
    )


def untranslated_warning(splits: Mapping[str, SentencePairs]) -> StudyWarning | None:
    """The warning about splits of which most pairs are the same on both sides, but for case and spaces."""
    found = {
        role: sum(folded(source) == folded(target) for source, target in _rows(pairs)) for role, pairs in splits.items()
    }
    found = {role: count for role, count in found.items() if count > MANY_UNTRANSLATED * len(splits[role])}
    if not found:
        return None
    counts = ", ".join(f"{count:,} of {len(splits[role]):,} pairs of {role}" for role, count in found.items())
    return StudyWarning(
        "untranslated-pairs",
        f"{counts} have the same sentence on both sides; check whether data.source_language and data.target_language "
        "name the right columns or files",
        sum(found.values()),
    )


def left_out_warning(role: str, left_out: int, pairs: int, reason: str) -> StudyWarning | None:
    """The warning about pairs that were left out, where they are many.

    Args:
        role: The split.
        left_out: How many pairs were left out.
        pairs: How many the split had.
        reason: Why, and what to do.
    """
    if left_out <= MUCH * pairs:
        return None
    return StudyWarning("pairs-left-out", f"{role}: {left_out:,} of {pairs:,} pairs left out, as {reason}", left_out)


def unlabelled_leak(sentences: Iterable[str], held_out: SentencePairs, role: str) -> StudyWarning | None:
    """The warning about source sentences of a held-out split that students also learn from without a translation.

    Args:
        sentences: Those without a translation.
        held_out: The held-out split.
        role: Its name.
    """
    known = shared(map(folded, held_out.sources), map(folded, sentences))
    count = sum(folded(source) in known for source in held_out.sources)
    if not count:
        return None
    return StudyWarning(
        "leaked-sentences",
        f"{role}: {count:,} of {len(held_out):,} source sentences are in data.unlabelled too; students learn their "
        "teacher's answers to these, so remove them there",
        count,
    )


def _rows(pairs: SentencePairs) -> Iterable[tuple[str, str]]:
    return zip(pairs.sources, pairs.targets, strict=True)


def shared(held_out: Iterable[T], train: Iterable[T]) -> set[T]:
    """The items that both have."""
    wanted = set(held_out)
    return {one for one in train if one in wanted}


def folded(text: str) -> str:
    """A sentence without differences in case, in spaces and in how Unicode composes its letters."""
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


def present(warnings: Sequence[StudyWarning | None]) -> list[StudyWarning]:
    """The warnings without the Nones."""
    return [warning for warning in warnings if warning is not None]
