"""ONNX Runtime: one graph, on any of its execution providers.

Names in a classifier's graph: ``pixel_values`` (batch, channels, height, width) -> ``logits`` (batch, classes). In a
translator's, which holds the whole greedy search: ``input_ids`` and ``attention_mask`` (batch, source) and
``max_new_tokens`` () -> ``tokens`` (batch, written), padded after each end mark.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanformer.core.errors import LeanformerError, first_line
from leanformer.core.translating import up_to_end
from leanformer.runtime.engines.base import ENGINES, Classifies, EngineOptions, Generates, library
from leanformer.runtime.manifest import Manifest

MODEL = "model.onnx"
PROVIDERS = {
    "cuda": "CUDAExecutionProvider",
    "directml": "DmlExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "cpu": "CPUExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
"""Device -> ONNX Runtime's execution provider. ``auto`` takes the first that starts: a CPU always does, so that it
never comes to TensorRT, which builds an engine of its own for minutes when it first runs a model."""
ERRORS_ONLY = 3
"""ONNX Runtime's level of messages on standard error."""


@ENGINES.register("onnx")
def open_onnx(directory: Path, manifest: Manifest, options: EngineOptions) -> Classifies | Generates:
    """Opens an exported directory's graph; see ``OpenEngine``."""
    onnxruntime = library("onnxruntime", directory)
    session = None
    problem: Exception | None = None
    for device in _devices(onnxruntime, options.device):
        try:
            session = _session(onnxruntime, directory / MODEL, device, options.threads)
        except Exception as error:  # of many types, all its own
            problem = error
        else:
            if PROVIDERS[device] in session.get_providers():
                break
    if session is None:
        raise LeanformerError(
            f"{directory / MODEL}: onnxruntime {onnxruntime.__version__} cannot open it on device {options.device} "
            f"({first_line(problem) if problem else 'no reason given'}); take another device, install onnxruntime "
            f"{manifest.versions.get('onnxruntime', 'in a later version')}, or export the model again"
        ) from problem
    if PROVIDERS[device] not in session.get_providers():
        raise LeanformerError(
            f"device {device}: onnxruntime has the provider for it, but could not start it; its messages above say "
            "why, such as a library that is missing: install it, or take device cpu"
        )
    return OnnxClassifier(session) if manifest.texts is None else OnnxTranslator(session, manifest)


def _devices(onnxruntime: Any, wanted: str) -> list[str]:
    """The devices to try, in this order.

    Raises:
        LeanformerError: There is no such device, or no provider for it.
    """
    available = onnxruntime.get_available_providers()
    present = [name for name, provider in PROVIDERS.items() if provider in available]
    if wanted == "auto":
        return present
    if wanted not in PROVIDERS:
        raise LeanformerError(
            f"device {wanted}: onnxruntime has none of this name; choose auto, {', '.join(sorted(PROVIDERS))}"
        )
    if wanted not in present:
        raise LeanformerError(
            f"device {wanted}: the installed onnxruntime has no {PROVIDERS[wanted]}; it has {', '.join(present)}: "
            "choose one of these, or install the package of onnxruntime for that device"
        )
    return [wanted]


def _session(onnxruntime: Any, model: Path, device: str, threads: int | None) -> Any:
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = ERRORS_ONLY
    settings.intra_op_num_threads = threads or 0  # 0: its own choice
    settings.inter_op_num_threads = 1
    # What a provider cannot run, the next one does.
    chain = {"cpu": ["cpu"], "tensorrt": ["tensorrt", "cuda", "cpu"]}.get(device, [device, "cpu"])
    there = onnxruntime.get_available_providers()
    providers = [PROVIDERS[name] for name in chain if PROVIDERS[name] in there]
    # Without its fallback, which prints to standard output.
    return onnxruntime.InferenceSession(str(model), settings, providers=providers, enable_fallback=0)


class _Graph:
    """A graph that is open.

    Args:
        session: ONNX Runtime's session.
    """

    def __init__(self, session: Any) -> None:
        self._session = session

    def _run(self, output: str, inputs: Mapping[str, NDArray[Any]], batch: int) -> NDArray[Any]:
        try:
            (result,) = self._session.run([output], inputs)
        except Exception as error:  # of many types, all its own
            if "alloc" not in str(error):
                raise
            raise LeanformerError(f"out of memory with a batch of {batch:,}; take smaller batches") from error
        return result


class OnnxClassifier(_Graph):
    """A classifier; see ``Classifies``."""

    def logits(self, pixel_values: NDArray[np.float32]) -> NDArray[np.float32]:
        return self._run("logits", {"pixel_values": pixel_values}, len(pixel_values))


class OnnxTranslator(_Graph):
    """A translator; see ``Generates``. It searches greedily alone.

    Args:
        session: ONNX Runtime's session.
        manifest: With ``texts``.
    """

    def __init__(self, session: Any, manifest: Manifest) -> None:
        super().__init__(session)
        assert manifest.texts is not None
        self._pad_id = manifest.texts.pad_id
        self._eos_id = manifest.texts.eos_id

    def generate(self, sources: Sequence[Sequence[int]], *, beam: int, max_tokens: int) -> list[list[int]]:
        if beam != 1:
            raise LeanformerError(
                f"beam {beam}: a model that is exported to ONNX searches greedily, with beam 1; for beams export it to "
                "ctranslate2"
            )
        tokens = self._run("tokens", translator_inputs(sources, self._pad_id, max_tokens), len(sources))
        return [up_to_end(row, self._eos_id) for row in tokens.tolist()]


def translator_inputs(sources: Sequence[Sequence[int]], pad_id: int, max_tokens: int) -> dict[str, NDArray[np.int64]]:
    """The inputs of a translator's graph.

    Args:
        sources: As of ``Generates.generate``.
        pad_id: The id of padding.
        max_tokens: Likewise.
    """
    shape = len(sources), max(map(len, sources))
    input_ids = np.full(shape, pad_id, np.int64)
    attention_mask = np.zeros(shape, np.int64)
    for row, ids in enumerate(sources):
        input_ids[row, : len(ids)] = ids
        attention_mask[row, : len(ids)] = 1
    max_new_tokens = np.array(max_tokens, np.int64)
    return {"input_ids": input_ids, "attention_mask": attention_mask, "max_new_tokens": max_new_tokens}
