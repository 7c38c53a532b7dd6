"""Image classifiers with a new head, or for images of another size, from any trained model that reads images."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from transformers import CONFIG_MAPPING, MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING, PreTrainedConfig, PreTrainedModel

from leanformer.core.errors import LeanformerError
from leanformer.model.heads import body_of, check_complete, head_parameters
from leanformer.model.hf import configuration_of_type
from leanformer.model.shapes.student import Student
from leanformer.model.vision import (
    is_classifier,
    pixel_input,
    pooled_classifier,
    seeing_config,
)

_SAME_BODY = {"vit_mae": "vit"}
"""Model type -> another whose classifiers have the same body: an autoencoder's classifier must not mask its patches."""
_TOWER = "_vision_model"
"""How the types of image towers end; the type of the model that they are part of is without it."""


def refitted(
    model: PreTrainedModel, classes: Sequence[str] | None, size: tuple[int, int] | None, where: str
) -> PreTrainedModel:
    """A classifier with a model's trained body.

    Args:
        model: Any model of transformers that reads images, or a student that classifies them. It is not changed.
        classes: The names of a new head's classes; the head gets random weights from PyTorch's global generator. None:
            a classifier keeps its head.
        size: Height and width of its images in pixels. Positions are interpolated by the model's own function, as in
            Dosovitskiy et al. 2021 (arXiv 2010.11929, section 3.2). None: as before.
        where: How messages call the model.

    Returns:
        A new model in float32, in evaluation mode.

    Raises:
        LeanformerError: The model reads no images, no block can stand in for its attention, or it cannot read images
            of that size.
    """
    model_class, config = _classifier_of(model, where)
    seeing = seeing_config(config)
    if size is not None and size != pixel_input(config).size:
        seeing.image_size = size[0] if size[0] == size[1] else list(size)
    if classes is not None:
        config.id2label = dict(enumerate(classes))
        config.label2id = {name: number for number, name in enumerate(classes)}
    config.dtype = torch.float32
    refit = model_class(config)
    old, new = body_of(model), body_of(refit)
    weights = old.state_dict()
    wanted = new.state_dict()
    for name, tensor in wanted.items():
        if name in weights and weights[name].shape != tensor.shape:
            assert size is not None  # the configurations differ in nothing else
            weights[name] = _interpolated(old, name, tensor.shape, size, where)
    check_complete(refit, [name for name in wanted if name not in weights], where)
    new.load_state_dict({name: weights[name] for name in wanted if name in weights}, strict=False)
    if classes is None:
        heads = head_parameters(model)
        refit.load_state_dict({name: model.get_parameter(name) for name in heads}, strict=False)
    return refit.eval()


def _classifier_of(model: PreTrainedModel, where: str) -> tuple[type[PreTrainedModel], Any]:
    """The class of a classifier with this model's body, and a configuration of it, which may be changed."""
    if is_classifier(type(model)):
        return type(model), copy.deepcopy(model.config)
    kind = str(model.config.model_type)
    if body_of(model).main_input_name != "pixel_values" or isinstance(model, Student):
        raise LeanformerError(
            f"baseline.model: {where} is a {type(model).__name__}, which is no model of images; take one such as a "
            "DINOv2, SigLIP, CLIP, BEiT or ViT"
        )
    config: PreTrainedConfig = copy.deepcopy(model.config)
    whole = _known(kind.removesuffix(_TOWER)) if kind.endswith(_TOWER) else None
    if whole is not None:
        config = whole(vision_config=config.to_dict())
    elif kind in _SAME_BODY:
        other = CONFIG_MAPPING[_SAME_BODY[kind]]
        config = other(**{key: value for key, value in config.to_dict().items() if key in other().to_dict()})
    seeing: Any = seeing_config(config)
    if hasattr(seeing, "vision_use_head"):  # an attention that pools, which SigLIP's classifiers do not read
        seeing.vision_use_head = False
    if type(config) in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING:
        found: Any = MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING[type(config)]
        return (found[0] if isinstance(found, tuple | list) else found), config
    if not isinstance(getattr(config, "hidden_size", None), int):
        raise LeanformerError(
            f"baseline.model: {where} is a {type(model).__name__}, of which transformers has no image classifier, and "
            "whose width is not known; take the part of it that reads images"
        )
    return pooled_classifier(type(body_of(model))), config


def _known(model_type: str) -> type[PreTrainedConfig] | None:
    """The configuration of a type of which transformers has image classifiers; None for any other."""
    found = configuration_of_type(model_type)
    return found if found in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING else None


def _interpolated(
    body: PreTrainedModel, name: str, shape: torch.Size, size: tuple[int, int], where: str
) -> torch.Tensor:
    """A body's embeddings of positions, or biases of relative ones, for images of another size."""
    path = name.rpartition(".")[0]
    module: Any = body.get_submodule(path)
    if name.endswith("relative_position_bias_table") and len(shape) == 2:
        old: tuple[int, int] = module.window_size
        patch = pixel_input(body.config).patch or (1, 1)
        new = size[0] // patch[0], size[1] // patch[1]
        return _interpolated_biases(module.relative_position_bias_table.detach(), old, new)
    while path and not hasattr(module, "interpolate_pos_encoding"):
        path = path.rpartition(".")[0]
        module = body.get_submodule(path)
    tokens = torch.empty(1, *shape[-2:])  # of which only the number counts
    try:
        positions: torch.Tensor = module.interpolate_pos_encoding(tokens, *size)
        return positions.detach().reshape(shape)
    except (AttributeError, TypeError, RuntimeError, AssertionError):  # it has no such function, or one of another kind
        raise LeanformerError(
            f"data.image_size: {where} cannot read images of {size[0]}x{size[1]} pixels: how its {name} is to be "
            "interpolated is not known; leave data.image_size out"
        ) from None


def _interpolated_biases(table: torch.Tensor, old: tuple[int, int], new: tuple[int, int]) -> torch.Tensor:
    """BEiT's biases by distance for another grid of patches: bilinear, as its attention does at each call.

    Args:
        table: Shape (distances, heads); the last three are those from and to the class token.
        old: Rows and columns of patches.
        new: Likewise.
    """
    before, after = ((2 * rows - 1, 2 * columns - 1) for rows, columns in (old, new))
    by_distance = table[:-3].reshape(1, *before, -1).permute(0, 3, 1, 2)  # (1, heads, rows, columns)
    found = F.interpolate(by_distance, size=after, mode="bilinear").permute(0, 2, 3, 1).flatten(0, 2)
    return torch.cat([found, table[-3:]])
