"""A study, or a fold of one, whose models are tested on a test split that is set aside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from leanformer.study.arms import CandidateOutcome
from leanformer.study.costing import Costing
from leanformer.study.executors import InThisProcess
from leanformer.study.graph import announce, run_steps
from leanformer.study.outcomes import read_outcomes
from leanformer.study.prepare import PreparedStudy
from leanformer.study.side_by_side import run_side_by_side


class HeldOut:
    """The trainings of a study, each tested on the test split.

    Args:
        prepared: The study.
    """

    def __init__(self, prepared: PreparedStudy) -> None:
        self._prepared = prepared

    def announce(self) -> None:
        """Tells the reporter the number of steps."""
        announce(self._prepared)

    def run(self) -> None:
        """Runs all steps that are not done yet.

        Raises:
            LeanformerError: A step raised it, or a process ended unexpectedly.
        """
        prepared = self._prepared
        if prepared.jobs > 1:
            run_side_by_side(prepared)
        else:
            run_steps(prepared, InThisProcess(), lambda step: step.run(prepared), prepared.jobs)

    def outcomes(self) -> list[CandidateOutcome]:
        """The outcomes of the baseline and then of all candidates, once all steps are done."""
        return read_outcomes(self._prepared)

    def costs(self, outcomes: Sequence[CandidateOutcome]) -> Mapping[str, Mapping[str, Any]]:
        """What the models cost; see ``Costing.costs``."""
        return Costing(self._prepared, outcomes).costs()
