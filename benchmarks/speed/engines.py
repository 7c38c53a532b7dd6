"""Teachers and students in the engines that run them: eager PyTorch, ONNX Runtime and CTranslate2, on one thread.

Models have random weights: what they compute does not change what it costs. Translators cannot write their end mark, so
that all write the same number of tokens. In each group all models are timed in turn, in rounds; a figure is the median
over the rounds of the ratio to the group's reference in the same round, with an interval that holds for any
distribution. Wall time, and CPU time beside it.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from transformers import PreTrainedModel

import leanformer as lf
from benchmarks.kit.benchmark import Benchmark, Result, progress, register
from benchmarks.kit.forms import EXTREME, vit_config
from benchmarks.kit.tables import Tables, table
from leanformer.core.machine import machine
from leanformer.export.base import FORMATS
from leanformer.measure.bench import Call, Setting, time_in_rounds
from leanformer.measure.rounds import fewest_rounds, median, median_ratio
from leanformer.model.baseline import fresh_model
from leanformer.model.generate import most_tokens
from leanformer.model.weights import parameter_count
from leanformer.runtime.engines.base import ENGINES, Classifies, EngineOptions, Generates
from leanformer.runtime.manifest import ImageInput, Manifest, Parity, Precision, Source, TextInput

Plan = dict[str, Any]

GRID: Plan = {"block": "mixer", "positions": "grid", "max_distance": 3, "groups": 64, "vo": "none", "gate": False}
THIN_GRID: Plan = {
    "*.self_attention": GRID,
    "*.mlp": {"block": "mlp", "hidden": 24},
    "encoder.4.layer": "none",
    "encoder.5.layer": "none",
    "pooling": "mean",
}
"""The candidate ``grid`` of examples/mnist.yaml, which is accepted there."""
TINY_GRID: Plan = {
    "*.self_attention": {**GRID, "groups": 192},
    "*.mlp": {"block": "mlp", "hidden": 72},
    "pooling": "mean",
}
"""The same in DeiT-tiny's width, in all twelve layers."""
SHALLOW_GRID: Plan = {**TINY_GRID, **{f"encoder.{layer}.layer": "none" for layer in range(8, 12)}}
"""The same without the last third of the layers, as on MNIST's shape."""
SLOTS: Plan = {
    "*.self_attention": {"block": "slots", "slots": 16, "gate": "linear", "rank": 8},
    "*.cross_attention": {"block": "slots", "slots": 16, "gate": "linear", "rank": 8},
}
NO_DECODER_MLP: Plan = {"decoder.*.mlp": "none"}


@dataclass(frozen=True)
class Way:
    """A model in an engine.

    Args:
        name: In the table.
        runtime: ``torch``, or a format.
        precision: Of the weights.
        plan: What is changed in the group's model.
        targets: Target subwords that are kept; None: all.
    """

    name: str
    runtime: str
    precision: Precision = "float32"
    plan: Mapping[str, Any] = field(default_factory=dict)
    targets: int | None = None


@dataclass(frozen=True)
class Group:
    """Models that are compared with one another; the first is the reference of ``speed``.

    Args:
        key: The table's name.
        name: In words.
        make: Makes the model.
        ways: What is measured; the first is the reference.
        batches: Images or sentences of a call.
        source: Subwords of each source; 0 for images.
        written: Subwords that are written for each.
    """

    key: str
    name: str
    make: Callable[[], PreTrainedModel]
    ways: Sequence[Way]
    batches: Sequence[int]
    source: int = 0
    written: int = 0


def _vit(size: int, layers: int, heads: int, patch: int, pixels: int, channels: int) -> PreTrainedModel:
    shape = vit_config(d_model=size, layers=layers, heads=heads, patch=patch, pixels=pixels)
    return fresh_model("vit", {**shape, "num_channels": channels})


