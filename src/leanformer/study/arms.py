"""What a study compares: the outcomes of its candidates, and of their exports, each with the baseline's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from leanformer.config.base import Study
from leanformer.decide.decision import decide, weak_baseline, without_acceptances
from leanformer.decide.statistics import Comparison
from leanformer.results.metrics import METRICS, Metric
from leanformer.study.ledger import Ledger
from leanformer.tasks.base import Outcome, Task


@dataclass(frozen=True)
class ExportOutcome:
    """The outcome of one export of a candidate's or the baseline's trained model.

    Args:
        format: The format.
        precision: The precision of the weights.
        decides: Whether it is decided on; if not, it was only measured.
        result: ``status``, and ``reason`` where that is ``failed``; else ``seed``, ``bytes`` and ``parity``.
        answers: Its answers on the test split; None where it failed or is not decided on.
        directory: The exported directory, relative to the run directory.
    """

    format: str
    precision: str
    decides: bool
    result: Mapping[str, Any]
    answers: Any
    directory: str

    @property
    def runtime(self) -> str:
        """What it runs in, with the precision: ``onnx-int8``."""
        return f"{self.format}-{self.precision}"

    @property
    def ok(self) -> bool:
        """Whether there is an exported model."""
        return bool(self.result["status"] == "ok")


@dataclass(frozen=True)
class CandidateOutcome:
    """The outcome of one candidate's trials.

    Args:
        name: The candidate's name; ``baseline`` for the baseline.
        method: ``scratch`` or ``distill``.
        plan: As the study writes it; empty for the baseline.
        structure: ``changes``, ``parameters``, ``parameters_by_kind``, ``flops_per_example``, ``decoding``.
        search: One entry for each learning rate of the search.
        trials: Seed -> the trial's result.
        tested: The answers on the test split, of the trials that succeeded.
        directories: Seed -> the trial's directory, relative to the run directory.
        bytes: Of a trained model's weights; None where the trials failed.
        exports: Its exports.
        recipe: Plan and training without seeds, whatever its name (``ledger.recipe_of``).
        ships: The seed of the model that ships, chosen on the validation split.
        is_chosen: Whether it was chosen at an earlier look: then it stays, although a seed that joined has failed.
        folds: In a cross-validation, seed -> the fold of the training that stands for the seed in ``trials`` and
            ``directories``: one that failed, or the best on its validation split.
    """

    name: str
    method: str
    plan: Mapping[str, Any]
    structure: Mapping[str, Any]
    search: Sequence[Mapping[str, Any]]
    trials: Mapping[int, Mapping[str, Any]]
    tested: Outcome
    directories: Mapping[int, str]
    bytes: int | None = None
    exports: Sequence[ExportOutcome] = ()
    recipe: str = ""
    ships: int = 0
    is_chosen: bool = False
    folds: Mapping[int, int] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether the trials of all seeds succeeded."""
        return len(self.tested.answers) == len(self.trials)

    @property
    def has_model(self) -> bool:
        """Whether there is the model that ships."""
        return self.ok or (self.is_chosen and self.ships in self.tested.answers)


@dataclass(frozen=True)
class Arm:
    """What a row is about: a recipe, which is a candidate with all its seeds, or one exported model.

    Args:
        name: The row's name.
        outcome: The candidate's outcome, or the baseline's.
        export: The exported model; None where none was exported.
        seed: The seed of the one model that ships; None where the row is about the recipe.
    """

    name: str
    outcome: CandidateOutcome
    export: ExportOutcome | None = None
    seed: int | None = None

    @property
    def ok(self) -> bool:
        """Whether there are answers to compare."""
        trained = self.outcome.ok if self.seed is None else self.outcome.has_model
        return trained and (self.export is None or self.export.ok)

    @property
    def is_recipe(self) -> bool:
        """Whether it is a recipe with all its seeds, not one model of it."""
        return self.seed is None

    @property
    def identity(self) -> str:
        """What is decided on, whatever its name: the recipe, and for one model the form in which it ships."""
        if self.seed is None:
            return self.outcome.recipe
        return f"{self.outcome.recipe}/{'torch' if self.export is None else self.export.runtime}"

    @property
    def tested(self) -> Outcome:
        """The answers on the test split."""
        if not self.ok:
            return Outcome({}) if self.seed is not None else self.outcome.tested
        if self.export is not None:
            return Outcome({self.export.result["seed"]: self.export.answers})
        if self.seed is not None:
            return Outcome({self.seed: self.outcome.tested.answers[self.seed]})
        return self.outcome.tested

    def beside(self, other: Arm) -> Outcome:
        """This arm's answers under the seeds of another: two single models are compared, whatever their seeds."""
        if self.seed is None:
            return self.tested
        (answers,) = self.tested.each()
        return Outcome(dict.fromkeys(other.tested.answers, answers))

    def failures(self) -> list[dict[str, Any]]:
        """Why trainings failed, or the export did."""
        failed = failures_of(self.outcome)
        if not failed and self.export is not None and not self.export.ok:
            failed = [
                {
                    "seed": next(iter(self.outcome.trials)),
                    "reason": f"its export failed: {self.export.result['reason']}",
                }
            ]
        return failed


