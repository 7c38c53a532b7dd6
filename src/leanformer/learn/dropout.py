"""Dropout of a model while it is tuned."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def dropout(model: nn.Module, probability: float | None) -> Iterator[None]:
    """Sets the probability of each dropout of a model that is not 0, and restores it afterwards.

    Args:
        model: The model, with dropout as modules or as numbers, as in transformers' attention.
        probability: From 0 to 1; None changes nothing.
    """
    found = [] if probability is None else list(_dropouts(model))
    for module, name, _ in found:
        setattr(module, name, probability)
    try:
        yield
    finally:
        for module, name, before in found:
            setattr(module, name, before)


def has_dropout(model: nn.Module) -> bool:
    """Whether any dropout of a model is not 0."""
    return any(True for _ in _dropouts(model))


def _dropouts(model: nn.Module) -> Iterator[tuple[nn.Module, str, float]]:
    """Module, attribute and probability of each dropout that is not 0."""
    for module in model.modules():
        names = ["p"] if isinstance(module, nn.Dropout) else [name for name in vars(module) if "dropout" in name]
        for name in names:
            value = getattr(module, name)
            if isinstance(value, float) and value > 0:
                yield module, name, value
