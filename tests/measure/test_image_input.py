"""How a classifier's images are prepared, as a manifest says it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedModel

from leanformer.core.errors import LeanformerError
from leanformer.measure.inputs import image_input

SHIPPED: dict[str, Any] = {
    "image_processor_type": "ViTImageProcessor",
    "size": {"height": 16, "width": 16},
    "resample": 3,
    "image_mean": [0.5],
    "image_std": [0.25],
}


def write(directory: Path, **changes: Any) -> str:
    (directory / "preprocessor_config.json").write_text(json.dumps({**SHIPPED, **changes}))
    return str(directory)


def test_everything_that_the_directory_says(tmp_path: Path, make_model: Callable[..., PreTrainedModel]) -> None:
    found = image_input(write(tmp_path, bits_used=12, do_convert_rgb=True), make_model(num_labels=2))
    assert found.model_dump() == {
        "channels": 1,
        "height": 16,
        "width": 16,
        "size": (16, 16),
        "resample": 3,
        "crop": None,
        "on_white": True,
        "bits": 12,
        "mean": (0.5,),
        "std": (0.25,),
        "classes": ("LABEL_0", "LABEL_1"),
    }
    assert image_input(write(tmp_path), make_model()).bits == 16  # as lf.read_image reads them


def test_what_does_not_say_it_is_refused(
    tmp_path: Path, make_model: Callable[..., PreTrainedModel], make_translator: Callable[..., PreTrainedModel]
) -> None:
    with pytest.raises(LeanformerError, match=r"has no preprocessor_config.json, .*; put the file there"):
        image_input(str(tmp_path), make_model())
    source = write(tmp_path, image_mean=[0.5, 0.5, 0.5], image_std=[1, 1, 1])
    with pytest.raises(LeanformerError, match=r"takes 1 channels, and its preprocessor_config.json normalizes 3"):
        image_input(source, make_model())
    with pytest.raises(LeanformerError, match=r"a model for translation, not a classifier of images"):
        image_input(source, make_translator())
