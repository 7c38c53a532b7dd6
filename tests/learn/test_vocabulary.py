"""Translators that write with fewer subwords: exactly the whole model's logits at those that are kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import slow
from transformers import BartConfig, BartForConditionalGeneration, MarianConfig, MarianMTModel
from word_tokenizers import ENGLISH, GERMAN, trained, write_marian

import leanformer as lf
from leanformer.config.base import DistillConfig, FinetuneConfig
from leanformer.core.errors import LeanformerError
from leanformer.data.tokenizers import TranslationTokenizer
from leanformer.model.generate import translate
from leanformer.model.weights import parameter_count

SIZES = {
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "max_position_embeddings": 60,
    "init_std": 0.3,
}
LIMIT = 300


def marian(tokenizer: TranslationTokenizer, shared: bool = True, **settings: Any) -> MarianMTModel:
    """A random model for a tokenizer, whose output bias is not 0."""
    torch.manual_seed(0)
    config = MarianConfig(
        **SIZES,
        vocab_size=tokenizer.source_vocabulary,
        decoder_vocab_size=tokenizer.target_vocabulary,
        share_encoder_decoder_embeddings=shared,
        pad_token_id=tokenizer.pad_id,
        bos_token_id=tokenizer.eos_id,
        eos_token_id=tokenizer.eos_id,
        forced_eos_token_id=tokenizer.eos_id,
        decoder_start_token_id=tokenizer.pad_id,
        **settings,
    )
    model = MarianMTModel(config).eval()
    model.final_logits_bias.normal_()
    return model


def batch(tokenizer: TranslationTokenizer, count: int = 6) -> dict[str, torch.Tensor]:
    """Sentences of several lengths as a tokenizer encodes them."""
    texts = (ENGLISH[100 : 100 + count], GERMAN[100 : 100 + count])
    sides = (tokenizer.encode_source(texts[0]), tokenizer.encode_target(texts[1]))
    source, target = (
        torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in side], True, tokenizer.pad_id) for side in sides
    )
    start = torch.full_like(target[:, :1], tokenizer.pad_id)
    return {
        "input_ids": source,
        "attention_mask": (source != tokenizer.pad_id).long(),
        "decoder_input_ids": torch.cat((start, target[:, :-1]), 1),
        "labels": target.masked_fill(target == tokenizer.pad_id, -100),
    }


def logits(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(**{key: value for key, value in inputs.items() if key != "labels"}).logits
    return found


@pytest.mark.parametrize("shared", [True, *slow(False)])
def test_logits_are_the_whole_models_at_the_kept_subwords(shared: bool, tmp_path: Path) -> None:
    tokenizer = trained(shared=shared)
    model = marian(tokenizer, shared)
    student, own = lf.trim_target_vocabulary(model, tokenizer, GERMAN, LIMIT)
    ids = torch.tensor(student.config.plan["target_vocabulary"]["ids"])
    inputs = batch(own)
    whole = logits(model, {**inputs, "decoder_input_ids": ids[inputs["decoder_input_ids"]]})
    torch.testing.assert_close(logits(student, inputs), whole[..., ids], rtol=0, atol=1e-5)
    target = len(ids) * SIZES["d_model"]
    # Where both sides had one matrix, the source keeps it.
    before = 0 if shared else tokenizer.target_vocabulary * SIZES["d_model"]
    assert parameter_count(student) == parameter_count(model) - before + target
    assert student.lm_head.weight is student.model.decoder.embed_tokens.weight
    lf.save(student, tmp_path)
    own.save(tmp_path)
    loaded = lf.load(tmp_path)
    assert torch.equal(logits(loaded, inputs), logits(student, inputs))
    again = TranslationTokenizer.load(tmp_path)
    translations = [
        translate(one, with_, ENGLISH[:4], max_tokens=9, batch_tokens=99)
        for one, with_ in ((student, own), (loaded, again))
    ]
    assert translations[0] == translations[1]
    assert translations[0].tokens > 4


@pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")
def test_a_mark_with_a_large_id_moves_on_both_sides(tmp_path: Path) -> None:
    """As in Hugging Face's Marian models, where padding is last, and excluded from what is written."""
    directory = write_marian(tmp_path)
    tokenizer = TranslationTokenizer.load(directory)
    model = marian(tokenizer)
    model.generation_config.bad_words_ids = [[tokenizer.pad_id], [5, 6], [7]]
    model.generation_config.suppress_tokens = [tokenizer.pad_id]
    lf.save(model, directory)
    student, own = lf.trim_target_vocabulary(model, directory, GERMAN, 90)
    ids = student.config.plan["target_vocabulary"]["ids"]
    assert tokenizer.pad_id == ids[89] == model.config.pad_token_id
    settings = student.generation_config
    for place in (student.config, settings):
        assert (place.pad_token_id, place.decoder_start_token_id) == (89, 89)
        assert (place.eos_token_id, place.bos_token_id) == (0, 0)
    assert settings.forced_eos_token_id == 0
    kept = [[ids.index(one) for one in word] for word in ([5, 6], [7]) if set(word) <= set(ids)]
    assert settings.bad_words_ids == [[89], *kept]
    assert settings.suppress_tokens == [89]
    inputs, before = batch(own), batch(tokenizer)
    assert torch.equal(inputs["attention_mask"], before["attention_mask"])
    whole = logits(model, {**before, "decoder_input_ids": torch.tensor(ids)[inputs["decoder_input_ids"]]})
    torch.testing.assert_close(logits(student, inputs), whole[..., ids], rtol=0, atol=1e-5)
    assert translate(student, own, ENGLISH[:3], max_tokens=9, batch_tokens=99).tokens > 3


