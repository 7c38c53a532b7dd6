"""Makes traced graphs smaller and faster, without changing what they compute."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript.optimizer import fold_constants


def fold(model: ir.Model) -> None:
    """Computes what follows from constants alone, whatever its size: transposed weights, joined weights."""
    fold_constants(model, input_size_limit=2**40, output_size_limit=2**40)
    common.RemoveUnusedNodesPass()(model)


def hoist(body: ir.Graph) -> None: ...


def tidy(model: ir.Model) -> None:
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    common.LiftSubgraphInitializersToMainGraphPass()(model)
    common.IdentityEliminationPass()(model)
    common.DeduplicateInitializersPass(size_limit=2**40)(model)
    common.CommonSubexpressionEliminationPass()(model)
    common.RemoveUnusedNodesPass()(model)
    common.NameFixPass()(model)
