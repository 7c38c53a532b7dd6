"""``lf.export``: writes a model, or the one that a study recommends, for use without PyTorch."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from os import PathLike, fspath
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from transformers import PreTrainedModel

from leanformer.config.base import Study
from leanformer.config.reader import read_study
from leanformer.config.translation import NumberWordsConfig, TextDataConfig
from leanformer.core.errors import LeanformerError, printable, quoted
from leanformer.core.paths import as_path
from leanformer.core.progress import quiet_libraries
from leanformer.data.number_words import number_words
from leanformer.export.parity import ENOUGH
from leanformer.export.run import Origin, Samples, check_place, export_model, find_format
from leanformer.measure.inputs import image_input
from leanformer.model.students import load
from leanformer.results.reader import read_results
from leanformer.results.schema import rows_of
from leanformer.runtime.classifier import Classifier
from leanformer.runtime.engines.base import Classifies
from leanformer.runtime.manifest import EXPORTED_MODEL, TRAINED_MODELS, Manifest
from leanformer.study.inspect import study_of_data
from leanformer.study.shipping import decision_told
from leanformer.study.store import FOLDS
from leanformer.tasks.base import open_task

STUDY, RESULTS = "study.yaml", "results.json"
"""The files of a run directory that are read here."""


@dataclass(frozen=True)
class Exported:
    """What ``export`` wrote.

    Args:
        directory: The exported directory.
        manifest: The content of its ``manifest.json``.
    """

    directory: Path
    manifest: Manifest

    @property
    def bytes(self) -> int:
        """The size of all its files."""
        return sum(path.stat().st_size for path in self.directory.rglob("*") if path.is_file())


def export(
    model: str | PathLike[str],
    to: str,
    precision: str = "float32",
    out: str | PathLike[str] | None = None,
    data: str | Mapping[str, Any] | None = None,
    console: Console | None = None,
) -> Exported:
    """Writes a model in the form of an engine, with what belongs to it, and checks that it says the same there.

    Args:
        model: A run directory, whose recommended model is taken; a model's directory or hub id.
        to: The format: ``onnx`` or ``ctranslate2``.
        precision: Of the weights: ``float32``, ``int8`` or ``float16``.
        out: The directory to write: new, empty, or an earlier export; by default ``exports/``, then the model's name,
            the format and the precision with hyphens between.
        data: What the exported model is compared on with the model: a source as in a study file's ``data.source``, or
            the whole ``data`` section. By default the training and validation data of the study that the model comes
            from; for a model that lies in no run directory, the digits or the number words that are built in.
        console: Where progress is shown; by default standard error, if that is a terminal.

    Raises:
        LeanformerError: There is no such model, the format cannot hold it, its engine is not installed, the directory
            holds something else, or the exported model does not say the same.
    """
    as_path(model, "model")
    if data is not None and not isinstance(data, str | Mapping):
        raise LeanformerError(f"data: give a source or a mapping of its keys, not {quoted(data)}")
    _, chosen = find_format(to, precision)
    source, origin, study = find_model(fspath(model), to, chosen)
    place = Path("exports") / f"{_name(source, origin)}-{to}-{precision}" if out is None else as_path(out, "out")
    check_place(place)
    console = console or Console(stderr=True)
    with quiet_libraries():
        loaded = load(source)
        samples = _samples(loaded, source, study, data)
        columns = (TextColumn("comparing"), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task("", total=ENOUGH)
            manifest = export_model(
                loaded,
                source,
                samples,
                place,
                to=to,
                precision=chosen,
                origin=origin,
                progress=lambda further: bar.advance(task, further),
            )
    return Exported(place, manifest)


# Where a model comes from


def find_model(given: str, to: str, precision: str) -> tuple[str, Origin, Study | None]:
    """The model's directory or hub id, the run that it comes from, and that run's study.

    Args:
        given: The model or the run, as the user names it.
        to: The format, for the decision of a study that ships.
        precision: The precision of the weights, likewise.

    Raises:
        LeanformerError: A run directory has no results, or recommends nothing.
    """
    directory = Path(os.path.expanduser(given))
    if (directory / STUDY).is_file() or (directory / RESULTS).is_file():
        ship = read_results(directory)["ship"]
        if ship is None:
            raise LeanformerError(f"{given}: the study has no model to recommend; give a model's directory in it")
        given = str(directory / ship)
    parts = Path(os.path.expanduser(given)).absolute().parts
    trial = re.fullmatch(r"trials/([^/]+)/seed-(\d+)/model", "/".join(parts[-4:]))
    run = Path(*parts[:-4])
    if trial is None or not (run / STUDY).is_file():
        return given, Origin(), None
    candidate, seed = trial[1], int(trial[2])
    study = read_study(run / STUDY)
    whole = run.parent.parent if run.parent.name == FOLDS else run  # a fold is decided with all others
    place = (run / trial[0]).parent.relative_to(whole).as_posix()
    return given, Origin(study.name, candidate, seed, _decision(whole, place, to, precision)), study


def _decision(run: Path, trial: str, to: str, precision: str) -> dict[str, Any] | None:
    """What a study decided on a model; None where it has not decided yet, or knows no such model.

    A study that ships decides on exported models, one of each candidate and precision. On any other export of its
    models there is the decision on the recipe alone.
    """
    if not (run / RESULTS).is_file():
        return None
    results = read_results(run)
    rows = [row for row in rows_of(results) if trial in row["trials"]]
    made = to, precision, int(trial.rpartition("-")[2])
    for row in rows:
        if row["artifact"] is not None and _made(row["artifact"]) == made:
            return decision_told(row, results["metric"], EXPORTED_MODEL)
    ships = results["study"].get("ship") is not None  # then the decision beside the file's is the recipe's
    for row in rows:
        decided = row["recipe"] if ships else row
        if decided is not None:
            return decision_told(decided, results["metric"], TRAINED_MODELS)
    return None


def _made(artifact: Mapping[str, Any]) -> tuple[str, str, int]:
    """How an exported model was made: format, precision, seed."""
    return artifact["format"], artifact["precision"], artifact["seed"]


def _name(source: str, origin: Origin) -> str:
    """The first part of the default directory's name."""
    if origin.study is not None:
        return f"{origin.study}-{origin.candidate}-seed-{origin.seed}"
    return printable(Path(source).absolute().name if Path(source).is_dir() else source.replace("/", "-"))


