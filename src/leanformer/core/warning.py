"""Warnings of a study: it can run, but its results may mislead.

A warning stands beside the decision: on the terminal, in ``results.json`` and in the report. What only informs (how
data were split, which columns were found) is a note, and what certainly makes a result wrong is an error.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from leanformer.core.errors import printable

CODES: dict[str, str] = {
    # images
    "conflicting-labels": "training examples that are the same have different classes",
    "constant-images": "images are of one color everywhere after decoding",
    "cut-colors": "images in color have 16 bits a channel, of which the upper 8 are read",
    "empty-class": "a class has no example",
    "head-renamed": "outputs of a trained model were trained for classes that the data lack",
    "leaked-images": "validation or test images are pixel for pixel in the training split",
    "near-duplicates": "validation or test images look like images of the training split",
    "nested-classes": "all class directories hold the same directories, which may be the classes",
    "several-frames": "image files have several frames, of which the first is read",
    "similar-labels": "class names differ only in blanks or case",
    "unknown-preprocessing": "a trained model does not say how its images are prepared",
    "unread-files": "files among the images were not read",
    "unread-table": "a table beside the images names none of them",
    # text
    "texts-cut": "many texts are longer than what models read of them",
    "leaked-sentences": "validation or test sentences or texts are in the training split too",
    "untranslated-pairs": "most pairs of a split have the same sentence on both sides",
    "pairs-left-out": "more than a tenth of a split's pairs were left out",
    "short-references": "most references have fewer words than the metric counts in a row",
    "small-test-split": "the test split has so few sentences that its intervals are too narrow",
    "cut-translations": "translations are cut off at fewer subwords than some references have",
    "unknown-letters": "the tokenizer does not know letters of many references, which no translation can reach",
    "lossy-tokenizer": "the tokenizer changes texts, so that a perfect translation scores below 99",
    "lossy-normalizer": "the tokenizer removes letters or accents, also from the references that are scored",
    # decisions
    "coarse-threshold": "fewer validation images choose a threshold than one false alarm takes",
    "changed-after-look": "margin, seeds or candidates were changed after results on the test split were seen",
    "another-test-split": "another test split was looked at in this run directory before",
    "looked-at-elsewhere": "the same test split was looked at in another run directory beside this one",
    "known-examples": "some of the new data of a confirmation are in the study's data too",
    "freshness-unknown": "the study's data cannot be read, so that new data were not compared with them",
    # groups
    "few-groups": "the test split has so few groups that its intervals are rough",
    "shared-groups": "groups have examples in two splits",
    # costs
    "noisy-machine": "times vary much from round to round, so that costs are uncertain",
    "other-sentences": "the times of measure.from were not measured with the study's sentences",
    # trainings
    "rate-at-edge": "the best learning rate of a model is the least or greatest of the list",
    "short-search": "learning rates were searched with less than half the epochs",
    "still-rising": "the validation quality of models still rose when their training ended",
    "weak-training": "all candidates are better than the baseline, which may be trained too little",
    # models
    "less-robust": "the recommended student loses more than the baseline on corrupted test examples",
}
"""Each warning's code -> what it says; docs/warnings.md has the same list with what to do."""


@dataclass(frozen=True)
class StudyWarning:
    """Something that the reader of a result has to know.

    Args:
        code: One of ``CODES``.
        sentence: What was found, where, and what to do, in one line of plain words.
        count: How many examples, files or sentences it is about.
    """

    code: str
    sentence: str
    count: int

    def __post_init__(self) -> None:
        if self.code not in CODES:
            raise ValueError(f"no warning has the code {self.code!r}; add it to CODES")

    def __str__(self) -> str:
        return f"warning: {printable(self.sentence)} [{self.code}]"

    def row(self) -> dict[str, object]:
        """As ``results.json`` has it."""
        return {"code": self.code, "sentence": printable(self.sentence), "count": self.count}


def rows(warnings: Iterable[StudyWarning]) -> list[dict[str, object]]:
    """Warnings as ``results.json`` has them."""
    return [warning.row() for warning in warnings]
