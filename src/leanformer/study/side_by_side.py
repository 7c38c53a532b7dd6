"""A study's steps side by side, each in a process of its own."""

from __future__ import annotations

import json
import multiprocessing
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from leanformer.config.base import Study
from leanformer.config.reader import make_study
from leanformer.core.errors import LeanformerError
from leanformer.core.progress import quiet_libraries
from leanformer.study.executors import Processes, reporter_here
from leanformer.study.graph import run_steps
from leanformer.study.prepare import PreparedStudy
from leanformer.study.steps import Step
from leanformer.study.store import RunDirectory


def run_side_by_side(prepared: PreparedStudy) -> None:
    """Does what is missing of a study, ``prepared.jobs`` steps at a time.

    Args:
        prepared: The study.

    Raises:
        LeanformerError: A step raised one; or a process ended unexpectedly.
    """
    study, jobs = prepared.study, prepared.jobs
    elsewhere = Elsewhere(study.model_dump_json(), str(prepared.directory.path), _threads(study, jobs), jobs)
    with Processes(jobs, [__name__], prepared.reporter, forks=prepared.device.type == "cpu") as executor:
        run_steps(prepared, executor, elsewhere, jobs)


@dataclass(frozen=True)
class Elsewhere:
    """Does the steps of a study in another process, which makes the study ready once.

    Args:
        study: As JSON.
        directory: The run directory, which the process that this one works for holds.
        threads: PyTorch's.
        jobs: Steps at a time, in all processes.
    """

    study: str
    directory: str
    threads: int
    jobs: int

    def __call__(self, step: Step) -> None:
        with quiet_libraries():
            prepared = _prepare(self)
            if not step.is_done(prepared):
                step.run(prepared)
        torch.cuda.empty_cache()  # of a GPU's memory the others may need what this one keeps


@lru_cache(maxsize=1)
def _prepare(work: Elsewhere) -> PreparedStudy:
    torch.set_num_threads(work.threads)
    study = make_study(json.loads(work.study))
    directory = RunDirectory(Path(work.directory), study)
    reporter = reporter_here()
    directory.work_in(reporter.process)
    parent = multiprocessing.parent_process()
    if parent is None or not parent.is_alive():  # another may have taken the directory before this one held it
        raise KeyboardInterrupt
    return PreparedStudy(study, directory, reporter, work.jobs)


def check_script(jobs: int) -> None:
    """Makes sure that new processes can read the script that this one runs, as they do.

    Args:
        jobs: Trainings at a time; with 1 there are no other processes.

    Raises:
        LeanformerError: It is no file; or it is being read by a new process, and runs a study there.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise LeanformerError(
            "a script has to call run with jobs under if __name__ == '__main__': new processes read it"
        )
    script = sys.modules["__main__"]
    path = getattr(script, "__file__", None)
    if jobs > 1 and script.__spec__ is None and path is not None and not Path(path).exists():
        raise LeanformerError("jobs: new processes read the script that calls run, and this one is no file; save it")


def _threads(study: Study, jobs: int) -> int:
    """PyTorch's threads of each training: what the study says, or its share of what there are."""
    return study.measure.threads or max(1, torch.get_num_threads() // jobs)
