"""A decoder that keeps only some of its subwords: how configuration, weights and generation settings follow.

In a resolved plan it is ``target_vocabulary: {"block": "subwords", "ids": [...]}``: for each id of the student, the id
that the subword has in the model that it was made from. On the source side all subwords stay. Padding and end have one
id for both sides; where it becomes another, the source subword that had that id gets the mark's old one.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

import torch
from torch import nn
from transformers import GenerationConfig, PreTrainedModel

from leanformer.core.errors import LeanformerError, quoted
from leanformer.model.family import Family
from leanformer.model.plan import TARGET_VOCABULARY, Plan

KEPT_SUBWORDS = "subwords"
"""What a resolved plan names in place of a block."""
_MARKS = ("pad_token_id", "eos_token_id")
"""The configuration's keys of the marks that both sides have."""
_TARGET_IDS = (
    *_MARKS,
    "bos_token_id",
    "decoder_start_token_id",
    "forced_bos_token_id",
    "forced_eos_token_id",
)
_EXCLUDED_IDS = ("suppress_tokens", "begin_suppress_tokens")
_UNTRANSLATABLE = ("force_words_ids", "sequence_bias")


def vocabulary_of(plan: Plan) -> Plan:
    """The part of a plan that says which subwords a decoder keeps; empty where it keeps all."""
    return {key: entry for key, entry in plan.items() if key == TARGET_VOCABULARY}


def kept_ids(plan: Mapping[str, Mapping[str, Any]]) -> list[int] | None:
    """The ids of the subwords that a resolved plan keeps; None where it keeps all."""
    entry = plan.get(TARGET_VOCABULARY)
    return None if entry is None else list(entry["ids"])


def target_vocabulary(config: Any) -> int:
    """The number of subwords that a translator writes."""
    return int(getattr(config, "decoder_vocab_size", None) or config.vocab_size)


def check_can_be_trimmed(model: PreTrainedModel, family: Family) -> None:
    """Checks that a model can have fewer subwords on its target side than on its source side.

    Raises:
        LeanformerError: It writes no text, or has one vocabulary for both sides.
    """
    where = f"plan {TARGET_VOCABULARY!r}"
    if not model.config.is_encoder_decoder:
        raise LeanformerError(f"{where}: {family.name} is for {family.task} and writes no subwords; leave it out")
    if not family.has_decoder_vocabulary:
        raise LeanformerError(
            f"{where}: {family.name} has one vocabulary for both sides, so that the target's cannot be smaller; take a "
            "marian model, or leave it out"
        )


def resolve_vocabulary(model: PreTrainedModel, family: Family, entry: Any) -> dict[str, Any]:
    """What a plan's ``target_vocabulary`` changes in a model, written out. The model is not changed.

    Raises:
        LeanformerError: The model cannot be trimmed, or the entry does not name subwords of it, its marks among them.
    """
    check_can_be_trimmed(model, family)
    where = f"plan {TARGET_VOCABULARY!r}"
    if isinstance(entry, Mapping) and set(entry) == {"limit"}:
        raise LeanformerError(
            f"{where}: which subwords a limit leaves depends on texts and tokenizer; call lf.trim_target_vocabulary, "
            "or write it in a study"
        )
    if (
        not isinstance(entry, Mapping)
        or set(entry) - {"block"} != {"ids"}
        or entry.get("block")
        not in (
            None,
            KEPT_SUBWORDS,
        )
    ):
        raise LeanformerError(
            f"{where}: write {{ids: [...]}} with the ids of the subwords to keep, not {quoted(entry)}"
        )
    ids, words = entry["ids"], target_vocabulary(model.config)
    if not _are_ids(ids) or max(ids) >= words:
        raise LeanformerError(
            f"{where}: ids must be different whole numbers from 0 to {words - 1:,}, one for each subword to keep"
        )
    if len(ids) == words:
        raise LeanformerError(f"{where}: ids name all {words:,} subwords, so that nothing is left out")
    for key in (*_MARKS, "decoder_start_token_id"):
        mark = getattr(model.config, key)
        if mark not in ids:
            raise LeanformerError(f"{where}: {key} {mark} is not among the ids, and the decoder cannot do without it")
        if key in _MARKS and mark < len(ids) and ids[mark] != mark:
            raise LeanformerError(f"{where}: {key} is {mark}; that mark has to stay at its place in the ids")
        if key in _MARKS and ids.index(mark) >= model.config.vocab_size:
            raise LeanformerError(f"{where}: {key} would become {ids.index(mark)}, which the source side does not have")
    for key in _UNTRANSLATABLE:
        if getattr(model.generation_config, key, None) is not None:
            raise LeanformerError(
                f"{where}: the model's generation settings have {key}, which would name other subwords; set it to None"
            )
    return {"block": KEPT_SUBWORDS, "ids": [int(one) for one in ids]}


