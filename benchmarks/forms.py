"""The models that several benchmarks measure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import leanformer as lf
from leanformer.model.baseline import fresh_model

EXTREME: dict[str, Any] = {
    "*.self_attention": {"block": "minimal_attention", "qk": "collapsed", "vo": "none"},
    "*.mlp": "none",
}
"""The plan of the extreme form: one matrix an attention, no values, no MLP; as many heads as the model has."""

Form = dict[str, Any]
"""The arguments of ``minimal_attention`` at every self-attention, and the model's ``pooling``."""

BEST_SMALL: Form = {"qk": "symmetric", "vo": "none", "heads": 4, "diagonal_value": True, "pooling": "mean"}
"""The best found of at most 31,500 parameters, with an MLP of 15 channels."""


def vit_config(d_model: int = 64, layers: int = 6, heads: int = 4, patch: int = 7, pixels: int = 28) -> dict[str, Any]:
    """A vision transformer on grey square images of ten digits; by default that of the published runs on MNIST.

    Source: arXiv 2410.13732 and a replication of it; MLP of ratio 4.
    """
    return {
        "hidden_size": d_model,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": 4 * d_model,
        "patch_size": patch,
        "image_size": pixels,
        "num_channels": 1,
        "id2label": {number: str(number) for number in range(10)},
        "label2id": {str(number): number for number in range(10)},
    }


def plan_of(form: Form) -> dict[str, Any]:
    """The plan that gives a model this form."""
    attention = {key: value for key, value in form.items() if key != "pooling"}
    return {"*.self_attention": {"block": "minimal_attention", **attention}, "pooling": form["pooling"]}


def save_form(directory: Path, form: Form, mlp: Any) -> None:
    """Saves a form of ``vit_config`` as a study's baseline, unless it is there: a run goes on with the same one."""
    if not directory.exists():
        lf.save(lf.reduce(fresh_model("vit", vit_config()), {**plan_of(form), "*.mlp": mlp}), directory)
