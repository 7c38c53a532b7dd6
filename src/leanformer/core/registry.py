"""Registries of what a package's modules offer by name: blocks, families, tasks. A new item is a new module there."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import TypeVar

Item = TypeVar("Item")


class Registry(Mapping[str, Item]):
    """Name -> item, of all modules of a package. The modules are imported at the first look-up.

    Args:
        package: Whose modules register themselves, such as ``leanformer.blocks``.
        order: Names that come first, in this order; the others follow by name.
    """

    def __init__(self, package: str, order: tuple[str, ...] = ()) -> None:
        self._package = package
        self._order = order
        self._items: dict[str, Item] = {}
        self._complete = False

    def add(self, name: str, item: Item) -> Item:
        """Registers an item; one that is defined again, as by a notebook's cell, takes the place of the former.

        Raises:
            ValueError: Another item has the name.
        """
        former = self._items.get(name, item)
        if former is not item and _definition(former) != _definition(item):
            raise ValueError(f"{self._package}: the name {name!r} is registered twice")
        self._items[name] = item
        return item

    def register(self, name: str) -> Callable[[Item], Item]:
        """A decorator that registers a class or function under a name."""
        return lambda item: self.add(name, item)

    def __getitem__(self, name: str) -> Item:
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        names = self._all()
        first = [name for name in self._order if name in names]
        return iter([*first, *sorted(name for name in names if name not in first)])

    def __len__(self) -> int:
        return len(self._all())

    def _all(self) -> dict[str, Item]:
        if not self._complete:
            package = import_module(self._package)
            for module in pkgutil.iter_modules(package.__path__):
                if not module.ispkg:
                    import_module(f"{self._package}.{module.name}")
            self._complete = True
        return self._items


def _definition(item: object) -> object:
    """Where a class or function is defined; of anything else the item itself."""
    name = getattr(item, "__qualname__", None)
    return item if name is None else (getattr(item, "__module__", None), name)
