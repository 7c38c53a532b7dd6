"""Which of a model's parameters weight decay pulls towards zero.

The mixer's ``mixing`` and the ``up`` of low-rank maps decay like all other matrices, although they are bare parameters:
weight decay is meant for all matrices. The difference is negligible. Validation loss with decay minus without, in pairs
of the same seed, mean and standard error:

| data (seeds) | form | at 0.01, the default | at 0.1 |
|---|---|---|---|
| digits (8) | mixer, grid | -0.0009 ± 0.0005 | -0.0035 ± 0.0014 (of 0.269) |
| digits (8) | mixer, absolute | -0.0001 ± 0.0003 | +0.0007 ± 0.0013 (of 0.129) |
| digits (8) | slots, rank 4 | +0.010 ± 0.011 | -0.027 ± 0.023 (of 1.036) |
| number words (4) | mixer, relative | | +0.0001 ± 0.0001 (of 0.056) |
| number words (4) | slots, rank 8 | | +0.0026 ± 0.0006 (of 0.362) |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn


def parameter_groups(
    model: nn.Module, weight_decay: float, rate_factors: Mapping[str, float] | None = None
) -> list[dict[str, Any]]:
    """A model's trainable parameters in groups for an optimizer: those that decay, and those that do not.

    Matrices that multiply tokens decay: the weights of ``nn.Linear`` and ``nn.Conv2d``, and what any other module names
    in its attribute ``decayed``, as blocks do (``BlockModule``). Norms, biases, embeddings and factors that start at
    one do not.

    Args:
        model: The model.
        weight_decay: The optimizer's weight decay for parameters that decay.
        rate_factors: The name of a parameter -> how many times the learning rate it learns with; all others once.

    Returns:
        Groups of ``params``, ``weight_decay`` and ``rate_factor``; none is empty, those of other factors come last.
    """
    decayed = {id(getattr(module, name)) for module in model.modules() for name in _decayed(module)}
    factors = rate_factors or {}
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [
        {
            "params": [p for name, p in named if factors.get(name, 1.0) == factor and (id(p) in decayed) == decays],
            "weight_decay": weight_decay if decays else 0.0,
            "rate_factor": factor,
        }
        for factor in dict.fromkeys((1.0, *factors.values()))
        for decays in (True, False)
    ]
    return [group for group in groups if group["params"]]


def _decayed(module: nn.Module) -> tuple[str, ...]:
    """Names of a module's own parameters that decay."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        return ("weight",)
    return getattr(module, "decayed", ())
