"""The contract of everything that can stand at a site, and the registry that finds it by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import nn

from leanformer.errors import LeanformerError
from leanformer.model.sites import Site


class Arguments(BaseModel):
    """A block's arguments as written in a plan: unknown ones are errors, values are not coerced."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


@dataclass(frozen=True)
class AttentionWeights:
    """A trained attention in one layout, whatever the family: ``x @ weight + bias``.

    Args:
        query: Weight of shape (d_model, d_model), head ``i`` in the ``i``-th group of columns; ``key`` and ``value``
            likewise.
        output: Weight of shape (d_model, d_model), head ``i`` in the ``i``-th group of rows.
        query_bias: Shape (d_model,), or None where the model has none; the other biases likewise.
        num_heads: Number of heads.
        scaling: What the scores are multiplied with before the softmax.
    """

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    output: torch.Tensor
    query_bias: torch.Tensor | None
    key_bias: torch.Tensor | None
    value_bias: torch.Tensor | None
    output_bias: torch.Tensor | None
    num_heads: int
    scaling: float

    @property
    def has_bias(self) -> bool:
        """Whether any of the four projections has a bias."""
        return any(b is not None for b in (self.query_bias, self.key_bias, self.value_bias, self.output_bias))


class Block:
    """A kind of thing that can stand at a site: its name, its arguments, and how to make the module.

    The module that it makes is called as the one that it replaces: at an attention site
    ``module(hidden_states, attention_mask) -> (output, attention_weights or None)``, at an MLP or a pooling site
    ``module(hidden_states) -> output``.

    Class attributes:
        name: What a plan calls it.
        kinds: The kinds of site that it can stand at.
        Arguments: What a plan may give beside the name.
    """

    name: ClassVar[str]
    kinds: ClassVar[frozenset[str]]
    Arguments: ClassVar[type[Arguments]] = Arguments

    @classmethod
    def keeps(cls, arguments: Any) -> bool:
        """Whether the block, with these arguments, means "leave here what stands here"."""
        return False

    @classmethod
    def resolve(cls, arguments: Any, site: Site, teacher: AttentionWeights | None) -> dict[str, Any]:
        """Writes out what the arguments leave to the site, so that a saved plan says everything.

        Args:
            arguments: A validated instance of ``Arguments``.
            site: Where the block is to stand.
            teacher: The attention that stands there now; None where there is none.

        Raises:
            LeanformerError: An argument does not fit this site.
        """
        return dict(arguments.model_dump())

    @classmethod
    def build(cls, arguments: Any, site: Site, teacher: AttentionWeights | None) -> nn.Module | None:
        """The module that stands at the site from now on; None leaves the place empty. Not called where it keeps.

        Args:
            arguments: A validated instance of ``Arguments``, resolved.
            site: Where it is to stand.
            teacher: The weights of an attention that stands there now. None where there is none, and where only the
                structure is wanted because saved weights are about to be loaded.
        """
        raise NotImplementedError(f"{cls.name} only ever keeps what stands there")


_REGISTRY: dict[str, type[Block]] = {}


def register(block: type[Block]) -> type[Block]:
    """Class decorator: makes a block known to plans under its ``name``."""
    _REGISTRY[block.name] = block
    return block


def find_block(name: str, where: str) -> type[Block]:
    """The block of this name.

    Args:
        name: As a plan writes it.
        where: What to name as the place of the mistake (the plan's pattern).

    Raises:
        LeanformerError: There is no such block.
    """
    if name not in _REGISTRY:
        raise LeanformerError(f"{where}: unknown block {name!r}; known blocks: {', '.join(sorted(_REGISTRY))}")
    return _REGISTRY[name]


def blocks_at(kind: str) -> list[str]:
    """Names of the blocks that can stand at a kind of site."""
    return sorted(name for name, block in _REGISTRY.items() if kind in block.kinds)


def check_arguments(block: type[Block], arguments: dict[str, Any], where: str) -> Arguments:
    """The validated arguments of ``block``.

    Raises:
        LeanformerError: An argument is unknown or has a wrong value; the message names it and ``where`` it stands.
    """
    try:
        return block.Arguments(**arguments)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            known = ", ".join(block.Arguments.model_fields) or "none"
            message = f"block {block.name!r} has no argument {key!r}; its arguments: {known}"
        else:
            problem = first["msg"].removeprefix("Value error, ")
            problem = problem[0].lower() + problem[1:]
            message = f"block {block.name!r}: {problem}"
            if key:
                message = f"argument {key!r} of block {block.name!r}: {problem}, not {first['input']!r}"
        raise LeanformerError(f"{where}: {message}") from None
