"""Images and labels in files, for the tests of the data room."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from leanformer.config.images import ImageDataConfig
from leanformer.core.errors import LeanformerError
from leanformer.data.images import ImageData, ImageSplit, load_images

CPU = torch.device("cpu")


def load(source: Path | str, **keys: Any) -> ImageData:
    return load_images(ImageDataConfig(source=str(source), **keys), CPU)


def error_of(source: Path | str, **keys: Any) -> str:
    """The one line that loading a bad source ends with."""
    with pytest.raises(LeanformerError) as caught:
        load(source, **keys)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def pixels_of(split: ImageSplit) -> torch.Tensor:
    return torch.cat([batch["pixel_values"] for batch in split.batches(torch.arange(len(split)).split(7))])


def random_image(number: int, size: tuple[int, int] = (6, 5), mode: str = "L") -> Image.Image:
    """An image of (height, width) that is a function of its number."""
    shape = size if mode == "L" else (*size, 3)
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, shape, dtype=np.uint8))


def png(image: Image.Image) -> dict[str, Any]:
    file = io.BytesIO()
    image.save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


def write_parquet(
    directory: Path,
    split: str = "train",
    labels: list[Any] | None = None,
    images: list[Any] | None = None,
    label_feature: Any = None,
    **others: Any,
) -> Path:
    """A file in the hub's layout; 20 images of two classes, if nothing else is said. Returns the directory."""
    labels = [row % 2 for row in range(20)] if labels is None else labels
    images = [png(random_image(row)) for row in range(len(labels))] if images is None else images
    label_feature = label_feature or datasets.ClassLabel(names=["cat", "dog"])
    features = datasets.Features({"image": datasets.Image(), "label": label_feature})
    table = pa.table(
        {"image": pa.array(images, features["image"].pa_type), "label": pa.array(labels, label_feature.pa_type)}
    )
    table = table.replace_schema_metadata(features.arrow_schema.metadata)
    for name, values in others.items():
        table = table.append_column(name, pa.array(values))
    if others:
        table = table.replace_schema_metadata(None)
    directory.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, directory / f"{split}-00000-of-00001.parquet")
    return directory


def write_folder(root: Path, *classes: str, count: int = 10, size: tuple[int, int] = (6, 5), mode: str = "L") -> Path:
    for number, name in enumerate(classes):
        (root / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            random_image(100 * number + index, size, mode).save(root / name / f"{index}.png")
    return root
