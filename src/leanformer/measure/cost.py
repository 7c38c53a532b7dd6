"""What a model costs: parameters, operations, time and memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from leanformer.core.torch_internals import allocations, silence_profiler
from leanformer.measure.rounds import in_turn, quick_collections
from leanformer.model.surgery import sites
from leanformer.model.weights import parameter_count

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


class Step(Protocol):
    """One training step of a model, with an optimizer of its own."""

    def __call__(self, batch: dict[str, torch.Tensor], /) -> object:
        """Forward, backward and update on a batch with ``labels``."""

    def close(self) -> None:
        """Frees the model."""


def parameters_by_kind(model: PreTrainedModel) -> dict[str, int]:
    """Parameters by kind of site, each with its norm; the rest is ``other``. They sum to the total.

    A sublayer or a layer counts as its parts, unless one block replaces all of them.
    """
    counts: dict[str, int] = {}
    for site in sites(model):
        if site.block not in ("sublayer", "layer"):
            counts[site.kind] = counts.get(site.kind, 0) + site.parameters + site.norm_parameters
    counts["other"] = parameter_count(model) - sum(counts.values())
    return {kind: count for kind, count in counts.items() if count or not kind.endswith(("layer",))}


def overdetermination_ratio(training_examples: int, outputs: int, parameters: int) -> float:
    """Q = K M / P: outputs that the training data prescribe for each parameter (arXiv 2410.13732)."""
    return training_examples * outputs / parameters


@torch.no_grad()
def count_flops(action: Callable[[], T]) -> tuple[int, T]:
    """An action's floating-point operations (matrix products, convolutions; a multiply-add is two) and its result."""
    # PyTorch does not count the fused kernels of some devices; the plain form does the same products.
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
    """The peak memory of an action's tensors in bytes, beyond the tensors that existed before it.

    On a GPU it comes from the allocator's own count, on a CPU from the profiler's record of every allocation, which
    unlike the size of the process does not depend on earlier work.
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


@dataclass(kw_only=True)
class Calls:
    """The calls of a model that are timed.

    Args:
        call_one: Runs the model on one example; returns the number of written tokens (0 for a classifier).
        call_batch: Runs the model on a large batch; returns the numbers of examples and of written tokens.
    """

    call_one: Callable[[], int]
    call_batch: Callable[[], tuple[int, int]]


@dataclass(kw_only=True)
class Exported(Calls):
    """An exported model whose cost is measured, in its engine.

    Args:
        memory: The peak memory of a process that runs the large batch, in 10^6 bytes; None where it is not known. It
            keeps no model.
    """

    memory: Callable[[], float | None]


@dataclass(kw_only=True)
class Subject(Calls):
    """A PyTorch model whose cost is measured.

    Args:
        model: On its device.
        make_step: Makes a training step, which is closed after its use. It changes the model: give it a copy where the
            weights matter.
        training: Gives the study's training batches, prepared for training (shuffled, augmented, normalized).
        infers: Whether its calls are measured; if not, training alone is.
    """

    model: nn.Module
    make_step: Callable[[], Step]
    training: Callable[[], Iterator[dict[str, torch.Tensor]]]
    infers: bool = True


@dataclass
class Cost:
    """Time and memory of one model.

    Args:
        latency_ms: Milliseconds per call with one example: a list per round, one entry per call.
        ms_per_token: Each call's milliseconds divided by the tokens that it wrote, likewise; lists are empty for a
            classifier.
        throughput_per_second: Examples per second in large batches, one entry per round.
        tokens_per_second: Written tokens per second in the same batches; empty for a classifier.
        train_examples_per_second: Examples per second in training steps, data included, one entry per round.
        peak_memory_mb: In PyTorch the peak of all tensors in a forward pass of the large batch, weights included, in
            10^6 bytes, which is counted.
        process_memory_mb: Of an exported model the peak of a whole process that runs the batch, one entry a process.
        train_peak_memory_mb: Peak of all tensors in training steps, with gradients and optimizer state.

    What was not measured is empty or None.
    """

    latency_ms: list[list[float]] = field(default_factory=list)
    ms_per_token: list[list[float]] = field(default_factory=list)
    throughput_per_second: list[float] = field(default_factory=list)
    tokens_per_second: list[float] = field(default_factory=list)
    train_examples_per_second: list[float] = field(default_factory=list)
    peak_memory_mb: float | None = None
    process_memory_mb: list[float] = field(default_factory=list)
    train_peak_memory_mb: float | None = None

    def speed(self) -> dict[str, Any] | None:
        """Medians, the latency's 50th and 95th percentile, and the rounds, under the names of ``results.json``.

        The time per token is given for one example at a time and for large batches. None where only training was
        measured.
        """
        if not self.latency_ms:
            return None
        p50, p95 = np.percentile(list(chain.from_iterable(self.latency_ms)), [50, 95])
        tokens_per_second = _median(self.tokens_per_second)
        ms_per_token = None
        per_token = list(chain.from_iterable(self.ms_per_token))
        if per_token and tokens_per_second:
            ms_per_token = {"one": statistics.median(per_token), "batch": 1000 / tokens_per_second}
        return {
            "latency_ms": {"p50": float(p50), "p95": float(p95)},
            "ms_per_token": ms_per_token,
            "throughput_per_second": statistics.median(self.throughput_per_second),
            "tokens_per_second": tokens_per_second,
            "peak_memory_mb": self.peak_memory_mb if self.process_memory_mb == [] else _median(self.process_memory_mb),
            "rounds": {
                "latency_ms": _of_rounds(self.latency_ms),
                "ms_per_token": _of_rounds(self.ms_per_token),
                "throughput_per_second": self.throughput_per_second,
                "tokens_per_second": self.tokens_per_second,
                "peak_memory_mb": self.process_memory_mb,
            },
        }

    def of_training(self) -> dict[str, float | None]:
        """The medians of training, likewise."""
        return {
            "train_examples_per_second": _median(self.train_examples_per_second),
            "train_peak_memory_mb": self.train_peak_memory_mb,
        }


def _median(values: list[float]) -> float | None:
    return statistics.median(values) if values else None


def _of_rounds(calls: list[list[float]]) -> list[float]:
    """The median of each round's calls; empty where a round has none."""
    return [statistics.median(one) for one in calls] if all(calls) else []


