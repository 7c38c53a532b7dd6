"""Teaching all blocks at once against the sum of its parts: one pass of the teacher, and each block's own arithmetic.

A teacher of 6 + 6 layers has 18 attentions; each is taught in the four published sizes, 72 blocks in all. A step of all
of them is timed in turn with its parts: the teacher's forward pass with its sites watched, and a step of each block by
itself on what the teacher showed. Medians over rounds; on a CPU of the processor's time.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

import leanformer as lf
from benchmarks.kit.again import Figures
from benchmarks.kit.benchmark import Benchmark, Result, register
from benchmarks.kit.interval import Interval
from benchmarks.kit.measuring import in_turn, seconds
from benchmarks.kit.profiling import TRAINING_KINDS, in_percent, time_by_kind
from benchmarks.kit.tables import Tables, figure_table, table
from leanformer.config.base import TrainConfig
from leanformer.core.machine import environment, pick_device
from leanformer.learn.lessons import Lesson, answer, teachable, teaching_loss
from leanformer.learn.losses import Batch, relative_error
from leanformer.learn.observe import Observed, Seen, frozen_copy
from leanformer.learn.step import TrainingStep, make_accelerator
from leanformer.measure.cost import peak_memory
from leanformer.model.baseline import fresh_model
from leanformer.model.surgery import build, resolve, sites
from leanformer.model.weights import parameter_count

SIZES = ("XS", "S", "M", "L")
CONFIG = TrainConfig(clip_norm=None)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("--d-model", type=int, default=32)
    parser.add_argument("--layers", type=int, default=6, help="of the encoder, and of the decoder")
    parser.add_argument("--sentences", type=int, default=64, help="a batch")
    parser.add_argument("--tokens", type=int, default=30, help="of the longest sentence")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")


def make_batch(sentences: int, tokens: int, device: torch.device) -> Batch:
    """Random sentences of up to so many tokens, padded."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 1000, (sentences, tokens), generator=generator)
    lengths = torch.randint(tokens // 2, tokens + 1, (sentences, 1), generator=generator)
    real = torch.arange(tokens) < lengths
    batch = {
        "input_ids": ids.masked_fill(~real, 2),
        "attention_mask": real.long(),
        "decoder_input_ids": ids.masked_fill(~real, 2),
        "labels": ids.masked_fill(~real, -100),
    }
    return {name: tensor.to(device) for name, tensor in batch.items()}


def own_loss(lesson: Lesson, seen: Seen) -> Callable[[Any, Batch], Iterator[torch.Tensor]]:
    """The teaching loss of one block on what the teacher showed, without its pass."""

    def loss(_: Any, batch: Batch) -> Iterator[torch.Tensor]:
        yield relative_error(*answer(lesson, seen))

    return loss


def measure(arguments: argparse.Namespace) -> Result:
    """The times of a step of all blocks, of a pass of the teacher, and of each block's own step."""
    device = pick_device(arguments.device)
    torch.manual_seed(0)
    heads = max(1, arguments.d_model // 16)
    teacher = fresh_model(
        "marian",
        {
            "vocab_size": 1000,
            "decoder_vocab_size": 1000,
            "pad_token_id": 2,
            "eos_token_id": 0,
            "decoder_start_token_id": 2,
            "forced_eos_token_id": None,
            "d_model": arguments.d_model,
            "encoder_layers": arguments.layers,
            "decoder_layers": arguments.layers,
            "encoder_attention_heads": heads,
            "decoder_attention_heads": heads,
            "encoder_ffn_dim": 4 * arguments.d_model,
            "decoder_ffn_dim": 4 * arguments.d_model,
        },
    ).to(device)
    opened = frozen_copy(lf.reduce(teacher, {}))
    places = {site.name: site for site in sites(opened)}
    lessons = []
    for size in SIZES:
        for name, entry in resolve(opened, {"*attention": {"block": "feed_forward", "size": size}}).items():
            block = build(opened, places[name], entry, take_over=True)
            assert block is not None
            lessons.append(Lesson(f"{name}-{size}", places[name], block))
    batch = make_batch(arguments.sentences, arguments.tokens, device)
    accelerator = make_accelerator("float32", device)
    blocks = teachable(lessons)
    with Observed(opened, [(lesson.site.name, lesson.target) for lesson in lessons]) as observed:
        together = TrainingStep(blocks, CONFIG, 1e-3, accelerator, teaching_loss(observed, lessons))
        seen = observed.read(batch)
        alone = [TrainingStep(lesson.block, CONFIG, 1e-3, accelerator, own_loss(lesson, seen)) for lesson in lessons]
        # What others compute at the same time adds less to the processor's time.
        clock = time.process_time if device.type == "cpu" else time.perf_counter
        actions: dict[str, Callable[[], object]] = {
            "together": partial(together, batch),
            "teacher": partial(observed.read, batch),
            **{lesson.key: partial(step, batch) for lesson, step in zip(lessons, alone, strict=True)},
        }
        ways = {name: partial(seconds, action, device, clock) for name, action in actions.items()}
        taken = in_turn(ways, arguments.rounds)  # the warm-up makes the optimizers' states
        memory = peak_memory(lambda: together(batch), device)
        kinds = time_by_kind(lambda: together(batch), TRAINING_KINDS) if device.type == "cpu" else None
    parameters = parameter_count(blocks)
    typical = {name: statistics.median(times) for name, times in taken.items()}
    parts = sum(typical.values()) - typical["together"]
    return {
        "environment": environment(device, "float32"),
        "blocks": len(lessons),
        "sites": len({lesson.site.name for lesson in lessons}),
        "parameters": parameters,
        "together_seconds": typical["together"],
        "teacher_seconds": typical["teacher"],
        "parts_seconds": parts,
        "ratio": typical["together"] / parts,
        "ratios": [step / parts for step in taken["together"]],
        # The step's own, and what stays: weights, gradients and two moments.
        "peak_memory_mb": (memory + 16 * parameters) / 1e6,
        "kinds": kinds,
    }


def tables(result: Result) -> Tables:
    """The times and their ratio, memory, and where the time of a step of all blocks goes."""
    lines = [
        ("all at once", f"{result['together_seconds']:.3f}"),
        ("one pass of the teacher", f"{result['teacher_seconds']:.3f}"),
        ("that and each block's own step", f"{result['parts_seconds']:.3f}"),
        ("ratio of the first to the last", f"**{result['ratio']:.2f}**"),
    ]
    return {
        "times": table(("", "seconds"), lines),
        "figures": figure_table(
            {
                "blocks": result["blocks"],
                "attentions of the teacher": result["sites"],
                "parameters of the blocks, millions": f"{result['parameters'] / 1e6:.1f}",
                "peak memory": f"{result['peak_memory_mb'] / 1000:.2g} GB",
                **in_percent("a step of all blocks", result.get("kinds") or {}),
            }
        ),
    }


def stated(result: Result) -> Figures:
    """The ratio, with its rounds."""
    return {"at once to its parts": Interval(result["ratio"], min(result["ratios"]), max(result["ratios"]))}


BENCHMARK = register(
    "speed",
    Benchmark(
        name="teaching",
        add_arguments=add_arguments,
        measure=measure,
        tables=tables,
        quick={"layers": 1, "d_model": 16, "sentences": 4, "tokens": 10, "rounds": 1},
        stated=stated,
    ),
)
