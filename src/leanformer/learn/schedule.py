"""Learning-rate schedules, each a function of the step alone, so that training can resume at any step."""

from __future__ import annotations

import math
from typing import Literal

Schedule = Literal["cosine", "one_cycle", "inverse_sqrt", "constant"]

# Smith and Topin 2018, "Super-Convergence" (arXiv 1708.07120), with the divisors that PyTorch's OneCycleLR takes.
ONE_CYCLE_START = 1 / 25
ONE_CYCLE_END = 1 / 25e4


def rate_factor(schedule: Schedule, step: int, steps: int, warmup: float) -> float:
    """The factor of the peak learning rate at a step.

    Args:
        schedule: ``cosine`` rises linearly and falls along a cosine to 0; ``one_cycle`` starts at 1/25 and rises and
            falls along cosines, to 1/250,000; ``inverse_sqrt`` rises linearly and falls with the square root of the
            steps (Vaswani et al. 2017, section 5.3); ``constant`` rises linearly and stays.
        step: From 0 to ``steps - 1``.
        steps: All steps of the training.
        warmup: Part of the steps in which the rate rises.
    """
    rising = max(1, round(warmup * steps))
    start = ONE_CYCLE_START if schedule == "one_cycle" else 0.0
    if step < rising and warmup > 0:
        progress = (step + 1) / rising
        if schedule == "one_cycle":
            progress = (1 - math.cos(math.pi * progress)) / 2
        return start + (1 - start) * progress
    if schedule == "constant":
        return 1.0
    if schedule == "inverse_sqrt":
        return math.sqrt(rising / (step + 1))
    end = ONE_CYCLE_END if schedule == "one_cycle" else 0.0
    rising = rising if warmup > 0 else 0
    progress = (step + 1 - rising) / max(1, steps - rising)
    return end + (1 - end) * (1 + math.cos(math.pi * progress)) / 2
