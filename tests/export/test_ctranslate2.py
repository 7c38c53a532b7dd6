"""CTranslate2: structural translators are written exactly, others are refused with the site that stands in the way."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
import pytest
import torch
from cases import some
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

import leanformer as lf
from leanformer.core.errors import LeanformerError
from leanformer.core.machine import threads
from leanformer.export.base import FORMATS
from leanformer.runtime.engines.ctranslate2 import open_translator

FORMAT = FORMATS["ctranslate2"]
MOST = 8
SOURCES = [[5, 9, 3, 0], [7, 0], [8, 2, 30, 31, 12, 6, 22, 0], [4, 4, 19, 0], [33, 17, 25, 2, 39, 0]]
END = 0

PLANS: dict[str, dict[str, Any]] = {
    "whole": {},
    "a decoder's layer gone": {"decoder.1.layer": "none"},
    "an encoder's layer gone": {"encoder.0.layer": "none"},
    "no MLP": {"*.mlp": "none"},
    "narrower MLPs": {"*.mlp": {"block": "mlp", "hidden": 7}},
    "one stack with MLPs of another activation": {"encoder.*.mlp": {"block": "mlp", "hidden": 7, "activation": "relu"}},
    "one layer, no MLP": {"decoder.0.layer": "none", "decoder.1.mlp": "none"},
    "no cross-attention in a layer": {"decoder.1.cross_attention": "none"},
    "no cross-attention in the first layer": {"decoder.0.cross_attention": "none"},
    "no cross-attention": {"*.cross_attention": "none"},
    "no self-attention in a layer": {"*.1.self_attention": "none"},
    "two half layers": {"*.0.mlp": "none", "*.1.self_attention": "none"},
}


def written(model: PreTrainedModel, beam: int = 1) -> list[list[int]]:
    """What transformers writes, without the end mark."""
    rows = [torch.tensor(ids) for ids in SOURCES]
    found = model.generate(
        pad_sequence(rows, batch_first=True, padding_value=1),
        attention_mask=pad_sequence([torch.ones_like(row) for row in rows], batch_first=True),
        num_beams=beam,
        do_sample=False,
        max_new_tokens=MOST,
    )
    ids = [row[1:] for row in found.tolist()]
    return [row[: row.index(END)] if END in row else row for row in ids]


def logits(model: PreTrainedModel, source: list[int], target: list[int]) -> np.ndarray:
    """The model's logits after each subword that it has written, the start mark first."""
    with torch.inference_mode():
        return model(torch.tensor([source]), decoder_input_ids=torch.tensor([[1, *target]])).logits[0].numpy()


def translations(directory: Path, beam: int = 1) -> list[list[int]]:
    """What CTranslate2 writes, without the end mark."""
    translator = ctranslate2.Translator(str(directory / "ctranslate2"), device="cpu")
    results = translator.translate_batch(
        [[str(token) for token in ids] for ids in SOURCES],
        beam_size=beam,
        min_decoding_length=0,
        max_decoding_length=MOST,
    )
    return [[int(token) for token in result.hypotheses[0]] for result in results]


def check_exact(model: PreTrainedModel, directory: Path) -> None:
    """What is written in float32 says the same as the model, greedily, subword by subword."""
    FORMAT.check(model, "float32")
    opener = FORMAT.write(model, directory, "float32")
    assert opener is not None
    own = written(model)
    assert translations(directory) == own
    for source, target, found in zip(SOURCES, own, opener()(SOURCES, MOST), strict=True):
        assert len(found) == min(len(target) + 1, MOST)  # the end mark is written too
        assert np.abs(logits(model, source, target)[: len(found)] - found).max() < 1e-4


@pytest.mark.parametrize(
    ("family", "name"),
    some(
        [*(("marian", name) for name in PLANS), ("bart", "no MLP"), ("bart", "narrower MLPs")],
        *(("marian", name) for name in ("whole", "an encoder's layer gone", "narrower MLPs", "two half layers")),
        *(("marian", "no cross-attention in the first layer"), ("bart", "no MLP")),
    ),
)
def test_structural_students_are_written_exactly(
    make_translator: Callable[..., PreTrainedModel], family: str, name: str, tmp_path: Path
) -> None:
    teacher = make_translator(family)
    teacher.final_logits_bias[0, END] += 2.5  # so that translations end
    check_exact(lf.reduce(teacher, PLANS[name]) if PLANS[name] else teacher, tmp_path)
    variables = (tmp_path / "ctranslate2/model.bin").read_bytes()
    fewer = {"encoder": ("two half layers", "an encoder's layer gone"), "decoder": ("one layer, no MLP",)}
    fewer["decoder"] += ("a decoder's layer gone",)
    for stack, names in fewer.items():
        assert (f"{stack}/layer_1/".encode() in variables) == (name not in names)
        assert f"{stack}/layer_2/".encode() not in variables


