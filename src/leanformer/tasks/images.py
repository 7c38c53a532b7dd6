"""Image classification."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from leanformer.config.images import ImageStudy
from leanformer.core.errors import LeanformerError
from leanformer.core.files import write_atomically
from leanformer.core.warning import StudyWarning
from leanformer.data.corruptions import IMAGES
from leanformer.data.corruptions.images import CorruptedImages
from leanformer.data.image_batches import ImageBatches, JoinedSplit
from leanformer.data.image_files import Resizing
from leanformer.data.images import ImageData, ImageSplit, load_images, load_tested_images
from leanformer.data.preprocessing import Preprocessing, read_preprocessing, shipped_processor
from leanformer.learn.losses import Batch
from leanformer.measure.cost import Exported, Subject
from leanformer.measure.engine_memory import classifying_memory
from leanformer.measure.quality import Predictions, predict_with
from leanformer.model.heads import head_parameters
from leanformer.model.image_baseline import ImageBaseline, ImageGeometry
from leanformer.model.surgery import ResolvedPlan
from leanformer.runtime.classifier import Classifier
from leanformer.tasks.base import TASKS, MakeStep, SplitName
from leanformer.tasks.classification import Classification, Predicts

SAMPLES_AT_ONCE = 32  # images in memory
HASHED_AT_ONCE = 1000  # images of 8 bits in memory


@TASKS.register("image-classification")
class ImageClassification(Classification):
    """A study of image classifiers; see ``Task``.

    Args:
        study: The study.
        device: Where models are trained.
        all_tested: Whether all data are for testing a trained baseline.

    Raises:
        LeanformerError: Data or baseline are wrong, or do not fit together.
    """

    batch_key = answer_key = "train.batch_size"
    noun = "image"
    batches: ImageBatches

    def __init__(self, study: ImageStudy, device: torch.device, all_tested: bool = False) -> None:
        self.study: ImageStudy = study
        self.device = device
        self.batch = str(study.train.batch_size)
        baseline = study.baseline
        self._baseline = ImageBaseline(baseline.model, baseline.config, baseline.fresh, baseline.head == "new")
        self._preprocessing, preprocessing_notes, preprocessing_warnings = self._read_preprocessing()
        size, channels = self._baseline.image_size, self._baseline.channels
        if self._baseline.follows_images:
            size = size if self._preprocessing is None or self._preprocessing.resizing is None else None
        head = self._baseline.head
        self.data: ImageData
        if all_tested:
            assert head is not None  # of a trained model, which has channels too
            assert channels is not None
            self.data = load_tested_images(study.data, device, channels, self._preprocessing, size, head)
        else:
            self.data = load_images(study.data, device, size, channels, self._preprocessing, head)
        self.warnings = [*self.data.warnings, *preprocessing_warnings]
        self._geometry = ImageGeometry(self.data.channels, self.data.height, self.data.width, self.data.classes)
        self._baseline.check(self._geometry)
        self.notes = [*self.data.notes, *self._baseline.notes, *preprocessing_notes]
        mean, std = self._normalization()
        self.batches = ImageBatches(self.data, study.train.batch_size, study.data.augment, mean, std)
        self._settle_scoring()

    @property
    def labelled(self) -> ImageData:
        return self.data

    def _predicted(self, split: SplitName, predicts: Predicts) -> Predictions:
        return predicts(self.batches.evaluation(getattr(self.data, split)))

    def _head(self, model: PreTrainedModel) -> Sequence[str]:
        return sorted(head_parameters(model)) if self._baseline.new_head else ()

    def _read_preprocessing(self) -> tuple[Preprocessing | None, list[str], list[StudyWarning]]:
        """How a trained baseline's images are prepared, with notes and warnings about it."""
        data, source = self.study.data, self.study.baseline.model
        own_size, own_numbers = data.image_size is not None, data.normalize != "auto"
        if not self._baseline.keeps_weights or (own_size and own_numbers):
            return None, [], []
        found = read_preprocessing(
            source,
            self._baseline.family.name,
            None if self._baseline.follows_images else self._baseline.image_size,
            self._baseline.channels or 3,
            own_size,
            own_numbers,
        )
        if found is None and self._baseline.new_head:
            raise LeanformerError(
                f"baseline.model: {source} has no preprocessor_config.json, so that the preparation of its images is "
                "not known; put the file there, or set data.image_size and data.normalize"
            )
        if found is None:
            sentence = (
                f"{source} has no preprocessor_config.json, so that the preparation of its images is not known: they "
                "are resized bilinearly and normalized by the training images; put the file there, or set "
                "data.image_size and data.normalize"
            )
            return None, [], [StudyWarning("unknown-preprocessing", sentence, 1)]
        notes = [f"images are prepared as {source} says"]
        if own_size:
            notes = [f"data.image_size replaces the resizing that {source} describes: whole images are resized"]
        return found, notes, []

    def _normalization(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        wanted = self.study.data.normalize
        mean, std = (self.data.mean, self.data.std) if isinstance(wanted, str) else wanted
        if self._preprocessing is not None and self._preprocessing.mean and self._preprocessing.std:
            mean, std = self._preprocessing.mean, self._preprocessing.std
        if len(mean) != self.data.channels or len(std) != self.data.channels:
            raise LeanformerError(
                f"data.normalize: {len(mean)} means and {len(std)} deviations for images of {self.data.channels} "
                "channels; give one per channel"
            )
        return mean, std

    def make_baseline(self, seed: int) -> PreTrainedModel:
        return self._baseline.make(self._geometry, seed)

    @cached_property
    def baseline_outline(self) -> PreTrainedModel:
        return self._baseline.outline(self._geometry)

    def check_plan(self, plan: ResolvedPlan, where: str) -> None:
        grid = self._baseline.family.grid(self.baseline_outline)
        if grid is None:
            return
        tokens = grid[0] * grid[1]
        if plan.get("pooling", {}).get("block") != "mean":
            tokens += self._baseline.special_tokens
        for name, entry in plan.items():
            limit = entry.get("max_length")
            if limit is not None and limit < tokens:
                raise LeanformerError(
                    f"{where}: the images have {tokens} tokens, and the block at {name} reads {limit}; give it "
                    f"max_length {tokens} or more"
                )

    def inputs(self, split: SplitName) -> list[str]:
        images: ImageSplit = getattr(self.data, split)
        return [
            hashlib.blake2b(pixels.tobytes(), digest_size=16).hexdigest()
            for batch in images.batches(torch.arange(len(images)).split(HASHED_AT_ONCE))
            for pixels in batch["pixel_values"].cpu().numpy()
        ]

    def teaching_batches(self, multiple: int) -> ImageBatches:
        batches = self.tuning_batches()
        return replace(batches, batch_size=batches.batch_size * multiple)

    def tuning_batches(self) -> ImageBatches:
        if self.data.unlabelled is None:
            return self.batches
        told = replace(self.data, train=JoinedSplit(self.data.train, self.data.unlabelled))
        return replace(self.batches, data=told)

    def validation_batches(self) -> Iterator[Batch]:
        return self.batches.evaluation(self.data.validation)

    def samples(self, most: int) -> Iterator[NDArray[np.float32]]:
        for split in (self.data.validation, self.data.train):
            count = min(most, len(split))
            most -= count
            if count:
                spread = torch.arange(count) * len(split) // count
                for batch in self.batches.chosen(split, spread, SAMPLES_AT_ONCE):
                    yield from batch["pixel_values"].cpu().numpy()

    def training_settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = {}
        if self._baseline.keeps_weights:
            # The model's directory, not the study, determines these settings of images and classes.
            found = self._preprocessing
            settings["preprocessing"] = None if found is None else json.loads(json.dumps(asdict(found)))
            settings["classes"] = list(self.data.classes)
        if self.data.form.bits is not None:
            settings["bits"] = self.data.form.bits
        return settings

    def save_companions(self, directory: Path) -> None:
        form = self.data.form
        resizing = form.resizing or Resizing((form.height, form.width))
        processor = shipped_processor(resizing, self.batches.mean, self.batches.std, form.on_white, form.bits)
        write_atomically(directory / "preprocessor_config.json", processor.to_json_string())

    def summary(self) -> dict[str, Any]:
        data = self.data
        return {
            "source": self.study.data.source,
            "train": len(data.train),
            "validation": len(data.validation),
            "test": len(data.test),
            "unlabelled": 0 if data.unlabelled is None else len(data.unlabelled),
            "groups": None if self.test_groups is None else len(np.unique(self.test_groups)),
            "classes": list(data.classes),
            "channels": data.channels,
            "height": data.height,
            "width": data.width,
            "storage": data.storage,
            "notes": list(self.notes),
        }

    def example(self) -> Batch:
        return {"pixel_values": torch.zeros(1, self.data.channels, self.data.height, self.data.width)}

    def subject(self, model: PreTrainedModel, make_step: MakeStep) -> Subject:
        examples = self._timed()
        one = examples[:1]

        def call_one() -> int:
            model(pixel_values=one)
            return 0

        def call_batch() -> tuple[int, int]:
            model(pixel_values=examples)
            return len(examples), 0

        return Subject(
            model=model,
            make_step=lambda: make_step(model),
            training=lambda: self.batches.training(seed=0, epoch=0),
            call_one=call_one,
            call_batch=call_batch,
        )

    def _timed(self) -> torch.Tensor:
        """The images that are classified while a model is timed; a small test split is repeated."""
        wanted = torch.arange(self.study.measure.throughput_batch) % len(self.data.test)
        (batch,) = self.batches.chosen(self.data.test, wanted)
        return batch["pixel_values"]

    @property
    def corruptions(self) -> Mapping[str, str]:
        return {name: corruption.meaning for name, corruption in IMAGES.items()}

    def corrupted(self, name: str) -> ImageClassification:
        task = copy.copy(self)
        task.data = replace(self.data, test=CorruptedImages(self.data.test, IMAGES[name]))
        return task

    def evaluate_exported(self, model: Classifier) -> Predictions:
        def logits_of(inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
            pixel_values = inputs["pixel_values"]
            return torch.from_numpy(model.logits(pixel_values.cpu().numpy())).to(pixel_values.device)

        return self._answers(lambda batches: predict_with(logits_of, batches, self._keeps_logits))

    def exported(self, directory: Path, model: Classifier) -> Exported:
        examples = self._timed().cpu().numpy()
        one = examples[:1]

        def call_one() -> int:
            model.logits(one)
            return 0

        def call_batch() -> tuple[int, int]:
            model.logits(examples)
            return len(examples), 0

        return Exported(
            call_one=call_one,
            call_batch=call_batch,
            memory=lambda: classifying_memory(directory, len(examples), torch.get_num_threads()),
        )
