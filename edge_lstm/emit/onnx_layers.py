"""Each float layer as ONNX nodes.  Values between nodes are (rows, 1, width): ONNX's recurrent layout.

Reads layers; writes into a Body.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edge_lstm.arrays import FloatArray
from edge_lstm.emit.onnx_body import Body, states_of
from edge_lstm.layer_types import (
    Activation,
    Attend,
    Conv1d,
    Dense,
    Function,
    Gru,
    Layer,
    Lstm,
    Merge,
    Repeat,
    Rnn,
    Row,
    Softmax,
)

OPERATORS = {
    "relu": "Relu",
    "tanh": "Tanh",
    "sigmoid": "Sigmoid",
    "softsign": "Softsign",
    "softplus": "Softplus",
    "leaky_relu": "LeakyRelu",
    "elu": "Elu",
    "thresholded_relu": "ThresholdedRelu",
    "affine": "Affine",
    "scaled_tanh": "ScaledTanh",
    "hard_sigmoid": "HardSigmoid",
}
MERGE_OPERATORS = {"concat": "Concat", "sum": "Sum", "mean": "Mean"}


def lstm_gates(columns: FloatArray) -> FloatArray:
    """Our (..., 4 * units) of the gates i, f, g, o as ONNX's (1, 4 * units, ...) of i, o, f, c (our g)."""
    i, f, g, o = np.split(columns, 4, axis=-1)
    rows: FloatArray = np.concatenate([i, o, f, g], axis=-1).T[None]
    return rows


def gru_gates(columns: FloatArray) -> FloatArray:
    """Our (..., 3 * units) of the gates z, r, h as ONNX's (1, 3 * units, ...); the order is the same."""
    rows: FloatArray = columns.T[None]
    return rows


def _coupled(columns: FloatArray) -> FloatArray:
    """The columns of i as those of f, negated: i = act(-z) = 1 - act(z) = 1 - f.

    ONNX does not say which gate ``input_forget`` keeps (ONNX Runtime: i, and f = 1 - i), and some runtimes
    ignore it.  With these columns all of them compute one network.
    """
    _, f, g, o = np.split(columns, 4, axis=-1)
    return np.concatenate([-f, f, g, o], axis=-1)


def _activations(*functions: Function) -> dict[str, Any]:
    """The attributes that choose activations; alpha and beta only for functions that have them."""
    plain = [Function("affine") if function.kind == "linear" else function for function in functions]
    lists: dict[str, list[Any]] = {
        "activations": [OPERATORS[function.kind] for function in plain],
        "activation_alpha": [function.alpha for function in plain if function.alpha is not None],
        "activation_beta": [function.beta for function in plain if function.beta is not None],
    }
    return {name: values for name, values in lists.items() if values}


def _recurrent(
    body: Body,
    layer: Lstm | Gru | Rnn,
    read: str,
    window: int,
    weights: dict[str, FloatArray],
    attributes: dict[str, Any],
) -> str:
    """weights: W, R and B, and P of a peephole, in ONNX's layout."""
    name, states = layer.name, states_of(layer)
    if window:
        given = [layer.initial_hidden, layer.initial_cell if isinstance(layer, Lstm) else None]
        initial = [
            "" if values is None else body.constant(f"{state.name}_initial", state.initial)
            for values, state in zip(given, states, strict=False)
        ]
    else:
        initial = [f"{state.name}_in" for state in states]
    tensors = {part: body.constant(f"{name}/{part}", values) for part, values in weights.items()}
    inputs = [read, tensors["W"], tensors["R"], tensors["B"], "", *initial, tensors.get("P", "")]
    while not inputs[-1]:
        inputs.pop()
    if layer.gate_clip:
        attributes["clip"] = float(layer.gate_clip)
    if layer.backwards:
        attributes["direction"] = "reverse"
    last = [] if window else [f"{state.name}_out" for state in states]
    operator = type(layer).__name__.upper()
    y = body.add(operator, inputs, f"{name}/Y", *last, hidden_size=layer.units, **attributes)
    return body.add("Squeeze", [y, body.constant(f"{name}/direction", [1])], f"{name}/rows")


def _lstm(body: Body, layer: Lstm, reads: Sequence[str], window: int) -> str:
    kernel, recurrent, bias = layer.kernel, layer.recurrent_kernel, layer.bias
    peephole = layer.peephole
    attributes = _activations(layer.recurrent_activation, layer.activation, layer.cell_activation)
    if layer.coupled:
        kernel, recurrent, bias = _coupled(kernel), _coupled(recurrent), _coupled(bias)
        peephole = None if peephole is None else np.stack([-peephole[1], peephole[1], peephole[2]])
        attributes["input_forget"] = 1
    gates = lstm_gates(bias)
    weights = {
        "W": lstm_gates(kernel),
        "R": lstm_gates(recurrent),
        "B": np.concatenate([gates, np.zeros_like(gates)], axis=1),
    }
    if peephole is not None:
        i, f, o = peephole
        weights["P"] = np.concatenate([i, o, f])[None]
    return _recurrent(body, layer, reads[0], window, weights, attributes)


def _gru(body: Body, layer: Gru, reads: Sequence[str], window: int) -> str:
    biases = [gru_gates(layer.bias), gru_gates(layer.recurrent_bias)]
    weights = {
        "W": gru_gates(layer.kernel),
        "R": gru_gates(layer.recurrent_kernel),
        "B": np.concatenate(biases, axis=1),
    }
    attributes = _activations(layer.recurrent_activation, layer.activation)
    attributes["linear_before_reset"] = int(layer.reset_after)
    return _recurrent(body, layer, reads[0], window, weights, attributes)


