"""A decoder's feed-forward block: all prefixes at once against a loop over them, and the time of a decoding step.

The loop is the published way (arXiv 2311.10642): for each position one pass over the flattened, masked sentence. Both
ways have the same weights; how far apart their numbers are is measured first. They are timed in turn in each round, the
ratio is taken round by round, and the median kept. A step's time at a position is the median over many sentences. Times
are the processor's for this process: on one thread, what others compute at the same time counts less. Memory is that of
tensors at most in a pass, beyond weights, input and gradients.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.kit.benchmark import CPU, Benchmark, Result, progress, register
from benchmarks.kit.measuring import in_turn, median_ratio, seconds
from benchmarks.kit.plots import Panel, Panels, Points
from benchmarks.kit.tables import Tables, figure_table, table
from leanformer.blocks.feed_forward import FeedForward
from leanformer.blocks.kit.base import check_arguments
from leanformer.blocks.kit.inputs import BlockInputs
from leanformer.blocks.kit.site import Site
from leanformer.blocks.kit.state import DecodingState
from leanformer.core.errors import LeanformerError
from leanformer.measure.cost import peak_memory

POSITIONS = (5, 20, 35, 50)  # where a step is timed, counted from 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sentences", type=int, default=200, help="decoded, for the time of a step")
    parser.add_argument("--d-model", type=int, default=128)
    parser.add_argument("--hidden", type=int, default=800)
    parser.add_argument("--length", type=int, default=50, help=f"of a sentence, at least {POSITIONS[-1]}")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument(
        "--lengths", type=int, nargs="+", default=[10, 25, 50, 100, 200], help="of sentences, for how the ratio grows"
    )
    parser.add_argument("--lengths-batch", type=int, default=8, help="sentences at once there")


def make_block(d_model: int, hidden: int, length: int, padding_in_norm: bool) -> Any:
    """The block of a decoder's self-attention, and every number of it away from its initial value."""
    site = Site("decoder.0.self_attention", "self_attention", "attention", d_model, 8, 0, causal=True)
    settings = {"hidden": hidden, "max_length": length, "padding_in_norm": padding_in_norm, "output": "replaced"}
    block: Any = FeedForward.build(check_arguments(FeedForward, settings, "benchmark"), site, None)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return block


def own(weights: torch.Tensor) -> torch.Tensor:
    """A copy that learns."""
    return weights.detach().clone().requires_grad_()


class Loop:
    """The published way: a pass a position, each over the whole length."""

    def __init__(self, block: Any) -> None:
        network = block.network
        self.padding_in_norm = network.padding_in_norm
        self.gain, self.shift = own(network.norm.weight.flatten()), own(network.norm.bias.flatten())
        self.first = own(network.first.weight.flatten(0, 2).T.contiguous())  # (hidden, T * d_model)
        self.first_bias = own(network.first.bias[0])
        self.hidden_gain, self.hidden_shift = own(network.hidden_norm.weight[0]), own(network.hidden_norm.bias[0])
        self.last = own(network.last.weight[0, 0])  # (d_model, hidden)
        self.last_bias = own(network.last.bias[0, 0])

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        """(batch, tokens, d_model) -> the same shape."""
        width = self.gain.shape[0]
        outputs = []
        for position in range(states.shape[1]):
            prefix = states[:, : position + 1].flatten(1)
            real = prefix.shape[1]
            if self.padding_in_norm:
                flat = F.layer_norm(F.pad(prefix, (0, width - real)), (width,), self.gain, self.shift)
            else:
                normed = F.layer_norm(prefix, (real,), self.gain[:real], self.shift[:real])
                flat = F.pad(normed, (0, width - real))
            hidden = F.leaky_relu(F.linear(flat, self.first, self.first_bias))
            hidden = F.layer_norm(hidden, hidden.shape[1:], self.hidden_gain, self.hidden_shift)
            outputs.append(F.linear(hidden, self.last, self.last_bias))
        return torch.stack(outputs, dim=1)


def milliseconds(action: Callable[[], object]) -> float:
    """Processor time of one call."""
    return 1000 * seconds(action, clock=time.process_time)


def forward(way: Callable[[torch.Tensor], torch.Tensor], states: torch.Tensor) -> None:
    """A pass without gradients."""
    with torch.no_grad():
        way(states)


def training(way: Callable[[torch.Tensor], torch.Tensor], states: torch.Tensor) -> None:
    """A pass and the gradients of all weights."""
    way(states).sum().backward()


