"""Blocks that learn on short sentences, judged on longer ones: what holds at a length that no block was taught.

The baseline of the study teaches its encoder's self-attention to each block, in all layers at once: once on sentences
of few subwords alone, and once, in as many steps, on all. Both are judged on the test split: the part of the
attention's variance that a block explains (R², mean of the layers) in sentences as short, and in longer ones.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

import leanformer as lf
from benchmarks.kit.benchmark import CPU, Benchmark, Result, add_runs, progress, register, runs_of
from benchmarks.kit.forms import TINY_EXAMPLE
from benchmarks.kit.observer import Observer
from benchmarks.kit.tables import Tables, figure_table, table
from benchmarks.quality.multi30k import STUDY
from leanformer.config.base import DistillConfig
from leanformer.core.errors import LeanformerError
from leanformer.data.text_batches import EncodedPairs, TextBatches, encode_pairs
from leanformer.learn.lessons import Lesson, explained, teachable, teaching_config, teaching_loss
from leanformer.learn.observe import Observed, frozen_copy
from leanformer.learn.step import make_accelerator
from leanformer.learn.train import train
from leanformer.model.students import reduce
from leanformer.model.surgery import build, resolve, sites
from leanformer.model.weights import parameter_count
from leanformer.tasks.base import open_task
from leanformer.tasks.translation import Translation

SITES = "encoder.*.self_attention"
BLOCKS: dict[str, dict[str, Any]] = {
    "`mixer`": {"block": "mixer"},
    "`mixer`, `positions: absolute`": {"block": "mixer", "positions": "absolute"},
    "`synthesizer`": {"block": "synthesizer"},
    "`slots` 64, linear gate, rank 8": {"block": "slots", "slots": 64, "gate": "linear", "rank": 8},
    "`average`": {"block": "average"},
}
"""What is compared; where a block has a ``max_length`` or a ``max_distance``, its default."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("--data", default="bentrevett/multi30k", help="Multi30k: a hub id or a local copy")
    parser.add_argument("--study", type=Path, default=STUDY, help="whose baseline is the teacher")
    parser.add_argument("--teacher", type=Path, help="that baseline, trained; by default it is trained here")
    parser.add_argument("--short", type=int, default=16, help="subwords of the longest source that is short")
    parser.add_argument("--steps", type=int, default=150, help="batches that each block learns from")
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--set", action="append", metavar="KEY=VALUE", default=[], help="a key of the study")
    add_runs(parser)


def measure(arguments: argparse.Namespace) -> Result:
    """R² of each block, by what it was taught on and what it is judged on."""
    study = lf.read_study(arguments.study, [f"data.source={arguments.data}", *arguments.set])
    task = open_task(study, CPU)
    assert isinstance(task, Translation)
    if arguments.teacher is None:
        with runs_of("lengths", arguments) as runs:
            plain = study.model_dump(mode="json")
            plain["candidates"] = {"average": {"method": "distill", "plan": {SITES: "average"}}}
            lf.run(plain, runs)
            teacher = lf.load(runs / "trials/baseline/seed-0/model")
    else:
        teacher = lf.load(arguments.teacher)
    pairs, tests = task.batches.train, encode_pairs(task.data.test, task.tokenizer)
    tests = tests.without(tests.too_long(max_source=task.study.data.max_tokens))
    parts = {"short": _short(tests, arguments.short), "longer": _longer(tests, arguments.short)}
    if not all(map(len, (*parts.values(), _short(pairs, arguments.short)))):
        raise LeanformerError(
            f"--short {arguments.short}: there must be sentences of at most so many subwords, and more"
        )
    rows: list[dict[str, Any]] = []
    for taught, lessons_of in (("short", _short(pairs, arguments.short)), ("all", pairs)):
        progress(f"teaching on {taught} sentences")
        found = _taught(task, teacher, lessons_of, parts, arguments)
        rows += [{"taught": taught, **row} for row in found]
    return {
        "sentences": {
            "taught": {"short": len(_short(pairs, arguments.short)), "all": len(pairs)},
            "judged": {name: len(part) for name, part in parts.items()},
            "longest": int(tests.sources.lengths.max()),
        },
        "rows": rows,
    }


def _short(pairs: EncodedPairs, most: int) -> EncodedPairs:
    return pairs.without(pairs.too_long(max_source=most))


def _longer(pairs: EncodedPairs, most: int) -> EncodedPairs:
    return pairs.select(pairs.too_long(max_source=most))


