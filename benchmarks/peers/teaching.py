"""Teaching all sites and sizes at once against the published order of work: activations to disk, then one run a block.

The published pipeline (arXiv 2311.10642) writes what each layer of the teacher is given and gives to disk, and then
trains every layer and size in a run of its own. This order is written here anew, for this measurement alone, with what
can be said for it: activations without padding, in float32, each once; read back from files that the system has
still in memory; no process and no teacher to start for each run. Both orders train the same blocks with the same
optimizer on the same batches in the same order, so they end with the same weights. Either runs in a process of its own
each round, whose time (without loading the teacher and the text) and resident memory are kept.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import leanformer as lf
from benchmarks.kit.benchmark import CPU, Benchmark, Result, progress, register
from benchmarks.kit.forms import TINY_TEXT
from benchmarks.kit.measuring import in_turn, median_ratio
from benchmarks.kit.processes import add_memory_option, megabytes, runner
from benchmarks.kit.tables import Tables, figure_table, table
from benchmarks.quality.multi30k import STUDY
from benchmarks.speed.teaching import CONFIG
from leanformer.config.translation import TranslationStudy
from leanformer.learn.lessons import Lesson, answer, explained, teachable, teaching_loss
from leanformer.learn.losses import Batch, relative_error
from leanformer.learn.observe import Observed, Seen, frozen_copy
from leanformer.learn.step import TrainingStep, make_accelerator
from leanformer.model.surgery import build, resolve, sites
from leanformer.model.weights import parameter_count
from leanformer.tasks.translation import Translation

RATE = 2e-3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument(
        "--data", default="bentrevett/multi30k", help="Multi30k: a hub id or a local copy in its layout"
    )
    parser.add_argument("--set", action="append", metavar="KEY=VALUE", default=[], help="a key of multi30k.yaml")
    parser.add_argument("--sizes", nargs="+", default=["XS", "S", "M"], help="published sizes: XS, S, M, L")
    parser.add_argument("--sentences", type=int, default=500, help="training sentences")
    parser.add_argument("--batch-tokens", type=int, default=1024)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    add_memory_option(parser)


@dataclass
class Job:
    """What both orders of work start from.

    Args:
        observed: The teacher and its sites.
        lessons: All blocks, untaught.
        batches: One epoch of training batches.
    """

    observed: Observed
    lessons: list[Lesson]
    batches: list[Batch]

    @classmethod
    def make(cls, overrides: Sequence[str], sizes: Sequence[str]) -> Job:
        """From multi30k.yaml, whose teacher is fresh here; equal arguments give equal blocks and batches.

        Args:
            overrides: ``KEY=VALUE`` each, of the study.
            sizes: One block of each is taught at every attention.
        """
        study = lf.read_study(STUDY, overrides)
        assert isinstance(study, TranslationStudy)
        task = Translation(study, CPU)
        torch.manual_seed(0)
        opened = frozen_copy(lf.reduce(task.make_baseline(seed=0), {}))
        places = {site.name: site for site in sites(opened)}
        lessons = []
        for number, size in enumerate(sizes):
            wanted = {"*attention": {"block": "feed_forward", "size": size}}
            for name, entry in resolve(opened, wanted).items():
                block = build(opened, places[name], entry, take_over=True)
                assert block is not None
                lessons.append(Lesson(f"{name}-{number}-{size}", places[name], block))
        observed = Observed(opened, [(lesson.site.name, lesson.target) for lesson in lessons])
        return cls(observed, lessons, list(task.batches.training(seed=0, epoch=0)))

    def facts(self) -> dict[str, Any]:
        """How much there is to do."""
        return {
            "blocks": len(self.lessons),
            "sites": len({lesson.site.name for lesson in self.lessons}),
            "parameters": parameter_count(teachable(self.lessons)),
            "steps_an_epoch": len(self.batches),
            "source_tokens": sum(int(batch["attention_mask"].sum()) for batch in self.batches),
            "target_tokens": sum(int((batch["labels"] != -100).sum()) for batch in self.batches),
        }


def teach_at_once(job: Job, epochs: int) -> None:
    """Leanformer's order of work: each batch takes one pass of the teacher, and a step of every block."""
    with job.observed as observed:
        step = TrainingStep(
            teachable(job.lessons),
            CONFIG,
            RATE,
            make_accelerator("float32", CPU),
            teaching_loss(observed, job.lessons),
        )
        for _ in range(epochs):
            for batch in job.batches:
                step(batch)
        step.close()


