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
from benchmarks.kit.benchmark import CPU, Benchmark, Result, progress, recipes, register
from benchmarks.kit.forms import BEST_SMALL, EXTREME, plan_of, vit_config
from benchmarks.kit.measuring import in_turn, median_ratio
from benchmarks.kit.plots import Panel, Panels, Points
from benchmarks.kit.processes import STUDY_IMPORTS, add_memory_option, megabytes, runner, timed_study
from benchmarks.kit.tables import Tables, table
from benchmarks.peers.trainer import RATE, Images, ReadyBatches, train_steps, trainer_settings
from leanformer.config.images import ImageDataConfig, ImageStudy, ImageTrainConfig
from leanformer.data.image_batches import ImageBatches
from leanformer.data.images import load_images
from leanformer.learn.step import TrainingStep, make_accelerator
from leanformer.measure.cost import peak_memory
from leanformer.model.baseline import fresh_model
from leanformer.model.plan import Plan
from leanformer.model.weights import parameter_count
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
    rows = recipes(results)
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


def tables(result: Result) -> Tables:
    """Speeds by width, and a study against trainings one by one."""
    found: dict[str, str] = {}
    if result["rows"]:
        found |= {"speed": speed_table(result), "by-width": width_table(result)}
    if result["study"] is not None:
        found |= {"study": study_table(result["study"], result["settings"]), "accuracy": reached(result["study"])}
    return found


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
    return Panels(drawn, columns=3)


def speed_table(result: Result) -> str:
    """Every way at every width."""
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
    return table(("d", "way", "parameters", "images/s", "to Trainer", "to ViT in our loop", "memory"), lines)


def width_table(result: Result) -> str:
    """How the speed follows the parameters as the model becomes wider, against the ViT in our loop."""
    lines = [
        (
            width,
            name,
            f"{_row(result, width, OWN)['parameters'] / _row(result, width, name)['parameters']:.1f}",
            f"{_row(result, width, name)['ratio_to_own_loop']:.2f}",
        )
        for name in _faster(result)
        for width in dict.fromkeys(row["d_model"] for row in result["rows"])
    ]
    return table(("d", "form", "times fewer parameters", "times as fast"), lines)


def _faster(result: Result) -> list[str]:
    """Those of ``FASTER`` that were measured."""
    ways = {row["way"] for row in result["rows"]}
    return [name for name in FASTER if name in ways]


def _row(result: Result, width: int, way: str) -> Mapping[str, Any]:
    return next(row for row in result["rows"] if (row["d_model"], row["way"]) == (width, way))


def study_table(found: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """The time and memory of a study, and of the same trainings one by one."""
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
    lines.append(("the study's time to that of one by one", f"{1 / found['ratio']:.2f} x", ""))
    if beside:
        times = f"{1 / found['ratio_side_by_side']:.2f} x"
        lines.append((f"that of --jobs {jobs} to that of one by one, on as many processor cores", times, ""))
    return table(("way", "time", "memory"), lines)


def reached(found: Mapping[str, Any]) -> str:
    """The test accuracy of both ways, mean of the seeds."""
    own, other = (found["rounds"][name][0]["accuracy"] for name in ("leanformer", "Trainer"))
    lines = [(name, f"{100 * accuracy:.1f} %", f"{100 * other[name]:.1f} %") for name, accuracy in own.items()]
    return table(("form", "leanformer", "Trainer"), lines)


BENCHMARK = register(
    "peers",
    Benchmark(
        name="peers_training",
        add_arguments=add_arguments,
        measure=measure,
        tables=tables,
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
        plot=plot,
    ),
)
