"""results.json: everything that the table and the report show, from the trials' results and the measured costs."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from leanformer.config import BASELINE, Study
from leanformer.data.images import ImageData
from leanformer.decide.decision import Decision, decide, recommend
from leanformer.decide.statistics import Comparison, compare, mcnemar_exact, quality_interval
from leanformer.measure.cost import overdetermination_ratio
from leanformer.measure.quality import Predictions
from leanformer.report.read import FORMAT

INTERVAL_METHOD = (
    "Quality and difference are means over the seeds; their intervals account for both kinds of chance, which test "
    "examples and which seeds (examples and seeds crossed, analysis of variance, t quantiles with Satterthwaite's "
    "degrees of freedom). The decision is a one-sided non-inferiority test, corrected for several candidates by "
    "Holm's method."
)
ONE_SEED_METHOD = (
    "There is one seed, so that nothing can be said about other seeds: intervals and decisions speak of these trained "
    "models alone, and account for which test examples were drawn. The decision is a one-sided non-inferiority test, "
    "corrected for several candidates by Holm's method."
)
COST_METHOD = (
    "All models in one process on one machine: warmed up, then measured in turn in each of {repeats} rounds, every "
    "round beginning with another one; medians over rounds. Training seconds are the examples of all epochs by the "
    "measured speed of training steps, data included. Memory is of tensors (weights, activations, and in training "
    "gradients and optimizer state), at the largest moment of a batch of {batch} (inference) or {train_batch} "
    "(training). Operations are those of matrix products and convolutions, a multiply-add as two."
)


@dataclass(frozen=True)
class CandidateOutcome:
    """What the trials of one candidate gave.

    Args:
        name: Its name; ``baseline`` for the baseline.
        method: ``scratch``.
        plan: As the study writes it; empty for the baseline.
        structure: ``changes``, ``parameters``, ``parameters_by_kind``, ``flops_per_example``.
        search: One entry a rate that was searched.
        trials: Seed -> the trial's result.
        predictions: Seed -> its answers on the test split, for the trials that ended well.
        directories: Seed -> the trial's directory, relative to the run directory.
    """

    name: str
    method: str
    plan: Mapping[str, Any]
    structure: Mapping[str, Any]
    search: Sequence[Mapping[str, Any]]
    trials: Mapping[int, Mapping[str, Any]]
    predictions: Mapping[int, Predictions]
    directories: Mapping[int, str]

    @property
    def ok(self) -> bool:
        """Whether every seed's trial ended well."""
        return len(self.predictions) == len(self.trials)

    @property
    def outcomes(self) -> np.ndarray:
        """Whether each answer is right, shape (seeds, examples)."""
        return np.stack([answers.correct for answers in self.predictions.values()]).astype(float)


def assemble(
    study: Study,
    data: ImageData,
    outcomes: Sequence[CandidateOutcome],
    costs: Mapping[str, Mapping[str, Any]],
    environment: Mapping[str, Any],
) -> dict[str, Any]:
    """The content of ``results.json``.

    Args:
        study: The study.
        data: Its data.
        outcomes: The baseline's first, then the candidates'.
        costs: Name -> summary of its cost, for those that were measured.
        environment: Versions and machine.
    """
    baseline, *candidates = outcomes
    comparisons: dict[str, Comparison] = {}
    if baseline.ok:
        for candidate in candidates:
            if candidate.ok:
                comparisons[candidate.name] = compare(
                    baseline.outcomes, candidate.outcomes, study.accept.max_drop, study.accept.confidence
                )
    decisions = decide(comparisons, study.accept.max_drop, study.accept.confidence) if comparisons else {}
    rows = [
        _row(study, data, outcome, baseline, costs.get(outcome.name), comparisons.get(outcome.name), decisions)
        for outcome in outcomes
    ]
    prices = {row["name"]: _price(row, study.prefer) for row in rows}
    if baseline.ok:
        recommended, sentence = recommend(prices, decisions, BASELINE, study.prefer)
        chosen = next(outcome for outcome in outcomes if outcome.name == recommended)
        # By validation accuracy, never by the test split, which has to stay a judge.
        best = max(chosen.trials, key=lambda seed: _final_accuracy(chosen.trials[seed]))
        ship = f"{chosen.directories[best]}/model"
    else:
        recommended, ship = None, None
        sentence = f"Nothing can be recommended: the baseline failed ({_failures(baseline)[0]['reason']})."
    return {
        "format": FORMAT,
        "name": study.name,
        "task": study.task,
        "metric": study.accept.metric,
        "accept": study.accept.model_dump(mode="json"),
        "prefer": study.prefer,
        "seeds": list(study.seeds),
        "data": {
            "source": study.data.source,
            "train": len(data.train),
            "validation": len(data.validation),
            "test": len(data.test),
            "classes": list(data.classes),
            "channels": data.channels,
            "height": data.height,
            "width": data.width,
            "storage": data.storage,
            "notes": list(data.notes),
        },
        "baseline": rows[0],
        "candidates": rows[1:],
        "recommended": recommended,
        "recommendation": sentence,
        "ship": ship,
        "environment": dict(environment),
        "method": {
            "interval": INTERVAL_METHOD if len(study.seeds) > 1 else ONE_SEED_METHOD,
            "cost": COST_METHOD.format(
                repeats=study.measure.repeats, batch=study.measure.throughput_batch, train_batch=study.train.batch_size
            ),
        },
        "study": study.model_dump(mode="json"),
    }


