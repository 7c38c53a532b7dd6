"""Corruptions of test examples, by which robustness is measured. A new one is one function in ``images`` or ``texts``.

Each has one moderate severity, and changes one example alone. What it draws at random depends on its name and on the
example's number in the split, so that every model meets the same corrupted examples, whatever the batches and wherever
the data are kept.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from leanformer.core.registry import Registry

Example = TypeVar("Example")
Image = NDArray[np.uint8]
"""An image's pixels, shape (channels, height, width)."""


@dataclass(frozen=True)
class Corruption(Generic[Example]):
    """A change of test examples as it may happen in use.

    Args:
        name: Its name in results.
        meaning: What it does, with its numbers. Answers are kept as long as this sentence stays the same.
        change: An example and a source of random numbers -> the corrupted example. The given one is not changed.
    """

    name: str
    meaning: str
    change: Callable[[Example, np.random.Generator], Example]

    def __call__(self, example: Example, number: int) -> Example:
        """The corrupted example.

        Args:
            example: An image or a sentence.
            number: Its number in the test split, which determines what is drawn at random.
        """
        return self.change(example, np.random.default_rng([zlib.crc32(self.name.encode()), number]))


IMAGES: Registry[Corruption[Image]] = Registry("leanformer.data.corruptions")
"""Name -> corruption of images."""
TEXTS: Registry[Corruption[str]] = Registry("leanformer.data.corruptions")
"""Name -> corruption of sentences."""


def corrupts(
    kind: Registry[Corruption[Example]], name: str, meaning: str
) -> Callable[[Callable[[Example, np.random.Generator], Example]], Callable[[Example, np.random.Generator], Example]]:
    """A decorator that registers a function as a corruption.

    Args:
        kind: ``IMAGES`` or ``TEXTS``.
        name: As in ``Corruption``.
        meaning: Likewise.
    """

    def add(change: Callable[[Example, np.random.Generator], Example]) -> Callable[..., Example]:
        kind.add(name, Corruption(name, meaning, change))
        return change

    return add
