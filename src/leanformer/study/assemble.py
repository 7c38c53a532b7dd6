"""Assembles results.json, which the table and the report show, from the trials' results and the measured costs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from leanformer.config.base import BASELINE, Study
from leanformer.core.warning import rows
from leanformer.decide import judge
from leanformer.decide.decision import Decision, decide, recommend, weak_baseline, without_acceptances
from leanformer.decide.judge import difference_of
from leanformer.decide.statistics import Comparison
from leanformer.measure.cost import overdetermination_ratio
from leanformer.results.costs import COSTS
from leanformer.results.metrics import METRICS, Metric
from leanformer.results.schema import FORMAT, FORMS, VERSION
from leanformer.tasks.base import Outcome, Task

COST_METHOD = (
    "All models were measured in one process on one machine: after a warm-up, each of {repeats} rounds measured every "
    "model in turn, and each round started with another one. Times are medians over the rounds. Training seconds are "
    "the examples of all epochs divided by the measured speed of training steps, data included; for a distilled "
    "candidate they are the seconds of teaching its blocks, of the teacher's own translations where it learned from "
    "them, and of tuning. Memory is the peak of all tensors (weights, activations, and in training gradients and "
    "optimizer state) for a batch of {batch} (inference) or {train_batch} (training). Operations are those of matrix "
    "products and convolutions; a multiply-add counts as two."
)


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
    """

    name: str
    method: str
    plan: Mapping[str, Any]
    structure: Mapping[str, Any]
    search: Sequence[Mapping[str, Any]]
    trials: Mapping[int, Mapping[str, Any]]
    tested: Outcome
    directories: Mapping[int, str]

    @property
    def ok(self) -> bool:
        """Whether the trials of all seeds succeeded."""
        return len(self.tested.answers) == len(self.trials)


def assemble(
    study: Study,
    task: Task,
    outcomes: Sequence[CandidateOutcome],
    costs: Mapping[str, Mapping[str, Any]],
    environment: Mapping[str, Any],
) -> dict[str, Any]:
    """The content of ``results.json``, in the form of the study's task (``leanformer.results``).

    Args:
        study: The study.
        task: Its task.
        outcomes: The baseline's first, then the candidates'.
        costs: Name -> summary of the model's cost, for measured models.
        environment: Versions and machine.
    """
    baseline, *candidates = outcomes
    comparisons: dict[str, Comparison] = {}
    if baseline.ok:
        for candidate in candidates:
            if candidate.ok:
                comparisons[candidate.name] = task.compare(baseline.tested, candidate.tested)
    accept = study.accept
    metric = METRICS[accept.metric]
    decisions = decide(comparisons, accept.max_drop, accept.confidence, metric)
    weak = None
    if baseline.ok:
        level = task.quality(baseline.tested).mean
        weak = weak_baseline(level, task.worthless_quality, accept.max_drop, metric)
    if weak is not None:
        decisions = without_acceptances(decisions, weak)
    models = [
        _row(study, task, outcome, baseline, costs.get(outcome.name), comparisons.get(outcome.name), decisions)
        for outcome in outcomes
    ]
    prices = {row["name"]: COSTS[study.prefer].of(row) for row in models}
    if baseline.ok:
        recommended, sentence = recommend(prices, decisions, BASELINE, study.prefer)
        sentence = sentence if weak is None else f"{sentence} {weak}"
        chosen = next(outcome for outcome in outcomes if outcome.name == recommended)
        # Chosen on the validation split: a choice on the test split would bias its result.
        best = max(chosen.trials, key=lambda seed: _validated(chosen.trials[seed], metric))
        ship = f"{chosen.directories[best]}/model"
    else:
        recommended, ship = None, None
        sentence = f"Nothing can be recommended: the baseline failed ({_failures(baseline)[0]['reason']})."
    content = {
        "format": FORMAT,
        "version": VERSION,
        "name": study.name,
        "task": study.task,
        "metric": study.accept.metric,
        "accept": study.accept.model_dump(mode="json"),
        "prefer": study.prefer,
        "seeds": list(study.seeds),
        "data": task.summary(),
        "warnings": rows(task.warnings),
        **task.results(),
        "baseline": models[0],
        "candidates": models[1:],
        "recommended": recommended,
        "recommendation": sentence,
        "ship": ship,
        "environment": dict(environment),
        "method": {
            "interval": judge.method(metric, len(study.seeds), FORMS[study.task].wording.example),
            "cost": COST_METHOD.format(
                repeats=study.measure.repeats, batch=study.measure.throughput_batch, train_batch=task.batch
            ),
        },
        "study": study.model_dump(mode="json"),
    }
    return FORMS[study.task].model_validate(content).content()


def _validated(trial: Mapping[str, Any], metric: Metric) -> float:
    """A trial's quality on the validation split, the larger the better; the worst where an earlier version had none."""
    value = trial["validation"].get(f"validation_{metric.key}")
    return -math.inf if value is None else metric.sign * float(value)