class _Few:
    """The first of endless batches, as one epoch.

    Args:
        batches: What they are of.
        steps: How many.
    """

    def __init__(self, batches: TextBatches, steps: int) -> None:
        self._batches = batches
        self.steps_per_epoch = steps

    def training(self, seed: int, epoch: int, first_step: int = 0) -> Any:
        """As of ``TextBatches``; its epochs one behind the other."""
        for step in range(first_step, self.steps_per_epoch):
            own, rest = divmod(step, self._batches.steps_per_epoch)
            if rest == 0 or step == first_step:
                stream = self._batches.training(seed, own, rest)
            yield next(stream)


class _Steps(Observer):
    """Also says now and then how far it is."""

    def step_ended(self, epoch: int, step: int, steps_per_epoch: int) -> None:
        """Says so."""
        if step % 50 == 0:
            progress(f"  step {step} of {steps_per_epoch}")


def _taught(
    task: Translation,
    teacher: PreTrainedModel,
    pairs: EncodedPairs,
    parts: dict[str, EncodedPairs],
    arguments: argparse.Namespace,
) -> list[dict[str, Any]]:
    """Teaches all blocks at once, and judges them."""
    opened = frozen_copy(reduce(teacher, {}))
    places = {site.name: site for site in sites(opened)}
    lessons: dict[str, list[Lesson]] = {}
    for name, entry in BLOCKS.items():
        torch.manual_seed(0)
        lessons[name] = []
        for place, resolved in resolve(opened, {SITES: entry}).items():
            block = build(opened, places[place], resolved, take_over=True)
            assert block is not None
            lessons[name].append(Lesson(f"{name} at {place}", places[place], block))
    every = [lesson for own in lessons.values() for lesson in own]
    batches = task.batches
    made = TextBatches(pairs, batches.batch_tokens, batches.pad_id, batches.decoder_start_id, CPU)
    config = teaching_config(DistillConfig(epochs=1, learning_rate=arguments.learning_rate))
    with Observed(opened, [(lesson.site.name, lesson.target) for lesson in every]) as observed:
        trained = train(
            teachable(every), _Few(made, arguments.steps), config, arguments.learning_rate, 0, _Steps(),
            make_accelerator("float32", CPU), None, loss=teaching_loss(observed, every),
        )  # fmt: skip
        if trained.status != "ok":
            raise LeanformerError(f"teaching failed: {trained.reason}")
        judged = {part: explained(observed, every, made.evaluation(chosen)) for part, chosen in parts.items()}
    return [
        {
            "block": name,
            "parameters": parameter_count(own[0].block),
            "r2": {part: [found[lesson.key] for lesson in own] for part, found in judged.items()},
        }
        for name, own in lessons.items()
    ]


def tables(result: Result) -> Tables:
    """R² of every block, and how many sentences there are."""
    settings, sentences = result["settings"], result["sentences"]
    rows = []
    for name in BLOCKS:
        own = {row["taught"]: row for row in result["rows"] if row["block"] == name}
        figures = (
            statistics.fmean(own[taught]["r2"][part]) for part in ("short", "longer") for taught in ("short", "all")
        )
        rows.append((name, f"{own['all']['parameters']:,}", *(f"{figure:.2f}" for figure in figures)))
    short = settings["short"]
    of_short = (f"up to {short}, taught on these", f"up to {short}, taught on all")
    header = ("block", "parameters", *of_short, f"longer, taught on up to {short}", "longer, taught on all")
    taught, judged = sentences["taught"], sentences["judged"]
    counted = {
        f"sentences taught, up to {short} subwords": f"{taught['short']:,}",
        "sentences taught, all": f"{taught['all']:,}",
        f"test sentences, up to {short} subwords": f"{judged['short']:,}",
        f"test sentences, {short + 1} to {sentences['longest']} subwords": f"{judged['longer']:,}",
    }
    return {"r2": table(header, rows), "sentences": figure_table(counted)}


BENCHMARK = register(
    "quality",
    Benchmark(
        name="lengths",
        add_arguments=add_arguments,
        measure=measure,
        tables=tables,
        quick={
            "study": Path("examples/number-words.yaml"),
            "data": "number-words",
            "short": 7,
            "steps": 3,
            "set": [
                "data.numbers={largest: 1000, train: 60, validation: 10, test: 20}",
                "finetune.epochs=0",
                *TINY_EXAMPLE,
            ],
        },
    ),
)
