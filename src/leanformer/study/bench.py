"""``leanformer bench``: what models and exported directories cost on this machine, measured in turn.

It needs PyTorch only for models that are not exported, so that it runs where these are used.
"""

from __future__ import annotations

import importlib.metadata
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import cast

import numpy as np

from leanformer.config.base import Study
from leanformer.config.reader import read_study
from leanformer.config.translation import NumberWordsConfig, TextDataConfig
from leanformer.core.errors import LeanformerError, printable
from leanformer.core.files import make_directory, write_atomically
from leanformer.core.json_files import to_json
from leanformer.core.machine import machine
from leanformer.core.paths import check_directory, check_file
from leanformer.core.translating import Ids
from leanformer.measure.bench import Call, Setting, Times, time_in_rounds
from leanformer.measure.rounds import median, median_ratio
from leanformer.results.bench import Bench, Rounds, TimedModel, Timing, digest
from leanformer.runtime import Classifier, TextClassifier
from leanformer.runtime.manifest import is_exported, read_manifest
from leanformer.serve.inputs import read_texts
from leanformer.serve.opening import Translates, open_model
from leanformer.serve.outputs import progress_bar

IMAGES, TRANSLATION = "image-classification", "translation"
_LIBRARIES = ("numpy", "tokenizers", "torch", "transformers", "onnxruntime", "ctranslate2")


@dataclass(frozen=True)
class _Subject:
    """A model that is open.

    Args:
        name: As it was given.
        model: What answers.
        runtime: What it runs in.
        precision: Of its weights.
        weights: Their SHA-256.
        files: File of its directory -> bytes.
    """

    name: str
    model: Classifier | Translates
    runtime: str
    precision: str
    weights: str
    files: dict[str, int]

    @property
    def task(self) -> str:
        return IMAGES if isinstance(self.model, Classifier) else TRANSLATION


def bench(
    models: Sequence[str],
    *,
    batches: Sequence[int] = (1, 32),
    lengths: Sequence[int] = (),
    data: Path | None = None,
    beam: int = 1,
    max_tokens: int = 256,
    threads: int = 1,
    rounds: int = 15,
    device: str = "cpu",
    out: Path | None = None,
) -> Bench:
    """Times models on the same inputs, in rounds; each round measures every model, and starts with another one.

    Args:
        models: Exported directories, other models' directories, or hub ids; the first is what the others are compared
            with. All are for the same task.
        batches: Batch sizes.
        lengths: Of translators: subwords that each source is cut or repeated to, the end mark included; none: sentences
            are as long as they are.
        data: Of translators: a file of lines or of JSON Lines, or a study file (.yaml), whose test sentences are taken;
            None: the built-in number words.
        beam: Hypotheses per sentence.
        max_tokens: The longest translation in subwords.
        threads: CPU threads of each model.
        rounds: How many.
        device: ``cpu``, ``auto`` or another device's name.
        out: Where the result is written as JSON; None: nowhere.

    Raises:
        LeanformerError: A model cannot be opened, they are for several tasks, or cannot take the inputs.
    """
    if out is not None:
        check_file(out)
        check_directory(out.parent)
    subjects = [_open(name, threads, device) for name in models]
    task = subjects[0].task
    for subject in subjects:
        if subject.task != task:
            raise LeanformerError(
                f"{subjects[0].name} is for {task} and {subject.name} for {subject.task}; bench models of one task"
            )
    settings = [Setting(*pair) for pair in product(dict.fromkeys(batches), dict.fromkeys(lengths) or (None,))]
    if task == IMAGES:
        for option, given in (("--length", lengths), ("--data", data is not None), ("--beam", beam != 1)):
            if given:
                raise LeanformerError(f"{option} does nothing here: the models classify images; leave it out")
        inputs, known_by = "random pixels", None
        calls = {setting: [_classify(subject, setting.batch) for subject in subjects] for setting in settings}
    else:
        sentences, inputs = _sentences(data)
        known_by = digest(sentences)
        calls = {
            setting: [_translate(subject, sentences, setting, beam, max_tokens) for subject in subjects]
            for setting in settings
        }
    for row in calls.values():  # what a model cannot do shows before anything is timed
        for subject, call in zip(subjects, row, strict=True):
            _try(subject, call)
    with progress_bar("measuring", rounds) as advance:
        times = time_in_rounds(calls, rounds, progress=advance)
    found = Bench(
        task=task,
        inputs=inputs,
        sentences=known_by,
        beam=beam,
        max_tokens=None if task == IMAGES else max_tokens,
        rounds=rounds,
        threads=threads,
        device=device,
        environment={**_versions(), **machine()},
        models=[_timed(subject, times, index) for index, subject in enumerate(subjects)],
    )
    if out is not None:
        make_directory(out.parent)
        write_atomically(out, to_json(found.model_dump(mode="json")))
    return found


def _open(name: str, threads: int, device: str) -> _Subject:
    """Opens a model, and finds out by what a study knows it.

    Raises:
        LeanformerError: It cannot be opened.
    """
    model = open_model(name, device, threads)
    if isinstance(model, TextClassifier):
        raise LeanformerError(f"{name}: a classifier of texts, which bench does not time yet; a study measures it")
    directory = Path(os.path.expanduser(name))
    if not is_exported(directory):
        from leanformer.model.directory import SAFETENSORS, find_directory  # loads PyTorch, as opening has

        directory = find_directory(name, SAFETENSORS)
    files = {
        file.relative_to(directory).as_posix(): file.stat().st_size
        for file in sorted(directory.rglob("*"))
        if file.is_file()
    }
    return _Subject(name, model, *identity(name), files)


