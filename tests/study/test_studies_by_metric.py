"""Studies of image classifiers that are decided by other metrics than accuracy."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from cases import slow
from sklearn.metrics import confusion_matrix
from studies import results_of, rows_of, run

import leanformer as lf
from leanformer.config.classification import ClassAcceptConfig
from leanformer.core.errors import LeanformerError
from leanformer.measure.quality import Predictions
from leanformer.results.metrics import METRICS
from leanformer.tasks.base import Outcome, open_task
from leanformer.tasks.classification import scoring_of

Make = Callable[..., dict[str, Any]]


@pytest.mark.parametrize(
    ("accept", "message"),
    [
        ({"metric": "cost"}, r"accept: the metric cost needs cost_matrix, which has no default; give it"),
        (
            {"metric": "cost", "cost_matrix": {"3": {"5": 4}}},
            r"accept: the metric cost needs max_drop, which has no default; give it",
        ),
        (
            {"metric": "cost", "max_drop": 0.1, "cost_matrix": [[0, 1], [1]]},
            r"accept.cost_matrix: give a list for each class, all as long as there are classes",
        ),
        (
            {"metric": "cost", "max_drop": 0.1, "cost_matrix": [[0, 0], [0, 0]]},
            r"accept.cost_matrix: all costs are 0; give the wrong answers their costs",
        ),
        ({"metric": "recall_at_false_alarms"}, r"accept: the metric recall_at_false_alarms needs positive"),
        ({"coverage": 0.9}, r"accept.coverage does nothing here: the metric accuracy does not read it; leave it out"),
        ({"metric": "mcc", "max_drop": 2}, r"accept.max_drop: input should be less than 2"),
    ],
)
def test_accept_says_what_its_metric_needs(accept: dict[str, Any], message: str, digits_study: Make) -> None:
    with pytest.raises(LeanformerError, match=message):
        lf.make_study(digits_study(accept=accept))


@pytest.mark.parametrize(
    ("accept", "message"),
    [
        (
            {"metric": "cost", "max_drop": 0.1, "cost_matrix": ((0.0, 1.0), (1.0, 0.0))},
            r"accept.cost_matrix: it has 2 rows, and the data 10 classes: 0, 1, .*; give a row and a column for each",
        ),
        (
            {"metric": "cost", "max_drop": 0.1, "cost_matrix": {"3": {"five": 4}}},
            r"accept.cost_matrix: the data have no class 'five'; classes: 0, 1, 2",
        ),
        ({"metric": "auc", "positive": "cat"}, r"accept.positive: the data have no class 'cat'"),
    ],
)
def test_accept_fits_the_data(accept: dict[str, Any], message: str) -> None:
    with pytest.raises(LeanformerError, match=message):
        scoring_of(ClassAcceptConfig(**accept), [str(number) for number in range(10)])


def test_costs_are_a_matrix_in_the_order_of_the_classes() -> None:
    def costs(matrix: Any) -> Any:
        accept = ClassAcceptConfig(metric="cost", max_drop=0.1, cost_matrix=matrix)
        return scoring_of(accept, ["cat", "dog", "cow"])["costs"].tolist()

    assert costs({"dog": {"cat": 4.0, "dog": 0.5}}) == [[0, 1, 1], [4, 0.5, 1], [1, 1, 0]]
    assert costs(((0, 2, 3), (4, 0, 5), (6, 7, 0))) == [[0, 2, 3], [4, 0, 5], [6, 7, 0]]


def test_answers_keep_what_the_metric_needs(digits_study: Make, tmp_path: Path) -> None:
    accept = {"metric": "recall_at_false_alarms", "positive": "3", "false_alarm_rate": 0.1}
    task = open_task(lf.make_study(digits_study(accept=accept)), torch.device("cpu"))
    model = task.make_baseline(0)
    answers = task.evaluate(model)
    (tmp_path / "answers.parquet").write_bytes(answers.to_bytes())
    read: Any = task.read_answers(tmp_path / "answers.parquet")
    assert task.scores(read) == task.scores(answers)
    assert read.logits.shape == (len(read.labels), 10)
    assert (read.logits.argmax(axis=1) == read.predictions).all()
    # The threshold is the one of the validation split, and the recall is counted with it on the test split.
    exponents = np.exp(read.logits.astype(float))
    probabilities = (exponents / exponents.sum(axis=1, keepdims=True))[:, 3]
    least = 1 / (1 + np.exp(-read.thresholds["recall_at_false_alarms"]))
    recall = (probabilities[read.labels == 3] > least).mean()
    assert task.scores(read)["recall_at_false_alarms"] == pytest.approx(recall)
    validation: Any = task.validation_answers(model)
    assert (validation.logits[:, 3] - validation.logits.max(axis=1)).max() <= 0
    chosen = replace(validation, thresholds=read.thresholds)
    alarms = METRICS["recall_at_false_alarms"].statistics(chosen).sum(axis=0)
    assert 0 < alarms[2] <= 0.1 * alarms[3]
    # Without a threshold of the validation split, there is no score of this metric.
    assert "recall_at_false_alarms" not in Predictions.scores(replace(read, thresholds={}))


def test_probabilities_are_outcomes_where_the_metric_reads_them() -> None:
    logits, losses = np.array([[2.0, 0.0], [0.0, 1.0]], np.float32), np.array([0.1, 0.3])
    answers = Predictions(np.array([0, 1]), np.array([0, 1]), losses, logits)
    surer = replace(answers, losses=losses / 2, logits=2 * logits)
    classes = hashlib.sha256(np.array([0, 1]).tobytes()).hexdigest()  # as ledgers have it
    for key in ("accuracy", "balanced_accuracy", "cost"):
        assert answers.signatures(METRICS[key]) == surer.signatures(METRICS[key]) == [classes]
    for key in ("log_loss", "auc", "recall_at_false_alarms", "accuracy_at_coverage"):
        first, second = answers.signatures(METRICS[key]), surer.signatures(METRICS[key])
        assert first[0] == second[0] == classes  # with another metric, what was seen of the classes stays known
        assert first[1] != second[1]
        assert len(first) == 2


@pytest.mark.long
def test_probabilities_that_change_without_their_class_are_a_look(digits_study: Make, tmp_path: Path) -> None:
    study = digits_study(seeds=[0], candidates={"no-mlp": {"plan": {"*.mlp": "none"}}})
    for accept, look in (({}, 1), ({"metric": "auc"}, 2), ({"metric": "auc", "max_drop": 0.02}, 2), ({}, 2)):
        run({**study, "accept": {**accept, "looks": 4}}, tmp_path / "run")
        assert results_of(tmp_path / "run")["looks"]["number"] == look


def test_a_threshold_of_few_images_is_warned_of(digits_study: Make) -> None:
    accept = {"metric": "recall_at_false_alarms", "positive": "3"}
    task: Any = open_task(lf.make_study(digits_study(accept=accept)), torch.device("cpu"))
    others = int((task.data.validation.labels != 3).sum())
    assert others < 100
    task.check_test()
    warned = task.warnings[-1]
    assert (warned.code, warned.count) == ("coarse-threshold", others)
    assert f"a false-alarm rate of 0.01 is less than one of the {others} validation images" in warned.sentence
    task.study = lf.make_study(digits_study(accept={**accept, "false_alarm_rate": 0.5}))
    task.warnings = []
    task.check_test()
    assert not task.warnings


@pytest.mark.parametrize("metric", ["cost", *slow("auc", "accuracy_at_coverage", "log_loss", "mcc")])
def test_a_model_that_knows_nothing(metric: str, digits_study: Make) -> None:
    accept: dict[str, Any] = {"metric": metric}
    if metric == "cost":
        accept |= {"cost_matrix": {"1": {"2": 3.0}}, "max_drop": 0.1}
    task = open_task(lf.make_study(digits_study(accept=accept)), torch.device("cpu"))
    data: Any = task
    shares = np.bincount(data.data.test.labels.numpy()) / len(data.data.test)
    wrong = (1 - shares) + 2 * shares[1] * (np.arange(10) == 2)  # the expected cost of always giving a class
    expected = {
        "auc": 0.5,
        "cost": wrong.min(),
        "accuracy_at_coverage": shares.max(),
        "log_loss": -(shares * np.log(shares)).sum(),
        "mcc": 0.0,
    }
    assert task.worthless_quality == pytest.approx(expected[metric])


@pytest.mark.long
def test_a_finished_study_is_decided_by_other_metrics(digits_study: Make, tmp_path: Path) -> None:
    study = digits_study(
        candidates={"no-mlp": {"plan": {"*.mlp": "none"}}},
        train={"epochs": 3, "batch_size": 64, "learning_rate": [3e-3, 1e-2]},
        seeds=[0, 1],
    )
    run(study, tmp_path / "run")
    trial = tmp_path / "run" / rows_of(tmp_path / "run")["baseline"]["trials"][0]
    assert "logits" not in pq.read_schema(trial / "predictions.parquet").names
    accept: dict[str, Any]
    for accept in (
        {"metric": "balanced_accuracy"},
        {"metric": "log_loss"},
        {"metric": "cost", "max_drop": 0.1, "cost_matrix": {"1": {"7": 5}}},
        {"metric": "cost", "max_drop": 0.1, "cost_matrix": {"1": {"7": 9}}},
        {"metric": "auc"},
        {"metric": "recall_at_false_alarms", "positive": "3"},
        {"metric": "recall_at_false_alarms", "positive": "3", "false_alarm_rate": 0.2},
        {"metric": "accuracy_at_coverage"},
    ):
        _, log = run({**study, "accept": accept}, tmp_path / "run")
        assert "epoch 1" not in log
        row = rows_of(tmp_path / "run")["no-mlp"]
        assert row["quality"]["low"] < row["quality"]["mean"] < row["quality"]["high"]
        metric = METRICS[str(accept["metric"])]
        result = json.loads((trial / "result.json").read_text())
        assert result["validation"][f"validation_{metric.key}"] is not None
        answers = pq.read_table(trial / "predictions.parquet")
        right = np.mean(answers["label"].to_numpy() == answers["prediction"].to_numpy())
        assert result["accuracy"] == pytest.approx(right)
        assert results_of(tmp_path / "run")["accept"]["metric"] == metric.key


@pytest.mark.long
def test_a_search_is_judged_again_with_other_costs(digits_study: Make, tmp_path: Path) -> None:
    study = digits_study(
        candidates={"no-mlp": {"plan": {"*.mlp": "none"}}},
        train={"epochs": 2, "batch_size": 64, "learning_rate": [3e-3, 1e-2]},
        seeds=[0],
        accept={"metric": "accuracy_at_coverage", "coverage": 0.5},
    )
    run(study, tmp_path / "run")
    before = [run["accuracy_at_coverage"] for run in rows_of(tmp_path / "run")["no-mlp"]["learning_rate_search"]]
    study["accept"] = {"metric": "accuracy_at_coverage", "coverage": 0.99}
    _, log = run(study, tmp_path / "run")
    assert "epoch 1" not in log
    after = [run["accuracy_at_coverage"] for run in rows_of(tmp_path / "run")["no-mlp"]["learning_rate_search"]]
    assert all(now < then for now, then in zip(after, before, strict=True))


def test_class_weights_are_those_of_the_training_split(digits_study: Make) -> None:
    def weighted(value: Any) -> Any:
        study = digits_study(train={"epochs": 1, "batch_size": 64, "learning_rate": 1e-2, "class_weights": value})
        return open_task(lf.make_study(study), torch.device("cpu"))

    task = weighted("balanced")
    labels = task.data.train.labels
    expected = [len(labels) / (10 * int((labels == number).sum())) for number in range(10)]
    assert task.class_weights.tolist() == pytest.approx(expected)
    some = weighted({"3": 5.0, "0": 0.5})
    assert some.class_weights.tolist() == [0.5, 1, 1, 5, 1, 1, 1, 1, 1, 1]
    with pytest.raises(LeanformerError, match=r"train.class_weights: the data have no class 'x'; classes: 0, 1, 2"):
        weighted({"x": 2.0})
    with pytest.raises(LeanformerError, match=r"train.class_weights.3: input should be greater than 0"):
        weighted({"3": 0})
    with pytest.raises(LeanformerError, match="class_weights: input should be balanced, or a mapping from classes to"):
        weighted("balance")

    # The loss of a batch is the weighted mean of its examples' cross-entropies.
    model, batch = task.make_baseline(0).eval(), next(task.validation_batches())
    logits = model(pixel_values=batch["pixel_values"]).logits
    losses = -logits.log_softmax(dim=-1)[torch.arange(len(logits)), batch["labels"]]
    weights = torch.tensor(expected)[batch["labels"]]
    wanted = ((weights * losses).sum() / weights.sum()).item()
    assert next(task.loss()(model, batch)).item() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.long
def test_class_weights_train_again_only_where_they_are_set(digits_study: Make, tmp_path: Path) -> None:
    candidates = {"taught": {"plan": {"*.mlp": {"block": "mlp", "hidden": 8}}, "method": "distill"}}
    study = digits_study(candidates=candidates, seeds=[0], train={"epochs": 4, "batch_size": 64})
    study["train"]["learning_rate"] = 1e-2
    study |= {"distill": {"epochs": 1}, "finetune": {"epochs": 1}}
    run(study, tmp_path / "run")
    _, log = run({**study, "train": {**study["train"], "class_weights": None}}, tmp_path / "run")
    assert "epoch 1" not in log
    before = {name: row["quality"]["mean"] for name, row in rows_of(tmp_path / "run").items()}
    # Images of two classes alone count, so that the others are not learned, neither by the baseline nor in tuning.
    weights = {str(number): 1e-6 for number in range(2, 10)}
    run({**study, "train": {**study["train"], "class_weights": weights}}, tmp_path / "run")
    for row in rows_of(tmp_path / "run").values():
        of_class = {entry["class"]: entry["accuracy"] for entry in row["per_class"]}
        assert row["quality"]["mean"] < before[row["name"]]
        assert min(of_class["0"], of_class["1"]) > max(of_class[str(number)] for number in range(2, 10))


def test_confusions_are_counted_over_the_seeds(digits_study: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    task: Any = open_task(lf.make_study(digits_study(seeds=[0, 1])), torch.device("cpu"))
    answers = {seed: task.evaluate(task.make_baseline(seed)) for seed in (0, 1)}
    found = task.details(Outcome(answers), None)["confusion"]
    labels = np.concatenate([one.labels for one in answers.values()])
    predictions = np.concatenate([one.predictions for one in answers.values()])
    expected = confusion_matrix(labels, predictions, labels=range(10))
    assert found.models == 2
    assert found.matrix == expected.tolist()
    np.fill_diagonal(expected, 0)
    assert found.pairs[0].count == expected.max()
    assert found.pairs[0].examples == int((labels == int(found.pairs[0].correct)).sum())
    monkeypatch.setattr("leanformer.tasks.classification.MOST_IN_MATRIX", 9)
    assert task.details(Outcome(answers), None)["confusion"].matrix is None