def test_a_student_can_be_trimmed_again_and_says_where_its_subwords_come_from() -> None:
    tokenizer = trained()
    model = marian(tokenizer)
    student, own = lf.trim_target_vocabulary(lf.reduce(model, {"decoder.1.mlp": "none"}), tokenizer, GERMAN, LIMIT)
    smaller, smallest = lf.trim_target_vocabulary(student, own, GERMAN, LIMIT - 20)
    plan = smaller.config.plan
    assert plan["decoder.1.mlp"] == {"block": "none"}
    assert set(plan["target_vocabulary"]["ids"]) < set(student.config.plan["target_vocabulary"]["ids"])
    again = lf.reduce(model, plan)
    assert again.config.plan == plan
    assert torch.equal(logits(again, batch(smallest)), logits(smaller, batch(smallest)))
    # Another change of a trimmed student leaves its subwords alone.
    less = lf.reduce(smaller, {"decoder.0.mlp": "none"})
    assert less.config.plan["target_vocabulary"] == plan["target_vocabulary"]


def test_distilling_reads_the_students_own_tokens() -> None:
    tokenizer = trained()
    model = marian(tokenizer)
    student, own = lf.trim_target_vocabulary(model, tokenizer, GERMAN, LIMIT)
    plan = {**student.config.plan, "encoder.*.self_attention": "average"}
    tuned = lf.distill(
        model, plan, [batch(own)], [batch(own)], DistillConfig(epochs=1), FinetuneConfig(epochs=1, targets="data")
    )
    assert tuned.config.decoder_vocab_size == LIMIT
    assert not torch.equal(tuned.lm_head.weight, student.lm_head.weight)
    with pytest.raises(LeanformerError, match=r"batches: batch 0: 3\d\d is among the decoder_input_ids; .* to 299"):
        lf.distill(model, plan, [batch(tokenizer)])


# Errors


def test_models_whose_target_vocabulary_cannot_be_smaller(make_model: Any) -> None:
    tokenizer = trained()
    bart = BartForConditionalGeneration(BartConfig(**SIZES, vocab_size=400))
    with pytest.raises(LeanformerError, match="bart has one vocabulary for both sides"):
        lf.trim_target_vocabulary(bart, tokenizer, GERMAN, LIMIT)
    with pytest.raises(LeanformerError, match="bart has one vocabulary for both sides"):
        lf.reduce(bart, {"target_vocabulary": {"ids": [0, 1, 2]}})
    with pytest.raises(LeanformerError, match="vit is for image-classification and writes no subwords"):
        lf.reduce(make_model(), {"target_vocabulary": {"limit": 3}})


