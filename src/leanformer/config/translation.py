"""The study file of translation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from leanformer.config.base import (
    STUDIES,
    AcceptConfig,
    BaselineConfig,
    Calls,
    DataConfig,
    MeasureConfig,
    Rates,
    Study,
    TrainConfig,
)
from leanformer.config.subwords import SubwordsConfig
from leanformer.core.fields import (
    Batch,
    Beam,
    Count,
    Fraction,
    Language,
    Length,
    Name,
    Prefix,
    Section,
    Text,
    no_repeats,
)
from leanformer.results.metrics import AnswerKind, judging


class TokenizerConfig(SubwordsConfig):
    """The subword tokenizer of a translator."""

    shared: bool = True
    """One vocabulary for both languages, or one for each (of at most ``vocabulary`` subwords). Where ``lowercase`` is
    set, scores ignore case too, and their signatures say so."""


class NumberWordsConfig(Section):
    """The built-in text: numbers written out in two languages, by ``num2words``."""

    kinds: Annotated[
        tuple[Literal["cardinal", "ordinal", "year", "currency"], ...],
        Field(min_length=1),
        AfterValidator(no_repeats("kinds")),
    ] = ("cardinal",)
    largest: Annotated[int, Field(ge=100, le=10**12)] = 1_000_000
    """Numbers are drawn from 0 to this one, short numbers as often as long ones."""
    train: Batch = 20_000
    validation: Batch = 500
    test: Batch = 1_000
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] = "EUR"
    """The currency of the ``currency`` kind, whose numbers count hundredths of it."""


class TextDataConfig(DataConfig):
    """Where the sentence pairs come from, and how they are prepared."""

    built_in: ClassVar[str] = "number-words"
    keys_of_files: ClassVar[tuple[str, ...]] = ("source_language", "target_language", "group", "max_tokens")
    keys_of_built_in: ClassVar[tuple[str, ...]] = ("source_language", "target_language", "numbers", "max_tokens")

    source: Text = built_in
    """``number-words`` (built in), a hub data set's id, a directory (its local copy, or an IWSLT 2017 archive as
    published), one file of pairs (.tsv, .csv, .tmx, .jsonl, .parquet), or, with two aligned plain files a split, the
    path up to the language, such as ``corpus/train`` for ``corpus/train.de`` and ``corpus/train.en``."""
    subset: Name | None = None
    """The hub data set's configuration name, where it has several."""
    source_language: Language = "de"
    target_language: Language = "en"
    """Language codes; also the names of the columns, of the files' endings, or of the columns in ``translation``."""
    group: Name | None = None
    """What says which sentences depend on each other, such as those of one document: a column of a table, the ending of
    a third aligned plain file, the type of a property in a translation memory, or ``talk`` in an IWSLT archive. Splits
    keep groups whole, and intervals count groups. By default each pair is a group of its own."""
    language_codes: dict[Language, Text] = Field(default_factory=dict)
    """Language -> the code by which the tokenizer of a trained model of many languages knows it, where the two differ
    by more than a script or region: ``{sq: als_Latn}``."""
    prefix: Prefix | None = None
    """What stands before each source sentence, such as ``"translate German to English: "``; by default what a trained
    model's configuration says for the two languages, else nothing."""
    numbers: NumberWordsConfig = NumberWordsConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    max_tokens: Length = 128
    """Sentences with more subwords, the end mark included, are left out of training and counted."""
    validation_fraction: Fraction = 0.05
    """Fraction of the training sentences set aside for validation where the data have no such split."""
    test_fraction: Fraction = 0.1
    """Fraction of all source sentences set aside, with their translations, for testing where the data have no such
    split."""
    train_limit: Count | None = None
    """Use at most this many training pairs (a seeded choice), validation pairs not counted."""
    validation_limit: Count | None = None
    test_limit: Count | None = None

    def file_endings(self) -> tuple[str, ...]:
        return self.source_language, self.target_language

    def without_effect(self) -> Iterator[tuple[str, str]]:
        yield from super().without_effect()
        if self.source == self.built_in:
            for key in ("subset", "group"):
                if getattr(self, key) is not None:
                    yield f"data.{key}", f"{self.built_in} is built in and has none"
            for key in ("validation_fraction", "test_fraction"):
                if getattr(self, key) != type(self).model_fields[key].default:
                    yield f"data.{key}", f"{self.built_in} has splits of its own; data.numbers sets their sizes"
        elif self.numbers != NumberWordsConfig():
            yield "data.numbers", f"the source is not {self.built_in}"
        if self.numbers.currency != "EUR" and "currency" not in self.numbers.kinds:
            yield "data.numbers.currency", "currency is not among the kinds"


