"""ONNX's recurrent operators LSTM, GRU and RNN as layers; their gate order becomes ours here only.

Reads nodes, constants and Flows; writes Flows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from edge_lstm.arrays import FloatArray
from edge_lstm.errors import ModelError, UnsupportedModel
from edge_lstm.importers.onnx_axes import Value
from edge_lstm.importers.onnx_flow import (
    BATCH,
    CELL,
    FEATURE,
    PART,
    TIME,
    Flow,
    Network,
    Part,
    WrongAxes,
    axis_words,
)
from edge_lstm.importers.onnx_node import Array, Node
from edge_lstm.importers.onnx_states import PROJECTION_HINT, with_states
from edge_lstm.layer_types import FUNCTIONS, Function, Gru, Lstm, Rnn

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
DEFAULTS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}
DIRECTIONS = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
KINDS = {
    "relu": "relu", "tanh": "tanh", "sigmoid": "sigmoid", "affine": "affine", "leakyrelu": "leaky_relu",
    "thresholdedrelu": "thresholded_relu", "scaledtanh": "scaled_tanh", "hardsigmoid": "hard_sigmoid",
    "elu": "elu", "softsign": "softsign", "softplus": "softplus",
}  # fmt: skip
UNSETTLED = ("affine", "scaled_tanh", "thresholded_relu")  # ONNX Runtime takes 0 where ONNX says 1


def lstm_gates(rows: FloatArray) -> FloatArray:
    """ONNX's (4 * units, ...) of the gates i, o, f, c as our (..., 4 * units) of i, f, g, o."""
    i, o, f, c = np.split(rows, 4, axis=0)
    columns: FloatArray = np.concatenate([i, f, c, o], axis=0).T
    return columns


def gru_gates(rows: FloatArray) -> FloatArray:
    """ONNX's (3 * units, ...) of the gates z, r, h as our (..., 3 * units); the order is the same."""
    columns: FloatArray = rows.T
    return columns


def peepholes(row: FloatArray) -> FloatArray:
    """ONNX's (3 * units,) of the gates i, o, f as our (3, units) of i, f, o."""
    i, o, f = np.split(row, 3)
    return np.stack([i, f, o])


def activations(node: Node, directions: int) -> list[list[Function]]:
    """For each direction the functions f, g, h.  alpha and beta go, in order, to those that have one."""
    default = DEFAULTS[node.op]
    names = node.numbers("activations")
    names = default * directions if names is None else names
    if node.op == "RNN" and directions == 1 and len(names) == 2:
        names = names[:1]  # the operator's default names two, also for one direction
    kinds = [KINDS.get(str(name).lower(), "") for name in names]
    if "" in kinds:
        raise UnsupportedModel(
            f"activation '{names[kinds.index('')]}' is unknown, expected {', '.join(FUNCTIONS)}"
        )
    if len(kinds) != len(default) * directions:
        raise ModelError(f"{len(kinds)} activations, expected {len(default) * directions}")
    given = [
        _consumed(node, f"activation_{name}", [FUNCTIONS[kind][place] is not None for kind in kinds])
        for place, name in enumerate(("alpha", "beta"))
    ]
    for place, kind in enumerate(kinds):
        if kind in UNSETTLED and any(
            FUNCTIONS[kind][number] is not None and values[place] is None
            for number, values in enumerate(given)
        ):
            raise UnsupportedModel(
                f"activation '{names[place]}' without activation_alpha or activation_beta, whose defaults "
                "differ between ONNX and ONNX Runtime (0); name them"
            )
    functions = [
        Function(kind, alpha, beta) if kind != "affine" or (alpha, beta) != (1.0, 0.0) else Function()
        for kind, alpha, beta in zip(kinds, *given, strict=True)
    ]
    return [functions[start : start + len(default)] for start in range(0, len(functions), len(default))]


def _consumed(node: Node, name: str, takes: Sequence[bool]) -> list[float | None]:
    values = [float(value) for value in node.numbers(name) or []]
    if len(values) > sum(takes):
        raise UnsupportedModel(
            f"{len(values)} values of {name} for {sum(takes)} activations that take one; leave out the others"
        )
    rest = iter(values)
    return [next(rest, None) if taken else None for taken in takes]


