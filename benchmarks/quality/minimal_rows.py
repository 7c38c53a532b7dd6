"""The rows of the benchmark ``minimal``: the papers' tables, the replication's figures, and the best small forms."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel

import leanformer as lf
from benchmarks.kit.forms import BEST_SMALL, GRID, Form, plan_of, shallower, vit_config
from leanformer.model.baseline import fresh_model

Plan = dict[str, Any]
GROUPS = ("table", "forms", "best")
EPOCHS = {"table": 1, "forms": 1}
"""Without ``--epochs``; of the best forms each data set has its own."""
RATES = {"table": [3e-3, 1e-2], "forms": [3e-3, 1e-2], "best": [1e-2, 2e-2]}
"""Without ``--learning-rates``."""
SIDE_BY_SIDE_EPOCHS = {"mnist": 15, "cifar10": 19}
"""Without ``--epochs``, with ``--side-by-side``: what fitted into eight minutes of one GPU."""
SIDE_BY_SIDE_RATES = {"table": [3e-3], "forms": [3e-3, 1e-2], "best": [1e-2]}
"""Without ``--learning-rates``, with ``--side-by-side``; after an epoch on a CPU no row of the table took 1e-2."""
VALIDATION = 0.05
"""Part of the training images that rates are chosen on."""


@dataclass(frozen=True)
class Images:
    """A data set: its shape, and how the best forms are trained and how many parameters they may have."""

    title: str
    pixels: int
    channels: int
    patch: int
    augment: tuple[str, ...]
    epochs: int
    budget: int
    goal: float


DATA = {
    "mnist": Images("MNIST", 28, 1, 7, ("random_crop",), 5, 31_500, 0.985),
    "cifar10": Images("CIFAR-10", 32, 3, 8, ("horizontal_flip",), 10, 40_650, 0.66),
}


@dataclass(frozen=True)
class Published:
    """A row of the replication: parameters, and validation accuracy in percent."""

    parameters: int
    accuracy: float
    note: str = ""


@dataclass(frozen=True)
class Row:
    """One form on one data set.

    Args:
        data: Key of ``DATA``.
        group: One of ``GROUPS``.
        name: What ``--rows`` and the run directory call it.
        says: Column -> cell of the group's table.
        plan: What makes it of the ViT that ``config`` describes.
        layers: Of that ViT.
        patch: Pixels a side, of that ViT.
        published: The replication's figures.
    """

    data: str
    group: str
    name: str
    says: Mapping[str, str]
    plan: Plan
    patch: int
    layers: int = 6
    published: Published | None = None

    @property
    def study(self) -> str:
        """The study that it belongs to, with the other rows of this shape."""
        return f"{self.data}-{self.group}-{self.layers}-layers-patch-{self.patch}"

    @property
    def key(self) -> str:
        """Its own among all."""
        return f"{self.study}-{self.name}"

    @property
    def augment(self) -> tuple[str, ...]:
        """Augmentation of its training images."""
        return DATA[self.data].augment if self.group == "best" else ()

    def config(self) -> dict[str, Any]:
        """The configuration of the ViT."""
        images = DATA[self.data]
        config = vit_config(layers=self.layers, patch=self.patch, pixels=images.pixels)
        return {**config, "num_channels": images.channels}

    def model(self) -> PreTrainedModel:
        """The form with random weights, from PyTorch's global generator."""
        return lf.reduce(fresh_model("vit", self.config()), self.plan)


def form_of(qk: str, vo: str, heads: int) -> Form:
    """A form with biases, as the replication's, that pools by mean."""
    return {"qk": qk, "vo": vo, "heads": heads, "bias": True, "pooling": "mean"}


def heads_and_mlp(heads: int, mlp: bool) -> tuple[str, dict[str, str]]:
    """The end of a row's name, and its cells."""
    name = f"{heads}-head{'s' * (heads > 1)}{'-mlp' * mlp}"
    return name, {"heads": str(heads), "MLP": "yes" if mlp else "no"}


def table_rows(data: str) -> Iterable[Row]:
    """Depth, heads and MLP; what comes first at a depth is its reference."""
    for layers in (6, 12):
        for mlp in (True, False):
            for heads in (1, 4):
                name, cells = heads_and_mlp(heads, mlp)
                plan = plan_of(form_of("separate", "separate", heads)) | ({} if mlp else {"*.mlp": "none"})
                says = {"layers": str(layers), **cells}
                yield Row(data, "table", f"{layers}-layers-{name}", says, plan, DATA[data].patch, layers)


