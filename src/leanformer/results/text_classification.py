"""The parts of results.json that only studies of text classifiers have."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from leanformer.core.fields import Seed
from leanformer.results.classification import ClassData, ClassResults, ClassRow, wording_of_classes
from leanformer.results.rows import Count, Record
from leanformer.results.schema import FORMS, Wording


class Flipped(Record):
    """A test text that the baseline's and the candidate's models of one seed take for different classes."""

    text: str
    second_text: str | None
    """The other text of a pair."""
    correct: str
    baseline: str
    candidate: str


class Flips(Record):
    """The test texts of which the models of one seed, the first, get one right and the other wrong."""

    seed: Seed
    lost: Count
    """Those that the baseline alone gets right."""
    gained: Count
    """Those that the candidate alone gets right."""
    shown: list[Flipped]
    """Some of them: lost ones, then gained ones, those first in which the models differ most."""


class ClassTextRow(ClassRow):
    """The results of one text classifier."""

    flips: Flips | None
    """Null for the baseline."""


class ClassTextData(ClassData):
    """The texts."""

    pairs: bool
    """Whether an example is a pair of texts."""
    max_tokens: Annotated[Count, Field(ge=1)]
    """Longer texts are cut to so many subwords."""


@FORMS.register("text-classification")
class ClassTextResults(ClassResults):
    """The results of a study of text classifiers."""

    wording: ClassVar[Wording] = wording_of_classes(
        "text",
        "embeddings, the classifier",
        "A call classifies one text of median length, or a large batch of texts, which are encoded already.",
    )

    task: Literal["text-classification"]
    data: ClassTextData
    baseline: ClassTextRow
    candidates: list[ClassTextRow]
