"""The area under the ROC curve: the probability that an example of a class gets a higher score for it than one of
another class (Fawcett 2006, "An introduction to ROC analysis", Pattern Recognition Letters 27, section 7); with several
classes the mean over them, each against the rest.

It is no function of sums of counts. To first order it is: the sums of the examples' placements, whose variances are
those of DeLong, DeLong and Clarke-Pearson 1988, "Comparing the areas under two or more correlated receiver operating
characteristic curves", Biometrics 44, and by groups those of Obuchowski 1997, Biometrics 53.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from leanformer.results.metrics import CorpusMetric, Labels, register
from leanformer.results.metrics.kit.classes import log_odds

if TYPE_CHECKING:
    import numpy as np


def _placements(scores: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """The part of the examples of the other kind that an example is ranked rightly against; ties count half.

    Args:
        scores: Of each example for a class, shape (examples,).
        inside: Whether it is of this class.
    """
    import numpy as np
    from scipy.stats import rankdata

    ranks = rankdata(scores)
    own = np.empty_like(ranks)
    own[inside], own[~inside] = rankdata(scores[inside]), rankdata(scores[~inside])
    below = ranks - own  # of the other kind
    others = np.where(inside, (~inside).sum(), inside.sum())
    return np.where(inside, below, others - below) / others


def _counts(answers: Labels) -> np.ndarray:
    """For each class: the placements and the number of its examples, and of the others, whose placements are taken
    from the area, so that their sum is 0 on all examples; shape (examples, classes * 4). A class that does not occur,
    or that all examples have, has zeros."""
    import numpy as np

    scores = log_odds(answers)
    # With two classes both areas are the same.
    classes = range(answers.classes) if answers.positive is None else [answers.positive]
    counts = np.zeros((len(scores), len(classes), 4))
    for place, number in enumerate(classes):
        inside = answers.labels == number
        if inside.all() or not inside.any():
            continue
        placements = _placements(scores[:, number], inside)
        area = placements[inside].mean()
        counts[inside, place, 0], counts[inside, place, 1] = placements[inside], 1
        counts[~inside, place, 2], counts[~inside, place, 3] = placements[~inside] - area, 1
    return counts.reshape(len(scores), -1)


def _area(sums: np.ndarray) -> np.ndarray:
    import numpy as np

    inside, of_class, outside, of_others = np.moveaxis(sums.reshape(*sums.shape[:-1], -1, 4), -1, 0)
    there = (of_class > 0) & (of_others > 0)
    areas = inside / np.where(there, of_class, 1) + outside / np.where(there, of_others, 1)
    # Where a replicate has no class with others, nothing is known of it: as good as chance.
    return np.where(there.any(axis=-1), areas.sum(axis=-1, where=there) / np.maximum(there.sum(axis=-1), 1), 0.5)


def _heaviest(sums: np.ndarray) -> float:
    """An example of the rarest class that goes from the first to the last place."""
    import numpy as np

    _, of_class, _, of_others = np.moveaxis(sums.reshape(-1, 4), -1, 0)
    there = of_class > 0
    fewest = np.minimum(of_class, of_others)[there]
    return float((of_class + of_others)[there][0] / fewest.min() / len(fewest)) if len(fewest) else 1.0


register(
    CorpusMetric(
        key="auc",
        name="AUC",
        brief="auc",
        answers="labels",
        difference_unit="AUC",
        digits=4,
        greatest=1.0,
        max_drop=0.01,
        meaning="the area under the ROC curve; with several classes the mean over them, each against the rest",
        needs=("logits",),
        reads=("positive",),
        counts=_counts,
        of_sums=_area,
        heaviest=_heaviest,
    )
)
