"""What the heads and neurons of a trained model do on data, so that smaller parts keep the most important of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from transformers import PreTrainedModel

from leanformer.blocks.kit.activity import Activity
from leanformer.learn.lessons import at_real_positions
from leanformer.learn.observe import Observed, Target, frozen_copy
from leanformer.learn.train import TrainingBatches
from leanformer.model.family import find_family
from leanformer.model.students import reduce
from leanformer.model.surgery import choosing_sites, module_at, sites

EXAMPLES = 1024
"""So many examples are looked at, or as many as there are: as Minitron does (arXiv 2407.14679, section 2.2)."""


class Moments:
    """Mean and covariance of groups of channels over many batches; it keeps sums, in double precision, and no batches.

    Args:
        groups: The number of groups of neighbouring channels, such as heads; None: each channel by itself.
    """

    def __init__(self, groups: int | None = None) -> None:
        self._groups = groups
        self._positions = 0
        self._sums: torch.Tensor | float = 0.0
        self._products: torch.Tensor | float = 0.0

    def add(self, states: torch.Tensor) -> None:
        """Adds a batch, shape (positions, channels)."""
        groups = self._groups or states.shape[1]
        by_group = states.double().unflatten(1, (groups, -1)).transpose(0, 1)  # (groups, positions, width)
        self._positions += len(states)
        self._sums = self._sums + by_group.sum(dim=1)
        self._products = self._products + by_group.mT @ by_group

    def activity(self) -> Activity:
        """The moments of all batches; at least one must have been added."""
        assert isinstance(self._sums, torch.Tensor)
        mean = self._sums / self._positions
        covariance = self._products / self._positions - mean[:, :, None] * mean[:, None]
        return Activity(mean, covariance)


def find_activities(
    model: PreTrainedModel, entries: Iterable[tuple[str, Mapping[str, Any]]], batches: TrainingBatches
) -> dict[str, Activity]:
    """What heads or neurons do at the sites where blocks choose among them; the model reads nothing if none does.

    Args:
        model: A trained model. It is not changed.
        entries: Sites with their entries of resolved plans.
        batches: Training data on the model's device; the first ``EXAMPLES`` of an epoch are read.
    """
    chosen = set(choosing_sites(entries))
    if not chosen:
        return {}
    opened = frozen_copy(reduce(model, {}))
    family = find_family(opened)
    places = {site.name: site for site in sites(opened) if site.name in chosen}
    targets: dict[str, Target] = {name: "neurons" if site.kind == "mlp" else "heads" for name, site in places.items()}
    moments = {}
    for name in places:
        attention = family.attention_weights(module_at(opened, name))
        moments[name] = Moments(None if attention is None else attention.num_heads)
    left = EXAMPLES
    with Observed(opened, targets.items()) as observed:
        for batch in batches.training(seed=0, epoch=0):
            seen = observed.read(batch)
            for name, site in places.items():
                states = at_real_positions(seen.targets[name, targets[name]], seen.mask_at(site))
                moments[name].add(states)
            left -= len(batch["labels"])
            if left <= 0:
                break
    return {name: found.activity() for name, found in moments.items()}
