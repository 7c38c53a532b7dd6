"""A translator as one graph: the encoder, and the greedy loop that writes a token at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import torch
from transformers import PreTrainedModel

from leanformer.core.errors import LeanformerError
from leanformer.export.generation import Search
from leanformer.export.graphs.decoding import LEAST_TOKENS, Programs, programs
from leanformer.export.graphs.rewriting import finish, simplify
from leanformer.export.graphs.trace import OPSET, quiet
from leanformer.model.generate import most_tokens

BOOL, FLOAT, INT64 = ir.DataType.BOOL, ir.DataType.FLOAT, ir.DataType.INT64


class TranslatorGraphs:
    """A translator that is traced, from which graphs are made.

    Args:
        model: An encoder-decoder, on the CPU, in float32 and evaluation mode. It is not changed.

    Raises:
        LeanformerError: The model's generation settings ask for what a graph does not do, or it reads too few tokens.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        limits = most_tokens(model)
        if min(limits) < LEAST_TOKENS:
            raise LeanformerError(
                f"the model reads at most {min(limits)} tokens, and a graph is made for {LEAST_TOKENS} or more; "
                "make the model's blocks with a greater max_length"
            )
        self._search = Search.of(model)
        self._programs = programs(model, self._search.start, *self._search.biases(model))
        self._first, self._following = _trace(self._programs)

    def graph(self, with_logits: bool = False) -> onnx.ModelProto:
        """The graph with the whole greedy search in it, in float32.

        Its inputs, of any batch and any length that the model takes:

        - ``input_ids``, int64, (batch, source): each source with its end mark, padded at the right;
        - ``attention_mask``, int64, likewise: 1 at tokens, 0 at padding;
        - ``max_new_tokens``, int64, a scalar: most tokens of a translation, the end mark included.

        Its outputs:

        - ``tokens``, int64, (batch, written): the translations without the start mark, up to the end mark, then
          padding. They are what ``generate`` writes greedily; one of the greatest length ends with a forced end mark.
        - ``logits``, with ``with_logits``, float32, (batch, chosen, vocabulary): what each token was chosen by, minus
          infinity at tokens that may not be written. ``chosen`` is ``written``, or one less where the end was forced,
          which takes no step of the decoder (but for ``max_new_tokens`` 1, where both are 1).

        Args:
            with_logits: Whether the graph has the second output, with which it can be compared with the model.
        """
        first, following = (traced.graph.clone() for traced in (self._first, self._following))
        graph = _Stitching(self._programs, first, following, self._search, with_logits).graph()
        whole = ir.Model(graph, ir_version=10, producer_name="leanformer")
        with quiet():
            finish(whole)
        return ir.serde.serialize_model(whole)


def _trace(traced: Programs) -> tuple[ir.Model, ir.Model]:
    """The graphs of both programs, their constants folded."""
    any_size = torch.export.Dim.DYNAMIC
    batch, source, read = {0: any_size}, {0: any_size, 1: any_size}, {0: any_size}
    state = [dict.fromkeys(dimensions, any_size) for dimensions in traced.dynamic]
    return (
        _exported(traced.first, traced.first_inputs, (source, source)),
        _exported(traced.following, traced.following_inputs, (batch, source, source, read, state)),
    )


def _exported(program: torch.nn.Module, inputs: tuple[Any, ...], dynamic: tuple[Any, ...]) -> ir.Model:
    with torch.no_grad(), quiet():
        traced = torch.export.export(program, inputs, dynamic_shapes=dynamic)
        exported = torch.onnx.export(traced, dynamo=True, opset_version=OPSET, optimize=False, verbose=False)
        assert exported is not None
        simplify(exported.model)
    return exported.model


