"""leanformer finds the smallest transformer that still does your job, proves it, and ships it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from leanformer.errors import LeanformerError

if TYPE_CHECKING:
    from leanformer.config import DistillConfig, FinetuneConfig, Study, make_study, read_study
    from leanformer.data.decoding import read_image
    from leanformer.distillation import distill
    from leanformer.inspection import Inspection, inspect
    from leanformer.model.conversion import convert
    from leanformer.model.sites import Site
    from leanformer.model.students import load, reduce, save
    from leanformer.model.surgery import sites
    from leanformer.study import StudyResult, run

__all__ = [
    "DistillConfig",
    "FinetuneConfig",
    "Inspection",
    "LeanformerError",
    "Site",
    "Study",
    "StudyResult",
    "convert",
    "distill",
    "inspect",
    "load",
    "make_study",
    "read_image",
    "read_study",
    "reduce",
    "run",
    "save",
    "sites",
]

_HOMES = {
    "DistillConfig": "leanformer.config",
    "FinetuneConfig": "leanformer.config",
    "Inspection": "leanformer.inspection",
    "Site": "leanformer.model.sites",
    "Study": "leanformer.config",
    "StudyResult": "leanformer.study",
    "convert": "leanformer.model.conversion",
    "distill": "leanformer.distillation",
    "inspect": "leanformer.inspection",
    "load": "leanformer.model.students",
    "make_study": "leanformer.config",
    "read_image": "leanformer.data.decoding",
    "read_study": "leanformer.config",
    "reduce": "leanformer.model.students",
    "run": "leanformer.study",
    "save": "leanformer.model.students",
    "sites": "leanformer.model.surgery",
}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used: PyTorch and transformers take seconds, an error message none."""
    if name not in _HOMES:
        raise AttributeError(f"module 'leanformer' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
