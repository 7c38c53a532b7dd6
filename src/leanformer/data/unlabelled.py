"""Images without classes, and sentences without translations, from which students learn what their teacher answers."""

from __future__ import annotations

import datasets

from leanformer.core.errors import LeanformerError
from leanformer.core.paths import source_path
from leanformer.data.hub import SourceSplit
from leanformer.data.image_files import is_image
from leanformer.data.text_reading import read_lines
from leanformer.data.walking import files_below

NO_LABEL = -100
"""The class number of an image that has no class; PyTorch's cross-entropy leaves it out."""
UNLABELLED = "unlabelled"
"""The role of such images beside the splits."""
COLUMN = "image"


def open_unlabelled(source: str) -> SourceSplit:
    """All images below a directory, whatever the directories in it are called.

    Args:
        source: the study's ``data.unlabelled``.

    Raises:
        LeanformerError: there is no such directory, or no image in it.
    """
    directory = source_path(source)
    if not directory.is_dir():
        raise LeanformerError(f"data.unlabelled {source}: no such directory; give a folder of images")
    files = [str(file) for file in files_below(directory) if is_image(file)]
    if not files:
        raise LeanformerError(f"data.unlabelled {source}: holds no images; give a folder of images")
    images = [{"bytes": None, "path": file} for file in files]
    examples = datasets.Dataset.from_dict({COLUMN: images}, features=datasets.Features({COLUMN: datasets.Image()}))
    return SourceSplit(source, UNLABELLED, examples, tuple((file, 1) for file in files))


def read_sentences(source: str) -> tuple[str, ...]:
    """The sentences of a text file, one a line, empty lines left out; the file may be packed by gzip.

    Args:
        source: the study's ``data.unlabelled``.

    Raises:
        LeanformerError: there is no such file, it cannot be read, or it is empty.
    """
    file = source_path(source)
    if not file.is_file():
        raise LeanformerError(f"data.unlabelled {source}: no such file; give a text file with one sentence a line")
    return tuple(line for line in read_lines(file) if line.strip())
