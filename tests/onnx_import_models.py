"""Small ONNX models for the tests of the importer, and what ONNX Runtime makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from edge_lstm.graph import Graph
from edge_lstm.importers.onnx_model import read_onnx
from edge_lstm.reference.floating import run

TOLERANCE = 1e-5  # of float32 in ONNX Runtime, relative to outputs above 1
OPSET = 17
FLOAT = onnx.TensorProto.FLOAT
Shape = Sequence[int | str] | None
Operator = tuple[str, Sequence[str], Sequence[str], Mapping[str, Any]]

rng = np.random.default_rng(11)
ROWS, FEATURES, UNITS = 7, 3, 4
X = rng.normal(size=(1, ROWS, FEATURES)).astype(np.float32)
W: dict[str, Any] = {
    "dense": rng.normal(size=(FEATURES, UNITS)),
    "bias": rng.normal(size=UNITS),
    "square": rng.normal(size=(UNITS, UNITS)),
    "vector": rng.normal(size=FEATURES),
    "gru_w": rng.normal(size=(2, 3 * UNITS, FEATURES)),
    "gru_r": rng.normal(size=(2, 3 * UNITS, UNITS)),
    "kernel": rng.normal(size=(UNITS, FEATURES, 3)),
    "grouped": rng.normal(size=(6, 1, 2)),
    "image": rng.normal(size=(UNITS, FEATURES, 1, 3)),
    "positive": rng.uniform(0.5, 2, UNITS),
    "score": rng.normal(size=(UNITS, 1)),
    "half": np.float32(0.5),
    **{f"i{number}": np.array([number]) for number in (-2, -1, 0, 1, 2, 3, 4, 6)},
    "last": np.array(-1),
    "end": np.array([np.iinfo(np.int64).max]),
}
DENSE: Operator = ("MatMul", ["x", "dense"], ["d"], {})


def model(
    operators: Sequence[Operator],
    constants: Mapping[str, Any],
    inputs: Mapping[str, Shape],
    outputs: Sequence[str] = ("y",),
    opset: int = OPSET,
    metadata: Mapping[str, str] | None = None,
    ir: int = 8,
) -> bytes:
    """operators: (operator, inputs, outputs, attributes).  constants: floats become float32."""
    nodes = [
        helper.make_node(op, list(reads), list(writes), **given) for op, reads, writes, given in operators
    ]
    tensors = []
    for name, values in constants.items():
        array = np.asarray(values)
        tensors.append(
            numpy_helper.from_array(array.astype(np.float32) if array.dtype.kind == "f" else array, name)
        )
    graph = helper.make_graph(
        nodes, "tested",
        [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs], tensors,
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)
    helper.set_model_props(made, dict(metadata or {}))
    content: bytes = made.SerializeToString()
    return content


def session(content: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(content, options)


def runtime(content: bytes, **feeds: np.ndarray) -> np.ndarray:
    """The first output of ONNX Runtime."""
    return np.asarray(session(content).run(None, feeds)[0])


def assert_close(found: np.ndarray, want: np.ndarray) -> None:
    bound = TOLERANCE * max(1.0, float(np.abs(want).max()))
    assert found.shape == want.shape
    difference = np.abs(found - want)
    worst = np.unravel_index(int(difference.argmax()), difference.shape)
    assert difference.max() <= bound, f"at {worst}: got {found[worst]}, want {want[worst]}"


def assert_imports(content: bytes, x: np.ndarray, order: str = "btf") -> Graph:
    """Import and compare with ONNX Runtime.  order: axes of the file's input, such as "tbf"."""
    graph = read_onnx(content)
    want = runtime(content, x=x)
    places = [order.index(axis) for axis in "btf" if axis in order]
    rows = x.transpose(places)
    rows = rows if "b" in order else rows[None]
    found, _ = run(graph, graph.stream.to_network(rows))
    if want.ndim == 3:
        want = want.transpose(places)
    want = want[None] if order == "tf" else want
    want = want.reshape(rows.shape[0], -1, graph.outputs)
    assert_close(found[:, -want.shape[1] :], want)
    return graph


def chain(*operators: tuple[str, Sequence[str], Mapping[str, Any]]) -> list[Operator]:
    """(operator, further inputs, attributes), each reading the one before; the last writes y."""
    found: list[Operator] = []
    before = "x"
    for place, (op, reads, attributes) in enumerate(operators):
        after = "y" if place == len(operators) - 1 else f"t{place}"
        found.append((op, [before, *reads], [after], attributes))
        before = after
    return found


def rows(*operators: tuple[str, Sequence[str], Mapping[str, Any]]) -> list[Operator]:
    """The same behind a dense layer, which shows that the last axis holds the features."""
    return chain(("MatMul", ["dense"], {}), *operators)


def built(operators: Sequence[Operator], shape: Shape = X.shape, more: Any = None, **given: Any) -> bytes:
    """A model of ``operators`` with those constants of ``W`` and ``more`` that they read."""
    read = {name for _, reads, _, _ in operators for name in reads}
    used = {name: values for name, values in {**W, **(more or {})}.items() if name in read}
    inputs = {"x": shape, **given.pop("inputs", {})}
    return model(operators, used, inputs, **given)