UNCHANGED, COLLAPSED, EXTREME, SYMMETRIC = "unchanged", "W_qk", "W_qk, no W_v W_o", "symmetric"
MATRICES = {
    UNCHANGED: ("separate", "separate"),
    COLLAPSED: ("collapsed", "separate"),
    EXTREME: ("collapsed", "none"),
    SYMMETRIC: ("symmetric", "separate"),
}
"""A form's name -> ``qk`` and ``vo`` of minimal_attention."""
NAMES = {UNCHANGED: "unchanged", COLLAPSED: "collapsed", EXTREME: "collapsed-no-values", SYMMETRIC: "symmetric"}
DIVERGED = "diverged"
REPLICATION: tuple[tuple[int, bool, str, dict[str, Published]], ...] = (
    (1, True, UNCHANGED, {"mnist": Published(156_298, 98.33), "cifar10": Published(165_450, 68.19)}),
    (4, True, UNCHANGED, {"mnist": Published(156_298, 98.73), "cifar10": Published(165_450, 67.72)}),
    (1, True, COLLAPSED, {"mnist": Published(131_338, 98.39)}),
    (1, True, EXTREME, {"mnist": Published(81_418, 98.22), "cifar10": Published(90_570, 65.14)}),
    (1, False, UNCHANGED, {"mnist": Published(106_378, 97.55), "cifar10": Published(115_530, 57.08)}),
    (4, False, UNCHANGED, {"mnist": Published(106_378, 98.24), "cifar10": Published(115_530, 61.37)}),
    (1, False, SYMMETRIC, {"mnist": Published(68_938, 82.02), "cifar10": Published(78_090, 9.84, DIVERGED)}),
    (4, False, SYMMETRIC, {"mnist": Published(59_722, 97.49), "cifar10": Published(68_874, 46.84)}),
    (1, False, COLLAPSED, {"mnist": Published(81_418, 97.69), "cifar10": Published(90_570, 56.19)}),
    (1, False, EXTREME, {"mnist": Published(31_498, 94.45), "cifar10": Published(40_650, 47.44)}),
)
"""Heads, MLP, form -> figures of a public replication: 100 epochs, d=64, 6 layers, patch 7 and 8, Adam at 1e-3."""


def form_rows(data: str) -> Iterable[Row]:
    """The replication's rows."""
    for heads, mlp, form, published in REPLICATION:
        qk, vo = MATRICES[form]
        name, cells = heads_and_mlp(heads, mlp)
        plan = {**plan_of(form_of(qk, vo, heads)), "*.mlp": {"block": "mlp", "hidden": 64} if mlp else "none"}
        says = {**cells, "form": form}
        yield Row(data, "forms", f"{NAMES[form]}-{name}", says, plan, DATA[data].patch, published=published.get(data))


ATTENTION: Plan = plan_of(BEST_SMALL)
MIXER: Plan = {"*.self_attention": GRID, "pooling": "mean"}
BEST: dict[str, tuple[tuple[str, int, int, int | None, Plan], ...]] = {
    "mnist": (
        ("grid", 4, 5, 24, MIXER),
        ("grid-3-layers", 4, 3, 50, MIXER),
        ("attention", 7, 6, 15, ATTENTION),
        ("attention-no-mlp", 7, 6, None, ATTENTION),
    ),
    "cifar10": (
        ("grid", 4, 5, 32, MIXER),
        ("grid-3-layers", 4, 3, 66, MIXER),
        ("attention", 8, 6, 14, ATTENTION),
        ("attention-no-mlp", 8, 6, None, ATTENTION),
    ),
}
"""Name, patch, layers, channels of the MLP, and the plan but for that."""


def best_rows(data: str) -> Iterable[Row]:
    """Our small forms."""
    mixer = "a mixer of 5 x 5 patches"
    attention = "attention: symmetric, 4 channel groups, a diagonal value"
    for name, patch, layers, hidden, plan in BEST[data]:
        says = {
            "patch": str(patch),
            "layers": str(layers),
            "tokens are mixed by": mixer if plan is MIXER else attention,
            "MLP": str(hidden or "none"),
        }
        whole = {**plan, "*.mlp": {"block": "mlp", "hidden": hidden} if hidden else "none", **shallower(layers)}
        yield Row(data, "best", name, says, whole, patch)


ROWS = tuple(row for data in DATA for rows in (table_rows, form_rows, best_rows) for row in rows(data))


def by_study(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Rows of one shape together, in their order."""
    studies: dict[str, list[Row]] = {}
    for row in rows:
        studies.setdefault(row.study, []).append(row)
    return studies


STUDIES = by_study(ROWS)
"""Study -> its rows; the first is its baseline, with which the others are compared."""


def source_of(data: str, arguments: argparse.Namespace) -> str:
    """Where a data set comes from."""
    source: str = getattr(arguments, f"data_{data}")
    return source


def epochs_of(row: Row, arguments: argparse.Namespace) -> int:
    """How long a row is trained."""
    if arguments.epochs is not None:
        return int(arguments.epochs)
    if arguments.side_by_side:
        return SIDE_BY_SIDE_EPOCHS[row.data]
    return EPOCHS.get(row.group, DATA[row.data].epochs)


def rates_of(row: Row, arguments: argparse.Namespace) -> list[float]:
    """The rates that are searched for a row."""
    return arguments.learning_rates or (SIDE_BY_SIDE_RATES if arguments.side_by_side else RATES)[row.group]
