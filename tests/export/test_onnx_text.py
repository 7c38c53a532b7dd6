"""Translators as graphs: what they write in ONNX Runtime is what ``generate`` writes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from cases import some
from transformers import PreTrainedModel
from written_graphs import check_graph, check_steps, generated, sources

import leanformer as lf
from leanformer.blocks.kit.base import BLOCKS
from leanformer.config.translation import TokenizerConfig
from leanformer.core.errors import LeanformerError
from leanformer.data.tokenizers import train_tokenizer
from leanformer.export.base import FORMATS
from leanformer.export.graphs.translator import TranslatorGraphs
from leanformer.export.run import Samples, export_model

MakeModel = Callable[..., PreTrainedModel]
Plan = dict[str, Any]

PADDING, POSITIONS = 1, 64  # the padding of ``make_translator``, and more positions

# Every block at every kind of site of a translator, at all such sites of the encoder and the decoder at once.
KINDS = (
    *("self_attention", "cross_attention", "mlp", "layer"),
    *("self_attention_sublayer", "cross_attention_sublayer"),
)
EVERYWHERE: dict[str, Plan] = {
    f"{name} at {kind}": {f"*.{kind}": name}
    for name, block in BLOCKS.items()
    for kind in KINDS
    if kind in block.kinds and not block.keeps(block.Arguments())
}
# Their forms that compute in another way.
FORMS: dict[str, Plan] = {
    "feed_forward, padding in norm": {"*attention": {"block": "feed_forward", "hidden": 9, "padding_in_norm": True}},
    "feed_forward, a head each": {"*attention": {"block": "feed_forward", "hidden": 5, "per_head": True}},
    "feed_forward, token": {"decoder.*.cross_attention": {"block": "feed_forward", "reads": "token", "hidden": 9}},
    "feed_forward, gate": {"decoder.*.layer": {"block": "feed_forward", "reads": "token", "gate": True, "hidden": 9}},
    "feed_forward, low rank": {"*attention": {"block": "feed_forward", "hidden": 9, "rank": 2}},
    "minimal, all matrices": {"*attention": {"block": "minimal_attention", "qk": "separate", "vo": "separate"}},
    "minimal, symmetric": {
        "*attention": {"block": "minimal_attention", "qk": "symmetric", "qk_norm": True, "temperature": True}
    },
    "minimal, relative": {"*.self_attention": {"block": "minimal_attention", "positions": "relative"}},
    "minimal, near": {
        "*.self_attention": {"block": "minimal_attention", "heads": 1, "positions": "relative", "max_distance": 3}
    },
    "mixer, absolute": {"encoder.*.self_attention": {"block": "mixer", "positions": "absolute"}},
    "mixer, near": {"*.self_attention": {"block": "mixer", "max_distance": 3}},
    "slots, linear gate": {"*attention": {"block": "slots", "slots": 3, "gate": "linear"}},
    "slots, low rank": {"*attention": {"block": "slots", "slots": 3, "gate": "linear", "rank": 2}},
    "slots, positions": {"*.self_attention": {"block": "slots", "slots": 3, "positions": "sinusoidal"}},
    "synthesizer, near": {"*.self_attention": {"block": "synthesizer", "max_distance": 3, "positions": "sinusoidal"}},
    "synthesizer, source": {"*attention": {"block": "synthesizer", "source_score": "linear"}},
    "some heads": {"*attention": {"block": "slots", "heads": [0, 2], "slots": 3}},
    "some heads of mixers": {"*.self_attention": {"block": "mixer", "heads": [1], "max_distance": 3}},
    "mlp, narrow": {"*.mlp": {"block": "mlp", "hidden": 5}},
}
PLANS = {"teacher": {}, **EVERYWHERE, **FORMS}
# Every block, and every kind of site; all others are among the slow tests.
QUICK = (
    *("teacher", "average at cross_attention", "feed_forward at self_attention_sublayer", "feed_forward at layer"),
    *("linear_attention at self_attention", "minimal_attention at cross_attention", "mixer at self_attention"),
    *("none at layer", "slots at cross_attention", "ssru at self_attention", "synthesizer at cross_attention"),
    *("feed_forward, gate", "minimal, near", "slots, positions", "some heads", "mlp, narrow"),
)


@pytest.fixture
def make(make_translator: MakeModel) -> Callable[..., PreTrainedModel]:
    """A tiny translator of one layer each, or its student, whose new weights are far from their initial values."""

    def made(plan: Plan, family: str = "marian", **settings: Any) -> PreTrainedModel:
        sizes = {"encoder_layers": 1, "decoder_layers": 1, "max_position_embeddings": POSITIONS}
        model = make_translator(family, **{**sizes, **settings})
        if not plan:
            return model
        try:
            model = lf.reduce(model, plan)
        except LeanformerError:  # a block may be for a decoder alone
            model = lf.reduce(model, {site.replace("*", "decoder.*", 1): block for site, block in plan.items()})
        generator = torch.Generator().manual_seed(1)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
        return model.eval()

    return made


def body_of(graph: onnx.ModelProto) -> onnx.GraphProto:
    """The body of the loop."""
    (loop,) = (node for node in graph.graph.node if node.op_type == "Loop")
    return next(attribute.g for attribute in loop.attribute if attribute.name == "body")


@pytest.mark.parametrize("plan", some(PLANS, *QUICK))
def test_steps_of_a_graph_are_the_models(plan: str, make: MakeModel) -> None:
    check_steps(make(PLANS[plan]))


@pytest.mark.long
def test_a_graph_writes_what_the_model_writes(make: MakeModel) -> None:
    # As little as is enough, because tracing takes seconds: a block's state and an attention that reads the source.
    plan = {"encoder.0.layer": "none", "decoder.0.self_attention": "slots", "decoder.0.mlp": "none"}
    # A decoder with words of its own, of which two are never written.
    model = make(plan, decoder_vocab_size=30, share_encoder_decoder_embeddings=False)
    model.generation_config.bad_words_ids = [[PADDING], [7]]
    graph = check_graph(model)
    outer, body = graph.graph, body_of(graph)
    assert not body.initializer  # what the steps share with the encoder's graph is stored once
    assert len(body.node) < 60
    stored = sum(int(np.prod(tensor.dims)) for tensor in outer.initializer)
    numbers = sum(parameter.numel() for parameter in model.parameters())
    assert stored < 1.1 * numbers + 200
    assert all(len(tensor.dims) <= 2 for tensor in outer.initializer if np.prod(tensor.dims) > 200)


@pytest.mark.long
@pytest.mark.parametrize("plan", PLANS)
def test_graphs_of_all_blocks_write_what_the_models_write(plan: str, make: MakeModel) -> None:
    check_graph(make(PLANS[plan]))


@pytest.mark.long
@pytest.mark.parametrize("plan", [{}, {"*attention": {"block": "slots", "slots": 3}}, {"decoder.1.layer": "none"}])
def test_graphs_of_bart_write_what_the_models_write(plan: Plan, make: MakeModel) -> None:
    model = make(plan, "bart", encoder_layers=2, decoder_layers=2)
    model.generation_config.suppress_tokens = [9, 11]
    model.generation_config.begin_suppress_tokens = [int(generated(model, *sources(model, 1, 12), 5)[0][0, 0])]
    check_graph(model)


@pytest.mark.long
def test_a_first_token_may_be_forced(make: MakeModel) -> None:
    model = make({})
    model.generation_config.forced_bos_token_id = 5
    graph = TranslatorGraphs(model).graph()
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    ids, mask = sources(model, 3, 6)
    inputs = {"input_ids": ids.numpy(), "attention_mask": mask.numpy(), "max_new_tokens": np.array(9)}
    (tokens,) = session.run(None, inputs)
    assert tokens.tolist() == generated(model, ids, mask, 9)[0].tolist()
    assert set(tokens[:, 0]) == {5}


@pytest.mark.long
def test_a_model_whose_first_token_is_forced_passes_the_gate(make: MakeModel, tmp_path: Path) -> None:
    sentences = ["eins zwei drei", "vier", "zwei drei vier fünf", "drei drei"] * 3
    tokenizer = train_tokenizer(TokenizerConfig(vocabulary=280), sentences, sentences)
    marks = {"pad_token_id": tokenizer.pad_id, "decoder_start_token_id": tokenizer.pad_id}
    size = tokenizer.source_vocabulary
    model = make({}, "bart", vocab_size=size, encoder_layers=1, decoder_layers=1, **marks)
    model.generation_config.update(forced_bos_token_id=5, bad_words_ids=[[tokenizer.pad_id]], **marks)
    lf.save(model, tmp_path / "model")
    tokenizer.save(tmp_path / "model")
    samples = Samples(sentences, "of this test")
    written = export_model(lf.load(tmp_path / "model"), str(tmp_path / "model"), samples, tmp_path / "it", to="onnx")
    assert (written.parity.inputs, written.parity.agreement) == (len(sentences), 1.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"repetition_penalty": 1.5}, "generation_config.json sets repetition_penalty: 1.5, which an exported model"),
        ({"min_length": 3}, "generation_config.json sets min_length: 3, which an exported model would not follow"),
        ({"bad_words_ids": [[1], [3, 4]]}, r"bad_words_ids with \[3, 4\], several subwords"),
    ],
)
def test_settings_that_a_graph_does_not_follow(settings: dict[str, Any], message: str, make: MakeModel) -> None:
    model = make({})
    model.generation_config.update(**settings)
    with pytest.raises(LeanformerError, match=message):
        FORMATS["onnx"].check(model, "float32")


def test_a_model_that_reads_almost_nothing(make: MakeModel) -> None:
    model = make({"encoder.0.self_attention": {"block": "feed_forward", "max_length": 2}})
    with pytest.raises(LeanformerError, match="the model reads at most 2 tokens, and a graph is made for 3 or more"):
        TranslatorGraphs(model)
