"""Models through torch.compile: as many forms as a study has, and one line where nothing can be compiled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch._dynamo as dynamo
from torch import nn
from torch._inductor.exc import TritonMissing
from torch.fx.experimental import _config as fx_config

from leanformer.core.errors import LeanformerError

VERSIONS = 1000  # of one function, at most, in one process


def compiled(model: nn.Module, many_shapes: bool, device: torch.device) -> Any:
    """The model as a function that is compiled when it is first called.

    Args:
        model: Not wrapped by accelerate: its wrapper differs from training to training, and each would compile anew.
        many_shapes: Whether batches differ in shape. Left to find that out, PyTorch compiles twice.
        device: Where the model is.
    """
    # PyTorch gives up a function, with a log line alone, after eight versions of it: each form is a version.
    for limit in ("recompile_limit", "accumulated_recompile_limit"):
        setattr(dynamo.config, limit, max(getattr(dynamo.config, limit), VERSIONS))
    if many_shapes:  # sides that are equal in the first batch are not so in the next
        fx_config.use_duck_shape = False
    # A CPU's kernels are then called from C++: a twelfth less time for a step of the smallest forms.
    options: dict[str, Any] | None = {"cpp_wrapper": True} if device.type == "cpu" else None
    return torch.compile(model, dynamic=many_shapes, options=options)


@contextmanager
def compiling() -> Iterator[None]:
    """Around what may compile.

    Raises:
        LeanformerError: It cannot be compiled here.
    """
    try:
        yield
    except (dynamo.exc.BackendCompilerFailed, TritonMissing) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        cause = next((line for line in lines if "error:" in line.lower()), lines[0])
        raise LeanformerError(
            f"train.compile: PyTorch cannot compile the model here ({cause}); it needs a C++ compiler and Python's "
            "headers, on a GPU Triton; set compile to false to train without"
        ) from error
