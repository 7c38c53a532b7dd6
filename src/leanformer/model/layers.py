"""Layers of our own that a family puts in place of Hugging Face's: same weights, same outputs, open places."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer


class Sublayer(nn.Module):
    """``x + dropout(block(norm(x)))``, the pre-norm residual unit around an attention or an MLP."""

    def __init__(self, norm: nn.Module, block: nn.Module, dropout: float) -> None:
        super().__init__()
        self.norm = norm
        self.block = block
        self.dropout = dropout

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """(batch, tokens, d_model) -> the same shape; what follows the states goes to the block."""
        output = self.block(self.norm(hidden_states), *args, **kwargs)
        if isinstance(output, tuple):  # attention gives its weights beside
            output = output[0]
        return hidden_states + F.dropout(output, self.dropout, self.training)


class OpenLayer(GradientCheckpointingLayer):
    """A pre-norm encoder layer whose sublayers are sites: either may be exchanged, or be gone."""

    def __init__(self, self_attention: Sublayer | None, mlp: Sublayer | None) -> None:
        nn.Module.__init__(self)  # a family's open layer is also its own layer class, whose weights it must not make
        self.self_attention = self_attention
        self.mlp = mlp

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs: Any
    ) -> torch.Tensor:
        """(batch, tokens, d_model) -> the same shape."""
        if self.self_attention is not None:
            hidden_states = self.self_attention(hidden_states, attention_mask, **kwargs)
        if self.mlp is not None:
            hidden_states = self.mlp(hidden_states)
        return hidden_states


class PatchProjection(nn.Module):
    """A convolution whose stride is its kernel, as the matrix product that it is.

    The weights are the convolution's own, in its shape; on a CPU its backward pass takes a sixth of a minimal model's
    training step, the product's does not.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.weight = convolution.weight  # (d_model, channels, patch height, patch width)
        self.bias = convolution.bias

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(batch, channels, height, width) -> (batch, d_model, rows, columns), as the convolution gives it."""
        rows, columns = (
            side // patch for side, patch in zip(pixel_values.shape[2:], self.weight.shape[2:], strict=True)
        )
        patches = pixel_values.unflatten(2, (rows, -1)).unflatten(4, (columns, -1))
        patches = patches.permute(0, 2, 4, 1, 3, 5).flatten(3)  # (batch, rows, columns, numbers of a patch)
        return F.linear(patches, self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)


class PatchTokens(nn.Module):
    """Image embeddings without class or distillation token, with the weights of Hugging Face's embeddings."""

    def __init__(self, embeddings: Any, special_tokens: int) -> None:
        super().__init__()
        self.patch_embeddings: Any = embeddings.patch_embeddings
        self.position_embeddings = nn.Parameter(embeddings.position_embeddings.detach()[:, special_tokens:].clone())
        self.dropout: nn.Module = embeddings.dropout

    def forward(
        self,
        pixel_values: torch.Tensor,
        bool_masked_pos: torch.Tensor | None = None,
        interpolate_pos_encoding: bool | None = None,
    ) -> torch.Tensor:
        """(batch, channels, height, width) -> (batch, patches, d_model).

        Raises:
            ValueError: ``bool_masked_pos`` is given (a model without mask token), or the image has another size than
                the model and ``interpolate_pos_encoding`` is not set.
        """
        if bool_masked_pos is not None:
            raise ValueError("this model has no mask token: leave bool_masked_pos out")
        height, width = pixel_values.shape[-2:]
        positions: torch.Tensor = self.position_embeddings
        if (height, width) != tuple(self.patch_embeddings.image_size):
            if not interpolate_pos_encoding:
                expected = "x".join(str(side) for side in self.patch_embeddings.image_size)
                raise ValueError(
                    f"images of {height}x{width} pixels given to a model for {expected}: resize them, or set "
                    "interpolate_pos_encoding"
                )
            grid = [
                side // patch
                for side, patch in zip(self.patch_embeddings.image_size, self.patch_embeddings.patch_size, strict=True)
            ]
            target = [
                side // patch for side, patch in zip((height, width), self.patch_embeddings.patch_size, strict=True)
            ]
            positions = positions.unflatten(1, grid).permute(0, 3, 1, 2)  # (1, d_model, rows, columns)
            positions = F.interpolate(positions, size=target, mode="bicubic", align_corners=False)
            positions = positions.flatten(2).transpose(1, 2)
        return self.dropout(self.patch_embeddings(pixel_values) + positions)