def _are_ids(ids: Any) -> TypeGuard[Sequence[int]]:
    """Whether these are different whole numbers, 0 or more."""
    return (
        isinstance(ids, Sequence)
        and len(ids) > 0
        and all(type(one) is int and one >= 0 for one in ids)
        and len(set(ids)) == len(ids)
    )


def composed(before: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """The entry of a student of a student: by ids of the first model."""
    return {**change, "ids": [before["ids"][one] for one in change["ids"]]}


def trimmed_settings(settings: Mapping[str, Any], ids: Sequence[int]) -> dict[str, Any]:
    """A configuration's settings for a decoder with these subwords alone."""
    new = {old: number for number, old in enumerate(ids)}
    marks = {key: _renumbered(settings[key], new) for key in _TARGET_IDS if settings.get(key) is not None}
    return {**settings, **marks, "decoder_vocab_size": len(ids), "share_encoder_decoder_embeddings": False}


def trimmed_generation(settings: GenerationConfig, ids: Sequence[int]) -> GenerationConfig:
    """Generation settings with the student's ids. Subwords that it does not have need not be excluded."""
    changed = copy.deepcopy(settings)
    new = {old: number for number, old in enumerate(ids)}
    for key in (*_TARGET_IDS, *_EXCLUDED_IDS):
        if getattr(settings, key, None) is not None:
            setattr(changed, key, _renumbered(getattr(settings, key), new))
    if settings.bad_words_ids is not None:
        words = [_renumbered(word, new) for word in settings.bad_words_ids if all(one in new for one in word)]
        changed.bad_words_ids = words or None
    return changed


def _renumbered(value: int | list[int], new: Mapping[int, int]) -> int | list[int] | None:
    """An id, or a list of ids, as the student has them; None where it has none of them."""
    if isinstance(value, int):
        return new.get(value)
    return [new[one] for one in value if one in new] or None


def check_kept(entry: Mapping[str, Any], config: Any) -> None:
    """Checks that a student's configuration agrees with what its plan keeps.

    Raises:
        LeanformerError: It does not.
    """
    ids, words = entry.get("ids"), target_vocabulary(config)
    if not _are_ids(ids) or len(ids) != words:
        count = f"{len(ids):,} subwords" if _are_ids(ids) else f"the ids {quoted(ids)}"
        raise LeanformerError(f"plan {TARGET_VOCABULARY!r}: it keeps {count}, and the decoder has {words:,}")


def trim_decoder(model: PreTrainedModel, ids: Sequence[int]) -> None:
    """Leaves a decoder these subwords alone, and makes the source's embeddings its own. Changes the model."""
    body: Any = model.base_model
    rows = torch.tensor(ids, device=body.decoder.embed_tokens.weight.device)
    sources = torch.arange(len(body.encoder.embed_tokens.weight), device=rows.device)
    for key in _MARKS:
        old = getattr(model.config, key)
        sources[[old, ids.index(old)]] = sources[[ids.index(old), old]]
    body.encoder.embed_tokens = _with_rows(body.encoder.embed_tokens, sources)
    body.decoder.embed_tokens = _with_rows(body.decoder.embed_tokens, rows)
    if hasattr(body, "shared"):
        del body.shared
    model.lm_head = _with_rows(model.lm_head, rows)
    model.final_logits_bias = nn.Buffer(model.final_logits_bias[:, rows])


def _with_rows(module: Any, rows: torch.Tensor) -> Any:
    """An embedding or projection that has these rows alone."""
    changed = copy.copy(module)
    changed._parameters = {**module._parameters, "weight": nn.Parameter(module.weight.detach()[rows])}
    return changed


def target_parameters(model: PreTrainedModel) -> int:
    """Stored numbers of a decoder's embeddings and its output projection, but for those that the encoder has too."""
    body: Any = model.base_model
    modules = (body.decoder.embed_tokens, model.lm_head)
    return sum(
        weight.numel()
        for weight in {id(module.weight): module.weight for module in modules}.values()
        if weight is not body.encoder.embed_tokens.weight
    )
