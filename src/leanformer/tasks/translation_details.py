"""Details of translation quality: by the length of sentences, and example sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanformer.core.sacrebleu_internals import count_words
from leanformer.measure.scoring import choose_tokenizer
from leanformer.results.metrics import Metric, finest
from leanformer.tasks.base import Outcome

LENGTHS = (1, 6, 11, 16, 21, 31)  # the number of source words at which each bin begins
MOST_EXAMPLES = 8


def source_words(sources: Sequence[str], language: str) -> NDArray[np.int64]:
    """The number of words of each sentence; in a language without spaces, sacreBLEU's tokenizer counts them."""
    tokenize = choose_tokenizer("auto", language, sources)
    if tokenize == "13a":
        return np.array([len(source.split()) for source in sources])
    return count_words(sources, tokenize)


def by_length(
    metric: Metric, words: NDArray[np.int64], outcome: Outcome, baseline: Outcome | None
) -> list[dict[str, Any]]:
    """The score of sentences by length, mean over the seeds.

    Args:
        metric: The metric.
        words: The number of words of each source sentence.
        outcome: The outcome of a candidate, or of the baseline itself.
        baseline: The baseline's outcome to compare with; None where there is none.
    """
    ends = [*(start - 1 for start in LENGTHS[1:]), None]
    found = []
    for low, high in zip(LENGTHS, ends, strict=True):
        chosen = (words >= low) & (words <= (words.max() if high is None else high))
        if not chosen.any():
            continue
        score = _mean_score(metric, outcome, chosen)
        found.append(
            {
                "low": low,
                "high": high,
                "sentences": int(chosen.sum()),
                "score": score,
                "difference": None if baseline is None else score - _mean_score(metric, baseline, chosen),
            }
        )
    return found


def _mean_score(metric: Metric, outcome: Outcome, chosen: np.ndarray) -> float:
    sums = np.stack([training[chosen].sum(axis=0) for training in outcome.statistics(metric)])
    return float(metric.score(sums).mean())


def examples(outcome: Outcome, baseline: Outcome) -> list[dict[str, Any]]:
    """The sentences of the first seed whose two scores differ most, in a metric that suits single sentences.

    They are shown in the form in which they are scored; otherwise letters' case or form would look like mistakes.
    """
    mine, theirs = outcome.each()[0], baseline.each()[0]
    metric = finest("texts").key
    mine_scores, their_scores = mine.sentence_scores(metric), theirs.sentence_scores(metric)
    order = np.argsort(-np.abs(mine_scores - their_scores), kind="stable")[:MOST_EXAMPLES]
    return [
        {
            "source": mine.sources[index],
            "reference": mine.scored.references[index],
            "baseline": theirs.scored.hypotheses[index],
            "candidate": mine.scored.hypotheses[index],
            "baseline_score": float(their_scores[index]),
            "candidate_score": float(mine_scores[index]),
        }
        for index in order
        if mine.scored.hypotheses[index] != theirs.scored.hypotheses[index]
    ]
