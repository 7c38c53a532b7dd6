"""Checks, before anything is trained, that the teacher can read the batches that a caller gives."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from leanformer.core.errors import LeanformerError
from leanformer.core.memory import memory_named
from leanformer.learn.losses import Batch
from leanformer.learn.observe import Observed
from leanformer.model.directory import one_line
from leanformer.model.family import find_family
from leanformer.model.generate import most_positions
from leanformer.model.vision import pixel_input
from leanformer.model.weights import device_and_dtype

_WHOLE = (torch.int64, torch.int32)
_MASKS = ("attention_mask", "decoder_attention_mask")


def check_batches(teacher: PreTrainedModel, batches: Sequence[Batch], argument: str) -> None:
    """Checks every tensor's shape, type and range, and runs the teacher on the first batch of each set of keys.

    Args:
        teacher: In evaluation mode, with open layers, so that no random numbers are drawn.
        batches: Named tensors, with ``labels``.
        argument: The caller's name for them, for messages.

    Raises:
        LeanformerError: The teacher cannot read a batch; the message names the batch and the key.
    """
    check = _CHECKS[teacher.main_input_name]
    device, _ = device_and_dtype(teacher)
    tried: set[frozenset[str]] = set()
    for number, batch in enumerate(batches):
        where = f"{argument}: batch {number}"
        for key, tensor in batch.items():
            if tensor.layout != torch.strided:
                raise LeanformerError(f"{where}: {key} is a sparse tensor; make it dense, with to_dense()")
            if tensor.device != device:
                raise LeanformerError(
                    f"{where}: {key} is on the device {tensor.device}, the teacher on {device}; move the batch there"
                )
        check(batch, teacher, where)
        if frozenset(batch) not in tried:
            tried.add(frozenset(batch))
            with Observed(teacher, ()) as observed, memory_named(f"reading {where}", "give smaller batches"):
                _read(observed, batch, where)


def _read(observed: Observed, batch: Batch, where: str) -> None:
    try:
        observed.read(batch)
    except (LeanformerError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # of any type: a batch may hold any of the model's arguments
        raise LeanformerError(f"{where}: the teacher cannot read it: {one_line(error)}") from error


def _check_images(batch: Batch, teacher: PreTrainedModel, where: str) -> None:
    config = teacher.config
    pixels = _tensor(batch, "pixel_values", where)
    if not pixels.is_floating_point():
        raise LeanformerError(
            f"{where}: pixel_values are of type {_type(pixels)}; give them as floats, normalized as the teacher "
            "expects them"
        )
    taken = pixel_input(config)
    height, width = taken.size or pixels.shape[-2:]
    _check_shape(pixels, ("images", taken.channels, height, width), "pixel_values", where)
    _check_labels(batch, (len(pixels),), config.num_labels, where)


def _check_texts(batch: Batch, teacher: PreTrainedModel, where: str) -> None:
    config, positions = teacher.config, most_positions(teacher)
    target_words = getattr(config, "decoder_vocab_size", None) or config.vocab_size
    read = {"input_ids": config.vocab_size}
    if config.is_encoder_decoder:
        read["decoder_input_ids"] = target_words
    sentences = None
    for key, words in read.items():
        ids = _tensor(batch, key, where)
        _check_shape(ids, ("sentences" if sentences is None else sentences, "tokens"), key, where)
        sentences = len(ids)
        if ids.shape[1] > positions:
            raise LeanformerError(
                f"{where}: {key} are {ids.shape[1]:,} tokens long, and the teacher has {positions:,} positions; give "
                "shorter ones"
            )
        _check_range(ids, key, words, where)
    for mask, key in zip(_MASKS, ("input_ids", "decoder_input_ids"), strict=True):
        if mask in batch and key in batch:
            _check_shape(batch[mask], tuple(batch[key].shape), mask, where)
    if find_family(teacher).task == "text-classification":
        _check_labels(batch, (len(batch["input_ids"]),), config.num_labels, where)
    else:
        _check_labels(batch, tuple(batch[list(read)[-1]].shape), target_words, where)


def _tensor(batch: Batch, key: str, where: str) -> torch.Tensor:
    if key not in batch:
        hint = ""
        if key == "decoder_input_ids":
            hint = "; transformers' DataCollatorForSeq2Seq makes them where it is given the model"
        raise LeanformerError(f"{where} has no {key}, which the teacher reads{hint}")
    return batch[key]


def _check_shape(tensor: torch.Tensor, wanted: tuple[int | str, ...], key: str, where: str) -> None:
    """Checks a tensor's shape; a name in ``wanted`` stands for any number from 1 up."""
    fits = tensor.dim() == len(wanted) and all(
        found >= 1 if isinstance(side, str) else found == side for found, side in zip(tensor.shape, wanted, strict=True)
    )
    if not fits:
        raise LeanformerError(
            f"{where}: {key} has the shape {tuple(tensor.shape)}; it must be ({', '.join(str(side) for side in wanted)}"
            f"{',' if len(wanted) == 1 else ''})" + (", 1 or more each" if 0 in tensor.shape else "")
        )


def _check_labels(batch: Batch, shape: tuple[int, ...], classes: int, where: str) -> None:
    labels = batch["labels"]
    _check_shape(labels, shape, "labels", where)
    if labels.dtype != torch.int64:
        raise LeanformerError(f"{where}: labels are of type {_type(labels)}; give whole numbers, of type int64")
    _check_range(labels.where(labels != -100, 0), "labels", classes, where)


def _check_range(numbers: torch.Tensor, key: str, count: int, where: str) -> None:
    if numbers.dtype not in _WHOLE:
        raise LeanformerError(f"{where}: {key} are of type {_type(numbers)}; give whole numbers, of type int64")
    low, high = (int(number) for number in numbers.aminmax())
    if low < 0 or high >= count:
        ignored = ", or -100 where nothing is to be learned" if key == "labels" else ""
        raise LeanformerError(
            f"{where}: {low if low < 0 else high} is among the {key}; they go from 0 to {count - 1:,} for this "
            f"teacher{ignored}"
        )


def _type(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


_CHECKS = {"pixel_values": _check_images, "input_ids": _check_texts}
"""A model's main input, by transformers' name -> the check of its batches."""