def identity(name: str) -> tuple[str, str, str]:
    """By what a model is known wherever it lies: what it runs in, its precision, and the SHA-256 of its weights.

    Args:
        name: An exported directory, another model's directory, or a hub id.

    Raises:
        LeanformerError: There is no such model.
    """
    directory = Path(os.path.expanduser(name))
    if is_exported(directory):
        manifest = read_manifest(directory)
        return manifest.format, manifest.precision, manifest.source.weights
    from leanformer.model.directory import hash_of_weights, precision_of  # loads PyTorch

    return "torch", precision_of(name), hash_of_weights(name)


def _classify(subject: _Subject, batch: int) -> Call:
    """The call of a classifier with a batch of images that are prepared."""
    classifier = cast(Classifier, subject.model)
    images = classifier.images
    shape = batch, images.channels, images.height, images.width
    pixel_values = np.random.default_rng(0).standard_normal(shape, np.float32)

    def call() -> int:
        classifier.logits(pixel_values)
        return 0

    return call


def _translate(subject: _Subject, sentences: Sequence[str], setting: Setting, beam: int, max_tokens: int) -> Call:
    """The call of a translator with a batch of sentences that are encoded.

    Raises:
        LeanformerError: A source has more subwords than the model reads.
    """
    translator = cast(Translates, subject.model)
    sources = translator.tokenizer.encode_source(_spread(sentences, setting.batch))
    if setting.length is not None:
        sources = _of_length(sources, setting.length, translator.tokenizer.eos_id)
    longest = max(map(len, sources))
    if longest > translator.max_source_tokens:
        what = f"a sentence has {longest:,} subwords" if setting.length is None else f"--length {longest:,}"
        raise LeanformerError(
            f"{subject.name}: {what}, and the model takes at most {translator.max_source_tokens:,}; take shorter "
            "sources (--length)"
        )

    def call() -> int:
        return sum(map(len, translator.generate(sources, beam=beam, max_tokens=max_tokens)))

    return call


def _spread(sentences: Sequence[str], count: int) -> list[str]:
    """So many sentences of all lengths; one alone is of median length."""
    by_length = sorted(sentences, key=len)
    return [by_length[(2 * index + 1) * len(by_length) // (2 * count)] for index in range(count)]


def _of_length(sources: Ids, length: int, eos_id: int) -> Ids:
    """Sources cut, or repeated, to one length, the end mark included."""
    found = []
    for ids in sources:
        words = [number for number in ids if number != eos_id] or ids
        found.append([words[place % len(words)] for place in range(length - 1)] + [eos_id])
    return found


def _sentences(data: Path | None) -> tuple[list[str], str]:
    """The sentences that are translated, and what they are, in words.

    Raises:
        LeanformerError: They cannot be read, there are none, or the built-in ones need a package that is missing.
    """
    if data is None:
        return _built_in(), "number words"
    if data.suffix in (".yaml", ".yml"):
        found, described = _test_sentences(read_study(data), data), f"test sentences of {data}"
    else:
        found, described = read_texts(data, None).sentences, str(data)
    found = [sentence for sentence in found if sentence.strip()]
    if not found:
        raise LeanformerError(f"--data {data}: holds no sentences; give a file with one a line")
    return found, printable(described)


def _built_in() -> list[str]:
    try:
        from leanformer.data.number_words import WORDS_OF_THEIR_OWN, number_words
    except ModuleNotFoundError as error:
        raise LeanformerError(
            f"the built-in sentences need a package that is not installed ({error.name}); give --data FILE with one "
            "sentence a line, or install it: pip install 'leanformer[train]'"
        ) from None
    few = NumberWordsConfig(train=WORDS_OF_THEIR_OWN, validation=1)  # the test split alone is used
    return list(number_words(TextDataConfig(numbers=few))["test"].sources)


def _test_sentences(study: Study, path: Path) -> list[str]:
    if not isinstance(study.data, TextDataConfig):
        raise LeanformerError(f"--data {path}: a study of the task {study.task}, whose data are no sentences")
    from leanformer.data.text_sources import load_text

    return list(load_text(study.data).test.sources)


def _try(subject: _Subject, call: Call) -> None:
    """Calls a model once.

    Raises:
        LeanformerError: It cannot do what is asked for; the message names the model.
    """
    try:
        call()
    except LeanformerError as error:
        raise LeanformerError(f"{subject.name}: {error}") from error


def _timed(subject: _Subject, times: dict[Setting, list[Times]], index: int) -> TimedModel:
    timings = []
    for setting, row in times.items():
        first, own = row[0], row[index]
        timings.append(
            Timing(
                batch=setting.batch,
                length=setting.length,
                calls=own.calls,
                tokens=own.tokens or None,
                wall_ms=median(own.wall_ms),
                p95_ms=float(np.percentile(own.each_ms, 95)),
                cpu_ms=median(own.cpu_ms),
                speed=median_ratio(first.wall_ms, own.wall_ms),
                # A coarse clock may show no time at all.
                cpu_speed=median_ratio(first.cpu_ms, own.cpu_ms) if min(own.cpu_ms) > 0 else None,
                rounds=Rounds(wall_ms=own.wall_ms, cpu_ms=own.cpu_ms),
            )
        )
    return TimedModel(
        name=printable(subject.name),
        runtime=subject.runtime,
        precision=subject.precision,
        weights=subject.weights,
        files=subject.files,
        timings=timings,
    )


def _versions() -> dict[str, str]:
    """The versions of the libraries that were used: those that are loaded."""
    loaded = {name: module.__version__ for name in _LIBRARIES if (module := sys.modules.get(name)) is not None}
    return {"leanformer": importlib.metadata.version("leanformer"), **loaded}
