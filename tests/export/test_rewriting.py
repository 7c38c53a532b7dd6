"""Graphs keep what they compute when they are simplified."""

import numpy as np
import onnx.parser
import onnx_ir as ir
import onnxruntime

from leanformer.export.graphs.rewriting import finish

DOUBLED = """
<ir_version: 10, opset_import: ["" : 20]>
doubled (int64 most, float[n] start) => (float[n] end, float[n] sum) {
    yes = Constant <value = bool {1}> ()
    end = Loop (most, yes, start) <body = step (int64 number, bool go, float[n] state) => (bool again, float[n] after) {
        again = Identity (go)
        twice = Add (state, state)
        after = Relu (twice)
    }>
    twice = Add (start, start)
    sum = Add (twice, end)
}
"""


def test_a_loop_has_no_name_of_what_comes_after_it() -> None:
    # An engine may compute first what does not need the loop, and then refuses a name that is there already.
    model = ir.from_proto(onnx.parser.parse_model(DOUBLED))
    finish(model)
    names = [value.name for node in model.graph.all_nodes() for value in node.outputs]
    assert len(set(names)) == len(names)
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    end, total = session.run(["end", "sum"], {"most": np.array(3), "start": np.ones(2, dtype=np.float32)})
    assert end.tolist() == [8, 8]
    assert total.tolist() == [10, 10]
