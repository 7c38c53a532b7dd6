"""Assembles results.json, which the table and the report show, from the trials' results and the measured costs."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from leanformer.config.base import BASELINE, Study
from leanformer.core.warning import rows
from leanformer.decide import judge
from leanformer.decide.decision import after_picking, broken_at_most, recommend
from leanformer.decide.judge import difference_of
from leanformer.measure.cost import overdetermination_ratio
from leanformer.measure.rounds import fewest_rounds
from leanformer.results.costs import COSTS, RUNTIMES
from leanformer.results.metrics import METRICS, Metric
from leanformer.results.rows import CostRatios, Median
from leanformer.results.schema import FORMAT, FORMS, VERSION
from leanformer.study.arms import Arm, CandidateOutcome, Judged, accepting, arms_of
from leanformer.study.cost_ratios import noise_warnings, ratio, speed_ratios, without_interval
from leanformer.study.given_times import GivenTimes
from leanformer.study.ledger import Ledger, Seen
from leanformer.study.robustness import CorruptedAnswers, less_robust, robustness_rows
from leanformer.study.training_checks import training_warnings
from leanformer.tasks.base import Outcome, Task

COST_METHOD = (
    "All models were measured in one process on one machine: after a warm-up, each of {repeats} rounds measured every "
    "model in turn, and each round started with another one. Times are medians over the rounds; a ratio to the "
    "baseline is taken round by round, and its median stands with an interval of 95 % or more that holds for any "
    "distribution{intervals}. Training seconds are the examples of all epochs divided by the measured speed of "
    "training steps, data included; for a distilled candidate they are the seconds of teaching its blocks, of the "
    "teacher's own translations where it learned from them, and of tuning, which have no interval. Memory is the peak "
    "of all tensors (weights, activations, and in training gradients and optimizer state) for a batch of {batch} "
    "(inference) or {train_batch} (training). Operations are those of matrix products and convolutions; a multiply-add "
    "counts as two."
)
NO_INTERVALS = f"; here there were too few rounds for intervals, which take {fewest_rounds()}"
NOISE_REMEDY = (
    "close other programs, raise measure.repeats, or set measure.threads to fewer than the machine's processors"
)
GIVEN_REMEDY = "measure again on the quiet machine, with more rounds: leanformer bench DIR... --rounds 30"
GIVEN_METHOD = (
    " Latency and throughput, though, were not measured here, but by leanformer bench {described}; memory was not "
    "measured there."
)
ENGINE_METHOD = (
    " Latency, throughput and memory are those of the exported models in {engine}, on the CPU; there memory is the "
    "peak of a whole process that opens the model and runs the batch."
)

FOLD_METHOD = " In a cross-validation they are those of the models of one fold, the first of the first seed."


def assemble(
    study: Study,
    task: Task,
    outcomes: Sequence[CandidateOutcome],
    costs: Mapping[str, Mapping[str, Any]],
    environment: Mapping[str, Any],
    ledger: Ledger,
    given_times: GivenTimes | None = None,
    corrupted: CorruptedAnswers | None = None,
) -> dict[str, Any]:
    """The content of ``results.json``, in the form of the study's task (``leanformer.results``).

    Args:
        study: The study.
        task: Its task.
        outcomes: The baseline's first, then the candidates'.
        costs: Name -> ``training`` and ``speeds``, which maps runtimes to costs, for measured models.
        environment: Versions and machine.
        ledger: What was seen of the test split; these outcomes are a look, new or known, and are recorded first.
        given_times: Where latency and throughput come from; None: they were measured here.
        corrupted: The answers to corrupted examples; None: robustness was not measured.
    """
    metric = METRICS[study.accept.metric]
    arms = arms_of(study, outcomes)
    whole = [Arm(outcome.name, outcome) for outcome in outcomes]
    ledger.keep_ships({outcome.recipe: outcome.ships for outcome in outcomes if outcome.ok})
    ledger.look(_seen(study, arms, whole))
    judged = Judged(study, task, arms, ledger, "artifact")
    # With one seed the recipe is that one model, unless what ships is another form of it.
    apart = task.folds is None and (len(study.seeds) > 1 or study.ship is not None)
    recipes = Judged(study, task, whole, ledger, "recipe") if apart else None
    models = [_row(study, task, arm, arms[0], costs, judged, recipes) for arm in arms]
    robust = {} if corrupted is None else robustness_rows(study, arms, corrupted, task.test_groups)
    for row in models:
        row["robustness"] = robust.get(row["name"])
    prices = {row["name"]: COSTS[study.prefer].of(row) for row in models}
    ship = shipped = recommended = None
    if arms[0].ok:
        rounds = study.measure.repeats if given_times is None else given_times.rounds
        recommended, sentence = recommend(
            prices,
            judged.decisions,
            BASELINE,
            study.prefer,
            {row["name"]: _ratio(row, study.prefer) for row in models},
            without_interval(study.prefer, study.measure.repeats if study.prefer == "train_seconds" else rounds),
        )
        sentence = sentence if judged.weak is None else f"{sentence} {judged.weak}"
        chosen = next(arm for arm in arms if arm.name == recommended)
        if task.folds is not None:
            sentence = f"{sentence} {_shipped_fold(chosen.outcome, task.folds.count)}"
        ship = f"{chosen.outcome.directories[chosen.outcome.ships]}/model"
        shipped = None if chosen.export is None else chosen.export.directory
    else:
        sentence = f"Nothing can be recommended: the baseline failed ({arms[0].failures()[0]['reason']})."
    engines = [RUNTIMES[runtime] for runtime in study.runtimes if runtime != "torch"]
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
        "warnings": rows(
            [
                *task.warnings,
                *noise_warnings(models, NOISE_REMEDY if given_times is None else GIVEN_REMEDY),
                *ledger.changes(accepting(study)),
                *ledger.other_splits(),
                *ledger.elsewhere(),
                *training_warnings(study, outcomes, (recipes or judged).comparisons),
                *less_robust(study, recommended, robust),
            ]
        ),
        "looks": _looks(study, judged, ledger),
        "cross_validation": None
        if task.folds is None
        else {"folds": task.folds.count, "test_to_train": task.folds.test_to_train},
        "picked": _picked(metric, study, judged, recommended),
        **task.results(),
        "baseline": models[0],
        "candidates": models[1:],
        "recommended": recommended,
        "recommendation": sentence,
        "ship": ship,
        "shipped": shipped,
        "corruptions": []
        if corrupted is None
        else [{"name": name, "meaning": meaning} for name, meaning in task.corruptions.items()],
        "environment": dict(environment),
        "method": {
            "interval": judge.method(
                metric,
                len(study.seeds),
                FORMS[study.task].wording.example,
                study.accept.looks,
                study.ship is not None,
                task.folds,
            ),
            "cost": COST_METHOD.format(
                repeats=study.measure.repeats,
                batch=study.measure.throughput_batch,
                train_batch=task.batch,
                intervals="" if study.measure.repeats >= fewest_rounds() else NO_INTERVALS,
            )
            + _further_method(engines, given_times)
            + (FOLD_METHOD if task.folds is not None else ""),
        },
        "study": study.model_dump(mode="json"),
    }
    return FORMS[study.task].model_validate(content).content()


def _further_method(engines: Sequence[str], given_times: GivenTimes | None) -> str:
    """How costs were measured if not in PyTorch, or not here."""
    if given_times is not None:
        return GIVEN_METHOD.format(described=given_times.described)
    return ENGINE_METHOD.format(engine=" and ".join(engines)) if engines else ""


def _seen(study: Study, arms: Sequence[Arm], recipes: Sequence[Arm]) -> Seen:
    """What the results show of the test split."""
    metric = METRICS[study.accept.metric]
    answers = [answers for arm in (*arms, *recipes) for answers in arm.tested.each()]
    return Seen(
        outcomes=list(dict.fromkeys(known for one in answers for known in one.signatures(metric))),
        candidates={
            "artifact": {arm.name: arm.identity for arm in arms[1:]},
            "recipe": {arm.name: arm.identity for arm in recipes[1:]},
        },
        seeds=sorted(study.seeds),
        accept=accepting(study),
        baseline_seeds=sorted(set(study.baseline_seeds) - set(study.seeds)),
    )


def _looks(study: Study, judged: Judged, ledger: Ledger) -> dict[str, Any]:
    """At which look the study is, and what each costs."""
    return {
        "number": judged.look.number,
        "planned": judged.look.planned,
        "error": judged.look.level(study.accept.confidence),
        "candidates": len(ledger.evaluated("artifact")),
        "history": ledger.history(),
    }


def _picked(metric: Metric, study: Study, judged: Judged, name: str | None) -> dict[str, Any] | None:
    """The difference of the recommended candidate, with an interval that accounts for its being picked."""
    if name is None or name not in judged.comparisons:
        return None
    candidates = len(judged.comparisons) + judged.look.others
    comparison = judged.comparisons[name]
    interval = after_picking(
        comparison, 1 - judged.look.level(study.accept.confidence), candidates, comparison.components.largest
    )
    return {
        "difference": difference_of(metric, replace(comparison, difference=interval)),
        "candidates": candidates,
    }


def _row(
    study: Study,
    task: Task,
    arm: Arm,
    baseline: Arm,
    costs: Mapping[str, Mapping[str, Any]],
    judged: Judged,
    recipes: Judged | None,
) -> dict[str, Any]:
    outcome = arm.outcome
    structure, base = outcome.structure, baseline.outcome.structure
    is_baseline = arm is baseline
    first = next(iter(outcome.trials.values()))
    row: dict[str, Any] = FORMS[study.task].blank_row() | {
        "name": arm.name,
        "method": outcome.method,
        "status": "ok" if arm.ok else "failed",
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
        "scope": "one trained pair",
        "decided_seed": outcome.ships,
        "decided_fold": outcome.folds.get(outcome.ships),
        "teaching": _teaching(outcome),
        "curves": [{"seed": seed, "epochs": trial["trained"]["epochs"]} for seed, trial in outcome.trials.items()],
        "bytes": outcome.bytes if arm.export is None else arm.export.result.get("bytes"),
        **(_costs(study, arm, baseline, costs) if outcome.name in costs else {}),
        "failures": arm.failures(),
        "rollbacks": [
            {"seed": seed, "what": what}
            for seed, trial in outcome.trials.items()
            for what in trial["trained"]["rollbacks"]
        ],
        "trials": list(outcome.directories.values()),
    }
    if arm.ok:
        row["quality"] = task.quality(arm.tested)
        row["artifact"] = _artifact(task, arm)
        beside = None if not baseline.ok else arm.tested if is_baseline else arm.tested.rival(baseline.beside(arm))
        row |= task.details(arm.tested, beside)
    if recipes is not None and arm.name in recipes.arms:
        row["recipe"] = _recipe(study, task, recipes, arm.name)
    if not arm.ok:
        failure = row["failures"][0]
        row |= {
            "decision": None if is_baseline else "reject",
            "reason": f"Its training failed with seed {failure['seed']}: {failure['reason']}."
            if not outcome.ok
            else f"{failure['reason'][0].upper()}{failure['reason'][1:]}.",
        }
    elif is_baseline:
        row["reason"] = "what the others are compared with"
    elif arm.name not in judged.comparisons:
        row |= {"decision": "undecided", "reason": "The baseline failed, so that there is nothing to compare with."}
    else:
        row |= _decided(judged, arm.name, METRICS[study.accept.metric])
    return row


def _shipped_fold(outcome: CandidateOutcome, folds: int) -> str:
    """Which of a recipe's models ships after a cross-validation, and what it was trained on."""
    return (
        f"Its model of seed {outcome.ships}, fold {outcome.folds[outcome.ships]} ships, the best on its validation "
        f"split: it was trained on {folds - 1}/{folds} of the data, and the decision is on the recipe, not on this "
        "model alone."
    )


