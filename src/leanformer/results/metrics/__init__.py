"""The catalogue of metrics: what the quality of a model is measured in. A new metric is one new module of this package.

A module registers its metric. The study file (``accept.metric``), the scores of trials, the decision, the table and the
page all read the catalogue, so that nothing else names a metric. The arithmetic imports what it needs when it is asked:
the catalogue itself loads neither numpy nor sacreBLEU.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from leanformer.core.registry import Registry
from leanformer.results.formats import signed

if TYPE_CHECKING:
    import numpy as np

AnswerKind = str
"""What a model answers with: ``labels``, classes; ``texts``, text of its own; or what another task's metrics say."""

MANY_EXAMPLES = 2000
"""Test examples beyond which a second decimal of a percentage tells more than chance roundings do."""


@dataclass(frozen=True)
class Labels:
    """A classifier's answers, one entry an example.

    Args:
        labels: The right classes, shape (examples,).
        predictions: The classes that the model gave, shape (examples,).
    """

    labels: np.ndarray
    predictions: np.ndarray


@dataclass(frozen=True)
class Texts:
    """Texts that a model wrote, one entry an example, in the form in which they are scored.

    Args:
        sources: What the model read.
        references: What a person made of it.
        hypotheses: What the model made of it.
        tokenize: How metrics that count words cut them: one of sacreBLEU's tokenizers, by its name.
        lowercase: Whether letters' case counts for nothing.
    """

    sources: Sequence[str]
    references: Sequence[str]
    hypotheses: Sequence[str]
    tokenize: str = "13a"
    lowercase: bool = False


@dataclass(frozen=True, kw_only=True)
class Metric(ABC):
    """A measure of quality: what it is called, how it is written, and how it comes about from a model's answers.

    Args:
        key: Its name in the study file and in ``results.json``.
        name: As people write it.
        brief: In the line of a training that runs.
        answers: Of which answers it is.
        unit: Written after a value; empty where the name says it.
        difference_unit: Written after a difference of two values; one of them is called so without a final s.
        scale: What a stored value is multiplied by to be shown.
        digits: Decimals.
        greatest: The greatest stored value; the least is 0. ``math.inf`` where there is none.
        max_drop: The loss that a study accepts where it does not say another (``accept.max_drop``).
        better: Which of two values is the better one.
        judges: Whether a study may decide by it (``accept.metric``); otherwise it is only shown.
        words: How many words in a row it counts at most, as ``Texts.tokenize`` cuts them; 0 where it counts none. It
            hardly sees a reference of fewer.
        meaning: What it is, where the name does not say it to everybody: after "exact match is".
        official: Its name before a signature, where that is another one.
        signature: Tokenizer and whether case is ignored -> how scores are made, to be stated with them.
    """

    key: str
    name: str
    brief: str
    answers: AnswerKind
    unit: str = ""
    difference_unit: str
    scale: float = 1.0
    digits: int = 2
    greatest: float
    max_drop: float
    better: Literal["larger", "smaller"] = "larger"
    judges: bool = True
    words: int = 0
    meaning: str = ""
    official: str = ""
    signature: Callable[[str, bool], str] | None = None

    # How values come about

    @abstractmethod
    def statistics(self, answers: Any) -> np.ndarray:
        """What each example contributes.

        Args:
            answers: ``Labels`` or ``Texts``.

        Returns:
            Numbers of which ``score`` of the sum is the value on all examples, shape (examples, counts).
        """

    @abstractmethod
    def score(self, sums: np.ndarray) -> np.ndarray:
        """The values on many sets of examples at once.

        Args:
            sums: ``statistics`` summed over each set's examples, shape (..., counts).

        Returns:
            Stored values, shape (...).
        """

    def each(self, statistics: np.ndarray) -> np.ndarray:
        """Each example's own value, shape (examples,).

        Args:
            statistics: Of shape (examples, counts).
        """
        return self.score(statistics)

    def of(self, statistics: np.ndarray) -> float:
        """The value on all examples.

        Args:
            statistics: Of shape (examples, counts).
        """
        return float(self.score(statistics.sum(axis=0)))

    @property
    def sign(self) -> int:
        """1 where more is better, -1 where less is: a value or difference times this is larger where it is better."""
        return 1 if self.better == "larger" else -1

    # How values are written

    @property
    def titled(self) -> str:
        """The name with the unit: ``accuracy in %``, ``BLEU``."""
        return f"{self.name} in {self.unit}" if self.unit else self.name

    @property
    def worsening(self) -> str:
        """What a change for the worse is called."""
        return "drop" if self.better == "larger" else "rise"

    def number(self, value: float) -> str:
        """A value without its unit: ``97.1``."""
        return f"{value * self.scale:.{self.digits}f}"

    def signed(self, value: float) -> str:
        """A difference without its unit: ``-0.3``, ``+0.4``, ``0.0``."""
        return signed(value * self.scale, self.digits)

    def value(self, value: float) -> str:
        """``97.1 %``, ``29.75``"""
        return f"{self.number(value)} {self.unit}".rstrip()

    def difference(self, value: float) -> str:
        """``-0.3 points``, ``-0.52 BLEU``"""
        return f"{self.signed(value)} {self.difference_unit}"

    def margin(self, value: float) -> str:
        """A margin, with all of its digits: ``1 point``, ``0.25 points``, ``0.5 BLEU``."""
        text = f"{value * self.scale:.6g}"
        return f"{text} {self.difference_unit.removesuffix('s') if text == '1' else self.difference_unit}"

    def progress(self, value: float) -> str:
        """In few characters: ``acc 97.1%``, ``bleu 29.8``."""
        return f"{self.brief} {value * self.scale:.1f}{self.unit}"