@pytest.mark.parametrize("name", ["whole", "no MLP", "no cross-attention in a layer"])
def test_with_a_beam_as_long_as_no_hypothesis_ends(
    make_translator: Callable[..., PreTrainedModel], name: str, tmp_path: Path
) -> None:
    """Where some end, the libraries weigh hypotheses of several lengths in their own ways."""
    teacher = make_translator("marian")
    student = lf.reduce(teacher, PLANS[name]) if PLANS[name] else teacher
    FORMAT.write(student, tmp_path, "float32")
    own = written(student, beam=4)
    assert {len(ids) for ids in own} == {MOST}
    assert translations(tmp_path, beam=4) == own


def test_a_bart_s_embeddings_are_normed_before_a_layer_without_attention(
    make_translator: Callable[..., PreTrainedModel], tmp_path: Path
) -> None:
    teacher = make_translator("bart")
    teacher.final_logits_bias[0, END] += 2.5
    check_exact(lf.reduce(teacher, {"*.0.self_attention": "none"}), tmp_path)


def narrowed(attention: Any, heads: int) -> None:
    """Leaves an attention the first of its heads, of unchanged width."""
    channels = heads * attention.head_dim
    for name in ("q_proj", "k_proj", "v_proj"):
        own = getattr(attention, name)
        smaller = nn.Linear(own.in_features, channels)
        smaller.weight, smaller.bias = nn.Parameter(own.weight[:channels]), nn.Parameter(own.bias[:channels])
        setattr(attention, name, smaller)
    output = nn.Linear(channels, attention.out_proj.out_features)
    output.weight, output.bias = nn.Parameter(attention.out_proj.weight[:, :channels]), attention.out_proj.bias
    attention.out_proj = output
    attention.num_heads, attention.embed_dim = heads, channels


@pytest.mark.parametrize("heads", [(2, 2), (1, 3)])
def test_attentions_with_fewer_heads(
    make_translator: Callable[..., PreTrainedModel], heads: tuple[int, int], tmp_path: Path
) -> None:
    model = make_translator("marian")
    model.final_logits_bias[0, END] += 2.5
    for layer, number in zip(model.model.encoder.layers, heads, strict=True):
        narrowed(layer.self_attn, number)
    for layer, number in zip(model.model.decoder.layers, heads, strict=True):
        narrowed(layer.self_attn, number)
        narrowed(layer.encoder_attn, number)
    check_exact(model, tmp_path)


def test_heads_and_vocabularies_of_encoder_and_decoder_may_differ(
    make_translator: Callable[..., PreTrainedModel], tmp_path: Path
) -> None:
    model = make_translator(
        "marian", decoder_vocab_size=23, share_encoder_decoder_embeddings=False, decoder_attention_heads=2
    )
    model.final_logits_bias[0, END] += 2.5
    check_exact(model, tmp_path)
    place = tmp_path / "ctranslate2"
    sizes = [len(json.loads((place / f"{side}_vocabulary.json").read_text())) for side in ("source", "target")]
    assert sizes == [40, 23]


def test_forbidden_subwords_are_never_written(make_translator: Callable[..., PreTrainedModel], tmp_path: Path) -> None:
    model = make_translator("marian")
    first = written(model)[0][0]
    model.generation_config.bad_words_ids = [[first], [END]]  # the end mark stays possible, as transformers has it
    model.generation_config.suppress_tokens = [1]
    own = written(model)
    assert first not in np.concatenate(own)
    opener = FORMAT.write(model, tmp_path, "float32")
    assert opener is not None
    assert translations(tmp_path) == own
    assert np.isneginf(opener()(SOURCES[:1], 2)[0][0, [1, first]]).all()


def test_a_translation_may_be_empty(make_translator: Callable[..., PreTrainedModel], tmp_path: Path) -> None:
    model = make_translator("marian")
    model.final_logits_bias[0, END] += 100
    opener = FORMAT.write(model, tmp_path, "float32")
    assert opener is not None
    assert written(model) == translations(tmp_path) == [[]] * len(SOURCES)
    assert [len(found) for found in opener()(SOURCES, MOST)] == [1] * len(SOURCES)


def test_precisions(make_translator: Callable[..., PreTrainedModel], tmp_path: Path) -> None:
    model = make_translator("marian", d_model=64, encoder_ffn_dim=256, decoder_ffn_dim=256)
    sizes = {}
    for precision in FORMAT.precisions:
        (tmp_path / precision).mkdir()
        FORMAT.write(model, tmp_path / precision, precision)
        sizes[precision] = (tmp_path / precision / "ctranslate2/model.bin").stat().st_size
        assert len(translations(tmp_path / precision)) == len(SOURCES)
    assert sizes["float16"] < 0.55 * sizes["float32"]
    assert sizes["int8"] < 0.35 * sizes["float32"]


