"""Which of a model's parameters weight decay pulls towards zero."""

from __future__ import annotations

from typing import Any

from torch import nn


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """A model's trainable parameters in groups for an optimizer: those that decay, and those that do not.

    What tokens are multiplied with decays: the weights of ``nn.Linear`` and ``nn.Conv2d``, and what any other module
    names in its attribute ``decayed``, as blocks do (``BlockModule``). Norms, biases, embeddings and factors that start
    at one do not.

    Args:
        model: The model.
        weight_decay: Of the first group, as the optimizer takes it.

    Returns:
        One or two groups, each ``params`` and ``weight_decay``; none is empty.
    """
    decayed = {id(getattr(module, name)) for module in model.modules() for name in _decayed(module)}
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if id(p) in decayed], "weight_decay": weight_decay},
        {"params": [p for p in parameters if id(p) not in decayed], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _decayed(module: nn.Module) -> tuple[str, ...]:
    """Names of a module's own parameters that decay."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        return ("weight",)
    return getattr(module, "decayed", ())
