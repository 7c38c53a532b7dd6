"""``manifest.json``: what an exported directory holds, where it comes from, and what was checked."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from leanformer.core.errors import LeanformerError, quoted
from leanformer.core.fields import described
from leanformer.core.files import sha256, write_atomically
from leanformer.core.json_files import read_sealed, sealed

MANIFEST = "manifest.json"
CARD = "README.md"

Version = Literal[1, 2]
"""Of the manifest's form. 2 is that of a translator whose sources get a prefix, which readers of version 1 ignore."""

EXPORTED_MODEL, TRAINED_MODELS = "exported model", "trained models"
"""What a decision is on; see ``Manifest``."""

Precision = Literal["float32", "int8", "float16"]

PRECISIONS: tuple[Precision, ...] = ("float32", "int8", "float16")


AtLeastOne = Annotated[int, Field(ge=1)]
NotNegative = Annotated[int, Field(ge=0)]


def _inside(name: str) -> str:
    """The name of a file inside the directory, on any system."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
        raise ValueError(f"{quoted(name)} is not the name of a file inside the directory")
    return name


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise ValueError("two classes have one name")
    return names


FileName = Annotated[str, AfterValidator(_inside)]


class Record(BaseModel):
    """A part of the manifest. Unknown keys are ignored, so that older versions read what newer ones wrote."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class ImageInput(Record):
    """How an image file becomes the model's input, exactly as in the study (``data.image_files``).

    Args:
        channels: 1 or 3.
        height: In pixels.
        width: In pixels.
        size: (height, width) that an image is resized to, or the pixels of its shorter side; None: it is not resized.
        resample: Pillow's number of the filter.
        crop: (height, width) of the middle that is cut out; None: no crop.
        on_white: Whether transparency becomes white.
        bits: Bits in use of images of 16 bits; None: such images are refused.
        mean: Of each channel, in pixel values from 0 to 1.
        std: Of each channel, likewise.
        classes: The names of the classes, in the order of the outputs.
    """

    channels: Literal[1, 3]
    height: AtLeastOne
    width: AtLeastOne
    size: tuple[AtLeastOne, AtLeastOne] | AtLeastOne | None
    resample: Annotated[int, Field(ge=0, le=5)]
    crop: tuple[AtLeastOne, AtLeastOne] | None
    on_white: bool
    bits: Annotated[int, Field(ge=1, le=16)] | None
    mean: tuple[float, ...]
    std: tuple[Annotated[float, Field(gt=0)], ...]
    classes: Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_distinct)]

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for name, numbers in (("mean", self.mean), ("std", self.std)):
            if len(numbers) != self.channels:
                raise ValueError(f"{name} has {len(numbers)} numbers for {self.channels} channels")
        return self


class TextInput(Record):
    """How text becomes the translator's input, and its output text.

    Args:
        source_tokenizer: The file of the source side's tokenizer, in the form of ``tokenizers``.
        target_tokenizer: That of the target side; the same file where one serves both.
        pad_id: The id of padding, on both sides.
        eos_id: The id of the end mark, on both sides.
        max_source_tokens: Most subwords of a source, the end mark included.
        max_target_tokens: Most subwords of a translation, the end mark included.
        split_special_tokens: Whether a mark such as ``</s>`` in a source is text like any other.
        clean_up: Whether spaces before punctuation are removed from translations, as older tokenizers of transformers
            ask for (``clean_up_tokenization_spaces``).
        prefix: What is put before each source, such as a T5's ``translate German to English: ``.
    """

    source_tokenizer: FileName
    target_tokenizer: FileName
    pad_id: NotNegative
    eos_id: NotNegative
    max_source_tokens: AtLeastOne
    max_target_tokens: AtLeastOne
    split_special_tokens: bool = False
    clean_up: bool = False
    prefix: str = ""

    @property
    def version(self) -> Version:
        """The least version of a manifest whose readers read the sources so."""
        return 2 if self.prefix else 1


class Source(Record):
    """The model that was exported.

    Args:
        model: Its directory or hub id, as it was given.
        weights: SHA-256 of its weights' files together.
        architecture: Its ``model_type``.
        parameters: Their number.
        study: The study's name; None where the model comes from no run.
        candidate: The candidate's name.
        seed: The training's seed.
    """

    model: str
    weights: str
    architecture: str
    parameters: int
    study: str | None = None
    candidate: str | None = None
    seed: int | None = None


