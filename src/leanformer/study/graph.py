"""The graph of a study's steps: runs every step that is not done yet, each after the steps that it needs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from itertools import islice

from leanformer.config.base import BASELINE
from leanformer.study.prepare import PreparedStudy
from leanformer.study.robustness import RobustnessStep
from leanformer.study.shipping import ExportStep
from leanformer.study.steps import Step
from leanformer.study.students import StudentStep
from leanformer.study.training import Trial
from leanformer.study.trials import TrialStep

Do = Callable[[Step], None]
"""Runs a step; an executor calls it, and must be able to pickle it where it sends it to another process."""


def trials_of(prepared: PreparedStudy, name: str) -> list[Trial]:
    """The trials of a candidate or the baseline, one for each of its seeds."""
    kind = StudentStep if prepared.is_distilled(name) else TrialStep
    seeds = prepared.study.baseline_seeds if name == BASELINE else prepared.study.seeds
    return [kind(name, seed) for seed in seeds]


def exports_of(prepared: PreparedStudy, name: str) -> list[ExportStep]:
    """The exports of a candidate or the baseline: those that are decided on, then those that are only measured.

    Of every model the best of the study's seeds is exported: the best of more seeds would be better by choice alone.
    """
    trials = tuple(trial for trial in trials_of(prepared, name) if trial.seed in prepared.study.seeds)
    ship = prepared.study.ship
    decided = [] if ship is None else [ExportStep(name, trials, ship.to, form, True) for form in ship.precision]
    measured = [
        ExportStep(name, trials, runtime, "float32", False)
        for runtime in prepared.study.runtimes
        if runtime != "torch" and (ship is None or runtime != ship.to) and prepared.can_export(name, runtime)
    ]
    return [*decided, *measured]


def robustness_of(prepared: PreparedStudy, name: str) -> list[RobustnessStep]:
    """The answers of a candidate or the baseline under each corruption, in each form that is decided on."""
    if not prepared.study.measure.robustness:
        return []
    trials = tuple(trials_of(prepared, name))
    decided = [export for export in exports_of(prepared, name) if export.decides]
    forms = [None] if prepared.study.ship is None else decided
    return [
        RobustnessStep(name, trials, form, corruption) for form in forms for corruption in prepared.task.corruptions
    ]


def _wanted(prepared: PreparedStudy) -> list[Step]:
    """The steps that the study's results are made of, in its order."""
    names = prepared.candidates
    trials = [step for name in names for step in trials_of(prepared, name)]
    exports = [step for name in names for step in exports_of(prepared, name)]
    return [*trials, *exports, *(step for name in names for step in robustness_of(prepared, name))]


def all_steps(prepared: PreparedStudy) -> list[Step]:
    """All steps that the study may run, each after the steps that it depends on."""
    found: dict[Step, None] = {}

    def add(step: Step) -> None:
        if step not in found:
            for other in (*step.after(prepared), *step.needs(prepared)):
                add(other)
            found[step] = None

    for step in _wanted(prepared):
        add(step)
    return list(found)


def announce(prepared: PreparedStudy) -> None:
    """Tells the reporter the number of steps."""
    prepared.reporter.plan(len(all_steps(prepared)))


def run_steps(prepared: PreparedStudy, executor: Executor, do: Do, at_a_time: int) -> None:
    """Runs all trials, exports and evaluations of a study that are not done yet, and the steps that they need.

    A step that nothing else can run beside runs in this process, where it has all threads.

    Args:
        prepared: The study.
        executor: Runs the steps, in this process or elsewhere.
        do: What the executor calls for each step.
        at_a_time: How many steps run at a time. The executor gets no more, so that the study's order is kept.

    Raises:
        LeanformerError: A step raised it, or a process ended unexpectedly. No other step is begun then.
    """
    walk = _Walk(prepared)
    running: dict[Future[None], Step] = {}
    while True:
        chosen = list(islice(walk.ready(), at_a_time - len(running)))
        if at_a_time > 1 and not running and len(chosen) == 1:
            chosen[0].run(prepared)
            walk.end(chosen[0])
            continue
        for step in chosen:
            walk.begin(step)
            running[executor.submit(do, step)] = step
        if not running:
            break
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            future.result()
            walk.end(running.pop(future))


class _Walk:
    """Which steps are done, which are running, and which can run next.

    Args:
        prepared: The study.
    """

    def __init__(self, prepared: PreparedStudy) -> None:
        self._prepared = prepared
        self._wanted = _wanted(prepared)
        self._done: set[Step] = set()
        self._running: set[Step] = set()
        self._missing: set[Step] = set()  # steps whose results were looked for and not found
        self._needed_by: defaultdict[Step, set[Step]] = defaultdict(set)
        for step in self._wanted:
            for need in step.needs(prepared):
                self._needed_by[need].add(step)

    def ready(self) -> Iterator[Step]:
        """The steps that can begin, in the study's order. Steps that are done already are reported as done."""
        seen: set[Step] = set()
        for step in self._wanted:
            yield from self._ready(step, seen)

    def _ready(self, step: Step, seen: set[Step]) -> Iterator[Step]:
        if step in self._done or step in self._running or step in seen:
            return
        seen.add(step)
        first = step.after(self._prepared)
        for other in first:
            yield from self._ready(other, seen)
        if not self._done.issuperset(first):
            return
        if step not in self._missing and step.is_done(self._prepared):
            step.bring_up_to_date(self._prepared)
            self._skip(step)
            return
        self._missing.add(step)
        needs = step.needs(self._prepared)
        for other in needs:
            yield from self._ready(other, seen)
        if self._done.issuperset(needs):
            yield step

    def begin(self, step: Step) -> None:
        """Marks a step as running."""
        self._running.add(step)

    def end(self, step: Step) -> None:
        """Marks a step as done."""
        self._running.discard(step)
        self._note(step)

    def _skip(self, step: Step) -> None:
        self._prepared.reporter.skip()
        self._note(step)

    def _note(self, step: Step) -> None:
        """Marks a step as done, and reports as done the steps that only it needed and that were not run."""
        self._done.add(step)
        for need in step.needs(self._prepared):
            if need not in self._done and self._needed_by[need] <= self._done:
                self._skip(need)