def _marian(
    width: int, layers: tuple[int, int], heads: int, hidden: int, words: int, positions: int
) -> PreTrainedModel:
    """A fresh translator that never writes its end mark."""
    model = fresh_model(
        "marian",
        {
            "d_model": width,
            "encoder_layers": layers[0],
            "decoder_layers": layers[1],
            "encoder_attention_heads": heads,
            "decoder_attention_heads": heads,
            "encoder_ffn_dim": hidden,
            "decoder_ffn_dim": hidden,
            "vocab_size": words,
            "max_position_embeddings": positions,
            "activation_function": "relu",
            "pad_token_id": words - 1,
            "decoder_start_token_id": words - 1,
            "eos_token_id": 0,
            "forced_eos_token_id": 0,
        },
    )
    assert isinstance(model.final_logits_bias, torch.Tensor)
    model.final_logits_bias[0, 0] = -1e4
    return model


PRECISIONS: tuple[Precision, ...] = ("float32", "int8")


def _students(few: int, fewest: int) -> list[tuple[str, Plan, int | None]]:
    """Name, plan and target subwords of translators that CTranslate2 can hold."""
    one, two = {"decoder.layers": {"keep": 1}}, {"decoder.layers": {"keep": 2}}
    half = {"decoder.*attention": {"block": "attention", "keep_heads": 4}}
    return [
        ("the whole teacher", {}, None),
        ("decoder without MLP", NO_DECODER_MLP, None),
        ("two decoder layers without MLP", {**two, **NO_DECODER_MLP}, None),
        ("one decoder layer", one, None),
        ("one decoder layer without MLP", {**one, **NO_DECODER_MLP}, None),
        (f"the whole teacher, {few:,} targets", {}, few),
        (f"two decoder layers without MLP, {few:,} targets", {**two, **NO_DECODER_MLP}, few),
        (f"one decoder layer without MLP, {few:,} targets", {**one, **NO_DECODER_MLP}, few),
        (f"the whole teacher, {fewest:,} targets", {}, fewest),
        (f"decoder without MLP, {fewest:,} targets", NO_DECODER_MLP, fewest),
        (f"two decoder layers without MLP, {fewest:,} targets", {**two, **NO_DECODER_MLP}, fewest),
        (f"the same, half the decoder's heads, {fewest:,} targets", {**two, **NO_DECODER_MLP, **half}, fewest),
        (f"one decoder layer without MLP, {fewest:,} targets", {**one, **NO_DECODER_MLP}, fewest),
    ]


def quick_groups() -> list[Group]:
    """The first and the third of ``groups`` on tiny models, with few ways."""
    grid = {**THIN_GRID, "*.self_attention": {**GRID, "groups": 16}}
    vit, marian = partial(_vit, 16, 6, 4, 7, 28, 1), partial(_marian, 16, (1, 3), 2, 32, 300, 64)
    names = [_students(200, 150)[number] for number in (0, 7)]
    return [
        Group("mnist", "tiny", vit, [Way("ViT, eager", "torch"), Way("grid", "onnx", plan=grid)], (1, 2)),
        Group(
            "small",
            "tiny",
            marian,
            [Way(name, "ctranslate2", "int8", plan, targets) for name, plan, targets in names],
            (1,),
            8,
            6,
        ),
    ]


