"""What a translator gives: its translations, sentence by sentence, and their scores by sacreBLEU."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import torch
from sacrebleu.metrics.chrf import CHRF
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig, PreTrainedModel

from leanformer.errors import LeanformerError
from leanformer.measure.scoring import Metric, Scoring
from leanformer.measure.tables import read_columns, to_parquet
from leanformer.model.students import length_limits


@dataclass(frozen=True)
class Translations:
    """A translator's answers, one entry a test sentence, as plain text (detokenised).

    Args:
        sources: What was translated.
        references: What a person made of it.
        hypotheses: What the model made of it.
        scoring: How these are scored. The texts are kept as they were written.

    Raises:
        ValueError: There is no sentence, or not one of each to every other.
    """

    sources: tuple[str, ...]
    references: tuple[str, ...]
    hypotheses: tuple[str, ...]
    scoring: Scoring = field(default=Scoring(), compare=False)

    def __post_init__(self) -> None:
        counts = (len(self.sources), len(self.references), len(self.hypotheses))
        if len(set(counts)) > 1 or not counts[0]:
            raise ValueError("{} sources, {} references and {} hypotheses".format(*counts))

    @property
    def bleu(self) -> float:
        """Corpus BLEU, 0 to 100 points (Papineni et al. 2002)."""
        return float(corpus_score("bleu", self.statistics("bleu").sum(axis=0)))

    @property
    def chrf(self) -> float:
        """Corpus chrF2, 0 to 100 points (Popović 2015)."""
        return float(corpus_score("chrf", self.statistics("chrf").sum(axis=0)))

    @property
    def exact(self) -> np.ndarray:
        """Whether each hypothesis is its reference, outer spaces aside, shape (sentences,), boolean."""
        pairs = zip(self.scored.hypotheses, self.scored.references, strict=True)
        return np.array([hypothesis.strip() == reference.strip() for hypothesis, reference in pairs])

    @property
    def exact_match(self) -> float:
        """Part of the hypotheses that are their references."""
        return float(self.exact.mean())

    @cached_property
    def scored(self) -> Translations:
        """The same, with references and hypotheses in the form in which they are scored."""
        references, hypotheses = (tuple(self.scoring.texts(side)) for side in (self.references, self.hypotheses))
        return Translations(self.sources, references, hypotheses, self.scoring)

    def statistics(self, metric: Metric) -> np.ndarray:
        """Counts a sentence, shape (sentences, counts); ``corpus_score`` of their sum is the corpus' score."""
        return self._statistics[metric]

    @cached_property
    def _statistics(self) -> dict[Metric, np.ndarray]:
        # sacreBLEU offers them to its own significance tests alone, hence the underscore.
        return {
            name: np.array(
                metric._extract_corpus_statistics(self.scored.hypotheses, [self.scored.references]), dtype=np.float64
            )
            for name, metric in self.scoring.metrics.items()
        }

    def sentence_scores(self, metric: Metric) -> np.ndarray:
        """Each sentence's own score, shape (sentences,), 0 to 100; BLEU of effective order, as sacreBLEU advises."""
        counts = self.statistics(metric)
        return _bleu(counts, effective_order=True) if metric == "bleu" else _chrf(counts)

    def table(self) -> pa.Table:
        """As a table with one row a sentence: example, source, reference, hypothesis, bleu, chrf."""
        return pa.table(
            {
                "example": np.arange(len(self.sources)),
                "source": self.sources,
                "reference": self.references,
                "hypothesis": self.hypotheses,
                "bleu": self.sentence_scores("bleu"),
                "chrf": self.sentence_scores("chrf"),
            }
        )

    def to_bytes(self) -> bytes:
        """The table as a parquet file's content."""
        return to_parquet(self.table())

    @classmethod
    def read(cls, path: Path, scoring: Scoring | None = None) -> Translations:
        """Reads a table back.

        Args:
            path: Where it lies.
            scoring: How its texts are scored now, whatever was so when it was written.

        Raises:
            LeanformerError: The file is missing or damaged.
        """
        columns = read_columns(path, ("source", "reference", "hypothesis"), "translations")
        sources, references, hypotheses = (tuple(column.to_pylist()) for column in columns)
        return cls(sources, references, hypotheses, scoring or Scoring())


