"""What a translator gives: its translations, sentence by sentence, and their scores by sacreBLEU."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from leanformer.core.parquet import read_columns, to_parquet
from leanformer.measure.sacrebleu_internals import CHRF_BETA, CHRF_ORDERS, sentence_counts
from leanformer.measure.scoring import Metric, Scoring


@dataclass(frozen=True)
class Translations:
    """A translator's answers, one entry a test sentence, as plain text (detokenised).

    Args:
        sources: What was translated.
        references: What a person made of it.
        hypotheses: What the model made of it.
        scoring: How these are scored. The texts are kept as they were written.

    Raises:
        ValueError: There is no sentence, or not one of each to every other.
    """

    sources: tuple[str, ...]
    references: tuple[str, ...]
    hypotheses: tuple[str, ...]
    scoring: Scoring = field(default=Scoring(), compare=False)

    def __post_init__(self) -> None:
        counts = (len(self.sources), len(self.references), len(self.hypotheses))
        if len(set(counts)) > 1 or not counts[0]:
            raise ValueError("{} sources, {} references and {} hypotheses".format(*counts))

    @property
    def bleu(self) -> float:
        """Corpus BLEU, 0 to 100 points (Papineni et al. 2002)."""
        return float(corpus_score("bleu", self.statistics("bleu").sum(axis=0)))

    @property
    def chrf(self) -> float:
        """Corpus chrF2, 0 to 100 points (Popović 2015)."""
        return float(corpus_score("chrf", self.statistics("chrf").sum(axis=0)))

    @property
    def exact(self) -> np.ndarray:
        """Whether each hypothesis is its reference, outer spaces aside, shape (sentences,), boolean."""
        pairs = zip(self.scored.hypotheses, self.scored.references, strict=True)
        return np.array([hypothesis.strip() == reference.strip() for hypothesis, reference in pairs])

    @property
    def exact_match(self) -> float:
        """Part of the hypotheses that are their references."""
        return float(self.exact.mean())

    @cached_property
    def scored(self) -> Translations:
        """The same, with references and hypotheses in the form in which they are scored."""
        references, hypotheses = (tuple(self.scoring.texts(side)) for side in (self.references, self.hypotheses))
        return Translations(self.sources, references, hypotheses, self.scoring)

    def statistics(self, metric: Metric) -> np.ndarray:
        """Counts a sentence, shape (sentences, counts); ``corpus_score`` of their sum is the corpus' score."""
        return self._statistics[metric]

    @cached_property
    def _statistics(self) -> dict[Metric, np.ndarray]:
        scored = self.scored
        return {
            name: sentence_counts(metric, scored.hypotheses, scored.references)
            for name, metric in self.scoring.metrics.items()
        }

    def sentence_scores(self, metric: Metric) -> np.ndarray:
        """Each sentence's own score, shape (sentences,), 0 to 100; BLEU of effective order, as sacreBLEU advises."""
        counts = self.statistics(metric)
        return _bleu(counts, effective_order=True) if metric == "bleu" else _chrf(counts)

    def table(self) -> pa.Table:
        """As a table with one row a sentence: example, source, reference, hypothesis, bleu, chrf."""
        return pa.table(
            {
                "example": np.arange(len(self.sources)),
                "source": self.sources,
                "reference": self.references,
                "hypothesis": self.hypotheses,
                "bleu": self.sentence_scores("bleu"),
                "chrf": self.sentence_scores("chrf"),
            }
        )

    def to_bytes(self) -> bytes:
        """The table as a parquet file's content."""
        return to_parquet(self.table())

    @classmethod
    def read(cls, path: Path, scoring: Scoring | None = None) -> Translations:
        """Reads a table back.

        Args:
            path: Where it lies.
            scoring: How its texts are scored now, whatever was so when it was written.

        Raises:
            LeanformerError: The file is missing or damaged.
        """
        columns = read_columns(path, ("source", "reference", "hypothesis"), "translations")
        sources, references, hypotheses = (tuple(column.to_pylist()) for column in columns)
        return cls(sources, references, hypotheses, scoring or Scoring())


def corpus_score(metric: Metric, sums: np.ndarray) -> np.ndarray:
    """sacreBLEU's corpus score of many corpora at once, such as a bootstrap's.

    Args:
        metric: Which score.
        sums: ``Translations.statistics`` summed over each corpus' sentences, shape (..., counts).

    Returns:
        Points from 0 to 100, shape (...).
    """
    return _bleu(sums) if metric == "bleu" else _chrf(sums)


def _bleu(sums: np.ndarray, effective_order: bool = False) -> np.ndarray:
    """BLEU with exponential smoothing (Chen and Cherry 2014, "A systematic comparison of smoothing techniques for
    sentence-level BLEU", WMT; their method 3).

    Args:
        sums: Lengths of hypothesis and reference, n-grams that match, n-grams of the hypothesis; shape (..., 10).
        effective_order: Leave out the orders that the hypothesis is too short for; otherwise they make the score 0.
    """
    length, reference_length = sums[..., 0], sums[..., 1]
    correct, total = np.split(sums[..., 2:], 2, axis=-1)  # (..., 4) each
    there = total > 0
    halvings = np.cumsum(correct == 0, axis=-1)  # the k-th order without a match counts as if 1 / 2^k matched
    with np.errstate(divide="ignore", invalid="ignore"):  # what has no length has no match: 0 in the last line
        brevity = np.exp(np.minimum(1 - reference_length / length, 0))
        logs = np.log(np.where(correct > 0, correct, 0.5**halvings) / total)
        if effective_order:
            mean_log = logs.sum(axis=-1, where=there) / there.sum(axis=-1)
        else:
            mean_log = np.where(there, logs, -np.inf).mean(axis=-1)
        return np.where(correct.any(axis=-1), 100 * brevity * np.exp(mean_log), 0.0)


def _chrf(sums: np.ndarray) -> np.ndarray:
    """chrF: the F score of mean precision and mean recall, over the n-gram orders that both texts have.

    Args:
        sums: N-grams of the hypothesis, of the reference, and those that match, an order; shape (..., 18).
    """
    hypothesis, reference, match = np.moveaxis(sums.reshape(*sums.shape[:-1], CHRF_ORDERS, 3), -1, 0)
    there = (hypothesis > 0) & (reference > 0)
    factor = CHRF_BETA**2
    with np.errstate(divide="ignore", invalid="ignore"):  # nothing in common: 0 in the last line
        precision = (match / hypothesis).sum(axis=-1, where=there) / there.sum(axis=-1)
        recall = (match / reference).sum(axis=-1, where=there) / there.sum(axis=-1)
        score = 100 * (1 + factor) * precision * recall / (factor * precision + recall)
    return np.where(match.any(axis=-1), score, 0.0)
