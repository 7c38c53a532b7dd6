"""``torch.compile`` for all models of a study, and a one-line error where a model cannot be compiled."""

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
        model: Not wrapped by accelerate: each training has another wrapper, which would be compiled again.
        many_shapes: Whether batches differ in shape. PyTorch compiles twice if it must find that out itself.
        device: Where the model is.
    """
    allow_versions(VERSIONS)  # each shape of a model is one
    if many_shapes:
        tell_sides_apart()
    return torch.compile(model, dynamic=many_shapes, options=compile_options(device))


@contextmanager
def compiling() -> Iterator[None]:
    """Turns an error of the compiler into one line.

    Raises:
        LeanformerError: The model cannot be compiled on this machine.
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
            "headers, and Triton on a GPU; set compile to false to train without it"
        ) from error
