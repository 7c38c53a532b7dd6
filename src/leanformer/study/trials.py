"""Steps that train without a teacher: the search for a learning rate, and trials of the baseline and candidates."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from leanformer.core.files import write_atomically
from leanformer.learn.activity import find_activities
from leanformer.learn.train import Trained
from leanformer.model.students import reduce
from leanformer.results.metrics import METRICS
from leanformer.study.prepare import PreparedStudy
from leanformer.study.steps import Step, TrainedStep, ended_well, scratch_settings
from leanformer.study.training import (
    Trial,
    is_scored_otherwise,
    scored,
    train_model,
)

VALIDATION = "validation.parquet"  # the answers of a search, by which its rate is judged
SEARCH_SEED = 2**32
"""The seed of every search. A study's own seeds lie below it: the winner of a search is the best of several, and as a
trial it would look better than another training at its rate."""


@dataclass(frozen=True)
class SearchStep(TrainedStep):
    """A training at one learning rate of the search, judged on the validation split; its model is not kept.

    Args:
        rate: The learning rate.
    """

    rate: float

    def directory(self, prepared: PreparedStudy) -> Path:
        return prepared.directory.search(self.name, self.rate)

    def settings(self, prepared: PreparedStudy) -> dict[str, Any]:
        return scratch_settings(prepared, self, self.rate, prepared.search_epochs)

    def run(self, prepared: PreparedStudy) -> None:
        directory = self.directory(prepared)
        model = _model(prepared, self)
        trained = _trained(prepared, self, model, self.rate, prepared.search_epochs)
        last = trained.epochs[-1] if trained.status == "ok" else {}
        # The values of all metrics, so that the study's metric can be changed without training again.
        result = {
            "learning_rate": self.rate,
            prepared.study.accept.metric: None,
            "loss": None,
            **{key.removeprefix("validation_"): value for key, value in last.items() if key.startswith("validation_")},
            "trained": asdict(trained),
        }
        if trained.status == "ok":
            answers = prepared.task_of(self.name).validation_answers(model)
            if answers is not None:
                write_atomically(directory / VALIDATION, answers.to_bytes())
                result["scoring"] = prepared.task.scoring_settings()
        prepared.directory.finish(directory, result)

    def bring_up_to_date(self, prepared: PreparedStudy) -> None:
        directory = self.directory(prepared)
        result = self.known_result(prepared)
        if (directory / VALIDATION).exists() and is_scored_otherwise(prepared, result):
            answers = prepared.task.read_answers(directory / VALIDATION)
            prepared.directory.finish(directory, result | scored(prepared, answers))

    @property
    def title(self) -> str:
        return f"{self.name} · rate {self.rate:g}"

    def __str__(self) -> str:
        return f"{self.name}, search at rate {self.rate:g}"


@dataclass(frozen=True)
class TrialStep(Trial):
    """The training of a candidate or the baseline with one seed, at the best learning rate of its search."""

    def after(self, prepared: PreparedStudy) -> Sequence[Step]:
        return search_of(prepared, self.name)

    def settings(self, prepared: PreparedStudy) -> dict[str, Any]:
        return scratch_settings(prepared, self, best_rate(prepared, self.name), prepared.study.train.epochs)

    def run(self, prepared: PreparedStudy) -> None:
        rate = best_rate(prepared, self.name)
        model = _model(prepared, self)
        trained = _trained(prepared, self, model, rate, prepared.study.train.epochs)
        self.end(prepared, rate, trained, model)


def search_of(prepared: PreparedStudy, name: str) -> list[SearchStep]:
    """One training for each rate; none where there is one rate or the candidate is distilled."""
    if not prepared.searches or prepared.is_distilled(name):
        return []
    return [SearchStep(name, SEARCH_SEED, rate) for rate in prepared.study.train.learning_rate]


def best_rate(prepared: PreparedStudy, name: str) -> float:
    """The learning rate of the best validation quality; of equal ones that of the smaller loss, then the first."""
    search = [step.known_result(prepared) for step in search_of(prepared, name)]
    if not search:
        return prepared.study.train.learning_rate[0]
    metric = METRICS[prepared.study.accept.metric]

    def quality(run: Mapping[str, Any]) -> tuple[float, float]:
        # A search of an earlier version may lack this metric and its answers; only its loss counts then.
        value = run.get(metric.key)
        return -math.inf if value is None else metric.sign * value, -(run["loss"] or 0.0)

    good = [run for run in search if ended_well(run)]
    return float(max(good or search[:1], key=quality)["learning_rate"])


def _model(prepared: PreparedStudy, step: TrainedStep) -> PreTrainedModel:
    """The model at the start of a training, on the study's device."""
    candidate = prepared.candidates[step.name]
    model = prepared.task.make_baseline(step.seed)
    if candidate is None:
        return copy.deepcopy(model).to(prepared.device)
    model = model.to(prepared.device)
    activities = find_activities(model, prepared.plans[step.name].items(), prepared.task.batches)
    return reduce(model, prepared.settled_plan(step.name), activities)


def _trained(prepared: PreparedStudy, step: TrainedStep, model: PreTrainedModel, rate: float, epochs: int) -> Trained:
    """Trains such a model as the study says; a new head at a rate of its own."""
    return train_model(prepared, step, model, rate, epochs, rate_factors=prepared.task.rate_factors(model, rate))
