"""Training against transformers' Trainer: images a second by width, and a study of ten forms.

Speed: Hugging Face's ViT trained by ``Trainer``, the same ViT in leanformer's own step, and reduced forms of it in that
step; same images, same batch size, same AdamW, clipping and constant rate, on one process. ``Trainer`` is measured
twice: with a data set of single images in memory and the default collator, as it is mostly used, and on leanformer's
own ready batches, which leaves only the difference of the loops. A round measures every way in turn, from the end of
its first step to the end of its last; ratios are taken round by round, and the median kept. Memory is that of tensors
at most in two steps, weights and optimizer included, without the data set.

The study: ten forms with several seeds, once by ``leanformer run`` (training, validation, test, costs, statistics and
report), once by it with several trainings at a time, and once trained one by one with ``Trainer``, with validation
after each epoch, test and saved model. Each runs in a process of its own each round, whose time (from the data on) and
resident memory are kept; the processes that train side by side have memory of their own, which is not.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from itertools import islice
from typing import Any

import torch
from transformers import PrinterCallback, Trainer

import leanformer as lf
from benchmarks.forms import BEST_SMALL, EXTREME, plan_of, vit_config
from benchmarks.measuring import in_turn, median_ratio, rounds_of
from benchmarks.plots import Panel, Panels, Points
from benchmarks.processes import STUDY_IMPORTS, add_memory_option, megabytes, runner, timed_study
from benchmarks.room import CPU, Benchmark, Result, progress, table
from benchmarks.trainer import RATE, Images, ReadyBatches, train_steps, trainer_settings
from leanformer.config.images import ImageDataConfig, ImageStudy, ImageTrainConfig
from leanformer.data.image_batches import ImageBatches
from leanformer.data.images import load_images
from leanformer.learn.step import TrainingStep, make_accelerator
from leanformer.measure.cost import peak_memory
from leanformer.model.baseline import fresh_model
from leanformer.model.plan import Plan
from leanformer.model.surgery import parameter_count
from leanformer.results.schema import rows_of
from leanformer.tasks.images import ImageClassification

FORMS: dict[str, Plan] = {
    "no-mlp": {"*.mlp": "none"},
    "collapsed": {
        "*.self_attention": {"block": "minimal_attention", "qk": "collapsed", "vo": "separate"},
        "*.mlp": "none",
    },
    "extreme": EXTREME,
    "extreme-mlp": {"*.self_attention": EXTREME["*.self_attention"]},
    "symmetric": {**plan_of({**BEST_SMALL, "pooling": "class_token"}), "*.mlp": "none"},
    "symmetric-mean": {**plan_of(BEST_SMALL), "*.mlp": "none"},
    "symmetric-mlp-15": {**plan_of(BEST_SMALL), "*.mlp": {"block": "mlp", "hidden": 15}},
    "average": {"*.self_attention": "average", "*.mlp": {"block": "mlp", "hidden": 15}},
    "mixer": {
        "*.self_attention": {"block": "mixer", "positions": "absolute", "max_length": 17, "groups": 1},
        "*.mlp": "none",
    },
}
"""The candidates of the study; the whole ViT is its tenth form."""
FASTER = ("no-mlp", "extreme-mlp", "extreme", "symmetric")
"""Those whose speed is measured by width."""
TRAINER, TRAINER_READY, OWN = "ViT, Trainer", "ViT, Trainer on ready batches", "ViT, our loop"
SIDE_BY_SIDE = "leanformer --jobs"
"""The study's way with several trainings at a time, as the result file names it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("--data", default="ylecun/mnist", help="images: a hub id, a local copy in its layout, digits")
    parser.add_argument("--widths", type=int, nargs="*", default=[64, 192, 384], help="none leaves the speeds out")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=2, help="measured training steps a way and round")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--forms", nargs="+", default=list(FORMS), choices=list(FORMS), help="of the study")
    parser.add_argument("--seeds", type=int, default=3, help="of the study")
    parser.add_argument("--epochs", type=int, default=2, help="of the study")
    parser.add_argument("--train-limit", type=int, default=2500, help="training images of the study")
    parser.add_argument("--study-rounds", type=int, default=2, help="0 leaves the study out")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time of the study's third way, 1 for none")
    add_memory_option(parser)


# Images a second


def own_steps(step: TrainingStep, batches: ImageBatches, steps: int) -> list[float]:
    """Leanformer's own steps; when each ended."""
    ends = []
    for batch in islice(batches.training(seed=0, epoch=0), steps):
        step(batch).item()  # the loop of training looks at each loss
        ends.append(time.perf_counter())
    return ends