def recurrent(net: Network, node: Node, inputs: Sequence[Value | None]) -> list[Flow]:
    """Y, Y_h and, for an LSTM, Y_c."""
    direction = node.text("direction", "forward")
    if direction not in DIRECTIONS:
        raise ModelError(f"direction '{direction}', expected one of {', '.join(DIRECTIONS)}")
    batchwise = bool(node.integer("layout"))
    sequence = _sequence(net, inputs, batchwise)
    backwards = DIRECTIONS[direction]
    weights = [_weights(node, inputs, place, len(backwards)) for place in range(len(backwards))]
    if weights[0]["W"].shape[1] != sequence.width:
        raise ModelError(
            f"its W takes {weights[0]['W'].shape[1]} features, but its sequence has {sequence.width}"
        )
    source = net.one(sequence)
    functions = activations(node, len(backwards))
    _check_lengths(net, inputs)
    made = []
    for place, (found, own) in enumerate(zip(weights, functions, strict=True)):
        layer = MAKERS[node.op](_name(net, direction, place), node, found, own)
        layer = replace(layer, backwards=backwards[place], gate_clip=_clip(node))
        layer, fed = with_states(net, node, inputs, layer, place, batchwise)
        index = net.add(layer, source)
        net.fed.update({entry: (index, state) for entry, state in fed.items()})
        made.append(Part(index, layer.outputs))
    last = [
        part._replace(row=None if net.rows == 1 else 0 if back else net.rows - 1)
        for part, back in zip(made, backwards, strict=True)
    ]
    rows, vectors = [(TIME,), (PART,), (BATCH,), (FEATURE,)], [(PART,), (BATCH,), (FEATURE,)]
    if batchwise:
        rows, vectors = [(BATCH,), (TIME,), (PART,), (FEATURE,)], [(BATCH,), (PART,), (FEATURE,)]
    cells = [part._replace(state=CELL) for part in made]
    return [net.flow(made, rows), net.flow(last, vectors), net.flow(cells, vectors)]


def _name(net: Network, direction: str, place: int) -> str:
    return net.label if direction != "bidirectional" else f"{net.label}_{('forward', 'backward')[place]}"


def _sequence(net: Network, inputs: Sequence[Value | None], batchwise: bool) -> Flow:
    """X, whose axes must be those of the operator's layout."""
    flow = inputs[0]
    if not isinstance(flow, Flow):
        raise UnsupportedModel("its sequence X is a constant; expected values of the network")
    if len(flow.axes) != 3:
        raise ModelError(f"its sequence X has {len(flow.axes)} axes, expected 3")
    flow = net.as_features(net.aligned(flow), 2)
    time, batch = (1, 0) if batchwise else (0, 1)
    if flow.axes[time] not in ((), (TIME,)) or flow.axes[batch] not in ((), (BATCH,)):
        raise WrongAxes(
            f"it runs over {axis_words(flow, time)}, expected the rows of a window; transpose its input or "
            "export with the other batch_first"
        )
    if not net.is_window(flow):
        raise UnsupportedModel(
            "it runs over one row of a window, expected all of them; a decoder that is fed its own output "
            "step by step is not carried: repeat the vector instead"
        )
    return flow


def _constant(inputs: Sequence[Value | None], place: int, name: str) -> Array | None:
    """An optional constant input.  Raises UnsupportedModel where it depends on the network's input."""
    value = inputs[place] if place < len(inputs) else None
    if isinstance(value, Flow) and value.parts[0].state not in ("", CELL):
        raise UnsupportedModel(
            f"its {name} is the input '{value.parts[0].state}' of the graph, expected a constant; give its "
            "values to read_onnx as constants"
        )
    if isinstance(value, Flow):
        raise UnsupportedModel(f"its {name} is computed from the network's input, expected a constant")
    return value


