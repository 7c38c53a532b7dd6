"""Reads the outcomes of a study's trials from the run directory."""

from __future__ import annotations

from collections.abc import Mapping

from leanformer.study.arms import CandidateOutcome, ExportOutcome
from leanformer.study.graph import exports_of, robustness_of, trials_of
from leanformer.study.prepare import PreparedStudy
from leanformer.study.robustness import CorruptedAnswers, read_corrupted
from leanformer.study.shipping import EXPORTED
from leanformer.study.steps import ended_well
from leanformer.study.training import PREDICTIONS, is_chosen, recipe, seed_that_ships
from leanformer.study.trials import search_of
from leanformer.tasks.base import Outcome


def read_outcomes(prepared: PreparedStudy) -> list[CandidateOutcome]:
    """The outcomes of the baseline and then of all candidates, whose trials must be done."""
    return [_outcome(prepared, name) for name in prepared.candidates]


def read_corrupted_answers(prepared: PreparedStudy) -> CorruptedAnswers | None:
    """The answers of all models to corrupted examples; None where the study does not measure robustness."""
    if not prepared.study.measure.robustness:
        return None
    return read_corrupted(prepared, [step for name in prepared.candidates for step in robustness_of(prepared, name)])


def _outcome(prepared: PreparedStudy, name: str) -> CandidateOutcome:
    candidate = prepared.candidates[name]
    search = [step.known_result(prepared) for step in search_of(prepared, name)]
    trials, answers, directories = {}, {}, {}
    steps = trials_of(prepared, name)
    for step in steps:
        directory = step.directory(prepared)
        trials[step.seed] = step.known_result(prepared)
        directories[step.seed] = directory.relative_to(prepared.directory.path).as_posix()
        if ended_well(trials[step.seed]):
            answers[step.seed] = prepared.task.read_answers(directory / PREDICTIONS)
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
        Outcome(answers, taught=prepared.is_distilled(name)),
        directories,
        _bytes(prepared, directories) if len(answers) == len(trials) else None,
        _exports(prepared, name),
        recipe(prepared, steps[0]),
        seed_that_ships(prepared, steps),
        is_chosen(prepared, steps),
    )


def _bytes(prepared: PreparedStudy, directories: Mapping[int, str]) -> int:
    """The bytes of a trained model's weights; they are the same for all seeds."""
    model = prepared.directory.path / next(iter(directories.values())) / "model"
    return sum(file.stat().st_size for file in model.glob("*.safetensors"))


def _exports(prepared: PreparedStudy, name: str) -> list[ExportOutcome]:
    found = []
    for step in exports_of(prepared, name):
        directory, result = step.directory(prepared), step.known_result(prepared)
        answers = None
        if step.decides and result["status"] == "ok":
            answers = prepared.task.read_answers(directory / PREDICTIONS)
        place = (directory / EXPORTED).relative_to(prepared.directory.path).as_posix()
        found.append(ExportOutcome(step.format, step.precision, step.decides, result, answers, place))
    return found