def speeds(arguments: argparse.Namespace, d_model: int, batches: ImageBatches, directory: str) -> list[dict[str, Any]]:
    """Every way's images a second and memory at one width."""
    torch.manual_seed(0)
    vit = fresh_model("vit", vit_config(d_model=d_model, layers=arguments.layers))
    size = arguments.batch_size
    accelerator = make_accelerator("float32", CPU)
    models = {OWN: vit} | {name: lf.reduce(vit, FORMS[name]) for name in FASTER}
    own = {
        name: TrainingStep(model.train(), ImageTrainConfig(batch_size=size), RATE, accelerator)
        for name, model in models.items()
    }
    ways: dict[str, Callable[[int], list[float]]] = {}
    for name, data in ((TRAINER, Images(batches, batches.data.train)), (TRAINER_READY, ReadyBatches(batches))):
        # A model of its own: one optimizer's steps are not to be another's.
        models[name] = fresh_model("vit", vit_config(d_model=d_model, layers=arguments.layers))
        ways[name] = partial(train_steps, models[name], data, size, directory=directory)
    ways |= {name: partial(own_steps, step, batches) for name, step in own.items()}

    def images_per_second(run: Callable[[int], list[float]]) -> float:
        ends = run(arguments.steps + 1)
        return size * (len(ends) - 1) / (ends[-1] - ends[0])

    found = in_turn({name: partial(images_per_second, run) for name, run in ways.items()}, arguments.rounds)
    rows = []
    for name, run in ways.items():
        parameters = parameter_count(models[name])
        # The steps of leanformer have their optimizer's two moments before they are measured; a trainer makes its own.
        held = 4 * parameters * (3 if name in own else 1)
        rows.append(
            {
                "d_model": d_model,
                "way": name,
                "parameters": parameters,
                "images_per_second": statistics.median(found[name]),
                "ratio_to_trainer": median_ratio(found[name], found[TRAINER]),
                "ratio_to_own_loop": median_ratio(found[name], found[OWN]),
                "rounds": found[name],
                "peak_memory_mb": (held + peak_memory(partial(run, 2), CPU)) / 1e6,
            }
        )
        progress(f"d = {d_model}, {name}: {rows[-1]['images_per_second']:,.0f} images/s")
    return rows


# The study


def study(arguments: argparse.Namespace) -> dict[str, Any]:
    """Ten forms, as plain data."""
    return {
        "name": "ten-forms",
        "data": {"source": arguments.data, "image_size": 28, "train_limit": arguments.train_limit},
        "baseline": {"model": "vit", "config": vit_config(layers=arguments.layers)},
        "candidates": {name: {"plan": FORMS[name]} for name in arguments.forms},
        "train": {"epochs": arguments.epochs, "learning_rate": RATE, "batch_size": arguments.batch_size},
        "seeds": list(range(arguments.seeds)),
        "measure": {"device": "cpu", "threads": arguments.threads, "repeats": 1, "latency_calls": 10},
    }


def run_study(plain: dict[str, Any], jobs: int) -> dict[str, Any]:
    """The study by leanformer."""
    found = timed_study(plain, jobs)
    results = found.pop("results")
    rows = rows_of(results)
    return {**found, "accuracy": {row["name"]: row["quality"]["mean"] for row in rows}}


def train_one_by_one(plain: dict[str, Any]) -> dict[str, Any]:
    """The same forms and seeds, each by a ``Trainer`` of its own."""
    own = lf.make_study(plain)
    assert isinstance(own, ImageStudy)
    config = own.train
    started = time.perf_counter()
    task = ImageClassification(own, CPU)
    train, validation, test = (
        Images(task.batches, split) for split in (task.data.train, task.data.validation, task.data.test)
    )
    accuracy: dict[str, list[float]] = {}
    plans: dict[str, Plan] = {name: candidate.plan for name, candidate in own.candidates.items()}
    for name, plan in {"baseline": {}, **plans}.items():
        for seed in own.seeds:
            baseline = task.make_baseline(seed)
            with tempfile.TemporaryDirectory() as directory:
                settings = trainer_settings(
                    directory,
                    config.batch_size,
                    num_train_epochs=config.epochs,
                    learning_rate=config.learning_rate[0],
                    weight_decay=config.weight_decay,
                    adam_beta1=config.betas[0],
                    adam_beta2=config.betas[1],
                    lr_scheduler_type="cosine",
                    warmup_steps=round(config.warmup * config.epochs * task.batches.steps_per_epoch),
                    eval_strategy="epoch",
                    seed=seed,
                )
                trainer = Trainer(
                    model=lf.reduce(baseline, plan) if plan else baseline,
                    args=settings,
                    train_dataset=train,
                    eval_dataset=validation,
                )
                trainer.remove_callback(PrinterCallback)
                trainer.train()
                logits = trainer.predict(test).predictions
                trainer.save_model(directory)
            right = torch.as_tensor(logits).argmax(dim=-1) == test.labels
            accuracy.setdefault(name, []).append(float(right.float().mean()))
    return {
        "seconds": time.perf_counter() - started,
        "accuracy": {name: statistics.fmean(values) for name, values in accuracy.items()},
    }