def _row(
    study: Study,
    task: Task,
    outcome: CandidateOutcome,
    baseline: CandidateOutcome,
    cost: Mapping[str, Any] | None,
    comparison: Comparison | None,
    decisions: Mapping[str, Decision],
) -> dict[str, Any]:
    structure, base = outcome.structure, baseline.structure
    is_baseline = outcome.name == BASELINE
    first = next(iter(outcome.trials.values()))
    row: dict[str, Any] = FORMS[study.task].blank_row() | {
        "name": outcome.name,
        "method": outcome.method,
        "status": "ok" if outcome.ok else "failed",
        "plan": dict(outcome.plan),
        "changes": [change | _explained(outcome, change["site"]) for change in structure["changes"]],
        "seeds": list(outcome.trials),
        "learning_rate": first["learning_rate"],
        "learning_rate_search": list(outcome.search),
        "parameters": structure["parameters"],
        "parameters_ratio": structure["parameters"] / base["parameters"],
        "parameters_by_kind": structure["parameters_by_kind"],
        "flops_per_example": structure["flops_per_example"],
        "flops_ratio": structure["flops_per_example"] / base["flops_per_example"],
        "decoding": structure["decoding"],
        "q_ratio": _q_ratio(task, structure["parameters"]),
        "scope": "seeds and examples" if len(study.seeds) > 1 else "one trained pair",
        "teaching": _teaching(outcome),
        "curves": [{"seed": seed, "epochs": trial["trained"]["epochs"]} for seed, trial in outcome.trials.items()],
        **(cost or {}),
        "failures": _failures(outcome),
        "rollbacks": [
            {"seed": seed, "what": what}
            for seed, trial in outcome.trials.items()
            for what in trial["trained"]["rollbacks"]
        ],
        "trials": list(outcome.directories.values()),
    }
    if cost is not None and outcome.method == "distill":
        row["train_seconds"] = statistics.median(_distilling_seconds(trial) for trial in outcome.trials.values())
    elif cost is not None:
        examples = statistics.median(trial["trained"]["examples"] for trial in outcome.trials.values())
        row["train_seconds"] = examples / cost["train_examples_per_second"]
    if outcome.ok:
        row["quality"] = task.quality(outcome.tested)
        row |= task.details(outcome.tested, baseline.tested if baseline.ok else None)
    if not outcome.ok:
        failure = row["failures"][0]
        row |= {
            "decision": None if is_baseline else "reject",
            "reason": f"Its training failed with seed {failure['seed']}: {failure['reason']}.",
        }
    elif is_baseline:
        row["reason"] = "what the others are compared with"
    elif comparison is None:
        row |= {"decision": "undecided", "reason": "The baseline failed, so that there is nothing to compare with."}
    else:
        row["difference"] = difference_of(METRICS[study.accept.metric], comparison)
        row["scope"] = comparison.scope
        row |= asdict(decisions[outcome.name])
    return row


def _failures(outcome: CandidateOutcome) -> list[dict[str, Any]]:
    return [
        {"seed": seed, "reason": trial["trained"]["reason"]}
        for seed, trial in outcome.trials.items()
        if trial["trained"]["status"] != "ok"
    ]


def _q_ratio(task: Task, parameters: int) -> float | None:
    if task.outputs is None:
        return None
    return overdetermination_ratio(task.summary()["train"], task.outputs, parameters)


def _distilling_seconds(trial: Mapping[str, Any]) -> float:
    teaching = sum(lesson["seconds"] for lesson in trial["taught"])
    return float(trial["trained"]["seconds"] + trial["answering_seconds"] + teaching)


def _explained(outcome: CandidateOutcome, site: str) -> dict[str, Any]:
    """Held-out R² of the block that was taught at a site."""
    found = [
        lesson["r2"][-1]
        for trial in outcome.trials.values()
        for lesson in trial["taught"]
        if lesson["site"] == site and lesson["r2"]  # teaching may fail before its first epoch
    ]
    return {"r2": statistics.fmean(found) if found else None, "r2_per_seed": found}


def _teaching(outcome: CandidateOutcome) -> dict[str, Any] | None:
    """How the blocks of a distilled candidate were taught."""
    lessons = [(seed, lesson) for seed, trial in outcome.trials.items() for lesson in trial["taught"]]
    if not lessons:
        return None
    return {
        "seconds": statistics.fmean(
            sum(lesson["seconds"] for lesson in trial["taught"]) for trial in outcome.trials.values()
        ),
        "blocks": len({lesson["site"] for _, lesson in lessons}),
        "epochs": max(len(lesson["r2"]) for _, lesson in lessons),
        "curves": [
            {"site": lesson["site"], "block": lesson["block"], "seed": seed, "r2": lesson["r2"]}
            for seed, lesson in lessons
        ],
    }
