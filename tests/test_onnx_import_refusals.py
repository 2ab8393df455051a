"""What of ONNX cannot be carried: refused by name, with every reason and the way round."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest

from edge_lstm.errors import ModelError, UnsupportedModel
from edge_lstm.importers.onnx_constants import FOLDS
from edge_lstm.importers.onnx_file import OPSETS
from edge_lstm.importers.onnx_model import read_onnx
from edge_lstm.importers.onnx_nodes import CONVERTERS
from edge_lstm.importers.onnx_schema import SCHEMAS
from onnx_import_models import DENSE, FEATURES, ROWS, Operator, W, X, built, chain, rows


def refusal(operators: Sequence[Operator], **given: Any) -> str:
    with pytest.raises(UnsupportedModel) as caught:
        read_onnx(built(operators, **given))
    return str(caught.value)


REFUSED: dict[str, tuple[list[Operator], str]] = {
    "flattened window": (rows(("Flatten", [], {}), ("Gemm", ["flat"], {})),
        "a flattened window, rows and features"),
    "split of features": (rows(("Reshape", ["heads"], {})),
        "which splits an axis or mixes rows and features"),
    "log softmax": (chain(("LogSoftmax", [], {})), "operator LogSoftmax is not supported; give Softmax"),
    "unknown operator": (chain(("Erf", [], {})), "operator Erf is not supported; use relu, elu or tanh"),
    "two sequences": ([("Add", ["x", "x2"], ["y"], {})], "reads the input 'x2' as data"),
    "stride": (chain(("Transpose", [], {"perm": [0, 2, 1]}), ("Conv", ["kernel"], {"strides": [2]})),
               "expected stride 1 and zeros before rows only"),
    "symmetric pads": (chain(("Transpose", [], {"perm": [0, 2, 1]}),
        ("Conv", ["kernel"], {"pads": [1, 1]})),
                       "not its first 1|1 rows behind the last one"),
    "reflection": (rows(("Pad", ["pads"], {"mode": "reflect"})),
        "it pads with 0 in mode 'reflect', expected zeros"),
    "padded features": (rows(("Pad", ["wide"], {})),
        "it pads an axis that runs over features, expected rows"),
    "padded rows": (rows(("Pad", ["pads"], {}), ("Relu", [], {})),
        "only a convolution may read padded rows"),
    "half a window": (rows(("Slice", ["i1", "end", "i1"], {})), "not its first 1"),
    "every second row": (rows(("Slice", ["i0", "end", "i1", "i2"], {})),
        "it takes every 2th entry of rows"),
    "row 3": (rows(("Gather", ["i3"], {"axis": 1})),
        "it reads single rows of the window (t_3), expected the first"),
    "some rows": (rows(("Gather", ["rows"], {"axis": 1})), "it takes entries [0, 2] ... of rows"),
    "changing constant": (chain(("Add", ["table"], {})),
        "that changes along rows; expected one number, or one a feature"),
    "large constant": (chain(("Add", ["table4"], {})), "which has more axes than the value (3)"),
    "division of values": (chain(("Div", ["x"], {})), "it divides one value by another"),
    "divided constant": ([("Div", ["half", "x"], ["y"], {})], "it divides a constant by a value"),
    "division by zero": (chain(("Div", ["none"], {})), "it divides by 0"),
    "joined times": ([DENSE, ("Slice", ["d", "i1", "end", "i1"], ["a"], {}),
                      ("Slice", ["d", "i0", "i-1", "i1"], ["b"], {}),
                      ("Add", ["a", "b"], ["y"], {})], "it joins rows of different times"),
    "stacked times": ([DENSE, ("Concat", ["d", "d"], ["y"], {"axis": 1})], "it joins rows; values can be"),
    "joined constant": ([("Concat", ["table", "x"], ["y"], {"axis": 1})], "only rows of zeros in front"),
    "self-attention": ([("Transpose", ["x"], ["t"], {"perm": [0, 2, 1]}),
        ("MatMul", ["x", "t"], ["y"], {})],
                       "self-attention of every row to every row is not"),
    "clip": (chain(("Clip", ["i0", "i6"], {})), "it clips to 0 .. 6; only 0 .. 1 and 0 .. inf are carried"),
    "slopes": (chain(("PRelu", ["vector"], {})), "its slope differs from feature to feature"),
    "integers": (chain(("Cast", [], {"to": 7})), "it turns values into integers; export the float model"),
    "training": (chain(("Dropout", ["half", "yes"], {})), "it is in training mode; export the model after"),
    "training batch": (chain(("Transpose", [], {"perm": [0, 2, 1]}), ("BatchNormalization", ["vector"] * 4,
                             {"training_mode": 1})), "it is in training mode; export the model after"),
    "softmax of a batch": (rows(("Flatten", [], {}), ("Softmax", [], {})),
        "a flattened window, rows and features"),
    "sum of all": (rows(("Flatten", [], {}), ("ReduceSum", ["i1"], {})), "it sums over a flattened window"),
    "repeated twice": (rows(("Tile", ["twice"], {})), "it repeats rows 2 times"),
    "widened": (rows(("Gather", ["i0"], {"axis": 1}), ("Expand", ["five"], {})),
        "it repeats values 5 times along"),
    "outer product": ([("Gather", ["x", "i0"], ["a"], {"axis": 1}),
        ("Transpose", ["a"], ["b"], {"perm": [0, 2, 1]}),
                       ("MatMul", ["b", "a"], ["y"], {})], "only attention with one query is carried"),
    "constants only": ([("Relu", ["vector"], ["c"], {}),
        ("Add", ["x", "c"], ["y"], {})], "it reads constants only"),
    "shape of the input": ([("Reshape", ["x", "x"], ["y"], {})], "its shape is not a constant"),
    "the input": (chain(("Identity", [], {})), "output 'y' is the input itself"),
}  # fmt: skip
MORE = {
    "flat": np.ones((ROWS * FEATURES, 2)), "heads": np.array([1, ROWS, 2, 2]),
        "pads": np.array([0, 1, 0] * 2),
    "wide": np.array([0, 0, 1, 0, 0, 0]), "rows": np.array([0, 2]),
        "table": np.random.default_rng(1).normal(size=(ROWS, FEATURES)),
    "table4": np.ones((2, 1, ROWS, FEATURES)), "none": np.zeros(FEATURES), "yes": np.array(True),
    "twice": np.array([1, 2, 1]), "five": np.array([1, 5, 1]), "all": np.array([-1]),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_carried_is_refused_by_name(name: str) -> None:
    operators, words = REFUSED[name]
    inputs = {"x2": X.shape} if name == "two sequences" else {}
    message = refusal(operators, more=MORE, inputs=inputs)
    assert any(part in message for part in words.split("|")), message


def test_all_reasons_are_told_at_once() -> None:
    message = refusal([("Erf", ["x"], ["a"], {}), ("Gelu", ["x"], ["b"], {}),
        ("Clip", ["x", "i1"], ["c"], {}),
                       ("Sum", ["a", "b", "c"], ["y"], {})])  # fmt: skip
    assert "3 problems" in message
    assert all(words in message for words in ("operator Erf", "operator Gelu", "it clips to 1 .. inf"))


def test_operators_of_other_domains_and_integer_models_are_refused_with_the_way_round() -> None:
    quantized: Operator = ("DynamicQuantizeLSTM", ["x", "dense"], ["y"], {"domain": "com.microsoft"})
    assert (
        "com.microsoft.DynamicQuantizeLSTM is not supported; this is an integer model; give the float"
        in refusal([quantized])
    )
    assert "operator QuantizeLinear is not supported; this is an integer model" in refusal(
        [("QuantizeLinear", ["x", "half"], ["q"], {}), ("DequantizeLinear", ["q", "half"], ["y"], {})]
    )
    assert "operator Loop is not supported; networks in loops are not read" in refusal(
        [("Loop", ["x"], ["y"], {})]
    )


def test_senseless_numbers_are_named_with_their_node() -> None:
    with pytest.raises(ModelError, match=r"Transpose 'y': perm \[0, 0, 1\] does not order 3 axes"):
        read_onnx(built(chain(("Transpose", [], {"perm": [0, 0, 1]})), more={}))
    with pytest.raises(
        ModelError, match=r"MatMul 'y': its matrix is \(4, 4\), but what it reads has 3 features"
    ):
        read_onnx(built(chain(("MatMul", ["square"], {})), more={"square": W["square"]}))
    with pytest.raises(ModelError, match=r"it reshapes \(1, 7, 3\) to \(5, 5\), which does not fit"):
        read_onnx(built(chain(("Reshape", ["s"], {})), more={"s": np.array([5, 5])}))
    with pytest.raises(ModelError, match="axis 9 of a tensor with 3 axes"):
        read_onnx(built(chain(("Concat", ["x"], {"axis": 9})), more={}))
    with pytest.raises(ModelError, match="its statistics are not four constants of 3 features"):
        turned = chain(("Transpose", [], {"perm": [0, 2, 1]}), ("BatchNormalization", ["bias"] * 4, {}))
        read_onnx(built(turned, more={"bias": W["bias"]}))


def test_the_inputs_and_attributes_of_each_operator_are_those_of_onnx() -> None:
    """The union of the versions from 7 on, as the package onnx defines them."""
    versions: dict[str, list[Any]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "" and schema.name in SCHEMAS and schema.since_version <= OPSETS[1]:
            versions.setdefault(schema.name, []).append(schema)
    assert set(versions) == {*CONVERTERS, *FOLDS} == set(SCHEMAS)
    for name, schemas in versions.items():
        ordered = sorted(schemas, key=lambda schema: int(schema.since_version))
        first = max((place for place, schema in enumerate(ordered) if schema.since_version <= 7), default=0)
        inputs = max(schema.max_input for schema in ordered[first:])
        attributes = {attribute for schema in ordered[first:] for attribute in schema.attributes}
        expected = (0 if inputs > 1000 else inputs, attributes)
        assert SCHEMAS[name] == expected or onnx.defs.onnx_opset_version() < OPSETS[1], name
        assert attributes <= SCHEMAS[name][1], name


def test_inputs_and_attributes_that_an_operator_does_not_have_are_not_passed_over() -> None:
    with pytest.raises(ModelError, match="Relu 'y': it has no attribute alpha; export the model again"):
        read_onnx(built(chain(("Relu", [], {"alpha": 0.5}))))
    with pytest.raises(ModelError, match="Relu 'y': 2 inputs, expected at most 1"):
        read_onnx(built(chain(("Relu", ["half"], {}))))
    turned = chain(
        ("Transpose", [], {"perm": [0, 2, 1]}), ("BatchNormalization", ["vector"] * 4, {"spatial": 0})
    )
    assert "its statistics differ from row to row" in refusal(turned, opset=7)