# What it is compared on


def _samples(model: PreTrainedModel, source: str, study: Study | None, data: str | Mapping[str, Any] | None) -> Samples:
    """Inputs for the comparison: of the given data, of the model's study, or built-in ones."""
    if data is not None:
        section = {"source": data} if isinstance(data, str) else data
        study = study_of_data(model, source, section, "cpu")
    if study is None:
        return _built_in(model, source)
    task = open_task(study, torch.device("cpu"))
    return Samples(task.samples(ENOUGH), f"of the training and validation data of {study.data.source}")


def _built_in(model: PreTrainedModel, source: str) -> Samples:
    """Inputs that need no data: written digits, resized as the model takes images, or German numbers in words."""
    if model.config.is_encoder_decoder:
        few = NumberWordsConfig(train=ENOUGH, validation=1, test=1)
        return Samples(number_words(TextDataConfig(numbers=few))["train"].sources, "built-in German numbers in words")
    return Samples(_digits(model, source), "built-in images of digits")


def _digits(model: PreTrainedModel, source: str) -> Iterator[NDArray[np.float32]]:
    """Images of digits, prepared for a model."""
    from sklearn.datasets import load_digits  # it takes a second to import

    classifier = Classifier(
        image_input(source, model), cast(Classifies, None)
    )  # it prepares images, and answers nothing
    for image in islice(load_digits().images, ENOUGH):
        yield classifier.pixel_values([np.rint(image * (255 / 16)).astype(np.uint8)])[0]
