"""Warnings about how models were trained, on outcomes that are written by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import leanformer as lf
from leanformer.config.base import Study
from leanformer.decide.statistics import Comparison, compare
from leanformer.study.arms import CandidateOutcome
from leanformer.study.training_checks import still_rises, training_warnings
from leanformer.tasks.base import Outcome

MakeStudy = Callable[..., dict[str, Any]]
FLAT = [0.5, 0.8, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9]
RATES = [1e-3, 3e-3, 1e-2]


def outcome_of(
    name: str = "baseline",
    rate: float = 3e-3,
    curves: Sequence[Sequence[float]] = (FLAT,),
    failed: Sequence[float] = (),
) -> CandidateOutcome:
    """A model's outcome: the rate that it was trained with, and for each seed its validation accuracies."""
    trials = {
        seed: {
            "learning_rate": rate,
            "trained": {"status": "ok", "epochs": [{"validation_accuracy": value} for value in curve]},
        }
        for seed, curve in enumerate(curves)
    }
    search = [{"learning_rate": one, "status": "failed" if one in failed else "ok"} for one in RATES]
    return CandidateOutcome(
        name, "distill" if name == "student" else "scratch", {}, {}, search, trials, Outcome({}), {}
    )


def warned(study: dict[str, Any], *outcomes: CandidateOutcome, **comparisons: Comparison) -> dict[str, str]:
    """Code -> sentence."""
    checked: Study = lf.make_study(study)
    found = training_warnings(checked, outcomes, comparisons)
    assert len({warning.code for warning in found}) == len(found)
    return {warning.code: f"{warning.sentence} ({warning.count})" for warning in found}


@pytest.fixture
def long_study(digits_study: MakeStudy) -> MakeStudy:
    def make(**train: Any) -> dict[str, Any]:
        return digits_study(train={"epochs": 10, "batch_size": 64, "learning_rate": RATES, **train})

    return make


def test_trainings_without_a_doubt_give_no_warning(long_study: MakeStudy) -> None:
    assert warned(long_study(search_epochs=5), outcome_of(), outcome_of("minimal")) == {}


def test_a_search_of_less_than_half_the_epochs(long_study: MakeStudy) -> None:
    assert warned(long_study(search_epochs=4), outcome_of(), outcome_of("minimal")) == {
        "short-search": "the learning rates were searched with 4 epochs, and models are trained with 10: the best rate "
        "may be another there; set train.search_epochs to 5 or more, or leave it out (2)"
    }


@pytest.mark.parametrize(
    ("rates", "best", "words"),
    [
        (RATES, 1e-2, "is 0.01, the greatest of the list: one beyond it may be better; add 0.03 to"),
        (RATES, 1e-3, "is 0.001, the least of the list: one beyond it may be better; add 0.0003 to"),
        ([1e-2, 3e-3, 1e-3], 1e-2, "is 0.01, the greatest of the list"),
        ([1e-3, 4e-3], 4e-3, "add 0.02 to"),
        ([1e-3, 1.1e-3], 1.1e-3, "add 0.002 to"),  # the step is at least a factor of two
        ([1e-3, 1.1e-3], 1e-3, "add 0.0005 to"),
    ],
)
def test_a_rate_at_the_edge(long_study: MakeStudy, rates: list[float], best: float, words: str) -> None:
    found = warned(long_study(learning_rate=rates), outcome_of("baseline", best), outcome_of("minimal", 2e-3))
    assert list(found) == ["rate-at-edge"]
    assert found["rate-at-edge"].startswith("the best learning rate of baseline is ")
    assert words in found["rate-at-edge"]
    assert found["rate-at-edge"].endswith("(1)")


def test_models_at_an_edge_are_named_and_many_are_counted(long_study: MakeStudy) -> None:
    found = warned(long_study(), *(outcome_of(f"m{number}", 1e-2) for number in range(7)))
    assert "rate of m0, m1, m2, m3, m4 and 2 more is 0.01" in found["rate-at-edge"]
    assert found["rate-at-edge"].endswith("(7)")
    found = warned(long_study(), *(outcome_of(f"m{number}", 1e-2) for number in range(3)))
    assert "rate of m0, m1 and m2 is 0.01" in found["rate-at-edge"]


def test_a_search_that_failed_throughout_has_no_best_rate(long_study: MakeStudy) -> None:
    assert warned(long_study(), outcome_of("baseline", 1e-3, failed=RATES)) == {}