def _decided(judged: Judged, name: str, metric: Metric) -> dict[str, Any]:
    """The difference to the baseline, and the decision."""
    comparison = judged.comparisons[name]
    decided = {
        "difference": difference_of(metric, comparison),
        "scope": comparison.scope,
        **asdict(judged.decisions[name]),
    }
    return decided | ({"more_examples": None} if judged.arms[name].is_recipe else {})  # new examples decide on models


def _recipe(study: Study, task: Task, recipes: Judged, name: str) -> dict[str, Any] | None:
    """The decision on a recipe, beside the one on the model that ships; None where a training failed."""
    arm = recipes.arms[name]
    if not arm.ok:
        return None
    decided = dict.fromkeys(
        ("difference", "decision", "reason", "p_value", "p_adjusted", "more_seeds", "more_examples", "accepted_at")
    )
    seeds = len(arm.outcome.trials)
    decided["scope"] = "seeds and examples" if seeds > 1 else "one trained pair"
    if name in recipes.comparisons:
        decided |= _decided(recipes, name, METRICS[study.accept.metric])
    broken = broken_at_most(seeds, study.accept.confidence)
    return {"quality": task.quality(arm.tested), **decided, "broken_at_most": broken}


def _artifact(task: Task, arm: Arm) -> dict[str, Any] | None:
    """The exported model of a row, with its quality before it was exported."""
    export = arm.export
    if export is None:
        return None
    seed, parity = export.result["seed"], export.result["parity"]
    return {
        "format": export.format,
        "precision": export.precision,
        "directory": export.directory,
        "seed": seed,
        "before": task.quality(Outcome({seed: arm.outcome.tested.answers[seed]})),
        "agreement": parity["agreement"],
        "compared": parity["inputs"],
        "largest_difference": parity["largest_difference"],
    }


