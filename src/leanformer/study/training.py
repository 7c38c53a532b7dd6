"""The parts of every training of a study: training with progress, saving the model, evaluating the test split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from leanformer.config.base import TrainConfig
from leanformer.core.files import replace_directory
from leanformer.core.json_files import read_sealed
from leanformer.core.memory import memory_named
from leanformer.learn.checkpoint import going_on
from leanformer.learn.losses import Loss
from leanformer.learn.train import Trained, TrainingBatches, train
from leanformer.model.students import load, save
from leanformer.results.metrics import METRICS
from leanformer.study.arms import best_seed
from leanformer.study.ledger import recipe_of
from leanformer.study.prepare import PreparedStudy
from leanformer.study.steps import TrainedStep, ended_well
from leanformer.study.store import CHECKPOINT, differences
from leanformer.study.teaching import Taught, taught_numbers
from leanformer.tasks.base import Task

PREDICTIONS = "predictions.parquet"


def train_model(
    prepared: PreparedStudy,
    step: TrainedStep,
    model: PreTrainedModel,
    rate: float,
    epochs: int,
    loss: Loss | None = None,
    batches: TrainingBatches | None = None,
    config: TrainConfig | None = None,
    rate_factors: Mapping[str, float] | None = None,
) -> Trained:
    """Trains a model with the study's settings; goes on from the step's checkpoint if there is one.

    Args:
        prepared: The study.
        step: The step that trains it; its seed determines the order of the data.
        model: Trained in place.
        rate: The learning rate.
        epochs: The number of epochs.
        loss: By default the task's own.
        batches: By default the study's.
        config: By default the study's.
        rate_factors: The name of a parameter -> how many times the learning rate it learns with; all others once.
    """
    directory = step.directory(prepared)
    prepared.reporter.start(step.title, epochs, settings=read_sealed(directory / "settings.json"))
    task = prepared.task_of(step.name)
    observer = TrialObserver(prepared, task, epochs)
    checkpoint = directory / CHECKPOINT

    def training() -> Trained:
        return train(
            model,
            batches or task.batches,
            config or prepared.study.train,
            rate,
            step.seed,
            observer,
            prepared.accelerator,
            checkpoint,
            epochs,
            loss or task.loss(),
            rate_factors,
        )

    key = task.batch_key
    with memory_named(f"training {step.title} with {key} {task.batch}", f"lower {key}"):
        trained = going_on(checkpoint, training, prepared.reporter.warn)
    note = "as it is" if epochs == 0 else ""
    prepared.reporter.done(note if trained.status == "ok" else f"failed: {trained.reason}")
    return trained


def save_model(prepared: PreparedStudy, name: str, model: PreTrainedModel, directory: Path) -> None:
    """Writes a candidate's or the baseline's model, with the files that are needed to use it, such as its tokenizer."""
    prepared.directory.check()

    def fill(temporary: Path) -> None:
        save(model, temporary)
        prepared.task_of(name).save_companions(temporary)

    replace_directory(directory, fill)
    prepared.reporter.wrote("model", directory)


@dataclass(frozen=True)
class Trial(TrainedStep):
    """A training with one seed whose model is evaluated on the test split: of a candidate, or of the baseline."""

    def directory(self, prepared: PreparedStudy) -> Path:
        return prepared.directory.trial(self.name, self.seed)

    def bring_up_to_date(self, prepared: PreparedStudy) -> None:
        result = self.known_result(prepared)
        if not ended_well(result):
            return
        directory = self.directory(prepared)
        changed = differences(result["evaluation"], prepared.task.evaluation_settings())
        if changed:
            prepared.reporter.warn(f"{self} is evaluated again: {'; '.join(changed)}")
            model = load(directory / "model").to(prepared.device)
            result |= _evaluated(prepared, self.name, model, directory)
            # Its best seed is chosen by the study's metric, which may read the same settings.
            result["validation"] = _validated(prepared.task_of(self.name).validate(model, last=True))
            prepared.directory.finish(directory, result)
        elif is_scored_otherwise(prepared, result):
            score_again(prepared, directory, result)

    def end(
        self,
        prepared: PreparedStudy,
        rate: float,
        trained: Trained,
        model: PreTrainedModel | None,
        taught: Sequence[Taught] = (),
        answering: float = 0.0,
    ) -> None:
        """Saves and evaluates a trained model, and writes the trial's result.

        Args:
            prepared: The study.
            rate: The learning rate of the training.
            trained: The record of the training.
            model: None where the training failed.
            taught: The blocks that the model was assembled from.
            answering: Seconds that the teacher took for the answers that the model learned from; 0 without such
                answers.
        """
        directory = self.directory(prepared)
        result = {
            "candidate": self.name,
            "seed": self.seed,
            "learning_rate": rate,
            "trained": asdict(trained),
            "taught": taught_numbers(taught),
            "answering_seconds": answering,
        }
        if trained.status == "ok":
            assert model is not None
            save_model(prepared, self.name, model, directory / "model")
            task = prepared.task_of(self.name)
            last = trained.epochs[-1] if trained.epochs else task.validate(model, last=True)
            result["validation"] = _validated(last)
            # Nothing of it is shown until all planned trials have ended: what is seen earlier is a look of its own.
            result |= _evaluated(prepared, self.name, model, directory)
        prepared.directory.finish(directory, result)


def recipe(prepared: PreparedStudy, trial: Trial) -> str:
    """What a trial's candidate is, whatever its name and seeds; the trial must be done."""
    return recipe_of(read_sealed(trial.directory(prepared) / "settings.json"))


