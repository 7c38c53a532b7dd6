"""Small blocks of the translators at a vision transformer's sites, against the best minimal form, at equal parameters.

All forms are trained from scratch on 20,000 images of MNIST, d=64, patch 7, at most 31,500 parameters; where a block
takes more than a minimal attention, there are fewer layers or a narrower MLP. The rate is searched for each.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import leanformer as lf
from benchmarks.forms import (
    BEST_SMALL,
    SMALL_GRID,
    SMALL_GRID_LAYERS,
    add_image_options,
    image_study,
    save_form,
    shallower,
)
from benchmarks.room import Benchmark, Result, runs_of, study_rows, table

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


def section(result: Result) -> str:
    """The table, the best first."""
    settings = result["settings"]
    found = {row["name"]: row for row in result["rows"]}
    lines = [
        (
            FORMS[row["name"]],
            f"{row['parameters']:,}",
            f"{100 * row['quality']['mean']:.2f} %",
            f"{row['throughput_per_second']:,.0f}",
        )
        for row in sorted(found.values(), key=lambda row: -row["quality"]["mean"])
    ]
    minimal, grid, mixer = (found[name] for name in ("baseline", "grid", "mixer"))
    caution = "One short training each: a point is within what another seed may change."
    return f"""\
From scratch on {settings["train_limit"]:,} images (`{Path(settings["data"]).name}`), {settings["epochs"]} epochs,
seeds: {len(settings["seeds"])}, at most 31,500 parameters, the best of the rates
{" and ".join(f"{rate:g}" for rate in settings["rates"])}; the minimal form is the best one of
[above](#the-best-small-forms-mnist).

{table(("form", "parameters", "test accuracy", "images/s"), lines)}

Against the minimal form a mixer on the grid of patches comes to {100 * grid["difference"]["mean"]:+.2f} points at
{grid["throughput_per_second"] / minimal["throughput_per_second"]:.1f} times the speed, a mixer by position to
{100 * mixer["difference"]["mean"]:+.2f} at {mixer["throughput_per_second"] / minimal["throughput_per_second"]:.1f}
times; slots, made for distilling an attention, come to {100 * found["slots"]["difference"]["mean"]:+.2f} where they
are trained from nothing. {caution if len(settings["seeds"]) == 1 else ""}"""


def summary(result: Result) -> str:
    """The best form, and the fastest."""
    best = max(result["rows"], key=lambda row: row["quality"]["mean"])
    fastest = max(result["rows"], key=lambda row: row["throughput_per_second"])
    return (
        f"Among small vision models of equal size, the most accurate ({100 * best['quality']['mean']:.1f} %) is "
        f"{FORMS[best['name']]}; the fastest is {FORMS[fastest['name']]}, whose accuracy is "
        f"{100 * fastest['quality']['mean']:.1f} %."
    )


BENCHMARK = Benchmark(
    name="mnist_blocks",
    title="Small blocks at a vision transformer's sites",
    add_arguments=add_arguments,
    measure=measure,
    section=section,
    quick={"data": "digits", "train_limit": 64, "epochs": 1, "rates": [1e-2], "rounds": 1, "batch": 8},
    summary=summary,
)
