"""Makes traced graphs smaller and faster, without changing what they compute.

The time of a small model's step is the number of its operations: each rule here takes some of them away.
"""

from __future__ import annotations

import itertools
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
    _flatten_tokens(model.graph)
    for node in list(model.graph):
        _split_after_reshape(node)
    common.RemoveUnusedNodesPass()(model)
    common.CommonSubexpressionEliminationPass()(model)


def finish(model: ir.Model) -> None:
    """Simplifies a graph with a loop: what a loop computes alike in each round is computed before it, once.

    Constants are kept in the outer graph, each once.
    """
    for node in list(model.graph.all_nodes()):
        _product_with_transposed(node)
    for _ in range(2):  # the rounds after a first pass see its constants
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
        common.LiftSubgraphInitializersToMainGraphPass()(model)
        common.IdentityEliminationPass()(model)
        common.DeduplicateInitializersPass(size_limit=ANY_SIZE)(model)
        for loop, body in _bodies(model.graph):
            _hoist(loop, body)
        common.CommonSubexpressionEliminationPass()(model)
        common.RemoveUnusedNodesPass()(model)
    common.ClearMetadataAndDocStringPass()(model)
    common.NameFixPass()(model)
    _names_of_all_graphs(model)


def _bodies(graph: ir.Graph) -> list[tuple[ir.Node, ir.Graph]]:
    """The loops of a graph, each with its body."""
    return [
        (node, attribute.as_graph())
        for node in graph
        for attribute in node.attributes.values()
        if attribute.type == ir.AttributeType.GRAPH
    ]


def _names_of_all_graphs(model: ir.Model) -> None:
    """Gives what a loop computes names that the graph around it does not have.

    The names of a loop must differ from all around it, from those that come after it too, which ``NameFixPass`` does
    not see (ONNX, "Names within a graph").
    """
    values = [value for node in model.graph for value in node.outputs]
    taken = {value.name for value in [*model.graph.inputs, *model.graph.initializers.values(), *values]}
    for _, body in _bodies(model.graph):
        for value in [*body.inputs, *(value for node in body for value in node.outputs)]:
            if value.name in taken:
                value.name = next(name for n in itertools.count(1) if (name := f"{value.name}_{n}") not in taken)
            taken.add(value.name)


def _product_with_transposed(node: ir.Node) -> None:
    """Multiplies by a matrix that is transposed in the graph, in place of one that the product reads transposed.

    A table of words that is read by rows too, and multiplied with in the loop and before it, is then stored once, and a
    quantizer, which would store it transposed for each product, meets one matrix. The engine transposes it once.
    """
    if node.op_type != "Gemm" or node.inputs[1] is None or not node.inputs[1].is_initializer():
        return
    if node.attributes.get_int("transB", 0) != 1 or node.attributes.get_int("transA", 0) != 0:
        return
    assert node.graph is not None
    transposed = ir.node("Transpose", [node.inputs[1]], {"perm": [1, 0]})
    product = ir.node("MatMul", [node.inputs[0], transposed.outputs[0]])
    new = [transposed, product]
    if len(node.inputs) > 2:
        new.append(ir.node("Add", [product.outputs[0], node.inputs[2]]))
    old, given = node.outputs[0], new[-1].outputs[0]
    given.shape, given.type = old.shape, old.type
    ir.convenience.replace_nodes_and_values(node.graph, node, [node], new, [old], [given])


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
        weights = [matrix for node in products if (matrix := _matrix(node.inputs[1])) is not None]
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
        for node in new:
            output, like = node.outputs[0], products[0].outputs[0]
            output.type = like.type
            if like.shape is not None:
                output.shape = ir.Shape([*like.shape[:-1], int(sizes.sum())])
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


