"""Image classification."""

from __future__ import annotations

import copy
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit
from transformers import PreTrainedModel

from leanformer.config.images import ImageAcceptConfig, ImageStudy
from leanformer.core.errors import LeanformerError, quoted
from leanformer.core.files import write_atomically
from leanformer.core.warning import StudyWarning
from leanformer.data.corruptions import IMAGES
from leanformer.data.corruptions.images import CorruptedImages
from leanformer.data.image_batches import ImageBatches, JoinedSplit
from leanformer.data.image_files import Resizing
from leanformer.data.images import ImageData, ImageSplit, load_images, load_tested_images
from leanformer.data.preprocessing import Preprocessing, read_preprocessing, shipped_processor
from leanformer.decide.statistics import mcnemar_exact
from leanformer.learn.losses import Batch, Loss, label_loss
from leanformer.measure.cost import Exported, Subject
from leanformer.measure.engine_memory import classifying_memory
from leanformer.measure.quality import PooledPredictions, Predictions, predict, predict_with
from leanformer.model.image_baseline import ImageBaseline, ImageGeometry
from leanformer.model.surgery import ResolvedPlan
from leanformer.model.vision import head_parameters
from leanformer.results.images import ClassQuality, Confused, Confusion, OperatingPoint
from leanformer.results.metrics import METRICS, Metric
from leanformer.runtime.classifier import Classifier
from leanformer.tasks.base import TASKS, MakeStep, Outcome, SplitName, Task

SAMPLES_AT_ONCE = 32  # images in memory
MOST_LISTED = 20  # classes in a message
MOST_IN_MATRIX = 20  # classes
MOST_PAIRS = 20  # confused classes
HASHED_AT_ONCE = 1000  # images of 8 bits in memory
HEAD_FACTOR = 10  # a new head's learning rate by the body's
FEWEST_TESTED = 2  # one example has no variance


