"""Several looks at one test split: what error each may make, and what earlier ones leave to later ones.

Each report with new outcomes on a test split is a look at it. Decisions that are taken again and again on the same
examples are wrong more often than each of them promises. So the number of looks is planned beforehand, and the error is
divided among them (docs/decisions.md, "Looks").
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Look:
    """One look at a test split.

    The error is divided equally (Bonferroni). The larger shares of Pocock 1977, "Group sequential methods in the design
    and analysis of clinical trials", Biometrika 64, need equal steps of information, and no candidate that joins later.

    Args:
        number: Which look it is, from 1.
        planned: The looks that were planned before the first.
        others: Candidates that were evaluated on this split at this look or before and have no comparison now: they
            failed, or are no longer in the study. They count in the correction for several candidates.
        accepted: Candidate -> the look at which it was accepted.
    """

    number: int = 1
    planned: int = 1
    others: int = 0
    accepted: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_spent(self) -> bool:
        """Whether all planned looks were taken before, so that this split cannot decide anything more."""
        return self.number > self.planned

    @property
    def is_last(self) -> bool:
        """Whether no look follows on this split."""
        return self.number >= self.planned

    def level(self, confidence: float) -> float:
        """The probability of a wrong acceptance that this look may have, all candidates together.

        Args:
            confidence: That of all looks together, such as 0.95.
        """
        return (1 - confidence) / self.planned
