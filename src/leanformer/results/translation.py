"""The parts of results.json that only studies of translators have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field

from leanformer.core.fields import Seed
from leanformer.results.metrics import AnswerKind
from leanformer.results.rows import Count, Interval, PartOfOne, Quality, Record, Row
from leanformer.results.schema import FORMS, Data, Results, Slice, Wording


class SeedScores(Record):
    """A score that is only shown: the mean over the seeds, and the score of each seed."""

    mean: PartOfOne
    per_seed: Annotated[list[PartOfOne], Field(min_length=1)]


class Scores(Record):
    """A model's scores in every metric of texts; later metrics are extra keys."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Quality | SeedScores] = Field(init=False)

    bleu: Quality
    chrf: Quality
    exact_match: SeedScores


class Signatures(Record):
    """sacreBLEU's signature of each score."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, str] = Field(init=False)

    bleu: str
    chrf: str


class Bootstrap(Record):
    """The paired bootstrap of one seed's two models."""

    seed: Seed
    difference: Interval
    p_value: PartOfOne


class LengthQuality(Record):
    """The score of test sentences whose source has ``low`` to ``high`` words."""

    low: Count
    high: Count | None
    sentences: Count
    score: float
    difference: float | None


class Example(Record):
    """A test sentence with the baseline's and the candidate's translations and their scores."""

    source: str
    reference: str
    baseline: str
    candidate: str
    baseline_score: float
    candidate_score: float


class TranslationRow(Row):
    """The results of one translator."""

    scores: Scores | None
    paired_bootstrap: list[Bootstrap]
    by_length: list[LengthQuality]
    examples: list[Example]
    # Always empty for translators; every file so far has these two keys.
    per_class: Annotated[list[Any], Field(max_length=0)]
    mcnemar: Annotated[list[Any], Field(max_length=0)]


class TextData(Data):
    """The sentence pairs."""

    source_language: str
    target_language: str


class Decode(Record):
    """How test sentences are translated."""

    beam: Count
    max_tokens: Count
    batch_tokens: Count


@FORMS.register("translation")
class TranslationResults(Results):
    """The results of a study of translators."""

    answers: ClassVar[AnswerKind] = "texts"
    wording: ClassVar[Wording] = Wording(
        example="sentence",
        slices="sentence length",
        slice="length",
        slice_column="words",
        slice_named="{} words",
        slices_across="the number of words of the source, and in brackets the number of such test sentences",
        slices_counted=True,
        learned="token accuracy",
        untouched="embeddings, the last norms",
        calls="A call translates one sentence, or a large batch of sentences, tokenization included; operations are "
        "those of one forward pass over source and translation.",
        writes=True,
    )

    task: Literal["translation"]
    data: TextData
    signatures: Signatures
    decode: Decode
    baseline: TranslationRow
    candidates: list[TranslationRow]

    @staticmethod
    def slices(row: Mapping[str, Any]) -> list[Slice]:
        return [
            Slice(_words(entry), entry["sentences"], entry["score"], entry["difference"]) for entry in row["by_length"]
        ]


def _words(entry: Mapping[str, Any]) -> str:
    return f"{entry['low']}+" if entry["high"] is None else f"{entry['low']}-{entry['high']}"