@TASKS.register("image-classification")
class ImageClassification(Task):
    """A study of image classifiers; see ``Task``.

    Args:
        study: The study.
        device: Where models are trained.
        all_tested: Whether all data are for testing a trained baseline.

    Raises:
        LeanformerError: Data or baseline are wrong, or do not fit together.
    """

    batch_key = answer_key = "train.batch_size"
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
        self.class_weights = self._class_weights()
        metric = METRICS[study.accept.metric]
        self._keeps_logits = "logits" in metric.needs
        self._scoring = scoring_of(study.accept, self.data.classes)
        if self._scoring["positive"] is not None:
            self._check_positive(metric)

    def loss(self) -> Loss | None:
        if self.class_weights is None:
            return None
        return label_loss(self.study.train.label_smoothing, self.class_weights)

    def rate_factors(self, model: PreTrainedModel, rate: float) -> Mapping[str, float]:
        if not self._baseline.new_head:
            return {}
        of_head = self.study.train.head_learning_rate or HEAD_FACTOR * rate
        return dict.fromkeys(head_parameters(model), of_head / rate)

    def _class_weights(self) -> torch.Tensor | None:
        """``train.class_weights`` in the order of the classes; a class without a training example has 0."""
        wanted, names = self.study.train.class_weights, self.data.classes
        if wanted is None:
            return None
        if wanted == "balanced":
            counts = torch.bincount(self.data.train.labels, minlength=len(names)).float()
            weights = torch.where(counts > 0, len(self.data.train) / (len(names) * counts.clamp_min(1)), 0.0)
        else:
            weights = torch.ones(len(names))
            for name, weight in wanted.items():
                weights[place_of(name, names, "train.class_weights")] = weight
        return weights.to(self.device)

    def _check_positive(self, metric: Metric) -> None:
        """Checks that there are images of the positive class, and of others where a threshold is chosen."""
        positive, name = self._scoring["positive"], self.study.accept.positive
        for role, labels in (("test", self.data.test.labels), ("validation", self.data.validation.labels)):
            found = int((labels == positive).sum())
            if role == "test" and not 0 < found < len(labels):
                raise LeanformerError(
                    f"accept.positive: {found:,} of {len(labels):,} test images are of the class {name!r}; "
                    f"{metric.name} needs images of it and of others"
                )
            if role == "validation" and metric.threshold is not None and found == len(labels):
                raise LeanformerError(
                    f"accept.positive: all validation images are of the class {name!r}; the threshold for "
                    f"{metric.name} is chosen on images of other classes"
                )

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

    def check_test(self) -> None:
        if len(self.data.test) < FEWEST_TESTED:
            raise LeanformerError(
                f"data: the test split has {len(self.data.test)} image, and a decision needs at least "
                f"{FEWEST_TESTED}; give more test images, or a larger test_fraction or test_limit"
            )
        self.check_groups()

        metric, positive = METRICS[self.study.accept.metric], self._scoring["positive"]
        if metric.threshold is not None and positive is not None and self.data.validation is not self.data.test:
            others = int((self.data.validation.labels != positive).sum())
            if self.study.accept.false_alarm_rate * others < 1:
                sentence = (
                    f"a false-alarm rate of {self.study.accept.false_alarm_rate:g} is less than one of the {others:,} "
                    "validation images of other classes, so that each threshold depends on one image; give more "
                    "validation images, or a larger accept.false_alarm_rate"
                )
                self.warnings = [*self.warnings, StudyWarning("coarse-threshold", sentence, others)]

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

    @cached_property
    def test_signature(self) -> str:
        """Of pixels and classes, in no order: other training images leave the split as it is."""
        classes = (self.data.classes[label] for label in self.data.test.labels.tolist())
        examples = sorted(f"{pixels} {name}" for pixels, name in zip(self.inputs("test"), classes, strict=True))
        return hashlib.sha256("\n".join(examples).encode(errors="surrogatepass")).hexdigest()

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

    def validate(self, model: PreTrainedModel, last: bool) -> dict[str, float]:
        scores = self.scores(self._validated(model))
        return {f"validation_{key}": score for key, score in scores.items()}

    def _validated(self, model: PreTrainedModel) -> Predictions:
        return replace(predict(model, self.validation_batches(), self._keeps_logits), **self._scoring)

    def progress(self, record: Mapping[str, float]) -> str:
        metric = METRICS[self.study.accept.metric]
        return f"val {metric.progress(record[f'validation_{metric.key}'])}"

    def evaluate(self, model: PreTrainedModel) -> Predictions:
        return self._answers(lambda batches: predict(model, batches, self._keeps_logits))

    def _answers(self, predicted: Callable[[Iterator[Batch]], Predictions]) -> Predictions:
        """Answers on the test split, with thresholds that are chosen on the validation split.

        Args:
            predicted: Batches -> a model's predictions.
        """
        answers = predicted(self.batches.evaluation(self.data.test))
        answers = replace(answers, groups=self.test_group_names, **self._scoring)
        if METRICS[self.study.accept.metric].threshold is None:
            return answers
        return answers.with_thresholds(replace(predicted(self.validation_batches()), **self._scoring))

    def validation_answers(self, model: PreTrainedModel) -> Predictions | None:
        return self._validated(model) if self.scoring_settings() else None

    def evaluation_settings(self) -> dict[str, Any]:
        """What the study's metric reads of ``accept``, and whether logits are kept; empty where it needs neither."""
        accept, metric = self.study.accept, METRICS[self.study.accept.metric]
        found = {key: accept.model_dump(mode="json")[key] for key in metric.reads}
        return {"logits": True, **found} if self._keeps_logits else found

    def scoring_settings(self) -> dict[str, Any]:
        return self.evaluation_settings()

    def read_answers(self, path: Path) -> Predictions:
        return replace(Predictions.read(path), **self._scoring)

    @property
    def test_rows(self) -> NDArray[np.int64] | None:
        return self.data.test_rows

    def pooled(self, folds: Sequence[tuple[NDArray[np.int64], Predictions]]) -> PooledPredictions:
        return PooledPredictions.of(folds)

    def with_choices(self, answers: Predictions, earlier: Predictions) -> Predictions:
        return replace(answers, thresholds=earlier.thresholds)

    def scores(self, answers: Predictions) -> dict[str, float]:
        if not answers.thresholds:  # those on the validation split, where thresholds are chosen
            answers = answers.with_thresholds(answers)
        return {"loss": answers.loss, **answers.scores()}

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

    @property
    def test_group_names(self) -> tuple[str, ...] | None:
        return self.data.test_groups

    @property
    def outputs(self) -> int:
        return len(self.data.classes)

    @property
    def worthless_quality(self) -> float:
        """The quality of a model that knows only how frequent the classes are: it gives every image these
        probabilities, and the answer that is best by them."""
        labels = self.data.test.labels.cpu().numpy()
        shares = np.bincount(labels, minlength=len(self.data.classes)) / len(labels)
        costs = self._scoring["costs"]
        answer = shares.argmax() if costs is None else (shares @ costs).argmin()
        logits = np.log(np.maximum(shares, np.finfo(np.float32).tiny))
        answers = Predictions(
            labels,
            np.full_like(labels, answer),
            -logits[labels],
            np.broadcast_to(logits, (len(labels), len(shares))),
            **self._scoring,
        )
        metric = METRICS[self.study.accept.metric]
        return metric.of(metric.statistics(answers.with_thresholds(answers)))

    def details(self, outcome: Outcome, baseline: Outcome | None) -> dict[str, Any]:
        tests = []
        if baseline is not None and baseline is not outcome:
            for seed, answers in outcome.answers.items():
                test = mcnemar_exact(baseline.answers[seed].correct, answers.correct, self.test_groups)
                tests.append({"seed": seed, **asdict(test)})
        return {
            "per_class": self._per_class(outcome, baseline),
            "mcnemar": tests,
            "confusion": self._confusion(outcome),
            "thresholds": self._thresholds(outcome),
        }

    def _thresholds(self, outcome: Outcome) -> list[OperatingPoint]:
        """The threshold of each seed's model, and what it reaches on the test split; each fold has one of its own."""
        metric = METRICS[self.study.accept.metric]
        if metric.reached is None or self.folds is not None:
            return []
        return [
            OperatingPoint(
                seed=seed,
                threshold=float(expit(answers.thresholds[metric.key])),
                reached=metric.reached(metric.statistics(answers).sum(axis=0)),
            )
            for seed, answers in outcome.answers.items()
        ]

    def _confusion(self, outcome: Outcome) -> Confusion:
        """How often each class was taken for each: all of them, or the most frequent confusions of many classes."""
        names = self.data.classes
        counts: Counter[tuple[int, int]] = Counter()
        of_class: Counter[int] = Counter()
        for answers in outcome.each():
            counts.update(zip(answers.labels.tolist(), answers.predictions.tolist(), strict=True))
            of_class.update(answers.labels.tolist())
        wrong = Counter({pair: count for pair, count in counts.items() if pair[0] != pair[1]})
        places = range(len(names)) if len(names) <= MOST_IN_MATRIX else None
        return Confusion(
            models=len(outcome.answers),
            matrix=None if places is None else [[counts[row, column] for column in places] for row in places],
            pairs=[
                Confused(correct=names[row], predicted=names[column], count=count, examples=of_class[row])
                for (row, column), count in wrong.most_common(MOST_PAIRS)
            ],
        )

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