def _costs(study: Study, arm: Arm, baseline: Arm, costs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A row's costs: in each runtime, those of the first once more on top, and those of training."""
    cost = costs[arm.outcome.name]
    base = None if arm is baseline else costs.get(baseline.outcome.name)
    bases = {} if base is None else _speeds(study, baseline, base)
    speeds = [
        {
            "runtime": runtime,
            **speed,
            "ratios": speed_ratios(speed, bases[runtime]) if runtime in bases else None,
        }
        for runtime, speed in _speeds(study, arm, cost).items()
    ]
    found: dict[str, Any] = {"speeds": speeds, **cost["training"]}
    ratios: dict[str, Any] = dict.fromkeys(CostRatios.model_fields)
    if speeds and speeds[0]["runtime"] == study.runtimes[0]:
        found |= {key: value for key, value in speeds[0].items() if key not in ("runtime", "rounds", "ratios")}
        ratios |= speeds[0]["ratios"] or {}
    if arm.outcome.method == "distill":
        found["train_seconds"] = statistics.median(_distilling_seconds(trial) for trial in arm.outcome.trials.values())
    else:
        found["train_seconds"] = _examples(arm) / cost["training"]["train_examples_per_second"]
        if base is not None:
            seconds, of_baseline = (
                [_examples(one) / speed for speed in measured["training_rounds"]]
                for one, measured in ((arm, cost), (baseline, base))
            )
            ratios["train_seconds"] = ratio(seconds, of_baseline)
    return found | {"cost_ratios": None if base is None else ratios}


def _speeds(study: Study, arm: Arm, cost: Mapping[str, Any]) -> dict[str, Any]:
    """Runtime -> what was measured of a model there."""
    found: dict[str, Any] = {}
    for runtime in study.runtimes:
        exported = f"{runtime}-float32" if arm.export is None or runtime != arm.export.format else arm.export.runtime
        speed = cost["speeds"].get("torch" if runtime == "torch" else exported)
        if speed is not None:
            found[runtime] = speed
    return found


def _examples(arm: Arm) -> float:
    """The examples of all epochs, the median of the trainings."""
    return statistics.median(trial["trained"]["examples"] for trial in arm.outcome.trials.values())


def _ratio(row: Mapping[str, Any], cost: str) -> Median | None:
    """A row's measured cost as a multiple of the baseline's; None where there is no interval."""
    found = (row["cost_ratios"] or {}).get(cost)
    return None if found is None else Median.model_validate(found)


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
