"""Modules that stand where an architecture keeps its own: they are called as those, and speak to blocks.

``opened`` forms hold what stands there, so that every place is one module: an attention with its output projection, a
whole MLP. ``attached`` forms hold a block, or nothing.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from leanformer.blocks.kit.base import BlockModule
from leanformer.blocks.kit.inputs import BlockInputs
from leanformer.blocks.kit.rotary import tables
from leanformer.blocks.kit.state import DecodingState
from leanformer.model.finding import facts
from leanformer.model.finding.forms import CallForm, bound
from leanformer.model.hf import decoding_state


class Masks:
    """Where padding is in what a stack reads: noted when its body is called, read by the blocks in it.

    Args:
        parameters: The names of what the body takes by position.

    Attributes:
        own: The mask of the stack's tokens, with those of its cache: shape (batch, tokens), not 0 at real ones; None
            where none was given in that form.
        source: Likewise of the source's tokens.
    """

    def __init__(self, parameters: tuple[str, ...]) -> None:
        self._parameters = parameters
        self.own: torch.Tensor | None = None
        self.source: torch.Tensor | None = None

    def note(self, _: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        """A hook before the body's ``forward``."""
        given = bound(self._parameters, arguments, named)
        self.own, self.source = (
            mask if isinstance(mask, torch.Tensor) and mask.dim() == 2 else None
            for mask in (given.get("attention_mask"), given.get("encoder_attention_mask"))
        )

    def of_tokens(self, given: dict[str, Any], tokens: int, state: DecodingState | None) -> torch.Tensor | None:
        """True at the real tokens, in the form that blocks take; None: all are real.

        Args:
            given: The arguments of the attention in whose place the block stands.
            tokens: How many tokens are read now.
            state: What was read before.
        """
        length = tokens + (0 if state is None else state.length)
        if self.own is not None and self.own.shape[1] == length:
            return self.own != 0
        mask = next((given[name] for name in facts.MASKS if isinstance(given.get(name), torch.Tensor)), None)
        if mask is None or mask.dim() != 4 or mask.shape[-1] != tokens or mask.shape[-2] not in (1, tokens):
            return None
        # A token that is real may attend to itself, whatever else the mask is for: causality, windows.
        own = mask[:, 0, 0] if mask.shape[-2] == 1 else mask[:, 0].diagonal(dim1=-2, dim2=-1)
        seen = own > torch.finfo(own.dtype).min / 2 if own.is_floating_point() else own != 0
        return seen.expand(seen.shape[0], tokens)  # not len, which would make the batch a constant in a graph


def _take_plain_attributes(module: nn.Module, replaced: nn.Module) -> None:
    """Gives a module those attributes of another that are plain values: models read some, such as ``layer_idx``."""
    for name, value in vars(replaced).items():
        if not name.startswith("_") and name != "training" and isinstance(value, bool | int | float | str | None):
            setattr(module, name, value)


def _state_of(given: dict[str, Any], index: int, part: str = "self_attention_cache") -> DecodingState | None:
    """A block's state in the cache of a call, which counts the tokens read even where no block stands.

    Args:
        given: The arguments of the call.
        index: The layer's number in the cache.
        part: Where the state is, in a cache of two parts.

    Returns:
        None where the call brings no cache.
    """
    cache = next((given[name] for name in facts.CACHES if given.get(name) is not None), None)
    return None if cache is None else decoding_state(getattr(cache, part, cache), index)


class OpenedCore(nn.Module):
    """An attention whose output projection stood beside it, now with it.

    Args:
        core: The attention.
        output: Its output projection.
    """

    def __init__(self, core: nn.Module, output: nn.Module) -> None:
        super().__init__()
        self.core = core
        self.output = output

    def forward(self, *arguments: Any, **named: Any) -> Any:
        """As the attention's own."""
        heads = self.core(*arguments, **named)
        return (self.output(heads[0]), *heads[1:]) if isinstance(heads, tuple) else self.output(heads)