def corpus_score(metric: Metric, sums: np.ndarray) -> np.ndarray:
    """sacreBLEU's corpus score of many corpora at once, such as a bootstrap's.

    Args:
        metric: Which score.
        sums: ``Translations.statistics`` summed over each corpus' sentences, shape (..., counts).

    Returns:
        Points from 0 to 100, shape (...).
    """
    return _bleu(sums) if metric == "bleu" else _chrf(sums)


def _bleu(sums: np.ndarray, effective_order: bool = False) -> np.ndarray:
    """BLEU with exponential smoothing (Chen and Cherry 2014, "A systematic comparison of smoothing techniques for
    sentence-level BLEU", WMT; their method 3).

    Args:
        sums: Lengths of hypothesis and reference, n-grams that match, n-grams of the hypothesis; shape (..., 10).
        effective_order: Leave out the orders that the hypothesis is too short for; otherwise they make the score 0.
    """
    length, reference_length = sums[..., 0], sums[..., 1]
    correct, total = np.split(sums[..., 2:], 2, axis=-1)  # (..., 4) each
    there = total > 0
    halvings = np.cumsum(correct == 0, axis=-1)  # the k-th order without a match counts as if 1 / 2^k matched
    with np.errstate(divide="ignore", invalid="ignore"):  # what has no length has no match: 0 in the last line
        brevity = np.exp(np.minimum(1 - reference_length / length, 0))
        logs = np.log(np.where(correct > 0, correct, 0.5**halvings) / total)
        if effective_order:
            mean_log = logs.sum(axis=-1, where=there) / there.sum(axis=-1)
        else:
            mean_log = np.where(there, logs, -np.inf).mean(axis=-1)
        return np.where(correct.any(axis=-1), 100 * brevity * np.exp(mean_log), 0.0)


def _chrf(sums: np.ndarray) -> np.ndarray:
    """chrF: the F score of mean precision and mean recall, over the n-gram orders that both texts have.

    Args:
        sums: N-grams of the hypothesis, of the reference, and those that match, an order; shape (..., 18).
    """
    hypothesis, reference, match = np.moveaxis(sums.reshape(*sums.shape[:-1], CHRF.CHAR_ORDER, 3), -1, 0)
    there = (hypothesis > 0) & (reference > 0)
    factor = CHRF.BETA**2
    with np.errstate(divide="ignore", invalid="ignore"):  # nothing in common: 0 in the last line
        precision = (match / hypothesis).sum(axis=-1, where=there) / there.sum(axis=-1)
        recall = (match / reference).sum(axis=-1, where=there) / there.sum(axis=-1)
        score = 100 * (1 + factor) * precision * recall / (factor * precision + recall)
    return np.where(match.any(axis=-1), score, 0.0)


class Tokenizer(Protocol):
    """What ``translate`` asks of a tokenizer."""

    pad_id: int
    eos_id: int

    def encode_source(self, texts: list[str]) -> list[list[int]]:
        """Sentences as the encoder reads them, the end mark included, not padded."""

    def decode(self, ids: list[list[int]]) -> list[str]:
        """Plain text of the decoder's tokens, special tokens already taken off."""


@dataclass(frozen=True)
class Translated:
    """What ``translate`` gives.

    Args:
        texts: One translation a sentence.
        tokens: Tokens that were generated for them in all, end marks included: what tokens a second are counted in.
    """

    texts: list[str]
    tokens: int


