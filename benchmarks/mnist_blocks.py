"""Small blocks of the translators at a vision transformer's sites, against the best minimal form, at equal parameters.

    python benchmarks/mnist_blocks.py --data ../shared/data/mnist --out benchmarks/results/mnist_blocks.json

All forms are trained from scratch on 20,000 images of MNIST, d=64, patch 7, at most 31,500 parameters; where a block
takes more than a minimal attention, there are fewer layers or a narrower MLP. The rate is searched for each.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ablation import save_form
from mnist import FORM

import leanformer as lf
from leanformer.files import write_atomically
from leanformer.rundir import to_json

TWO_LAYERS = {"encoder.[2-5].layer": "none"}
CANDIDATES: dict[str, dict[str, Any]] = {
    "fourier": {"*.self_attention": {"block": "fourier", "norm": "ortho"}, "*.mlp": {"block": "mlp", "hidden": 31}},
    "slots": {
        "*.self_attention": {"block": "slots", "slots": 8, "gate": "linear", "rank": 4, "heads": 4},
        **TWO_LAYERS,
    },
    "mixer": {
        "*.self_attention": {"block": "mixer", "max_length": 17, "groups": 1},
        "*.mlp": "none",
        **TWO_LAYERS,
    },
    "average": {"*.self_attention": "average", "*.mlp": {"block": "mlp", "hidden": 35}, **TWO_LAYERS},
}


def main() -> None:
    """Runs the study, prints its rows, writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="MNIST: a hub id or a local copy in its layout")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/mnist-blocks"))
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    model = arguments.runs / "form"
    save_form(model, FORM, {"block": "mlp", "hidden": 15})
    results = lf.run(
        {
            "name": "mnist-blocks",
            "data": {"source": arguments.data, "augment": ["random_crop"], "train_limit": 20_000},
            "baseline": {"model": str(model), "fresh": True},
            "candidates": {name: {"plan": plan} for name, plan in CANDIDATES.items()},
            "train": {"epochs": arguments.epochs, "learning_rate": [3e-3, 1e-2], "search_epochs": 1},
            "seeds": arguments.seeds,
            "measure": {"threads": 1, "device": "cpu", "repeats": 3, "latency_calls": 10},
        },
        arguments.runs / "run",
    ).results
    rows = [results["baseline"], *results["candidates"]]
    for name, row in zip(("minimal", *CANDIDATES), rows, strict=True):
        gap = "" if row["difference"] is None else f"  {100 * row['difference']['mean']:+.2f} points"
        print(
            f"{name:9} {row['parameters']:>7,} parameters  test accuracy {row['quality']['mean']:.2%}"
            f"  rate {row['learning_rate']:g}  {row['throughput_per_second']:,.0f} images/s{gap}"
        )
    if arguments.out:
        kept = ("name", "plan", "parameters", "learning_rate", "quality", "difference", "throughput_per_second")
        result = {
            "study": results["study"],
            "environment": results["environment"],
            "rows": [{key: row[key] for key in kept} for row in rows],
        }
        write_atomically(arguments.out, to_json(result))


if __name__ == "__main__":
    main()