@dataclass(frozen=True, kw_only=True)
class MeanMetric(Metric):
    """A metric that is a mean over the examples; models are compared by the analysis of variance of outcomes.

    Args:
        outcomes: Answers -> what each example gives, from 0 to 1, shape (examples,).
    """

    outcomes: Callable[[Any], np.ndarray]
    greatest: float = 1.0

    def statistics(self, answers: Any) -> np.ndarray:
        import numpy as np

        outcomes = np.asarray(self.outcomes(answers), dtype=np.float64)
        return np.stack([outcomes, np.ones_like(outcomes)], axis=-1)  # (examples, 2)

    def score(self, sums: np.ndarray) -> np.ndarray:
        return sums[..., 0] / sums[..., 1]


@dataclass(frozen=True, kw_only=True)
class CorpusMetric(Metric):
    """A metric of all examples together, a function of sums; models are compared by the paired bootstrap.

    Args:
        counts: Answers -> the numbers that are summed, shape (examples, counts).
        of_sums: Sums, shape (..., counts) -> stored values, shape (...).
        of_example: Counts of single examples -> their own values, where these are made in another way.
    """

    counts: Callable[[Any], np.ndarray]
    of_sums: Callable[[np.ndarray], np.ndarray]
    of_example: Callable[[np.ndarray], np.ndarray] | None = None

    def statistics(self, answers: Any) -> np.ndarray:
        return self.counts(answers)

    def score(self, sums: np.ndarray) -> np.ndarray:
        return self.of_sums(sums)

    def each(self, statistics: np.ndarray) -> np.ndarray:
        return (self.of_example or self.of_sums)(statistics)


METRICS: Registry[Metric] = Registry("leanformer.results.metrics", order=("accuracy", "bleu", "chrf"))
"""Key -> metric. Of each kind of answers the first is the one that studies decide by where they do not say another."""


def register(metric: Metric) -> Metric:
    """Enters a metric in the catalogue.

    Raises:
        ValueError: Another one has this key.
    """
    return METRICS.add(metric.key, metric)


def metrics_of(answers: AnswerKind) -> list[Metric]:
    """The metrics of one kind of answers, those by which a study may decide first."""
    found = [metric for metric in METRICS.values() if metric.answers == answers]
    return sorted(found, key=lambda metric: not metric.judges)


def judging(answers: AnswerKind) -> list[Metric]:
    """Those by which a study may decide, the usual one first."""
    return [metric for metric in metrics_of(answers) if metric.judges]


def finest(answers: AnswerKind) -> Metric:
    """The metric that tells single examples apart best: one that counts no words, of which a text may have few."""
    found = judging(answers)
    return next((metric for metric in found if not metric.words), found[0])


def find_metric(results: Mapping[str, Any]) -> Metric:
    """The metric of a study's results, with as many decimals as one test example can move it.

    Args:
        results: The content of ``results.json``.
    """
    metric = METRICS[results["metric"]]
    return replace(metric, digits=max(2, metric.digits)) if results["data"]["test"] > MANY_EXAMPLES else metric