@torch.inference_mode()
def translate(
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    sentences: Sequence[str],
    *,
    beam: int = 1,
    max_tokens: int,
    batch_tokens: int,
    device: torch.device | str | None = None,
    progress: Callable[[int], object] | None = None,
) -> Translated:
    """Translates sentences by the model's own ``generate``, in batches of like length.

    Args:
        model: An encoder-decoder. Its training mode and its generation settings stay as they are; what the settings
            say beyond these arguments (a length penalty, say) holds.
        tokenizer: Its tokenizer.
        sentences: One a translation; an empty one gives an empty one.
        beam: Hypotheses kept a sentence; 1 is greedy.
        max_tokens: Longest translation in tokens, end mark included; no more than the model's positions, and than its
            blocks can read, in any case.
        batch_tokens: Most source tokens a batch, padding included and each hypothesis of the beam counted; a sentence
            with more goes alone.
        device: Where the inputs go; by default where the model is.
        progress: Called after each batch with the number of sentences that it has finished.

    Raises:
        LeanformerError: A sentence has more tokens than the model has positions, or than its blocks can read.
    """
    written = [number for number, text in enumerate(sentences) if text.strip()]
    encoded = tokenizer.encode_source([sentences[number] for number in written]) if written else []
    positions = model.config.max_position_embeddings
    source_limit, target_limit = most_tokens(model)
    for number, ids in zip(written, encoded, strict=True):
        if len(ids) > source_limit:
            raise LeanformerError(
                f"sentence {number + 1} has {len(ids)} tokens, and the model takes at most {source_limit} "
                f"({'its max_position_embeddings' if source_limit == positions else 'the max_length of its blocks'}); "
                "shorten or split it"
            )
    texts = [""] * len(sentences)
    if progress is not None and len(written) < len(sentences):
        progress(len(sentences) - len(written))
    settings = _settings(model, tokenizer, beam, min(max_tokens, target_limit))
    modes = {module: module.training for module in model.modules()}
    model.eval()
    tokens = 0
    try:
        for batch in _batches([len(ids) for ids in encoded], batch_tokens // beam):
            rows = [torch.tensor(encoded[index]) for index in batch]
            inputs = pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad_id)  # (batch, length)
            mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
            where = device or model.device
            generated = model.generate(inputs.to(where), attention_mask=mask.to(where), generation_config=settings)
            hypotheses = [_until(row[1:], tokenizer.eos_id) for row in generated.tolist()]  # without the start token
            tokens += sum(len(ids) for ids in hypotheses)
            decoded = tokenizer.decode([ids[:-1] if ids[-1] == tokenizer.eos_id else ids for ids in hypotheses])
            for index, text in zip(batch, decoded, strict=True):
                texts[written[index]] = text
            if progress is not None:
                progress(len(batch))
    finally:
        for module, training in modes.items():
            module.training = training
    return Translated(texts, tokens)


def most_tokens(model: PreTrainedModel) -> tuple[int, int]:
    """Most tokens of a source and of a target that a translator can read: its positions, or what its blocks can."""
    positions: int = model.config.max_position_embeddings
    source, target = (min(positions, limit or positions) for limit in length_limits(model))
    return source, target


def _settings(model: PreTrainedModel, tokenizer: Tokenizer, beam: int, max_tokens: int) -> GenerationConfig:
    """The model's generation settings, with what ``translate`` decides."""
    settings = copy.deepcopy(model.generation_config)
    settings.do_sample = False
    settings.num_beams = beam
    settings.pad_token_id = tokenizer.pad_id
    settings.eos_token_id = tokenizer.eos_id
    settings.forced_eos_token_id = tokenizer.eos_id  # fresh Marian configs force token 0, whatever that is
    settings.max_length = max_tokens + 1  # the start token counts
    if settings.max_new_tokens is not None:  # it would win; set for nothing, the two would warn of each other
        settings.max_new_tokens = max_tokens
    return settings


def _batches(lengths: Sequence[int], most_tokens: int) -> Iterator[list[int]]:
    """Indices in batches of at most so many tokens, padding included; the longest first, so that memory fails early."""
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    start = 0
    while start < len(order):
        size = max(1, most_tokens // lengths[order[start]])
        yield order[start : start + size]
        start += size


def _until(ids: list[int], eos: int) -> list[int]:
    """The ids up to and with the end mark."""
    return ids[: ids.index(eos) + 1] if eos in ids else ids