class Parity(Record):
    """Whether the exported model says the same as the model that it was made from.

    Args:
        inputs: How many inputs were compared.
        described: What they were, in words.
        agreement: The share of inputs with the same answer: the same class, or the same subwords to the last.
        largest_difference: The largest difference between logits; None where the precision is not float32.
        near_ties: Of the inputs with another answer, how many are near ties: the two answers' logits differ by less
            than rounding moves them.
    """

    inputs: int
    described: str
    agreement: float
    largest_difference: float | None
    near_ties: int


class Manifest(Record):
    """The content of ``manifest.json``.

    Args:
        version: Of this form.
        format: The format's name: ``onnx`` or ``ctranslate2``.
        precision: Of the weights.
        task: The study's task that the model is for.
        source: The model that was exported.
        plan: Its resolved plan; empty where nothing was reduced.
        images: Of a classifier of images.
        texts: Of a translator.
        bytes: Size of the engine's files, without tokenizer and card.
        parity: The comparison with the source.
        decision: What the study decided: ``decision``, ``reason``, ``metric``, ``quality``, ``difference``, and ``of``,
            which is ``exported model`` for a decision on this very model and ``trained models`` for one on those that
            its recipe gives. None where it comes from no run, or the study has not decided yet.
        versions: Package -> version that made it.
        files: File -> SHA-256 of all other files of the directory, paths relative to it.
    """

    version: Version = 1
    format: str
    precision: Precision
    task: str
    source: Source
    plan: dict[str, Any]
    images: ImageInput | None = None
    texts: TextInput | None = None
    bytes: int
    parity: Parity
    decision: dict[str, Any] | None = None
    versions: dict[str, str]
    files: dict[FileName, str] = Field(default_factory=dict)


def is_exported(directory: Path) -> bool:
    """Whether a directory is an exported one."""
    return os.path.isfile(directory / MANIFEST)  # false for a path that no file can have


def write_manifest(directory: Path, manifest: Manifest) -> Manifest:
    """Writes the manifest of a directory whose other files are there, with their SHA-256.

    Returns:
        The manifest with the files.
    """
    names = sorted(file.relative_to(directory).as_posix() for file in directory.rglob("*") if file.is_file())
    files = {name: sha256(directory / name) for name in names if name != MANIFEST}
    whole = manifest.model_copy(update={"files": files})
    write_atomically(directory / MANIFEST, content_of(whole))
    return whole


def content_of(manifest: Manifest) -> bytes:
    """The content of ``manifest.json``, with its own SHA-256."""
    return sealed(manifest.model_dump(mode="json")).encode()


def read_manifest(directory: Path) -> Manifest:
    """Reads a directory's manifest, and checks that every file but the card is there, unchanged.

    Raises:
        LeanformerError: There is no manifest, it is of a later version or damaged, or a file was changed.
    """
    manifest = _read(directory)
    texts = manifest.texts
    for name in () if texts is None else (texts.source_tokenizer, texts.target_tokenizer):
        if name not in manifest.files:
            raise LeanformerError(f"{directory / MANIFEST}: damaged (no SHA-256 of {name}); export the model again")
    for name, expected in manifest.files.items():
        if name != CARD:  # whoever publishes the model adds its license there
            _check_file(directory, name, expected)
    return manifest


def files_of_others(directory: Path) -> Iterator[str]:
    """What lies in a directory and is no part of an exported model, relative to it; all of it without a manifest."""
    try:
        own = {MANIFEST, *_read(directory).files}
    except LeanformerError:  # another program's manifest.json, or a damaged one
        own = set()
    for place in directory.rglob("*"):
        name = place.relative_to(directory).as_posix()
        if name not in own and (place.is_symlink() or not place.is_dir() or not any(place.iterdir())):
            yield name


def _read(directory: Path) -> Manifest:
    path = directory / MANIFEST
    if not path.is_file():
        raise LeanformerError(
            f"{directory}: not an exported directory: it has no {MANIFEST}; make one: leanformer export"
        )
    content = read_sealed(path, "export the model again", required=True)
    version = content.get("version")
    known = get_args(Version)
    if version not in known:
        raise LeanformerError(
            f"{path}: its version is {quoted(version)}, and this leanformer reads versions {known[0]} to {known[-1]}; "
            "export the model again"
        )
    try:
        # Through JSON, where lists stand for tuples.
        return Manifest.model_validate_json(json.dumps(content))
    except ValidationError as error:
        raise LeanformerError(f"{path}: damaged ({described(error, content)}); export the model again") from None


def _check_file(directory: Path, name: str, expected: str) -> None:
    file = directory / name
    if not file.is_file():
        raise LeanformerError(f"{file}: missing from the exported directory; export the model again")
    if sha256(file) != expected:
        raise LeanformerError(f"{file}: changed since it was exported (its SHA-256 differs); export the model again")
