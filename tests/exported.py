"""Exported directories for the tests of what opens them: tiny graphs, written node by node."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from leanformer.runtime.manifest import ImageInput, Manifest, Parity, Source, TextInput, write_manifest

OPSET = helper.make_opsetid("", 17)
IMAGES = ImageInput(
    channels=1,
    height=4,
    width=5,
    size=(4, 5),
    resample=2,
    crop=None,
    on_white=False,
    bits=16,
    mean=(0.3,),
    std=(0.7,),
    classes=("cat", "dog", "emu"),
)
SUBWORDS = ("</s>", "<unk>", "<pad>")
WORDS = ("one", "two", "three", "uno", "dos", "tres")
"""Of the tokenizer of ``write_translator``; their ids follow those of the marks."""
LONGEST = 6
"""Subwords of its longest source."""


def manifest(**changes: Any) -> Manifest:
    """A manifest, whatever it is for."""
    content: dict[str, Any] = {
        "format": "onnx",
        "precision": "float32",
        "task": "image-classification",
        "source": Source(model="m", weights="0", architecture="vit", parameters=1),
        "plan": {},
        "bytes": 1,
        "parity": Parity(inputs=1, described="none", agreement=1.0, largest_difference=0.0, near_ties=0),
        "versions": {},
    }
    return Manifest(**{**content, **changes})


def save_graph(
    directory: Path, nodes: Sequence[Any], inputs: Sequence[Any], outputs: Sequence[Any], **constants: Any
) -> None:
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "graph", inputs, outputs, initializers)
    onnx.save(helper.make_model(graph, opset_imports=[OPSET], ir_version=10), directory / "model.onnx")


def write_classifier(directory: Path, images: ImageInput = IMAGES) -> np.ndarray:
    """A linear classifier of all pixels.

    Returns:
        Its weights, shape (pixels, classes).
    """
    directory.mkdir(parents=True, exist_ok=True)
    pixels = images.channels * images.height * images.width
    weights = np.random.default_rng(0).normal(size=(pixels, len(images.classes))).astype(np.float32)
    shape: list[str | int | None] = ["batch", images.channels, images.height, images.width]
    save_graph(
        directory,
        [
            helper.make_node("Flatten", ["pixel_values"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
        ],
        [helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", len(images.classes)])],
        weights=weights,
    )
    write_manifest(directory, manifest(images=images))
    return weights


def words_tokenizer() -> Tokenizer:
    """Words between spaces, with an end mark."""
    vocabulary = {word: number for number, word in enumerate((*SUBWORDS, *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.add_special_tokens(list(SUBWORDS))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.Sequence([decoders.WordPiece(prefix="##", cleanup=False)])
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 0)])
    return tokenizer


def write_translator(directory: Path, **texts: Any) -> None:
    """A translator of number words, word by word: ``one two`` -> ``uno dos``; a mark stays what it is.

    Its graph reads as many tokens as a translation may have, and pads what follows the end mark.
    """
    directory.mkdir(parents=True, exist_ok=True)
    words_tokenizer().save(str(directory / "tokenizer.json"))
    table = np.array([0, 1, 2, 6, 7, 8, 6, 7, 8], np.int64)
    save_graph(
        directory,
        [
            helper.make_node("Gather", ["table", "input_ids"], ["translated"]),
            helper.make_node("Unsqueeze", ["max_new_tokens", "zero"], ["end"]),
            helper.make_node("Slice", ["translated", "zero", "end", "one"], ["cut"]),
            helper.make_node("Slice", ["attention_mask", "zero", "end", "one"], ["mask"]),
            helper.make_node("Cast", ["mask"], ["real"], to=TensorProto.BOOL),
            helper.make_node("Where", ["real", "cut", "pad"], ["tokens"]),
        ],
        [
            helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "source"]),
            helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["batch", "source"]),
            helper.make_tensor_value_info("max_new_tokens", TensorProto.INT64, []),
        ],
        [helper.make_tensor_value_info("tokens", TensorProto.INT64, ["batch", "written"])],
        table=table,
        zero=np.array([0], np.int64),
        one=np.array([1], np.int64),
        pad=np.array(2, np.int64),
    )
    content: dict[str, Any] = {
        "source_tokenizer": "tokenizer.json",
        "target_tokenizer": "tokenizer.json",
        "pad_id": 2,
        "eos_id": 0,
        "max_source_tokens": LONGEST,
        "max_target_tokens": 5,
    }
    write_manifest(directory, manifest(task="translation", texts=TextInput(**{**content, **texts})))


def change_manifest(directory: Path, **changes: Any) -> None:
    """Changes what a directory's manifest says, as a whole one says it."""
    file = directory / "manifest.json"
    content = json.loads(file.read_text())
    del content["sha256"]
    write_manifest(directory, Manifest.model_validate_json(json.dumps(content)).model_copy(update=changes))
