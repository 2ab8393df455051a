"""ONNX operators around the recurrent ones, each against ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from edge_lstm.graph import Graph
from edge_lstm.layer_types import Attend, Dense, Gru, Merge
from onnx_import_models import DENSE, FEATURES, ROWS, UNITS, Operator, W, X, assert_imports, built


def imports(operators: Sequence[Operator], x: np.ndarray = X, order: str = "btf", **given: Any) -> Graph:
    return assert_imports(built(operators, x.shape, **given), x, order)


# the GRU that PyTorch writes around (batch, rows, features), its rows as (batch, rows, units)
AROUND: list[Operator] = [
    ("Transpose", ["x"], ["xt"], {"perm": [1, 0, 2]}),
    ("Gather", ["gru_w", "i0"], ["gw"], {}),
    ("Gather", ["gru_r", "i0"], ["gr"], {}),
    ("GRU", ["xt", "gw", "gr"], ["Y", "h"], {"hidden_size": UNITS}),
    ("Squeeze", ["Y", "i1"], ["rows"], {}),
    ("Transpose", ["rows"], ["g"], {"perm": [1, 0, 2]}),
]
BOTH: list[Operator] = [
    ("Transpose", ["x"], ["xt"], {"perm": [1, 0, 2]}),
    ("GRU", ["xt", "gru_w", "gru_r"], ["Y", "h"], {"hidden_size": UNITS, "direction": "bidirectional"}),
]

ELEMENTWISE = [
    ("Relu", {}), ("Tanh", {}), ("Sigmoid", {}), ("Softsign", {}), ("Softplus", {}), ("LeakyRelu", {}),
    ("LeakyRelu", {"alpha": 0.3}), ("Elu", {"alpha": 0.7}), ("ThresholdedRelu", {"alpha": 0.4}),
        ("Neg", {}),
    ("HardSigmoid", {}), ("HardSigmoid", {"alpha": 0.3, "beta": 0.1}), ("Identity", {}), ("Dropout", {}),
    ("Softmax", {"axis": 2}), ("Softmax", {"axis": 1}), ("Cast", {"to": 1}),
]  # fmt: skip


@pytest.mark.parametrize(("op", "attributes"), ELEMENTWISE)
def test_an_operator_on_each_value_agrees_with_onnx_runtime(op: str, attributes: dict[str, Any]) -> None:
    imports([*AROUND, (op, ["g"], ["t"], attributes), ("MatMul", ["t", "square"], ["y"], {})])


NORMALIZED = [
    ("Add", ["g", "bias"]), ("Add", ["bias", "g"]), ("Sub", ["g", "bias"]), ("Sub", ["bias", "g"]),
    ("Mul", ["g", "positive"]), ("Div", ["g", "positive"]), ("Mul", ["half", "g"]), ("Sub", ["half", "g"]),
]  # fmt: skip


@pytest.mark.parametrize("after", ["dense", "nothing"])
@pytest.mark.parametrize(("op", "reads"), NORMALIZED)
def test_arithmetic_with_a_constant_is_folded_or_becomes_a_layer(
    op: str, reads: list[str], after: str
) -> None:
    written = "t" if after == "dense" else "y"
    rest: list[Operator] = [("MatMul", ["t", "square"], ["y"], {})] if after == "dense" else []
    graph = imports([*AROUND, (op, reads, [written], {}), *rest])
    assert [type(layer) for layer in graph.layers][:1] == [Gru] and len(graph.layers) == 2


def test_scaling_of_the_input_goes_to_the_sensor_stream() -> None:
    scaled: list[Operator] = [
        ("Sub", ["x", "vector"], ["a"], {}),
        ("Mul", ["a", "half"], ["b"], {}),
        ("MatMul", ["b", "dense"], ["y"], {}),
    ]
    graph = imports(scaled)
    assert len(graph.layers) == 1 and graph.stream.scale.tolist() == [2.0] * FEATURES
    np.testing.assert_allclose(graph.stream.center, W["vector"].astype(np.float32), rtol=1e-6)


DENSES = {
    "Gemm": [("Flatten", ["x"], ["f"], {"axis": 2}),
             ("Gemm", ["f", "dense", "bias"], ["y"], {"alpha": 0.5, "beta": 2.0})],
    "transposed Gemm": [("Reshape", ["x", "flat"], ["f"], {}),
        ("Gemm", ["f", "turned"], ["y"], {"transB": 1})],
    "Gemm of a transpose": [("Flatten", ["x"], ["f"], {"axis": 2}), ("Transpose", ["f"], ["t"], {}),
                            ("Gemm", ["t", "dense"], ["y"], {"transA": 1})],
    "MatMul with a vector": [("MatMul", ["x", "vector"], ["t"], {}), ("Unsqueeze", ["t", "i2"], ["y"], {})],
    "MatMul with leading axes": [("Unsqueeze", ["dense", "i0"], ["w"], {}),
        ("MatMul", ["x", "w"], ["y"], {})],
    "MatMul from the left": [("Transpose", ["x"], ["t"], {"perm": [0, 2, 1]}),
        ("MatMul", ["turned", "t"], ["u"], {}),
                             ("Transpose", ["u"], ["y"], {"perm": [0, 2, 1]})],
}  # fmt: skip


@pytest.mark.parametrize("name", DENSES)
def test_every_way_to_write_a_dense_layer_is_one(name: str) -> None:
    more = {"flat": np.array([-1, FEATURES]), "turned": W["dense"].T}
    graph = imports(DENSES[name], more=more)
    assert [type(layer) for layer in graph.layers] == [Dense]


CONVOLUTIONS: dict[str, list[Operator]] = {
    "left pads": [("Conv", ["x", "kernel", "bias"], ["y"], {"pads": [2, 0]})],
    "dilated": [("Conv", ["x", "kernel"], ["y"], {"pads": [4, 0], "dilations": [2]})],
    "Pad": [("Pad", ["x", "pads"], ["p"], {}), ("Conv", ["p", "kernel"], ["y"], {})],
    "Pad and pads": [("Pad", ["x", "one"], ["p"], {}), ("Conv", ["p", "kernel"], ["y"], {"pads": [1, 0]})],
    "chopped": [("Conv", ["x", "kernel"], ["p"], {"pads": [2, 2]}),
        ("Slice", ["p", "i0", "i-2", "i2"], ["y"], {})],
    "chopped later": [
        ("Conv", ["x", "kernel"], ["p"], {"pads": [2, 2]}), ("Relu", ["p"], ["q"], {}),
        ("BatchNormalization", ["q", "positive", "bias", "bias", "positive"], ["r"], {}),
        ("Slice", ["r", "i0", "i-2", "i2"], ["y"], {}),
    ],
    "1 x 1": [("Conv", ["x", "point", "bias"], ["y"], {"auto_pad": "SAME_UPPER"})],
    "grouped": [("Conv", ["x", "grouped"], ["y"], {"pads": [1, 0], "group": FEATURES})],
    "image": [("Unsqueeze", ["x", "i2"], ["u"], {}),
        ("Conv", ["u", "image"], ["c"], {"pads": [0, 2, 0, 0]}),
              ("Squeeze", ["c", "i2"], ["y"], {})],
    "residual": [("Conv", ["x", "kernel"], ["c"], {"pads": [2, 0]}), ("Relu", ["c"], ["r"], {}),
                 ("Conv", ["x", "point"], ["d"], {}), ("Add", ["r", "d"], ["y"], {})],
    "zeros in front": [("Concat", ["zeros", "x"], ["p"], {"axis": 2}),
        ("Conv", ["p", "kernel"], ["y"], {})],
    "cut by a negative pad": [("Conv", ["x", "kernel"], ["p"], {"pads": [2, 2]}),
        ("Pad", ["p", "cut"], ["y"], {})],
    "its last row": [("Conv", ["x", "kernel"], ["p"], {}), ("Gather", ["p", "last"], ["y"], {"axis": 2})],
}  # fmt: skip


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_causal_convolutions_agree_with_onnx_runtime(name: str) -> None:
    more = {"pads": np.array([0, 0, 2, 0, 0, 0]), "one": np.array([0, 0, 1, 0, 0, 0]),
            "cut": np.array([0, 0, 0, 0, 0, -2]), "point": W["kernel"][:, :, :1],
            "zeros": np.zeros((1, FEATURES, 2))}  # fmt: skip
    graph = imports(CONVOLUTIONS[name], X.transpose(0, 2, 1), "bft", more=more)
    assert graph.window == 0


TWO_WAYS: dict[str, list[Operator]] = {
    "joined": [("Transpose", ["Y"], ["t"], {"perm": [2, 0, 1, 3]}), ("Reshape", ["t", "join"], ["y"], {})],
    "summed": [("ReduceSum", ["Y", "i1"], ["t"], {"keepdims": 0}),
        ("Transpose", ["t"], ["y"], {"perm": [1, 0, 2]})],
    "mean": [("ReduceMean", ["Y"], ["t"], {"keepdims": 0, "axes": [1]}),
             ("Transpose", ["t"], ["y"], {"perm": [1, 0, 2]})],
    "multiplied": [("Split", ["Y"], ["a", "b"], {"axis": 1}), ("Mul", ["a", "b"], ["m"], {}),
                   ("Squeeze", ["m", "i1"], ["s"], {}), ("Transpose", ["s"], ["y"], {"perm": [1, 0, 2]})],
    "forward only": [("Gather", ["Y", "zero"], ["t"], {"axis": 1}),
        ("Transpose", ["t"], ["y"], {"perm": [1, 0, 2]})],
    "backward only": [("Slice", ["Y", "i1", "i2", "i1"], ["s"], {}), ("Squeeze", ["s", "i1"], ["t"], {}),
                      ("Transpose", ["t"], ["y"], {"perm": [1, 0, 2]})],
    "last states": [("Transpose", ["h"], ["t"], {"perm": [1, 0, 2]}), ("Flatten", ["t"], ["y"], {})],
    "each at its end": [
        ("Transpose", ["Y"], ["t"], {"perm": [2, 0, 1, 3]}), ("Reshape", ["t", "join"], ["j"], {}),
        ("Slice", ["j", "i6", "end", "i1"], ["l"], {}), ("Slice", ["l", "i0", "i4", "i2"], ["a"], {}),
        ("Slice", ["j", "i0", "i1", "i1"], ["f"], {}), ("Slice", ["f", "i4", "end", "i2"], ["b"], {}),
        ("Concat", ["a", "b"], ["y"], {"axis": -1}),
    ],
    "stacked again": [
        ("Transpose", ["Y"], ["t"], {"perm": [2, 0, 1, 3]}), ("Reshape", ["t", "join"], ["j"], {}),
        ("Reshape", ["j", "stack"], ["s"], {}), ("ReduceSum", ["s", "i2"], ["y"], {"keepdims": 0}),
    ],
    "some features": [("Transpose", ["Y"], ["t"], {"perm": [2, 0, 1, 3]}),
        ("Reshape", ["t", "join"], ["j"], {}),
                      ("Slice", ["j", "i1", "i6", "i2"], ["y"], {})],
    "other order": [("Gather", ["h", "swap"], ["g"], {}), ("Transpose", ["g"], ["t"], {"perm": [1, 0, 2]}),
                    ("Reshape", ["t", "vector"], ["y"], {})],
}  # fmt: skip


@pytest.mark.parametrize("name", TWO_WAYS)
def test_both_directions_are_split_and_joined_as_exporters_do(name: str) -> None:
    more = {"join": np.array([0, 0, -1]), "stack": np.array([0, 0, 2, UNITS]), "zero": np.array(0),
            "swap": np.array([1, 0]), "vector": np.array([1, 2 * UNITS])}  # fmt: skip
    imports([*BOTH, *TWO_WAYS[name]], more=more)


ATTENTION: dict[str, list[Operator]] = {
    "weights times rows": [
        ("MatMul", ["g", "score"], ["s"], {}), ("Softmax", ["s"], ["w"], {"axis": 1}),
        ("Mul", ["w", "g"], ["p"], {}), ("ReduceSum", ["p", "i1"], ["y"], {"keepdims": 0}),
    ],
    "bmm": [
        ("MatMul", ["g", "score"], ["s"], {}), ("Softmax", ["s"], ["w"], {"axis": 1}),
        ("Transpose", ["w"], ["t"], {"perm": [0, 2, 1]}), ("MatMul", ["t", "g"], ["c"], {}),
        ("Squeeze", ["c", "i1"], ["y"], {}),
    ],
    "dot": [
        ("Squeeze", ["h", "i0"], ["q"], {}), ("Unsqueeze", ["q", "i2"], ["u"], {}),
        ("MatMul", ["g", "u"], ["s"], {}),
        ("Mul", ["s", "half"], ["v"], {}), ("Squeeze", ["v", "i2"], ["z"], {}),
        ("Softmax", ["z"], ["w"], {"axis": 1}),
        ("Unsqueeze", ["w", "i1"], ["t"], {}), ("MatMul", ["t", "g"], ["y"], {}),
    ],
    "values from the left": [
        ("MatMul", ["g", "score"], ["s"], {}), ("Softmax", ["s"], ["w"], {"axis": 1}),
        ("Transpose", ["g"], ["t"], {"perm": [0, 2, 1]}), ("MatMul", ["t", "w"], ["c"], {}),
        ("Squeeze", ["c", "i2"], ["y"], {}),
    ],
    "mean": [("ReduceMean", ["g"], ["y"], {"axes": [1], "keepdims": 0})],
    "sum": [("ReduceSum", ["g", "i1"], ["y"], {"keepdims": 0})],
    "pool": [("Transpose", ["g"], ["t"], {"perm": [0, 2, 1]}), ("GlobalAveragePool", ["t"], ["p"], {}),
             ("Squeeze", ["p", "i2"], ["y"], {})],
    "norm of features": [("ReduceSum", ["g", "i2"], ["s"], {}), ("Sigmoid", ["s"], ["t"], {}),
                         ("Mul", ["t", "g"], ["y"], {})],
}  # fmt: skip


@pytest.mark.parametrize("name", ATTENTION)
def test_attention_over_the_window_agrees_with_onnx_runtime(name: str) -> None:
    graph = imports([*AROUND, *ATTENTION[name]])
    assert any(isinstance(layer, Attend) for layer in graph.layers) == (name != "norm of features")


VECTORS: dict[str, list[Operator]] = {
    "expanded": [("Unsqueeze", ["v", "i1"], ["u"], {}), ("Expand", ["u", "wide"], ["y"], {})],
    "tiled": [("Unsqueeze", ["v", "i1"], ["u"], {}), ("Tile", ["u", "times"], ["y"], {})],
    "added to rows": [("Unsqueeze", ["v", "i1"], ["u"], {}), ("Add", ["u", "g"], ["y"], {})],
    "summed": [("Sum", ["v", "v", "v"], ["y"], {})],
    "mean": [("Mean", ["v", "v"], ["y"], {})],
    "subtracted": [("Tanh", ["v"], ["t"], {}), ("Sub", ["v", "t"], ["y"], {})],
    "one feature over several": [("MatMul", ["v", "score"], ["s"], {}),
        ("Expand", ["s", "four"], ["y"], {})],
    "clipped": [("Clip", ["v", "nothing"], ["y"], {})],
    "clipped to 1": [("Clip", ["v", "nothing", "whole"], ["y"], {})],
    "one slope": [("PRelu", ["v", "slope"], ["y"], {})],
    "joined": [("Concat", ["v", "v"], ["y"], {"axis": 1})],
}  # fmt: skip


@pytest.mark.parametrize("name", VECTORS)
def test_what_is_done_with_the_last_row_agrees_with_onnx_runtime(name: str) -> None:
    more = {"wide": np.array([1, ROWS, 1]), "times": np.array([1, ROWS, 1]), "four": np.array([1, 4]),
            "nothing": np.float32(0), "whole": np.float32(1), "slope": np.array([0.2])}  # fmt: skip
    imports([*AROUND, ("Gather", ["g", "last"], ["v"], {"axis": 1}), *VECTORS[name]], more=more)


def test_layers_that_an_exporter_unrolls_over_the_rows_are_one_layer_again() -> None:
    unrolled = [
        operator
        for row in range(3)
        for operator in (
            ("Slice", ["x", f"i{row}", f"i{row + 1}", "i1"], [f"s{row}"], {}),
            ("MatMul", [f"s{row}", "dense"], [f"d{row}"], {}),
            ("Add", [f"d{row}", "bias"], [f"a{row}"], {}),
            ("Tanh", [f"a{row}"], [f"t{row}"], {}),
        )
    ]
    graph = imports([*unrolled, ("Concat", ["t0", "t1", "t2"], ["y"], {"axis": 1})], X[:, :3])
    assert [type(layer).__name__ for layer in graph.layers] == ["Dense", "Activation"] and graph.window == 0


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 18, 21])
def test_attributes_of_old_versions_and_inputs_of_new_ones_mean_the_same(opset: int) -> None:
    """Squeeze, Slice and ReduceSum have axes as attributes in old versions; Softmax flattens."""
    new = opset >= 13
    squeeze: Operator = (
        ("Squeeze", ["Y", "i1"], ["s"], {}) if new else ("Squeeze", ["Y"], ["s"], {"axes": [1]})
    )
    cut: Operator = ("Slice", ["s", "i6", "end", "i0"], ["c"], {})
    if opset < 10:
        cut = ("Slice", ["s"], ["c"], {"starts": [6], "ends": [1 << 40], "axes": [0]})
    rest: list[Operator] = [
        squeeze,
        cut,
        ("Softmax", ["c"], ["m"], {"axis": 2}),
        ("Transpose", ["m"], ["y"], {}),
    ]
    more = {"gw": W["gru_w"][:1], "gr": W["gru_r"][:1]}
    around: list[Operator] = [
        ("GRU", ["x", "gw", "gr"], ["Y"], {"hidden_size": UNITS, "linear_before_reset": 1})
    ]
    imports([*around, *rest], X.transpose(1, 0, 2), "tbf", opset=opset, more=more)


def test_residuals_and_merges_of_several_values_keep_one_rule_for_all_streams() -> None:
    graph = imports([DENSE, ("Tanh", ["d"], ["t"], {}), ("Add", ["t", "d"], ["y"], {})])
    assert isinstance(graph.layers[-1], Merge) and graph.layers[-1].mode == "sum"
