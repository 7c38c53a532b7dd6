"""ONNX: one file, which ONNX Runtime and others run."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import PreTrainedModel

from leanformer.core.errors import LeanformerError, first_line
from leanformer.core.translating import up_to_end
from leanformer.export.base import FORMATS, Format, Logits, OpenWriter, WritesLogits
from leanformer.export.generation import check_followed
from leanformer.model.family import find_family
from leanformer.model.finding.facts import NO_GRAPH
from leanformer.model.hf import STUDENT_PREFIX
from leanformer.runtime.engines.onnx import MODEL, translator_inputs
from leanformer.runtime.manifest import PRECISIONS, Precision

if TYPE_CHECKING:
    from leanformer.export.graphs.translator import TranslatorGraphs

_NOT = "not shippable in the format onnx:"

LARGEST_FILE = 2**31 - 1
"""Bytes that a file of this form can have; a larger model's weights are in a second one."""


class Onnx(Format):
    """A graph of standard operations, for classifiers and translators with any block.

    A classifier's takes ``pixel_values`` and gives ``logits`` (``graphs/classifier.py``); a translator's writes the
    whole translation (``graphs/translator.py``).
    """

    name = "onnx"
    precisions = PRECISIONS
    packages = ("onnx", "onnxscript", "onnxruntime")

    def check(self, model: PreTrainedModel, precision: Precision) -> None:
        """Classifiers of images and translators can be held, of all architectures but a few; see ``Format``."""
        family = find_family(model)
        kind = str(model.config.model_type).removeprefix(STUDENT_PREFIX)
        if family.task not in ("image-classification", "translation") or kind in NO_GRAPH:
            reason = NO_GRAPH.get(kind, "classifiers of images and translators are written")
            raise LeanformerError(f"{_NOT} this is {family.described}, and {reason}; use it with transformers")
        if family.task == "translation":
            check_followed(model.generation_config)

    def write(self, model: PreTrainedModel, directory: Path, precision: Precision) -> OpenWriter | None:
        """Writes ``model.onnx``, and beyond 2 GB ``model.onnx.data`` with its weights; see ``Format``."""
        import onnx

        from leanformer.export.graphs.precision import to_float16, to_int8

        opener: OpenWriter | None = None
        if find_family(model).task == "translation":
            from leanformer.export.graphs.translator import TranslatorGraphs

            try:
                traced = TranslatorGraphs(model)
            except Exception as error:  # whatever stops PyTorch's exporter in an architecture that nobody has tried
                if isinstance(error, LeanformerError) or not find_family(model).is_found:
                    raise
                raise LeanformerError(
                    f"{_NOT} no graph can be made of {find_family(model).described} ({first_line(error)}); use it with "
                    "transformers"
                ) from error
            graph, opener = traced.graph(), partial(_writer, traced, model)
        else:
            from leanformer.export.graphs.classifier import classifier_graph

            graph = classifier_graph(model)
        if precision == "int8":
            graph = to_int8(graph)
        elif precision == "float16":
            graph = to_float16(graph)
        large = graph.ByteSize() > LARGEST_FILE
        onnx.save(graph, directory / MODEL, save_as_external_data=large, location=f"{MODEL}.data" if large else None)
        return opener


def _writer(traced: TranslatorGraphs, model: PreTrainedModel) -> WritesLogits:
    """Writes with the same graph, which has one output more."""
    import onnxruntime

    pad_id, end_id = model.generation_config.pad_token_id, model.generation_config.eos_token_id
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = torch.get_num_threads()
    graph = traced.graph(with_logits=True).SerializeToString()
    session = onnxruntime.InferenceSession(graph, settings, providers=["CPUExecutionProvider"])

    def write(sources: Sequence[Sequence[int]], max_tokens: int) -> list[Logits]:
        tokens, logits = session.run(["tokens", "logits"], translator_inputs(sources, pad_id, max_tokens))
        return [rows[: len(up_to_end(ids, end_id))] for ids, rows in zip(tokens.tolist(), logits, strict=True)]

    return write


FORMATS.add(Onnx.name, Onnx())