def groups() -> list[Group]:
    """What is measured."""
    small = partial(_marian, 128, (3, 3), 8, 512, 8000, 512)
    one = {"decoder.layers": {"keep": 1}, **NO_DECODER_MLP}
    two = {"decoder.layers": {"keep": 2}, **NO_DECODER_MLP}
    kept = 8000
    return [
        Group(
            "mnist",
            "MNIST's shape (d = 64, 6 layers, 17 tokens)",
            partial(_vit, 64, 6, 4, 7, 28, 1),
            [
                Way("ViT, eager", "torch"),
                Way("ViT", "onnx"),
                Way("grid with a thin MLP, eager", "torch", plan=THIN_GRID),
                Way("grid with a thin MLP", "onnx", plan=THIN_GRID),
                Way("extreme form", "onnx", plan=EXTREME),
            ],
            (1, 32),
        ),
        Group(
            "deit",
            "DeiT-tiny's shape (d = 192, 12 layers, 197 tokens)",
            partial(_vit, 192, 12, 3, 16, 224, 3),
            [
                Way("ViT, eager", "torch"),
                *(Way("ViT", "onnx", precision) for precision in PRECISIONS),
                *(Way("grid with a thin MLP", "onnx", precision, TINY_GRID) for precision in PRECISIONS),
                *(Way("grid with a thin MLP, eight layers", "onnx", p, SHALLOW_GRID) for p in PRECISIONS),
                *(Way("extreme form", "onnx", precision, EXTREME) for precision in PRECISIONS),
            ],
            (1,),
        ),
        Group(
            "small",
            "translator, d = 128, 3 + 3 layers, 8,000 subwords",
            small,
            [
                *(Way(name, "ctranslate2", "float32", plan, targets) for name, plan, targets in _students(4000, 2000)),
                *(Way(name, "ctranslate2", "int8", plan, targets) for name, plan, targets in _students(4000, 2000)),
                *(Way("the whole teacher", "onnx", precision) for precision in PRECISIONS),
                Way("one decoder layer without MLP", "onnx", plan=one),
                Way("ssru in the decoder", "onnx", plan={"decoder.*.self_attention": "ssru"}),
                Way("all attention by slots", "onnx", plan=SLOTS),
            ],
            (1, 32),
            16,
            20,
        ),
        Group(
            "large",
            "translator, d = 512, 6 + 6 layers, 58,101 subwords",
            partial(_marian, 512, (6, 6), 8, 2048, 58101, 512),
            [
                *(Way("the whole teacher", "ctranslate2", precision) for precision in PRECISIONS),
                *(Way(f"the whole teacher, {kept:,} targets", "ctranslate2", p, {}, kept) for p in PRECISIONS),
                *(
                    Way(f"two decoder layers without MLP, {kept:,} targets", "ctranslate2", p, two, kept)
                    for p in PRECISIONS
                ),
            ],
            (1, 32),
            16,
            20,
        ),
        Group(
            "long",
            "translator, d = 128, texts of 400 tokens",
            small,
            [
                Way("the whole teacher", "onnx"),
                Way("all attention by slots", "onnx", plan=SLOTS),
                Way("the whole teacher", "ctranslate2"),
            ],
            (8,),
            400,
            400,
        ),
    ]


# Opening


def _student(group: Group, way: Way) -> PreTrainedModel:
    torch.manual_seed(0)
    model = group.make().eval()
    plan = dict(way.plan)
    if way.targets is not None:
        words = int(model.config.vocab_size)
        plan["target_vocabulary"] = {"block": "subwords", "ids": [*range(way.targets - 1), words - 1]}
    return lf.reduce(model, plan) if plan else model


def _open(model: PreTrainedModel, way: Way, directory: Path, threads: int) -> Classifies | Generates:
    """Writes a model in its engine's form, and opens it there."""
    FORMATS[way.runtime].write(model, directory, way.precision)
    images, texts, config = None, None, model.config
    if config.is_encoder_decoder:
        source, target = most_tokens(model)
        texts = TextInput(
            source_tokenizer="",
            target_tokenizer="",
            pad_id=config.pad_token_id,
            eos_id=config.eos_token_id,
            max_source_tokens=source,
            max_target_tokens=target,
        )
    else:
        side = config.image_size
        images = ImageInput(
            channels=config.num_channels,
            height=side,
            width=side,
            size=None,
            resample=2,
            crop=None,
            on_white=False,
            bits=None,
            mean=(0.0,) * config.num_channels,
            std=(1.0,) * config.num_channels,
            classes=tuple(config.id2label.values()),
        )
    manifest = Manifest(
        format=way.runtime,
        precision=way.precision,
        task="",
        source=Source(model="", weights="", architecture="", parameters=0),
        plan={},
        images=images,
        texts=texts,
        bytes=0,
        parity=Parity(inputs=0, described="", agreement=0.0, largest_difference=None, near_ties=0),
        versions={},
    )
    return ENGINES[way.runtime](directory, manifest, EngineOptions(threads))


