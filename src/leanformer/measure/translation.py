"""A translator's translations, sentence by sentence, and their scores."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from leanformer.measure.parquet import read_columns, read_groups, to_parquet
from leanformer.measure.scoring import Scoring
from leanformer.results.metrics import METRICS, Metric, Texts, judging


@dataclass(frozen=True)
class Translations:
    """A translator's answers, one entry per test sentence, as plain text (detokenised).

    Args:
        sources: The sentences that were translated.
        references: The translations by people.
        hypotheses: The model's translations.
        scoring: How they are scored. The texts themselves are kept unchanged.
        groups: The name of each sentence's group, which the table then shows; None where each stands for itself.

    Raises:
        ValueError: There is no sentence, or the numbers of sources, references and hypotheses differ.
    """

    sources: tuple[str, ...]
    references: tuple[str, ...]
    hypotheses: tuple[str, ...]
    scoring: Scoring = field(default=Scoring(), compare=False)
    groups: tuple[str, ...] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        counts = (len(self.sources), len(self.references), len(self.hypotheses))
        if len(set(counts)) > 1 or not counts[0]:
            raise ValueError("{} sources, {} references and {} hypotheses".format(*counts))

    def signatures(self, metric: Metric) -> list[str]:
        """A hash of the translations: what there is to see of them, whatever the metric of the study is."""
        return [hashlib.sha256("\0".join(self.hypotheses).encode(errors="surrogatepass")).hexdigest()]

    def score(self, metric: str) -> float:
        """The value of a metric of texts, such as corpus BLEU in points from 0 to 100."""
        return METRICS[metric].of(self.statistics(metric))

    @cached_property
    def scored(self) -> Translations:
        """The same sentences, with references and hypotheses in the form in which they are scored."""
        references, hypotheses = (tuple(self.scoring.texts(side)) for side in (self.references, self.hypotheses))
        return Translations(self.sources, references, hypotheses, self.scoring)

    def statistics(self, metric: str) -> np.ndarray:
        """What each sentence contributes to a metric, shape (sentences, counts); see ``Metric.statistics``."""
        if metric not in self._statistics:
            scored = self.scored
            texts = Texts(
                scored.sources, scored.references, scored.hypotheses, self.scoring.tokenize, self.scoring.lowercase
            )
            self._statistics[metric] = METRICS[metric].statistics(texts)
        return self._statistics[metric]

    @cached_property
    def _statistics(self) -> dict[str, np.ndarray]:
        return {}

    def sentence_scores(self, metric: str) -> np.ndarray:
        """Each sentence's own value, shape (sentences,)."""
        return METRICS[metric].each(self.statistics(metric))

    def table(self) -> pa.Table:
        """A table with one row per sentence: example, source, reference, hypothesis, and its value in each metric that
        a study may decide by; and the group if there are groups."""
        texts = {
            "example": np.arange(len(self.sources)),
            "source": self.sources,
            "reference": self.references,
            "hypothesis": self.hypotheses,
        }
        groups = {} if self.groups is None else {"group": self.groups}
        return pa.table(texts | groups | {metric.key: self.sentence_scores(metric.key) for metric in judging("texts")})

    def to_bytes(self) -> bytes:
        """The table as a parquet file's content."""
        return to_parquet(self.table())

    @classmethod
    def read(cls, path: Path, scoring: Scoring | None = None) -> Translations:
        """Reads a table back.

        Args:
            path: The file.
            scoring: How its texts are scored now, which may differ from when it was written.

        Raises:
            LeanformerError: The file is missing or damaged.
        """
        columns = read_columns(path, ("source", "reference", "hypothesis"), "translations")
        sources, references, hypotheses = (tuple(column.to_pylist()) for column in columns)
        return cls(sources, references, hypotheses, scoring or Scoring(), read_groups(path, "translations"))
