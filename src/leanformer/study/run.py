"""``lf.run``: from data and a baseline to trained candidates, a table and a decision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from rich.console import Console
from transformers import PreTrainedModel

from leanformer.config.base import BASELINE, STUDIES, Study
from leanformer.config.reader import make_study, read_study
from leanformer.core import bounds
from leanformer.core.errors import LeanformerError, quoted
from leanformer.core.events import Reporter, Sink
from leanformer.core.files import write_atomically
from leanformer.core.json_files import to_json
from leanformer.core.machine import environment, threads
from leanformer.core.paths import as_path
from leanformer.core.progress import console_sink, quiet_libraries
from leanformer.core.sinks.json_lines import FILE, JsonLines
from leanformer.core.sinks.tracking import TrackerSink, check_installed, flat
from leanformer.core.stopping import listening
from leanformer.core.warning import StudyWarning
from leanformer.model.students import load
from leanformer.report.page import write_report
from leanformer.study.assemble import assemble
from leanformer.study.cross_validation import CrossValidation
from leanformer.study.held_out import HeldOut
from leanformer.study.outcomes import read_corrupted_answers
from leanformer.study.prepare import PreparedStudy
from leanformer.study.publishing import write_card
from leanformer.study.shipping import tell_decisions
from leanformer.study.side_by_side import check_script
from leanformer.study.store import RunDirectory

TRACKED = (
    "quality",
    "difference",
    "recipe",
    "parameters",
    "flops_per_example",
    "train_seconds",
    "throughput_per_second",
    "decision",
    "reason",
)
"""The parts of a candidate's row in the results that trackers get."""


@dataclass(frozen=True)
class StudyResult:
    """The result of a study.

    Args:
        directory: The run directory.
        results: The content of its ``results.json``.
        report: The report's page.
    """

    directory: Path
    results: dict[str, Any]
    report: Path

    @property
    def recommended(self) -> str | None:
        """The candidate to ship, or ``baseline``; None where the baseline itself failed."""
        name: str | None = self._of_results("recommended")
        return name

    @property
    def verdict(self) -> str:
        """``accept`` where a smaller model is recommended, ``reject`` where all are rejected, else ``undecided``."""
        if self.recommended not in (None, BASELINE):
            return "accept"
        candidates = self._of_results("candidates")
        return "reject" if all(row["decision"] == "reject" for row in candidates) else "undecided"

    def model(self) -> PreTrainedModel:
        """The recommended model, loaded.

        Raises:
            LeanformerError: Nothing was recommended.
        """
        ship = self._of_results("ship")
        if ship is None:
            raise LeanformerError(self._of_results("recommendation"))
        return load(self.directory / ship)

    def _of_results(self, key: str) -> Any:
        if key not in self.results:
            raise LeanformerError(f"results: the key {key!r} is missing; take the StudyResult that lf.run returns")
        return self.results[key]


