"""The study file of text classification."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from leanformer.config.base import STUDIES, Calls, MeasureConfig
from leanformer.config.classification import (
    ClassAcceptConfig,
    ClassBaselineConfig,
    ClassDataConfig,
    ClassStudy,
    ClassTrainConfig,
)
from leanformer.config.subwords import SubwordsConfig
from leanformer.core.fields import Batch, Language, Length, Name, Section, Text, no_repeats


class NumberLanguagesConfig(Section):
    """The built-in texts: numbers written out in one of several languages, by ``num2words``; the class is which."""

    languages: Annotated[
        tuple[Language, ...], Field(min_length=2, max_length=40), AfterValidator(no_repeats("languages"))
    ] = ("da", "de", "en", "es", "fr", "it", "nl", "no", "pt", "sv")
    largest: Annotated[int, Field(ge=100, le=10**12)] = 1_000_000
    """Numbers are drawn from 0 to this one, short numbers as often as long ones."""
    train: Batch = 4_000
    validation: Batch = 500
    test: Batch = 2_000


class ClassTextDataConfig(ClassDataConfig):
    """Where the texts come from, and how they are read."""

    built_in: ClassVar[str] = "number-languages"
    keys_of_files: ClassVar[tuple[str, ...]] = ("text", "second_text", "label", "group", "max_tokens")
    keys_of_built_in: ClassVar[tuple[str, ...]] = ("numbers", "max_tokens")

    source: Text = built_in
    """``number-languages`` (built in), a hub data set's id, a directory (its local copy, or a .csv or .tsv file
    for each split), or one file (.csv, .tsv, .jsonl, .parquet)."""
    subset: Name | None = None
    """The hub data set's configuration name, where it has several."""
    text: Name | None = None
    """The column of texts; by default the one with a usual name, or the only one."""
    second_text: Name | None = None
    """The column of the other text of each pair; by default found where ``text`` is left out."""
    label: Name | None = None
    group: Name | None = None
    """A column that says which texts depend on each other, such as those of one author: splits keep groups whole, and
    intervals count groups. By default each text is a group of its own."""
    numbers: NumberLanguagesConfig = NumberLanguagesConfig()
    tokenizer: SubwordsConfig = SubwordsConfig()
    max_tokens: Length = 128
    """Texts are cut to so many subwords, marks included; of a pair the longer text is."""

    def without_effect(self) -> Iterator[tuple[str, str]]:
        yield from super().without_effect()
        if self.source == self.built_in:
            for key in ("subset", "text", "second_text", "label", "group"):
                if getattr(self, key) is not None:
                    yield f"data.{key}", f"{self.built_in} is built in and has none"
            for key in ("validation_fraction", "test_fraction"):
                if getattr(self, key) != type(self).model_fields[key].default:
                    yield f"data.{key}", f"{self.built_in} has splits of its own; data.numbers sets their sizes"
        elif self.numbers != NumberLanguagesConfig():
            yield "data.numbers", f"the source is not {self.built_in}"


class ClassTextTrainConfig(ClassTrainConfig):
    """How text classifiers learn."""

    batches_differ_in_shape: ClassVar[bool] = True

    batch_tokens: Batch = 2048
    """Most subwords in a batch, padding included; texts of similar length share a batch."""


class ClassTextMeasureConfig(MeasureConfig):
    """How a text classifier's cost is measured."""

    latency_calls: Calls = 20
    throughput_batch: Batch = 64


@STUDIES.register("text-classification")
class ClassTextStudy(ClassStudy):
    """A study of text classifiers."""

    task: Literal["text-classification"] = "text-classification"
    data: ClassTextDataConfig = ClassTextDataConfig()
    baseline: ClassBaselineConfig = ClassBaselineConfig(
        model="bert",
        config={"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 256},
    )
    train: ClassTextTrainConfig = ClassTextTrainConfig()
    accept: ClassAcceptConfig = ClassAcceptConfig()
    measure: ClassTextMeasureConfig = ClassTextMeasureConfig()

    @classmethod
    def for_inspection(cls, longest: int | None) -> dict[str, dict[str, Any]]:
        most = cls.model_fields["data"].default.max_tokens
        sections = super().for_inspection(longest)
        limits = {"test_limit": 2, "max_tokens": min(most, longest or most)}
        return {**sections, "data": {**sections["data"], **limits}, "train": {"batch_tokens": 1024}}
