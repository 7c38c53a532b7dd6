"""Metrics of labels, against scikit-learn and numbers by hand, and their decisions."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score, log_loss, matthews_corrcoef, roc_auc_score

from leanformer.decide import judge
from leanformer.decide.decision import decide
from leanformer.results.metrics import METRICS, CorpusMetric, Labels, judging
from leanformer.results.metrics.kit.classes import alarm_threshold, coverage_threshold, log_odds


def answers(classes: int, examples: int = 400, seed: int = 0, skill: float = 1.5, weights: Any = None) -> Labels:
    """Random logits that favour the correct class."""
    generator = np.random.default_rng(seed)
    labels = generator.choice(classes, size=examples, p=weights)
    logits = generator.standard_normal((examples, classes)).astype(np.float32)
    logits[np.arange(examples), labels] += skill
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return Labels(labels, logits.argmax(axis=1), -logs[np.arange(examples), labels], logits, classes)


def value(key: str, labels: Labels) -> float:
    return METRICS[key].of(METRICS[key].statistics(labels))


def probabilities(labels: Labels) -> np.ndarray:
    assert labels.logits is not None
    exponents = np.exp(labels.logits.astype(float))
    return np.asarray(exponents / exponents.sum(axis=1, keepdims=True))


@pytest.mark.parametrize("classes", [2, 7])
def test_scores_are_those_of_scikit_learn(classes: int) -> None:
    found = answers(classes, weights=np.arange(1, classes + 1) / sum(range(1, classes + 1)))
    labels, predictions = found.labels, found.predictions
    assert value("balanced_accuracy", found) == pytest.approx(balanced_accuracy_score(labels, predictions))
    assert value("macro_f1", found) == pytest.approx(f1_score(labels, predictions, average="macro"))
    assert value("mcc", found) == pytest.approx(matthews_corrcoef(labels, predictions))
    assert value("log_loss", found) == pytest.approx(log_loss(labels, probabilities(found)), rel=1e-6)
    scores = probabilities(found)[:, 1] if classes == 2 else probabilities(found)
    assert value("auc", found) == pytest.approx(roc_auc_score(labels, scores, multi_class="ovr"))
    one = replace(found, positive=1)
    assert value("auc", one) == pytest.approx(roc_auc_score(labels == 1, probabilities(found)[:, 1]))


def test_scores_by_hand() -> None:
    # Correct 0 0 0 1 1, predicted 0 0 1 1 2; class 2 never occurs.
    found = Labels(np.array([0, 0, 0, 1, 1]), np.array([0, 0, 1, 1, 2]), classes=3)
    assert value("balanced_accuracy", found) == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert value("macro_f1", found) == pytest.approx((4 / 5 + 2 / 4) / 2)
    # c s - sum(p t) = 3 * 5 - (2 * 3 + 2 * 2 + 1 * 0) = 5; s^2 - sum(p^2) = 25 - 9; s^2 - sum(t^2) = 25 - 13
    assert value("mcc", found) == pytest.approx(5 / math.sqrt(16 * 12))
    assert value("mcc", replace(found, predictions=np.zeros(5, dtype=int))) == 0
    costs = np.array([[0.0, 4.0, 9.0], [1.0, 0.0, 3.0], [2.0, 2.0, 0.0]])
    assert value("cost", replace(found, costs=costs)) == pytest.approx((0 + 0 + 4 + 0 + 3) / 5)


def test_a_replicate_may_lack_a_class() -> None:
    right = np.array([[5.0, 0, 5, 0, 5, 0]])  # found, labels and predictions of two classes; the second is absent
    assert METRICS["balanced_accuracy"].score(right) == pytest.approx(1.0)
    assert METRICS["macro_f1"].score(right) == pytest.approx(1.0)
    assert METRICS["mcc"].score(right) == pytest.approx(0.0)
    assert METRICS["auc"].score(np.array([[4.0, 5, 0, 0]])) == pytest.approx(0.5)


def test_ties_count_half_and_sure_answers_are_told_apart() -> None:
    logits = np.array([[0, 0], [0, 0], [0, 60], [0, 50]], dtype=np.float32)
    found = Labels(np.array([0, 1, 1, 0]), logits.argmax(axis=1), logits=logits, classes=2)
    # Pairs: the first positive ties with one negative and is below the other; the second is above both.
    assert value("auc", found) == pytest.approx((0.5 + 0 + 2) / 4)
    assert log_odds(found)[2:, 1] == pytest.approx([60, 50])


def test_the_variance_of_auc_is_delongs() -> None:
    first, second = answers(2, 300, seed=1, skill=0.7), answers(2, 300, seed=1, skill=0.7)
    assert second.logits is not None
    noise = np.random.default_rng(5).standard_normal(second.logits.shape)
    second = replace(second, logits=second.logits + 0.7 * noise.astype(np.float32))

    def kernel(labels: Labels) -> np.ndarray:  # (positives, negatives)
        scores = log_odds(labels)[:, 1]
        gaps = scores[labels.labels == 1][:, None] - scores[labels.labels == 0]
        return np.asarray((gaps > 0) + 0.5 * (gaps == 0))

    apart = kernel(second) - kernel(first)
    positives, negatives = apart.shape
    delong = apart.mean(axis=1).var(ddof=1) / positives + apart.mean(axis=0).var(ddof=1) / negatives
    metric = METRICS["auc"]
    assert isinstance(metric, CorpusMetric)
    metric = replace(metric, heaviest=lambda _: 1e-6)  # almost without pseudo-examples
    counts = [[metric.statistics(labels)] for labels in (first, second)]
    found = judge.compare(metric, counts[0], counts[1], 0.05, 0.95)
    assert found.difference.mean == pytest.approx(apart.mean())
    assert found.standard_error == pytest.approx(delong**0.5, rel=0.15)


def test_thresholds_are_chosen_on_other_answers() -> None:
    scores = np.array([-3.0, -2, -1, 0, 1, 2, 0.5, 3])
    logits = np.stack([np.zeros(8), scores], axis=1)
    labels = np.array([0, 0, 0, 0, 0, 1, 1, 1])
    validation = Labels(labels, (scores > 0).astype(int), logits=logits, classes=2, positive=1, false_alarm_rate=0.2)
    assert alarm_threshold(validation) == pytest.approx(0.0)  # one of the five others is above it
    assert alarm_threshold(replace(validation, false_alarm_rate=0.1)) == pytest.approx(1.0)  # none
    assert coverage_threshold(replace(validation, coverage=0.5)) == pytest.approx(2.0)  # 3, 3, 2 and 2
    test = replace(validation, thresholds={"recall_at_false_alarms": 1.5, "accuracy_at_coverage": 1.0})
    assert value("recall_at_false_alarms", test) == pytest.approx(2 / 3)
    # Answered: -3, -2, -1, 1, 2 and 3, of which 1 is wrong.
    assert value("accuracy_at_coverage", test) == pytest.approx(5 / 6)


def test_a_metric_measures_only_what_it_has() -> None:
    found = Labels(np.array([0, 1]), np.array([0, 1]), classes=2)
    assert not METRICS["log_loss"].measures(found)
    assert not METRICS["auc"].measures(found)
    assert not METRICS["cost"].measures(found)
    assert METRICS["mcc"].measures(found)
    with_logits = replace(found, logits=np.eye(2), positive=1)
    assert METRICS["auc"].measures(with_logits)
    assert not METRICS["recall_at_false_alarms"].measures(with_logits)


def test_a_rare_class_keeps_the_decision_open() -> None:
    """Two models that are right on all ten images of a rare class may still differ there."""
    labels = np.repeat([0, 1], [990, 10])
    same = Labels(labels, labels, np.zeros(1000), np.eye(2)[labels] * 9, 2, positive=1)
    same = replace(same, thresholds={"recall_at_false_alarms": 0.0, "accuracy_at_coverage": 0.0})
    errors = {}
    for key in ("balanced_accuracy", "macro_f1", "mcc", "auc", "recall_at_false_alarms", "accuracy_at_coverage"):
        metric = METRICS[key]
        counts = [metric.statistics(same)]
        found = judge.compare(metric, counts, counts, 0.01, 0.95)
        errors[key] = found.standard_error
        decision = decide({"same": found}, 0.01, 0.95, metric)["same"].decision
        assert decision == ("accept" if key == "accuracy_at_coverage" else "undecided")
    # An example of the rare class is a tenth of its recall, and half of that of a mean over two classes.
    assert errors["recall_at_false_alarms"] == pytest.approx(0.1, rel=0.1)
    assert errors["balanced_accuracy"] == pytest.approx(0.05, rel=0.1)


@pytest.mark.parametrize("key", [metric.key for metric in judging("labels")])
def test_every_metric_decides(key: str) -> None:
    metric = METRICS[key]
    known: dict[str, Any] = {"costs": 1 - np.eye(3), "positive": 2}

    def arm(skill: float) -> list[np.ndarray]:
        made = [replace(answers(3, 1500, seed, skill), **known) for seed in range(3)]
        labels = made[0].labels  # the same test images for all seeds
        found = []
        for seed in range(3):
            generator = np.random.default_rng(100 + seed)
            logits = generator.standard_normal((1500, 3)) + skill * np.eye(3)[labels]
            logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
            losses = -logs[np.arange(1500), labels]
            one = replace(made[0], predictions=logits.argmax(axis=1), losses=losses, logits=logits)
            chosen = {} if metric.threshold is None else {key: metric.threshold(one)}
            found.append(metric.statistics(replace(one, thresholds=chosen)))
        return found

    good, bad = arm(3.0), arm(1.0)
    comparisons = {
        "same": judge.compare(metric, good, good, 0.2, 0.95),
        "worse": judge.compare(metric, good, bad, 0.05, 0.95),
    }
    assert decide({"a": comparisons["same"]}, 0.2, 0.95, metric)["a"].decision == "accept"
    assert decide({"a": comparisons["worse"]}, 0.05, 0.95, metric)["a"].decision == "reject"
    quality = judge.quality(metric, good, 0.95)
    assert metric.least <= quality.low < quality.mean < quality.high <= metric.greatest
    assert metric.sign * judge.difference_of(metric, comparisons["worse"]).mean < 0


def test_many_classes_are_compared_as_a_sparse_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    metric = METRICS["macro_f1"]
    first, second = ([metric.statistics(answers(20, 300, skill=skill))] for skill in (2.0, 1.5))
    dense = judge.compare(metric, first, second, 0.05, 0.95)
    monkeypatch.setattr("leanformer.decide.corpus._LARGE", 0)
    sparse = judge.compare(metric, first, second, 0.05, 0.95)
    assert sparse.standard_error == pytest.approx(dense.standard_error)
    assert sparse.difference.mean == pytest.approx(dense.difference.mean)


def test_an_interval_of_mcc_goes_below_zero() -> None:
    metric = METRICS["mcc"]
    found = judge.quality(metric, [metric.statistics(answers(2, 200, seed, skill=0.0)) for seed in (3, 4)], 0.95)
    assert -1 < found.low < 0 < found.high


def test_metrics_are_written_with_their_digits() -> None:
    assert METRICS["mcc"].value(0.87654) == "0.877"
    assert METRICS["log_loss"].value(0.1234) == "0.123 nats"
    assert METRICS["auc"].difference(-0.00123) == "-0.0012 AUC"
    assert METRICS["mcc"].progress(0.87654) == "mcc 0.877"
    assert METRICS["macro_f1"].progress(0.87654) == "f1 87.7%"
