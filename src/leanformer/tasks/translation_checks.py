"""What is looked at before any translator is trained: whether the test split can judge, and what it cannot see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from leanformer.data.normalization import loses_letters
from leanformer.data.text import TextData
from leanformer.data.text_batches import Sentences
from leanformer.data.text_checks import MUCH, left_out_warning, present
from leanformer.errors import LeanformerError
from leanformer.measure.scoring import Metric, Scoring
from leanformer.measure.translation import Translations, corpus_score
from leanformer.model.baseline import TextBaseline
from leanformer.warning import StudyWarning

FEWEST = 2
"""Sentences of a test split: what is drawn from one has no variance."""
FEW = 30
"""Sentences up to which intervals between percentiles of a bootstrap are known to be too narrow."""
SHORTEST = 4
"""Words that BLEU counts in a row."""


def check_test_split(references: Sequence[str], metric: Metric, scoring: Scoring) -> None:
    """Makes sure that a decision can be made on a test split, before anything is trained for it.

    Args:
        references: Its target sentences.
        metric: Which judges.
        scoring: How.

    Raises:
        LeanformerError: There are too few sentences, or even perfect translations would not score 100.
    """
    if len(references) < FEWEST:
        raise LeanformerError(
            f"data: the test split has {len(references)} sentence pair, and a decision takes {FEWEST} or more; give it "
            "more pairs, or raise what cut it (data.test_limit, data.test_fraction, data.numbers.test)"
        )
    perfect = Translations(tuple(references), tuple(references), tuple(references), scoring)
    if corpus_score(metric, perfect.statistics(metric).sum(axis=0)) > 0:
        return
    if metric == "chrf":
        raise LeanformerError(
            "data: nothing is left of any test reference in the tokenizer's own normaliser, so that perfect "
            "translations would score 0; take another tokenizer, or references with letters"
        )
    raise LeanformerError(
        f"data: no reference of the test split has {SHORTEST} words in a row as BLEU counts them (tokenizer "
        f"{scoring.tokenize}), so that perfect translations would score 0; set accept.metric to chrf, or give longer "
        "test sentences"
    )


def check_positions(sources: Sequence[str], lengths: NDArray[np.int64], positions: int, baseline: TextBaseline) -> None:
    """Makes sure that a model can read every test sentence.

    Args:
        sources: The test sentences.
        lengths: Subwords of each, the end mark included.
        positions: Of the model.
        baseline: The model, by which the remedy goes.

    Raises:
        LeanformerError: One is longer.
    """
    long = np.flatnonzero(lengths > positions)
    if not len(long):
        return
    longest = int(lengths.max())
    if baseline.trained is not None:
        remedy = "shorten or split them, or take a model with more positions"
    elif "max_position_embeddings" in baseline.settings:
        remedy = f"set baseline.config.max_position_embeddings to {longest}"
    else:
        remedy = f"set data.max_tokens to {longest}, which a fresh model's positions follow"
    raise LeanformerError(
        f"data: {len(long):,} of {len(lengths):,} source sentences of the test split have more subwords (up to "
        f"{longest:,}) than the model has positions ({positions:,}), such as {sources[long[0]][:40]!r}; {remedy}"
    )


def left_out_warnings(data: TextData, left_out: Mapping[str, int], max_tokens: int) -> list[StudyWarning]:
    """Splits of which many pairs are too long for training.

    Args:
        data: All pairs.
        left_out: How many were left out of each split.
        max_tokens: Subwords that a side may have.
    """
    reason = f"a side has more than {max_tokens} subwords; raise data.max_tokens"
    sizes = {"train": len(data.train), "validation": len(data.validation)}
    return present([left_out_warning(split, count, sizes[split], reason) for split, count in left_out.items()])


def test_warnings(
    references: Sequence[str],
    encoded: Sentences,
    most: int,
    positions: int,
    unknown: int | None,
    metric: Metric,
    scoring: Scoring,
) -> list[StudyWarning]:
    """What a test split shows less of than its reader may think.

    Args:
        references: Its target sentences.
        encoded: Their subwords, with end marks.
        most: Subwords at which translations are cut off.
        positions: Subwords that the model has positions for.
        unknown: The subword that stands for what the tokenizer does not know.
        metric: Which judges.
        scoring: How.
    """
    found: list[StudyWarning] = []
    lengths = encoded.lengths
    if len(references) < FEW:
        found.append(
            StudyWarning(
                "small-test-split",
                f"the test split has {len(references)} sentences; intervals and decisions on fewer than {FEW} are "
                "surer than they should be, so give it more",
                len(references),
            )
        )
    words = Translations(tuple(references), tuple(references), tuple(references), scoring).statistics("bleu")[:, 1]
    short = int((words < SHORTEST).sum())
    if metric == "bleu" and 2 * short > len(references):
        found.append(
            StudyWarning(
                "short-references",
                f"{short:,} of {len(references):,} test references have fewer than {SHORTEST} words as BLEU counts "
                f"them (tokenizer {scoring.tokenize}), so that it hardly sees them; set accept.metric to chrf",
                short,
            )
        )
    cut = int((lengths > most).sum())
    if cut:
        longest = int(lengths.max())
        remedy = f"set decode.max_tokens to {longest}" if longest <= positions else "the model has no more positions"
        found.append(
            StudyWarning(
                "cut-translations",
                f"{cut:,} of {len(references):,} test references have more than the {most} subwords at which "
                f"translations are cut off; {remedy}",
                cut,
            )
        )
    unreached = 0 if unknown is None else encoded.containing(unknown)
    if unreached > MUCH * len(references):
        found.append(
            StudyWarning(
                "unknown-letters",
                f"{unreached:,} of {len(references):,} test references have letters that the tokenizer does not know, "
                "so that no translation can reach them; take a model of this language, or a fresh one",
                unreached,
            )
        )
    lossy = [text for text in references if loses_letters(text, scoring.normalize(text))]
    if lossy:
        found.append(
            StudyWarning(
                "lossy-normalizer",
                f"the tokenizer writes {lossy[0][:40]!r} as {scoring.normalize(lossy[0])[:40]!r}: {len(lossy):,} of "
                f"{len(references):,} test references lose letters or accents, and scores do not see it; take a "
                "tokenizer that keeps them",
                len(lossy),
            )
        )
    return found


def scoring_notes(scoring: Scoring, references: Sequence[str]) -> list[str]:
    """How scores are made, where it is not as one would think, in words.

    Args:
        scoring: It.
        references: Of the test split.
    """
    notes = []
    if scoring.tokenize != "13a":
        notes.append(f"BLEU counts words as sacreBLEU's tokenizer {scoring.tokenize} cuts them")
    if scoring.lowercase:
        notes.append("translations are in small letters, and are scored without case")
    changed = sum(scoring.normalize(text) != text.strip() for text in references)
    if changed:
        notes.append(
            f"{changed:,} of {len(references):,} test references are scored in the form that the tokenizer gives them"
        )
    return notes
