"""The one module that uses what PyTorch does not promise: private names, settings of its compiler, texts of its errors.

Each function says what it relies on, and ``tests/core/test_contracts_torch.py`` checks it: an upgrade that breaks it
fails there, and is fixed here. PyTorch, and above all its compiler, take seconds to load: each function imports what it
needs.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

# Gradients


def softmax_gradient(gradient: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """The gradient of the input of a softmax over the last dimension, in one pass over memory.

    Relies on ``torch._softmax_backward_data``, which PyTorch's own derivative of ``softmax`` calls.

    Args:
        gradient: The gradient of the weights, shape (..., weights).
        weights: The output of the softmax, likewise.

    Returns:
        The same shape.
    """
    import torch

    return torch._softmax_backward_data(gradient, weights, -1, weights.dtype)


def remember_signature(function: type[torch.autograd.Function]) -> None:
    """Spares each call of a function with a ``setup_context`` the search for its signature.

    Relies on ``Function.apply``, which calls ``inspect.signature`` on ``forward`` at every call, and on that function,
    which takes ``__signature__`` where it is set. The search takes as long as a small matrix product.
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
    """Lets a function be compiled in at least so many versions in one process.

    Relies on two settings of ``torch._dynamo.config``. Beyond its own limit of eight versions, PyTorch stops compiling
    a function, and only logs a line.
    """
    import torch._dynamo as dynamo

    for limit in ("recompile_limit", "accumulated_recompile_limit"):
        setattr(dynamo.config, limit, max(getattr(dynamo.config, limit), versions))


def tell_sides_apart() -> None:
    """Compiles for shapes in which dimensions that are equal in the first batch differ in the next.

    Relies on ``use_duck_shape`` of ``torch.fx.experimental._config``, which treats equal dimensions as one.
    """
    from torch.fx.experimental import _config as fx_config

    fx_config.use_duck_shape = False


def compile_options(device: torch.device) -> dict[str, Any] | None:
    """Options of ``torch.compile`` for a device.

    Relies on Inductor's ``cpp_wrapper``: a CPU's kernels are called from C++, which saves a twelfth of the time of a
    step of the smallest models.
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

    Relies on texts: PyTorch has a type of its own for a GPU's memory alone; for a CPU's it raises ``RuntimeError``.
    """
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _NO_MEMORY)


def unpickling_problem(error: BaseException) -> str:
    """What ``torch.load(weights_only=True)`` objects to, in one line, without its advice to trust the file.

    Relies on texts: its message has many lines, and the one that says what is wrong begins in one of three ways.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith(("WeightsUnpickler error", "Unsupported", "Trying to load"))]
    return " ".join((telling or lines or [type(error).__name__])[0].split())[:200]


# The profiler


def silence_profiler() -> None:
    """Keeps the profiler from printing a line to standard error at each start and stop.

    Relies on ``KINETO_LOG_LEVEL``, which is read once, at the profiler's first start.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")


def allocations(record: torch.profiler.profile) -> Iterator[int]:
    """Bytes allocated and, as negative numbers, bytes freed, in the order in time.

    Relies on the profiler's raw events, of which those called ``[memory]`` are the allocator's: to have them made into
    a tree first (``acc_events``) would take seconds.

    Args:
        record: A finished ``torch.profiler.profile(profile_memory=True)``.
    """
    results: Any = record.profiler
    events = [event for event in results.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        yield int(event.nbytes())


# Exporting


@contextmanager
def as_if_exporting() -> Iterator[None]:
    """A context in which models compute as while they are exported to a graph.

    Relies on ``torch.compiler._is_exporting_flag``, which ``torch.compiler.is_exporting`` returns.
    """
    import torch

    before = torch.compiler._is_exporting_flag
    torch.compiler._is_exporting_flag = True
    try:
        yield
    finally:
        torch.compiler._is_exporting_flag = before
