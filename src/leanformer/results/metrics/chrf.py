"""Corpus chrF2 in points from 0 to 100 (Popović 2015, "chrF: character n-gram F-score for automatic MT evaluation",
WMT), as sacreBLEU counts it."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from leanformer.core.sacrebleu_internals import chrf_form, sentence_counts, signature
from leanformer.results.metrics import CorpusMetric, Texts, register

if TYPE_CHECKING:
    import numpy as np
    from sacrebleu.metrics.chrf import CHRF


@lru_cache(maxsize=2)
def _official(lowercase: bool) -> CHRF:
    from sacrebleu.metrics.chrf import CHRF

    return CHRF(lowercase=lowercase)


def _counts(answers: Texts) -> np.ndarray:
    """For each order, n-grams of the hypothesis, of the reference, and matches; shape (sentences, 18)."""
    return sentence_counts(_official(answers.lowercase), answers.hypotheses, answers.references)


def _signature(tokenize: str, lowercase: bool) -> str:
    return signature(_official(lowercase))  # it counts characters, without a tokenizer


def _points(sums: np.ndarray) -> np.ndarray:
    """The F score of mean precision and mean recall, over the n-gram orders that both texts have.

    Args:
        sums: Sums of ``_counts``, shape (..., 18).
    """
    import numpy as np

    orders, recall_weight = chrf_form()
    hypothesis, reference, match = np.moveaxis(sums.reshape(*sums.shape[:-1], orders, 3), -1, 0)
    there = (hypothesis > 0) & (reference > 0)
    factor = recall_weight**2
    with np.errstate(divide="ignore", invalid="ignore"):  # no match: 0 in the last line
        precision = (match / hypothesis).sum(axis=-1, where=there) / there.sum(axis=-1)
        recall = (match / reference).sum(axis=-1, where=there) / there.sum(axis=-1)
        score = 100 * (1 + factor) * precision * recall / (factor * precision + recall)
    return np.where(match.any(axis=-1), score, 0.0)


register(
    CorpusMetric(
        key="chrf",
        name="chrF",
        brief="chrf",
        answers="texts",
        difference_unit="chrF",
        greatest=100.0,
        max_drop=0.5,
        official="chrF2",
        signature=_signature,
        counts=_counts,
        of_sums=_points,
    )
)
