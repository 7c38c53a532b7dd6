"""Runs a study's steps side by side, each in its own process."""

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
    """Runs the steps of a study that are not done yet, ``prepared.jobs`` at a time.

    Args:
        prepared: The study.

    Raises:
        LeanformerError: A step raised it, or a process ended unexpectedly.
    """
    study, jobs = prepared.study, prepared.jobs
    elsewhere = Elsewhere(study.model_dump_json(), str(prepared.directory.path), _threads(study, jobs), jobs)
    with Processes(jobs, [__name__], prepared.reporter, forks=prepared.device.type == "cpu") as executor:
        run_steps(prepared, executor, elsewhere, jobs)


@dataclass(frozen=True)
class Elsewhere:
    """Runs steps of a study in another process, which prepares the study once.

    Args:
        study: The study, as JSON.
        directory: The run directory, which the main process holds.
        threads: The number of PyTorch's threads.
        jobs: Steps that run at a time, in all processes together.
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
        torch.cuda.empty_cache()  # other processes may need the GPU memory that this one caches


@lru_cache(maxsize=1)
def _prepare(work: Elsewhere) -> PreparedStudy:
    torch.set_num_threads(work.threads)
    study = make_study(json.loads(work.study))
    directory = RunDirectory(Path(work.directory), study)
    reporter = reporter_here()
    directory.work_in(reporter.process)
    parent = multiprocessing.parent_process()
    if parent is None or not parent.is_alive():  # another process may hold the directory by now
        raise KeyboardInterrupt
    return PreparedStudy(study, directory, reporter, work.jobs)


def check_script(jobs: int) -> None:
    """Checks that new processes can import the script that this one runs, as they must.

    Args:
        jobs: Trainings that run at a time; with 1 there are no other processes.

    Raises:
        LeanformerError: The script is not a file, or it runs a study while a new process imports it.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise LeanformerError(
            "a script must call run with jobs under if __name__ == '__main__', because new processes import it"
        )
    script = sys.modules["__main__"]
    path = getattr(script, "__file__", None)
    if jobs > 1 and script.__spec__ is None and path is not None and not Path(path).exists():
        raise LeanformerError(
            "jobs: new processes import the script that calls run, and this one is not a file; save it to a file"
        )


def _threads(study: Study, jobs: int) -> int:
    """PyTorch's threads for each training: the study's setting, or an even share of all threads."""
    return study.measure.threads or max(1, torch.get_num_threads() // jobs)