def is_chosen(prepared: PreparedStudy, trials: Sequence[Trial]) -> bool:
    """Whether the model of a candidate that ships was chosen before, at an earlier look."""
    return prepared.ledger.ships(recipe(prepared, trials[0])) is not None


def seed_that_ships(prepared: PreparedStudy, trials: Sequence[Trial]) -> int:
    """The seed of the model of a candidate that ships: chosen on the validation split before the first look at the
    test split, it stays chosen.

    Args:
        prepared: The study.
        trials: The candidate's trials, which are done.
    """
    kept = prepared.ledger.ships(recipe(prepared, trials[0]))
    if kept is not None:
        return kept
    # Of a baseline with further seeds, those of the candidates count: the best of more would be compared with theirs.
    seeds = prepared.study.seeds
    results = {trial.seed: trial.known_result(prepared) for trial in trials if trial.seed in seeds}
    good = {seed: result for seed, result in results.items() if ended_well(result)}
    return best_seed(good or results, METRICS[prepared.study.accept.metric])


def _validated(record: Mapping[str, float]) -> dict[str, float]:
    """What an epoch's record says of the validation split."""
    return {key: value for key, value in record.items() if key.startswith("validation_")}


def is_scored_otherwise(prepared: PreparedStudy, result: Mapping[str, Any]) -> bool:
    """Whether a result was scored with other settings than the study's, or lacks its metric."""
    otherwise = result.get("scoring", {}) != prepared.task.scoring_settings()
    return otherwise or prepared.study.accept.metric not in result


def scored(prepared: PreparedStudy, answers: Any) -> dict[str, Any]:
    """The scores of answers, and the settings of the scoring."""
    return {"scoring": prepared.task.scoring_settings(), **prepared.task.scores(answers)}


def score_again(prepared: PreparedStudy, directory: Path, result: dict[str, Any]) -> None:
    """Scores the answers of a finished step with the study's settings."""
    answers = prepared.task.read_answers(directory / PREDICTIONS)
    prepared.directory.replace_file(directory, PREDICTIONS, answers.to_bytes())
    prepared.directory.finish(directory, result | scored(prepared, answers))


def _evaluated(prepared: PreparedStudy, name: str, model: PreTrainedModel, directory: Path) -> dict[str, Any]:
    """Evaluates a model on the test split and saves its answers; returns their scores and the settings."""
    key = prepared.task.answer_key
    with memory_named(f"answering the test split in batches of {key}", f"lower {key}"):
        answers = prepared.task_of(name).evaluate(model)
    prepared.directory.replace_file(directory, PREDICTIONS, answers.to_bytes())
    return {"evaluation": prepared.task.evaluation_settings(), **scored(prepared, answers)}


class TrialObserver:
    """Validates after each epoch and shows a training's progress.

    Args:
        prepared: The study, with its reporter.
        task: The task as the model sees it.
        epochs: Epochs of the training.
    """

    def __init__(self, prepared: PreparedStudy, task: Task, epochs: int) -> None:
        self._prepared = prepared
        self._task = task
        self._epochs = epochs

    def validate(self, model: torch.nn.Module, last: bool) -> dict[str, float]:
        """Loss and quality on the validation split."""
        assert isinstance(model, PreTrainedModel)
        return self._task.validate(model, last)

    def step_ended(self, epoch: int, step: int, steps_per_epoch: int) -> None:
        """Advances the progress bar, and checks at intervals that the run directory still exists."""
        self._prepared.directory.check(at_once=False)
        self._prepared.reporter.step(epoch, step, steps_per_epoch)

    def epoch_ended(self, record: dict[str, float], examples_per_second: float) -> None:
        """Shows the epoch's numbers."""
        self._prepared.reporter.epoch(record, self._epochs, examples_per_second, self._task.progress(record))

    def rolled_back(self, reason: str) -> None:
        """Reports that training went back to its last good state."""
        self._prepared.reporter.warn(reason)
