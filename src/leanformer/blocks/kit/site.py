"""The places in a model where attention or an MLP sits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SiteKind = Literal[
    "self_attention",
    "cross_attention",
    "mlp",
    "self_attention_sublayer",
    "cross_attention_sublayer",
    "layer",
    "pooling",
]


@dataclass(frozen=True)
class Site:
    """One place in a model that a block can stand at.

    Args:
        name: Stable, family-independent name, such as ``encoder.3.self_attention``.
        kind: The kind of site; a block names the kinds that it can stand at. A sublayer is an attention with its norm
            and residual, a layer is all of its sublayers.
        block: What stands there now (``attention``, ``mlp``, ``none``, ``minimal_attention``, ...).
        d_model: Width of the hidden states, channels.
        num_heads: Attention heads of the model at this place.
        parameters: Numbers stored at this site now, without ``norm_parameters``.
        norm_parameters: Numbers of this site's norm, which is removed too when the block is ``none``.
        causal: Whether a position may only read itself and earlier ones (a decoder's).
        reads_source: Whether the place reads the encoder's output too (cross-attention, a decoder's layer).
        max_positions: Most tokens that the model can take there; None where it does not say.
        grid: Rows and columns of an image's patches, which come row by row; None in texts.
        special_tokens: Tokens before the patches.
        rotary: Whether the model tells positions by rotating queries and keys there, so that a block in their place
            knows of no order unless it does so too.
        unplaced: Whether the model tells positions of a text in its attentions alone, by rotating or by a bias of
            scores: hidden states say nothing of the order of tokens.
        max_distance: The window of the attention there: tokens farther apart are not read; None: it has none.
    """

    name: str
    kind: SiteKind
    block: str
    d_model: int
    num_heads: int
    parameters: int
    norm_parameters: int = 0
    causal: bool = False
    reads_source: bool = False
    max_positions: int | None = None
    grid: tuple[int, int] | None = None
    special_tokens: int = 0
    rotary: bool = False
    unplaced: bool = False
    max_distance: int | None = None
