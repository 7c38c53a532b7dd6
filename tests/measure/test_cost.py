"""The cost of models: counted by hand, and measured in an order that favors none of them."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

import leanformer as lf
from leanformer.config.images import ImageTrainConfig
from leanformer.learn.losses import Batch
from leanformer.learn.step import TrainingStep, make_accelerator
from leanformer.measure.cost import (
    Exported,
    Subject,
    forward_flops,
    measure_costs,
    overdetermination_ratio,
    parameters_by_kind,
    peak_memory,
)
from leanformer.model.weights import parameter_count

CPU = torch.device("cpu")
MakeModel = Callable[..., PreTrainedModel]


def test_parameters_by_kind_sum_to_the_total(make_model: MakeModel) -> None:
    d, mlp, layers = 24, 48, 3
    model = make_model()
    counts = parameters_by_kind(model)
    assert counts["self_attention"] == layers * (4 * (d * d + d) + 2 * d)
    assert counts["mlp"] == layers * (2 * d * mlp + mlp + d + 2 * d)
    assert sum(counts.values()) == parameter_count(model)
    student = lf.reduce(model, {"*.self_attention": "minimal_attention", "*.mlp": "none"})
    counts = parameters_by_kind(student)
    assert counts["self_attention"] == layers * (d * d + 2 * d)
    assert counts["mlp"] == 0
    assert sum(counts.values()) == parameter_count(student)


@pytest.mark.parametrize("heads", [1, 4])
def test_forward_operations_by_hand(make_model: MakeModel, heads: int) -> None:
    d, mlp, layers, classes, patch, tokens = 24, 48, 3, 5, 4, 16
    n = tokens + 1
    embeddings = 2 * tokens * patch * patch * d
    products = layers * 2 * (2 * n * n * d)  # scores, and weights times values
    model = make_model(num_attention_heads=heads)
    pixels: dict[str, Any] = {"pixel_values": torch.zeros(1, 1, 16, 16)}
    whole = embeddings + products + layers * (2 * 4 * n * d * d + 2 * 2 * n * d * mlp) + 2 * d * classes
    assert forward_flops(model, pixels) == whole
    plan = {"*.self_attention": "minimal_attention", "*.mlp": "none"}
    student = lf.reduce(model, plan)
    extreme = embeddings + products + layers * 2 * n * d * d + 2 * d * classes
    assert forward_flops(student, {**pixels, "output_hidden_states": True}) == extreme
    # The last layer asks for the class token alone.
    assert forward_flops(student, pixels) == extreme - 2 * 2 * (n - 1) * n * d - 2 * (n - 1) * d * d


def test_overdetermination_ratio() -> None:
    assert overdetermination_ratio(60_000, 10, 31_498) == pytest.approx(19.0488, abs=1e-4)  # K M / P


def test_peak_memory_is_what_is_held_at_once() -> None:
    def action() -> None:
        first = torch.zeros(1_000_000)
        second = first + 1  # both exist
        del first
        third = second + 1  # two again, not three
        del second, third

    assert 8_000_000 <= peak_memory(action, CPU) < 8_100_000


class Recorded(nn.Module):
    """Records the batch size of each call under the model's name."""

    def __init__(self, name: str, calls: list[tuple[str, int]]) -> None:
        super().__init__()
        self.name, self.calls = name, calls
        self.weight = nn.Parameter(torch.zeros(10))

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        self.calls.append((self.name, len(pixel_values)))
        return pixel_values * 2


class NoStep:
    """A training step that does nothing."""

    def __call__(self, batch: dict[str, torch.Tensor]) -> None: ...

    def close(self) -> None: ...


