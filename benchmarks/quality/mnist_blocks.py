"""Small blocks of the translators at a vision transformer's sites, against the best minimal form, at equal parameters.

All forms are trained from scratch on 20,000 images of MNIST, d=64, patch 7, at most 31,500 parameters; where a block
takes more than a minimal attention, there are fewer layers or a narrower MLP. The rate is searched for each.
"""

from __future__ import annotations

import argparse
from typing import Any

import leanformer as lf
from benchmarks.kit.benchmark import Benchmark, Result, register, runs_of, study_rows
from benchmarks.kit.forms import (
    BEST_SMALL,
    SMALL_GRID,
    SMALL_GRID_LAYERS,
    add_image_options,
    image_study,
    save_form,
    shallower,
)
from benchmarks.kit.tables import Tables, table

CANDIDATES: dict[str, dict[str, Any]] = {
    "slots": {
        "*.self_attention": {"block": "slots", "slots": 8, "gate": "linear", "rank": 4, "heads": 4},
        **shallower(2),
    },
    "mixer": {
        "*.self_attention": {"block": "mixer", "positions": "absolute", "max_length": 17, "groups": 1},
        "*.mlp": "none",
        **shallower(2),
    },
    "grid": {**SMALL_GRID, **shallower(SMALL_GRID_LAYERS)},
    "average": {"*.self_attention": "average", "*.mlp": {"block": "mlp", "hidden": 35}, **shallower(2)},
}
FORMS = {
    "baseline": "minimal: symmetric, 4 channel groups, diagonal value, MLP of 15, 6 layers",
    "slots": "`slots`, 8 of rank 4, MLP of 15, 2 layers",
    "mixer": "`mixer`, `positions: absolute`, no MLP, 2 layers",
    "grid": "`mixer`, `positions: grid`, without values or gate, MLP of 24, 4 layers",
    "average": "`average`, MLP of 35, 2 layers",
}
KEPT = ("name", "plan", "parameters", "learning_rate", "quality", "difference", "throughput_per_second")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    add_image_options(parser, train_limit=20_000, epochs=8, seeds=(0,))
    parser.add_argument("--rates", type=float, nargs="+", default=[3e-3, 1e-2], help="that each form is searched over")
    parser.add_argument("--rounds", type=int, default=3, help="in which the speeds are measured in turn")
    parser.add_argument("--batch", type=int, default=256, help="images at once, for the speeds")


def measure(arguments: argparse.Namespace) -> Result:
    """The study's rows."""
    with runs_of("mnist_blocks", arguments) as runs:
        save_form(runs / "form", BEST_SMALL, {"block": "mlp", "hidden": 15})
        data, train = {"augment": ["random_crop"]}, {"learning_rate": arguments.rates}
        if len(arguments.rates) > 1:
            train["search_epochs"] = 1
        speed = {"repeats": arguments.rounds, "latency_calls": 1, "throughput_batch": arguments.batch}
        study = image_study("mnist-blocks", runs / "form", CANDIDATES, arguments, data, train, speed)
        results = lf.run(study, runs / "run").results
    return {"study": results["study"], "environment": results["environment"], "rows": study_rows(results, KEPT)}


def tables(result: Result) -> Tables:
    """The forms, the best first."""
    whole = next(row for row in result["rows"] if row["name"] == "baseline")
    lines = [
        (
            FORMS[row["name"]],
            f"{row['parameters']:,}",
            f"{100 * row['quality']['mean']:.2f} %",
            "" if row is whole else f"{100 * row['difference']['mean']:+.2f}",
            f"{row['throughput_per_second']:,.0f}",
            f"{row['throughput_per_second'] / whole['throughput_per_second']:.1f} x",
        )
        for row in sorted(result["rows"], key=lambda row: -row["quality"]["mean"])
    ]
    header = ("form", "parameters", "test accuracy", "points to the minimal form", "images/s", "speed to it")
    return {"forms": table(header, lines)}


BENCHMARK = register(
    "quality",
    Benchmark(
        name="mnist_blocks",
        add_arguments=add_arguments,
        measure=measure,
        tables=tables,
        quick={"data": "digits", "train_limit": 64, "epochs": 1, "rates": [1e-2], "rounds": 1, "batch": 8},
    ),
)
