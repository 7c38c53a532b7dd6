"""Makes traced graphs smaller and faster, without changing what they compute.

The time of a small model's step is the number of its operations: each rule here takes some of them away.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript.optimizer import optimize_ir

ANY_SIZE = 2**62


def simplify(model: ir.Model) -> None:
    """Simplifies a graph without subgraphs, as ``torch.onnx.export`` gives it.

    What follows from constants alone, such as a transposed weight, is computed, whatever its size. Reshapes get their
    shapes as constants, products with the same factor become one.
    """
    optimize_ir(model, input_size_limit=ANY_SIZE, output_size_limit=ANY_SIZE)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    for node in list(model.graph):
        _reshape_instead_of_transpose(node)
        _constant_shape(node)
    _join_products(model.graph)
    common.RemoveUnusedNodesPass()(model)
    optimize_ir(model, input_size_limit=ANY_SIZE, output_size_limit=ANY_SIZE)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    common.CommonSubexpressionEliminationPass()(model)


def finish(model: ir.Model) -> None:
    """Simplifies a graph with a loop: what a loop computes alike in each round is computed before it, once.

    Constants are kept in the outer graph, each once.
    """
    for _ in range(2):  # the rounds after a first pass see its constants
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
        common.LiftSubgraphInitializersToMainGraphPass()(model)
        common.IdentityEliminationPass()(model)
        common.DeduplicateInitializersPass(size_limit=ANY_SIZE)(model)
        for node in list(model.graph):
            for attribute in node.attributes.values():
                if attribute.type == ir.AttributeType.GRAPH:
                    _hoist(node, attribute.as_graph())
        common.CommonSubexpressionEliminationPass()(model)
        common.RemoveUnusedNodesPass()(model)
    common.NameFixPass()(model)


def _hoist(loop: ir.Node, body: ir.Graph) -> None:
    """Moves what does not depend on a loop's own values out of its body."""
    assert loop.graph is not None
    own = set(body.inputs)
    kept = set(body.outputs)
    for node in list(body):
        inputs = [value for value in node.inputs if value is not None]
        if any(value in own for value in inputs) or any(value in kept for value in node.outputs):
            own.update(node.outputs)
            continue
        body.remove(node)
        loop.graph.insert_before(loop, node)


def _sizes(value: ir.Value | None) -> list[int | str] | None:
    """The dimensions of a value, those of any size by their names; None where they are not known."""
    if value is None or value.shape is None:
        return None
    return [size if isinstance(size, int) else str(size.value) for size in value.shape]


def _reshape_instead_of_transpose(node: ir.Node) -> None:
    """A transposition that moves dimensions of size one alone, such as a single token's, is a reshape."""
    if node.op_type != "Transpose":
        return
    sizes = _sizes(node.inputs[0])
    order = node.attributes["perm"].as_ints() if "perm" in node.attributes else []
    if sizes is None or not order:
        return
    moved = [dimension for dimension in order if sizes[dimension] != 1]
    if moved != sorted(moved):
        return
    to = [sizes[dimension] for dimension in order]
    if sum(isinstance(size, str) for size in to) > 1:
        return
    _reshape(node, [size if isinstance(size, int) else -1 for size in to])


def _constant_shape(node: ir.Node) -> None:
    """Writes a reshape's shape as constants: 0 for a size that stays in its place, -1 for one other."""
    if node.op_type != "Reshape" or node.inputs[1] is None or node.inputs[1].is_initializer():
        return
    before, after = _sizes(node.inputs[0]), _sizes(node.outputs[0])
    if before is None or after is None:
        return
    shape = [
        size if isinstance(size, int) else 0 if place < len(before) and before[place] == size else -1
        for place, size in enumerate(after)
    ]
    if shape.count(-1) <= 1 and 0 not in after:
        _reshape(node, shape)


def _reshape(node: ir.Node, shape: list[int]) -> None:
    """Puts a reshape to a constant shape in a node's place."""
    assert node.graph is not None
    output = node.outputs[0]
    sizes = _initializer(node.graph, f"{output.name}_shape", np.array(shape, dtype=np.int64))
    new = ir.node("Reshape", [node.inputs[0], sizes])
    new.outputs[0].shape, new.outputs[0].type = output.shape, output.type
    ir.convenience.replace_nodes_and_values(node.graph, node, [node], [new], [output], new.outputs)


def _initializer(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(ir.DataType.from_numpy(array.dtype)))
    value.const_value = ir.tensor(array, name=name)
    graph.register_initializer(value)
    return value


def _join_products(graph: ir.Graph) -> None:
    """Makes products of one value with several constant matrices one product, which is split: queries, keys, values."""
    found: dict[ir.Value, list[ir.Node]] = defaultdict(list)
    for node in graph:
        if node.op_type == "MatMul" and node.inputs[0] is not None and _matrix(node.inputs[1]) is not None:
            found[node.inputs[0]].append(node)
    for factor, products in found.items():
        if len(products) == 1:
            continue
        biases = [_bias_after(node) for node in products]
        weights = [_matrix(node.inputs[1]) for node in products]
        name = products[0].outputs[0].name
        joined = _initializer(graph, f"{name}_weight", np.concatenate(weights, axis=1))
        new = [ir.node("MatMul", [factor, joined])]
        if any(bias is not None for bias in biases):
            whole = [
                np.zeros_like(weight[0]) if bias is None else bias[1]
                for bias, weight in zip(biases, weights, strict=True)
            ]
            new.append(ir.node("Add", [new[-1].outputs[0], _initializer(graph, f"{name}_bias", np.concatenate(whole))]))
        sizes = np.array([weight.shape[1] for weight in weights], dtype=np.int64)
        split = ir.node(
            "Split",
            [new[-1].outputs[0], _initializer(graph, f"{name}_sizes", sizes)],
            attributes={"axis": -1},
            num_outputs=len(products),
        )
        old = [node if bias is None else bias[0] for node, bias in zip(products, biases, strict=True)]
        graph.insert_before(products[0], [*new, split])
        for node, output in zip(old, split.outputs, strict=True):
            output.shape, output.type = node.outputs[0].shape, node.outputs[0].type
            node.outputs[0].replace_all_uses_with(output, replace_graph_outputs=True)


def _matrix(value: ir.Value | None) -> np.ndarray | None:
    """A constant of two dimensions."""
    if value is None or value.const_value is None or len(value.const_value.shape) != 2:
        return None
    return value.const_value.numpy()


def _bias_after(product: ir.Node) -> tuple[ir.Node, np.ndarray] | None:
    """The addition of a constant vector after a product, where the product serves nothing else."""
    uses = product.outputs[0].uses()
    if len(uses) != 1 or product.outputs[0].is_graph_output():
        return None
    node = uses[0].node
    other = node.inputs[1 - uses[0].idx] if node.op_type == "Add" else None
    if other is None or other.const_value is None or len(other.const_value.shape) != 1:
        return None
    return node, other.const_value.numpy()
