"""Checks before any translator is trained: whether the test split can decide, and what its scores cannot show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import takewhile

import numpy as np
from numpy.typing import NDArray

from leanformer.config.translation import TextDataConfig
from leanformer.core.errors import LeanformerError
from leanformer.core.sacrebleu_internals import count_words
from leanformer.core.warning import StudyWarning
from leanformer.data.normalization import loses_letters
from leanformer.data.pairs import FEWEST_TESTED
from leanformer.data.text_batches import Sentences
from leanformer.data.text_checks import MUCH, left_out_warning, present
from leanformer.data.text_sources import TextData
from leanformer.data.tokenizers import TranslationTokenizer
from leanformer.measure.scoring import Scoring
from leanformer.measure.translation import Translations
from leanformer.model.text_baseline import TextBaseline
from leanformer.results.metrics import Metric, finest, judging

FEW = 30
"""With fewer sentences, percentile intervals of a bootstrap are known to be too narrow."""
MOST_DECODED = 300
"""The most test references that are encoded and decoded to check the tokenizer."""
TOLERATED = 1.0
"""Points by which the tokenizer may lower the score of a perfect translation without a warning."""


def tokenizer_of(baseline: TextBaseline, config: TextDataConfig) -> TranslationTokenizer:
    """The tokenizer of a study's trained baseline, set to the study's languages and prefix.

    Args:
        baseline: The baseline.
        config: The study's ``data`` section.

    Raises:
        LeanformerError: It brings none, or does not know the languages.
    """
    assert baseline.trained is not None
    languages = (config.source_language, config.target_language)
    prefix = config.prefix
    if prefix is None:
        # T5's way to say it (``task_specific_params`` of its ``config.json``).
        tasks = getattr(baseline.trained.config, "task_specific_params", None)
        own = (tasks if isinstance(tasks, dict) else {}).get(f"translation_{languages[0]}_to_{languages[1]}")
        found = own.get("prefix") if isinstance(own, dict) else None
        prefix = found if isinstance(found, str) else None
    return TranslationTokenizer.load(baseline.source, languages, config.language_codes, prefix)


def check_test_split(references: Sequence[str], metric: Metric, scoring: Scoring, fitting: str) -> None:
    """Checks that a decision is possible on a test split, before anything is trained for it.

    Args:
        references: The target sentences of the split.
        metric: The study's metric.
        scoring: How translations are scored.
        fitting: The tokenizer that fits the language.

    Raises:
        LeanformerError: There are too few sentences, or even perfect translations would not score 100.
    """
    if len(references) < FEWEST_TESTED:
        raise LeanformerError(
            f"data: the test split has {len(references)} sentence pair, and a decision needs {FEWEST_TESTED} or more; "
            "give it more pairs, or raise its limit (data.test_limit, data.test_fraction, data.numbers.test)"
        )
    nothing_written = Translations(tuple(references), tuple(references), ("",) * len(references), scoring)
    if _perfect(references, scoring).score(metric.key) != nothing_written.score(metric.key):
        return
    if not metric.words:
        raise LeanformerError(
            "data: the tokenizer's own normaliser leaves nothing of any test reference, so that perfect translations "
            "would score 0; take another tokenizer, or references with letters"
        )
    raise LeanformerError(
        f"data: no reference of the test split has {metric.words} words in a row as {metric.name} counts them "
        f"(tokenizer {scoring.tokenize}), so that perfect translations would score 0; "
        + (
            _other_tokenizer(references, metric, scoring, fitting)
            or f"set accept.metric to {finest('texts').key}, or give longer test sentences"
        )
    )


def _too_short(references: Sequence[str], metric: Metric, scoring: Scoring) -> int:
    """The number of references with fewer words than the metric's longest n-gram."""
    words = count_words(scoring.texts(references), scoring.tokenize, scoring.lowercase)
    return int((words < metric.words).sum())


def _perfect(references: Sequence[str], scoring: Scoring) -> Translations:
    return Translations(tuple(references), tuple(references), tuple(references), scoring)


def _other_tokenizer(references: Sequence[str], metric: Metric, scoring: Scoring, fitting: str) -> str | None:
    """A remedy where another tokenizer finds enough words in most references, else None."""
    if fitting == scoring.tokenize:
        return None
    if 2 * _too_short(references, metric, replace(scoring, tokenize=fitting)) > len(references):
        return None
    return f"leave accept.tokenize out: then {fitting}, which fits the language, is used"


