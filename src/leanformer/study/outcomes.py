"""Reads the outcomes of a study's trials from the run directory."""

from __future__ import annotations

from leanformer.core.files import remove
from leanformer.study.assemble import CandidateOutcome
from leanformer.study.graph import trials_of
from leanformer.study.prepare import PreparedStudy
from leanformer.study.steps import ended_well
from leanformer.study.training import PREDICTIONS
from leanformer.study.trials import search_of
from leanformer.tasks.base import Outcome


def read_outcomes(prepared: PreparedStudy) -> list[CandidateOutcome]:
    """The outcomes of the baseline and then of all candidates, whose trials must be done."""
    return [_outcome(prepared, name) for name in prepared.candidates]


def _outcome(prepared: PreparedStudy, name: str) -> CandidateOutcome:
    candidate = prepared.candidates[name]
    search = [step.known_result(prepared) for step in search_of(prepared, name)]
    trials, answers, directories = {}, {}, {}
    for step in trials_of(prepared, name):
        directory = step.directory(prepared)
        trials[step.seed] = step.known_result(prepared)
        directories[step.seed] = directory.relative_to(prepared.directory.path).as_posix()
        if ended_well(trials[step.seed]):
            answers[step.seed] = prepared.task.read_answers(directory / PREDICTIONS)
    # Models of the search are kept only until the best one is copied to its trial.
    for rate in prepared.study.train.learning_rate:
        remove(prepared.directory.search(name, rate) / "model")
    return CandidateOutcome(
        name,
        "scratch" if candidate is None else candidate.method,
        {} if candidate is None else candidate.plan,
        prepared.structure(name),
        [
            {key: run.get(key) for key in ("learning_rate", prepared.study.accept.metric, "loss")}
            | {"status": run["trained"]["status"]}
            for run in search
        ],
        trials,
        Outcome(answers),
        directories,
    )
