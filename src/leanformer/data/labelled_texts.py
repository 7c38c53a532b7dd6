"""Labelled texts, or pairs of texts, and which of them are for training, for validation and for testing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from leanformer.config.text_classification import ClassTextDataConfig
from leanformer.core.errors import LeanformerError, quoted
from leanformer.core.warning import StudyWarning
from leanformer.data.folds import Rows
from leanformer.data.groups import column_groups, shared_groups
from leanformer.data.hub import SourceSplit, joined
from leanformer.data.labelled_text_sources import Columns, find_columns, open_texts
from leanformer.data.labels import Labels, match_head, number_as, read_labels
from leanformer.data.splits import make_splits, name_splits, untrained_classes
from leanformer.data.text_checks import folded, present
from leanformer.data.text_tables import text_column
from leanformer.data.unlabelled import NO_LABEL, read_sentences

FEWEST_TO_DOUBT = 20
"""Training examples from which labels that hardly repeat are taken for a mistake."""


@dataclass(frozen=True)
class LabelledTexts:
    """Texts, or pairs of texts, with their classes.

    Args:
        texts: The texts.
        seconds: The other text of each pair; None where there are no pairs.
        labels: (n,) int64 class numbers.
        groups: The name of each one's group; None where each stands for itself.
    """

    texts: tuple[str, ...]
    seconds: tuple[str, ...] | None
    labels: Rows
    groups: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.texts)

    def rows(self) -> list[tuple[str, ...]]:
        """The texts of each example: one, or two."""
        return list(zip(*self.sides, strict=True))

    @property
    def sides(self) -> tuple[tuple[str, ...], ...]:
        """The texts, and where there are pairs the other texts."""
        return (self.texts,) if self.seconds is None else (self.texts, self.seconds)

    def select(self, rows: Iterable[int]) -> LabelledTexts:
        """The examples of these rows, in their order."""
        rows = list(rows)
        texts, *seconds = (tuple(side[row] for row in rows) for side in self.sides)
        groups = None if self.groups is None else tuple(self.groups[row] for row in rows)
        return LabelledTexts(texts, seconds[0] if seconds else None, self.labels[rows], groups)

    def and_unlabelled(self, texts: Sequence[str]) -> LabelledTexts:
        """The examples, and after them texts without a class."""
        labels = np.concatenate((self.labels, np.full(len(texts), NO_LABEL)))
        return LabelledTexts((*self.texts, *texts), None, labels)


@dataclass(frozen=True)
class LabelledTextData:
    """The texts that classifiers learn from and are tested on.

    Args:
        classes: The names, in the order of the class numbers.
        notes: In words: what was found and set aside.
        warnings: What the reader of the results has to know of these texts.
        test_rows: (n,) the numbers of the test examples among all; None without cross-validation.
        unlabelled: Texts without a class.
    """

    train: LabelledTexts
    validation: LabelledTexts
    test: LabelledTexts
    classes: tuple[str, ...]
    notes: tuple[str, ...]
    warnings: tuple[StudyWarning, ...] = ()
    test_rows: NDArray[np.int64] | None = None
    unlabelled: tuple[str, ...] = ()

    @property
    def pairs(self) -> bool:
        """Whether an example is a pair of texts."""
        return self.train.seconds is not None


def load_labelled_texts(config: ClassTextDataConfig, head: tuple[str, Sequence[str]] | None = None) -> LabelledTextData:
    """The labelled texts of a source, divided; equal configurations and files give equal texts.

    Args:
        config: The study's ``data`` section.
        head: A trained model's source, and its classes in the order of its outputs; the data's are matched with them.

    Raises:
        LeanformerError: for a source that cannot be read or understood, and for examples that nothing can be learned
            from: see docs/text-classification.md for the cases.
    """
    # 1. Find the source, its splits and its columns.
    found = open_texts(config)
    roles = name_splits(list(found), config.source)
    unused = [name for name in found if name not in roles.values()]
    notes = [f"splits not used: {', '.join(unused)}"] if unused else []
    sources = {role: found[name] for role, name in roles.items()}
    columns = find_columns(sources["train"], config)
    notes.append(columns.in_words())

    # 2. Read texts, labels and groups, and divide the examples.
    labels = read_labels(sources, columns.label)
    _check_labels(sources["train"], labels, columns.label)
    texts = {role: _read_texts(split, columns, config) for role, split in sources.items()}
    groups = None
    if config.group is not None:
        groups = {role: np.array(_read_groups(split, columns, config), object) for role, split in sources.items()}
    splits, split_notes = make_splits(labels.numbers, config, groups)
    notes += split_notes
    if head is not None:  # after the split: a model must not change which examples are tested
        labels, head_note = match_head(labels, head[1], head[0])
        notes += [head_note] if head_note else []
    own = {}
    for role, split in splits.items():
        of_source = split.source_split
        own_groups = None if groups is None else tuple(groups[of_source])
        whole = LabelledTexts(*texts[of_source], labels.numbers[of_source], own_groups)
        own[role] = whole.select(split.rows.tolist())
    for role in ("train", "validation", "test"):
        of_groups = "" if groups is None else f" in {len(set(own[role].groups or ())):,} groups"
        notes.append(f"{role}: {len(own[role]):,} {'pairs' if columns.second else 'texts'}{of_groups}")

    # 3. Look for what makes results misleading.
    unlabelled = _read_unlabelled(config, columns)
    if unlabelled:
        notes.append(f"{len(unlabelled):,} texts without a class, for students to learn what their teacher answers")
    # In a study of all folds the tested texts are the training texts too; the studies of the folds look at them.
    apart = {role: own[role] for role in own if role != "test" or not config.is_cross_validated}
    held_out = {role: part for role, part in apart.items() if role != "train"}
    warnings = [
        *labels.warnings,
        *untrained_classes(labels, splits, "data.train_limit" if groups is None else "the division"),
        *present(
            [
                *(_leak(own["train"].rows(), held_out[role], role, "the training split") for role in held_out),
                *(
                    _leak([(text,) for text in unlabelled], held_out[role], role, "data.unlabelled")
                    for role in held_out
                ),
                _two_classes(own["train"], labels.classes),
            ]
        ),
        *shared_groups({role: part.groups for role, part in apart.items() if part.groups is not None}),
    ]
    return LabelledTextData(
        own["train"],
        own["validation"],
        own["test"],
        labels.classes,
        tuple(notes),
        tuple(warnings),
        None if config.cross_validation is None else splits["test"].rows,
        unlabelled,
    )


def load_tested_texts(config: ClassTextDataConfig, head: tuple[str, Sequence[str]]) -> LabelledTextData:
    """All texts of a source, whatever its splits, to test a trained model on.

    Args:
        config: Where they are; nothing is divided or limited.
        head: The model's name, and its classes in the order of its outputs, by which the data's are numbered.

    Returns:
        Data of which all three splits are the same texts.

    Raises:
        LeanformerError: for a source that cannot be read, and a class that the model does not know.
    """
    source = joined(open_texts(config))
    if not len(source.examples):
        raise LeanformerError(f"data.source {config.source}: holds no examples; give labelled texts")
    columns = find_columns(source, config)
    labels = read_labels({"train": source}, columns.label)
    labels = number_as(labels, head[1], head[0], lambda row: source.place(row, columns.label))
    groups = None if config.group is None else tuple(_read_groups(source, columns, config))
    texts = LabelledTexts(*_read_texts(source, columns, config), labels.numbers["train"], groups)
    return LabelledTextData(texts, texts, texts, labels.classes, (columns.in_words(),))


def _check_labels(train: SourceSplit, labels: Labels, column: str) -> None:
    """Refuses a column whose values hardly repeat: it holds texts or numbers of examples, and no classes."""
    count, classes = len(labels.numbers["train"]), len(np.unique(labels.numbers["train"]))
    if count >= FEWEST_TO_DOUBT and 2 * classes > count:
        raise LeanformerError(
            f"data.label: column {column!r} of {train.source} has {classes:,} classes for {count:,} training examples, "
            "which are too few of each; name the column of labels"
        )


def _read_texts(
    split: SourceSplit, columns: Columns, config: ClassTextDataConfig
) -> tuple[tuple[str, ...], tuple[str, ...] | None]:
    """The texts of a split without outer white space, and the other texts of pairs.

    Raises:
        LeanformerError: A column is missing or holds no texts, or a text is empty.
    """
    found = []
    for column, key in zip(columns.texts, ("data.text", "data.second_text"), strict=False):
        if column not in split.examples.features:
            raise LeanformerError(f"{key}: no column {column!r} in {split.source}, split {split.name}; add it")
        texts = tuple(map(str.strip, text_column(split, column, key)))
        if "" in texts:
            row = texts.index("")
            count = texts.count("")
            raise LeanformerError(
                f"{split.place(row, column)}: the text is empty ({count:,} of {len(texts):,} are); fill it in or "
                "remove the row"
            )
        found.append(texts)
    return found[0], found[1] if len(found) > 1 else None


def _read_groups(split: SourceSplit, columns: Columns, config: ClassTextDataConfig) -> list[str]:
    assert config.group is not None
    if config.group == columns.label:
        raise LeanformerError(
            f"data.group: column {columns.label!r} holds the classes; groups are texts that belong together, such as "
            "those of one author"
        )
    names = column_groups(split, config.group)
    found = [name for name in names if name is not None]
    if len(found) < len(names):
        place = split.place(names.index(None), config.group)
        raise LeanformerError(f"data.group: {place}: this text has no group; every text needs one")
    return found


def _read_unlabelled(config: ClassTextDataConfig, columns: Columns) -> tuple[str, ...]:
    if config.unlabelled is None:
        return ()
    if columns.second is not None:
        raise LeanformerError(
            "data.unlabelled: it holds a text on each line, and the examples are pairs of texts; leave it out"
        )
    return tuple(map(str.strip, read_sentences(config.unlabelled)))


def _leak(known: Iterable[tuple[str, ...]], held_out: LabelledTexts, role: str, where: str) -> StudyWarning | None:
    """The warning about texts of a held-out split that models are also trained on, but for case and spaces."""
    seen = {tuple(map(folded, row)) for row in known}
    count = sum(tuple(map(folded, row)) in seen for row in held_out.rows())
    if not count:
        return None
    return StudyWarning(
        "leaked-sentences",
        f"{role}: {count:,} of {len(held_out):,} texts are in {where} too; models score too well on what they learned "
        "from, so remove these texts there",
        count,
    )


def _two_classes(train: LabelledTexts, classes: Sequence[str]) -> StudyWarning | None:
    """The warning about training texts that are the same and have different classes."""
    found: dict[tuple[str, ...], set[int]] = defaultdict(set)
    for row, label in zip(train.rows(), train.labels.tolist(), strict=True):
        found[row].add(label)
    several = {row: labels for row, labels in found.items() if len(labels) > 1}
    if not several:
        return None
    row, labels = next(iter(several.items()))
    named = " and ".join(repr(classes[label]) for label in sorted(labels)[:2])
    return StudyWarning(
        "conflicting-labels",
        f"{len(several):,} training texts occur with different classes, such as {quoted(row[0])} with {named}; check "
        "their labels",
        len(several),
    )