def compare_studies(arguments: argparse.Namespace) -> dict[str, Any]:
    """Time and memory of both ways in every round."""
    kept: dict[str, list[dict[str, Any]]] = {}
    measured = runner(arguments)

    def once(name: str, run: Callable[..., dict[str, Any]], *more: int) -> float:
        figures, memory = measured(run, study(arguments), *more, imports=STUDY_IMPORTS)
        kept.setdefault(name, []).append({**figures, "resident_mb": memory})
        progress(f"study by {name}: {figures['seconds']:.0f} s")
        return float(figures["seconds"])

    ways = {
        "leanformer": partial(once, "leanformer", run_study, 1),
        "Trainer": partial(once, "Trainer", train_one_by_one),
    }
    if arguments.jobs > 1:
        ways[SIDE_BY_SIDE] = partial(once, SIDE_BY_SIDE, run_study, arguments.jobs)
    # Each is a process of its own from its first import on: nothing warms up for the next.
    seconds = in_turn(ways, arguments.study_rounds, warm_up=0)
    return {
        "forms": len(arguments.forms) + 1,
        "ratio": median_ratio(seconds["Trainer"], seconds["leanformer"]),
        "ratio_side_by_side": median_ratio(seconds["Trainer"], seconds[SIDE_BY_SIDE]) if arguments.jobs > 1 else None,
        "rounds": kept,
    }


def measure(arguments: argparse.Namespace) -> Result:
    """The study, and speeds by width."""
    data = load_images(ImageDataConfig(source=arguments.data, image_size=28), CPU)
    batches = ImageBatches(data, arguments.batch_size, (), data.mean, data.std)
    with tempfile.TemporaryDirectory() as directory:
        study = compare_studies(arguments) if arguments.study_rounds else None
        rows = [row for width in arguments.widths for row in speeds(arguments, width, batches, directory)]
    return {"rows": rows, "study": study}


# The page


def section(result: Result) -> str:
    """The tables."""
    parts = []
    if result["rows"]:
        parts.append(_speed_text(result))
    if result["study"] is not None:
        parts.append(_study_text(result["study"], result["settings"]))
    return "\n\n".join(parts)


def plot(result: Result) -> Panels | None:
    """Speed by width beside the ratio of parameters."""
    widths = list(dict.fromkeys(row["d_model"] for row in result["rows"]))
    if not widths:
        return None

    def ratios(name: str, key: str) -> list[float]:
        return [_row(result, width, name)[key] for width in widths]

    drawn = []
    for name in _faster(result):
        parameters = [
            whole / own for whole, own in zip(ratios(OWN, "parameters"), ratios(name, "parameters"), strict=True)
        ]
        points = {
            "speed, to Trainer": Points(widths, ratios(name, "ratio_to_trainer")),
            "speed, to ViT in our loop": Points(widths, ratios(name, "ratio_to_own_loop")),
            "parameters, times fewer": Points(widths, parameters, dashed=True),
        }
        drawn.append(Panel(name, "d", "multiple of the ViT", points, log_y=False, from_zero=True))
    return Panels(
        "Training speed of reduced forms by width, as multiples of the ViT's, and how many times fewer "
        "parameters they have",
        drawn,
        columns=3,
    )


def _speed_text(result: Result) -> str:
    settings = result["settings"]
    lines = [
        (
            row["d_model"],
            row["way"],
            f"{row['parameters']:,}",
            f"{row['images_per_second']:,.0f}",
            f"{row['ratio_to_trainer']:.2f}",
            f"{row['ratio_to_own_loop']:.2f}",
            f"{row['peak_memory_mb']:,.0f} MB",
        )
        for row in result["rows"]
    ]
    header = ("d", "way", "parameters", "images/s", "to Trainer", "to ViT in our loop", "memory")
    growth = [
        (
            width,
            name,
            f"{_row(result, width, OWN)['parameters'] / _row(result, width, name)['parameters']:.1f}",
            f"{_row(result, width, name)['ratio_to_own_loop']:.2f}",
        )
        for name in _faster(result)
        for width in dict.fromkeys(row["d_model"] for row in result["rows"])
    ]
    return f"""\
A ViT of {settings["layers"]} layers, 4 heads, patches of 7 x 7 on 28 x 28 pixels and an MLP of ratio 4, and forms of
it, on batches of {settings["batch_size"]} images. Training steps a round: {settings["steps"]}; rounds in turn:
{settings["rounds"]}; medians. "Ready batches" are those of our loop,
given to `Trainer` whole. Memory is that of tensors at most in a step.

{table(header, lines)}

How the speed follows the parameters as the model becomes wider, against the ViT in our loop:

{table(("d", "form", "times fewer parameters", "times as fast"), growth)}"""


