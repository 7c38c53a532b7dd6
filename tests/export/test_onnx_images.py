"""Image classifiers as ONNX graphs: each block, run by ONNX Runtime, answers as PyTorch does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from transformers import PreTrainedModel

from leanformer.blocks.kit.base import BLOCKS, blocks_at
from leanformer.core.errors import LeanformerError
from leanformer.export.base import FORMATS
from leanformer.export.graphs.classifier import classifier_graph
from leanformer.export.graphs.precision import to_float16, to_int8
from leanformer.model.students import outline_of_student, reduce

MakeModel = Callable[..., PreTrainedModel]

KINDS = ("self_attention", "self_attention_sublayer", "layer", "mlp")
BATCHES = (1, 2, 5)
# A file holds the nodes besides the weights: at most this many bytes for each layer of a model.
GRAPH_OF_LAYER = 12_000


def forms(block: str) -> Iterator[dict[str, Any]]:
    """A block with its defaults, and with each other choice that one argument gives; some do not fit a site."""
    yield {}
    for name, field in BLOCKS[block].Arguments.model_fields.items():
        choices: list[Any] = []
        if get_origin(field.annotation) is Literal:
            choices = list(get_args(field.annotation))
        elif field.annotation is bool:
            choices = [not field.default]
        elif name == "heads":
            choices = [1, [2, 0]]
        elif name in ("rank", "groups", "hidden", "max_distance"):
            choices = [2]
        yield from ({name: choice} for choice in choices if choice != field.default)


def fits(model: PreTrainedModel, site: str, entry: Any) -> bool:
    try:
        outline_of_student(model, {site: entry})
    except LeanformerError:
        return False
    return True


def answers(graph: onnx.ModelProto, images: torch.Tensor) -> torch.Tensor:
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["logits"], {"pixel_values": images.numpy()})[0])


def images_for(model: PreTrainedModel, batch: int) -> torch.Tensor:
    size = model.config.image_size
    return torch.randn(batch, model.config.num_channels, size, size)


def operations(graph: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in graph.graph.node)


def check(model: PreTrainedModel) -> onnx.ModelProto:
    """Exports a model, and checks its answers to several batches, and its size."""
    graph = classifier_graph(model)
    for batch in BATCHES:
        images = images_for(model, batch)
        with torch.inference_mode():
            expected = model(images).logits
        torch.testing.assert_close(answers(graph, images), expected, atol=1e-4, rtol=1e-5)
    weights = sum(parameter.numel() for parameter in model.parameters()) * 4
    assert graph.ByteSize() <= 1.1 * weights + GRAPH_OF_LAYER * (len(model.base_model.layers) + 1)
    return graph


def test_answers_are_as_in_pytorch_for_any_batch(make_model: MakeModel) -> None:
    plan: dict[str, Any] = {
        "encoder.0.self_attention": {"block": "minimal_attention", "qk": "symmetric"},
        "encoder.0.mlp": "none",
        "encoder.1.self_attention": {"block": "mixer", "positions": "grid"},
        "encoder.1.mlp": "none",
    }
    student = reduce(make_model(num_hidden_layers=3), plan)  # the last layer is a whole one
    graph = check(student)
    # Sizes are known but for the batch: nothing computes them, besides the class token's repetition for each image.
    assert operations(graph)["Shape"] <= 1
    images = images_for(student, 8)
    expected = answers(graph, images)
    for other in (to_int8(graph), to_float16(graph)):
        assert 0 < (answers(other, images) - expected).std() < 0.2 * expected.std()


@pytest.mark.long
def test_every_block_in_place_of_attention(make_model: MakeModel) -> None:
    teacher = make_model(num_hidden_layers=1)
    blocks = [block for block in blocks_at("self_attention") if fits(teacher, "encoder.0.self_attention", block)]
    assert len(blocks) >= 9  # all but those that are for decoders alone
    plan = {f"encoder.{number}.self_attention": block for number, block in enumerate(blocks)}
    graph = check(reduce(make_model(num_hidden_layers=len(blocks)), {"*.mlp": "none"} | plan))
    assert operations(graph)["Shape"] <= 1


@pytest.mark.long
@pytest.mark.parametrize("pooling", ["class_token", "mean"])
def test_a_whole_model_that_is_not_reduced(pooling: str, make_model: MakeModel) -> None:
    model = make_model(
        "deit", num_hidden_layers=2, num_channels=3, patch_size=2
    )  # 66 tokens: PyTorch's fused attention
    graph = check(model if pooling == "class_token" else reduce(model, {"pooling": "mean"}))
    found = operations(graph)
    assert (found["LayerNormalization"], found["Softmax"], found["Gelu"]) == (5, 2, 2)
    assert found["Conv"] + found["Where"] + found["IsNaN"] + found["Shape"] <= 1


@pytest.mark.long
def test_the_last_layer_computes_the_class_token_alone(make_model: MakeModel) -> None:
    graph = onnx.shape_inference.infer_shapes(classifier_graph(make_model(num_hidden_layers=2)), data_prop=True)
    shapes = {
        value.name: [size.dim_value for size in value.type.tensor_type.shape.dim] for value in graph.graph.value_info
    }
    tokens = [shapes[node.output[0]][-2] for node in graph.graph.node if node.op_type in ("Softmax", "Gelu")]
    assert tokens == [17, 17, 1, 1]


@pytest.mark.long
@pytest.mark.parametrize(
    ("plan", "settings"),
    [
        # d (d + 1) / 2 numbers, not d²; no table of their places.
        ({"*.self_attention": {"block": "minimal_attention", "qk": "symmetric"}, "*.mlp": "none"}, {"hidden_size": 96}),
        # Weights of the distances, not of the 144² pairs of patches, by products and by a convolution.
        ({"*.self_attention": {"block": "mixer", "positions": "grid"}}, {"patch_size": 2, "image_size": 24}),
        (
            {"*.self_attention": {"block": "mixer", "positions": "grid", "max_distance": 2}},
            {"patch_size": 2, "image_size": 24},
        ),
    ],
)
def test_what_follows_from_weights_is_not_stored(
    plan: dict[str, Any], settings: dict[str, Any], make_model: MakeModel
) -> None:
    check(reduce(make_model(num_hidden_layers=1, **settings), plan))


@pytest.mark.long
def test_int8_holds_all_large_weights(make_model: MakeModel) -> None:
    model = make_model(num_hidden_layers=4, hidden_size=64, intermediate_size=256, patch_size=8)
    student = reduce(
        model,
        {
            "encoder.0.self_attention": {"block": "minimal_attention", "qk": "symmetric", "vo": "collapsed"},
            "encoder.1.self_attention": {"block": "feed_forward", "hidden": 64, "max_length": 5},
            "encoder.2.self_attention": {"block": "slots", "slots": 32},
        },
    )
    with torch.no_grad():
        for parameter in student.parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.randn_like(parameter) * parameter.shape[-1] ** -0.5)
    graph = classifier_graph(student)
    before = graph.SerializeToString()
    quantized = to_int8(graph)
    assert graph.SerializeToString() == before  # it is not changed
    assert quantized.ByteSize() < 0.4 * graph.ByteSize()
    large = [
        t for t in quantized.graph.initializer if t.data_type == onnx.TensorProto.FLOAT and np.prod(t.dims) > 2_000
    ]
    assert not large, [tensor.name for tensor in large]
    assert operations(quantized)["MatMulInteger"] >= 4 * 3
    assert operations(quantized)["MatMul"] <= 2 * 4  # of tokens with one another
    images = images_for(student, 32)
    with torch.inference_mode():
        expected = student(images).logits
    assert (answers(quantized, images) - expected).std() < 0.05 * expected.std()


@pytest.mark.long
def test_float16_halves_the_file_and_keeps_inputs_and_outputs(make_model: MakeModel) -> None:
    model = make_model(num_hidden_layers=2, hidden_size=64)
    graph = classifier_graph(model)
    half = to_float16(graph)
    assert half.ByteSize() < 0.6 * graph.ByteSize()
    images = images_for(model, 8)
    with torch.inference_mode():
        expected = model(images).logits
    difference = answers(half, images) - expected  # from float32 to float32
    assert 0 < difference.std() < 0.01 * expected.std()


def embedding_graph(tied: bool) -> onnx.ModelProto:
    """Words -> the scores of all words, by a table of embeddings and a product inside a loop of one round."""
    rng = np.random.default_rng(0)
    table = rng.standard_normal((50, 16)).astype(np.float32) * np.linspace(0.1, 5, 50, dtype=np.float32)[:, None]
    output = table.T if tied else rng.standard_normal((16, 50)).astype(np.float32)
    helper, of = onnx.helper, onnx.helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "words"], ["embedded"]),
            helper.make_node("MatMul", ["embedded", "weight"], ["scores"]),
            helper.make_node("Identity", ["going"], ["on"]),
        ],
        "body",
        [of("round", 7, []), of("going", 9, []), of("before", 1, ["batch", 50])],
        [of("on", 9, []), of("scores", 1, ["batch", 50])],
    )
    graph = helper.make_graph(
        [helper.make_node("Loop", ["rounds", "", "start"], ["logits"], body=body)],
        "embedding",
        [of("words", 7, ["batch"])],
        [of("logits", 1, ["batch", 50])],
        [
            onnx.numpy_helper.from_array(table, "table"),
            onnx.numpy_helper.from_array(np.ascontiguousarray(output), "weight"),
            onnx.numpy_helper.from_array(np.array(1), "rounds"),
            onnx.numpy_helper.from_array(np.zeros((1, 50), np.float32), "start"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.mark.parametrize("tied", [False, True])
def test_int8_embeddings_inside_a_loop_share_the_numbers_of_tied_weights(tied: bool) -> None:
    graph = embedding_graph(tied)
    quantized = to_int8(graph)
    assert all(np.prod(t.dims) <= 50 for t in quantized.graph.initializer if t.data_type == onnx.TensorProto.FLOAT)
    tables = [t for t in quantized.graph.initializer if t.data_type == onnx.TensorProto.INT8 and len(t.dims) == 2]
    assert len(tables) == (1 if tied else 2)
    sessions = [
        onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        for model in (quantized, graph)
    ]
    for word in range(50):  # rows of the table differ in size by a factor of 50, and each has its own scale
        scores, expected = (session.run(None, {"words": np.array([word])})[0] for session in sessions)
        assert np.abs(scores - expected).max() < 0.03 * np.abs(expected).max()


@pytest.mark.long
def test_the_format_writes_one_file(make_model: MakeModel, tmp_path: Path) -> None:
    model = make_model(num_hidden_layers=1)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    FORMATS["onnx"].write(model, tmp_path, "float32")
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    images = images_for(model, 3)
    with torch.inference_mode():
        expected = model(images).logits
    torch.testing.assert_close(answers(onnx.load(tmp_path / "model.onnx"), images), expected, atol=1e-4, rtol=1e-5)
    assert all(torch.equal(weights[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.long
@pytest.mark.parametrize("family", ["vit", "deit"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_form_of_every_block(kind: str, family: str, make_model: MakeModel) -> None:
    teacher = make_model(family, num_hidden_layers=1)
    entries = [{"block": block, **form} for block in blocks_at(kind) for form in forms(block)]
    entries = [entry for entry in entries if fits(teacher, f"encoder.0.{kind}", entry)]
    assert {entry["block"] for entry in entries} == {
        block for block in blocks_at(kind) if fits(teacher, f"encoder.0.{kind}", block)
    }
    for first in range(0, len(entries), 8):
        some = entries[first : first + 8]
        model = make_model(family, num_hidden_layers=len(some) + 1)  # the last layer gives the class token alone
        check(reduce(model, {f"encoder.{number}.{kind}": entry for number, entry in enumerate(some)}))


@pytest.mark.long
def test_every_block_gives_the_class_token_alone(make_model: MakeModel) -> None:
    for block in blocks_at("self_attention"):
        model = make_model(num_hidden_layers=1)
        if fits(model, "encoder.0.self_attention", block):
            check(reduce(model, {"encoder.0.self_attention": block}))
