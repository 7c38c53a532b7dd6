"""Models through torch.compile: as many forms as a study has, and one line where nothing can be compiled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from leanformer.core.errors import LeanformerError
from leanformer.core.torch_internals import allow_versions, compile_options, is_compile_error, tell_sides_apart

VERSIONS = 1000  # of one function, at most, in one process


def compiled(model: nn.Module, many_shapes: bool, device: torch.device) -> Any:
    """The model as a function that is compiled when it is first called.

    Args:
        model: Not wrapped by accelerate: its wrapper differs from training to training, and each would compile anew.
        many_shapes: Whether batches differ in shape. Left to find that out, PyTorch compiles twice.
        device: Where the model is.
    """
    allow_versions(VERSIONS)  # each form is one
    if many_shapes:
        tell_sides_apart()
    return torch.compile(model, dynamic=many_shapes, options=compile_options(device))


@contextmanager
def compiling() -> Iterator[None]:
    """Around what may compile.

    Raises:
        LeanformerError: It cannot be compiled here.
    """
    try:
        yield
    except Exception as error:
        if not is_compile_error(error):
            raise
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        cause = next((line for line in lines if "error:" in line.lower()), lines[0])
        raise LeanformerError(
            f"train.compile: PyTorch cannot compile the model here ({cause}); it needs a C++ compiler and Python's "
            "headers, on a GPU Triton; set compile to false to train without"
        ) from error
