"""The parts of results.json that only studies of image classifiers have."""

from __future__ import annotations

from typing import ClassVar, Literal

from leanformer.results.classification import ClassData, ClassResults, ClassRow, wording_of_classes
from leanformer.results.rows import Count
from leanformer.results.schema import FORMS, Wording


class ImageData(ClassData):
    """The images; older versions did not write the fields that are null."""

    channels: Count | None
    height: Count | None
    width: Count | None
    storage: str | None


@FORMS.register("image-classification")
class ImageResults(ClassResults):
    """The results of a study of image classifiers."""

    wording: ClassVar[Wording] = wording_of_classes("example", "embeddings, the last norm, the classifier")

    task: Literal["image-classification"]
    data: ImageData
    baseline: ClassRow
    candidates: list[ClassRow]
