"""Tiny models that read images, of several architectures, in directories as they come from the hub."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as hf
from PIL import Image
from transformers import PreTrainedModel

SIDE = 16
_SIZES: dict[str, Any] = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "image_size": SIDE,
    "patch_size": 4,
}
_TEXT: dict[str, Any] = {key: _SIZES[key] for key in list(_SIZES)[:4]} | {"vocab_size": 20}
_DECODER: dict[str, Any] = {
    "decoder_hidden_size": 8,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 8,
}
BACKBONES: dict[str, Callable[[], PreTrainedModel]] = {
    "dinov2": lambda: hf.Dinov2Model(hf.Dinov2Config(**_SIZES)),
    "dinov2 with registers": lambda: hf.Dinov2WithRegistersModel(hf.Dinov2WithRegistersConfig(**_SIZES)),
    "siglip": lambda: hf.SiglipModel(
        hf.SiglipConfig(vision_config=_SIZES, text_config={**_TEXT, "projection_size": _SIZES["hidden_size"]})
    ),
    "siglip tower": lambda: hf.SiglipVisionModel(hf.SiglipVisionConfig(**_SIZES)),
    "clip": lambda: hf.CLIPModel(hf.CLIPConfig(vision_config=_SIZES, text_config=_TEXT)),
    "clip tower": lambda: hf.CLIPVisionModel(hf.CLIPVisionConfig(**_SIZES)),
    "beit": lambda: hf.BeitForMaskedImageModeling(
        hf.BeitConfig(**_SIZES, use_relative_position_bias=True, use_absolute_position_embeddings=True)
    ),
    "vit": lambda: hf.ViTModel(hf.ViTConfig(**_SIZES)),
    "deit": lambda: hf.DeiTModel(hf.DeiTConfig(**_SIZES)),
    "vit_mae": lambda: hf.ViTMAEForPreTraining(hf.ViTMAEConfig(**_SIZES, **_DECODER, mask_ratio=0.0)),
    "vit_msn": lambda: hf.ViTMSNModel(hf.ViTMSNConfig(**_SIZES)),
    "dinov3": lambda: hf.DINOv3ViTModel(hf.DINOv3ViTConfig(**_SIZES, num_register_tokens=2)),
}
"""Name -> makes a model that was trained for something else than classes."""


def tiny_backbone(name: str) -> PreTrainedModel:
    """A model of ``BACKBONES`` whose weights are far from their initial values, in evaluation mode."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        model = BACKBONES[name]()
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def write_backbone(directory: Path, name: str = "dinov2", model: PreTrainedModel | None = None, **keys: Any) -> Path:
    """Writes such a model, or another, with the preparation of its images. Returns the directory.

    Args:
        keys: Of ``preprocessor_config.json``, besides or instead of its usual ones.
    """
    (model or tiny_backbone(name)).save_pretrained(directory)
    processor = {
        "image_processor_type": "BitImageProcessor",
        "size": {"shortest_edge": SIDE},
        "crop_size": {"height": SIDE, "width": SIDE},
        "do_convert_rgb": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.25, 0.25, 0.25],
        **keys,
    }
    (directory / "preprocessor_config.json").write_text(json.dumps(processor))
    return directory


def write_images(directory: Path, classes: int = 3, each: int = 20, side: int = 20, first: int = 0) -> Path:
    """Writes ``directory/CLASS/*.png``: noisy images of which each class has a color of its own.

    Args:
        first: The first image's number; images of other numbers differ.
    """
    for label in range(classes):
        folder = directory / f"class-{label}"
        folder.mkdir(parents=True)
        for number in range(first, first + each):
            noise = np.random.default_rng((label, number)).integers(0, 120, (side, side, 3))
            noise[..., label % 3] += 100
            Image.fromarray(noise.astype(np.uint8)).save(folder / f"{number}.png")
    return directory
