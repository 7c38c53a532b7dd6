"""``lf.distill``: makes a student from a teacher and a plan, without a study."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from leanformer.config.base import DistillConfig, FinetuneConfig, TrainConfig
from leanformer.core.errors import LeanformerError, quoted
from leanformer.core.files import make_directory
from leanformer.core.memory import memory_named
from leanformer.learn.activity import find_activities
from leanformer.learn.batch_checks import check_batches
from leanformer.learn.checkpoint import Snapshot
from leanformer.learn.dropout import dropout
from leanformer.learn.lessons import Lesson, check_tokens_agree, explained, teachable, teaching_config, teaching_loss
from leanformer.learn.losses import Batch, Loss, cross_entropy, inputs_of, tuning_loss
from leanformer.learn.observe import Observed, frozen_copy
from leanformer.learn.step import make_accelerator, settle_precision
from leanformer.learn.train import TrainingBatches, train
from leanformer.model.directory import path_of
from leanformer.model.family import find_family
from leanformer.model.plan import Plan
from leanformer.model.students import reduce
from leanformer.model.surgery import ResolvedPlan, module_at, resolve, sites
from leanformer.model.vocabulary import vocabulary_of
from leanformer.model.weights import HALF, check_weights_are_there, device_and_dtype, in_float32


def distill(
    teacher: PreTrainedModel,
    plan: Plan,
    batches: TrainingBatches | Iterable[Batch],
    validation: Sequence[Batch] = (),
    teach: DistillConfig | None = None,
    finetune: FinetuneConfig | None = None,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    progress: Callable[[dict[str, float]], object] | None = None,
) -> PreTrainedModel:
    """Makes the student of a plan and teaches each new block, at its own site, to do what the teacher does there.

    All blocks learn together, from one forward pass of the teacher per batch. Source of the idea: arXiv 2311.10642.

    Args:
        teacher: A trained model of a supported family; it stays unchanged. One in float16 or bfloat16 is converted to
            float32 for the teaching, because small updates are lost in half precision.
        plan: As for ``reduce``.
        batches: Training data on the teacher's device: batches of the model's named inputs with ``labels`` (-100 at
            padding), all checked before anything is taught, or an object that gives them epoch by epoch. For a plan
            with ``target_vocabulary`` they hold the ids of the student's own tokenizer.
        validation: Held-out batches, on which R² is measured after each epoch.
        teach: Epochs, learning rate and other settings of the teaching.
        finetune: How the assembled student is tuned as a whole afterwards; by default it is not tuned.
        seed: For the order of the batches and the blocks' initial weights.
        checkpoint: A file to save the state in at intervals and to go on from if it exists; the tuning has a second
            file beside it. Both are deleted at the end, so they must be new or from an earlier call.
        progress: Called after each epoch with its numbers: ``train_loss``, and ``r2 SITE`` or ``validation_loss``.

    Returns:
        The student, on the teacher's device, in evaluation mode; in float32 if the teacher is in half precision.

    Raises:
        LeanformerError: An argument has a wrong type, the plan does not fit the teacher, a site has nothing to teach,
            the teacher or a block cannot read a batch, the checkpoint's file is not a checkpoint, or training fails
            because the loss is not finite.
    """
    find_family(teacher, "teacher")
    check_weights_are_there(teacher, "teacher")
    _check_types(teach, finetune, seed, progress)
    teach = teach or DistillConfig()
    if finetune is not None and finetune.targets == "teacher":
        raise LeanformerError(
            "distill: finetune.targets 'teacher' works in studies only; here the labels of the batches are the "
            "targets: let the teacher translate the sources, and make batches of its translations"
        )
    device, precision_of_teacher = device_and_dtype(teacher)
    if precision_of_teacher in HALF:
        teacher = in_float32(teacher)
    training, given = _training_batches(batches)
    validation = _checked_batches(validation, "validation")
    teaching_file, tuning_file = (None, None) if checkpoint is None else _checkpoint_files(checkpoint)
    torch.manual_seed(seed)
    new = resolve(teacher, plan)
    check_tokens_agree(new, finetune or FinetuneConfig(), "plan")
    # A student with fewer target subwords reads other tokens. In a study its teacher reads its own; here there are only
    # the student's, so that the teacher's decoder is trimmed alike.
    opened = frozen_copy(reduce(teacher, vocabulary_of(plan)))
    check_batches(opened, given, "batches")
    check_batches(opened, validation, "validation")
    student = reduce(teacher, plan, find_activities(opened, new.items(), training))
    lessons = _lessons(student, new)
    precision = settle_precision("auto", device)
    accelerator = make_accelerator(precision, device)
    observer = _Observer(progress)

    def learn(model: nn.Module, config: TrainConfig, loss: Loss, what: str, file: Path | None) -> None:
        rate = config.learning_rate[0]
        with memory_named(f"{what} the blocks of this plan", "give smaller batches, or smaller blocks"):
            trained = train(model, training, config, rate, seed, observer, accelerator, file, loss=loss)
        if trained.status != "ok":
            raise LeanformerError(f"{what} failed: {trained.reason}")

    tunes = finetune is not None and finetune.epochs > 0
    if lessons and not (tunes and tuning_file is not None and tuning_file.exists()):  # it holds the blocks
        learns = [parameter for parameter in student.parameters() if parameter.requires_grad]
        with Observed(opened, [(lesson.site.name, lesson.target) for lesson in lessons]) as observed:
            observer.measure = lambda: (
                {f"r2 {name}": value for name, value in explained(observed, lessons, validation).items()}
                if validation
                else {}
            )
            learn(
                teachable(lessons), teaching_config(teach), teaching_loss(observed, lessons), "teaching", teaching_file
            )
        for parameter in learns:
            parameter.requires_grad_(True)
    if finetune is not None and tunes:
        observer.measure = lambda: _validation_loss(student, validation)
        config = TrainConfig(
            epochs=finetune.epochs, learning_rate=(finetune.learning_rate,), average_last=finetune.average_last
        )
        with dropout(student, finetune.dropout):
            learn(student, config, tuning_loss(opened, finetune, 0.0), "tuning", tuning_file)
    for file in (teaching_file, tuning_file):
        if file is not None:
            file.unlink(missing_ok=True)
    return student.eval()


def _check_types(teach: object, finetune: object, seed: object, progress: object) -> None:
    for name, value, kind in (("teach", teach, DistillConfig), ("finetune", finetune, FinetuneConfig)):
        if value is not None and not isinstance(value, kind):
            raise LeanformerError(f"{name}: a {kind.__name__} or None is wanted, not {type(value).__name__}")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise LeanformerError(f"seed: a whole number from 0 to {2**32 - 1:,} is wanted, not {str(seed)[:40]}")
    if progress is not None and not callable(progress):
        raise LeanformerError(
            f"progress: a function of an epoch's numbers or None is wanted, not {type(progress).__name__}"
        )


def _training_batches(batches: TrainingBatches | Iterable[Batch]) -> tuple[TrainingBatches, list[Batch]]:
    """The training data, and the batches to check: all of a list, none of an object that makes them later.

    Raises:
        LeanformerError: ``batches`` is neither.
    """
    if not isinstance(batches, TrainingBatches):
        given = _checked_batches(batches, "batches")
        return _Batches(given), given
    steps = batches.steps_per_epoch
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise LeanformerError(f"batches: steps_per_epoch is {quoted(steps)}; it must be a whole number, 1 or more")
    return batches, []


def _lessons(student: PreTrainedModel, new: ResolvedPlan) -> list[Lesson]:
    """A lesson for each block that the plan has put into the student and that has parameters.

    A teacher that is itself a student has other blocks, which stay as they are and need no lesson.
    """
    found = []
    for site in sites(student):
        block = module_at(student, site.name) if site.name in new else None
        if site.kind != "pooling" and block is not None and any(True for _ in block.parameters()):
            found.append(Lesson(site.name, site, block))
    return found


def _checked_batches(batches: object, argument: str) -> list[Batch]:
    """Batches as a list.

    Raises:
        LeanformerError: They are not batches; the message names the argument and the first bad batch.
    """
    wanted = "a list of batches is wanted, each a mapping of the model's inputs and 'labels' to tensors"
    if isinstance(batches, Mapping):
        raise LeanformerError(f"{argument}: {wanted}, not one mapping; put it into a list")
    if not isinstance(batches, Iterable) or isinstance(batches, str | bytes | torch.Tensor):
        raise LeanformerError(f"{argument}: {wanted}, not {type(batches).__name__}")
    found: list[Batch] = []
    for number, batch in enumerate(batches):
        where = f"{argument}: batch {number}"
        if not isinstance(batch, Mapping):
            raise LeanformerError(f"{where} is of type {type(batch).__name__}; {wanted}")
        for name, value in batch.items():
            if not isinstance(value, torch.Tensor):
                raise LeanformerError(
                    f"{where} holds, as {str(name)[:40]!r}, a value of type {type(value).__name__}; {wanted}"
                )
        if "labels" not in batch:
            raise LeanformerError(f"{where} has no 'labels'; they tell real positions from padding")
        found.append(dict(batch))
    return found


def _checkpoint_files(checkpoint: str | Path) -> tuple[Path, Path]:
    """The files for teaching and tuning; an existing file that is not a checkpoint is refused, not overwritten."""
    teaching = Path(path_of(checkpoint, "checkpoint"))
    if teaching.name in ("", ".."):
        raise LeanformerError(f"checkpoint: {checkpoint} is not a regular file; name a new one")
    if os.path.exists(teaching.parent) and not os.path.isdir(teaching.parent):
        raise LeanformerError(f"checkpoint: {teaching.parent} is not a directory; name a file in one")
    tuning = teaching.with_name(f"{teaching.name}.tuning")
    for file in (teaching, tuning):
        if os.path.lexists(file):
            if not os.path.isfile(file):
                raise LeanformerError(
                    f"checkpoint: {file} is not a regular file; name a new one, or one of an earlier call"
                )
            Snapshot.read(file, torch.device("cpu"))
    make_directory(teaching.parent)
    return teaching, tuning


class _Batches:
    """A list of batches as training data: shuffled by seed and epoch."""

    def __init__(self, batches: Sequence[Batch]) -> None:
        self._batches = batches
        if not self._batches:
            raise LeanformerError("batches: there is no batch to learn from; give at least one")

    @property
    def steps_per_epoch(self) -> int:
        return len(self._batches)

    def training(self, seed: int, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        for index in torch.randperm(len(self._batches), generator=generator)[first_step:].tolist():
            yield self._batches[index]


class _Observer:
    """Measures after each epoch what ``measure`` says, and reports it."""

    def __init__(self, progress: Callable[[dict[str, float]], object] | None) -> None:
        self._progress = progress
        self.measure: Callable[[], dict[str, float]] = dict

    def validate(self, model: nn.Module, last: bool) -> dict[str, float]:
        return self.measure()

    def epoch_ended(self, record: dict[str, float], examples_per_second: float) -> None:
        if self._progress is not None:
            self._progress({name: value for name, value in record.items() if name != "learning_rate"})

    def step_ended(self, epoch: int, step: int, steps_per_epoch: int) -> None: ...

    def rolled_back(self, reason: str) -> None: ...


@torch.no_grad()
def _validation_loss(student: Any, batches: Sequence[Batch]) -> dict[str, float]:
    if not batches:
        return {}
    student.eval()
    losses = [float(cross_entropy(student(**inputs_of(batch)).logits, batch["labels"])) for batch in batches]
    return {"validation_loss": sum(losses) / len(losses)}
