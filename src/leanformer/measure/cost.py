"""What a model costs: parameters, operations, time and memory."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from leanformer.core.torch_internals import allocations, silence_profiler
from leanformer.model.surgery import parameter_count, sites

T = TypeVar("T")


class Step(Protocol):
    """One training step of a model, with an optimizer of its own."""

    def __call__(self, batch: dict[str, torch.Tensor], /) -> object:
        """Forward, backward and update on a batch with ``labels``."""

    def close(self) -> None:
        """Lets go of the model."""


def parameters_by_kind(model: PreTrainedModel) -> dict[str, int]:
    """Stored numbers by kind of site, each with its norm; the rest is ``other``. They sum to the total.

    A sublayer or a layer counts as its parts, unless one block stands in place of all of them.
    """
    counts: dict[str, int] = {}
    for site in sites(model):
        if site.block not in ("sublayer", "layer"):
            counts[site.kind] = counts.get(site.kind, 0) + site.parameters + site.norm_parameters
    counts["other"] = parameter_count(model) - sum(counts.values())
    return {kind: count for kind, count in counts.items() if count or not kind.endswith(("layer",))}


def overdetermination_ratio(training_examples: int, outputs: int, parameters: int) -> float:
    """Q = K M / P: numbers that the training data prescribe for each parameter (arXiv 2410.13732)."""
    return training_examples * outputs / parameters


@torch.no_grad()
def count_flops(action: Callable[[], T]) -> tuple[int, T]:
    """An action's floating-point operations (matrix products, convolutions; a multiply-add as two) and its result."""
    # The fused kernels of some devices are not in PyTorch's table; their plain form does the same products.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        result = action()
    return int(counter.get_total_flops()), result


def forward_flops(model: nn.Module, example: dict[str, Any]) -> int:
    """Floating-point operations of one forward pass, as ``count_flops`` counts them.

    Args:
        model: In evaluation mode.
        example: Named inputs of one example.
    """
    return count_flops(lambda: model(**example))[0]


def peak_memory(action: Callable[[], object], device: torch.device) -> int:
    """The most bytes of tensors that an action holds at once, beyond those that were there before it.

    On a GPU from its allocator's own count, on a CPU from the profiler's record of every allocation, which unlike the
    process's size says nothing of who ran before.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        action()
        torch.cuda.synchronize(device)
        return int(torch.cuda.max_memory_allocated(device) - before)
    silence_profiler()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        action()
    held = most = 0
    for size in allocations(record):
        held += size
        most = max(most, held)
    return most


@dataclass
class Subject:
    """A model whose cost is measured.

    Args:
        model: On its device.
        make_step: Makes a training step, which is closed after its use. It changes the model: give a copy where the
            weights matter.
        training: Gives training batches of the study, as made for training (shuffled, augmented, normalized).
        call_one: Does the model's job on one example; gives the number of tokens written (0 where none are).
        call_batch: Does it on many; gives their number, and likewise that of the tokens.
    """

    model: nn.Module
    make_step: Callable[[], Step]
    training: Callable[[], Iterator[dict[str, torch.Tensor]]]
    call_one: Callable[[], int]
    call_batch: Callable[[], tuple[int, int]]


@dataclass
class Cost:
    """Time and memory of one model.

    Args:
        latency_ms: Milliseconds a call with one example, one entry a call.
        ms_per_token: Each call's milliseconds divided by the tokens that it wrote; empty where none are written.
        throughput_per_second: Examples a second in large batches, one entry a round.
        tokens_per_second: Tokens written a second in the same batches; empty where none are.
        train_examples_per_second: Examples a second in training steps, data included, one entry a round.
        peak_memory_mb: Tensors held at most in a forward pass of the large batch, weights included, in 10^6 bytes.
        train_peak_memory_mb: Likewise in training steps, with gradients and optimizer state.
    """

    latency_ms: list[float] = field(default_factory=list)
    ms_per_token: list[float] = field(default_factory=list)
    throughput_per_second: list[float] = field(default_factory=list)
    tokens_per_second: list[float] = field(default_factory=list)
    train_examples_per_second: list[float] = field(default_factory=list)
    peak_memory_mb: float = 0.0
    train_peak_memory_mb: float = 0.0

    def summary(self) -> dict[str, float | dict[str, float] | None]:
        """Medians, and the latency's 50th and 95th percentile, under the names of ``results.json``.

        Of a token's time that of one example at a time, and in large batches that of all tokens together.
        """
        p50, p95 = np.percentile(self.latency_ms, [50, 95])
        tokens_per_second = statistics.median(self.tokens_per_second) if self.tokens_per_second else None
        ms_per_token = None
        if self.ms_per_token and tokens_per_second:
            ms_per_token = {"one": statistics.median(self.ms_per_token), "batch": 1000 / tokens_per_second}
        return {
            "latency_ms": {"p50": float(p50), "p95": float(p95)},
            "ms_per_token": ms_per_token,
            "throughput_per_second": statistics.median(self.throughput_per_second),
            "tokens_per_second": tokens_per_second,
            "train_examples_per_second": statistics.median(self.train_examples_per_second),
            "peak_memory_mb": self.peak_memory_mb,
            "train_peak_memory_mb": self.train_peak_memory_mb,
        }


def measure_costs(
    subjects: Mapping[str, Callable[[], Subject]],
    device: torch.device,
    repeats: int,
    latency_calls: int,
    training_steps: int = 5,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Cost]:
    """Measures all models in one process, round by round, so that none is favored by its turn.

    Each round measures every model, and starts with another one; what a slow moment of the machine costs one round, the
    median over rounds forgets. A model is opened for its turn and let go of after it: at any time the device holds one
    model, and the copy that is trained. Each turn begins with a large batch that is not timed, because a model that has
    just been opened is slower, and so is memory when it is first taken. Before the first round there is one that is not
    recorded, which warms up the process and measures the memory: that is counted, and the moment does not matter to it.

    Args:
        subjects: Name -> what opens the model with its data; it is called once a round, and keeps no model.
        device: Where they are.
        repeats: Rounds.
        latency_calls: Calls with one example a round.
        training_steps: Training steps a round.
        progress: Called with the rounds done and the rounds in all.
    """
    costs = {name: Cost() for name in subjects}
    names = list(subjects)
    with _quick_collections():
        for done in range(-1, repeats):
            start = done % len(names)
            for name in names[start:] + names[:start]:
                if done < 0:
                    _warm_up(subjects[name](), device, latency_calls, training_steps, costs[name])
                else:
                    _turn(subjects[name](), device, latency_calls, training_steps, costs[name])
            progress(done + 1, repeats)
    return costs


@contextmanager
def _quick_collections() -> Iterator[None]:
    """Python's collector looks only through what comes from now on: each turn needs it, and all else takes it long."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _warm_up(subject: Subject, device: torch.device, latency_calls: int, training_steps: int, cost: Cost) -> None:
    """The turn that is not recorded, but for the memory."""
    _measure_memory(subject, device, cost)
    _turn(subject, device, latency_calls, training_steps, Cost())


