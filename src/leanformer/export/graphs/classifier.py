"""The graph of an image classifier."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from transformers import PreTrainedModel

from leanformer.core.errors import LeanformerError
from leanformer.export.graphs.attention import of_blocks
from leanformer.export.graphs.trace import trace
from leanformer.model.students import reduce
from leanformer.model.vision import pixel_input

if TYPE_CHECKING:
    import onnx


def classifier_graph(model: PreTrainedModel) -> onnx.ModelProto:
    """The graph of an image classifier, for any number of images of its size.

    Its input is ``pixel_values``, shape (batch, channels, height, width), its output ``logits``, shape (batch,
    classes). A model without a plan becomes a student with an empty one: there, the convolution that cuts the patches
    is a product, and the last layer computes the class token alone where nothing else is read.

    Args:
        model: A Hugging Face image classifier or its student, in float32 and evaluation mode. It is not changed.

    Raises:
        LeanformerError: Its configuration does not say how large images are.
    """
    import onnx_ir as ir

    with torch.random.fork_rng(devices=[]):  # a student is made with random weights first
        student = of_blocks(reduce(model, {}))
    taken = pixel_input(student.config)
    if taken.size is None:
        raise LeanformerError(
            f"not shippable in the format onnx: a graph is for images of one size, and the configuration of this "
            f"{type(student).__name__} names no image_size"
        )
    example = torch.zeros(2, taken.channels, *taken.size)  # a batch of 1 would be taken for a constant
    batch = {"pixel_values": {0: torch.export.Dim("batch")}}
    return ir.to_proto(trace(_Logits(student), {"pixel_values": example}, batch, ["logits"]))


class _Logits(nn.Module):
    """A classifier's logits alone."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(pixel_values).logits
        return logits
