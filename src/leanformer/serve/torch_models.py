"""Models that are not exported, run by PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from leanformer.core.bounds import TOKENS
from leanformer.core.errors import LeanformerError
from leanformer.core.machine import pick_device
from leanformer.core.memory import memory_named
from leanformer.core.progress import quiet_libraries
from leanformer.core.translating import Ids
from leanformer.data.classifier_tokenizers import ClassifierTokenizer
from leanformer.data.tokenizers import TranslationTokenizer
from leanformer.measure.inputs import image_input
from leanformer.model.family import find_family
from leanformer.model.generate import generate, most_tokens, translate
from leanformer.model.heads import class_names
from leanformer.model.students import length_limits, load
from leanformer.model.text_classifier import TASK, longest_text, reads_types
from leanformer.runtime import Classifier, TextClassifier
from leanformer.runtime.translator import BATCH_TOKENS


class TorchClassifier:
    """A classifier; see ``runtime.engines.base.Classifies``.

    Args:
        model: In evaluation mode, on its device.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model

    @torch.inference_mode()
    def logits(self, pixel_values: NDArray[np.float32]) -> NDArray[np.float32]:
        inputs = torch.from_numpy(pixel_values).to(self._model.device, self._model.dtype)
        with memory_named(f"predicting {len(inputs):,} images at once", "lower --batch"):
            return self._model(pixel_values=inputs).logits.float().cpu().numpy()


class TorchTextClassifier:
    """A classifier of texts; see ``runtime.text_classifier.Reads``.

    Args:
        model: In evaluation mode, on its device.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._reads_types = reads_types(model)

    @torch.inference_mode()
    def logits(
        self, input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64], token_type_ids: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        if self._reads_types:
            inputs["token_type_ids"] = token_type_ids
        given = {name: torch.from_numpy(ids).to(self._model.device) for name, ids in inputs.items()}
        with memory_named(f"predicting {len(input_ids):,} texts at once", "lower --batch"):
            return self._model(**given).logits.float().cpu().numpy()


class TorchTranslator:
    """A translator; see ``serve.opening.Translates``.

    Args:
        model: In evaluation mode, on its device.
        tokenizer: Its own.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: TranslationTokenizer) -> None:
        self._model = model
        self.tokenizer = tokenizer
        self.max_source_tokens, most = most_tokens(model)
        self._most = min(most, BATCH_TOKENS)  # a model whose positions do not end may write without end

    @quiet_libraries()
    def translate(
        self,
        lines: Sequence[str],
        beam: int = 1,
        max_tokens: int | None = None,
        batch_tokens: int = BATCH_TOKENS,
        progress: Callable[[int], object] | None = None,
    ) -> list[str]:
        with memory_named(f"translating batches of {batch_tokens:,} subwords", "lower --batch-tokens or --beam"):
            return translate(
                self._model,
                self.tokenizer,
                lines,
                beam=beam,
                max_tokens=max_tokens or self._most,
                batch_tokens=batch_tokens,
                progress=progress,
            ).texts

    def generate(self, sources: Sequence[Sequence[int]], *, beam: int = 1, max_tokens: int | None = None) -> Ids:
        most = max_tokens or self._most
        with memory_named(f"translating {len(sources):,} sentences at once", "lower --batch or --beam"):
            return generate(self._model, self.tokenizer, sources, beam=beam, max_tokens=most)


@quiet_libraries()
def open_torch_model(name: str, device: str, threads: int | None) -> Classifier | TextClassifier | TorchTranslator:
    """Opens a model with the images' preparation or the tokenizer that lie beside it; see ``open_model``."""
    model = _load(name, device, threads)
    if model.config.is_encoder_decoder:
        return TorchTranslator(model, TranslationTokenizer.load(name))
    family = find_family(model)
    if family.task == TASK:
        tokenizer = ClassifierTokenizer.load(name)
        limits = (tokenizer.max_tokens, longest_text(model, family), length_limits(model)[0])
        most = min((limit for limit in limits if limit is not None), default=TOKENS)
        return TextClassifier(class_names(model.config), tokenizer, TorchTextClassifier(model), most)
    return Classifier(image_input(name, model), TorchClassifier(model))


@quiet_libraries()
def open_torch_translator(name: str, device: str, threads: int | None) -> TorchTranslator:
    """Opens a translator with its tokenizer; see ``open_translator``."""
    model = _load(name, device, threads)
    if not model.config.is_encoder_decoder:
        raise LeanformerError(f"{name}: a model for {find_family(model).task or 'another task'}, not a translator")
    return TorchTranslator(model, TranslationTokenizer.load(name))


def _load(name: str, device: str, threads: int | None) -> PreTrainedModel:
    if threads is not None:
        torch.set_num_threads(threads)  # of this process, which does nothing else
    return load(name).to(pick_device(device, "--device"))