def test_pytorch_s_threads_stay_as_they_are(make_translator: Callable[..., PreTrainedModel], tmp_path: Path) -> None:
    open_writer = FORMAT.write(make_translator("marian"), tmp_path, "float32")
    assert open_writer is not None
    for own, others in ((3, 2), (1, 3), (2, 1)):  # opened with another number than before, it would set PyTorch's too
        with threads(own):
            open_writer()(SOURCES, MOST)
            assert torch.get_num_threads() == own
            for count in (others, None):
                open_translator(tmp_path / "ctranslate2", "cpu", count)
                assert torch.get_num_threads() == own


def test_writing_changes_nothing_in_the_model(make_translator: Callable[..., PreTrainedModel], tmp_path: Path) -> None:
    student = lf.reduce(make_translator("marian"), {"*.mlp": "none"})
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    settings = student.config.to_dict(), student.generation_config.to_dict()
    FORMAT.write(student, tmp_path, "int8")
    assert all(torch.equal(before[name], tensor) for name, tensor in student.state_dict().items())
    assert settings == (student.config.to_dict(), student.generation_config.to_dict())


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (
            {"encoder.1.self_attention": {"block": "slots", "slots": 4}},
            "encoder.1.self_attention is 'slots', and it runs the architecture's own attention and MLPs alone",
        ),
        ({"decoder.0.layer": {"block": "feed_forward", "max_length": 20}}, "decoder.0.layer is 'feed_forward'"),
        (
            {"decoder.1.cross_attention_sublayer": {"block": "feed_forward", "max_length": 20}},
            "decoder.1.cross_attention_sublayer is 'feed_forward'",
        ),
        (
            {"encoder.0.self_attention": {"block": "synthesizer", "max_length": 20, "heads": [1]}},
            "encoder.0.self_attention is 'synthesizer'",
        ),
        ({"decoder.0.self_attention": "none"}, "decoder.0.self_attention is 'none', and it begins with self-attention"),
        ({"encoder.*.layer": "none"}, "the encoder has no layer left"),
        (
            {"encoder.1.mlp": {"block": "mlp", "hidden": 4, "activation": "mish"}},
            "the activation at encoder.1.mlp is 'mish', and it has gelu, ",
        ),
        (
            {"decoder.1.mlp": {"block": "mlp", "hidden": 4, "activation": "relu"}},
            "the activation at decoder.1.mlp is 'relu' and at decoder.0.mlp 'gelu'",
        ),
    ],
)
def test_other_plans_are_refused(
    make_translator: Callable[..., PreTrainedModel], plan: dict[str, Any], message: str
) -> None:
    student = lf.reduce(make_translator("marian"), plan)
    with pytest.raises(LeanformerError) as refused:
        FORMAT.check(student, "float32")
    assert str(refused.value).startswith("not shippable in the format ctranslate2: ")
    assert message in str(refused.value)
    assert "the format onnx can hold it" in str(refused.value)


def test_classifiers_are_refused(make_model: Callable[..., PreTrainedModel]) -> None:
    with pytest.raises(LeanformerError, match="it runs translators, and this is an image classifier; the format onnx"):
        FORMAT.check(make_model(), "float32")


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("no_repeat_ngram_size", 3, "no_repeat_ngram_size: 3"),
        ("repetition_penalty", 1.5, "repetition_penalty: 1.5"),
        ("bad_words_ids", [[4], [5, 6]], r"bad_words_ids with \[5, 6\]"),
    ],
)
def test_generation_settings_that_no_engine_follows(
    make_translator: Callable[..., PreTrainedModel], key: str, value: Any, named: str
) -> None:
    model = make_translator("marian")
    setattr(model.generation_config, key, value)
    with pytest.raises(LeanformerError, match=f"generation_config.json sets {named}, .* would not follow; remove the"):
        FORMAT.check(model, "float32")


@pytest.mark.parametrize(("key", "value"), [("forced_bos_token_id", 0), ("begin_suppress_tokens", [4])])
def test_generation_settings_that_this_engine_does_not_follow(
    make_translator: Callable[..., PreTrainedModel], key: str, value: Any
) -> None:
    model = make_translator("marian")
    setattr(model.generation_config, key, value)
    with pytest.raises(LeanformerError, match=f"generation_config.json sets {key}: .*, which it .*; the format onnx"):
        FORMAT.check(model, "float32")