# The published order of work


def extract(job: Job, directory: Path) -> None:
    """Writes what every site is given and gives, batch by batch: a file a site, and one of what all of them share."""
    with job.observed as observed:
        for number, batch in enumerate(job.batches):
            seen = observed.read(batch)
            shared = {"source": seen.source, "source_mask": seen.source_mask, "target_mask": seen.target_mask}
            save_file({k: v.contiguous() for k, v in shared.items() if v is not None}, shared_file(directory, number))
            for site in {lesson.site.name: lesson.site for lesson in job.lessons}.values():
                mask = seen.mask_at(site)
                tensors = {"input": seen.inputs[site.name]} | {
                    target: seen.targets[name, target] for name, target in seen.targets if name == site.name
                }
                path = site_file(directory, site.name, number)
                path.parent.mkdir(exist_ok=True)
                # Without padding: (positions, channels).
                save_file(
                    {key: (one if mask is None else one[mask]).contiguous() for key, one in tensors.items()}, path
                )


def shared_file(directory: Path, number: int) -> Path:
    """Of a batch: the encoder's output and both masks."""
    return directory / f"{number}.safetensors"


def site_file(directory: Path, site: str, number: int) -> Path:
    """Of a batch: what a site was given and gave."""
    return directory / site / f"{number}.safetensors"


def read(directory: Path, lesson: Lesson, number: int) -> Seen:
    """What the teacher showed of one site in one batch."""
    name, target = lesson.site.name, lesson.target
    found = load_file(site_file(directory, name, number))
    with safe_open(shared_file(directory, number), "pt") as shared:
        # The encoder's output is read where a block reads it.
        source = shared.get_tensor("source") if lesson.site.reads_source else None
        source_mask, target_mask = shared.get_tensor("source_mask"), shared.get_tensor("target_mask")
    mask = target_mask if lesson.site.causal else source_mask

    def padded(flat: torch.Tensor) -> torch.Tensor:
        whole = flat.new_zeros(*mask.shape, flat.shape[-1])
        whole[mask] = flat
        return whole

    inputs = {name: padded(found["input"])}
    return Seen(inputs, {(name, target): padded(found[target])}, {}, source, source_mask, target_mask)


def teach_alone(lesson: Lesson, directory: Path, batches: int, epochs: int) -> None:
    """One block in a run of its own, from the files."""
    number = 0

    def loss(_: Any, batch: Batch) -> Iterator[torch.Tensor]:
        yield relative_error(*answer(lesson, read(directory, lesson, number)))

    step = TrainingStep(teachable([lesson]), CONFIG, RATE, make_accelerator("float32", CPU), loss)
    for _ in range(epochs):
        for number in range(batches):  # noqa: B007  (read by the loss)
            step({})
    step.close()


# Measuring


def at_once(overrides: Sequence[str], sizes: Sequence[str], epochs: int) -> dict[str, Any]:
    """Leanformer's order, timed."""
    job = Job.make(overrides, sizes)
    started = time.perf_counter()
    teach_at_once(job, epochs)
    return {"seconds": time.perf_counter() - started, "r2": mean_r2(job), "bytes": 0, **job.facts()}


def one_by_one(overrides: Sequence[str], sizes: Sequence[str], epochs: int) -> dict[str, Any]:
    """The published order, timed."""
    job = Job.make(overrides, sizes)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        started = time.perf_counter()
        extract(job, directory)
        extracted = time.perf_counter()
        for lesson in job.lessons:
            teach_alone(lesson, directory, len(job.batches), epochs)
        ended = time.perf_counter()
        size = sum(path.stat().st_size for path in directory.rglob("*.safetensors"))
    return {
        "seconds": ended - started,
        "extract_seconds": extracted - started,
        "bytes": size,
        "r2": mean_r2(job),
        **job.facts(),
    }


