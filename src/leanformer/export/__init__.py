"""Exporting models to the forms of other engines, a file a format."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any


class _Room(ModuleType):
    """This package, which can be called: its name is also that of the public function ``lf.export``."""

    @property
    def __call__(self) -> Callable[..., Any]:
        """The public function, which is imported when it is first used; it stands above this room."""
        function: Callable[..., Any] = import_module("leanformer.study.export").export
        return function


sys.modules[__name__].__class__ = _Room
