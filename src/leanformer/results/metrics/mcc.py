"""Matthews correlation coefficient: the correlation of predicted and correct classes (Matthews 1975, Biochimica et
Biophysica Acta 405), for many classes R_K (Gorodkin 2004, "Comparing two K-category assignments by a K-category
correlation coefficient", Computational Biology and Chemistry 28, equation 8)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leanformer.results.metrics import CorpusMetric, register
from leanformer.results.metrics.kit.classes import by_class, class_counts, heaviest

if TYPE_CHECKING:
    import numpy as np


def _correlation(sums: np.ndarray) -> np.ndarray:
    """0 where all examples have one class, or all answers are one class."""
    import numpy as np

    found, labels, predictions = by_class(np.asarray(sums, dtype=np.float64))
    examples = labels.sum(axis=-1)
    shared = found.sum(axis=-1) * examples - (labels * predictions).sum(axis=-1)
    spreads = (examples**2 - (predictions**2).sum(axis=-1)) * (examples**2 - (labels**2).sum(axis=-1))
    return np.where(spreads > 0, shared / np.sqrt(np.where(spreads > 0, spreads, 1)), 0.0)


register(
    CorpusMetric(
        key="mcc",
        name="MCC",
        brief="mcc",
        answers="labels",
        difference_unit="MCC",
        digits=3,
        greatest=1.0,
        least=-1.0,
        max_drop=0.01,
        meaning="Matthews correlation coefficient, from -1 to 1; 0 for answers that know nothing of the image",
        counts=class_counts,
        of_sums=_correlation,
        heaviest=heaviest(_correlation),
    )
)
