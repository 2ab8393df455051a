"""ONNX operators on each value or each row alone, and the table of all operators that are carried.

Reads nodes, constants and Flows; writes Flows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edge_lstm.errors import UnsupportedModel
from edge_lstm.graph import INPUT
from edge_lstm.importers.draft import Affine
from edge_lstm.importers.onnx_attention import product, reduction, softmax
from edge_lstm.importers.onnx_axes import MOVERS, Value, constants, flow_at
from edge_lstm.importers.onnx_convolution import conv, normalization, pad
from edge_lstm.importers.onnx_flow import FEATURE, PART, TIME, Flow, Network, Part, axis_words
from edge_lstm.importers.onnx_joins import concat
from edge_lstm.importers.onnx_node import Array, Node
from edge_lstm.importers.onnx_recurrent import recurrent
from edge_lstm.layer_types import Activation, Function, Merge

# operator -> (function, default of its attribute alpha, of beta)
ACTIVATIONS: dict[str, tuple[str, float | None, float | None]] = {
    "Relu": ("relu", None, None),
    "Tanh": ("tanh", None, None),
    "Sigmoid": ("sigmoid", None, None),
    "Softsign": ("softsign", None, None),
    "Softplus": ("softplus", None, None),
    "LeakyRelu": ("leaky_relu", 0.01, None),
    "Elu": ("elu", 1.0, None),
    "ThresholdedRelu": ("thresholded_relu", 1.0, None),
    "HardSigmoid": ("hard_sigmoid", 0.2, 0.5),
}
FLOAT_TYPES = (1, 10, 11, 16)


def activation(net: Network, node: Node, inputs: Sequence[Value | None]) -> Flow:
    kind, alpha, beta = ACTIVATIONS[node.op]
    function = Function(
        kind,
        None if alpha is None else node.real("alpha", alpha),
        None if beta is None else node.real("beta", beta),
    )
    return net.mapped(flow_at(inputs), Activation(net.label, function))


def clip(net: Network, node: Node, inputs: Sequence[Value | None]) -> Flow:
    """Clip to 0 .. infinity is relu, to 0 .. 1 a hard sigmoid; others are refused."""
    given = constants(inputs)
    bounds = []
    for place, (name, default) in enumerate((("min", -np.inf), ("max", np.inf)), start=1):
        array = given[place] if place < len(given) else None
        bounds.append(float(np.ravel(array)[0]) if array is not None else node.real(name, 0) if name in
                      node.attributes else default)  # fmt: skip
    function = {(0.0, np.inf): Function("relu"), (0.0, 1.0): Function("hard_sigmoid", 1.0, 0.0)}.get(
        (bounds[0], bounds[1])
    )
    if function is None or any(isinstance(value, Flow) for value in inputs[1:]):
        raise UnsupportedModel(
            f"it clips to {bounds[0]:g} .. {bounds[1]:g}; only 0 .. 1 and 0 .. inf are carried"
        )
    return net.mapped(flow_at(inputs), Activation(net.label, function))


def passed(net: Network, node: Node, inputs: Sequence[Value | None]) -> Flow:
    """Identity, Dropout and Cast between floats."""
    if node.op == "Cast" and node.integer("to") not in FLOAT_TYPES:
        raise UnsupportedModel("it turns values into integers; export the float model")
    training = inputs[2] if node.op == "Dropout" and len(inputs) > 2 else None
    if training is not None and (isinstance(training, Flow) or training.any()):
        raise UnsupportedModel("it is in training mode; export the model after model.eval()")
    return flow_at(inputs)


def shape(net: Network, node: Node, inputs: Sequence[Value | None]) -> Array:
    sizes = net.sizes(flow_at(inputs))
    if node.op == "Size":
        return np.asarray(np.prod(sizes), np.int64)
    return np.array(sizes[node.integer("start") : node.integer("end", len(sizes))], dtype=np.int64)


def per_feature(net: Network, flow: Flow, array: Array) -> list[Array]:
    """``array``, broadcast against ``flow``, as one number a feature or one number; for each part of a stack.

    Raises UnsupportedModel where it differs from row to row or from stream to stream.
    """
    rank = len(flow.axes)
    if array.ndim > rank:
        raise UnsupportedModel(
            f"a constant of shape {array.shape}, which has more axes than the value ({rank})"
        )
    array = array.reshape((1,) * (rank - array.ndim) + array.shape)
    for axis, found in enumerate(flow.axes):
        if array.shape[axis] > 1 and found not in ((FEATURE,), (PART,)):
            first = array.take([0], axis)
            if (array != first).any() or found == ():
                raise UnsupportedModel(
                    f"a constant of shape {array.shape} that changes along {axis_words(flow, axis)}; "
                    "expected one number, or one a feature"
                )
            array = first
    if PART in flow.atoms:
        stack = flow.axes.index((PART,)) if (PART,) in flow.axes else -1
        if stack >= 0 and array.shape[stack] > 1:
            return [array.take(place, stack).ravel() for place in range(len(flow.parts))]
        return [array.ravel()] * len(flow.parts)
    return [array.ravel()]


def _affine(net: Network, flow: Flow, factors: Array, offsets: Array) -> Flow:
    """``flow * factors + offsets``, both broadcast against it; what follows an Affine becomes one with it."""
    pairs = zip(per_feature(net, flow, factors), per_feature(net, flow, offsets), strict=True)

    def add(source: int, width: int) -> int:
        factor, offset = (np.broadcast_to(values, width).astype(np.float64) for values in next(pairs))
        before = net.draft.layers[source] if source != INPUT else None
        if isinstance(before, Affine):
            offset, factor = offset + factor * before.offset, factor * before.factor
            source = net.draft.sources[source][0]
        return net.add(Affine(net.label, factor, offset), source)

    return net.applied(flow, add)


def arithmetic(net: Network, node: Node, inputs: Sequence[Value | None]) -> Flow:
    """Add, Sub, Mul and Div of two values, or of a value and a constant."""
    a, b = inputs[0], inputs[1]
    if isinstance(a, Flow) and isinstance(b, Flow):
        return _both(net, node.op, a, b)
    flow, constant = (a, b) if isinstance(a, Flow) else (b, a)
    if not isinstance(flow, Flow) or not isinstance(constant, np.ndarray):
        raise UnsupportedModel("it lacks an input; export the model again")
    one, zero = np.ones(1), np.zeros(1)
    number = constant.astype(np.float64)
    if constant.ndim > len(flow.axes) and constant.size <= flow.width:
        flow = net.flow(
            flow.parts,
            [*[()] * (constant.ndim - len(flow.axes)), *flow.axes],
            flow.first,
            flow.extra,
            flow.pad,
        )
    if node.op == "Add":
        return _affine(net, flow, one, number)
    if node.op == "Sub":
        minuend = isinstance(a, Flow)
        return _affine(net, flow, one if minuend else -one, -number if minuend else number)
    if node.op == "Mul":
        return _affine(net, flow, number, zero)
    if not isinstance(a, Flow):
        raise UnsupportedModel("it divides a constant by a value")
    if not number.all():
        raise UnsupportedModel("it divides by 0")
    return _affine(net, flow, 1 / number, zero)


def negative(net: Network, node: Node, inputs: Sequence[Value | None]) -> Flow:
    return _affine(net, flow_at(inputs), -np.ones(1), np.zeros(1))


def _both(net: Network, op: str, a: Flow, b: Flow) -> Flow:
    if op == "Div":
        raise UnsupportedModel("it divides one value by another")
    if op == "Sub":
        b, op = _affine(net, b, -np.ones(1), np.zeros(1)), "Add"
    return merged(net, "mul" if op == "Mul" else "sum", [a, b])


def merged(net: Network, mode: str, flows: Sequence[Flow]) -> Flow:
    """Values joined element by element; one row or one feature is repeated."""
    rank = max(len(flow.axes) for flow in flows)
    flows = [
        net.flow(flow.parts, [*[()] * (rank - len(flow.axes)), *flow.axes], flow.first, flow.extra, flow.pad)
        for flow in flows
    ]
    axes = []
    for axis in range(rank):
        found = {flow.axes[axis] for flow in flows} - {()}
        if len(found) > 1:
            words = " with ".join(axis_words(flow, axis) for flow in flows)
            raise UnsupportedModel(f"it joins {words} on axis {axis}")
        axes.append(found.pop() if found else ())
    shifts = {(flow.first, flow.extra) for flow in flows if TIME in flow.atoms}
    atoms = [atom for axis in axes for atom in axis]
    if len(shifts) > 1 or len(set(atoms)) != len(atoms) or any(flow.padded for flow in flows):
        raise UnsupportedModel("it joins rows of different times; pad or chop all of them in the same way")
    first, extra = shifts.pop() if shifts else (0, 0)
    if PART in atoms:
        if len({len(flow.parts) for flow in flows}) > 1 or len({flow.width for flow in flows}) > 1:
            raise UnsupportedModel("it joins a stack of values with one value")
        parts = [
            Part(net.add(Merge(net.label, mode), *[net.layer_of(part) for part in stack]), flows[0].width)
            for stack in zip(*(flow.parts for flow in flows), strict=True)
        ]
        return net.flow(parts, axes, first, extra)
    sources = [net.one(flow) for flow in flows]
    width = max(flow.width for flow in flows)
    index = net.add(Merge(net.label, mode), *sources)
    if mode == "mul" and len(flows) == 2 and all(net.is_window(flow) for flow in flows):
        weights, values = (0, 1) if flows[0].width == 1 else (1, 0)
        if flows[weights].width == 1:
            net.products[index] = (sources[weights], sources[values])
    return net.flow([Part(index, width)], axes, first, extra)


def several(net: Network, node: Node, inputs: Sequence[Value | None]) -> Flow:
    """Sum and Mean of any number of values."""
    flows = [flow_at(inputs, place) for place in range(len(inputs))]
    return flows[0] if len(flows) == 1 else merged(net, node.op.lower(), flows)


def matmul(net: Network, node: Node, inputs: Sequence[Value | None]) -> Flow:
    a, b = inputs[0], inputs[1]
    if isinstance(a, Flow) and isinstance(b, Flow):
        return product(net, a, b)
    if isinstance(a, Flow) and isinstance(b, np.ndarray):
        if b.ndim == 1:
            dropped = net.dense(a, -1, b[:, None])
            return net.flow(dropped.parts, dropped.axes[:-1], a.first, a.extra)
        return net.dense(a, -1, _matrix(b, len(a.axes)))
    if isinstance(a, np.ndarray) and isinstance(b, Flow) and a.ndim > 1 and len(b.axes) > 1:
        return net.dense(b, -2, _matrix(a, len(b.axes)).T)
    raise UnsupportedModel("it multiplies a vector that is a constant by a value; transpose both")


def _matrix(array: Array, rank: int) -> Array:
    """A constant matrix without leading axes of size 1."""
    if array.ndim > rank or any(size != 1 for size in array.shape[:-2]):
        raise UnsupportedModel(f"its matrix is {array.shape}, expected one for all streams and rows")
    matrix: Array = array.reshape(array.shape[-2:])
    return matrix


def gemm(net: Network, node: Node, inputs: Sequence[Value | None]) -> Flow:
    a, b = flow_at(inputs), constants(inputs)[1]
    c = constants(inputs)[2] if len(inputs) > 2 else None
    if b is None or b.ndim != 2 or (len(inputs) > 2 and isinstance(inputs[2], Flow)):
        raise UnsupportedModel("its matrix and its offset are no constants")
    if node.integer("transA"):
        a = net.flow(a.parts, a.axes[::-1], a.first, a.extra, a.pad)
    kernel = (b.T if node.integer("transB") else b).astype(np.float64) * node.real("alpha", 1.0)
    summed = net.dense(a, -1, kernel)
    if c is None:
        return summed
    return _affine(net, summed, np.ones(1), c.astype(np.float64) * node.real("beta", 1.0))


def prelu(net: Network, node: Node, inputs: Sequence[Value | None]) -> Flow:
    slope = constants(inputs)[1]
    if slope is None or not slope.size or (slope != slope.flat[0]).any():
        raise UnsupportedModel("its slope differs from feature to feature; use one slope (LeakyRelu)")
    function = Function("leaky_relu", float(slope.flat[0]))
    return net.mapped(flow_at(inputs), Activation(net.label, function))


Converter = Callable[[Network, Node, Sequence[Any]], Any]
CONVERTERS: dict[str, Converter] = {
    **dict.fromkeys(ACTIVATIONS, activation),
    **dict.fromkeys(("Identity", "Dropout", "Cast"), passed),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div"), arithmetic),
    **dict.fromkeys(("Sum", "Mean"), several),
    **dict.fromkeys(("ReduceSum", "ReduceMean", "GlobalAveragePool"), reduction),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), recurrent),
    **dict.fromkeys(("Shape", "Size"), shape),
    **MOVERS,
    "Concat": concat,
    "Clip": clip, "Neg": negative, "MatMul": matmul, "Gemm": gemm, "PRelu": prelu, "Softmax": softmax,
    "Conv": conv, "Pad": pad, "BatchNormalization": normalization,
}  # fmt: skip


def converted(net: Network, node: Node, inputs: Sequence[Value | None]) -> list[Value]:
    """What ``node`` writes.  Raises ModelError, or what Python raises on senseless numbers."""
    found = CONVERTERS[node.op](net, node, inputs)
    return found if isinstance(found, list) else [found]
