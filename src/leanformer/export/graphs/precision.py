"""Weights of a finished graph in other precisions: int8 and float16."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx

PRODUCTS = ("MatMul", "Gemm")


def to_int8(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Weights of products and embeddings in int8, a scale for each output channel or row; inputs of products in uint8.

    The inputs' scales follow from their numbers at each call. Of 8 bits the weights use 7: where a processor has no
    instruction for such products (x86 before VNNI), sums of two products of 8 bits do not fit the 16 that it has.
    Biases, norms, positions, convolutions, and products of a batch of matrices stay in float32.

    Args:
        graph: In float32. It is not changed.

    Source: ONNX Runtime, "Quantize ONNX models", dynamic quantization.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    graph = _with_plain_weights(graph)
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "int8.onnx"
        disabled = logging.root.manager.disable
        logging.disable(logging.WARNING)  # it recommends what was done already
        try:
            quantize_dynamic(
                graph,
                file,
                op_types_to_quantize=list(PRODUCTS),
                per_channel=True,
                reduce_range=True,
                weight_type=QuantType.QInt8,
                extra_options={"EnableSubgraph": True, "MatMulConstBOnly": True},
            )
        finally:
            logging.disable(disabled)
        quantized = onnx.load(file)
    _quantize_embeddings(quantized, graph)
    del quantized.graph.value_info[:]
    return quantized


def to_float16(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Weights and what is computed in float16, where the engine has it; inputs and outputs stay float32.

    Args:
        graph: In float32. It is not changed.
    """
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    half: onnx.ModelProto = convert_float_to_float16(copy, keep_io_types=True)
    del half.graph.value_info[:]
    return half


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and those within its nodes, such as the bodies of loops."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g)