class OpenedPair(nn.Module):
    """An MLP whose two maps the layer held itself.

    Args:
        fc1: The map to the neurons, or a module of it and the activation.
        activation: The activation; None where it is in ``fc1``.
        fc2: The map from the neurons.
        dropout: Probability with which neurons are dropped in training.
    """

    def __init__(self, fc1: nn.Module, activation: Any, fc2: nn.Module, dropout: float) -> None:
        super().__init__()
        self.fc1 = fc1
        self.activation = activation
        self.fc2 = fc2
        self.dropout = dropout

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(..., d_model) -> the same shape."""
        neurons = self.fc1(hidden_states)
        if self.activation is not None:
            neurons = self.activation(neurons)
        output: torch.Tensor = self.fc2(F.dropout(neurons, self.dropout) if self.training else neurons)
        return output


class Attached(nn.Module):
    """A block where an architecture calls its attention, or nothing there: then the output is 0.

    Args:
        block: The block; None leaves the place empty.
        replaced: What stood there; some of its plain attributes may be read by the model.
        form: The form of its calls.
        masks: Those of the stack.
        index: The layer's number, where the module does not know it itself.
        crosses: Whether it reads the source.
        norm: The norm after the residual, where the replaced module held both.
    """

    def __init__(
        self,
        block: BlockModule | None,
        replaced: nn.Module,
        form: CallForm,
        masks: Masks,
        index: int,
        crosses: bool,
        norm: nn.Module | None = None,
    ) -> None:
        super().__init__()
        _take_plain_attributes(self, replaced)
        self.block = block
        self.norm = norm
        self.form = form
        self.masks = masks
        self.crosses = crosses
        known = getattr(replaced, "layer_idx", None)
        self.index: int = index if known is None else known

    def forward(self, *arguments: Any, **named: Any) -> Any:
        """As the replaced module's own."""
        given = self.form.bind(arguments, named)
        states = given[self.form.hidden_states]
        state = _state_of(given, self.index, "cross_attention_cache" if self.crosses else "self_attention_cache")
        output = self._output(states, given, state)
        if self.norm is not None:
            output = self.norm(states + output)
        if state is not None:
            state.length += states.shape[1]
        return self.form.answer(output, given)

    def _output(self, states: torch.Tensor, given: dict[str, Any], state: DecodingState | None) -> torch.Tensor:
        if self.block is None:
            return torch.zeros_like(states)
        source = source_mask = None
        if self.crosses:
            source = next((given[name] for name in facts.SOURCES if given.get(name) is not None), None)
            source_mask = None if self.masks.source is None else self.masks.source != 0
        mask = None if self.crosses else self.masks.of_tokens(given, states.shape[1], state)
        rotary = None if self.crosses else tables(given.get(facts.ROTARY), states.shape[1])
        output: torch.Tensor = self.block(BlockInputs(states, mask, source, source_mask, state, rotary=rotary))
        return output


class AttachedMlp(nn.Module):
    """A block where an architecture calls its MLP, or nothing there: then the output is 0.

    Args:
        block: The block, or a module that is called as ``block(hidden_states)``; None leaves the place empty.
        form: The form of the replaced module's calls.
    """

    def __init__(self, block: nn.Module | None, form: CallForm) -> None:
        super().__init__()
        self.block = block
        self.form = form

    def forward(self, *arguments: Any, **named: Any) -> Any:
        """As the replaced module's own."""
        given = self.form.bind(arguments, named)
        states = given[self.form.hidden_states]
        if self.block is None:
            return self.form.answer(torch.zeros_like(states), given)
        # What stands for an MLP of any kind, such as a linear map that is measured, reads as other blocks do.
        output = self.block(BlockInputs(states) if isinstance(self.block, BlockModule) else states)
        return self.form.answer(output, given)


class AttachedLayer(nn.Module):
    """A layer that was taken out: hidden states go through unchanged, and a cache still counts the tokens.

    Args:
        replaced: The layer.
        form: The form of its calls.
        index: Its number in its stack.
    """

    def __init__(self, replaced: nn.Module, form: CallForm, index: int) -> None:
        super().__init__()
        _take_plain_attributes(self, replaced)
        self.form = form
        self.index = index

    def forward(self, *arguments: Any, **named: Any) -> Any:
        """As the layer's own."""
        given = self.form.bind(arguments, named)
        states = given[self.form.hidden_states]
        state = _state_of(given, self.index)
        if state is not None:
            state.length += states.shape[1]
        return self.form.answer(states, given)