def scoring_of(accept: ImageAcceptConfig, classes: Sequence[str]) -> dict[str, Any]:
    """What a study says about scoring, as fields of ``Labels``.

    Args:
        accept: The study's ``accept``.
        classes: The names of the classes.

    Raises:
        LeanformerError: It names a class that the data lack, or has costs for another number of classes.
    """
    costs, matrix = None, accept.cost_matrix
    if isinstance(matrix, dict):
        costs = 1 - np.eye(len(classes))
        for correct, row in matrix.items():
            for predicted, cost in row.items():
                places = (place_of(name, classes, "accept.cost_matrix") for name in (correct, predicted))
                costs[tuple(places)] = cost
    elif matrix is not None:
        if len(matrix) != len(classes):
            raise LeanformerError(
                f"accept.cost_matrix: it has {len(matrix)} rows, and the data {len(classes)} classes: "
                f"{_listed(classes)}; give a row and a column for each, in this order"
            )
        costs = np.array(matrix, dtype=np.float64)
    return {
        "classes": len(classes),
        "costs": costs,
        "positive": None if accept.positive is None else place_of(accept.positive, classes, "accept.positive"),
        "false_alarm_rate": accept.false_alarm_rate,
        "coverage": accept.coverage,
    }


def place_of(name: str, classes: Sequence[str], key: str) -> int:
    """The number of a class that a study names.

    Raises:
        LeanformerError: The data lack it; the message names the key.
    """
    if name not in classes:
        raise LeanformerError(f"{key}: the data have no class {quoted(name)}; classes: {_listed(classes)}")
    return classes.index(name)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:MOST_LISTED]) + (", ..." if len(names) > MOST_LISTED else "")


def _right(outcome: Outcome) -> np.ndarray:
    """Whether each answer is correct, as 0 or 1, shape (seeds, examples)."""
    return np.stack([answers.correct for answers in outcome.each()]).astype(float)
