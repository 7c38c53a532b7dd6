"""Cross-validation: each seed divides the data anew, and each fold is a study of its own, in a directory of its own.

The results of all folds are put together as those of one study whose test split is the whole pool.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from leanformer.config.base import Study
from leanformer.config.reader import make_study
from leanformer.core.events import PartReporter
from leanformer.core.json_files import read_sealed
from leanformer.core.warning import StudyWarning
from leanformer.decide.resampled import Folds
from leanformer.results.metrics import METRICS
from leanformer.study.arms import CandidateOutcome, best_seed
from leanformer.study.graph import all_steps
from leanformer.study.held_out import HeldOut
from leanformer.study.ledger import recipe_of
from leanformer.study.prepare import PreparedStudy
from leanformer.study.steps import ended_well
from leanformer.study.store import RunDirectory
from leanformer.tasks.base import Outcome


@dataclass(frozen=True)
class Part:
    """One fold of one repeat.

    Args:
        seed: The study's seed, for which the data are divided anew.
        fold: From 1.
    """

    seed: int
    fold: int

    def __str__(self) -> str:
        return f"seed {self.seed}, fold {self.fold}"


class CrossValidation:
    """The trainings of a study, tested on every fold in turn; used as ``HeldOut`` is.

    All folds are prepared once at the beginning, so that mistakes are found before anything is trained, and again when
    they run: one copy of the data is in memory.

    Args:
        prepared: The study of all folds, whose test split is the pool; its task learns which fold tests what.

    Raises:
        LeanformerError: A fold cannot be made or prepared.
    """

    def __init__(self, prepared: PreparedStudy) -> None:
        self._prepared = prepared
        settings = prepared.study.data.cross_validation
        assert settings is not None
        self._parts = [Part(seed, fold) for seed in prepared.study.seeds for fold in range(1, settings.folds + 1)]
        self._rows: dict[Part, np.ndarray] = {}
        self._outcomes: dict[Part, list[CandidateOutcome]] = {}
        self._steps = 0
        sizes = []
        warnings: defaultdict[str, list[tuple[Part, StudyWarning]]] = defaultdict(list)
        for part in self._parts:
            fold = self._prepare(part, RunDirectory(self._directory(part), self._study(part)))
            rows = fold.task.test_rows
            assert rows is not None
            self._rows[part] = rows
            self._steps += len(all_steps(fold))
            sizes.append(len(rows) / fold.task.summary()["train"])
            for warning in fold.task.warnings:
                warnings[warning.code].append((part, warning))
        prepared.task.folds = Folds(self._numbers(), float(np.mean(sizes)))
        known = {warning.code for warning in prepared.task.warnings}
        prepared.task.warnings = [
            *prepared.task.warnings,
            *(_of_folds(found, len(self._parts)) for code, found in warnings.items() if code not in known),
        ]

    def announce(self) -> None:
        """Tells the reporter the number of steps, of all folds together."""
        self._prepared.reporter.plan(self._steps)

    def run(self) -> None:
        """Runs all steps of all folds that are not done yet.

        Raises:
            LeanformerError: A step raised it, or a process ended unexpectedly.
        """
        for part in self._parts:
            with self._opened(part) as fold:
                held_out = HeldOut(fold)
                held_out.run()
                self._outcomes[part] = held_out.outcomes()

    def outcomes(self) -> list[CandidateOutcome]:
        """The outcomes of the baseline and then of all candidates, over all folds, once all steps are done."""
        return [self._pooled(number) for number in range(len(self._prepared.candidates))]

    def costs(self, outcomes: Sequence[CandidateOutcome]) -> Mapping[str, Mapping[str, Any]]:
        """What the models of the first fold cost; see ``Costing.costs``."""
        first = self._parts[0]
        kept = {outcome.name for outcome in outcomes if outcome.has_model}
        with self._opened(first) as fold:
            return HeldOut(fold).costs([outcome for outcome in self._outcomes[first] if outcome.name in kept])

    # One fold

    def _directory(self, part: Part) -> Path:
        return self._prepared.directory.fold(part.seed, part.fold)

    def _study(self, part: Part) -> Study:
        """The study of one fold: it has one seed. Of the first alone costs are measured."""
        plain = self._prepared.study.model_dump(mode="json")
        plain["data"]["cross_validation"] |= {"fold": part.fold, "seed": part.seed}
        plain |= {"seeds": [part.seed], "report_to": []}
        if part != self._parts[0]:
            plain["measure"] |= {"runtimes": ["torch"], "from": None}
        return make_study(plain, str(part))

    def _prepare(self, part: Part, directory: RunDirectory) -> PreparedStudy:
        prepared = self._prepared
        return PreparedStudy(
            self._study(part),
            directory,
            PartReporter(prepared.reporter, f"fold {part.fold} of seed {part.seed}"),
            prepared.jobs,
        )

    @contextmanager
    def _opened(self, part: Part) -> Iterator[PreparedStudy]:
        with RunDirectory(self._directory(part), self._study(part)) as directory:
            yield self._prepare(part, directory)

    # All folds together

    def _numbers(self) -> np.ndarray:
        """The fold that tests each example, shape (seeds, examples)."""
        seeds = self._prepared.study.seeds
        numbers = np.zeros((len(seeds), sum(len(self._rows[part]) for part in self._parts) // len(seeds)), np.int64)
        for part in self._parts:
            numbers[seeds.index(part.seed), self._rows[part]] = part.fold
        assert numbers.all()  # every example is tested once for each seed
        return numbers

    def _pooled(self, number: int) -> CandidateOutcome:
        """The outcome of one candidate, or of the baseline, over all folds.

        Args:
            number: Its place in the study's order.
        """
        prepared = self._prepared
        metric = METRICS[prepared.study.accept.metric]
        found = {part: outcomes[number] for part, outcomes in self._outcomes.items()}
        first = found[self._parts[0]]
        recipe = self._recipe(first)
        folds, trials, answers, directories = {}, {}, {}, {}
        for seed in prepared.study.seeds:
            of_seed = {part.fold: outcome for part, outcome in found.items() if part.seed == seed}
            results = {fold: outcome.trials[seed] for fold, outcome in of_seed.items()}
            failed = next((fold for fold, result in results.items() if not ended_well(result)), None)
            fold = folds[seed] = best_seed(results, metric) if failed is None else failed
            trials[seed] = _told(results, fold)
            place = self._directory(Part(seed, fold)) / of_seed[fold].directories[seed]
            directories[seed] = place.relative_to(prepared.directory.path).as_posix()
            if failed is None:
                answers[seed] = prepared.task.pooled(
                    [(self._rows[Part(seed, fold)], of_seed[fold].tested.answers[seed]) for fold in of_seed]
                )
        kept = prepared.ledger.ships(recipe)
        good = {seed: trial for seed, trial in trials.items() if seed in answers}
        return replace(
            first,
            trials=trials,
            tested=Outcome(answers, taught=first.tested.taught),
            directories=directories,
            recipe=recipe,
            ships=best_seed(good or trials, metric) if kept is None else kept,
            is_chosen=kept is not None,
            folds=folds,
        )

    def _recipe(self, outcome: CandidateOutcome) -> str:
        """What a candidate is, whatever its name, seeds and folds: with the rates among which each fold chooses."""
        (trial,) = outcome.directories.values()
        settings = read_sealed(self._directory(self._parts[0]) / trial / "settings.json")
        return recipe_of(_with_rates(settings, self._prepared.study.train.learning_rate))


def _with_rates(settings: Mapping[str, Any], rates: Sequence[float]) -> dict[str, Any]:
    """A trial's settings with all rates of the search in place of the best one, a teacher's too."""
    searched = {"learning_rate": list(rates)} if "learning_rate" in settings else {}
    teacher = {"teacher": _with_rates(settings["teacher"], rates)} if "teacher" in settings else {}
    return {**settings, **searched, **teacher}


def _told(results: Mapping[int, Mapping[str, Any]], fold: int) -> dict[str, Any]:
    """The result of the training that stands for a seed, with its fold where it failed, and the rollbacks of all folds.

    Args:
        results: Fold -> result.
        fold: That of the training.
    """
    trained = results[fold]["trained"]
    rollbacks = [
        f"fold {number}: {what}" for number, result in results.items() for what in result["trained"]["rollbacks"]
    ]
    reason = trained["reason"] if trained["status"] == "ok" else f"fold {fold}: {trained['reason']}"
    return {**results[fold], "trained": {**trained, "reason": reason, "rollbacks": rollbacks}}


def _of_folds(found: Sequence[tuple[Part, StudyWarning]], parts: int) -> StudyWarning:
    """One warning for those of the same kind of several folds: the one that counts most."""
    part, worst = max(found, key=lambda entry: entry[1].count)
    return StudyWarning(worst.code, f"in {len(found)} of {parts} folds, such as {part}: {worst.sentence}", worst.count)
