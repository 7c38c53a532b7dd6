"""What the heads or neurons of a trained part do on data, by which a smaller part keeps the most important of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Activity:
    """The moments, over the tokens of some data, of what goes into an output projection.

    The inputs of the projection lie in groups: of an attention the channels of each head, of an MLP each neuron alone.

    Args:
        mean: Shape (groups, width).
        covariance: Within each group, shape (groups, width, width).
    """

    mean: torch.Tensor
    covariance: torch.Tensor

    def importance(self, output: torch.Tensor) -> torch.Tensor:
        """How much of a part's output varies with each group, shape (groups,).

        It is the variance of what the group adds to the output, summed over channels: the error that is made where the
        group is removed and its mean contribution stays, as ``mean_without`` keeps it. A neuron that is always active
        counts for nothing, because a bias does the same.

        Args:
            output: The projection, shape (groups * width, d_model).

        Source: for neurons this is the fluctuation metric of An et al. 2024, "Fluctuation-based Adaptive Structured
        Pruning for Large Language Models" (arXiv 2312.11983), section 4.1. Minitron (Muralidharan et al. 2024, arXiv
        2407.14679) ranks heads and neurons by their activations too, but by magnitude, without the projection.
        """
        rows = self._by_group(output)
        return ((self.covariance @ rows) * rows).sum(dim=(1, 2))

    def mean_without(self, kept: list[int], output: torch.Tensor) -> torch.Tensor:
        """What all groups but those that are kept add to the output on average, shape (d_model,).

        Args:
            kept: The groups that are kept.
            output: As for ``importance``.
        """
        means = self.mean.clone()
        means[kept] = 0
        return means.flatten() @ output.to(means.dtype)

    def _by_group(self, output: torch.Tensor) -> torch.Tensor:
        """(groups * width, d_model) -> (groups, width, d_model), in the precision of the moments."""
        return output.to(self.covariance.dtype).unflatten(0, self.mean.shape)


def most_important(importance: torch.Tensor, count: int) -> list[int]:
    """The so many groups of greatest importance, in their order.

    Args:
        importance: Shape (groups,).
        count: At most as many as there are.
    """
    return sorted(importance.topk(count).indices.tolist())
