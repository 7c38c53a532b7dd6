"""From how many tokens on PyTorch's fused attention beats plain products on this machine's CPU.

    python benchmarks/attention_kernels.py --out benchmarks/results/attention_kernels.json

The figures behind ``FUSED_FROM_TOKENS_ON_CPU`` in ``leanformer.blocks.minimal_attention``: the kernel alone, forward
and backward, and whole training steps (forward, backward, clipping, AdamW) of the extreme form (collapsed queries and
keys, no values, no MLP). Both ways are measured in turn in each round, and each comes first in half of them; the ratio
is taken round by round, and the median kept.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch

import leanformer as lf
from leanformer.blocks import minimal_attention
from leanformer.config import ImageTrainConfig
from leanformer.files import write_atomically
from leanformer.learn.train import TrainingStep, make_accelerator
from leanformer.machine import environment
from leanformer.model.baseline import fresh_model
from leanformer.rundir import to_json

CPU = torch.device("cpu")
PATCH = 4
EXTREME: dict[str, Any] = {
    "*.self_attention": {"block": "minimal_attention", "qk": "collapsed", "vo": "none"},
    "*.mlp": "none",
}


def kernel(d_model: int, heads: int, tokens: int, batch: int) -> Callable[[], object]:
    """Attention alone, forward and backward."""
    states = torch.randn(batch, heads, tokens, d_model // heads, requires_grad=True)
    return lambda: minimal_attention.attend(states, states, states).sum().backward()


def training_step(d_model: int, heads: int, grid: int, layers: int, batch: int) -> Callable[[], object]:
    """A step of the extreme form on images of grid x grid patches."""
    size = grid * PATCH
    shape = {
        "hidden_size": d_model,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": 4 * d_model,
        "patch_size": PATCH,
        "image_size": size,
        "num_channels": 1,
        "num_labels": 10,
    }
    model = lf.reduce(fresh_model("vit", shape), EXTREME).train()
    step = TrainingStep(model, ImageTrainConfig(batch_size=batch), 1e-3, make_accelerator("float32", CPU))
    inputs = {"pixel_values": torch.randn(batch, 1, size, size), "labels": torch.randint(10, (batch,))}
    return lambda: step(inputs)


def speed_up(action: Callable[[], object], repeats: int) -> float:
    """How many times as fast an action is with the fused kernel as with plain products."""

    def seconds(first_fused: int) -> float:
        with mock.patch.object(minimal_attention, "FUSED_FROM_TOKENS_ON_CPU", first_fused):
            started = time.perf_counter()
            action()
            return time.perf_counter() - started

    always, never = 0, 2**31
    ratios = []
    for done in range(-2, repeats):  # the first two rounds warm up
        took = {way: seconds(way) for way in ((always, never) if done % 2 else (never, always))}
        if done >= 0:
            ratios.append(took[never] / took[always])
    return statistics.median(ratios)


def main() -> None:
    """Measures, prints a table, writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--grids", type=int, nargs="+", default=[4, 6, 7, 8, 10, 12, 14], help="patches along a side")
    parser.add_argument("--shapes", nargs="+", default=["64x1", "64x4", "192x1", "192x4"], help="d_model x heads")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    rows = []
    for shape in arguments.shapes:
        d_model, heads = (int(number) for number in shape.split("x"))
        for grid in arguments.grids:
            tokens = grid**2 + 1
            batch = max(1, 2**19 // (tokens * d_model))
            alone = speed_up(kernel(d_model, heads, tokens, batch), arguments.repeats)
            whole = speed_up(training_step(d_model, heads, grid, arguments.layers, batch), arguments.repeats)
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
            print(
                f"d={d_model:<4} heads={heads:<2} tokens={tokens:<4} fused is {alone:.2f} x as fast as plain products, "
                f"a training step {whole:.2f} x",
                flush=True,
            )
    if arguments.out:
        result = {"layers": arguments.layers, "environment": environment(CPU, "float32"), "rows": rows}
        write_atomically(arguments.out, to_json(result))


if __name__ == "__main__":
    main()
