"""The catalogue of metrics, which measure a model's quality. A new metric is one new module of this package.

A module registers its metric. The study file (``accept.metric``), the scores of trials, the decision, the table and the
page all read the catalogue, so that nothing else names a metric. The functions import what they need when they are
called: the catalogue itself loads neither numpy nor sacreBLEU.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from leanformer.core.registry import Registry
from leanformer.results.formats import signed

if TYPE_CHECKING:
    import numpy as np

AnswerKind = str
"""What a model answers with: ``labels`` (classes), ``texts`` (its own text), or what another task's metrics name."""

MANY_EXAMPLES = 2000
"""With more test examples than this, a second decimal of a percentage is shown."""


@dataclass(frozen=True)
class Labels:
    """A classifier's answers, one entry per example, and what a study says about scoring them.

    Args:
        labels: The correct classes, shape (examples,).
        predictions: The predicted classes, shape (examples,).
        losses: Cross-entropy per example in nats, shape (examples,).
        logits: The model's outputs, shape (examples, classes); None where no metric of the study needs them.
        classes: The number of classes; 0 where it is not known.
        costs: The cost of an answer, shape (classes, classes): rows are correct classes, columns predicted ones.
        positive: The number of the class that is to be found.
        false_alarm_rate: The share of other examples that may be taken for the positive class.
        coverage: The share of the examples that are to be answered.
        thresholds: A metric's key -> the threshold of its decisions, chosen on the validation split.
    """

    labels: np.ndarray
    predictions: np.ndarray
    losses: np.ndarray | None = None
    logits: np.ndarray | None = None
    classes: int = 0
    costs: np.ndarray | None = None
    positive: int | None = None
    false_alarm_rate: float = 0.01
    coverage: float = 0.95
    thresholds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Texts:
    """Texts that a model wrote, one entry per example, in the form in which they are scored.

    Args:
        sources: The texts that the model read.
        references: The answers by people.
        hypotheses: The model's answers.
        tokenize: sacreBLEU's tokenizer for metrics that count words, by its name.
        lowercase: Whether case is ignored.
    """

    sources: Sequence[str]
    references: Sequence[str]
    hypotheses: Sequence[str]
    tokenize: str = "13a"
    lowercase: bool = False


@dataclass(frozen=True, kw_only=True)
class Metric(ABC):
    """A measure of quality: its names and formats, and how it is computed from a model's answers.

    Args:
        key: Its name in the study file and in ``results.json``.
        name: Its name in sentences.
        brief: Its name in the progress line of a training.
        answers: The kind of answers that it measures.
        unit: Written after a value; empty where the name implies it.
        difference_unit: Written after a difference of two values, in the plural; a final s is dropped for 1.
        scale: The factor from a stored value to the shown one.
        digits: Decimals.
        greatest: The greatest stored value; ``math.inf`` where there is no greatest one.
        least: The least stored value.
        max_drop: The default margin (``accept.max_drop``).
        better: Which of two values is better.
        judges: Whether a study may decide by it (``accept.metric``); otherwise it is only shown.
        words: The longest n-gram of words that it counts, with ``Texts.tokenize``; 0 where it counts no words. A
            shorter reference hardly influences it.
        meaning: An explanation for the report, where the name is not enough; it follows "exact match is".
        official: Its name before a signature, where that is different.
        signature: Tokenizer and whether case is ignored -> the signature to state with scores.
        needs: The fields of the answers that must not be None.
        reads: Keys of the study's ``accept`` that it depends on.
        requires: Keys of ``accept`` that must be given.
        threshold: Answers on the validation split -> the threshold of decisions on other answers, in log-odds.
        reached: ``statistics`` summed over all examples -> what the threshold reaches there, from 0 to 1.
        reached_name: The name of that: ``false-alarm rate``.
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
    least: float = 0.0
    max_drop: float
    better: Literal["larger", "smaller"] = "larger"
    judges: bool = True
    words: int = 0
    meaning: str = ""
    official: str = ""
    signature: Callable[[str, bool], str] | None = None
    needs: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    threshold: Callable[[Any], float] | None = None
    reached: Callable[[np.ndarray], float] | None = None
    reached_name: str = ""

    # Computing values

    def measures(self, answers: Any) -> bool:
        """Whether answers hold all that it needs."""
        if any(getattr(answers, name) is None for name in self.needs):
            return False
        return self.threshold is None or self.key in answers.thresholds

    @abstractmethod
    def statistics(self, answers: Any) -> np.ndarray:
        """What each example contributes.

        Args:
            answers: ``Labels`` or ``Texts``.

        Returns:
            Counts, shape (examples, counts); ``score`` of their sum is the value on all examples.
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
        """The value of each single example, shape (examples,).

        Args:
            statistics: Shape (examples, counts).
        """
        return self.score(statistics)

    def of(self, statistics: np.ndarray) -> float:
        """The value on all examples.

        Args:
            statistics: Shape (examples, counts).
        """
        return float(self.score(statistics.sum(axis=0)))

    @property
    def sign(self) -> int:
        """1 where larger values are better, else -1: a value or difference times this is larger where it is better."""
        return 1 if self.better == "larger" else -1

    @property
    def span(self) -> float:
        """The largest possible difference of two values."""
        return self.greatest - self.least

    @property
    def counts_right(self) -> bool:
        """Whether it is a share of right answers, so that the rest are errors."""
        return False

    # Writing values

    @property
    def titled(self) -> str:
        """The name with the unit: ``accuracy in %``, ``BLEU``."""
        return f"{self.name} in {self.unit}" if self.unit else self.name

    @property
    def worsening(self) -> str:
        """The word for a change for the worse."""
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
        """A margin with all its digits: ``1 point``, ``0.25 points``, ``0.5 BLEU``."""
        text = f"{value * self.scale:.6g}"
        return f"{text} {self.difference_unit.removesuffix('s') if text == '1' else self.difference_unit}"

    def progress(self, value: float) -> str:
        """A value in few characters: ``acc 97.1%``, ``bleu 29.8``."""
        return f"{self.brief} {value * self.scale:.{self.digits if self.digits > 2 else 1}f}{self.unit}"


