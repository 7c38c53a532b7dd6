"""Corpus BLEU in points from 0 to 100 (Papineni et al. 2002, "BLEU: a method for automatic evaluation of machine
translation", ACL), as sacreBLEU counts it."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from leanformer.core.sacrebleu_internals import sentence_counts, signature
from leanformer.results.metrics import CorpusMetric, Texts, register

if TYPE_CHECKING:
    import numpy as np
    from sacrebleu.metrics.bleu import BLEU


@lru_cache(maxsize=8)
def _official(tokenize: str, lowercase: bool) -> BLEU:
    """sacreBLEU's own object, kept because its tokenizers cache the sentences that they have split."""
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(lowercase, tokenize=tokenize)


def _counts(answers: Texts) -> np.ndarray:
    """Lengths of hypothesis and reference, n-grams that match, n-grams of the hypothesis; shape (sentences, 10)."""
    return sentence_counts(_official(answers.tokenize, answers.lowercase), answers.hypotheses, answers.references)


def _signature(tokenize: str, lowercase: bool) -> str:
    return signature(_official(tokenize, lowercase))


def _points(sums: np.ndarray, effective_order: bool = False) -> np.ndarray:
    """BLEU with exponential smoothing (Chen and Cherry 2014, "A systematic comparison of smoothing techniques for
    sentence-level BLEU", WMT; their method 3).

    Args:
        sums: Sums of ``_counts``, shape (..., 10).
        effective_order: Ignores the orders that the hypothesis is too short for; otherwise they make the score 0.
    """
    import numpy as np

    length, reference_length = sums[..., 0], sums[..., 1]
    correct, total = np.split(sums[..., 2:], 2, axis=-1)  # (..., 4) each
    there = total > 0
    halvings = np.cumsum(correct == 0, axis=-1)  # the k-th order without a match counts as 1 / 2^k matches
    with np.errstate(divide="ignore", invalid="ignore"):  # an empty text has no match: 0 in the last line
        brevity = np.exp(np.minimum(1 - reference_length / length, 0))
        logs = np.log(np.where(correct > 0, correct, 0.5**halvings) / total)
        if effective_order:
            mean_log = logs.sum(axis=-1, where=there) / there.sum(axis=-1)
        else:
            mean_log = np.where(there, logs, -np.inf).mean(axis=-1)
        return np.where(correct.any(axis=-1), 100 * brevity * np.exp(mean_log), 0.0)


def _of_sentence(counts: np.ndarray) -> np.ndarray:
    """BLEU of effective order, as sacreBLEU advises for single sentences."""
    return _points(counts, effective_order=True)


register(
    CorpusMetric(
        key="bleu",
        name="BLEU",
        brief="bleu",
        answers="texts",
        difference_unit="BLEU",
        greatest=100.0,
        max_drop=0.5,
        words=4,
        signature=_signature,
        counts=_counts,
        of_sums=_points,
        of_example=_of_sentence,
    )
)
