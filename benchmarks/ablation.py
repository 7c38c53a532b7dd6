"""What each argument of minimal_attention, and pooling by mean, does for the accuracy of minimal forms.

    python benchmarks/ablation.py --data ../shared/data/mnist --out benchmarks/results/ablation.json

Two studies of leanformer's own, on a part of MNIST (d=64, 6 layers, patch 7, no MLP). The first adds one argument at a
time to the extreme form (collapsed queries and keys, no values, one head); the second changes one argument at a time of
the form that has the useful ones together. In each, the form that is changed is the study's baseline, every form gets
the rate that suits it from the same list, and the difference comes with its interval over seeds and test examples.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

import leanformer as lf
from leanformer.files import write_atomically
from leanformer.machine import environment
from leanformer.model.baseline import fresh_model
from leanformer.rundir import to_json

SHAPE = {
    "hidden_size": 64,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "intermediate_size": 256,
    "patch_size": 7,
    "image_size": 28,
    "num_channels": 1,
    "id2label": {number: str(number) for number in range(10)},
    "label2id": {str(number): number for number in range(10)},
}
Form = dict[str, Any]
EXTREME: Form = {"qk": "collapsed", "vo": "none", "heads": 1, "pooling": "class_token"}
FULL: Form = {**EXTREME, "heads": 4, "diagonal_value": True}
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


def plan(form: Form) -> dict[str, Any]:
    """The plan of a form."""
    attention = {key: value for key, value in form.items() if key != "pooling"}
    return {"*.self_attention": {"block": "minimal_attention", **attention}, "pooling": form["pooling"]}


def save_form(directory: Path, form: Form, mlp: Any) -> None:
    """Saves a form as a study's baseline, unless it is there: a run that was cut off goes on with the same one."""
    if not directory.exists():
        lf.save(lf.reduce(fresh_model("vit", SHAPE), {**plan(form), "*.mlp": mlp}), directory)


def study(name: str, reference: Form, changes: dict[str, Form], arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Runs one study whose baseline is the reference form; gives the rows of its results."""
    model = arguments.runs / f"{name}-reference"
    save_form(model, reference, "none")
    result = lf.run(
        {
            "name": name,
            "data": {"source": arguments.data, "train_limit": arguments.train_limit, "validation_fraction": 0.02},
            "baseline": {"model": str(model), "fresh": True},
            "candidates": {key: {"plan": plan({**reference, **change})} for key, change in changes.items()},
            "train": {"epochs": arguments.epochs, "learning_rate": [3e-3, 1e-2]},
            "seeds": list(range(arguments.seeds)),
            "measure": {"threads": 1, "device": "cpu"},
        },
        arguments.runs / name,
    ).results
    rows = []
    print(f"\n{name}: {reference}")
    for row in (result["baseline"], *result["candidates"]):
        kept = ("name", "parameters", "learning_rate", "learning_rate_search", "quality", "difference")
        rows.append({"study": name, **{key: row[key] for key in kept}})
        gap = row["difference"]
        difference = "" if gap is None else f"{gap['mean']:+.2%} ({gap['low']:+.2%} to {gap['high']:+.2%})"
        print(
            f"{row['name']:22} {row['parameters']:>7,} parameters  rate {row['learning_rate']:<6g} "
            f"accuracy {row['quality']['mean']:.2%}  {difference}"
        )
    return rows


def main() -> None:
    """Runs both studies, prints their tables, writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="MNIST: a hub id or a local copy in its layout")
    parser.add_argument("--train-limit", type=int, default=5_000)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--runs", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    rows = study("add-one", EXTREME, ADDED, arguments) + study("change-one", FULL, CHANGED, arguments)
    if arguments.out:
        result = {
            "train_limit": arguments.train_limit,
            "epochs": arguments.epochs,
            "seeds": arguments.seeds,
            "environment": environment(torch.device("cpu"), "float32"),
            "rows": rows,
        }
        write_atomically(arguments.out, to_json(result))


if __name__ == "__main__":
    main()