class _Stitching:
    """Puts both programs into one graph: the second as the body of a loop."""

    def __init__(
        self, traced: Programs, first: ir.Graph, following: ir.Graph, search: Search, with_logits: bool
    ) -> None:
        self.traced = traced
        self.first = first
        self.following = following
        self.search = search
        self.with_logits = with_logits

    def graph(self) -> ir.Graph:
        """The whole graph; both programs' own are used up."""
        outer = self.first
        ids, mask = outer.inputs
        ids.name, mask.name = "input_ids", "attention_mask"
        for value in (ids, mask):
            value.shape = ir.Shape(["batch", "source"])
        most = _typed(ir.Value(), "max_new_tokens", INT64, [])
        outer.inputs.append(most)
        logits, source, *state = outer.outputs
        outer.outputs.clear()
        op = _Operations(outer)
        one_more = op("Equal", most, op.constant(1))
        token = op("Where", one_more, op.constant(self.search.end), op("ArgMax", logits, axis=1, keepdims=0))
        ended = op("Equal", token, op.constant(self.search.end))
        body, carried = self._body(mask, source, dict(zip(self.traced.following.entries, state, strict=True)))
        # The token at the greatest length is forced: no step is needed for it.
        loop = ir.node(
            "Loop",
            [op("Sub", most, op.constant(2)), op("Not", op("ReduceMin", ended, keepdims=0)), token, ended, *carried],
            attributes={"body": body},
            num_outputs=len(carried) + (4 if self.with_logits else 3),
        )
        outer.append(loop)
        _, ended_then, *rest = loop.outputs
        rows = op("Shape", token)  # (batch,)
        later = rest[len(carried)]  # (steps, batch); (0, 0) where there was no step
        written = [op("Unsqueeze", token, op.constant([0])), op.rows(later, rows)]
        last = op("Where", ended_then, op.constant(self.search.padding), op.constant(self.search.end))
        unended = op("Cast", op("Not", op("ReduceMin", ended_then, keepdims=1)), to=INT64)  # (1,): 0 or 1
        written.append(op("Slice", op("Unsqueeze", last, op.constant([0])), op.constant([0]), unended))
        tokens = op("Concat", *written, axis=0)  # (written, batch)
        ends = op("Cast", op("Equal", tokens, op.constant(self.search.end)), to=INT64)
        before = op("CumSum", ends, op.constant(0), exclusive=1)
        tokens = op("Where", op("Cast", before, to=BOOL), op.constant(self.search.padding), tokens)
        outer.outputs.append(_typed(op("Transpose", tokens, perm=[1, 0]), "tokens", INT64, ["batch", "written"]))
        if self.with_logits:
            sizes = op("Shape", logits)  # (batch, vocabulary)
            every = op("Concat", op("Unsqueeze", logits, op.constant([0])), op.rows(rest[-1], sizes), axis=0)
            shape: list[int | str] = ["batch", "chosen", self.traced.following.bias.numel()]
            outer.outputs.append(_typed(op("Transpose", every, perm=[1, 0, 2]), "logits", FLOAT, shape))
        return outer

    def _body(self, mask: ir.Value, source: ir.Value, state: dict[Any, ir.Value]) -> tuple[ir.Graph, list[ir.Value]]:
        """The loop's body, and what the entries of the state that change start with."""
        body = self.following
        token, source_mask, own_source, read, *inputs = body.inputs
        logits, *changed = body.outputs
        body.inputs.clear()
        body.outputs.clear()
        changing = self.traced.following.changing
        # What never changes is read from the graph around the loop.
        entries = dict(zip(self.traced.following.entries, inputs, strict=True))
        for entry, value in entries.items():
            if entry not in changing:
                value.replace_all_uses_with(state[entry])
        source_mask.replace_all_uses_with(mask)
        own_source.replace_all_uses_with(source)
        number, going = _typed(ir.Value(), "number", INT64, []), _typed(ir.Value(), "going", BOOL, [])
        ended = _typed(ir.Value(), "ended", BOOL, ["batch"])
        body.inputs.extend([number, going, token, ended, *(entries[entry] for entry in changing)])
        op = _Operations(body)
        next_token = op("ArgMax", logits, axis=1, keepdims=0)
        ends = op("Or", ended, op("Equal", next_token, op.constant(self.search.end)))
        body.outputs.extend(
            [
                _typed(op("Not", op("ReduceMin", ends, keepdims=0)), "going_on", BOOL, []),
                _typed(next_token, "next_token", INT64, ["batch"]),
                _typed(ends, "ended_now", BOOL, ["batch"]),
                *changed,
                _typed(op("Identity", next_token), "written", INT64, ["batch"]),
            ]
        )
        if self.with_logits:
            shape: list[int | str] = ["batch", self.traced.following.bias.numel()]
            body.outputs.append(_typed(op("Identity", logits), "chosen_by", FLOAT, shape))
        self._count(read, number)
        return body, [state[entry] for entry in changing]

    def _count(self, read: ir.Value, number: ir.Value) -> None:
        """Puts the loop's count in place of the length of what was read: one more than the steps before this one."""
        op = _Operations(self.following, before=self.following[0])
        length = op("Add", number, op.constant(1))
        for shape in [use.node for use in read.uses()]:
            for use in shape.outputs[0].uses():
                if use.node.op_type == "Squeeze":  # to a scalar, as the count is
                    use.node.outputs[0].replace_all_uses_with(length)
            shape.outputs[0].replace_all_uses_with(op("Unsqueeze", length, op.constant([0])))


def _typed(value: ir.Value, name: str, dtype: ir.DataType, shape: Sequence[int | str]) -> ir.Value:
    """The value, with a name, a type and a shape."""
    value.name, value.type, value.shape = name, ir.TensorType(dtype), ir.Shape(shape)
    return value


class _Operations:
    """Adds nodes to a graph."""

    def __init__(self, graph: ir.Graph, before: ir.Node | None = None) -> None:
        self.graph = graph
        self.before = before

    def __call__(self, kind: str, *inputs: ir.Value, **attributes: Any) -> ir.Value:
        node = ir.node(kind, list(inputs), attributes=attributes)
        if self.before is None:
            self.graph.append(node)
        else:
            self.graph.insert_before(self.before, node)
        return node.outputs[0]

    def constant(self, value: int | list[int]) -> ir.Value:
        return self("Constant", value=ir.tensor(np.array(value, dtype=np.int64)))

    def rows(self, value: ir.Value, sizes: ir.Value) -> ir.Value:
        """A loop's output, (steps, *sizes): a loop without a step does not know the sizes."""
        return self("Reshape", value, self("Concat", self.constant([-1]), sizes, axis=0))
