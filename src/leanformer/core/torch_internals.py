"""The one door to what PyTorch does not promise: private names, settings of its compiler, texts of its errors.

Each function says what it relies on, and ``tests/core/test_contracts_torch.py`` holds that to be so: an upgrade
fails there, and is mended here. PyTorch, and its compiler above all, take seconds to load: each function imports what
it needs.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

# Gradients


def softmax_gradient(gradient: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """The gradient of what a softmax over the last dimension was taken of, in one pass over memory.

    Relies on ``torch._softmax_backward_data``, which PyTorch's own derivative of ``softmax`` calls.

    Args:
        gradient: Of the weights, shape (..., weights).
        weights: What the softmax gave, likewise.

    Returns:
        The same shape.
    """
    import torch

    return torch._softmax_backward_data(gradient, weights, -1, weights.dtype)


def remember_signature(function: type[torch.autograd.Function]) -> None:
    """Spares each call of a function with a ``setup_context`` the search for its signature.

    Relies on ``Function.apply``, which asks ``inspect.signature`` of ``forward`` at every call, and on that, which
    takes ``__signature__`` where it is set. To find it out takes as long as a small product.
    """
    function.forward.__signature__ = inspect.signature(function.forward)  # type: ignore[attr-defined]


# The compiler


def is_compile_error(error: BaseException) -> bool:
    """Whether an error says that a machine cannot compile, which shows at the first call of a compiled function.

    Relies on two types of ``torch._dynamo`` and ``torch._inductor``.
    """
    from torch._dynamo.exc import BackendCompilerFailed
    from torch._inductor.exc import TritonMissing

    return isinstance(error, BackendCompilerFailed | TritonMissing)


def allow_versions(versions: int) -> None:
    """Lets a function be compiled in so many versions in one process, at least.

    Relies on two settings of ``torch._dynamo.config``. Beyond its own limit, of eight versions, PyTorch gives up a
    function with a log line alone.
    """
    import torch._dynamo as dynamo

    for limit in ("recompile_limit", "accumulated_recompile_limit"):
        setattr(dynamo.config, limit, max(getattr(dynamo.config, limit), versions))


def tell_sides_apart() -> None:
    """Compiles for shapes in which sides that are equal in the first batch are not so in the next.

    Relies on ``use_duck_shape`` of ``torch.fx.experimental._config``, which takes equal sides for one.
    """
    from torch.fx.experimental import _config as fx_config

    fx_config.use_duck_shape = False


def compile_options(device: torch.device) -> dict[str, Any] | None:
    """Options of ``torch.compile`` for a device.

    Relies on Inductor's ``cpp_wrapper``: a CPU's kernels are called from C++, which is a twelfth less time for a step
    of the smallest models.
    """
    return {"cpp_wrapper": True} if device.type == "cpu" else None


# Errors

_NO_MEMORY = (
    "can't allocate memory",
    "not enough memory",
    "DefaultCPUAllocator",
    "Storage size calculation overflowed",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out.

    Relies on texts: PyTorch has a type for a GPU's memory, of a CPU's it raises a plain ``RuntimeError``.
    """
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _NO_MEMORY)


def unpickling_problem(error: BaseException) -> str:
    """What ``torch.load(weights_only=True)`` objects to, on a line, without its advice to trust the file.

    Relies on texts: its message has many lines, of which one begins in one of three ways.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith(("WeightsUnpickler error", "Unsupported", "Trying to load"))]
    return " ".join((telling or lines or [type(error).__name__])[0].split())[:200]


# The profiler


def silence_profiler() -> None:
    """Keeps the profiler from telling standard error of each start and stop.

    Relies on ``KINETO_LOG_LEVEL``, which is read once, at the profiler's first start.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")


def allocations(record: torch.profiler.profile) -> Iterator[int]:
    """Bytes that were allocated, and those that were freed, as negative numbers, in the order in which it happened.

    Relies on the profiler's raw events, of which those called ``[memory]`` are of the allocator: to have them made into
    a tree first (``acc_events``) would take seconds.

    Args:
        record: Of ``torch.profiler.profile(profile_memory=True)``, ended.
    """
    results: Any = record.profiler
    events = [event for event in results.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        yield int(event.nbytes())
