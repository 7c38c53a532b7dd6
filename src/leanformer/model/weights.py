"""A model's weights as a whole: on which device they are, whether there are any, in which precision they are kept."""

from __future__ import annotations

import copy

import torch
from torch import nn
from transformers import PreTrainedModel

from leanformer.core.errors import LeanformerError
from leanformer.model.hf import computed_tensors

HALF = (torch.float16, torch.bfloat16)
"""Precisions that weights may be kept in, but are not trained in: rounding would lose most of what is learned."""


def parameter_count(module: nn.Module | None) -> int:
    """Stored numbers of a module; 0 for None. Those that a model recomputes and never saves are not counted."""
    if module is None:
        return 0
    computed = computed_tensors(module)
    return sum(parameter.numel() for name, parameter in module.named_parameters() if name not in computed)


def device_and_dtype(model: nn.Module) -> tuple[torch.device, torch.dtype]:
    """The device of the weights of a model, or of a part of it, and their precision."""
    weight = max(model.parameters(), key=torch.Tensor.numel)  # small ones may be made apart
    return weight.device, weight.dtype


def check_weights_are_there(model: PreTrainedModel, argument: str = "model") -> None:
    """Refuses a model that is a mere outline, or whose weights were moved to a disk.

    Args:
        model: The model.
        argument: The caller's name for it, for messages.

    Raises:
        LeanformerError: A weight is on the device "meta", which holds shapes alone.
    """
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_meta:
            raise LeanformerError(
                f"{argument}: {name} is on the device 'meta' and has no numbers; load the model with its weights onto "
                "one device"
            )


def in_float32(model: PreTrainedModel) -> PreTrainedModel:
    """A copy in float32, which its configuration says too."""
    copied = copy.deepcopy(model).float()
    copied.config.dtype = torch.float32
    return copied


def same_weights_other_modules(model: PreTrainedModel) -> PreTrainedModel:
    """A copy of a model's structure that holds the very same parameters and buffers: it takes no memory for numbers.

    Its modules may be exchanged without a change of the argument; its weights must not be written to.
    """
    tensors = (*model.parameters(), *model.buffers())
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})


def cast_parameters(model: nn.Module, dtype: torch.dtype) -> None:
    """Rounds a model's parameters to a precision. Buffers keep theirs, unlike in ``model.to``.

    transformers holds the frequencies of rotary positions in float32 whatever the weights are, and loads them so:
    rounded ones would tell other positions.
    """
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)


def take_tensors(outlined: PreTrainedModel, model: PreTrainedModel, copied: bool = False) -> None:
    """Gives an outline the parameters and buffers of a model of the same structure.

    Args:
        outlined: A model without numbers, on the device "meta". It is changed.
        model: The model.
        copied: Whether it gets copies; else both share them.
    """
    copies: dict[int, torch.Tensor] = {}

    def given(tensor: torch.Tensor) -> torch.Tensor:
        if not copied:
            return tensor
        if tensor.data_ptr() not in copies or copies[tensor.data_ptr()].shape != tensor.shape:
            copies[tensor.data_ptr()] = tensor.detach().clone()
        return copies[tensor.data_ptr()]

    outlined.load_state_dict({name: given(tensor) for name, tensor in model.state_dict().items()}, assign=True)
    for path, buffer in model.named_buffers():  # also those that are never saved
        holder, _, name = path.rpartition(".")
        module = model.get_submodule(holder)
        saved = name not in module._non_persistent_buffers_set
        outlined.get_submodule(holder).register_buffer(name, given(buffer), saved)
    outlined.tie_weights()
