"""The best minimal attention of at most 31,500 parameters on MNIST: test accuracy, mean of three seeds.

Shape of the published runs (arXiv 2410.13732, and a replication of it that reaches 94.45 % validation accuracy with
31,498 parameters in 100 epochs): d=64, 6 layers, patch 7. The form: symmetric queries and keys in four channel groups,
no values but a diagonal, an MLP of 15 channels, pooling by mean. Beside it the same without its MLP. One study of
leanformer's own, whose baseline is that form; random crops are the only augmentation. ``examples/mnist.yaml`` compares
with the whole vision transformer.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import leanformer as lf
from benchmarks.forms import BEST_SMALL, add_image_options, image_study, save_form
from benchmarks.room import Benchmark, Result, runs_of, study_rows, table
from benchmarks.verdicts import Verdict

FORMS = {
    "baseline": "symmetric, 4 channel groups, diagonal value, mean pooling, MLP of 15",
    "no-mlp": "the same without the MLP",
}
KEPT = ("name", "parameters", "learning_rate", "quality", "difference", "train_seconds", "curves")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    add_image_options(parser, train_limit=None, epochs=15, seeds=(0, 1, 2))


def measure(arguments: argparse.Namespace) -> Result:
    """The study's rows."""
    with runs_of("mnist", arguments) as runs:
        save_form(runs / "form", BEST_SMALL, {"block": "mlp", "hidden": 15})
        plans = {"no-mlp": {"*.mlp": "none"}}
        data, train = {"augment": ["random_crop"]}, {"learning_rate": 1e-2}
        study = image_study("mnist-small", runs / "form", plans, arguments, data, train)
        results = lf.run(study, runs / "run").results
    return {"environment": results["environment"], "rows": study_rows(results, KEPT)}


def section(result: Result) -> str:
    """The table."""
    settings = result["settings"]
    lines = [
        (
            FORMS[row["name"]],
            f"{row['parameters']:,}",
            f"{100 * row['quality']['mean']:.2f} %",
            ", ".join(f"{100 * accuracy:.2f}" for accuracy in row["quality"]["per_seed"]),
        )
        for row in result["rows"]
    ]
    limit = settings["train_limit"]
    return f"""\
At most 31,500 parameters, {"all training images" if limit is None else f"{limit:,} training images"}
(`{Path(settings["data"]).name}`), {settings["epochs"]} epochs, random crops, rate
{result["rows"][0]["learning_rate"]:g}, no search. The published replication of the paper reaches 94.45 % validation
accuracy with 31,498 parameters after 100 epochs.

{table(("form", "parameters", "test accuracy, mean of seeds", "each seed"), lines)}

`examples/mnist.yaml` is the study that compares this form and the extreme one with the whole transformer."""


def summary(result: Result) -> str:
    """The accuracy, and at how many parameters."""
    best = max(result["rows"], key=lambda row: row["quality"]["mean"])
    return (
        f"A vision transformer of {best['parameters']:,} parameters, with minimal attention, reads "
        f"{100 * best['quality']['mean']:.2f} % of the test digits right (mean of {len(best['quality']['per_seed'])} "
        "trainings)."
    )


def verdicts(result: Result) -> list[Verdict]:
    """Of the form without its MLP."""
    rows = {row["name"]: row for row in result["rows"]}
    whole, own = rows["baseline"], rows["no-mlp"]
    seeds = len(own["quality"]["per_seed"])
    return [
        Verdict(
            "MNIST",
            f"the MLP of the small form of {whole['parameters']:,} parameters",
            own["parameters"] / whole["parameters"],
            {key: 100 * own["difference"][key] for key in ("mean", "low", "high")},
            "points",
            f"{seeds} seed{'s' * (seeds > 1)} from scratch, epochs: {result['settings']['epochs']}",
        )
    ]


BENCHMARK = Benchmark(
    name="mnist",
    title="The best minimal attention on MNIST",
    add_arguments=add_arguments,
    measure=measure,
    section=section,
    quick={"data": "digits", "train_limit": 64, "epochs": 1, "seeds": [0]},
    summary=summary,
    verdicts=verdicts,
)
