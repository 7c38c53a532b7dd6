"""A decoder's feed-forward block: all prefixes at once against a loop over them, and the time of a decoding step.

    python benchmarks/decoder_block.py --out benchmarks/results/decoder_block.json

The loop is the published way (arXiv 2311.10642): for each position one pass over the flattened, masked sentence. Both
ways have the same weights and give the same numbers, which is checked first; they are measured in turn in each round,
the ratio is taken round by round, and the median kept. A step's time at a position is the median over many sentences.
Times are the processor's for this process, on one thread: what others compute at the same time counts less.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from leanformer.blocks.base import check_arguments
from leanformer.blocks.feed_forward import FeedForward
from leanformer.blocks.state import DecodingState
from leanformer.files import write_atomically
from leanformer.machine import environment, threads
from leanformer.model.sites import Site
from leanformer.rundir import to_json

POSITIONS = (5, 20, 35, 50)  # where a step is timed, counted from 1


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
    started = time.process_time()
    action()
    return 1000 * (time.process_time() - started)


def compare(block: Any, states: torch.Tensor, repeats: int) -> list[dict[str, Any]]:
    """Both ways, forward and in training."""
    loop = Loop(block)
    with torch.no_grad():
        difference = float((loop(states) - block(states)).abs().max())
    assert difference < 1e-4, difference

    def forward(way: Callable[[torch.Tensor], torch.Tensor]) -> None:
        with torch.no_grad():
            way(states)

    def training(way: Callable[[torch.Tensor], torch.Tensor]) -> None:
        way(states).sum().backward()

    rows = []
    for passes in (forward, training):
        rounds = []
        for _ in range(repeats + 1):
            slow = milliseconds(lambda: passes(loop))  # noqa: B023
            # Of a call of a few milliseconds, what a neighbor on the machine takes is forgotten by the median of three.
            fast = statistics.median(milliseconds(lambda: passes(block)) for _ in range(3))  # noqa: B023
            rounds.append((slow, fast))
        slow, fast = (statistics.median(times) for times in zip(*rounds[1:], strict=True))  # the first warms up
        ratio = statistics.median(slow / fast for slow, fast in rounds[1:])
        rows.append(
            {
                "padding_in_norm": block.network.padding_in_norm,
                "passes": passes.__name__,
                "loop_ms": slow,
                "block_ms": fast,
                "speed_up": ratio,
                "largest_difference": difference,
            }
        )
        print(
            f"padding_in_norm={block.network.padding_in_norm!s:<5} {passes.__name__:<8} loop {slow:7.1f} ms, "
            f"block {fast:5.1f} ms: {ratio:.1f} x as fast"
        )
    return rows


@torch.inference_mode()
def decode(block: Any, states: torch.Tensor, sentences: int) -> dict[str, Any]:
    """The time of a step at some positions."""
    times: dict[int, list[float]] = {position: [] for position in POSITIONS}
    for sentence in range(sentences + 5):
        state = DecodingState()
        for position in range(1, states.shape[1] + 1):
            token = states[:, position - 1 : position]
            step = milliseconds(lambda: block(token, state=state))  # noqa: B023
            state.length += 1
            if position in times and sentence >= 5:  # the first warm up
                times[position].append(step)
    medians = {position: statistics.median(steps) for position, steps in times.items()}
    ratio = medians[POSITIONS[-1]] / medians[POSITIONS[0]]
    print(
        f"batch {len(states):<3} ms a step at position "
        + ", ".join(f"{position}: {median:.3f}" for position, median in medians.items())
        + f"; last to first {ratio:.3f}"
    )
    return {"batch": len(states), "ms_at_position": medians, "last_to_first": ratio}


def main() -> None:
    """Measures, prints, writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--sentences", type=int, default=200, help="decoded, for the time of a step")
    parser.add_argument("--d-model", type=int, default=128)
    parser.add_argument("--hidden", type=int, default=800)
    parser.add_argument("--length", type=int, default=50)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    with threads(1):
        states = torch.randn(arguments.batch, arguments.length, arguments.d_model)
        forms = [
            make_block(arguments.d_model, arguments.hidden, arguments.length, padding_in_norm)
            for padding_in_norm in (False, True)
        ]
        result = {
            "environment": environment(torch.device("cpu"), "float32"),
            "shape": {name: getattr(arguments, name) for name in ("d_model", "hidden", "length", "batch")},
            "forward": [row for block in forms for row in compare(block, states, arguments.repeats)],
            "decoding": [decode(forms[0], states[:batch], arguments.sentences) for batch in (1, arguments.batch)],
        }
    if arguments.out:
        write_atomically(arguments.out, to_json(result))


if __name__ == "__main__":
    main()
