"""The study file of image classification."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, model_validator

from leanformer.config.base import STUDIES
from leanformer.config.classification import (
    ClassAcceptConfig,
    ClassBaselineConfig,
    ClassDataConfig,
    ClassStudy,
    ClassTrainConfig,
)
from leanformer.core.errors import quoted
from leanformer.core.fields import (
    OPERATIONAL,
    Batch,
    Deviation,
    Mean,
    Name,
    Pixels,
    Section,
    Text,
    Whole,
    no_repeats,
)


def _is_expression(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{quoted(pattern)} is no regular expression: {error}") from None
    return pattern


class ImageGroupConfig(Section):
    """What says which images belong together: a column, or a part of their files' names."""

    column: Name | None = None
    """A column of texts or whole numbers, such as a patient's number; ``group: patient`` is short for it."""
    pattern: Annotated[Text, AfterValidator(_is_expression)] | None = None
    """A regular expression, searched for in each image's path below the source: its first group in brackets, or all
    that it matches, is the group."""

    @model_validator(mode="after")
    def _says_one_thing(self) -> ImageGroupConfig:
        if (self.column is None) == (self.pattern is None):
            raise ValueError("give one of column and pattern")
        return self


class ImageDataConfig(ClassDataConfig):
    """Where the images come from, and how they are split."""

    built_in: ClassVar[str] = "digits"
    keys_of_files: ClassVar[tuple[str, ...]] = ("image_column", "label_column", "group", "channels", "storage")
    keys_of_built_in: ClassVar[tuple[str, ...]] = ("channels", "storage")

    source: Text = built_in
    """``digits`` (built in), a directory (parquet or ``root/class/*.png``), or a hub data set's id."""
    subset: Name | None = None
    """The hub data set's configuration name, where it has several."""
    image_column: Name | None = None
    label_column: Name | None = None
    group: Annotated[
        ImageGroupConfig | None, BeforeValidator(lambda value: {"column": value} if isinstance(value, str) else value)
    ] = None
    """Which images depend on each other, such as photos of one object: splits keep groups whole, and intervals count
    groups. By default each image is a group of its own."""
    channels: Annotated[Literal[1, 3] | None, Whole] = None
    """1 converts to grey, 3 to color; by default as the data are (grey stays grey)."""
    image_size: Pixels | tuple[Pixels, Pixels] | None = None
    """Pixels, or (height, width): resize to this. By default the images must share one size."""
    augment: Annotated[
        tuple[Literal["random_crop", "horizontal_flip", "random_erasing"], ...], AfterValidator(no_repeats("kinds"))
    ] = ()
    normalize: Literal["auto", "data"] | tuple[tuple[Mean, ...], tuple[Deviation, ...]] = "auto"
    """``data``: mean and deviation of the training images; ``auto``: the trained model's own where it has them,
    else ``data``; or ``[[mean, ...], [std, ...]]`` in pixel values from 0 to 1."""
    storage: Literal["auto", "memory", "stream"] = "auto"
    """``memory``: decoded once, kept on the device; ``stream``: decoded batch by batch from disk; ``auto``: memory
    where the decoded images take less than half of what is free."""
    duplicates: Annotated[Literal["exact", "near", "none"], OPERATIONAL] = "exact"
    """Which images are searched for in two splits: those that are pixel for pixel the same; also those that look alike;
    or none, which saves a pass over all images where they are streamed."""

    def without_effect(self) -> Iterator[tuple[str, str]]:
        yield from super().without_effect()
        if self.source == self.built_in:
            for key in ("subset", "image_column", "label_column", "group"):
                if getattr(self, key) is not None:
                    yield f"data.{key}", f"{self.built_in} is built in and has none"


class ImageTrainConfig(ClassTrainConfig):
    """How image classifiers learn."""

    batch_size: Batch = 256


@STUDIES.register("image-classification")
class ImageStudy(ClassStudy):
    """A study of image classifiers."""

    task: Literal["image-classification"] = "image-classification"
    data: ImageDataConfig = ImageDataConfig()
    baseline: ClassBaselineConfig = ClassBaselineConfig(model="vit")
    train: ImageTrainConfig = ImageTrainConfig()
    accept: ClassAcceptConfig = ClassAcceptConfig()

    @classmethod
    def for_inspection(cls, longest: int | None) -> dict[str, dict[str, Any]]:
        return {**super().for_inspection(longest), "train": {"batch_size": 64}}
