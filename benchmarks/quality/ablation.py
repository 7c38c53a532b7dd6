"""What each argument of minimal_attention, and pooling by mean, does for the accuracy of minimal forms.

Two studies of leanformer's own, on a part of MNIST (d=64, 6 layers, patch 7, no MLP). The first adds one argument at a
time to the extreme form (collapsed queries and keys, no values, one head); the second changes one argument at a time of
the form that has the useful ones together. In each, the form that is changed is the study's baseline, every form gets
the rate that suits it from the same list, and the difference comes with its interval over seeds and test examples.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import leanformer as lf
from benchmarks.kit.again import Figures
from benchmarks.kit.benchmark import Benchmark, Result, register, runs_of, study_rows
from benchmarks.kit.forms import Form, add_image_options, image_study, plan_of, save_form
from benchmarks.kit.interval import Interval
from benchmarks.kit.tables import Tables, table, with_interval
from leanformer.core.errors import LeanformerError

ONE_HEAD: Form = {"qk": "collapsed", "vo": "none", "heads": 1, "pooling": "class_token"}
FULL: Form = {**ONE_HEAD, "heads": 4, "diagonal_value": True}
ADDED: dict[str, Form] = {
    "heads-4": {"heads": 4},
    "diagonal-value": {"diagonal_value": True},
    "temperature": {"temperature": True},
    "qk-norm-temperature": {"qk_norm": True, "temperature": True},
    "mean-pooling": {"pooling": "mean"},
    "init-normal": {"init": "normal"},
    "symmetric": {"qk": "symmetric"},
    "bias": {"bias": True},
    "dropout": {"dropout": 0.1},
}
CHANGED: dict[str, Form] = {
    "no-diagonal-value": {"diagonal_value": False},
    "temperature": {"temperature": True},
    "qk-norm-temperature": {"qk_norm": True, "temperature": True},
    "mean-pooling": {"pooling": "mean"},
    "init-normal": {"init": "normal"},
    "symmetric": {"qk": "symmetric"},
    "symmetric-no-diagonal-value": {"qk": "symmetric", "diagonal_value": False},
    "symmetric-temperature": {"qk": "symmetric", "temperature": True},
    "symmetric-mean-pooling": {"qk": "symmetric", "pooling": "mean"},
}
STUDIES = {"add-one": (ONE_HEAD, ADDED), "change-one": (FULL, CHANGED)}
"""Study -> the form that is its baseline, and what each candidate changes of it."""
KEPT = ("name", "parameters", "learning_rate", "learning_rate_search", "quality", "difference")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    add_image_options(parser, train_limit=5_000, epochs=5, seeds=range(5))
    parser.add_argument("--rates", type=float, nargs="+", default=[3e-3, 1e-2], help="that each form is searched over")
    parser.add_argument("--only", nargs="+", metavar="FORM", help=f"of {', '.join({**ADDED, **CHANGED})}")


def run_study(name: str, arguments: argparse.Namespace, runs: Path) -> Result:
    """Runs one study whose baseline is the reference form; gives its results."""
    reference, changes = STUDIES[name]
    form = runs / f"{name}-reference"
    save_form(form, reference, "none")
    plans = {
        key: plan_of({**reference, **change})
        for key, change in changes.items()
        if arguments.only is None or key in arguments.only
    }
    data, train = {"validation_fraction": 0.02}, {"learning_rate": arguments.rates}
    return lf.run(image_study(name, form, plans, arguments, data, train), runs / name).results


def measure(arguments: argparse.Namespace) -> Result:
    """Both studies' rows."""
    for name in arguments.only or ():
        if name not in {**ADDED, **CHANGED}:
            raise LeanformerError(f"--only {name}: there is no such form; there are {', '.join({**ADDED, **CHANGED})}")
    found: list[dict[str, Any]] = []
    with runs_of("ablation", arguments) as runs:
        for name, (reference, changes) in STUDIES.items():
            results = run_study(name, arguments, runs)
            for row in study_rows(results, KEPT):
                found.append({"study": name, "form": changes.get(row["name"], reference), **row})
    return {"environment": results["environment"], "rows": found}


def tables(result: Result) -> Tables:
    """A table a study."""
    return {name: table_of([row for row in result["rows"] if row["study"] == name]) for name in STUDIES}


def table_of(study: list[dict[str, Any]]) -> str:
    """The baseline's form, and each candidate's change of it."""
    lines = []
    for row in study:
        form = ", ".join(
            f"`{key}: {value if isinstance(value, str) else json.dumps(value)}`" for key, value in row["form"].items()
        )
        accuracy = f"{100 * row['quality']['mean']:.1f} %"
        lines.append((form, f"{row['parameters']:,}", accuracy, with_interval(row["difference"], 1, 100)))
    return table(("form", "parameters", "test accuracy", "difference"), lines)


def stated(result: Result) -> Figures:
    """Every form's accuracy."""
    return {f"{row['study']}, {row['name']}": Interval.of(row["quality"]) for row in result["rows"]}


BENCHMARK = register(
    "quality",
    Benchmark(
        name="ablation",
        add_arguments=add_arguments,
        measure=measure,
        tables=tables,
        quick={
            "data": "digits",
            "train_limit": 64,
            "epochs": 1,
            "seeds": [0],
            "rates": [1e-2],
            "only": ["mean-pooling"],
        },
        stated=stated,
    ),
)