def measure_costs(
    subjects: Mapping[K, Callable[[], Subject | Exported]],
    device: torch.device,
    repeats: int,
    latency_calls: int,
    training_steps: int = 3,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[K, Cost]:
    """Measures all models in one process, in rounds, so that the order of the models does not favor any of them.

    Each round measures every model, and starts with another one. The median over rounds ignores a round in which the
    machine was slow, and a ratio of two models that is taken round by round is one of the same moment. A model is
    loaded for its turn and freed after it, so that the device holds only one model and the copy that is trained. Each
    turn begins with a large batch that is not timed, because the first use of a model and of new memory is slower. A
    first round that is not recorded warms up the process and counts the memory of PyTorch's tensors, which does not
    depend on the moment. Exported models are run again at the end, as often as there are rounds, in processes of their
    own, for their memory.

    Args:
        subjects: Name -> a function that loads the model with its data; it is called once per round, and keeps no
            model.
        device: The device of the PyTorch models.
        repeats: The number of rounds.
        latency_calls: Calls with one example per round.
        training_steps: Training steps per round.
        progress: Called with the number of finished rounds and the number of all rounds.
    """
    costs = {name: Cost() for name in subjects}
    memories: dict[K, Callable[[], float | None]] = {}
    names = list(subjects)
    with quick_collections():
        for done in range(-1, repeats):
            for name in in_turn(names, done):
                if done < 0:
                    memory = _warm_up(subjects[name](), device, latency_calls, training_steps, costs[name])
                    if memory is not None:
                        memories[name] = memory
                else:
                    _turn(subjects[name](), device, latency_calls, training_steps, costs[name])
            progress(done + 1, repeats)
    for name, memory in memories.items():
        costs[name].process_memory_mb = _in_processes(memory, repeats)
    return costs


def _warm_up(
    subject: Subject | Exported, device: torch.device, latency_calls: int, training_steps: int, cost: Cost
) -> Callable[[], float | None] | None:
    """The first turn of a model, of which only PyTorch's memory is recorded; returns what tells an exported one's."""
    if isinstance(subject, Exported):
        _time_calls(subject, device, latency_calls, Cost())
        return subject.memory
    _count_memory(subject, device, cost)
    _turn(subject, device, latency_calls, training_steps, Cost())
    return None


def _turn(
    subject: Subject | Exported, device: torch.device, latency_calls: int, training_steps: int, cost: Cost
) -> None:
    """Adds one round's times of a model that has just been loaded."""
    if isinstance(subject, Exported):
        _time_calls(subject, device, latency_calls, cost)
        return
    if subject.infers:
        subject.model.eval()
        with torch.inference_mode():
            _time_calls(subject, device, latency_calls, cost)
    with closing(subject.make_step()) as step:
        cost.train_examples_per_second.append(_training_speed(step, subject, device, training_steps))


def _time_calls(calls: Calls, device: torch.device, latency_calls: int, cost: Cost) -> None:
    """Adds one round's times of a model's calls."""
    calls.call_batch()
    cost.latency_ms.append([])
    cost.ms_per_token.append([])
    for _ in range(latency_calls):
        seconds, tokens = _seconds(calls.call_one, device)
        cost.latency_ms[-1].append(1000 * seconds)
        if tokens:
            cost.ms_per_token[-1].append(1000 * seconds / tokens)
    seconds, (examples, tokens) = _seconds(calls.call_batch, device)
    cost.throughput_per_second.append(examples / seconds)
    if tokens:
        cost.tokens_per_second.append(tokens / seconds)


def _training_speed(step: Step, subject: Subject, device: torch.device, training_steps: int) -> float:
    """Examples per second in training steps, the making of batches included."""
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


def _count_memory(subject: Subject, device: torch.device, cost: Cost) -> None:
    weights = sum(tensor.numel() * tensor.element_size() for tensor in subject.model.state_dict().values())
    if subject.infers:
        subject.model.eval()
        with torch.inference_mode():
            cost.peak_memory_mb = (weights + peak_memory(subject.call_batch, device)) / 1e6
    batch = next(subject.training())

    def two_steps() -> None:
        with closing(subject.make_step()) as step:
            step(batch)
            step(batch)  # now the optimizer's state exists

    cost.train_peak_memory_mb = (weights + peak_memory(two_steps, device)) / 1e6


def _in_processes(memory: Callable[[], float | None], number: int) -> list[float]:
    """The peak memory of each of several processes that run an exported model; empty where it is not known.

    Two run at a time and after all that is timed: what else runs changes a process's time, not its memory.
    """
    with ThreadPoolExecutor(2) as pool:
        found = pool.map(lambda _: memory(), range(number))
    return [peak for peak in found if peak is not None]


def _seconds(action: Callable[[], T], device: torch.device) -> tuple[float, T]:
    """The seconds that an action takes, and its result."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    result = action()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started, result