def compare(block: Any, states: torch.Tensor, rounds: int) -> list[dict[str, Any]]:
    """Both ways, forward and in training."""
    loop = Loop(block)

    def given(states: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = block(BlockInputs(states))
        return output

    with torch.no_grad():
        difference = float((loop(states) - given(states)).abs().max())
    rows = []
    for passes in (forward, training):
        slow, fast = partial(passes, loop, states), partial(passes, given, states)
        taken = in_turn(
            {
                "loop": partial(milliseconds, slow),
                # Of a call of a few milliseconds, what a neighbor on the machine takes is forgotten by the median of 3.
                "block": lambda fast=fast: statistics.median(milliseconds(fast) for _ in range(3)),  # type: ignore[misc]
            },
            rounds,
        )
        rows.append(
            {
                "padding_in_norm": block.network.padding_in_norm,
                "passes": passes.__name__,
                "loop_ms": statistics.median(taken["loop"]),
                "block_ms": statistics.median(taken["block"]),
                "speed_up": median_ratio(taken["loop"], taken["block"]),
                "rounds": taken,
                "loop_mb": peak_memory(slow, CPU) / 1e6,
                "block_mb": peak_memory(fast, CPU) / 1e6,
                "largest_difference": difference,
            }
        )
    return rows


@torch.inference_mode()
def decode(block: Any, states: torch.Tensor, sentences: int) -> dict[str, Any]:
    """The time of a step at some positions."""
    times: dict[int, list[float]] = {position: [] for position in POSITIONS}
    for sentence in range(sentences + 5):
        state = DecodingState()
        for position in range(1, states.shape[1] + 1):
            step = milliseconds(partial(block, BlockInputs(states[:, position - 1 : position], state=state)))
            state.length += 1
            if position in times and sentence >= 5:  # the first warm up
                times[position].append(step)
    medians = {str(position): statistics.median(steps) for position, steps in times.items()}
    ratio = medians[str(POSITIONS[-1])] / medians[str(POSITIONS[0])]
    return {"batch": len(states), "ms_at_position": medians, "last_to_first": ratio}


def by_length(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The passes of both ways on sentences of other lengths, by blocks made for these."""
    rows = []
    for length in arguments.lengths:
        block = make_block(arguments.d_model, arguments.hidden, length, padding_in_norm=False)
        states = torch.randn(arguments.lengths_batch, length, arguments.d_model)
        rows += [{"length": length, **row} for row in compare(block, states, arguments.rounds)]
        progress(f"{length} tokens: done")
    return rows


def measure(arguments: argparse.Namespace) -> Result:
    """The passes of both ways in both forms of the norm, by length too, and decoding steps."""
    if arguments.length < POSITIONS[-1]:
        raise LeanformerError(f"--length {arguments.length}: a step is timed at position {POSITIONS[-1]}; give as many")
    torch.manual_seed(0)
    states = torch.randn(arguments.batch, arguments.length, arguments.d_model)
    forms = [
        make_block(arguments.d_model, arguments.hidden, arguments.length, padding_in_norm)
        for padding_in_norm in (False, True)
    ]
    return {
        "rows": [row for block in forms for row in compare(block, states, arguments.rounds)],
        "lengths": by_length(arguments),
        "decoding": [decode(forms[0], states[:batch], arguments.sentences) for batch in (1, arguments.batch)],
    }


def tables(result: Result) -> Tables:
    """The passes, then the decoding steps."""
    passes = {"forward": "forward", "training": "forward and backward"}
    lines = [
        (
            "`padding_in_norm: true`" if row["padding_in_norm"] else "real tokens alone",
            passes[row["passes"]],
            f"{row['loop_ms']:.0f}",
            f"{row['block_ms']:.1f}",
            f"{row['speed_up']:.1f}",
            f"{row['loop_mb']:,.0f}",
            f"{row['block_mb']:,.0f}",
        )
        for row in result["rows"]
    ]
    lengths: dict[int, dict[str, Any]] = {}
    for row in result["lengths"]:
        lengths.setdefault(row["length"], {})[row["passes"]] = row
    longer = [
        (
            length,
            *(f"{rows[name]['speed_up']:.1f}" for name in passes),
            *(f"{rows['training'][way]:,.0f}" for way in ("loop_mb", "block_mb")),
        )
        for length, rows in lengths.items()
    ]
    memory = ("loop, MB", "block, MB")
    steps = [
        (row["batch"], *(f"{ms:.3f}" for ms in row["ms_at_position"].values()), f"{row['last_to_first']:.3f}")
        for row in result["decoding"]
    ]
    first, *others = result["decoding"][0]["ms_at_position"]
    header = ("sentences at once", f"position {first}, ms", *others, f"{others[-1]} to {first}")
    return {
        "passes": table(("norm", "passes", "loop, ms", "block, ms", "ratio", *memory), lines),
        "by-length": table(("tokens", *passes.values(), *memory), longer),
        "decoding-step": table(header, steps),
        "figures": figure_table(
            {"largest difference of an output": f"{max(row['largest_difference'] for row in result['rows']):.1e}"}
        ),
    }


def plot(result: Result) -> Panels:
    """How the gain grows with the sentence."""
    points = {}
    for passes in dict.fromkeys(row["passes"] for row in result["lengths"]):
        own = [row for row in result["lengths"] if row["passes"] == passes]
        points[passes] = Points([row["length"] for row in own], [row["speed_up"] for row in own])
    panel = Panel("by the sentence's length", "tokens", "times the loop's speed", points)
    return Panels([panel])


BENCHMARK = register(
    "speed",
    Benchmark(
        name="decoder_block",
        add_arguments=add_arguments,
        measure=measure,
        tables=tables,
        quick={
            "rounds": 1,
            "sentences": 2,
            "d_model": 16,
            "hidden": 20,
            "batch": 4,
            "lengths": [2, 5],
            "lengths_batch": 2,
        },
        plot=plot,
    ),
)
