"""The baseline of a study of text classifiers."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from leanformer.core.errors import LeanformerError, quoted
from leanformer.model.classifier_baseline import ClassifierBaseline
from leanformer.model.students import length_limits
from leanformer.model.text_classifier import TASK, check_reads_both_ways, longest_text, with_new_head


@dataclass(frozen=True)
class ReadingGeometry:
    """The texts that a classifier reads, and its classes.

    Args:
        vocabulary: Subwords, marks included.
        marks: The ids of the tokenizer's marks, by the keys of a configuration.
        positions: Most subwords of a text.
        classes: The names of the classes.
    """

    vocabulary: int
    marks: Mapping[str, int]
    positions: int
    classes: tuple[str, ...]


class TextClassifierBaseline(ClassifierBaseline):
    """The baseline of a study of text classifiers; see ``Baseline``.

    Args:
        source: As there; with ``new_head`` any trained encoder of texts.
        settings: As there.
        fresh: As there.
        new_head: Whether a trained model's head is replaced by one for the data's classes.

    Attributes:
        new_parameters: The names of the parameters that begin with random weights in a model that is trained already.
    """

    def __init__(self, source: str, settings: Mapping[str, Any], fresh: bool, new_head: bool = False) -> None:
        self.new_head = new_head
        self.new_parameters: frozenset[str] = frozenset()
        self._body: PreTrainedModel | None = None
        super().__init__(source, settings, fresh, TASK)
        if new_head and self.trained is None:
            raise LeanformerError(
                f"baseline.head: a fresh {source} has a new head anyway; leave the key out, or take a trained model"
            )

    def _prepared(self, trained: PreTrainedModel) -> PreTrainedModel:
        if not self.new_head:
            return trained
        with torch.random.fork_rng(devices=[]):  # of a head that is replaced when the data's classes are known
            model, self.new_parameters = with_new_head(trained, ("0", "1"), self.source)
        self._body = trained
        return model

    def _hint(self) -> str:
        reads = self.trained is not None and self.trained.main_input_name == "input_ids"
        encodes = reads and not getattr(self.trained.config, "is_encoder_decoder", False)  # type: ignore[union-attr]
        return "; or give an encoder a head for the data's classes: baseline.head: new" if encodes else ""

    def check(self, geometry: ReadingGeometry) -> None:
        """Checks that the model fits its tokenizer and the data.

        Raises:
            LeanformerError: It does not; the message names both sides.
        """
        for key, mine in geometry.marks.items():
            if self.settings.get(key, mine) != mine:
                raise LeanformerError(
                    f"baseline.config: {key} is {quoted(self.settings[key])}, and the tokenizer of the data says "
                    f"{mine}; leave it out"
                )
        outline = self.outline(geometry)
        config = outline.config
        check_reads_both_ways(outline, self.source)
        self.check_classes(config, geometry.classes)
        words = getattr(config, "vocab_size", None)
        if not isinstance(words, int) or geometry.vocabulary > words:
            raise LeanformerError(
                f"baseline.model: the tokenizer of {self.source} has {geometry.vocabulary:,} subwords, the model "
                f"{words if words is None else f'{words:,}'}; they do not belong together"
            )
        padding = getattr(config, "pad_token_id", None)
        if padding is not None and padding != geometry.marks["pad_token_id"]:
            raise LeanformerError(
                f"baseline.model: pad_token_id is {geometry.marks['pad_token_id']} in the tokenizer of {self.source} "
                f"and {padding} in the model; they do not belong together"
            )
        limits = (longest_text(outline, self.family), length_limits(outline)[0])
        most = min((limit for limit in limits if limit is not None), default=None)
        if most is not None and geometry.positions > most:
            raise LeanformerError(
                f"data.max_tokens: {geometry.positions} subwords, but the model has {most} positions; set "
                "data.max_tokens to that or less"
            )

    def make(self, geometry: ReadingGeometry, seed: int) -> PreTrainedModel:
        """The baseline as a trial starts with it."""
        if self.new_head and not self.fresh:
            assert self._body is not None
            torch.manual_seed(seed)  # of the head; see ``_make``
            return with_new_head(self._body, geometry.classes, self.source)[0]
        return self._make(seed, self._fitted(geometry))

    def outline(self, geometry: ReadingGeometry) -> PreTrainedModel:
        """The baseline without its weights, on the device "meta": where only its structure matters."""
        return self._outline(self._fitted(geometry))

    def _fitted(self, geometry: ReadingGeometry) -> dict[str, Any]:
        """The settings of a fresh model that follow from the data; a trained one gets the names of its classes."""
        labels = dict(enumerate(geometry.classes))
        names = {int(number): name for number, name in self.settings.get("id2label", labels).items()}
        if self.trained is not None and (self.new_head or self.trained.config.num_labels == len(labels)):
            # Whatever the old head called them, the shipped model answers with the data's classes.
            self.trained.config.id2label = labels
            self.trained.config.label2id = {name: number for number, name in labels.items()}
        known = inspect.signature(self.family.config_class).parameters
        settings: dict[str, Any] = {key: mark for key, mark in geometry.marks.items() if key in known}
        if self.trained is None:
            most = self.family.max_positions(self.family.config_class())
            if most is not None and geometry.positions > most:
                settings["max_position_embeddings"] = geometry.positions + geometry.marks["pad_token_id"] + 1
        return {
            "vocab_size": geometry.vocabulary,
            **settings,
            "id2label": labels,
            "label2id": {name: number for number, name in names.items()},
        }
