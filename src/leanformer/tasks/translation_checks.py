"""What is looked at before any translator is trained: whether the test split can judge, and what it cannot see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import takewhile

import numpy as np
from numpy.typing import NDArray

from leanformer.core.errors import LeanformerError
from leanformer.core.warning import StudyWarning
from leanformer.data.normalization import loses_letters
from leanformer.data.pairs import FEWEST_TESTED
from leanformer.data.text_batches import Sentences
from leanformer.data.text_checks import MUCH, left_out_warning, present
from leanformer.data.text_sources import TextData
from leanformer.data.tokenizers import TranslationTokenizer
from leanformer.decide.decision import UNITS
from leanformer.measure.scoring import Metric, Scoring
from leanformer.measure.translation import Translations, corpus_score
from leanformer.model.baseline import TextBaseline

FEW = 30
"""Sentences up to which intervals between percentiles of a bootstrap are known to be too narrow."""
SHORTEST = 4
"""Words that BLEU counts in a row."""
LOOKED_AT = 300
"""Test references that are decoded again, before anything is trained."""
UNSEEN = 1.0
"""Points below 100 that a perfect translation may score without a word."""


def check_test_split(references: Sequence[str], metric: Metric, scoring: Scoring, fitting: str) -> None:
    """Makes sure that a decision can be made on a test split, before anything is trained for it.

    Args:
        references: Its target sentences.
        metric: Which judges.
        scoring: How.
        fitting: The tokenizer of BLEU that fits the language.

    Raises:
        LeanformerError: There are too few sentences, or even perfect translations would not score 100.
    """
    if len(references) < FEWEST_TESTED:
        raise LeanformerError(
            f"data: the test split has {len(references)} sentence pair, and a decision takes {FEWEST_TESTED} or more; "
            "give it more pairs, or raise what cut it (data.test_limit, data.test_fraction, data.numbers.test)"
        )
    perfect = _perfect(references, scoring)
    if corpus_score(metric, perfect.statistics(metric).sum(axis=0)) > 0:
        return
    if metric == "chrf":
        raise LeanformerError(
            "data: nothing is left of any test reference in the tokenizer's own normaliser, so that perfect "
            "translations would score 0; take another tokenizer, or references with letters"
        )
    raise LeanformerError(
        f"data: no reference of the test split has {SHORTEST} words in a row as BLEU counts them (tokenizer "
        f"{scoring.tokenize}), so that perfect translations would score 0; "
        + (_other_tokenizer(references, scoring, fitting) or "set accept.metric to chrf, or give longer test sentences")
    )


def _too_short(references: Sequence[str], scoring: Scoring) -> int:
    """How many references are too short for BLEU."""
    words = _perfect(references, scoring).statistics("bleu")[:, 1]
    return int((words < SHORTEST).sum())


def _perfect(references: Sequence[str], scoring: Scoring) -> Translations:
    return Translations(tuple(references), tuple(references), tuple(references), scoring)


def _other_tokenizer(references: Sequence[str], scoring: Scoring, fitting: str) -> str | None:
    """What to do where another tokenizer of BLEU finds enough words in most references."""
    if fitting == scoring.tokenize or 2 * _too_short(references, replace(scoring, tokenize=fitting)) > len(references):
        return None
    return f"leave accept.tokenize out, and {fitting}, which fits the language, is taken"


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
    limits: tuple[int, int],
    tokenizer: TranslationTokenizer,
    metric: Metric,
    scoring: Scoring,
    fitting: str,
) -> list[StudyWarning]:
    """What a test split shows less of than its reader may think.

    Args:
        references: Its target sentences.
        encoded: Their subwords, with end marks.
        limits: Subwords at which translations are cut off, and that the model has positions for.
        tokenizer: Of the model.
        metric: Which judges.
        scoring: How.
        fitting: The tokenizer of BLEU that fits the language.
    """
    found: list[StudyWarning] = []
    lengths, (most, positions), unknown = encoded.lengths, limits, tokenizer.unknown_id
    if len(references) < FEW:
        found.append(
            StudyWarning(
                "small-test-split",
                f"the test split has {len(references)} sentences; intervals and decisions on fewer than {FEW} are "
                "surer than they should be, so give it more",
                len(references),
            )
        )
    short = _too_short(references, scoring)
    if metric == "bleu" and 2 * short > len(references):
        found.append(
            StudyWarning(
                "short-references",
                f"{short:,} of {len(references):,} test references have fewer than {SHORTEST} words as BLEU counts "
                f"them (tokenizer {scoring.tokenize}), so that it hardly sees them; "
                + (_other_tokenizer(references, scoring, fitting) or "set accept.metric to chrf"),
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
    else:
        found += present([_lossy_warning(references, encoded, tokenizer, metric, scoring)])
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


def _lossy_warning(
    references: Sequence[str], encoded: Sentences, tokenizer: TranslationTokenizer, metric: Metric, scoring: Scoring
) -> StudyWarning | None:
    """What a tokenizer keeps a perfect translation from, which is one of the references' own subwords."""
    rows = np.unique(np.linspace(0, len(references) - 1, LOOKED_AT).astype(int)).tolist()
    known = tuple(references[row] for row in rows)
    written = tuple(tokenizer.decode([_to_end(encoded[row].tolist(), tokenizer.eos_id) for row in rows]))
    answers = Translations(known, known, written, scoring)
    best, reached = (
        float(corpus_score(metric, one.statistics(metric).sum(axis=0))) for one in (_perfect(known, scoring), answers)
    )
    if reached >= best - UNSEEN:
        return None
    worst = int(answers.sentence_scores(metric).argmin())
    given, back = answers.scored.references[worst], answers.scored.hypotheses[worst]
    alike = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(given, back, strict=False)))
    shown, became = (side[max(0, alike - 20) : alike + 20] for side in (given, back))
    return StudyWarning(
        "lossy-tokenizer",
        f"the tokenizer does not give texts back: {shown!r} of a test reference becomes {became!r}, and a perfect "
        f"translation scores {reached:.1f} {UNITS[metric].many}, not 100; take a tokenizer that gives them back, or "
        "write the data as it does",
        int((~answers.exact).sum()),
    )


def _to_end(ids: list[int], end: int) -> list[int]:
    """The ids up to the first end mark, where a translation ends; some tokenizers begin with one."""
    return [*ids[:1], *takewhile(lambda token: token != end, ids[1:])]


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
