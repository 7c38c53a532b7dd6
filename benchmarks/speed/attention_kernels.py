"""From how many tokens on PyTorch's fused attention beats plain products on this machine's CPU.

The figures behind ``FUSED_FROM_TOKENS_ON_CPU`` in ``leanformer.blocks.kit.dot_product``: the kernel alone, forward
and backward, and whole training steps (forward, backward, clipping, AdamW) of the extreme form (collapsed queries and
keys, no values, no MLP). Both ways are measured in turn in each round, and each comes first in half of them; the ratio
is taken round by round, and the median kept.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest import mock

import torch

import leanformer as lf
from benchmarks.kit.benchmark import CPU, Benchmark, Result, progress, register
from benchmarks.kit.forms import EXTREME, vit_config
from benchmarks.kit.measuring import in_turn, median_ratio, seconds
from benchmarks.kit.tables import Tables, figure_table, span, table
from leanformer.blocks.kit import dot_product
from leanformer.config.images import ImageTrainConfig
from leanformer.core.errors import LeanformerError
from leanformer.learn.step import TrainingStep, make_accelerator
from leanformer.model.baseline import fresh_model

PATCH = 4
LIMIT = dot_product.FUSED_FROM_TOKENS_ON_CPU
ALWAYS, NEVER = 0, 2**31
"""From how many tokens on the fused kernel is taken."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--grids", type=int, nargs="+", default=[4, 6, 7, 8, 10, 12, 14], help="patches along a side")
    parser.add_argument("--shapes", nargs="+", default=["64x1", "64x4", "192x1", "192x4"], help="d_model x heads")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--numbers", type=int, default=2**19, help="in the states of a batch")


def kernel(d_model: int, heads: int, tokens: int, batch: int) -> Callable[[], object]:
    """Attention alone, forward and backward."""
    states = torch.randn(batch, tokens, d_model, requires_grad=True)
    return lambda: dot_product.attend(states, states, states, heads).sum().backward()


def training_step(d_model: int, heads: int, grid: int, layers: int, batch: int) -> Callable[[], object]:
    """A step of the extreme form on images of grid x grid patches."""
    size = grid * PATCH
    model = lf.reduce(fresh_model("vit", vit_config(d_model, layers, heads, PATCH, size)), EXTREME).train()
    step = TrainingStep(model, ImageTrainConfig(batch_size=batch), 1e-3, make_accelerator("float32", CPU))
    inputs = {"pixel_values": torch.randn(batch, 1, size, size), "labels": torch.randint(10, (batch,))}
    return lambda: step(inputs)


def speed_up(action: Callable[[], object], rounds: int) -> float:
    """How many times as fast an action is with the fused kernel as with plain products."""

    def one_way(fused_from: int) -> float:
        with mock.patch.object(dot_product, "FUSED_FROM_TOKENS_ON_CPU", fused_from):
            return seconds(action)

    took = in_turn({"fused": partial(one_way, ALWAYS), "plain": partial(one_way, NEVER)}, rounds, warm_up=2)
    return median_ratio(took["plain"], took["fused"])


def measure(arguments: argparse.Namespace) -> Result:
    """The two speed-ups of every shape at every number of tokens."""
    rows = []
    for shape in arguments.shapes:
        try:
            d_model, heads = (int(number) for number in shape.split("x"))
        except ValueError:
            raise LeanformerError(f"--shapes {shape}: give d_model and heads, such as 64x4") from None
        for grid in arguments.grids:
            tokens = grid**2 + 1
            batch = max(1, arguments.numbers // (tokens * d_model))
            alone = speed_up(kernel(d_model, heads, tokens, batch), arguments.rounds)
            whole = speed_up(training_step(d_model, heads, grid, arguments.layers, batch), arguments.rounds)
            rows.append(
                {
                    "d_model": d_model,
                    "heads": heads,
                    "tokens": tokens,
                    "batch": batch,
                    "kernel_speed_up": alone,
                    "training_step_speed_up": whole,
                }
            )
            progress(f"d={d_model} heads={heads} tokens={tokens}: kernel {alone:.2f} x, training step {whole:.2f} x")
    return {"rows": rows}


def tables(result: Result) -> Tables:
    """Tokens by shapes."""
    found = {(row["d_model"], row["heads"], row["tokens"]): row for row in result["rows"]}
    shapes = list(dict.fromkeys((d_model, heads) for d_model, heads, _ in found))
    lines = [
        (tokens, *(both(found[*shape, tokens]) for shape in shapes))
        for tokens in dict.fromkeys(tokens for _, _, tokens in found)
    ]
    header = ("tokens", *(f"d = {d_model}, heads: {heads}" for d_model, heads in shapes))
    return {"speed": table(header, lines), "figures": figure_table(sides(result["rows"], LIMIT))}


def both(row: dict[str, Any]) -> str:
    """The training step's ratio, and the kernel's."""
    return f"{row['training_step_speed_up']:.2f} ({row['kernel_speed_up']:.2f})"


def sides(rows: list[dict[str, Any]], limit: int) -> dict[str, str]:
    """The range of a training step's ratio on each side of a number of tokens."""
    ratios: dict[str, list[float]] = {}
    for row in rows:
        side = "fewer than" if row["tokens"] < limit else "at least"
        ratios.setdefault(f"a training step with {side} {limit} tokens", []).append(row["training_step_speed_up"])
    return {side: f"{span(own, '.2f')} x" for side, own in ratios.items()}


BENCHMARK = register(
    "speed",
    Benchmark(
        name="attention_kernels",
        add_arguments=add_arguments,
        measure=measure,
        tables=tables,
        quick={"rounds": 2, "grids": [4, 6], "shapes": ["64x1", "64x4"], "layers": 1, "numbers": 2**13},
    ),
)
