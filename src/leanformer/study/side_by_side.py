"""A study's trainings side by side, each in a process of its own."""

from __future__ import annotations

import multiprocessing
import sys
from pathlib import Path

import torch

from leanformer.config.base import Study
from leanformer.core.errors import LeanformerError
from leanformer.core.events import Reporter
from leanformer.core.progress import quiet_libraries
from leanformer.study.prepare import StudyJob
from leanformer.study.processes import Do, Workers
from leanformer.study.steps import Part
from leanformer.study.store import RunDirectory
from leanformer.study.trials import Trials


def train_side_by_side(trials: Trials, jobs: int) -> None:
    """Trains what is missing, so many trainings at a time; ``trials.outcomes`` then finds them there.

    What nothing else could go beside is trained by this process: here it has all threads.

    Args:
        trials: Of the study.
        jobs: Trainings at a time.

    Raises:
        LeanformerError: As ``trials.outcomes``; or a process ended unexpectedly.
    """
    job = trials.job
    arguments = (job.study, job.directory.path, _threads(job.study, jobs), jobs)
    with Workers(jobs, _make_ready, arguments, job.reporter, forks=job.device.type == "cpu") as workers:
        for wave in trials.waves():
            missing = [part for part in wave if trials.is_missing(part)]
            trials.were_there([part for part in wave if part not in missing])
            if len(missing) > 1:
                workers.do(missing)
                trials.were_done(missing)


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


def _make_ready(reporter: Reporter, study: Study, directory: Path, threads: int, jobs: int) -> Do:
    """A worker's study, in a run directory that the process which it works for holds."""
    torch.set_num_threads(threads)
    run_directory = RunDirectory(directory, study)
    run_directory.work_in(reporter.process)
    parent = multiprocessing.parent_process()
    if parent is None or not parent.is_alive():  # another may have taken the directory before this one held it
        raise KeyboardInterrupt
    with quiet_libraries():
        trials = Trials(StudyJob(study, run_directory, reporter), jobs)

    def do(part: Part) -> None:
        with quiet_libraries():
            trials.do(part)
        torch.cuda.empty_cache()  # of a GPU's memory the others may need what this one keeps

    return do