def run(
    study: Study | Mapping[str, Any] | str | PathLike[str],
    directory: str | PathLike[str] | None = None,
    console: Console | None = None,
    jobs: int = 1,
    sinks: Sequence[Sink] = (),
) -> StudyResult:
    """Runs a study: trains the baseline and every candidate with every seed, measures, decides, reports.

    Steps that are done in the run directory are not run again; an interrupted training goes on from its last
    checkpoint; steps whose settings have changed run again, and the console says why. SIGTERM and SIGHUP, which
    clusters send, end it as Ctrl-C does, after a checkpoint; the process then exits with 143 or 129 (``Stopped``, which
    is a ``SystemExit``).

    Args:
        study: A study, a mapping of its keys, or the path of its file.
        directory: The run directory; by default ``runs/`` and the study's name.
        console: Where progress is shown; by default standard error.
        jobs: Trainings that run at a time, each in its own process with its own copy of the data, and with the study's
            ``measure.threads``, or an even share of PyTorch's threads. Costs are measured afterwards, one model at a
            time. A script must call this under ``if __name__ == "__main__"``.
        sinks: Where events go besides the console, ``run.jsonl`` and the study's ``report_to``.

    Returns:
        The results, which are also in the directory as ``results.json`` and ``report.html``.

    Raises:
        LeanformerError: Anything in the study, its data, its models or the directory is wrong.
    """
    if not isinstance(jobs, int) or isinstance(jobs, bool) or not 1 <= jobs <= bounds.JOBS:
        raise LeanformerError(f"jobs {quoted(jobs)}: must be a whole number from 1 to {bounds.JOBS}")
    if console is not None and not isinstance(console, Console):
        raise LeanformerError(f"console: give a rich.console.Console, not {quoted(console)}")
    _check_sinks(sinks)
    path = None if directory is None else as_path(directory, "directory")
    check_script(jobs)
    # 1. the study
    if isinstance(study, str | PathLike):
        study = read_study(study)
    elif not isinstance(study, Study):
        study = make_study(study)
    elif type(study) not in STUDIES.values():
        raise LeanformerError(f"study: {type(study).__name__} has no task; make the study with lf.make_study")
    else:  # checked again: model_copy checks nothing
        study = make_study(study.model_dump(mode="json", warnings=False))
    if study.data.is_one_fold:
        raise LeanformerError(
            "data.cross_validation: this is the study of one fold, whose test examples would be looked at alone; run "
            "the study of all folds: give the number of folds, without fold and seed"
        )
    if path is None:
        path = Path("runs") / study.name
    check_installed(study.report_to)
    with (
        listening(),
        quiet_libraries(),
        threads(study.measure.threads),
        RunDirectory(path, study) as run_directory,
    ):
        own: list[Sink] = [console_sink(study.name, console), JsonLines(path / FILE)]
        trackers = [TrackerSink(name, study.name, path) for name in study.report_to]
        with Reporter(study.name, [*own, *trackers, *sinks]) as reporter:
            # 2. data and baseline, checked before anything is trained
            prepared = PreparedStudy(study, run_directory, reporter, jobs)
            prepared.ledger.check_seeds(study.seeds, study.baseline_seeds)
            tested = CrossValidation(prepared) if study.data.is_cross_validated else HeldOut(prepared)
            for note in prepared.task.notes:
                reporter.say(f"{study.name}: {note}", style="dim")
            for warning in prepared.task.warnings:
                reporter.warn(str(warning))
            # 3. train and evaluate
            tested.announce()
            tested.run()
            outcomes = tested.outcomes()
            # 4. measure
            costs = tested.costs(outcomes)
            # 5. decide
            here = environment(prepared.device, prepared.precision)
            corrupted = read_corrupted_answers(prepared)
            results = assemble(
                study, prepared.task, outcomes, costs, here, prepared.ledger, prepared.given_times, corrupted
            )
            for found in results["warnings"][len(prepared.task.warnings) :]:  # of the costs and the decisions
                reporter.warn(str(StudyWarning(**found)))
            run_directory.check()
            write_atomically(path / "results.json", to_json(results))
            reporter.wrote("results", path / "results.json")
            tell_decisions(run_directory, results)
            write_card(path, results)
            if results["ship"] is not None:
                run_directory.check_shipped(path / results["ship"])
            for row in (results["baseline"], *results["candidates"]):
                reporter.measured(row["name"], _outcome(row))
            # 6. report
            report = write_report(path)
            reporter.wrote("report", report)
        return StudyResult(path, results, report)


def _outcome(row: Mapping[str, Any]) -> dict[str, Any]:
    """A candidate's numbers for trackers."""
    values = flat({key: row[key] for key in TRACKED})
    return {name: value for name, value in values.items() if not name.endswith(".per_seed")}


def _check_sinks(sinks: object) -> None:
    """Refuses objects that are not sinks.

    Raises:
        LeanformerError: ``sinks`` is not a list of objects with the methods of a ``Sink``.
    """
    if not isinstance(sinks, list | tuple):
        raise LeanformerError(f"sinks: give a list of sinks, not {quoted(sinks)}")
    for sink in sinks:
        for method in ("handle", "close"):
            if not callable(getattr(sink, method, None)):
                raise LeanformerError(f"sinks: {quoted(sink)} has no method {method}; docs/tracking.md shows a sink")
