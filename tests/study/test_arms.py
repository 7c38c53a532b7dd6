"""What an acceptance holds for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from leanformer.config.reader import make_study
from leanformer.decide.statistics import compare
from leanformer.study.arms import Arm, CandidateOutcome, Judged, accepting
from leanformer.study.ledger import Ledger, Seen
from leanformer.tasks.base import Outcome

MakeStudy = Callable[..., dict[str, Any]]


class StatedTask:
    """Answers are outcomes, 0 or 1."""

    worthless_quality = 0.1

    def compare(self, baseline: Outcome, candidate: Outcome) -> Any:
        return compare(np.stack(baseline.each()), np.stack(candidate.each()), 0.01, 0.95)

    def quality(self, outcome: Outcome) -> Any:
        return SimpleNamespace(mean=float(np.mean(outcome.each())))


def arm(name: str, recipe: str, right: int) -> Arm:
    """A model that answers so many of 1,000 examples right."""
    answers = (np.arange(1000) < right).astype(float)
    trial = {"trained": {"status": "ok"}}
    outcome = CandidateOutcome(name, "scratch", {}, {}, [], {0: trial}, Outcome({0: answers}), {}, recipe=recipe)
    return Arm(name, outcome, None, 0)


def test_what_was_accepted_beside_one_baseline_is_not_beside_another(digits_study: MakeStudy, tmp_path: Path) -> None:
    study = make_study(digits_study(accept={"max_drop": 0.01}))
    ledger = Ledger(tmp_path, "split", 3)
    task: Any = StatedTask()
    weak, strong, small = arm("baseline", "rate 1", 900), arm("baseline", "rate 2", 990), arm("small", "1", 900)
    found = []
    for look, baseline in enumerate((weak, weak, strong)):
        seen = Seen([f"outcomes {look}"], {"artifact": {"small": small.identity}}, [0], accepting(study))
        ledger.look(seen)
        found.append(Judged(study, task, [baseline, small], ledger, "artifact").decisions["small"])
    assert [(one.decision, one.accepted_at) for one in found] == [("accept", 1), ("accept", 1), ("reject", None)]


def test_settings_of_the_metric_are_part_of_what_is_accepted(digits_study: MakeStudy) -> None:
    accept = {"metric": "recall_at_false_alarms", "positive": "3"}
    rates = [accepting(make_study(digits_study(accept={**accept, "false_alarm_rate": rate}))) for rate in (0.01, 0.2)]
    assert rates[0] != rates[1]
    looks = [accepting(make_study(digits_study(accept={"max_drop": 0.01, "looks": looks}))) for looks in (1, 5)]
    assert looks[0] == looks[1]


def test_a_model_that_was_chosen_stays_although_a_seed_that_joined_failed() -> None:
    answers = {0: "of seed 0", 1: "of seed 1"}  # seed 2 has failed
    trials: dict[int, dict[str, Any]] = {seed: {} for seed in (0, 1, 2)}

    def outcome(ships: int, is_chosen: bool) -> CandidateOutcome:
        return CandidateOutcome(
            "small", "scratch", {}, {}, [], trials, Outcome(answers), {}, recipe="1", ships=ships, is_chosen=is_chosen
        )

    model = Arm("small", outcome(1, True), seed=1)
    assert model.ok
    assert model.tested.answers == {1: "of seed 1"}
    assert not Arm("small", outcome(1, True)).ok  # its recipe has failed
    assert not Arm("small", outcome(1, False), seed=1).ok  # at the first look all must have ended well
    assert not Arm("small", outcome(2, True), seed=2).ok
