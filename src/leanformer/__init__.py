"""leanformer finds the smallest transformer that still does your job, proves it, and ships it."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from leanformer.core.errors import LeanformerError
from leanformer.core.extras import not_installed

if TYPE_CHECKING:
    from leanformer import runtime
    from leanformer.blocks.kit.site import Site
    from leanformer.config.base import DistillConfig, FinetuneConfig, Study
    from leanformer.config.reader import make_study, read_study
    from leanformer.data.image_files import read_image
    from leanformer.learn.distill import distill
    from leanformer.learn.vocabulary import trim_target_vocabulary
    from leanformer.model.conversion import convert
    from leanformer.model.reduction import reduce_directory
    from leanformer.model.students import load, reduce, save
    from leanformer.model.surgery import sites
    from leanformer.study.compare import Comparison, compare
    from leanformer.study.confirm import Confirmed, confirm
    from leanformer.study.export import Exported, export
    from leanformer.study.inspect import Inspection, inspect
    from leanformer.study.plan_test import PlannedTest, plan_test
    from leanformer.study.publishing import push_to_hub
    from leanformer.study.run import StudyResult, run

__all__ = [
    "Comparison",
    "Confirmed",
    "DistillConfig",
    "Exported",
    "FinetuneConfig",
    "Inspection",
    "LeanformerError",
    "PlannedTest",
    "Site",
    "Study",
    "StudyResult",
    "compare",
    "confirm",
    "convert",
    "distill",
    "export",
    "inspect",
    "load",
    "make_study",
    "plan_test",
    "push_to_hub",
    "read_image",
    "read_study",
    "reduce",
    "reduce_directory",
    "run",
    "runtime",
    "save",
    "sites",
    "trim_target_vocabulary",
]

_HOMES = {
    "Comparison": "leanformer.study.compare",
    "Confirmed": "leanformer.study.confirm",
    "DistillConfig": "leanformer.config.base",
    "Exported": "leanformer.study.export",
    "FinetuneConfig": "leanformer.config.base",
    "Inspection": "leanformer.study.inspect",
    "PlannedTest": "leanformer.study.plan_test",
    "Site": "leanformer.blocks.kit.site",
    "Study": "leanformer.config.base",
    "StudyResult": "leanformer.study.run",
    "compare": "leanformer.study.compare",
    "confirm": "leanformer.study.confirm",
    "convert": "leanformer.model.conversion",
    "distill": "leanformer.learn.distill",
    "export": "leanformer.study.export",
    "inspect": "leanformer.study.inspect",
    "load": "leanformer.model.students",
    "make_study": "leanformer.config.reader",
    "plan_test": "leanformer.study.plan_test",
    "push_to_hub": "leanformer.study.publishing",
    "read_image": "leanformer.data.image_files",
    "read_study": "leanformer.config.reader",
    "reduce": "leanformer.model.students",
    "reduce_directory": "leanformer.model.reduction",
    "run": "leanformer.study.run",
    "save": "leanformer.model.students",
    "sites": "leanformer.model.surgery",
    "trim_target_vocabulary": "leanformer.learn.vocabulary",
}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used: PyTorch and transformers take seconds, an error message none.

    Raises:
        LeanformerError: The name needs a package that is not installed; the message says which extra installs it.
    """
    if name == "runtime":  # a package, not a name in one
        return import_module("leanformer.runtime")
    if name not in _HOMES:
        raise AttributeError(f"module 'leanformer' has no attribute {name!r}")
    try:
        return getattr(import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        missing = not_installed(error, f"leanformer.{name}")
        if missing is None:
            raise
        raise missing from error


class _Package(ModuleType):
    """This package: the import of its room ``export`` does not hide the public function of that name."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