def _with_plain_weights(graph: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which the right factor of a product is a stored matrix wherever it is made of weights alone.

    A quantizer sees nothing else. Such are triangular matrices, which are stored by their numbers.
    """
    import onnx
    from onnx import numpy_helper

    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    made = _computed(copy, [node.input[1] for node in copy.graph.node if node.op_type in PRODUCTS])
    for name, array in made.items():
        copy.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
    kept = [node for node in copy.graph.node if not made.keys() & set(node.output)]
    del copy.graph.node[:]
    copy.graph.node.extend(kept)
    return _without_unused(copy)


def _computed(graph: onnx.ModelProto, names: list[str]) -> dict[str, NDArray[Any]]:
    """Those of some tensors that follow from constants alone, and are matrices."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    constant = {tensor.name for tensor in graph.graph.initializer}
    nodes = []
    for node in graph.graph.node:
        if constant.issuperset(filter(None, node.input)) and not any(a.HasField("g") for a in node.attribute):
            constant.update(node.output)
            nodes.append(node)
    wanted = sorted(constant.intersection(names) - {tensor.name for tensor in graph.graph.initializer})
    if not wanted:
        return {}
    part = onnx.helper.make_graph(
        nodes,
        "weights",
        [],
        [onnx.helper.make_empty_tensor_value_info(name) for name in wanted],
        graph.graph.initializer,
    )
    model = onnx.helper.make_model(part, opset_imports=graph.opset_import, ir_version=graph.ir_version)
    made = dict(zip(wanted, ReferenceEvaluator(model).run(None, {}), strict=True))
    return {name: array for name, array in made.items() if array.ndim == 2}


def _without_unused(graph: onnx.ModelProto) -> onnx.ModelProto:
    import onnx_ir as ir
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    model = ir.from_proto(graph)
    RemoveUnusedNodesPass()(model)
    return ir.to_proto(model)


def _quantize_embeddings(quantized: onnx.ModelProto, graph: onnx.ModelProto) -> None:
    """Puts tables that rows are taken from in int8, with a scale for each row.

    Where a table is also the weight of a product, transposed, as embeddings are that serve as output weights too, both
    share the numbers: the engine transposes them once, when it opens the graph.

    Args:
        quantized: Whose products are quantized already. It is changed.
        graph: The same before that.
    """
    from onnx import helper, numpy_helper

    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
    weights = {
        node.input[1]
        for part in _graphs(graph.graph)
        for node in part.node
        if node.op_type in PRODUCTS and node.input[1] in arrays
    }
    stored = {tensor.name: tensor for tensor in quantized.graph.initializer}
    tables: dict[str, tuple[str, str]] = {}  # table -> its numbers and its scales
    for part in _graphs(quantized.graph):
        for node in [node for node in part.node if _reads_rows(node, stored)]:
            table = node.input[0]
            if table not in tables:
                twin = next((name for name in sorted(weights) if np.array_equal(arrays[name], arrays[table].T)), None)
                tables[table] = _own_rows(quantized, arrays[table], table) if twin is None else _shared(quantized, twin)
            numbers, scales = tables[table]
            at, output = list(part.node).index(node), node.output[0]
            rows = [f"{output}_rows_{what}" for what in ("int8", "float", "scale")]
            part.node.remove(node)
            for offset, new in enumerate(
                (
                    helper.make_node("Gather", [numbers, node.input[1]], [rows[0]]),
                    helper.make_node("Cast", [rows[0]], [rows[1]], to=1),
                    helper.make_node("Gather", [scales, node.input[1]], [rows[2]]),
                    helper.make_node("Mul", [rows[1], rows[2]], [output]),
                )
            ):
                part.node.insert(at + offset, new)
    used = {name for part in _graphs(quantized.graph) for node in part.node for name in node.input}
    for table in tables.keys() - used:
        quantized.graph.initializer.remove(stored[table])


def _reads_rows(node: onnx.NodeProto, stored: Mapping[str, onnx.TensorProto]) -> bool:
    """Whether a node takes rows of a stored matrix of float32."""
    table = stored.get(node.input[0]) if node.op_type == "Gather" else None
    if table is None or table.data_type != 1 or len(table.dims) != 2:
        return False
    return all(attribute.name != "axis" or attribute.i == 0 for attribute in node.attribute)


def _own_rows(graph: onnx.ModelProto, table: NDArray[np.float32], name: str) -> tuple[str, str]:
    """Stores a table in int8, and its rows' scales, shape (rows, 1); returns their names."""
    from onnx import numpy_helper

    scales = np.maximum(np.abs(table).max(axis=1, keepdims=True) / 127, np.finfo(np.float32).tiny)
    numbers = np.rint(table / scales).astype(np.int8)
    names = f"{name}_rows", f"{name}_rows_scale"
    for tensor, its in zip((numbers, scales.astype(np.float32)), names, strict=True):
        graph.graph.initializer.append(numpy_helper.from_array(tensor, its))
    return names


def _shared(graph: onnx.ModelProto, weight: str) -> tuple[str, str]:
    """Stores a quantized weight of products, shape (d, rows), by its rows, and gives the names as ``_own_rows``."""
    from onnx import helper, numpy_helper

    stored = {tensor.name: tensor for tensor in graph.graph.initializer}
    names = f"{weight}_rows", f"{weight}_rows_scale"
    # The names that quantize_dynamic gives.
    for old, new in zip((f"{weight}_quantized", f"{weight}_scale"), names, strict=True):
        array = numpy_helper.to_array(stored[old])
        graph.graph.initializer.remove(stored[old])
        array = array.T if array.ndim == 2 else array[:, None]
        graph.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), new))
    graph.graph.initializer.append(numpy_helper.from_array(np.array([-1]), f"{weight}_flat"))
    graph.graph.node.insert(0, helper.make_node("Transpose", [names[0]], [f"{weight}_quantized"], perm=[1, 0]))
    graph.graph.node.insert(0, helper.make_node("Reshape", [names[1], f"{weight}_flat"], [f"{weight}_scale"]))
    return names
