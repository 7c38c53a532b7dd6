"""The test texts that one model gets right and another wrong."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from leanformer.data.labelled_texts import LabelledTexts
from leanformer.results.text_classification import Flipped, Flips
from leanformer.tasks.base import Outcome

MOST_SHOWN = 10  # of each kind


def flipped(texts: LabelledTexts, classes: Sequence[str], outcome: Outcome, baseline: Outcome) -> Flips:
    """The texts that the baseline's and the candidate's models of the first seed answer right and wrong.

    Args:
        texts: The test split.
        classes: The names of the classes.
        outcome: The candidate's outcome.
        baseline: The baseline's, with the candidate's seeds.
    """
    seed, mine = next(iter(outcome.answers.items()))
    theirs = baseline.answers[seed]
    lost = theirs.correct & ~mine.correct
    gained = mine.correct & ~theirs.correct
    # The surer the one that is right and the surer the other of something else, the further apart are their losses.
    apart = np.abs(mine.losses - theirs.losses)
    shown = [
        row
        for kind in (lost, gained)
        for row in sorted(np.flatnonzero(kind).tolist(), key=lambda row: -apart[row])[:MOST_SHOWN]
    ]
    return Flips(
        seed=seed,
        lost=int(lost.sum()),
        gained=int(gained.sum()),
        shown=[
            Flipped(
                text=texts.texts[row],
                second_text=None if texts.seconds is None else texts.seconds[row],
                correct=classes[int(mine.labels[row])],
                baseline=classes[int(theirs.predictions[row])],
                candidate=classes[int(mine.predictions[row])],
            )
            for row in shown
        ],
    )