def _faster(result: Result) -> list[str]:
    """Those of ``FASTER`` that were measured."""
    ways = {row["way"] for row in result["rows"]}
    return [name for name in FASTER if name in ways]


def _row(result: Result, width: int, way: str) -> Mapping[str, Any]:
    return next(row for row in result["rows"] if (row["d_model"], row["way"]) == (width, way))


def _study_text(found: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    own, other = found["rounds"]["leanformer"], found["rounds"]["Trainer"]
    memory = {
        name: None if rounds[0]["resident_mb"] is None else statistics.median(one["resident_mb"] for one in rounds)
        for name, rounds in found["rounds"].items()
    }
    beside, jobs = found["rounds"].get(SIDE_BY_SIDE), settings.get("jobs")
    lines = [
        (
            "`leanformer run`, with costs, statistics and report",
            f"{statistics.median(one['seconds'] for one in own):,.0f} s",
            megabytes(memory["leanformer"]),
        ),
        *(
            (f"of it {part}", f"{statistics.median(one['parts'][part] for one in own):,.0f} s", "")
            for part in own[0]["parts"]
        ),
        (
            "one by one with `Trainer`",
            f"{statistics.median(one['seconds'] for one in other):,.0f} s",
            megabytes(memory["Trainer"]),
        ),
    ]
    if beside:
        seconds = statistics.median(one["seconds"] for one in beside)
        lines.append((f"`leanformer run --jobs {jobs}`, likewise", f"{seconds:,.0f} s", megabytes(None)))
    faster = (
        f", and {found['ratio_side_by_side']:.2f} times as long as {jobs} at a time, which have as many processor "
        "cores where it has one"
        if beside
        else ""
    )
    apart = "" if settings["no_memory"] else ", each in a new process; resident memory beyond the imported libraries"
    reached = [
        (name, f"{100 * accuracy:.1f} %", f"{100 * other[0]['accuracy'][name]:.1f} %")
        for name, accuracy in own[0]["accuracy"].items()
    ]
    return f"""\
{found["forms"]} forms x {settings["seeds"]} seeds on {settings["train_limit"]:,} images, epochs: {settings["epochs"]},
as one study and one by one (rounds in turn: {len(own)}{apart}):

{table(("way", "time", "memory"), lines)}

All else of the trials is validation after each epoch, the test and what is saved, which `Trainer`'s time holds too.
One by one takes **{found["ratio"]:.2f} times** as long{faster}. Both ways
do the same work, on images in another order; what they reach (test accuracy after this short training, mean of the
seeds):

{table(("form", "leanformer", "Trainer"), reached)}"""


def summary(result: Result) -> str | None:
    """The study's ratio, and that of the widest extreme form."""
    parts, settings = [], result["settings"]
    if result["study"] is not None:
        study = result["study"]
        beside, jobs = study.get("ratio_side_by_side"), settings.get("jobs")
        faster = f", {1 / beside:.2f} times with --jobs {jobs}, on as many processor cores" if beside else ""
        parts.append(
            f"a study of {study['forms']} forms, with costs, statistics and report, takes {1 / study['ratio']:.2f} "
            f"times as long as training the same forms one by one{faster} ({rounds_of(settings['study_rounds'])})"
        )
    if result["rows"]:
        widest = max(row["d_model"] for row in result["rows"])
        times = {name: _row(result, widest, name)["ratio_to_trainer"] for name in _faster(result)}
        with_mlps = f", with its MLPs {times['extreme-mlp']:.1f} times" if "extreme-mlp" in times else ""
        parts.append(
            f"at d = {widest} the extreme form trains {times['extreme']:.1f} times as fast as a ViT there{with_mlps} "
            f"({rounds_of(settings['rounds'])})"
        )
    return f"Against transformers' Trainer, {', and '.join(parts)}." if parts else None


BENCHMARK = Benchmark(
    name="peers_training",
    title="Training against Trainer",
    add_arguments=add_arguments,
    measure=measure,
    section=section,
    quick={
        "data": "digits",
        "widths": [16],
        "forms": ["extreme"],
        "layers": 2,
        "batch_size": 32,
        "steps": 2,
        "rounds": 1,
        "seeds": 1,
        "epochs": 1,
        "train_limit": 64,
        "study_rounds": 1,
        "no_memory": True,
    },
    summary=summary,
    plot=plot,
)
