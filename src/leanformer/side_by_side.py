"""A study's trainings side by side, each in a process of its own."""

from __future__ import annotations

from pathlib import Path

import torch

from leanformer.config import Study
from leanformer.job import StudyJob
from leanformer.parts import Part
from leanformer.progress import Reporter, quiet_libraries
from leanformer.rundir import RunDirectory
from leanformer.trials import Trials
from leanformer.workers import Do, Workers


def train_side_by_side(trials: Trials, jobs: int) -> None:
    """Trains what is missing, so many trainings at a time; ``trials.outcomes`` then finds them there.

    Blocks are taught by this process, all of a seed at once. A training that nothing else could go beside is left, too:
    here it has all threads.

    Args:
        trials: Of the study.
        jobs: Trainings at a time.

    Raises:
        LeanformerError: As ``trials.outcomes``; or a process ended unexpectedly.
    """
    job = trials.job
    arguments = (job.study, job.directory.path, _threads(job.study, jobs))
    with Workers(jobs, _make_ready, arguments, job.reporter, forks=job.device.type == "cpu") as workers:
        for wave in trials.waves():
            missing = [part for part in wave if trials.is_missing(part)]
            if len(missing) > 1:
                workers.do(missing)
                trials.were_done(missing)


def _threads(study: Study, jobs: int) -> int:
    """PyTorch's threads of each training: what the study says, or its share of what there are."""
    return study.measure.threads or max(1, torch.get_num_threads() // jobs)


def _make_ready(reporter: Reporter, study: Study, directory: Path, threads: int) -> Do:
    """A worker's study, in a run directory that the process which it works for holds."""
    torch.set_num_threads(threads)
    with quiet_libraries():
        trials = Trials(StudyJob(study, RunDirectory(directory, study), reporter))

    def do(part: Part) -> None:
        with quiet_libraries():
            trials.do(part)

    return do