@dataclass(frozen=True, kw_only=True)
class MeanMetric(Metric):
    """A metric that is a mean over the examples; models are compared by the analysis of variance of outcomes.

    Args:
        outcomes: Answers -> the outcome of each example, from 0 to 1, shape (examples,).
    """

    outcomes: Callable[[Any], np.ndarray]
    greatest: float = 1.0

    def statistics(self, answers: Any) -> np.ndarray:
        import numpy as np

        outcomes = np.asarray(self.outcomes(answers), dtype=np.float64)
        return np.stack([outcomes, np.ones_like(outcomes)], axis=-1)  # (examples, 2)

    def score(self, sums: np.ndarray) -> np.ndarray:
        return sums[..., 0] / sums[..., 1]

    @property
    def counts_right(self) -> bool:
        return self.better == "larger" and self.greatest == 1


@dataclass(frozen=True, kw_only=True)
class CorpusMetric(Metric):
    """A metric of all examples together, a function of sums; models are compared by the paired bootstrap.

    Args:
        counts: Answers -> the numbers to sum, shape (examples, counts).
        of_sums: Sums, shape (..., counts) -> stored values, shape (...).
        of_example: Counts of single examples -> their values, where these are computed differently.
        heaviest: Sums over all examples, shape (counts,) -> the most that one example may change the value, times the
            number of examples: 1 for a share of right answers, more where an example of a rare class counts more. By
            default one point of the shown value.
    """

    counts: Callable[[Any], np.ndarray]
    of_sums: Callable[[np.ndarray], np.ndarray]
    of_example: Callable[[np.ndarray], np.ndarray] | None = None
    heaviest: Callable[[np.ndarray], float] | None = None

    def statistics(self, answers: Any) -> np.ndarray:
        return self.counts(answers)

    def score(self, sums: np.ndarray) -> np.ndarray:
        return self.of_sums(sums)

    def each(self, statistics: np.ndarray) -> np.ndarray:
        return (self.of_example or self.of_sums)(statistics)


METRICS: Registry[Metric] = Registry("leanformer.results.metrics", order=("accuracy", "bleu", "chrf"))
"""Key -> metric. The first metric of each kind of answers is the default of studies."""


def register(metric: Metric) -> Metric:
    """Adds a metric to the catalogue.

    Raises:
        ValueError: Another metric has this key.
    """
    return METRICS.add(metric.key, metric)


def metrics_of(answers: AnswerKind) -> list[Metric]:
    """The metrics of one kind of answers; those that a study may decide by come first."""
    found = [metric for metric in METRICS.values() if metric.answers == answers]
    return sorted(found, key=lambda metric: not metric.judges)


def judging(answers: AnswerKind) -> list[Metric]:
    """The metrics that a study may decide by, the default first."""
    return [metric for metric in metrics_of(answers) if metric.judges]


def finest(answers: AnswerKind) -> Metric:
    """The metric that suits single examples best: one that counts no words, because a text may have few of them."""
    found = judging(answers)
    return next((metric for metric in found if not metric.words), found[0])


def find_metric(results: Mapping[str, Any]) -> Metric:
    """The metric of a study's results, with a second decimal where there are many test examples.

    Args:
        results: The content of ``results.json``.
    """
    metric = METRICS[results["metric"]]
    return replace(metric, digits=max(2, metric.digits)) if results["data"]["test"] > MANY_EXAMPLES else metric
