"""What sacreBLEU counts a sentence: the one place that reaches into it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from leanformer.results.metrics import Texts

if TYPE_CHECKING:
    import numpy as np
    from sacrebleu.metrics.base import Metric


def count(metric: Metric, answers: Texts) -> np.ndarray:
    """What a metric of sacreBLEU sums over the sentences, shape (sentences, counts)."""
    import numpy as np

    # sacreBLEU offers them to its own significance tests alone, hence the underscore.
    return np.array(
        metric._extract_corpus_statistics(answers.hypotheses, [answers.references]),
        dtype=np.float64,
    )


def count_words(texts: Sequence[str], tokenize: str, lowercase: bool = False) -> np.ndarray:
    """How many words each text has, as one of sacreBLEU's tokenizers cuts them, shape (texts,)."""
    import numpy as np
    from sacrebleu.metrics.bleu import BLEU

    metric = BLEU(lowercase, tokenize=tokenize)
    return np.array([len(metric._preprocess_segment(text).split()) for text in texts], dtype=np.int64)


def signature_of(metric: Metric) -> str:
    """sacreBLEU's signature, to be stated with a score."""
    metric.corpus_score(["a"], [["a"]])  # so that it knows of one reference a sentence
    return str(metric.get_signature())