def arms_of(study: Study, outcomes: Sequence[CandidateOutcome]) -> list[Arm]:
    """The rows of the results, the baseline's first: the one model of each candidate that ships, exported where the
    study ships exported models. A further precision of a model has a row after the model's own. A cross-validation is
    about recipes."""
    if study.data.is_cross_validated:
        return [Arm(outcome.name, outcome) for outcome in outcomes]
    if study.ship is None:
        return [Arm(outcome.name, outcome, None, outcome.ships) for outcome in outcomes]
    first = study.ship.precision[0]
    return [
        Arm(
            outcome.name if export.precision == first else f"{outcome.name}-{export.precision}",
            outcome,
            export,
            outcome.ships,
        )
        for outcome in outcomes
        for export in outcome.exports
        if export.decides
    ]


class Judged:
    """The comparison of all arms with the first, and the decisions.

    Args:
        study: The study.
        task: Its task.
        arms: The baseline's first.
        ledger: What was seen of the test split, this look included; what is accepted now is added to it.
        statement: ``artifact`` or ``recipe``.
    """

    def __init__(self, study: Study, task: Task, arms: Sequence[Arm], ledger: Ledger, statement: str) -> None:
        baseline, *others = arms
        accept, metric = study.accept, METRICS[study.accept.metric]
        self.arms = {arm.name: arm for arm in arms}
        self.comparisons: dict[str, Comparison] = {
            arm.name: task.compare(baseline.beside(arm), arm.tested) for arm in others if baseline.ok and arm.ok
        }
        names = {arm.name: arm.identity for arm in others}
        # What was accepted beside another baseline, such as one of a better learning rate, must show itself again.
        settings = {**accepting(study), "baseline": baseline.identity}
        self.look = ledger.for_statement(statement, names, len(self.comparisons), settings)
        self.decisions = decide(self.comparisons, accept.max_drop, accept.confidence, metric, self.look)
        self.weak = None
        if baseline.ok:
            level = task.quality(baseline.tested).mean
            self.weak = weak_baseline(level, task.worthless_quality, accept.margin(level), metric)
        if self.weak is not None:
            self.decisions = without_acceptances(self.decisions, self.weak)
        accepted = [names[name] for name, decision in self.decisions.items() if decision.decision == "accept"]
        ledger.keep_accepted(statement, accepted, settings)


def accepting(study: Study) -> dict[str, Any]:
    """What an acceptance is about: metric and its settings, margin and confidence."""
    return study.accept.model_dump(mode="json", exclude={"looks"})


def best_seed(trials: Mapping[int, Mapping[str, Any]], metric: Metric) -> int:
    """The seed of the best trial on the validation split: a choice on the test split would bias its result.

    Args:
        trials: Seed -> the trial's result.
        metric: The study's metric.
    """

    def validated(seed: int) -> float:
        # A training that failed has none, and neither have those of an earlier version.
        value = trials[seed].get("validation", {}).get(f"validation_{metric.key}")
        return -math.inf if value is None else metric.sign * float(value)

    return max(trials, key=validated)


def failures_of(outcome: CandidateOutcome) -> list[dict[str, Any]]:
    """Why trainings of a candidate failed, seed by seed."""
    return [
        {"seed": seed, "reason": trial["trained"]["reason"]}
        for seed, trial in outcome.trials.items()
        if trial["trained"]["status"] != "ok"
    ]