RISING = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.90, 0.93]
NOISY = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.90, 0.87]


@pytest.mark.parametrize(
    ("curves", "rises"),
    [
        ([RISING, [value - 0.01 for value in RISING]], True),  # both seeds gain 0.03
        ([FLAT, FLAT], False),
        # Gains of 0.03 and -0.03: no gain on average.
        ([RISING, NOISY], False),
        # Gains of 0.03, 0.03 and 0.00: mean 0.02, standard error 0.01; not more than two.
        ([RISING, RISING, FLAT], False),
        # Gains of 0.03, 0.03 and 0.01: mean 0.0233, standard error 0.0067; more than three.
        ([RISING, RISING, [*FLAT[:-1], 0.91]], True),
        # Every seed gains the same, yet less than what matters.
        ([[*FLAT[:-1], 0.904]] * 3, False),
        ([RISING], False),  # one seed and one step: its noise is not known
        ([[0.5]], False),
        ([], False),
    ],
)
def test_a_curve_still_rises_by_what_matters_and_beyond_noise(curves: list[list[float]], rises: bool) -> None:
    assert still_rises(curves, relevant=0.005) is rises


def test_the_last_tenths_of_a_long_training() -> None:
    # Of 40 epochs the last two tenths have four each. A straight line gains four steps between them, without noise.
    line = np.linspace(0.5, 0.9, 40)
    step = float(line[1] - line[0])
    assert still_rises([list(line)], relevant=4 * step - 1e-9)
    assert not still_rises([list(line)], relevant=4 * step + 1e-9)
    # One epoch of a saw is 0.02 above or below; the steps of 0.04 have a deviation of about 0.04, and the error of the
    # difference of two means of four epochs is half of that. The tenths of a rising saw differ by 0.02.
    saw = [0.7 + 0.02 * (-1) ** number for number in range(36)] + [0.72 + 0.02 * (-1) ** number for number in range(4)]
    assert not still_rises([saw], relevant=0.005)
    assert still_rises([[value + seed / 100 for value in saw] for seed in range(12)], relevant=0.005)


def test_rising_models_are_told_with_the_key_that_trains_them_longer(long_study: MakeStudy) -> None:
    study = long_study()
    study["candidates"]["student"] = {"plan": {"*.self_attention": "average"}, "method": "distill"}
    rising = [RISING, RISING]
    found = warned(study, outcome_of(curves=rising), outcome_of("minimal"), outcome_of("no-mlp", curves=rising))
    assert found == {
        "still-rising": "the validation accuracy of baseline and no-mlp still rose when training ended, so that the "
        "decision is on models that are not trained to the end; raise train.epochs (2)"
    }
    found = warned(study, outcome_of(), outcome_of("student", curves=rising))
    assert found["still-rising"].endswith("raise finetune.epochs (1)")
    # A gain of 0.03 does not matter where 0.1 may be lost.
    assert warned({**study, "accept": {"max_drop": 0.1}}, outcome_of(curves=rising)) == {}


def test_the_mean_of_the_last_weights_is_no_rise(long_study: MakeStudy) -> None:
    jump = [[*FLAT[:-1], 0.95]] * 2
    assert "still-rising" in warned(long_study(), outcome_of(curves=jump))
    assert warned(long_study(average_last=3), outcome_of(curves=jump)) == {}


def compared(*right: float) -> Comparison:
    """The comparison of a model with so many of 100 examples right by seed, with a baseline of half right."""
    examples = np.arange(100)
    baseline = np.stack([examples < 50, examples < 50]).astype(float)
    return compare(baseline, np.stack([examples < count for count in right]).astype(float), 0.01, 0.95)


def test_a_baseline_that_all_candidates_beat(long_study: MakeStudy) -> None:
    better, little, worse = compared(70, 71), compared(51, 52), compared(49, 48)
    assert better.difference.low > 0 > little.difference.low
    found = warned(long_study(), outcome_of(), a=better, b=little)
    assert list(found) == ["weak-training"]
    assert found["weak-training"].startswith("all 2 candidates are better than the baseline, so that it may be trained")
    assert warned(long_study(), outcome_of(), a=better, b=worse) == {}
    assert warned(long_study(), outcome_of(), a=little, b=little) == {}  # as chance gives it
    assert warned(long_study(), outcome_of(), a=better) == {}
