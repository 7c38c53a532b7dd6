"""The best form of at most 31,500 parameters on MNIST: test accuracy, mean of three seeds.

    python benchmarks/mnist.py --data ../shared/data/mnist --out benchmarks/results/mnist.json

Shape of the published runs (arXiv 2410.13732, and a replication of it that reaches 94.45 % validation accuracy with
31,498 parameters in 100 epochs): d=64, 6 layers, patch 7. The form: symmetric queries and keys in four channel groups,
no values but a diagonal, an MLP of 15 channels, pooling by mean. Beside it the same without its MLP. One study of
leanformer's own, whose baseline is that form; random crops are the only augmentation. ``examples/mnist.yaml`` compares
with the whole vision transformer.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ablation import save_form

import leanformer as lf
from leanformer.files import write_atomically
from leanformer.rundir import to_json

FORM = {"qk": "symmetric", "vo": "none", "heads": 4, "diagonal_value": True, "pooling": "mean"}


def main() -> None:
    """Runs the study, prints its rows, writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="MNIST: a hub id or a local copy in its layout")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--runs", type=Path, default=Path("runs/mnist-small"))
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    model = arguments.runs / "form"
    save_form(model, FORM, {"block": "mlp", "hidden": 15})
    results = lf.run(
        {
            "name": "mnist-small",
            "data": {"source": arguments.data, "augment": ["random_crop"]},
            "baseline": {"model": str(model), "fresh": True},
            "candidates": {"no-mlp": {"plan": {"*.mlp": "none"}}},
            "train": {"epochs": arguments.epochs, "learning_rate": 1e-2},
            "measure": {"threads": 1, "device": "cpu"},
        },
        arguments.runs / "run",
    ).results
    rows = [results["baseline"], *results["candidates"]]
    for name, row in zip(("symmetric, MLP 15", "the same, no MLP"), rows, strict=True):
        seeds = ", ".join(f"{accuracy:.2%}" for accuracy in row["quality"]["per_seed"])
        print(f"{name:18} {row['parameters']:>7,} parameters  test accuracy {row['quality']['mean']:.2%} ({seeds})")
    if arguments.out:
        kept = ("name", "parameters", "learning_rate", "quality", "difference", "train_seconds", "curves")
        result = {
            "epochs": arguments.epochs,
            "environment": results["environment"],
            "rows": [{key: row[key] for key in kept} for row in rows],
        }
        write_atomically(arguments.out, to_json(result))


if __name__ == "__main__":
    main()
