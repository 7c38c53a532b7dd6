"""The one module that uses what sacreBLEU does not promise: the counts behind its scores, where its models are stored.

Each function says what it relies on, and the tests of contracts check it: an upgrade that breaks it fails there, and is
fixed here. sacreBLEU is imported where it is used.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

EXTRAS = {"ja-mecab": "ja", "ko-mecab": "ko"}
"""A tokenizer that needs more -> the extra of sacreBLEU to install for it."""
DOWNLOADED = ("flores101", "flores200")
"""Tokenizers whose model has to be on the disk."""


def sentence_counts(metric: BLEU | CHRF, hypotheses: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """The counts behind a score, for each sentence; the score of their sum is the corpus score.

    Relies on ``_extract_corpus_statistics``, which sacreBLEU has for its own significance tests alone. The counts of
    BLEU are: length of hypothesis and reference, n-grams that match (4), n-grams of the hypothesis (4). Those of chrF,
    for each order: n-grams of the hypothesis, of the reference, and those that match.

    Args:
        metric: The metric.
        hypotheses: One for each sentence.
        references: Likewise.

    Returns:
        Shape (sentences, 10), for chrF (sentences, 18).
    """
    import numpy as np

    return np.array(metric._extract_corpus_statistics(hypotheses, [references]), dtype=np.float64)


def signature(metric: BLEU | CHRF) -> str:
    """sacreBLEU's signature of a metric with one reference for each sentence, to be stated with its score.

    Relies on the metric taking note of the number of references when it scores.
    """
    metric.corpus_score(["a"], [["a"]])
    return str(metric.get_signature())


def chrf_form() -> tuple[int, int]:
    """The longest n-grams that sacreBLEU's default chrF counts, and beta: how many times as much recall weighs."""
    from sacrebleu.metrics.chrf import CHRF

    return CHRF.CHAR_ORDER, CHRF.BETA


def count_words(texts: Sequence[str], tokenize: str, lowercase: bool = False) -> np.ndarray:
    """How many words each text has as BLEU counts them, shape (texts,); relies on ``_preprocess_segment``.

    Args:
        texts: The texts.
        tokenize: sacreBLEU's tokenizer.
        lowercase: Whether the texts are lowercased first.
    """
    import numpy as np
    from sacrebleu.metrics.bleu import BLEU

    metric = BLEU(lowercase, tokenize=tokenize)
    return np.array([len(metric._preprocess_segment(text).split()) for text in texts], dtype=np.int64)


def model_url(tokenizer: str) -> str:
    """The address from which sacreBLEU would download a tokenizer's model; relies on ``SPM_MODELS``."""
    from sacrebleu.tokenizers import tokenizer_spm

    url: str = tokenizer_spm.SPM_MODELS[tokenizer]["url"]
    return url


def model_file(tokenizer: str) -> str:
    """Where sacreBLEU looks for that model before it downloads it.

    Relies on its name, the last part of the address, in ``models`` of sacreBLEU's directory.
    """
    from sacrebleu import utils

    return os.path.join(utils.SACREBLEU_DIR, "models", os.path.basename(model_url(tokenizer)))