class TranslationTrainConfig(TrainConfig):
    """How translators learn."""

    batches_differ_in_shape: ClassVar[bool] = True

    batch_tokens: Batch = 4096
    """Most subwords in a batch, padding included, on the longer side; sentences of similar length share a batch."""
    learning_rate: Rates = (1e-3,)
    betas: tuple[Fraction, Fraction] = (0.9, 0.98)
    label_smoothing: Fraction = 0.1


Tokenizer = Literal["auto", "13a", "intl", "zh", "ja-mecab", "ko-mecab", "char", "flores101", "flores200", "none"]
"""sacreBLEU's name of a tokenizer; ``auto``: one that suits the language."""


class TranslationAcceptConfig(AcceptConfig):
    """How much quality a translator may lose."""

    answers: ClassVar[AnswerKind] = "texts"

    metric: str = judging(answers)[0].key

    tokenize: Tokenizer = "auto"
    """sacreBLEU's tokenizer, for metrics that count words; ``auto``: what suits the target language."""


class DecodeConfig(Section):
    """How test sentences are translated."""

    beam: Beam = 1
    """1 is greedy."""
    max_tokens: Length | None = None
    """Longest translation, in subwords; by default ``data.max_tokens``, or less where the model's blocks take less."""
    batch_tokens: Batch = 4096


class TranslationMeasureConfig(MeasureConfig):
    """How a translator's cost is measured: a call is the translation of one sentence, or of a batch of them."""

    latency_calls: Calls = 4
    throughput_batch: Batch = 32


@STUDIES.register("translation")
class TranslationStudy(Study):
    """A study of translators."""

    writes: ClassVar[bool] = True

    task: Literal["translation"] = "translation"
    data: TextDataConfig = TextDataConfig()
    baseline: BaselineConfig = BaselineConfig(
        model="marian",
        config={
            "d_model": 128,
            "encoder_layers": 3,
            "decoder_layers": 3,
            "encoder_attention_heads": 8,
            "decoder_attention_heads": 8,
            "encoder_ffn_dim": 512,
            "decoder_ffn_dim": 512,
        },
    )
    train: TranslationTrainConfig = TranslationTrainConfig()
    accept: TranslationAcceptConfig = TranslationAcceptConfig()
    decode: DecodeConfig = DecodeConfig()
    measure: TranslationMeasureConfig = TranslationMeasureConfig()

    @model_validator(mode="after")
    def _the_engine_has_a_beam(self) -> TranslationStudy:
        engines = {*self.runtimes, *([self.ship.to] if self.ship else [])}
        if self.decode.beam > 1 and "onnx" in engines:
            raise ValueError(
                f"decode.beam {self.decode.beam}: a translator that is exported to onnx searches greedily; set "
                "decode.beam to 1, or take ctranslate2"
            )
        return self

    @classmethod
    def for_inspection(cls, longest: int | None) -> dict[str, dict[str, Any]]:
        most = cls.model_fields["data"].default.max_tokens
        sections = super().for_inspection(longest)
        limits = {"validation_limit": 500, "test_limit": 1, "max_tokens": min(most, longest or most)}
        return {**sections, "data": {**sections["data"], **limits}, "train": {"batch_tokens": 1024}}