def _call(group: Group, way: Way, model: PreTrainedModel, engine: Any, batch: int) -> Call:
    """What is timed: images or ids in, logits or ids out."""
    if not group.source:
        shape = batch, model.config.num_channels, model.config.image_size, model.config.image_size
        pixel_values = np.random.default_rng(0).standard_normal(shape, np.float32)
        if way.runtime == "torch":
            tensor = torch.from_numpy(pixel_values)

            def eager() -> int:
                with torch.inference_mode():
                    model(pixel_values=tensor)
                return 0

            return eager

        def classify() -> int:
            cast(Classifies, engine).logits(pixel_values)
            return 0

        return classify
    random = np.random.default_rng(0)
    most = int(model.config.vocab_size) - 1
    sources = [[*random.integers(1, most, group.source - 1).tolist(), 0] for _ in range(batch)]

    def translate() -> int:
        return sum(map(len, cast(Generates, engine).generate(sources, beam=1, max_tokens=group.written)))

    return translate


def _bytes(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())


# Measuring


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", nargs="+", choices=[group.key for group in groups()], help="by default all groups")


def measure(arguments: argparse.Namespace) -> Result:
    """The times of all groups."""
    rounds = max(arguments.rounds, fewest_rounds())
    found = []
    for group in quick_groups() if arguments.quick else groups():
        if arguments.only is None or group.key in arguments.only:
            found.append(_measured(group, rounds, arguments.threads))
            progress(f"{group.name}: done")
    return {"groups": found, "machine": machine()}


def _measured(group: Group, rounds: int, threads: int) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    opened = []
    with tempfile.TemporaryDirectory() as name:
        for number, way in enumerate(group.ways):
            model, directory = _student(group, way), Path(name, str(number))
            directory.mkdir()
            engine = None if way.runtime == "torch" else _open(model, way, directory, threads)
            opened.append((way, model, engine))
            rows.append(
                {
                    "way": way.name,
                    "runtime": way.runtime,
                    "precision": way.precision,
                    "parameters": parameter_count(model),
                    "bytes": _bytes(directory) if engine is not None else None,
                    "times": {},
                }
            )
        calls = {
            Setting(batch, None): [_call(group, way, model, engine, batch) for way, model, engine in opened]
            for batch in group.batches
        }
        for setting, times in time_in_rounds(calls, rounds).items():
            for row, own in zip(rows, times, strict=True):
                row["times"][str(setting.batch)] = {
                    "wall_ms": median(own.wall_ms).model_dump(),
                    "speed": median_ratio(times[0].wall_ms, own.wall_ms).model_dump(),
                    "cpu_speed": median_ratio(times[0].cpu_ms, own.cpu_ms).model_dump(),
                    "tokens": own.tokens,
                    "rounds": {"wall_ms": own.wall_ms, "cpu_ms": own.cpu_ms},
                }
    return {"key": group.key, "name": group.name, "source": group.source, "written": group.written, "rows": rows}


# The page


def tables(result: Result) -> Tables:
    """A table for each group."""
    return {group["key"]: _table(group) for group in result["groups"]}


def _table(group: Mapping[str, Any]) -> str:
    batches = list(group["rows"][0]["times"])
    header = ["model", "engine", "weights", "parameters", "file"]
    for batch in batches:
        header += [f"{batch} at a time", "times the first, wall", "CPU"]
    lines = []
    for row in group["rows"]:
        line = [
            row["way"],
            {"torch": "PyTorch", "onnx": "ONNX Runtime", "ctranslate2": "CTranslate2"}[row["runtime"]],
            row["precision"],
            f"{row['parameters']:,}",
            "" if row["bytes"] is None else f"{row['bytes'] / 1e6:.2f} MB",
        ]
        for batch in batches:
            own = row["times"][batch]
            speed = own["speed"]
            line += [
                f"{own['wall_ms']['median']:.3g} ms",
                f"{speed['median']:.2f} ({speed['low']:.2f} to {speed['high']:.2f})",
                f"{own['cpu_speed']['median']:.2f}",
            ]
        lines.append(line)
    return table(header, lines)


BENCHMARK = register(
    "speed",
    Benchmark(
        name="engines",
        quick={"rounds": 6},
        add_arguments=add_arguments,
        measure=measure,
        tables=tables,
    ),
)
