"""From how many tokens on PyTorch's fused attention beats plain products on this machine's CPU, forward and backward.

    python benchmarks/attention_kernels.py --out benchmarks/results/attention_kernels.json

The figure behind ``FUSED_FROM_TOKENS_ON_CPU`` in ``leanformer.blocks.minimal_attention``. Both ways are measured in
turn in each round; the ratio is taken round by round, and the median kept.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from unittest import mock

import torch

from leanformer.blocks import minimal_attention
from leanformer.files import write_atomically
from leanformer.machine import environment
from leanformer.rundir import to_json


def seconds(states: torch.Tensor, fused: bool) -> float:
    """Time of one forward and backward pass through ``attend``."""
    first = 0 if fused else states.shape[-2] + 1
    with mock.patch.object(minimal_attention, "FUSED_FROM_TOKENS_ON_CPU", first):
        started = time.perf_counter()
        minimal_attention.attend(states, states, states).sum().backward()
        return time.perf_counter() - started


def main() -> None:
    """Measures, prints a table, writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--tokens", type=int, nargs="+", default=[16, 32, 64, 96, 128, 192, 256, 512])
    parser.add_argument("--shapes", nargs="+", default=["64x1", "64x4", "384x6"], help="d_model x heads")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    rows = []
    for shape in arguments.shapes:
        d_model, heads = (int(number) for number in shape.split("x"))
        for tokens in arguments.tokens:
            batch = max(1, 2**20 // (tokens * d_model))
            states = torch.randn(batch, heads, tokens, d_model // heads, requires_grad=True)
            rounds = [(seconds(states, fused=False), seconds(states, fused=True)) for _ in range(arguments.repeats + 2)]
            ratio = statistics.median(plain / fused for plain, fused in rounds[2:])  # the first two warm up
            rows.append({"d_model": d_model, "heads": heads, "tokens": tokens, "batch": batch, "speed_up": ratio})
            print(
                f"d={d_model:<4} heads={heads:<2} tokens={tokens:<4} fused is {ratio:.2f} x as fast as plain products"
            )
    if arguments.out:
        result = {"environment": environment(torch.device("cpu"), "float32"), "rows": rows}
        write_atomically(arguments.out, to_json(result))


if __name__ == "__main__":
    main()