def mean_r2(job: Job) -> float:
    """Of all blocks on the first batch: equal for both orders, as they do the same work."""
    with job.observed as observed:
        return statistics.fmean(explained(observed, job.lessons, job.batches[:1]).values())


def measure(arguments: argparse.Namespace) -> Result:
    """Time, bytes and memory of both orders in every round."""
    kept: dict[str, list[dict[str, Any]]] = {"at once": [], "one by one": []}
    overrides = [
        f"data.source={arguments.data}",
        f"data.train_limit={arguments.sentences}",
        f"train.batch_tokens={arguments.batch_tokens}",
        *arguments.set,
    ]

    run = runner(arguments)

    def once(name: str, order: Callable[..., dict[str, Any]]) -> float:
        figures, memory = run(order, overrides, arguments.sizes, arguments.epochs)
        kept[name].append({**figures, "resident_mb": memory})
        progress(f"{name}: {figures['seconds']:.1f} s")
        return float(figures["seconds"])

    ways = {"at once": partial(once, "at once", at_once), "one by one": partial(once, "one by one", one_by_one)}
    # Each is a process of its own: nothing warms up for the next.
    seconds = in_turn(ways, arguments.rounds, warm_up=0)
    facts = ("blocks", "sites", "parameters", "steps_an_epoch", "source_tokens", "target_tokens")
    return {
        **{name: kept["at once"][0][name] for name in facts},
        "ratio": median_ratio(seconds["one by one"], seconds["at once"]),
        "rounds": kept,
    }


def tables(result: Result) -> Tables:
    """Time, bytes and memory of both orders of work."""
    rounds = result["rounds"]

    def typical(way: str, key: str) -> float:
        return float(statistics.median(one[key] for one in rounds[way]))

    def memory(way: str) -> str:
        return megabytes(None if rounds[way][0]["resident_mb"] is None else typical(way, "resident_mb"))

    written = typical("one by one", "bytes")
    lines = [
        ("all blocks at once", f"{typical('at once', 'seconds'):.1f} s", "0 MB", memory("at once")),
        (
            "to disk, then each block alone",
            f"{typical('one by one', 'seconds'):.1f} s",
            f"{written / 1e6:,.1f} MB",
            memory("one by one"),
        ),
        ("of it writing to disk", f"{typical('one by one', 'extract_seconds'):.1f} s", "", ""),
    ]
    tokens = result["source_tokens"] + result["target_tokens"]
    single = {
        "blocks, and attentions": f"{result['blocks']} at {result['sites']}",
        "parameters, millions": f"{result['parameters'] / 1e6:.1f}",
        "steps an epoch": result["steps_an_epoch"],
        "the published order's time to that of at once": f"**{result['ratio']:.2f} x**",
        "disk a subword, both sides counted, without padding": f"{written / tokens / 1000:.1f} kB",
        "mean R² on the first batch, at once and one by one": " and ".join(
            f"{rounds[way][0]['r2']:.6f}" for way in ("at once", "one by one")
        ),
    }
    if all(rounds[way][0]["resident_mb"] is not None for way in rounds):
        times = typical("at once", "resident_mb") / typical("one by one", "resident_mb")
        single["memory of at once to that of one by one"] = f"{times:.1f} x"
    return {"orders": table(("order of work", "time", "written", "memory"), lines), "figures": figure_table(single)}


BENCHMARK = register(
    "peers",
    Benchmark(
        name="peers_teaching",
        add_arguments=add_arguments,
        measure=measure,
        tables=tables,
        quick={
            "set": [*TINY_TEXT],
            "sizes": ["XS", "S"],
            "sentences": 32,
            "batch_tokens": 128,
            "epochs": 2,
            "rounds": 1,
            "no_memory": True,
        },
    ),
)
