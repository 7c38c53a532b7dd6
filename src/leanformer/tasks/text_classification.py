"""Text classification."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from leanformer.config.subwords import SubwordsConfig
from leanformer.config.text_classification import ClassTextStudy
from leanformer.core.errors import LeanformerError
from leanformer.core.warning import StudyWarning
from leanformer.data.classifier_tokenizers import ClassifierTokenizer
from leanformer.data.corruptions import TEXTS
from leanformer.data.labelled_text_batches import EncodedTexts, LabelledTextBatches, encode_labelled
from leanformer.data.labelled_texts import LabelledTexts, load_labelled_texts, load_tested_texts
from leanformer.data.text_batches import Rows
from leanformer.learn.losses import Batch, inputs_of
from leanformer.measure.cost import Exported, Subject
from leanformer.measure.quality import Predictions
from leanformer.model.surgery import ResolvedPlan
from leanformer.model.text_classifier import longest_text, reads_types
from leanformer.model.text_classifier_baseline import ReadingGeometry, TextClassifierBaseline
from leanformer.tasks.base import TASKS, MakeStep, Outcome, SplitName
from leanformer.tasks.classification import Classification, Predicts
from leanformer.tasks.flipped_texts import flipped

MANY_CUT = 0.1
"""The share of a split's texts beyond which it is a warning that they are cut."""


@dataclass(frozen=True)
class _Labelled:
    """The encoded splits; see ``LabelledData``."""

    train: EncodedTexts
    validation: EncodedTexts
    test: EncodedTexts
    classes: tuple[str, ...]
    test_groups: tuple[str, ...] | None
    test_rows: NDArray[np.int64] | None