# Operations on each number by itself, and on each token by itself.
_ELEMENTWISE = {
    *("Add", "Clip", "Div", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Max", "Min", "Mul"),
    *("Neg", "Pow", "Reciprocal", "Relu", "Sigmoid", "Softplus", "Softsign", "Sqrt", "Sub", "Tanh", "Mish", "Selu"),
}
_TOKENWISE = {"LayerNormalization", "MatMul", "Softmax", "Split"}


def _flatten_tokens(graph: ir.Graph) -> None:
    """Lets maps of single tokens compute with matrices, (all tokens, channels), in place of (batch, tokens, channels).

    ONNX Runtime multiplies matrices and adds a bias at once, but not with three dimensions, where it joins additions
    and norms instead, in an operation that takes longer than both.
    """
    flat: dict[ir.Value, ir.Value] = {}  # a value of three dimensions -> its matrix
    done: list[ir.Node] = []

    def matrix_of(value: ir.Value, user: ir.Node) -> ir.Value:
        if value not in flat:
            producer, sizes = value.producer(), _sizes(value)
            assert sizes is not None
            if producer is not None and producer.op_type == "Unsqueeze" and sizes[1] == 1:
                matrix = producer.inputs[0]
                assert matrix is not None
            else:
                shape = _initializer(graph, f"{value.name}_matrix", np.array([-1, sizes[2]], dtype=np.int64))
                source: ir.Value | None = value
                while producer is not None and producer.op_type == "Reshape":
                    source = producer.inputs[0]
                    producer = None if source is None else source.producer()
                node = ir.node("Reshape", [source, shape])
                graph.insert_before(user, node)
                matrix = node.outputs[0]
            flat[value] = matrix
        return flat[value]

    for node in list(graph):
        tokens = _tokenwise_over(node, flat)
        if tokens is None:
            continue
        inputs = [matrix_of(value, node) if value in tokens else value for value in node.inputs]
        attributes = {**node.attributes}
        if node.op_type in _TOKENWISE - {"MatMul"}:
            attributes["axis"] = ir.AttrInt64("axis", -1)
        new = ir.node(node.op_type, inputs, attributes, num_outputs=len(node.outputs))
        graph.insert_before(node, new)
        flat.update(zip(node.outputs, new.outputs, strict=True))
        done.append(node)
    replaced = set(done)
    for node in done:
        for value in node.outputs:
            users = [use for use in value.uses() if use.node not in replaced]
            if users or value.is_graph_output():
                _shape_again(graph, value, flat[value], node, [use.node for use in users])
    graph.remove(done, safe=True)


def _tokenwise_over(node: ir.Node, flat: dict[ir.Value, ir.Value]) -> set[ir.Value] | None:
    """The values of three dimensions whose tokens a node maps each by itself; None where it does something else."""
    if node.op_type not in _ELEMENTWISE | _TOKENWISE or node.domain not in ("", "ai.onnx"):
        return None
    whole = _sizes(node.outputs[0])
    if whole is None or len(whole) != 3:
        return None
    tokens: set[ir.Value] = set()
    for place, value in enumerate(node.inputs):
        sizes = _sizes(value)
        if value is None:
            continue
        if sizes is None:
            return None
        if len(sizes) == 3 and sizes[:2] == whole[:2] and isinstance(sizes[2], int) and not value.is_initializer():
            tokens.add(value)
        elif len(sizes) > 1 and not (node.op_type == "MatMul" and place == 1 and _matrix(value) is not None):
            return None
    if node.inputs[0] not in tokens and node.op_type in _TOKENWISE:
        return None
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else -1
    if node.op_type in _TOKENWISE and axis not in (-1, 2):
        return None
    # A node that computes number by number is not worth two reshapes.
    worth = node.op_type in ("MatMul", "LayerNormalization") or any(value in flat for value in tokens)
    return tokens if tokens and worth else None


def _shape_again(graph: ir.Graph, value: ir.Value, matrix: ir.Value, after: ir.Node, users: list[ir.Node]) -> None:
    """Gives those who take a value of three dimensions what they need, made from its matrix."""
    sizes = _sizes(value)
    assert sizes is not None
    for user in users:
        shape = user.inputs[1].const_value if user.op_type == "Reshape" and user.inputs[1] is not None else None
        if user.op_type == "Squeeze" and sizes[1] == 1:
            user.outputs[0].replace_all_uses_with(matrix, replace_graph_outputs=True)
        elif shape is not None and 0 not in shape.numpy()[1:]:
            user.replace_input_with(0, matrix)
    if not value.uses() and not value.is_graph_output():
        return
    names = [size for size in sizes[:2] if isinstance(size, str)]
    if len(names) < 2:
        constant = np.array([size if isinstance(size, int) else -1 for size in sizes], dtype=np.int64)
        shape_of: ir.Value = _initializer(graph, f"{value.name}_tokens", constant)
        new = []
    else:
        lengths = []
        for name in names:
            source, dimension = _sized(graph, name)
            lengths.append(ir.node("Shape", [source], {"start": dimension, "end": dimension + 1}))
        channels = _initializer(graph, f"{value.name}_channels", np.array([sizes[2]], dtype=np.int64))
        joined = ir.node("Concat", [*(node.outputs[0] for node in lengths), channels], {"axis": 0})
        new, shape_of = [*lengths, joined], joined.outputs[0]
    new.append(ir.node("Reshape", [matrix, shape_of]))
    output = new[-1].outputs[0]
    output.shape, output.type = value.shape, value.type
    graph.insert_after(after, new)
    value.replace_all_uses_with(output, replace_graph_outputs=True)


def _sized(graph: ir.Graph, name: str) -> tuple[ir.Value, int]:
    """An input that has a size of this name, and in which dimension."""
    for value in graph.inputs:
        sizes = _sizes(value) or []
        if name in sizes:
            return value, sizes.index(name)
    raise ValueError(f"no input has a dimension {name}")


def _split_after_reshape(node: ir.Node) -> None:
    """Reshapes a token once before it is split into parts of whole heads, in place of each part afterwards."""
    if node.op_type != "Split" or len(node.inputs) < 2 or node.inputs[1] is None or node.inputs[1].const_value is None:
        return
    assert node.graph is not None
    sizes = [int(size) for size in node.inputs[1].const_value.numpy()]
    reshapes = []
    for output in node.outputs:
        uses = list(output.uses())
        if len(uses) != 1 or uses[0].node.op_type != "Reshape" or output.is_graph_output():
            return
        reshapes.append(uses[0].node)
    shapes = [
        None if r.inputs[1] is None or r.inputs[1].const_value is None else r.inputs[1].const_value.numpy()
        for r in reshapes
    ]
    first = shapes[0]
    if first is None or any(shape is None or list(shape) != list(first) for shape in shapes):
        return
    if len(first) != 4 or first[0] not in (0, -1) or first[2] != 1 or min(first[1], first[3]) < 1:
        return
    width = int(first[3])
    heads = [size // width for size in sizes]
    name = node.outputs[0].name
    shape = _initializer(node.graph, f"{name}_heads", np.array([-1, sum(heads), 1, width], dtype=np.int64))
    whole = ir.node("Reshape", [node.inputs[0], shape])
    each = _initializer(node.graph, f"{name}_each", np.array(heads, dtype=np.int64))
    split = ir.node("Split", [whole.outputs[0], each], {"axis": 1}, num_outputs=len(heads))
    node.graph.insert_before(node, [whole, split])
    for reshape, output in zip(reshapes, split.outputs, strict=True):
        output.shape, output.type = reshape.outputs[0].shape, reshape.outputs[0].type
        reshape.outputs[0].replace_all_uses_with(output, replace_graph_outputs=True)


def _matrix(value: ir.Value | None) -> np.ndarray | None:
    """A constant of two dimensions."""
    if value is None or value.const_value is None or len(value.const_value.shape) != 2:
        return None
    return value.const_value.numpy()


def _bias_after(product: ir.Node) -> tuple[ir.Node, np.ndarray] | None:
    """The addition of a constant vector after a product, where the product serves nothing else."""
    uses = list(product.outputs[0].uses())
    if len(uses) != 1 or product.outputs[0].is_graph_output():
        return None
    node = uses[0].node
    other = node.inputs[1 - uses[0].idx] if node.op_type == "Add" else None
    if other is None or other.const_value is None or len(other.const_value.shape) != 1:
        return None
    return node, other.const_value.numpy()