def _weights(node: Node, inputs: Sequence[Value | None], place: int, directions: int) -> dict[str, Any]:
    """W (gates * units, features), R (gates * units, units), B's two halves and P of one direction."""
    gates, given = GATES[node.op], {
        name: _constant(inputs, number, name) for number, name in ((1, "W"), (2, "R"), (3, "B"), (7, "P"))
    }  # fmt: skip
    w, r, b, p = given["W"], given["R"], given["B"], given["P"]
    if w is None or r is None or w.ndim != 3 or r.ndim != 3:
        raise ModelError("its weights W and R are not constants with 3 axes; export the model again")
    units = r.shape[2]
    if node.integer("hidden_size", units) != units or r.shape[1] != gates * units:
        raise ModelError(
            f"hidden_size is {node.integer('hidden_size', units)} and R {r.shape}, expected "
            f"(directions, {gates} * hidden_size, hidden_size); {PROJECTION_HINT}"
        )
    expected = {"W": (directions, gates * units, w.shape[2]), "R": (directions, gates * units, units),
                "B": (directions, 2 * gates * units), "P": (directions, 3 * units)}  # fmt: skip
    for name, array in given.items():
        if array is not None and array.shape != expected[name]:
            raise ModelError(f"its {name} is {array.shape}, expected {expected[name]}")
    halves = np.zeros((2, gates * units)) if b is None else b[place].astype(np.float64).reshape(2, -1)
    return {"W": w[place], "R": r[place], "B": halves, "P": None if p is None else p[place]}


def _check_lengths(net: Network, inputs: Sequence[Value | None]) -> None:
    lengths = _constant(inputs, 4, "sequence_lens")
    if lengths is not None and not (lengths == net.rows).all():
        raise UnsupportedModel(
            f"its sequence_lens are {np.unique(lengths)[:4].tolist()}, expected all {net.rows} rows; a "
            "device runs every row that it gets: leave sequence_lens out (PyTorch: no packed sequences)"
        )


def _clip(node: Node) -> float:
    """ONNX Runtime clamps the inputs of the gates' activations and nothing else, which gate_clip is."""
    clip = node.real("clip", 0.0)
    if "clip" in node.attributes and clip <= 0:
        raise UnsupportedModel(f"its clip is {clip}, expected a number above 0")
    return clip


def _lstm(name: str, node: Node, weights: dict[str, Any], functions: list[Function]) -> Lstm:
    kernel, recurrent_kernel = lstm_gates(weights["W"]), lstm_gates(weights["R"])
    bias = lstm_gates(weights["B"].sum(axis=0))
    peephole = None if weights["P"] is None else peepholes(weights["P"])
    coupled = bool(node.integer("input_forget"))
    if coupled:
        kernel, recurrent_kernel, bias = (_coupled(columns) for columns in (kernel, recurrent_kernel, bias))
        peephole = None if peephole is None else np.stack([peephole[0], -peephole[0], peephole[2]])
        if functions[0].kind != "sigmoid" and (functions[0].kind, functions[0].beta) != ("hard_sigmoid", 0.5):
            raise UnsupportedModel(
                f"input_forget with '{functions[0].kind}', where 1 - f(z) is not f(-z); use Sigmoid"
            )
    return Lstm(
        name, kernel, recurrent_kernel, bias, recurrent_activation=functions[0], activation=functions[1],
        cell_activation=functions[2], peephole=peephole, coupled=coupled,
    )  # fmt: skip


def _coupled(columns: FloatArray) -> FloatArray:
    """The columns of f as those of i, negated.

    input_forget keeps i and takes f = 1 - i (ONNX Runtime); our coupled gates keep f and take i = 1 - f.
    With f = act(-z) = 1 - act(z) both are one network.
    """
    i, _, g, o = np.split(columns, 4, axis=-1)
    return np.concatenate([i, -i, g, o], axis=-1)


def _gru(name: str, node: Node, weights: dict[str, Any], functions: list[Function]) -> Gru:
    bias, recurrent_bias = (gru_gates(half) for half in weights["B"])
    return Gru(
        name, gru_gates(weights["W"]), gru_gates(weights["R"]), bias, recurrent_bias,
        reset_after=bool(node.integer("linear_before_reset")), recurrent_activation=functions[0],
        activation=functions[1],
    )  # fmt: skip


def _rnn(name: str, node: Node, weights: dict[str, Any], functions: list[Function]) -> Rnn:
    bias = weights["B"].sum(axis=0)
    return Rnn(name, weights["W"].T, weights["R"].T, bias, activation=functions[0])


MAKERS: dict[str, Callable[..., Any]] = {"LSTM": _lstm, "GRU": _gru, "RNN": _rnn}