def _row(
    study: Study,
    data: ImageData,
    outcome: CandidateOutcome,
    baseline: CandidateOutcome,
    cost: Mapping[str, Any] | None,
    comparison: Comparison | None,
    decisions: Mapping[str, Decision],
) -> dict[str, Any]:
    structure, base = outcome.structure, baseline.structure
    is_baseline = outcome.name == BASELINE
    first = next(iter(outcome.trials.values()))
    row: dict[str, Any] = {
        "name": outcome.name,
        "method": outcome.method,
        "status": "ok" if outcome.ok else "failed",
        "plan": dict(outcome.plan),
        "changes": structure["changes"],
        "seeds": list(outcome.trials),
        "learning_rate": first["learning_rate"],
        "learning_rate_search": list(outcome.search),
        "parameters": structure["parameters"],
        "parameters_ratio": structure["parameters"] / base["parameters"],
        "parameters_by_kind": structure["parameters_by_kind"],
        "flops_per_example": structure["flops_per_example"],
        "flops_ratio": structure["flops_per_example"] / base["flops_per_example"],
        "q_ratio": overdetermination_ratio(len(data.train), len(data.classes), structure["parameters"]),
        "quality": None,
        "difference": None,
        "scope": "seeds and examples" if len(study.seeds) > 1 else "one trained pair",
        "per_class": [],
        "curves": [{"seed": seed, "epochs": trial["trained"]["epochs"]} for seed, trial in outcome.trials.items()],
        "train_seconds": None,
        "latency_ms": None,
        "throughput_per_second": None,
        "train_examples_per_second": None,
        "peak_memory_mb": None,
        "train_peak_memory_mb": None,
        **(cost or {}),
        "mcnemar": [],
        "decision": None,
        "reason": None,
        "p_value": None,
        "p_adjusted": None,
        "more_seeds": None,
        "more_examples": None,
        "failures": _failures(outcome),
        "rollbacks": [
            {"seed": seed, "what": what}
            for seed, trial in outcome.trials.items()
            for what in trial["trained"]["rollbacks"]
        ],
        "trials": list(outcome.directories.values()),
    }
    if cost is not None:
        examples = statistics.median(trial["trained"]["examples"] for trial in outcome.trials.values())
        row["train_seconds"] = examples / cost["train_examples_per_second"]
    if outcome.ok:
        interval = quality_interval(outcome.outcomes, study.accept.confidence)
        row["quality"] = {**asdict(interval), "per_seed": [float(mean) for mean in outcome.outcomes.mean(axis=1)]}
        row["per_class"] = _per_class(data, outcome, baseline)
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
        row["difference"] = asdict(comparison.difference)
        row["scope"] = comparison.scope
        row |= asdict(decisions[outcome.name])
        for seed in outcome.predictions:
            test = mcnemar_exact(baseline.predictions[seed].correct, outcome.predictions[seed].correct)
            row["mcnemar"].append({"seed": seed, **asdict(test)})
    return row


def _failures(outcome: CandidateOutcome) -> list[dict[str, Any]]:
    return [
        {"seed": seed, "reason": trial["trained"]["reason"]}
        for seed, trial in outcome.trials.items()
        if trial["trained"]["status"] != "ok"
    ]


def _per_class(data: ImageData, outcome: CandidateOutcome, baseline: CandidateOutcome) -> list[dict[str, Any]]:
    """Accuracy by class, mean over seeds, and the difference to the baseline's."""
    labels = next(iter(outcome.predictions.values())).labels
    right = outcome.outcomes.mean(axis=0)
    base = baseline.outcomes.mean(axis=0) if baseline.ok else None
    found = []
    for number, name in enumerate(data.classes):
        chosen = labels == number
        if not chosen.any():
            continue
        accuracy = float(right[chosen].mean())
        difference = None if base is None else accuracy - float(base[chosen].mean())
        found.append({"class": name, "examples": int(chosen.sum()), "accuracy": accuracy, "difference": difference})
    return found


def _price(row: Mapping[str, Any], prefer: str) -> float | None:
    latency = row["latency_ms"]
    prices: dict[str, float | None] = {
        "parameters": row["parameters"],
        "latency": None if latency is None else latency["p50"],
        "train_seconds": row["train_seconds"],
    }
    return prices[prefer]


def _final_accuracy(trial: Mapping[str, Any]) -> float:
    epochs = trial["trained"]["epochs"]
    return float(epochs[-1]["validation_accuracy"]) if epochs else 0.0
