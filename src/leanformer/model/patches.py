"""An image's patches: the convolution that cuts them, and embeddings without the tokens before them."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel


class PatchProjection(nn.Module):
    """A convolution whose stride is its kernel size, as the equivalent matrix product.

    The weights are the convolution's own, in its shape; on a CPU its backward pass takes a sixth of a minimal model's
    training step, which the product's does not.
    """

    decayed: ClassVar[tuple[str, ...]] = ("weight",)

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.weight = convolution.weight  # (d_model, channels, patch height, patch width)
        self.bias = convolution.bias

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(batch, channels, height, width) -> (batch, d_model, rows, columns), as the convolution gives it."""
        height, width = self.weight.shape[2:]
        rows, columns = pixel_values.shape[2] // height, pixel_values.shape[3] // width
        whole = pixel_values[:, :, : rows * height, : columns * width]  # a part of a patch at the edge is not read
        patches = whole.unflatten(2, (rows, height)).unflatten(4, (columns, width))
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


def read_color(model: PreTrainedModel) -> None:
    """Lets a model of one channel take images in color too, by their brightness; another stays as it is.

    transformers' pipelines read every image file in color.
    """
    if getattr(model.config, "num_channels", None) == 1:
        model.register_forward_pre_hook(_in_grey, with_kwargs=True)


def _in_grey(_: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A hook before ``forward``. The weights are those of ITU-R BT.601, as Pillow takes them for its mode ``L``.

    Three equal channels give exactly that channel.
    """
    images = named.get("pixel_values", arguments[0] if arguments else None)
    if not isinstance(images, torch.Tensor) or images.dim() != 4 or images.shape[1] != 3:
        return arguments, named
    red, green, blue = images.split(1, dim=1)  # (batch, 1, height, width) each
    grey = green + 0.299 * (red - green) + 0.114 * (blue - green)
    if "pixel_values" in named:
        return arguments, {**named, "pixel_values": grey}
    return (grey, *arguments[1:]), named