def _rnn(body: Body, layer: Rnn, reads: Sequence[str], window: int) -> str:
    weights = {
        "W": layer.kernel.T[None],
        "R": layer.recurrent_kernel.T[None],
        "B": np.concatenate([layer.bias, np.zeros_like(layer.bias)])[None],
    }
    return _recurrent(body, layer, reads[0], window, weights, _activations(layer.activation))


def _dense(body: Body, layer: Dense, reads: Sequence[str], window: int) -> str:
    name = layer.name
    product = body.add("MatMul", [reads[0], body.constant(f"{name}/kernel", layer.kernel)], f"{name}/product")
    return body.add("Add", [product, body.constant(f"{name}/bias", layer.bias)], f"{name}/sum")


def _conv1d(body: Body, layer: Conv1d, reads: Sequence[str], window: int) -> str:
    """ONNX's Conv takes (1, features, rows); what lies before the first row is its padding or the state."""
    name, reach = layer.name, (layer.size - 1) * layer.dilation
    x = body.add("Transpose", [reads[0]], f"{name}/features", perm=[1, 2, 0])
    pads = [reach, 0] if window else [0, 0]
    if reach and not window:
        before = body.add("Transpose", [f"{name}_rows_in"], f"{name}/before", perm=[0, 2, 1])
        x = body.add("Concat", [before, x], f"{name}/joined", axis=2)
        ends = [body.constant(f"{name}/{part}", [at]) for part, at in _last(reach).items()]
        after = body.add("Slice", [x, *ends, body.constant(f"{name}/axis", [2])], f"{name}/after")
        body.add("Transpose", [after], f"{name}_rows_out", perm=[0, 2, 1])
    tensors = [
        x,
        body.constant(f"{name}/kernel", layer.kernel.transpose(2, 1, 0)),
        body.constant(f"{name}/bias", layer.bias),
    ]
    y = body.add(
        "Conv", tensors, f"{name}/Y", dilations=[layer.dilation], kernel_shape=[layer.size], pads=pads
    )
    return body.add("Transpose", [y], f"{name}/rows", perm=[2, 0, 1])


def _last(count: int) -> dict[str, int]:
    """Starts and ends of a Slice that keeps the last ``count``."""
    return {"start": -count, "end": np.iinfo(np.int64).max}


def _activation(body: Body, layer: Activation, reads: Sequence[str], window: int) -> str:
    name, function, read = layer.name, layer.function, reads[0]
    if function.kind == "linear":
        return body.add("Identity", [read], f"{name}/Y")
    if function.kind in ("affine", "scaled_tanh"):  # operators of recurrent layers only
        alpha, beta = (
            body.constant(f"{name}/alpha", function.alpha),
            body.constant(f"{name}/beta", function.beta),
        )
        if function.kind == "affine":
            return body.add("Add", [body.add("Mul", [read, alpha], f"{name}/product"), beta], f"{name}/Y")
        inner = body.add("Tanh", [body.add("Mul", [read, beta], f"{name}/product")], f"{name}/tanh")
        return body.add("Mul", [inner, alpha], f"{name}/Y")
    given = {"alpha": function.alpha, "beta": function.beta}
    attributes = {key: value for key, value in given.items() if value is not None}
    return body.add(OPERATORS[function.kind], [read], f"{name}/Y", **attributes)


def _softmax(body: Body, layer: Softmax, reads: Sequence[str], window: int) -> str:
    return body.add("Softmax", [reads[0]], f"{layer.name}/Y", axis=2 if layer.axis == "features" else 0)


def _merge(body: Body, layer: Merge, reads: Sequence[str], window: int) -> str:
    if layer.mode != "mul":
        attributes = {"axis": 2} if layer.mode == "concat" else {}
        return body.add(MERGE_OPERATORS[layer.mode], reads, f"{layer.name}/Y", **attributes)
    product = reads[0]
    for read in reads[1:]:
        product = body.add("Mul", [product, read], f"{layer.name}/Y")
    return product


def _row(body: Body, layer: Row, reads: Sequence[str], window: int) -> str:
    ends = {"start": 0, "end": 1} if layer.index == 0 else _last(1)
    tensors = [body.constant(f"{layer.name}/{part}", [at]) for part, at in {**ends, "axis": 0}.items()]
    return body.add("Slice", [reads[0], *tensors], f"{layer.name}/Y")


def _repeat(body: Body, layer: Repeat, reads: Sequence[str], window: int) -> str:
    shape = body.constant(f"{layer.name}/shape", [window, 1, 1])
    return body.add("Expand", [reads[0], shape], f"{layer.name}/Y")


def _attend(body: Body, layer: Attend, reads: Sequence[str], window: int) -> str:
    weighted = body.add("Mul", reads, f"{layer.name}/weighted")
    return body.add("ReduceSum", [weighted, body.constant(f"{layer.name}/axis", [0])], f"{layer.name}/Y")


WRITERS: dict[type, Callable[[Body, Any, Sequence[str], int], str]] = {
    Lstm: _lstm,
    Gru: _gru,
    Rnn: _rnn,
    Dense: _dense,
    Conv1d: _conv1d,
    Activation: _activation,
    Softmax: _softmax,
    Merge: _merge,
    Row: _row,
    Repeat: _repeat,
    Attend: _attend,
}


def write_layer(body: Body, layer: Layer, reads: Sequence[str], window: int) -> str:
    """Add the nodes of ``layer``; returns the tensor that it writes, (rows, 1, width).

    reads: the tensors that it reads.  window: rows of a window; 0 for a streaming network, whose states enter
    and leave as the tensors of ``states_of``.  Expects a layer without ``refusals``.
    """
    return WRITERS[type(layer)](body, layer, reads, window)
