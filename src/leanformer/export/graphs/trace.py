"""From a module of PyTorch to a small ONNX graph: as few nodes as can be, and no constant that a weight can give."""

from __future__ import annotations

import io
import logging
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    import onnx_ir as ir

OPSET = 20
"""The first with ``Gelu``."""

FEW_BYTES = 1024
"""A constant of this size is not worth the node that would make it."""


def trace(
    module: nn.Module, inputs: Mapping[str, torch.Tensor], dynamic: Mapping[str, Any], outputs: Sequence[str]
) -> ir.Model:
    """Traces a module to a graph without needless nodes and constants.

    It is in evaluation mode, and its attention best in plain products: fused forms bring masks of their own. What is
    computed from weights alone is stored only where that is no larger than the weights; an engine computes the rest
    once, when it opens the graph.

    Args:
        module: Called as ``module(**inputs)``; gives a tensor, or a tuple of them.
        inputs: Name -> an example.
        dynamic: Name of an input -> its dynamic dimensions, as ``torch.export`` takes them.
        outputs: Their names.
    """
    with quiet(), torch.no_grad():
        # In two steps: from a module, the second would freeze a dimension that it cannot keep dynamic.
        exported = torch.export.export(module, (), dict(inputs), dynamic_shapes=dict(dynamic))
        program = torch.onnx.export(
            exported,
            input_names=list(inputs),
            output_names=list(outputs),
            opset_version=OPSET,
            dynamo=True,
            optimize=False,  # its limits are on sizes, whatever the growth
            verbose=False,
        )
        assert program is not None
        simplify(program.model)
    return program.model


def simplify(model: ir.Model) -> None:
    """Folds constants where that does not make the file larger, and removes nodes that compute known shapes."""
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass
    from onnxscript.optimizer import optimize_ir

    optimize_ir(model, should_fold=_is_not_larger)
    _settle_shapes(model)
    _unstack(model)
    optimize_ir(model, should_fold=_is_not_larger)
    ClearMetadataAndDocStringPass()(model)  # the lines of Python that each node comes from: as large as a small model


def _is_not_larger(node: ir.Node) -> bool:
    """Whether a node's output, computed from constants, takes no more bytes than the constants, which then can go."""
    after = sum(_bytes(value) for value in node.outputs)
    before = sum(_bytes(value) for value in node.inputs if value is not None and len(value.uses()) == 1)
    return after <= max(before, FEW_BYTES)


def _bytes(value: ir.Value) -> float:
    """The size of a tensor of known shape and type; of another, infinite."""
    if value.const_value is not None:
        return value.const_value.nbytes
    if value.shape is None or value.dtype is None or not value.shape.is_static():
        return math.inf
    return math.prod(value.shape.numpy()) * value.dtype.itemsize


def _settle_shapes(model: ir.Model) -> None:
    """Writes the target of every ``Reshape`` with one dynamic dimension as a constant, with -1 for that dimension.

    Traced, such a target is put together from the input's sizes at each call.
    """
    import onnx_ir as ir

    for node in model.graph.all_nodes():
        shape = node.outputs[0].shape
        if node.op_type != "Reshape" or shape is None or node.inputs[1] is None or node.inputs[1].const_value:
            continue
        sizes = [size if isinstance(size, int) else -1 for size in shape]
        if sizes.count(-1) > 1 or 0 in sizes:
            continue
        constant = ir.node("Constant", [], {"value_ints": sizes})
        assert node.graph is not None
        node.graph.insert_before(node, constant)
        node.replace_input_with(1, constant.outputs[0])


def _unstack(model: ir.Model) -> None:
    """Stores the weight of a product that is a stack of one matrix as the matrix: quantizers take no others."""
    import onnx_ir as ir

    for node in model.graph.all_nodes():
        if node.op_type != "MatMul":
            continue
        states, weight = node.inputs
        assert states is not None
        assert weight is not None
        stack = weight.const_value
        if stack is None or states.shape is None or len(states.shape) < 3 or len(stack.shape) != 3:
            continue
        if stack.shape[0] == 1:
            matrix = ir.node("Constant", [], {"value": ir.tensor(stack.numpy()[0])})
            assert node.graph is not None
            node.graph.insert_before(node, matrix)
            node.replace_input_with(1, matrix.outputs[0])


@contextmanager
def quiet() -> Iterator[None]:
    """Without what the exporters print and warn of: packages that are not needed here, and their own progress."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
