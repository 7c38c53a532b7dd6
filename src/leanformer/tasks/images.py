"""Image classification."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator, Mapping
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
from leanformer.core.signatures import content_signature
from leanformer.core.warning import StudyWarning
from leanformer.data.corruptions import IMAGES
from leanformer.data.corruptions.images import CorruptedImages
from leanformer.data.image_batches import ImageBatches
from leanformer.data.image_files import Resizing
from leanformer.data.images import ImageData, load_images
from leanformer.data.preprocessing import Preprocessing, read_preprocessing, shipped_processor
from leanformer.decide.statistics import mcnemar_exact
from leanformer.learn.losses import Batch
from leanformer.measure.cost import Exported, Subject
from leanformer.measure.engine_memory import classifying_memory
from leanformer.measure.quality import Predictions, predict, predict_with
from leanformer.model.baseline import ImageBaseline, ImageGeometry
from leanformer.model.surgery import ResolvedPlan
from leanformer.results.images import ClassQuality
from leanformer.results.metrics import METRICS, Labels, metrics_of
from leanformer.runtime.classifier import Classifier
from leanformer.tasks.base import TASKS, MakeStep, Outcome, Task

SAMPLES_AT_ONCE = 32  # images in memory
FEWEST_TESTED = 2  # one example has no variance


@TASKS.register("image-classification")
class ImageClassification(Task):
    """A study of image classifiers; see ``Task``.

    Args:
        study: The study.
        device: Where models are trained.

    Raises:
        LeanformerError: Data or baseline are wrong, or do not fit together.
    """

    batch_key = answer_key = "train.batch_size"
    batches: ImageBatches

    def __init__(self, study: ImageStudy, device: torch.device) -> None:
        self.study: ImageStudy = study
        self.device = device
        self.batch = str(study.train.batch_size)
        self._baseline = ImageBaseline(study.baseline.model, study.baseline.config, study.baseline.fresh)
        self._preprocessing, preprocessing_notes, preprocessing_warnings = self._read_preprocessing()
        self.data: ImageData = load_images(
            study.data,
            device,
            self._baseline.image_size,
            self._baseline.channels,
            self._preprocessing,
            (study.baseline.model, self._baseline.classes) if self._baseline.keeps_weights else None,
        )
        self.notes = [*self.data.notes, *self._baseline.notes, *preprocessing_notes]
        self.warnings = [*self.data.warnings, *preprocessing_warnings]
        self._geometry = ImageGeometry(self.data.channels, self.data.height, self.data.width, self.data.classes)
        self._baseline.check(self._geometry)
        mean, std = self._normalization()
        self.batches = ImageBatches(self.data, study.train.batch_size, study.data.augment, mean, std)

    def _read_preprocessing(self) -> tuple[Preprocessing | None, list[str], list[StudyWarning]]:
        """How a trained baseline's images are prepared, with notes and warnings about it."""
        data, source = self.study.data, self.study.baseline.model
        own_size, own_numbers = data.image_size is not None, data.normalize != "auto"
        if not self._baseline.keeps_weights or (own_size and own_numbers):
            return None, [], []
        found = read_preprocessing(
            source,
            self._baseline.family.name,
            self._baseline.image_size,
            self._baseline.channels or 3,
            own_size,
            own_numbers,
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

    def check_test(self) -> None:
        if len(self.data.test) < FEWEST_TESTED:
            raise LeanformerError(
                f"data: the test split has {len(self.data.test)} image, and a decision needs at least "
                f"{FEWEST_TESTED}; give more test images, or a larger test_fraction or test_limit"
            )
        self.check_groups()

    @cached_property
    def baseline_outline(self) -> PreTrainedModel:
        return self._baseline.outline(self._geometry)

    def check_plan(self, plan: ResolvedPlan, where: str) -> None:
        config = self.baseline_outline.config
        patch = config.patch_size
        rows, columns = (patch, patch) if isinstance(patch, int) else patch
        tokens = (self.data.height // rows) * (self.data.width // columns)
        if plan.get("pooling", {}).get("block") != "mean":
            tokens += self._baseline.special_tokens
        for name, entry in plan.items():
            limit = entry.get("max_length")
            if limit is not None and limit < tokens:
                raise LeanformerError(
                    f"{where}: the images have {tokens} tokens, and the block at {name} reads {limit}; give it "
                    f"max_length {tokens} or more"
                )

    @cached_property
    def test_signature(self) -> str:
        """Of the files and of the test images' classes in order: another size or preparation leaves the split as is."""
        source = self.study.data.source
        labels = np.ascontiguousarray(self.data.test.labels.cpu().numpy(), dtype=np.int64)
        identity = f"{content_signature(source) or source} {', '.join(self.data.classes)} ".encode()
        return hashlib.sha256(identity + labels.tobytes()).hexdigest()

    def teaching_batches(self, multiple: int) -> ImageBatches:
        return replace(self.batches, batch_size=self.batches.batch_size * multiple)

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
            "groups": None if self.test_groups is None else len(np.unique(self.test_groups)),
            "classes": list(data.classes),
            "channels": data.channels,
            "height": data.height,
            "width": data.width,
            "storage": data.storage,
            "notes": list(self.notes),
        }

    def validate(self, model: PreTrainedModel, last: bool) -> dict[str, float]:
        answers = predict(model, self.validation_batches())
        scores = {f"validation_{metric.key}": answers.score(metric.key) for metric in metrics_of("labels")}
        return {"validation_loss": answers.loss, **scores}

    def progress(self, record: Mapping[str, float]) -> str:
        metric = METRICS[self.study.accept.metric]
        return f"val {metric.progress(record[f'validation_{metric.key}'])}"

    def evaluate(self, model: PreTrainedModel) -> Predictions:
        return replace(predict(model, self.batches.evaluation(self.data.test)), groups=self.test_group_names)

    def read_answers(self, path: Path) -> Predictions:
        return Predictions.read(path)

    def scores(self, answers: Predictions) -> dict[str, float]:
        return {**{metric.key: answers.score(metric.key) for metric in metrics_of("labels")}, "loss": answers.loss}

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

        answers = predict_with(logits_of, self.batches.evaluation(self.data.test))
        return replace(answers, groups=self.test_group_names)

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

    @property
    def test_group_names(self) -> tuple[str, ...] | None:
        return self.data.test_groups

    @property
    def outputs(self) -> int:
        return len(self.data.classes)

    @property
    def worthless_quality(self) -> float:
        """The quality of a model that always predicts the most frequent class."""
        labels = self.data.test.labels.cpu().numpy()
        answers = Labels(labels, np.full_like(labels, np.bincount(labels).argmax()))
        metric = METRICS[self.study.accept.metric]
        return metric.of(metric.statistics(answers))

    def details(self, outcome: Outcome, baseline: Outcome | None) -> dict[str, Any]:
        tests = []
        if baseline is not None and baseline is not outcome:
            for seed, answers in outcome.answers.items():
                test = mcnemar_exact(baseline.answers[seed].correct, answers.correct)
                tests.append({"seed": seed, **asdict(test)})
        return {"per_class": self._per_class(outcome, baseline), "mcnemar": tests}

    def _per_class(self, outcome: Outcome, baseline: Outcome | None) -> list[ClassQuality]:
        """Accuracy by class, mean over seeds, and the difference to the baseline's."""
        labels = outcome.each()[0].labels
        right = _right(outcome).mean(axis=0)
        base = None if baseline is None else _right(baseline).mean(axis=0)
        found = []
        for number, name in enumerate(self.data.classes):
            chosen = labels == number
            if not chosen.any():
                continue
            accuracy = float(right[chosen].mean())
            difference = None if base is None else accuracy - float(base[chosen].mean())
            found.append(ClassQuality(name=name, examples=int(chosen.sum()), accuracy=accuracy, difference=difference))
        return found


def _right(outcome: Outcome) -> np.ndarray:
    """Whether each answer is correct, as 0 or 1, shape (seeds, examples)."""
    return np.stack([answers.correct for answers in outcome.each()]).astype(float)
