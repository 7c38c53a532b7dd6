"""The models that several benchmarks measure."""

from __future__ import annotations

from typing import Any

EXTREME: dict[str, Any] = {
    "*.self_attention": {"block": "minimal_attention", "qk": "collapsed", "vo": "none"},
    "*.mlp": "none",
}
"""The plan of the extreme form: one matrix an attention, no values, no MLP."""


def vit_config(d_model: int = 64, layers: int = 6, heads: int = 4, patch: int = 7, pixels: int = 28) -> dict[str, Any]:
    """A vision transformer on grey square images of ten classes; by default that of the published runs on MNIST.

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
        "num_labels": 10,
    }