def test_rounds_are_interleaved_and_the_first_is_not_recorded() -> None:
    calls: list[tuple[str, int]] = []

    def subject(name: str) -> Subject:
        def training() -> Iterator[dict[str, torch.Tensor]]:
            while True:
                yield {"pixel_values": torch.zeros(4, 3), "labels": torch.zeros(4, dtype=torch.long)}

        model = Recorded(name, calls)

        large = torch.zeros(32, 3)

        def many() -> tuple[int, int]:
            model(large)
            return 32, 64

        def one() -> int:
            model(torch.zeros(1, 3))
            return 8

        return Subject(model=model, make_step=NoStep, training=training, call_one=one, call_batch=many)

    subjects = {name: partial(subject, name) for name in "abc"}
    costs: dict[str, Any] = measure_costs(subjects, CPU, repeats=3, latency_calls=2)
    rounds = [name for name, size in calls if size == 1][::2]  # two calls of one example each
    assert [rounds[start : start + 3] for start in range(0, 12, 3)] == [
        ["c", "a", "b"],  # warm-up
        ["a", "b", "c"],
        ["b", "c", "a"],
        ["c", "a", "b"],
    ]
    for cost in costs.values():
        assert [len(calls) for calls in cost.latency_ms] == [2, 2, 2]
        for milliseconds, per_token in zip(cost.latency_ms, cost.ms_per_token, strict=True):
            assert per_token == pytest.approx([one / 8 for one in milliseconds])
        assert len(cost.throughput_per_second) == len(cost.train_examples_per_second) == 3
        assert cost.tokens_per_second == pytest.approx([2 * speed for speed in cost.throughput_per_second])
        summary = {**cost.speed(), **cost.of_training()}
        rounds = summary["rounds"]
        assert rounds["latency_ms"] == pytest.approx([sum(calls) / 2 for calls in cost.latency_ms])
        assert rounds["ms_per_token"] == pytest.approx([ms / 8 for ms in rounds["latency_ms"]])
        assert rounds["throughput_per_second"] == cost.throughput_per_second
        assert rounds["tokens_per_second"] == cost.tokens_per_second
        assert rounds["peak_memory_mb"] == []  # counted once
        assert summary["ms_per_token"]["one"] == pytest.approx(summary["latency_ms"]["p50"] / 8)
        assert summary["ms_per_token"]["batch"] == pytest.approx(1000 / summary["tokens_per_second"])
        # Weights, and the one tensor that the forward pass of the large batch makes.
        assert cost.peak_memory_mb == pytest.approx((10 * 4 + 32 * 3 * 4) / 1e6, abs=2e-4)


def test_the_memory_of_processes_is_measured_as_often_as_there_are_rounds() -> None:
    memories = iter([30.0, 10.0, 20.0])
    model = Exported(call_one=lambda: 0, call_batch=lambda: (32, 0), memory=lambda: next(memories))
    cost = measure_costs({"a": lambda: model}, CPU, repeats=3, latency_calls=1)["a"]
    speed = cost.speed()
    assert speed is not None
    assert speed["peak_memory_mb"] == 20.0
    assert sorted(speed["rounds"]["peak_memory_mb"]) == [10.0, 20.0, 30.0]  # two processes at a time
    assert (speed["ms_per_token"], speed["rounds"]["ms_per_token"]) == (None, [])
    unknown = Exported(call_one=lambda: 0, call_batch=lambda: (32, 0), memory=lambda: None)
    speed = measure_costs({"a": lambda: unknown}, CPU, repeats=1, latency_calls=1)["a"].speed()
    assert speed is not None
    assert (speed["peak_memory_mb"], speed["rounds"]["peak_memory_mb"]) == (None, [])


def test_one_model_is_there_at_a_time(make_model: MakeModel) -> None:
    """One model and the copy that is trained, for any number of models."""
    accelerator = make_accelerator("float32", CPU)
    batch = {"pixel_values": torch.randn(2, 1, 16, 16), "labels": torch.tensor([0, 1])}
    alive: weakref.WeakSet[nn.Module] = weakref.WeakSet()
    most: list[int] = []

    def note(model: nn.Module) -> nn.Module:
        alive.add(model)
        most.append(len(alive))
        return model

    def training() -> Iterator[Batch]:
        while True:
            yield batch

    def subject() -> Subject:
        model = note(make_model())

        def one() -> int:
            model(pixel_values=batch["pixel_values"][:1])
            return 0

        def many() -> tuple[int, int]:
            model(pixel_values=batch["pixel_values"])
            return 2, 0

        def step() -> TrainingStep:
            return TrainingStep(note(copy.deepcopy(model).train()), ImageTrainConfig(), 1e-3, accelerator)

        return Subject(model=model, make_step=step, training=training, call_one=one, call_batch=many)

    gc.disable()  # a model must be freed after its turn, without help of the garbage collector
    try:
        measure_costs(dict.fromkeys("abc", subject), CPU, repeats=1, latency_calls=1)
        assert most == [1, 2, 2] * 3 + [1, 2] * 3  # the first round makes one more step, to measure memory
        assert not alive
        assert gc.get_freeze_count() == 0
    finally:
        gc.enable()
