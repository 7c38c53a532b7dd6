"""Teaching all blocks at once against the sum of its parts: one pass of the teacher, and each block's own arithmetic.

    python benchmarks/teaching.py --out benchmarks/results/teaching.json

A teacher of 6 + 6 layers has 18 attentions; each is taught in the four published sizes, 72 blocks in all. A step of all
of them is timed in turn with its parts: the teacher's forward pass with its sites watched, and a step of each block by
itself on what the teacher showed. Medians over rounds; the goal is a ratio of at most 1.3.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

import leanformer as lf
from leanformer.config import TrainConfig
from leanformer.files import write_atomically
from leanformer.learn.distill import (
    Lesson,
    Observed,
    Seen,
    answer,
    frozen_copy,
    relative_error,
    teachable,
    teaching_loss,
)
from leanformer.learn.train import Batch, TrainingStep, make_accelerator
from leanformer.machine import environment, pick_device, threads
from leanformer.measure.cost import peak_memory
from leanformer.model.baseline import fresh_model
from leanformer.model.surgery import build, parameter_count, resolve, sites
from leanformer.rundir import to_json

SIZES = ("XS", "S", "M", "L")
CONFIG = TrainConfig(clip_norm=None)


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


def seconds(action: Callable[[], object], device: torch.device) -> float:
    """How long an action takes; on a CPU the processor's time, to which what others compute adds less."""
    if device.type == "cpu":
        started = time.process_time()
        action()
        return time.process_time() - started
    started = time.perf_counter()
    action()
    torch.cuda.synchronize(device)
    return time.perf_counter() - started


def main() -> None:
    """Measures, prints the ratio, writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--d-model", type=int, default=32)
    parser.add_argument("--layers", type=int, default=6, help="of the encoder, and of the decoder")
    parser.add_argument("--sentences", type=int, default=64, help="a batch")
    parser.add_argument("--tokens", type=int, default=30, help="of the longest sentence")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    device = pick_device(arguments.device)
    with threads(arguments.threads):
        result = measure(arguments, device) | {"environment": environment(device, "float32")}
    print(
        f"{result['blocks']} blocks at {result['sites']} sites, {result['parameters']:,} parameters: a step takes "
        f"{result['together_seconds']:.3f} s, its parts {result['parts_seconds']:.3f} s "
        f"(teacher {result['teacher_seconds']:.3f} s): {result['ratio']:.2f} x; "
        f"peak memory {result['peak_memory_mb']:,.0f} MB"
    )
    if arguments.out:
        write_atomically(arguments.out, to_json(result))


def measure(arguments: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Times the step and its parts."""
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
        steps: list[float] = []
        teachers: list[float] = []
        parts: list[list[float]] = [[] for _ in lessons]
        for done in range(arguments.rounds + 1):  # the first warms up and makes the optimizers' states
            measured = seconds(lambda: together(batch), device)
            passed = seconds(lambda: observed.read(batch), device)
            own = [seconds(lambda step=step: step(batch), device) for step in alone]  # type: ignore[misc]
            if done:
                steps.append(measured)
                teachers.append(passed)
                for times, one in zip(parts, own, strict=True):
                    times.append(one)
        memory = peak_memory(lambda: together(batch), device)
    teacher_seconds = statistics.median(teachers)
    parts_seconds = teacher_seconds + sum(statistics.median(times) for times in parts)
    together_seconds = statistics.median(steps)
    parameters = parameter_count(blocks)
    return {
        "d_model": arguments.d_model,
        "layers": arguments.layers,
        "sentences": arguments.sentences,
        "tokens": arguments.tokens,
        "rounds": arguments.rounds,
        "blocks": len(lessons),
        "sites": len({lesson.site.name for lesson in lessons}),
        "parameters": parameters,
        "together_seconds": together_seconds,
        "teacher_seconds": teacher_seconds,
        "parts_seconds": parts_seconds,
        "ratio": together_seconds / parts_seconds,
        "ratios": [step / parts_seconds for step in steps],
        # The step's own, and what stays: weights, gradients and two moments.
        "peak_memory_mb": (memory + 16 * parameters) / 1e6,
    }


def own_loss(lesson: Lesson, seen: Seen) -> Callable[[Any, Batch], Iterator[torch.Tensor]]:
    """The teaching loss of one block on what the teacher showed, without its pass."""

    def loss(_: Any, batch: Batch) -> Iterator[torch.Tensor]:
        yield relative_error(*answer(lesson, seen))

    return loss


if __name__ == "__main__":
    main()