@TASKS.register("text-classification")
class TextClassification(Classification):
    """A study of text classifiers; see ``Task``.

    Args:
        study: The study.
        device: Where models are trained.
        all_tested: Whether all data are for testing a trained baseline.

    Raises:
        LeanformerError: Data, tokenizer or baseline are wrong, or do not fit together.
    """

    batch_key = answer_key = "train.batch_tokens"
    noun = "text"
    batches: LabelledTextBatches

    def __init__(self, study: ClassTextStudy, device: torch.device, all_tested: bool = False) -> None:
        self.study: ClassTextStudy = study
        self.device = device
        self.batch = f"{study.train.batch_tokens} subwords"
        config, given = study.data, study.baseline
        baseline = TextClassifierBaseline(given.model, given.config, given.fresh, given.head == "new")
        self._baseline = baseline
        if all_tested:
            assert baseline.head is not None  # of a trained model
            self.data = load_tested_texts(config, baseline.head)
        else:
            self.data = load_labelled_texts(config, baseline.head)
        if baseline.trained is None:
            texts = [text for side in self.data.train.sides for text in side]
            self.tokenizer = ClassifierTokenizer.trained(config.tokenizer, texts)
        else:
            self.tokenizer = ClassifierTokenizer.load(given.model)
        fewest = self.tokenizer.added(self.data.pairs) + 1 + self.data.pairs
        if config.max_tokens < fewest:
            raise LeanformerError(
                f"data.max_tokens: {config.max_tokens} leaves no subword of a text beside the marks; set it to "
                f"{fewest} or more"
            )
        self._geometry = ReadingGeometry(
            self.tokenizer.vocabulary, self.tokenizer.marks, config.max_tokens, self.data.classes
        )
        baseline.check(self._geometry)
        self._encoded = _Labelled(
            train=self._encode(self.data.train),
            validation=self._encode(self.data.validation),
            test=self._encode(self.data.test),
            classes=self.data.classes,
            test_groups=self.data.test.groups,
            test_rows=self.data.test_rows,
        )
        self.batches = self._batches(self._encoded.train, 1)
        cut: dict[str, EncodedTexts] = {role: self._split(role) for role in SPLITS if role == "test" or not all_tested}
        self.notes = [
            *self.data.notes,
            *baseline.notes,
            f"tokenizer: {self.tokenizer.vocabulary:,} subwords",
            *(
                f"{role}: {texts.cut:,} texts cut to {config.max_tokens} subwords"
                for role, texts in cut.items()
                if texts.cut
            ),
        ]
        self.warnings = [*self.data.warnings, *self._cut_warnings(cut)]
        self._settle_scoring()

    def _encode(self, texts: LabelledTexts) -> EncodedTexts:
        types = self.data.pairs and reads_types(self.baseline_outline)
        return encode_labelled(texts, self.tokenizer, self.study.data.max_tokens, types, self.device)

    def _batches(self, train: EncodedTexts, multiple: int) -> LabelledTextBatches:
        return LabelledTextBatches(train, self.study.train.batch_tokens * multiple, self.tokenizer.pad_id, self.device)

    def _cut_warnings(self, splits: Mapping[str, EncodedTexts]) -> list[StudyWarning]:
        most = self.study.data.max_tokens
        longest = longest_text(self.baseline_outline, self._baseline.family)
        remedy = "give a larger data.max_tokens" if longest is None or longest > most else "the model reads no more"
        return [
            StudyWarning(
                "texts-cut",
                f"{role}: {texts.cut:,} of {len(texts):,} texts are longer than data.max_tokens ({most}), and only "
                f"their beginnings are read; {remedy}",
                texts.cut,
            )
            for role, texts in splits.items()
            if texts.cut > MANY_CUT * len(texts)
        ]

    # Data and models

    @property
    def labelled(self) -> _Labelled:
        return self._encoded

    def _predicted(self, split: SplitName, predicts: Predicts) -> Predictions:
        texts = self._split(split)
        rows = np.concatenate(self.batches.evaluation_rows(texts))
        return predicts(self.batches.evaluation(texts)).select(np.argsort(rows))

    def _head(self, model: PreTrainedModel) -> Sequence[str]:
        there = {name for name, _ in model.named_parameters()}
        return sorted(self._baseline.new_parameters & there)

    def make_baseline(self, seed: int) -> PreTrainedModel:
        return self._baseline.make(self._geometry, seed)

    @cached_property
    def baseline_outline(self) -> PreTrainedModel:
        return self._baseline.outline(self._geometry)

    def check_keys(self) -> None:
        if self._baseline.trained is not None and self.study.data.tokenizer != SubwordsConfig():
            raise LeanformerError(
                f"data.tokenizer does nothing here: {self.study.baseline.model} has its own tokenizer; leave the "
                "section out"
            )
        if self.study.measure.from_ is not None:
            raise LeanformerError(
                "measure.from: leanformer bench does not time text classifiers; leave it out to measure them here"
            )

    def check_plan(self, plan: ResolvedPlan, where: str) -> None:
        longest = max(int(texts.tokens.lengths.max(initial=0)) for texts in map(self._split, SPLITS))
        for name, entry in plan.items():
            limit = entry.get("max_length")
            if limit is not None and limit < longest:
                raise LeanformerError(
                    f"{where}: the texts have up to {longest} subwords, and the block at {name} reads {limit}; give it "
                    f"max_length {longest} or more, or set data.max_tokens to {limit}"
                )

    def _split(self, role: SplitName) -> EncodedTexts:
        found: EncodedTexts = getattr(self._encoded, role)
        return found

    def inputs(self, split: SplitName) -> list[str]:
        texts: LabelledTexts = getattr(self.data, split)
        return [hashlib.blake2b("\0".join(row).encode(), digest_size=16).hexdigest() for row in texts.rows()]

    def teaching_batches(self, multiple: int) -> LabelledTextBatches:
        return self._batches(self._told, multiple)

    def tuning_batches(self) -> LabelledTextBatches:
        return self.batches if not self.data.unlabelled else self._batches(self._told, 1)

    @cached_property
    def _told(self) -> EncodedTexts:
        """The training texts, and those without a class."""
        if not self.data.unlabelled:
            return self._encoded.train
        return self._encode(self.data.train.and_unlabelled(self.data.unlabelled))

    def validation_batches(self) -> Iterator[Batch]:
        return self.batches.evaluation(self._encoded.validation)

    def sentences(self) -> Mapping[str, Sequence[str]]:
        return {"test": self.data.test.texts, "validation": self.data.validation.texts}

    def samples(self, most: int) -> Iterator[Any]:
        for texts in (self.data.validation, self.data.train):
            count = min(most, len(texts))
            most -= count
            rows = texts.rows()
            yield from (rows[number * len(rows) // count] for number in range(count))

    def training_settings(self) -> dict[str, Any]:
        # The model's directory, not the study, determines the order of the classes.
        return {"classes": list(self.data.classes)} if self._baseline.keeps_weights else {}

    def save_companions(self, directory: Path) -> None:
        self.tokenizer.save(directory, self.study.data.max_tokens)

    def summary(self) -> dict[str, Any]:
        data = self.data
        return {
            "source": self.study.data.source,
            "train": len(data.train),
            "validation": len(data.validation),
            "test": len(data.test),
            "unlabelled": len(data.unlabelled),
            "groups": None if self.test_groups is None else len(np.unique(self.test_groups)),
            "classes": list(data.classes),
            "pairs": data.pairs,
            "max_tokens": self.study.data.max_tokens,
            "notes": list(self.notes),
        }

    # Measuring

    def example(self) -> Batch:
        median = int(np.median(self._encoded.test.tokens.lengths))
        return {
            "input_ids": torch.full((1, median), self.tokenizer.vocabulary - 1),
            "attention_mask": torch.ones(1, median, dtype=torch.long),
        }

    def subject(self, model: PreTrainedModel, make_step: MakeStep) -> Subject:
        one, many = self._timed()

        def call_one() -> int:
            model(**one)
            return 0

        def call_batch() -> tuple[int, int]:
            for batch in many:
                model(**batch)
            return self.study.measure.throughput_batch, 0

        return Subject(
            model=model,
            make_step=lambda: make_step(model),
            training=lambda: self.batches.training(seed=0, epoch=0),
            call_one=call_one,
            call_batch=call_batch,
        )

    def _timed(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """What is classified while a model is timed: a text of median length, and texts that are spread over the test
        split, those of similar length together."""
        test = self._encoded.test
        lengths = test.tokens.lengths
        median: Rows = np.argsort(lengths, kind="stable")[len(lengths) // 2 :][:1]
        spread = np.arange(self.study.measure.throughput_batch) * len(test) // self.study.measure.throughput_batch
        order = spread[np.argsort(lengths[spread], kind="stable")]
        fitting = max(1, self.study.train.batch_tokens // int(lengths[spread].max()))
        parts = [order[start : start + fitting] for start in range(0, len(order), fitting)]
        one, *many = (inputs_of(batch) for batch in self.batches.chosen(test, [median, *parts]))
        return one, many

    @cached_property
    def _corrupted(self) -> dict[str, LabelledTexts]:
        """Corruption -> the corrupted test split, where it changes any text."""
        clean = self.data.test
        found = {}
        for name, corruption in TEXTS.items():
            texts, *seconds = (
                tuple(corruption(text, number) for number, text in enumerate(side)) for side in clean.sides
            )
            changed = replace(clean, texts=texts, seconds=seconds[0] if seconds else None)
            if changed.sides != clean.sides:
                found[name] = changed
        return found

    @property
    def corruptions(self) -> Mapping[str, str]:
        return {name: TEXTS[name].meaning for name in self._corrupted}

    def corrupted(self, name: str) -> TextClassification:
        task = copy.copy(self)
        task.data = replace(self.data, test=self._corrupted[name])
        task._encoded = replace(self._encoded, test=self._encode(self._corrupted[name]))
        return task

    # Exported models

    def check_export(self) -> None:
        raise LeanformerError("text classifiers are not exported yet; leave ship out, and measure them in torch")

    def evaluate_exported(self, model: Any) -> Predictions:
        raise NotImplementedError

    def exported(self, directory: Path, model: Any) -> Exported:
        raise NotImplementedError

    # Deciding

    def details(self, outcome: Outcome, baseline: Outcome | None) -> dict[str, Any]:
        told = None
        if baseline is not None and baseline is not outcome and self.folds is None:
            told = flipped(self.data.test, self.data.classes, outcome, baseline)
        return {**super().details(outcome, baseline), "flips": told}


SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")