def test_a_tokenizer_or_texts_that_do_not_fit() -> None:
    tokenizer = trained()
    model = marian(tokenizer)
    with pytest.raises(LeanformerError, match=r"its 450 target subwords .* do not belong to the model, which has 400"):
        lf.trim_target_vocabulary(model, trained(vocabulary=450), GERMAN, LIMIT)
    with pytest.raises(LeanformerError, match="a model's directory or a TranslationTokenizer is wanted, not int"):
        lf.trim_target_vocabulary(model, 3, GERMAN, LIMIT)  # type: ignore[arg-type]
    for texts in ("eins", [], [1]):
        with pytest.raises(LeanformerError, match="texts: a list of one or more sentences is wanted"):
            lf.trim_target_vocabulary(model, tokenizer, texts, LIMIT)  # type: ignore[arg-type]


WRONG: dict[str, tuple[Any, str]] = {
    "limit": ({"limit": 300}, "which subwords a limit leaves depends on texts and tokenizer"),
    "block": ("none", "write .*ids: .*with the ids of the subwords to keep"),
    "number": ({"ids": 3}, "ids must be different whole numbers from 0 to 399"),
    "empty": ({"ids": []}, "ids must be different whole numbers"),
    "twice": ({"ids": [0, 1, 2, 2]}, "ids must be different whole numbers"),
    "too large": ({"ids": [0, 1, 2, 400]}, "ids must be different whole numbers"),
    "text": ({"ids": ["0", 1, 2]}, "ids must be different whole numbers"),
    "all": ({"ids": list(range(400))}, "ids name all 400 subwords"),
    "no padding": ({"ids": [0, 1, 3]}, "pad_token_id 2 is not among the ids"),
    "no end": ({"ids": [1, 3, 2]}, "eos_token_id 0 is not among the ids"),
    "moved": ({"ids": [1, 0, 2, 3]}, "eos_token_id is 0; that mark has to stay at its place"),
}


@pytest.mark.parametrize("case", WRONG)
def test_ids_that_are_wrong(case: str) -> None:
    entry, message = WRONG[case]
    with pytest.raises(LeanformerError, match=f"plan 'target_vocabulary': {message}"):
        lf.reduce(marian(trained()), {"target_vocabulary": entry})


def test_a_mark_that_the_source_side_cannot_have() -> None:
    tokenizer = trained()
    model = marian(tokenizer, shared=False)
    model.config.vocab_size = 3
    model.config.pad_token_id = model.config.decoder_start_token_id = 350
    with pytest.raises(LeanformerError, match="pad_token_id would become 3, which the source side does not have"):
        lf.reduce(model, {"target_vocabulary": {"ids": [0, 1, 2, 350]}})


def test_generation_settings_that_name_subwords_to_write() -> None:
    model = marian(trained())
    model.generation_config.sequence_bias = {(5,): 1.0}
    with pytest.raises(LeanformerError, match="generation settings have sequence_bias"):
        lf.reduce(model, {"target_vocabulary": {"ids": [0, 1, 2]}})


def test_a_saved_plan_that_does_not_fit_its_configuration(tmp_path: Path) -> None:
    model = marian(trained())
    lf.save(lf.reduce(model, {"target_vocabulary": {"ids": [0, 1, 2, 7]}}), tmp_path)
    file = tmp_path / "config.json"
    settings = json.loads(file.read_text())
    for ids, message in (([0, 1, 2], "it keeps 3 subwords, and the decoder has 4"), ("all", "it keeps the ids 'all'")):
        file.write_text(json.dumps({**settings, "plan": {"target_vocabulary": {"block": "subwords", "ids": ids}}}))
        with pytest.raises(LeanformerError, match=message):
            lf.load(tmp_path)
