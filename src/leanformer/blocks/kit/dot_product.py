"""Softmax attention of heads: by PyTorch's fused kernel, or for few tokens by plain products."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from leanformer.core.torch_internals import remember_signature, softmax_gradient

# Below this many tokens a CPU takes plain products: in whole training steps of small models the fused kernel is slower
# with 37 tokens and faster from 50 on, where there are several heads (benchmarks/speed/attention_kernels.py).
FUSED_FROM_TOKENS_ON_CPU = 48


def split_heads(states: torch.Tensor, heads: int) -> torch.Tensor:
    """(batch, tokens, d_model) -> (batch, heads, tokens, d_model / heads)."""
    return states.unflatten(-1, (heads, -1)).transpose(1, 2)


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    heads: int,
    attention_mask: torch.Tensor | None = None,
    dropout: float = 0.0,
) -> torch.Tensor:
    """softmax(query keyᵀ / √d_head) value of each head, in the fastest way for the shape and the device.

    Args:
        query: Shape (batch, tokens, channels of all heads).
        key: Shape (batch, tokens read, channels), as ``value``; where both are one tensor, less is computed.
        heads: The number of heads that the channels are split into.
        attention_mask: Broadcastable to (batch, heads, tokens, tokens read). Boolean: True where a score counts;
            numbers, in the queries' precision, are added to the scores.
        dropout: Probability with which a weight is dropped.

    Returns:
        Shape (batch, tokens, channels).
    """
    exporting = torch.compiler.is_exporting()  # to a graph for any number of tokens
    if exporting and heads == 1:
        return attend_plainly(query, key, value, None if attention_mask is None else attention_mask[:, 0], dropout)
    few = exporting or (query.device.type == "cpu" and key.shape[-2] < FUSED_FROM_TOKENS_ON_CPU)
    if few and not exporting and attention_mask is None and dropout == 0.0 and not torch.is_autocast_enabled("cpu"):
        return _attend_few(query, key, value, heads)
    query, key, value = (split_heads(side, heads) for side in (query, key, value))
    if few:
        output = attend_plainly(query, key, value, attention_mask, dropout)
    else:
        # Under autocast, tokens that went through no product are float32; inside a vmap it does not reach the kernel.
        key, value = key.to(query.dtype), value.to(query.dtype)
        output = F.scaled_dot_product_attention(query, key, value, attention_mask, dropout)
    return output.transpose(1, 2).flatten(2)


def attend_plainly(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: torch.Tensor | None, dropout: float
) -> torch.Tensor:
    """Attention by products, with PyTorch's own gradient; heads separate, (batch, heads, tokens, d_head), or one."""
    scores = (query @ key.mT) * query.shape[-1] ** -0.5
    if attention_mask is not None and attention_mask.is_floating_point():
        scores = scores + attention_mask
    elif attention_mask is not None and torch.compiler.is_exporting():
        # The same numbers by an addition: what is added is made once for all layers and all tokens to be written.
        scores = scores + torch.zeros_like(attention_mask, dtype=scores.dtype).masked_fill(
            ~attention_mask, torch.finfo(scores.dtype).min
        )
    elif attention_mask is not None:
        # Not minus infinity, so that a row with nothing to attend to has a softmax.
        scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
    return F.dropout(scores.softmax(dim=-1), dropout, training=dropout > 0.0) @ value


def _attend_few(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, heads: int) -> torch.Tensor:
    """Attention by ``FewTokens``; arguments and result as in ``attend``."""

    def flat(states: torch.Tensor) -> torch.Tensor:
        return states if heads == 1 else split_heads(states, heads).flatten(0, 1)

    output, _ = FewTokens.apply(flat(query), flat(key), None if value is key else flat(value))
    return output if heads == 1 else output.unflatten(0, (len(query), heads)).transpose(1, 2).flatten(2)


class FewTokens(torch.autograd.Function):
    """softmax(q kᵀ / √d) v with its gradient in as few passes over memory as PyTorch's products allow.

    The scores are scaled in place, and where one tensor is both key and value, its two gradients are added while the
    second is computed: a training step of a model of nothing but such attention takes a twentieth less time.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        query: torch.Tensor, key: torch.Tensor, value: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The output, and the weights for the gradient.

        Args:
            query: Shape (batch * heads, tokens, d_head).
            key: Shape (batch * heads, tokens read, d_head).
            value: As ``key``; None: the keys.
        """
        weights = torch.bmm(query, key.mT).mul_(query.shape[-1] ** -0.5).softmax(dim=-1)
        return torch.bmm(weights, key if value is None else value), weights

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
        """Keeps what the gradient needs."""
        ctx.save_for_backward(*inputs, output[1])
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: torch.Tensor | None, _: None) -> tuple[torch.Tensor | None, ...]:
        """The gradients of query, key and value."""
        if given is None:
            return None, None, None
        query, key, value, weights = ctx.saved_tensors
        to_weights = torch.bmm(given, (key if value is None else value).mT)
        to_scores = softmax_gradient(to_weights, weights).mul_(query.shape[-1] ** -0.5)
        to_value = torch.bmm(weights.mT, given)
        to_query = torch.bmm(to_scores, key)
        if value is None:
            return to_query, torch.baddbmm(to_value, to_scores.mT, query), None
        return to_query, torch.bmm(to_scores.mT, query), to_value


remember_signature(FewTokens)
