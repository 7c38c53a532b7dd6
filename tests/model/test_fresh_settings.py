"""What a study's ``baseline.config`` may say of a fresh model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedModel

import leanformer as lf
from leanformer.model.baseline import fresh_model
from leanformer.model.image_baseline import ImageBaseline, ImageGeometry
from leanformer.model.text_baseline import TextBaseline, TextGeometry

IMAGES = ImageGeometry(channels=1, height=8, width=8, classes=("cat", "dog"))
TEXT = TextGeometry(300, 300, shared=True, pad_id=2, eos_id=0, positions=16)
SHAPES: dict[str, dict[str, Any]] = {
    "vit": {
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 8,
        "patch_size": 4,
    },
    "marian": {
        "d_model": 8,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 8,
        "decoder_ffn_dim": 8,
    },
}
SHAPES |= {"deit": SHAPES["vit"], "bart": SHAPES["marian"]}


def made(family: str, **settings: Any) -> PreTrainedModel:
    """As a study makes it."""
    given = {**SHAPES[family], **settings}
    if family in ("vit", "deit"):
        images = ImageBaseline(family, given, fresh=False)
        images.check(IMAGES)
        return images.make(IMAGES, seed=0)
    text = TextBaseline(family, given, fresh=False)
    text.check(TEXT)
    return text.make(TEXT, seed=0)


def refusal(family: str, **settings: Any) -> str:
    with pytest.raises(lf.LeanformerError) as raised:
        made(family, **settings)
    line = str(raised.value)
    assert "\n" not in line
    return line


@pytest.mark.parametrize("family", SHAPES)
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("architectures", ["ViTModel"]),
        ("chunk_size_feed_forward", 2),
        ("dtype", "float16"),
        ("is_decoder", True),
        ("is_encoder_decoder", False),
        ("label2id", {"cat": 0}),
        ("output_attentions", True),
        ("output_hidden_states", True),
        ("problem_type", "regression"),
        ("return_dict", True),
        ("torch_dtype", "float32"),
        ("transformers_version", "5.0"),
        ("use_cache", False),
    ],
)
def test_keys_that_do_nothing_are_refused(family: str, key: str, value: Any) -> None:
    line = refusal(family, **{key: value})
    assert line.startswith(f"baseline.config: {key} has no effect here: ")
    assert line.endswith("; leave it out")


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("vit", {"pooler_act": "tanh"}),
        ("deit", {"pooler_output_size": 8}),
        ("vit", {"encoder_stride": 4}),
        ("bart", {"classifier_dropout": 0.1}),
        ("marian", {"num_labels": 3}),
        ("marian", {"id2label": {"0": "cat"}}),
    ],
)
def test_keys_of_another_task_are_refused(family: str, settings: dict[str, Any]) -> None:
    assert refusal(family, **settings).startswith(f"baseline.config: {next(iter(settings))} has no effect here: ")


@pytest.mark.parametrize(
    ("family", "settings", "message"),
    [
        ("vit", {"initializer_range": 0}, "initializer_range is 0; it must be a number above 0, 10 at most"),
        ("vit", {"initializer_range": 100.0}, "initializer_range is 100.0; it must be a number above 0, 10 at most"),
        ("vit", {"initializer_range": "a"}, "initializer_range is 'a'; it must be a number above 0, 10 at most"),
        ("marian", {"init_std": -1}, "init_std is -1; it must be a number above 0, 10 at most"),
        ("bart", {"init_std": True}, "init_std is True; it must be a number above 0, 10 at most"),
        ("vit", {"layer_norm_eps": 5}, "layer_norm_eps is 5; it must be a number above 0, 0.1 at most"),
        ("vit", {"layer_norm_eps": 0.0}, "layer_norm_eps is 0.0; it must be a number above 0, 0.1 at most"),
        ("vit", {"hidden_dropout_prob": 1.5}, "hidden_dropout_prob is 1.5; it must be from 0 to less than 1"),
        ("vit", {"hidden_act": None}, "hidden_act is None; it must be one of transformers' activations, such as gelu"),
        ("bart", {"activation_function": "foo"}, "activation_function is 'foo'; it must be one of transformers' act"),
        ("vit", {"qkv_bias": "x"}, "qkv_bias is 'x'; it must be true or false"),
        ("bart", {"scale_embedding": 5}, "scale_embedding is 5; it must be true or false"),
        ("vit", {"id2label": 5}, "id2label is 5; it must be a mapping of whole numbers to names"),
        ("vit", {"id2label": ["cat"]}, "id2label is ['cat']; it must be a mapping of whole numbers to names"),
        ("vit", {"id2label": {"a": "b"}}, "id2label is {'a': 'b'}; it must be a mapping of whole numbers to names"),
        ("vit", {"id2label": {"0": "cat", "5": "dog"}}, "id2label numbers ['0', '5']; write each class's number"),
        ("vit", {"id2label": {"0": "cat", "1": None}}, "id2label names ['cat', None]; write each class's number"),
        ("vit", {"id2label": {"0": "cat", "1": "cat"}}, "id2label names ['cat', 'cat']; write each class's number"),
        ("marian", {"decoder_start_token_id": 0}, "decoder_start_token_id is 0, and the tokenizer of the data says 2"),
        ("bart", {"bos_token_id": 5}, "bos_token_id is 5, and the tokenizer of the data says 0; leave it out"),
        ("marian", {"eos_token_id": 5}, "eos_token_id is 5, and the tokenizer of the data says 0; leave it out"),
        ("bart", {"pad_token_id": 1}, "pad_token_id is 1, and the tokenizer of the data says 2; leave it out"),
        ("bart", {"forced_eos_token_id": 0}, "forced_eos_token_id is 0, and the tokenizer of the data says None"),
        ("bart", {"forced_bos_token_id": 5}, "bart has no key 'forced_bos_token_id'"),
    ],
)
def test_values_that_no_model_learns_with_are_refused(family: str, settings: dict[str, Any], message: str) -> None:
    assert refusal(family, **settings).startswith(f"baseline.config: {message}")


def test_the_familys_own_keys_are_kept() -> None:
    config = made("vit", initializer_range=1, layer_norm_eps=1e-6, qkv_bias=False, hidden_act="relu").config
    assert (config.initializer_range, config.layer_norm_eps, config.qkv_bias) == (1.0, 1e-6, False)
    assert config.hidden_act == "relu"
    config = made("marian", init_std=0.1, dropout=0, decoder_start_token_id=2, tie_word_embeddings=False).config
    assert (config.init_std, config.dropout, config.decoder_start_token_id) == (0.1, 0, 2)
    assert not config.tie_word_embeddings


def test_names_of_classes_that_are_given_are_the_models_both_ways() -> None:
    names = {"0": "Katze", "1": "Hund"}
    config = made("vit", id2label=names).config
    assert config.id2label == {0: "Katze", 1: "Hund"}
    assert config.label2id == {"Katze": 0, "Hund": 1}
    assert made("vit", id2label=names, label2id={"Katze": 0, "Hund": 1}).config.id2label == {0: "Katze", 1: "Hund"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"qkv_bias": "x"}, "qkv_bias is 'x'; it must be true or false"),
        ({"hidden_act": None}, "hidden_act is None; it must be a text"),
        ({"id2label": {"a": "b"}}, "id2label is {'a': 'b'}; it must be a mapping of whole numbers to names"),
    ],
)
def test_a_models_own_configuration_is_told_of_in_the_same_words(
    make_model: Callable[..., PreTrainedModel], tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    lf.save(make_model(), tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))
    with pytest.raises(lf.LeanformerError) as raised:
        lf.load(tmp_path)
    assert f"config.json: {message}" in str(raised.value)


def test_a_wrong_type_is_told_of_without_a_study_too() -> None:
    with pytest.raises(lf.LeanformerError, match=r"^baseline.config: qkv_bias is 3; it must be true or false$"):
        fresh_model("vit", {**SHAPES["vit"], "qkv_bias": 3})
