"""What blocks over tokens share: removing padding, and checking lengths and widths."""

from __future__ import annotations

import math

import torch

from leanformer.blocks.kit.site import Site
from leanformer.core.errors import LeanformerError


def without_padding(states: torch.Tensor, mask: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """The states with zeros at padding, and which of them are real.

    Args:
        states: Shape (batch, tokens, d_model).
        mask: Boolean, shape (batch, tokens), or with the tokens before them; None: no padding.

    Returns:
        The states, and a boolean of shape (batch, tokens), without a mask in an exported graph (1, tokens).
    """
    if mask is None:
        # In a graph once for all sentences: then it is a constant, whatever the batch.
        batch = 1 if torch.compiler.is_exporting() else states.shape[0]
        return states, states.new_ones(batch, states.shape[1], dtype=torch.bool)
    real = mask[:, mask.shape[1] - states.shape[1] :].bool()
    return states.masked_fill(~real[..., None], 0), real


def repeats(*tensors: torch.Tensor) -> int:
    """How many consecutive sequences are the same throughout a batch, as the beams of a sentence are.

    Args:
        tensors: All tensors of the sequences, batch first.
    """
    if tensors[0].is_meta or torch.compiler.is_exporting():  # shapes alone cannot be compared
        return 1
    same = torch.stack([(tensor[1:] == tensor[:-1]).flatten(1).all(dim=1) for tensor in tensors]).all(dim=0)
    first = (~same).nonzero().flatten() + 1  # of each run of equal sequences, but for the first run
    return math.gcd(len(tensors[0]), *first.tolist())


def stays(indices: torch.Tensor, batch: int, repeats: int) -> bool:
    """Whether the sequences chosen from a batch equal those in their places, as when beams continue one another.

    Args:
        indices: The chosen sequences.
        batch: How many there are to choose from.
        repeats: How many consecutive ones are the same.
    """
    if repeats == 1 or len(indices) != batch:
        return False  # without repeats a check for an unchanged order is not worth its time
    rows = torch.arange(len(indices), device=indices.device, dtype=indices.dtype)
    return torch.equal(indices // repeats, rows // repeats)


def check_divides(site: Site, name: str, parts: int) -> None:
    """Makes sure that the width divides into that many equal parts.

    Raises:
        LeanformerError: It does not; the message names the argument.
    """
    if site.d_model % parts:
        raise LeanformerError(
            f"{site.name}: {name} = {parts} does not divide the model's width; take a divisor of {site.d_model}"
        )


def check_positions(site: Site, max_length: int) -> None:
    """Makes sure that a block is no longer than the positions of the model.

    Raises:
        LeanformerError: It is longer.
    """
    if site.max_positions is not None and max_length > site.max_positions:
        raise LeanformerError(
            f"{site.name}: max_length = {max_length} makes the block longer than the positions of the model; "
            f"take at most {site.max_positions}"
        )


def check_length(site_name: str, block: str, max_length: int, length: int, what: str) -> None:
    """Makes sure that a block can read a text.

    Args:
        site_name: The block's site.
        block: Its name.
        max_length: Most tokens that it can read.
        length: The number of tokens that it gets.
        what: What they are, in the plural.

    Raises:
        LeanformerError: There are too many.
    """
    if torch.compiler.is_exporting():  # the length is none yet: whoever runs the graph knows its limits
        return
    if length > max_length:
        raise LeanformerError(
            f"{site_name}: its {block} block reads at most {max_length} {what}, not {length}; "
            "shorten the text, or make the block with a greater max_length"
        )
