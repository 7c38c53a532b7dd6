"""How much memory and time a large model takes to be reduced: from directory to directory, and in memory.

A Llama with random weights is written to a directory. Each way then runs in a new process: ``lf.reduce_directory``,
which reads weights when it writes them; ``lf.load`` alone; ``lf.load`` with ``lf.reduce``, after which both models are
there. Memory is what the process takes at most beyond its imports, the pages of the model's file that it has read
included, as a multiple of that file's size. Seconds are wall time.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

import leanformer as lf
from benchmarks.kit.benchmark import Benchmark, Result, progress, register
from benchmarks.kit.processes import add_memory_option, runner
from benchmarks.kit.tables import Tables, figure_table, table
from leanformer.model.weights import parameter_count

PLAN: Mapping[str, Any] = {
    "decoder.*.self_attention": "minimal_attention",
    "decoder.*[13579].mlp": {"block": "mlp", "hidden": 1024},
}
"""Blocks in place of all attentions, and of every other MLP."""
DIRECTORIES = "from directory to directory"
IN_MEMORY = "in memory, both models there"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--vocabulary", type=int, default=32_000)
    parser.add_argument("--rounds", type=int, default=3)
    add_memory_option(parser)


def make_model(arguments: argparse.Namespace, directory: Path) -> int:
    """Writes the model, and gives its number of parameters."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=arguments.width,
        num_hidden_layers=arguments.layers,
        num_attention_heads=arguments.width // 64,
        num_key_value_heads=arguments.width // 128,
        intermediate_size=4 * arguments.width,
        vocab_size=arguments.vocabulary,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(directory)
    return parameter_count(model)


def between_directories(source: str) -> float:
    """Reduces a directory to another, and gives the seconds."""
    with tempfile.TemporaryDirectory() as place:
        start = time.perf_counter()
        lf.reduce_directory(source, PLAN, Path(place) / "student")
        return time.perf_counter() - start


def loaded(source: str) -> float:
    """Loads a model, and gives the seconds."""
    start = time.perf_counter()
    lf.load(source)
    return time.perf_counter() - start


def in_memory(source: str) -> float:
    """Loads and reduces a model, and gives the seconds."""
    start = time.perf_counter()
    model = lf.load(source)
    student = lf.reduce(model, PLAN)
    assert student is not model
    return time.perf_counter() - start


WAYS: Mapping[str, Callable[[str], float]] = {
    DIRECTORIES: between_directories,
    "loaded alone": loaded,
    IN_MEMORY: in_memory,
}


def measure(arguments: argparse.Namespace) -> Result:
    """Each way in turn, in every round in a process of its own."""
    rounds: dict[str, list[tuple[float, float | None]]] = {way: [] for way in WAYS}
    run = runner(arguments)
    with tempfile.TemporaryDirectory() as place:
        parameters = make_model(arguments, Path(place))
        size = sum(file.stat().st_size for file in Path(place).glob("*.safetensors")) / 1e6
        for number in range(arguments.rounds):
            for way, action in WAYS.items():
                rounds[way].append(run(action, place))
            progress(f"round {number + 1} of {arguments.rounds}: done")
    rows = [
        {
            "way": way,
            "seconds": statistics.median(seconds for seconds, _ in found),
            "memory_mb": max((memory for _, memory in found if memory is not None), default=None),
            "rounds": [list(one) for one in found],
        }
        for way, found in rounds.items()
    ]
    return {"parameters": parameters, "model_mb": size, "rows": rows}


def tables(result: Result) -> Tables:
    """Way by way."""

    def times(memory: float | None) -> str:
        return "" if memory is None else f"{memory / result['model_mb']:.2f} x"

    lines = [
        (
            row["way"],
            times(row["memory_mb"]),
            "" if row["memory_mb"] is None else f"{row['memory_mb']:,.0f} MB",
            f"{row['seconds']:.1f} s",
        )
        for row in result["rows"]
    ]
    figures = {
        "parameters of the model": f"{result['parameters']:,}",
        "size of its file": f"{result['model_mb']:,.0f} MB",
        "memory from directory to directory": times(result["rows"][0]["memory_mb"]),
        "memory of both models": times(result["rows"][-1]["memory_mb"]),
    }
    header = ("", "memory at most, of the file's size", "memory at most", "seconds")
    return {"ways": table(header, lines), "figures": figure_table(figures)}


BENCHMARK = register(
    "speed",
    Benchmark(
        name="reduction",
        add_arguments=add_arguments,
        measure=measure,
        tables=tables,
        quick={"width": 128, "layers": 2, "vocabulary": 99, "rounds": 1, "no_memory": True},
    ),
)
