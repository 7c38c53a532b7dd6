"""What leanformer relies on in transformers without a promise: each fails when transformers changes that thing."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, GenerationConfig, PreTrainedModel
from transformers.activations import ACT2FN
from transformers.cache_utils import CacheLayerMixin, DynamicCache, DynamicLayer, EncoderDecoderCache, StaticCache
from transformers.dynamic_module_utils import get_class_from_dynamic_module
from transformers.masking_utils import create_bidirectional_mask
from transformers.models.bart.modeling_bart import BartDecoder, BartLearnedPositionalEmbedding
from transformers.models.marian.modeling_marian import MarianSinusoidalPositionalEmbedding
from transformers.utils import output_capturing

import leanformer as lf
from leanformer.blocks.basic import ACTIVATIONS
from leanformer.blocks.kit.inputs import BlockInputs
from leanformer.blocks.kit.state import DecodingState
from leanformer.model import hf
from leanformer.model.family import FAMILIES, find_family
from leanformer.model.surgery import module_at

MakeModel = Callable[..., PreTrainedModel]
IMAGES = [name for name, family in FAMILIES.items() if family.task == "image-classification"]
TEXTS = [name for name, family in FAMILIES.items() if family.task == "translation"]


@pytest.fixture
def make(make_model: MakeModel, make_translator: MakeModel) -> MakeModel:
    return lambda name, **settings: (make_model if name in IMAGES else make_translator)(name, **settings)


def translate_once(model: PreTrainedModel, **more: Any) -> Any:
    ids = torch.tensor([[5, 6, 7, 0], [8, 9, 0, 1]])
    decoder_ids = torch.tensor([[1, 4, 6], [1, 5, 7]])
    return model(input_ids=ids, attention_mask=(ids != 1).long(), decoder_input_ids=decoder_ids, **more)


# Outputs beside the last hidden states


@pytest.mark.parametrize("name", TEXTS)
def test_a_decoder_records_what_its_table_says(make: MakeModel, name: str) -> None:
    opened = lf.reduce(make(name, attn_implementation="eager"), {})
    outputs = translate_once(opened, output_attentions=True, output_hidden_states=True)
    assert len(outputs.decoder_hidden_states) == 3
    assert [weights.shape for weights in outputs.decoder_attentions] == [(2, 4, 3, 3)] * 2
    assert [weights.shape for weights in outputs.cross_attentions] == [(2, 4, 3, 4)] * 2


def test_a_part_of_another_class_has_no_table_until_it_is_registered(make: MakeModel) -> None:
    class Other(BartDecoder):
        _can_record_outputs = hf.decoder_records(nn.Linear, nn.Identity)

    decoder = make("bart").base_model.decoder
    decoder.__class__ = Other
    assert output_capturing._CAN_RECORD_REGISTRY.get(decoder) == {}
    hf.change_class(decoder, Other)
    assert output_capturing._CAN_RECORD_REGISTRY.get(decoder) == Other._can_record_outputs


@pytest.mark.parametrize("kind", ["attentions", "hidden_states"])
def test_more_is_asked_for_by_a_call_or_by_the_configuration(make: MakeModel, kind: str) -> None:
    config = make("bart", attn_implementation="eager").config
    assert not hf.asks_for_more(config, {})
    assert hf.asks_for_more(config, {f"output_{kind}": True})
    setattr(config, f"output_{kind}", True)
    assert hf.asks_for_more(config, {})
    assert not hf.asks_for_more(config, {f"output_{kind}": False})


# Attention


@pytest.mark.parametrize("name", FAMILIES)
def test_a_model_settles_its_attention_implementation(make: MakeModel, name: str) -> None:
    assert hf.attention_implementation(make(name)) == "sdpa"
    eager, other = make(name, attn_implementation="eager"), make(name)
    assert hf.attention_implementation(eager) == "eager"
    hf.copy_attention_implementation(eager, other)
    assert hf.attention_implementation(other) == "eager"
    assert hf.attention_implementation(nn.Linear(2, 2)) is None


def test_keys_of_an_attention_implementation_are_read(tmp_path: Path, make: MakeModel) -> None:
    make("vit").save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    for key in hf.ATTENTION_KEYS[:2]:
        (tmp_path / "config.json").write_text(json.dumps({**settings, key: "eager"}))
        assert AutoConfig.from_pretrained(tmp_path)._attn_implementation == "eager", key


def test_layers_read_the_attention_implementation_at_each_call(make: MakeModel) -> None:
    model, eager = make("bart"), make("bart", attn_implementation="eager")
    assert translate_once(eager, output_attentions=True).cross_attentions[0] is not None
    hf.copy_attention_implementation(eager, model)
    assert translate_once(model, output_attentions=True).cross_attentions[0] is not None


@pytest.mark.parametrize("name", TEXTS)
def test_a_model_without_weights_can_be_called(make: MakeModel, name: str) -> None:
    model = make(name).to("meta")
    ids = torch.ones(1, 4, dtype=torch.long, device="meta")
    with pytest.raises(RuntimeError, match="meta"):  # else it need not be told how to attend
        model(input_ids=ids, decoder_input_ids=ids)
    hf.use_eager_attention(model)
    assert model(input_ids=ids, decoder_input_ids=ids).logits.shape == (1, 4, 40)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_a_mask_of_four_dimensions_is_taken_as_it_is(make: MakeModel, implementation: str) -> None:
    config = make("bart", attn_implementation=implementation).config
    states = torch.randn(2, 3, 16)
    assert create_bidirectional_mask(config, states, hf.NO_MASK, states) is hf.NO_MASK


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("place", ["encoder.0.self_attention", "decoder.0.self_attention", "decoder.0.cross_attention"])
def test_an_attention_attends_as_a_block_would(make: MakeModel, place: str, implementation: str) -> None:
    """By the softmax of the scores: with padding in the midst and without a mask, causal or not, whatever the site."""
    opened = lf.reduce(make("marian", attn_implementation=implementation), {})
    module: Any = module_at(opened, place)
    weights = find_family(opened).attention_weights(module)
    assert weights is not None
    x, source = torch.randn(2, 5, 16), torch.randn(2, 6, 16)
    crosses = place.endswith("cross_attention")
    read = source if crosses else x
    for mask in (None, torch.rand(2, read.shape[1]).argsort(dim=1) > 1):
        inputs = BlockInputs(x, None, source, mask) if crosses else BlockInputs(x, mask)
        for causal in (False, True):
            seen = (
                torch.ones(2, 5, read.shape[1], dtype=torch.bool) if mask is None else mask[:, None].expand(-1, 5, -1)
            )
            if causal and not crosses:
                seen = seen & torch.ones(5, 5, dtype=torch.bool).tril()
            assert weights.value_bias is not None
            assert weights.output_bias is not None
            scores = weights.scores(x, read).masked_fill(~seen[:, None], torch.finfo(torch.float32).min)
            values = (read @ weights.value + weights.value_bias).unflatten(-1, (4, -1)).transpose(1, 2)
            mixed = (scores.softmax(dim=-1) @ values).transpose(1, 2).flatten(2)
            expected = mixed @ weights.output + weights.output_bias
            asks = seen.any(dim=-1)  # a token that may read none has no meaning
            torch.testing.assert_close(hf.attend(module, inputs, causal)[asks], expected[asks], rtol=1e-4, atol=1e-4)


def test_a_source_mask_lets_real_tokens_through(make: MakeModel) -> None:
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    states, source = torch.randn(2, 1, 16), torch.randn(2, 3, 16)
    made = hf.source_attention_mask(make("bart").config, states, mask, source)
    assert made is not None
    assert torch.equal(made.bool()[:, 0, 0], mask.bool())
    assert list(inspect.signature(create_bidirectional_mask).parameters)[:4] == [
        "config",
        "inputs_embeds",
        "attention_mask",
        "encoder_hidden_states",
    ]


# Positions


def test_the_first_rows_of_barts_positions_are_of_none() -> None:
    embedding = BartLearnedPositionalEmbedding(8, 4)
    assert embedding.offset == 2
    given = embedding(torch.zeros(1, 1, dtype=torch.long), past_key_values_length=3)
    assert torch.equal(hf.position_embedding(embedding, 3), given[0, 0])


def test_marians_positions_begin_with_the_first_row() -> None:
    embedding = MarianSinusoidalPositionalEmbedding(8, 4)
    embedding.weight.data.copy_(torch.randn(8, 4))
    assert not hasattr(embedding, "offset")
    assert torch.equal(hf.position_embedding(embedding, 3), embedding(torch.Size((1, 1)), 3)[0])


# The cache


def test_a_cache_has_a_part_for_each_attention() -> None:
    parts = DynamicCache(), DynamicCache()
    cache = EncoderDecoderCache(*parts)
    assert (hf.part_of_cache(cache, "self_attention_cache"), hf.part_of_cache(cache, "cross_attention_cache")) == parts
    with pytest.raises(lf.LeanformerError, match="not with a DynamicCache"):
        hf.part_of_cache(DynamicCache(), "self_attention_cache")


def test_only_a_cache_that_has_read_grows(make: MakeModel) -> None:
    model = make("bart")
    assert not hf.grows(None)
    assert not hf.grows(EncoderDecoderCache(DynamicCache(), DynamicCache()))
    read = translate_once(model, use_cache=True).past_key_values
    assert hf.grows(read)
    assert read.get_seq_length() == read.self_attention_cache.layers[0].keys.shape[2] == 3
    static = EncoderDecoderCache(StaticCache(model.config, 9), StaticCache(model.config, 9))
    assert not hf.grows(static)


def test_a_state_takes_a_layers_place() -> None:
    cache = DynamicCache()
    state = hf.decoding_state(cache, 2)
    assert len(cache.layers) == 3
    assert hf.decoding_state(cache, 2) is state
    state.length = 5
    state.tensors = {"sums": torch.arange(3.0)[:, None]}
    assert cache.get_seq_length(2) == 5
    cache.reorder_cache(torch.tensor([2, 0, 0]))
    assert state.tensors["sums"].flatten().tolist() == [2, 0, 0]


def test_a_state_has_every_method_of_a_layer() -> None:
    asked = {name for name, value in vars(CacheLayerMixin).items() if callable(value) and not name.startswith("_")}
    known = {name for name in vars(DecodingState) if not name.startswith("_")}
    # These are of keys and values alone, on devices of their own.
    assert asked - known <= {"offload", "prefetch"}


def test_what_attentions_keep_can_be_put_into_another_cache(make: MakeModel) -> None:
    model = make("bart")
    read = translate_once(model, use_cache=True).past_key_values
    other = EncoderDecoderCache(DynamicCache(), DynamicCache())
    for cross, half in enumerate((read.self_attention_cache, read.cross_attention_cache)):
        for number, layer in enumerate(half.layers):
            kept = hf.keys_and_values(layer)
            assert set(kept) == {"keys", "values"}
            hf.decoding_state((other.self_attention_cache, other.cross_attention_cache)[cross], number)
            hf.keep_keys(other, number, bool(cross), kept)
    assert other.get_seq_length() == 3
    assert other.is_updated == read.is_updated
    source = torch.zeros(2, 1, model.config.d_model)  # which is not read again
    token = torch.tensor([[5], [6]])
    one, two = (
        model.model.decoder(input_ids=token, encoder_hidden_states=source, past_key_values=cache)[0]
        for cache in (read, other)
    )
    assert torch.equal(one, two)
    assert hf.keys_and_values(DynamicLayer()) == {}


def test_keys_of_a_source_are_put_where_none_are_yet(make: MakeModel) -> None:
    cache = DynamicCache()
    cache.layers.append(DynamicLayer())
    assert cache.layers[0].is_initialized is False
    hf.SourceKeys.prepare(cache, 0)
    layer = cache.layers[0]
    assert isinstance(layer, hf.SourceKeys)
    layer.update(torch.randn(4, 2, 3, 5), torch.randn(4, 2, 3, 5))
    assert layer.is_initialized
    assert layer.keys.shape == layer.values.shape == (4, 2, 3, 5)


# Saving and loading


def test_marian_computes_its_positions_anew(make: MakeModel) -> None:
    names = hf.computed_tensors(make("marian"))
    assert names == {"model.encoder.embed_positions.weight", "model.decoder.embed_positions.weight"}
    assert names <= set(make("marian").state_dict())
    assert hf.computed_tensors(make("vit")) == hf.computed_tensors(nn.Linear(2, 2)) == set()


def test_computed_tensors_are_not_saved(make: MakeModel, tmp_path: Path) -> None:
    from safetensors import safe_open

    model = make("marian")
    model.save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", framework="pt") as saved:
        assert not hf.computed_tensors(model) & set(saved.keys())


def test_what_stands_before_two_hyphens_is_a_repository() -> None:
    ((_, address),) = hf.AUTO_MAP.items()
    repository, _ = address.split("--")
    with pytest.raises((OSError, ValueError), match=r"leanformer\.auto"):
        get_class_from_dynamic_module(address, "anything", local_files_only=True)
    assert "import leanformer.auto" in repository


# Generation


def test_an_older_models_generation_is_read_from_its_configuration(make: MakeModel, tmp_path: Path) -> None:
    make("marian").save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").unlink()
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**settings, "num_beams": 3}))
    read = hf.read_generation_config(tmp_path)
    assert read.num_beams == 3
    assert not hasattr(read, "d_model")
    assert read.decoder_start_token_id == 1


def test_a_file_of_its_own_comes_first(make: MakeModel, tmp_path: Path) -> None:
    make("marian").save_pretrained(tmp_path)
    GenerationConfig(num_beams=4).save_pretrained(tmp_path)
    assert hf.read_generation_config(tmp_path).num_beams == 4


@pytest.mark.parametrize("new", [None, 3])
def test_a_length_counts_what_is_written(make: MakeModel, new: int | None) -> None:
    model = make("bart")
    settings = GenerationConfig.from_model_config(model.config)
    settings.eos_token_id = None  # so that it goes on
    settings.max_new_tokens = new
    hf.limit_length(settings, 6)
    written = model.generate(torch.tensor([[5, 6, 0]]), generation_config=settings)
    assert written.shape == (1, 1 + 6)


def test_the_last_token_can_be_forced(make: MakeModel) -> None:
    model = make("bart")
    settings = GenerationConfig.from_model_config(model.config)
    settings.eos_token_id = None
    hf.limit_length(settings, 4)
    hf.force_end(settings, 17)
    assert model.generate(torch.tensor([[5, 6, 0]]), generation_config=settings)[0, -1] == 17


# Where architectures keep their parts


@pytest.mark.parametrize("name", FAMILIES)
def test_opening_a_model_changes_no_output(make: MakeModel, name: str) -> None:
    """All that a family says of where its parts are, at once."""
    model = make(name)
    opened = lf.reduce(model, {})
    if name in IMAGES:
        pixels = torch.randn(2, 1, 16, 16)
        torch.testing.assert_close(opened(pixels).logits, model(pixels).logits, atol=1e-5, rtol=1e-5)
    else:
        torch.testing.assert_close(translate_once(opened).logits, translate_once(model).logits, atol=1e-5, rtol=1e-5)


def test_activations_are_looked_up_by_their_names() -> None:
    assert {"gelu", "relu", "silu"} <= set(ACTIVATIONS) <= set(ACT2FN)
    for name in ACTIVATIONS:
        assert not list(ACT2FN[name].parameters()), name