def _turn(subject: Subject, device: torch.device, latency_calls: int, training_steps: int, cost: Cost) -> None:
    """Adds one round's times of a model that has just been opened."""
    subject.model.eval()
    with torch.inference_mode():
        subject.call_batch()
        for _ in range(latency_calls):
            seconds, tokens = _seconds(subject.call_one, device)
            cost.latency_ms.append(1000 * seconds)
            if tokens:
                cost.ms_per_token.append(1000 * seconds / tokens)
        seconds, (examples, tokens) = _seconds(subject.call_batch, device)
        cost.throughput_per_second.append(examples / seconds)
        if tokens:
            cost.tokens_per_second.append(tokens / seconds)
    with closing(subject.make_step()) as step:
        cost.train_examples_per_second.append(_training_speed(step, subject, device, training_steps))


def _training_speed(step: Step, subject: Subject, device: torch.device, training_steps: int) -> float:
    """Examples a second in training steps, the making of batches included."""
    batches = subject.training()
    step(next(batches))  # makes the optimizer's state
    examples = 0

    def steps() -> None:
        nonlocal examples
        for inputs in islice(batches, training_steps):
            step(inputs)
            examples += len(inputs["labels"])

    seconds, _ = _seconds(steps, device)
    if examples == 0:  # an epoch of one step
        batches = subject.training()
        seconds, _ = _seconds(steps, device)
    return examples / seconds


def _measure_memory(subject: Subject, device: torch.device, cost: Cost) -> None:
    weights = sum(tensor.numel() * tensor.element_size() for tensor in subject.model.state_dict().values())
    subject.model.eval()
    with torch.inference_mode():
        cost.peak_memory_mb = (weights + peak_memory(subject.call_batch, device)) / 1e6
    batch = next(subject.training())

    def two_steps() -> None:
        with closing(subject.make_step()) as step:
            step(batch)
            step(batch)  # with the optimizer's state there

    cost.train_peak_memory_mb = (weights + peak_memory(two_steps, device)) / 1e6


def _seconds(action: Callable[[], T], device: torch.device) -> tuple[float, T]:
    """How long an action takes, and what it gives."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    result = action()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started, result