def check_positions(sources: Sequence[str], lengths: NDArray[np.int64], positions: int, baseline: TextBaseline) -> None:
    """Checks that a model can read every test sentence.

    Args:
        sources: The test sentences.
        lengths: The subwords of each, with the end mark.
        positions: The model's number of positions.
        baseline: The model, which determines the remedy.

    Raises:
        LeanformerError: A sentence is longer.
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
    """Warnings for splits with many pairs that are too long for training.

    Args:
        data: All pairs.
        left_out: The number of pairs that were left out of each split.
        max_tokens: The most subwords of a side.
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
    """Warnings where results on a test split may mean less than their reader thinks.

    Args:
        references: The target sentences of the split.
        encoded: Their subwords, with end marks.
        limits: The most subwords of a translation, and the model's positions.
        tokenizer: The model's tokenizer.
        metric: The study's metric.
        scoring: How translations are scored.
        fitting: The tokenizer that fits the language.
    """
    found: list[StudyWarning] = []
    lengths, (most, positions), unknown = encoded.lengths, limits, tokenizer.unknown_id
    if len(references) < FEW:
        found.append(
            StudyWarning(
                "small-test-split",
                f"the test split has {len(references)} sentences; intervals and decisions on fewer than {FEW} are "
                "surer than they should be; give it more",
                len(references),
            )
        )
    short = _too_short(references, metric, scoring) if metric.words else 0
    if 2 * short > len(references):
        found.append(
            StudyWarning(
                "short-references",
                f"{short:,} of {len(references):,} test references have fewer than {metric.words} words as "
                f"{metric.name} counts them (tokenizer {scoring.tokenize}), so that they hardly change it; "
                + (
                    _other_tokenizer(references, metric, scoring, fitting)
                    or f"set accept.metric to {finest('texts').key}"
                ),
                short,
            )
        )
    if (lengths > most).any():
        found.append(cut_warning(lengths, most, positions))
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
                f"{len(references):,} test references lose letters or accents, which scores do not show; take a "
                "tokenizer that keeps them",
                len(lossy),
            )
        )
    return found


def cut_warning(lengths: NDArray[np.int64], most: int, positions: int, candidate: str | None = None) -> StudyWarning:
    """The warning that some test references have more subwords than a translation may have.

    Args:
        lengths: The subwords of each reference, with the end mark.
        most: The most subwords of a translation.
        positions: The model's positions.
        candidate: The candidate whose tokenizer cuts them so; None for the baseline's.
    """
    cut, longest = int((lengths > most).sum()), int(lengths.max())
    remedy = f"set decode.max_tokens to {longest}" if longest <= positions else "the model has no more positions"
    where = "" if candidate is None else f"{candidate}: "
    return StudyWarning(
        "cut-translations",
        f"{where}{cut:,} of {len(lengths):,} test references have more than the {most} subwords at which translations "
        f"are cut off; {remedy}",
        cut,
    )


def _lossy_warning(
    references: Sequence[str], encoded: Sentences, tokenizer: TranslationTokenizer, metric: Metric, scoring: Scoring
) -> StudyWarning | None:
    """A warning where the references, encoded and decoded again, score clearly below a perfect translation."""
    rows = np.unique(np.linspace(0, len(references) - 1, MOST_DECODED).astype(int)).tolist()
    known = tuple(references[row] for row in rows)
    written = tuple(tokenizer.decode([_to_end(encoded[row].tolist(), tokenizer.eos_id) for row in rows]))
    answers = Translations(known, known, written, scoring)
    best, reached = (one.score(metric.key) for one in (_perfect(known, scoring), answers))
    if metric.scale * metric.sign * (best - reached) <= TOLERATED:
        return None
    worst = int((metric.sign * answers.sentence_scores(metric.key)).argmin())
    given, back = answers.scored.references[worst], answers.scored.hypotheses[worst]
    alike = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(given, back, strict=False)))
    shown, became = (side[max(0, alike - 20) : alike + 20] for side in (given, back))
    return StudyWarning(
        "lossy-tokenizer",
        f"the tokenizer does not reproduce texts: {shown!r} of a test reference becomes {became!r}, and a "
        f"perfect translation scores {metric.scale * reached:.1f} {metric.difference_unit}, not "
        f"{metric.scale * best:.0f}; take a tokenizer that reproduces them, or write the data as it does",
        sum(
            text.strip() != reference.strip()
            for text, reference in zip(answers.scored.hypotheses, answers.scored.references, strict=True)
        ),
    )


def _to_end(ids: list[int], end: int) -> list[int]:
    """The ids up to the first end mark, where a translation ends; some tokenizers begin with one."""
    return [*ids[:1], *takewhile(lambda token: token != end, ids[1:])]


def scoring_notes(scoring: Scoring, references: Sequence[str]) -> list[str]:
    """Notes where the scoring differs from the default.

    Args:
        scoring: How translations are scored.
        references: The target sentences of the test split.
    """
    notes = []
    if scoring.tokenize != "13a":
        counting = " and ".join(metric.name for metric in judging("texts") if metric.words)
        notes.append(f"{counting} counts words as sacreBLEU's tokenizer {scoring.tokenize} splits them")
    if scoring.lowercase:
        notes.append("translations are in lower case, and are scored without case")
    changed = sum(scoring.normalize(text) != text.strip() for text in references)
    if changed:
        notes.append(
            f"{changed:,} of {len(references):,} test references are scored in the form that the tokenizer gives them"
        )
    return notes
