"""``leanformer predict``: what a model says of images or sentences."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from leanformer.core.errors import LeanformerError, printable
from leanformer.runtime import Classifier, Prediction, TextClassifier
from leanformer.serve.inputs import ANSWER, CLASS_KEYS, Texts, check_inputs, image_files, read_texts, second_texts
from leanformer.serve.opening import open_model
from leanformer.serve.outputs import check_output, progress_bar, write
from leanformer.serve.translate import MAX_TOKENS, one_line


def predict(
    model: str,
    inputs: Sequence[Path],
    out: Path | None,
    batch: int,
    top: int | None,
    form: str,
    key: str | None,
    device: str,
    threads: int | None,
) -> None:
    """Writes a line for each image, text or sentence.

    Args:
        model: An exported directory, any other model's directory, or a hub id.
        inputs: Of a classifier of images: image files, and folders of them. Of any other model: files of lines or of
            JSON Lines; none: standard input.
        out: A file, written whole or not at all; with None, standard output.
        batch: Images or texts at once.
        top: How many classes are written with their probabilities, the most probable first; None: all.
        form: ``jsonl`` or ``lines``.
        key: Where the objects of JSON Lines hold their text; None: at ``text`` or ``source``.
        device: ``auto`` or a device's name.
        threads: CPU threads; with None, what the engine takes.

    Raises:
        LeanformerError: There is no such model, or an input cannot be read.
    """
    check_output(out)
    check_inputs(inputs)
    opened = open_model(model, device, threads)
    if isinstance(opened, Classifier):
        if key is not None:
            raise LeanformerError(f"--key: {printable(model)} reads images; --key says where objects hold their text")
        files = image_files(inputs)
        with progress_bar("predicting", len(files)) as advance:
            write(out, _classified(opened, files, batch, top, form, advance))
        return
    if isinstance(opened, TextClassifier):
        read = [read_texts(path, key, CLASS_KEYS) for path in (inputs or (None,))]
        with progress_bar("predicting", sum(len(part.sentences) for part in read)) as advance:
            write(out, (line for part in read for line in _classified_texts(opened, part, batch, top, form, advance)))
        return
    if top is not None:
        raise LeanformerError(f"--top: {printable(model)} is a translator; --top is for classes")
    texts = [read_texts(path, key) for path in inputs] if inputs else [read_texts(None, key)]
    sentences = [sentence for read in texts for sentence in read.sentences]
    with progress_bar("translating", len(sentences)) as advance:
        translations = opened.translate(sentences, max_tokens=MAX_TOKENS, progress=advance)
    write(out, _translated(texts, translations, form))


def _classified(
    classifier: Classifier,
    files: Sequence[Path],
    batch: int,
    top: int | None,
    form: str,
    advance: Callable[[int], object],
) -> Iterator[str]:
    for start in range(0, len(files), batch):
        chunk = files[start : start + batch]
        for file, prediction in zip(chunk, classifier.predict(chunk, batch), strict=True):
            yield _line_of_image(file, prediction, top) if form == "lines" else _object_of_image(file, prediction, top)
        advance(len(chunk))


def _line_of_image(file: Path, prediction: Prediction, top: int | None) -> str:
    """The file, and a class and its probability for each of the ``top`` classes, or of the most probable one."""
    ranked = _ranked(prediction, top or 1)
    return _columns(str(file), *_named(ranked))


def _object_of_image(file: Path, prediction: Prediction, top: int | None) -> str:
    return _json({"file": str(file), **_told(prediction, top)})


def _classified_texts(
    classifier: TextClassifier,
    texts: Texts,
    batch: int,
    top: int | None,
    form: str,
    advance: Callable[[int], object],
) -> Iterator[str]:
    """A line for each text: its classes, or the object that it was read from with them."""
    predictions = classifier.predict(texts.sentences, second_texts(texts), batch, advance)
    for text, found, prediction in zip(texts.sentences, texts.objects, predictions, strict=True):
        if form == "lines":
            yield _columns(*_named(_ranked(prediction, top or 1)))
        else:
            yield _json({**({"text": text} if found is None else found), **_told(prediction, top)})


def _named(ranked: Mapping[str, float]) -> Iterator[str]:
    """Each class and its probability."""
    for name, number in ranked.items():
        yield from (name, f"{number:.6g}")


def _columns(*columns: str) -> str:
    return "\t".join(map(printable, columns)) + "\n"


def _told(prediction: Prediction, top: int | None) -> dict[str, Any]:
    return {
        "label": prediction.label,
        "probability": _rounded(prediction.probability),
        "probabilities": {name: _rounded(number) for name, number in _ranked(prediction, top).items()},
    }


def _ranked(prediction: Prediction, top: int | None) -> dict[str, float]:
    """The most probable classes, the first first."""
    ranked = sorted(prediction.probabilities.items(), key=lambda item: -item[1])
    return dict(ranked[:top])


def _rounded(probability: float) -> float:
    """To the six digits that a model in float32 has."""
    return float(f"{probability:.6g}")


def _translated(texts: Sequence[Texts], translations: Sequence[str], form: str) -> Iterator[str]:
    pairs = ((sentence, found) for read in texts for sentence, found in zip(read.sentences, read.objects, strict=True))
    for (sentence, found), translation in zip(pairs, translations, strict=True):
        if form == "lines":
            yield one_line(translation) + "\n"
        else:
            yield _json({**({"text": sentence} if found is None else found), ANSWER: translation})


def _json(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # half a character, in an object that was read: an escape alone can write it
        text = json.dumps(value)
    return text + "\n"
