"""Many networks of one shape as arrays with a leading axis, their forward pass and its gradient.

Reads Graphs of plain LSTM and dense layers; computes on tensors (steps, networks, windows, width).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from edge_lstm.arrays import FloatArray
from edge_lstm.errors import ModelError
from edge_lstm.graph import Dense, Graph, Lstm
from edge_lstm.training.model import layer_weights, load_tensorflow, plain_layers


@dataclass(frozen=True)
class Shape:
    """One layer: lstm or dense, and its sizes."""

    kind: str
    features: int
    outputs: int

    @property
    def arrays(self) -> int:
        """How many weight arrays it has: kernel, recurrent kernel and bias, or kernel and bias."""
        return 3 if self.kind == "lstm" else 2


def shapes_of(graph: Graph) -> tuple[Shape, ...]:
    """The layers of a network that can be trained; raises UnsupportedModel for others."""
    return tuple(
        Shape("lstm" if isinstance(layer, Lstm) else "dense", layer.features, layer.outputs)
        for layer in plain_layers(graph)
    )


def common_shapes(graphs: Sequence[Graph]) -> tuple[Shape, ...]:
    """The one shape of all networks; raises ModelError where they differ."""
    first = shapes_of(graphs[0])
    for graph in graphs[1:]:
        if shapes_of(graph) != first:
            raise ModelError(
                f"model '{graph.name}' has other layers than '{graphs[0].name}'; only networks of one shape "
                "are trained together: train them in groups"
            )
    return first


def stack_weights(graphs: Sequence[Graph]) -> list[FloatArray]:
    """All weight arrays in layer order, each (networks, ...), float32."""
    each = [[array for layer in plain_layers(graph) for array in layer_weights(layer)] for graph in graphs]
    return [np.stack(arrays).astype(np.float32) for arrays in zip(*each, strict=True)]


def unstack(graph: Graph, weights: Sequence[FloatArray], network: int) -> Graph:
    """``graph`` with the weights of one network of the stack."""
    rest = iter(weights)
    layers: list[Lstm | Dense] = []
    for layer in plain_layers(graph):
        kernel = next(rest)[network]
        if isinstance(layer, Lstm):
            recurrent, bias = next(rest)[network], next(rest)[network]
            layers.append(replace(layer, kernel=kernel, recurrent_kernel=recurrent, bias=bias))
        else:
            layers.append(replace(layer, kernel=kernel, bias=next(rest)[network]))
    return replace(graph, layers=tuple(layers))


class Trace(NamedTuple):
    """What an LSTM's forward pass leaves for its gradient; tensors (steps, networks, windows, width).

    x: inputs.  gates: i, f, g, o side by side.  cell, squashed: c and tanh(c).  hidden: outputs.
    mask: dropout of inputs and state side by side (networks, windows, width), or None.
    hidden_open, cell_open: 0 where a code saturated and no gradient passes, or None.
    """

    x: Any
    gates: Any
    cell: Any
    squashed: Any
    hidden: Any
    mask: Any = None
    hidden_open: Any = None
    cell_open: Any = None


def scan(
    body: Any, state: tuple[Any, ...], steps: int, shapes: Sequence[Any], backwards: bool = False
) -> Any:
    """Run ``body(t, *state) -> (state, written)`` for all steps; returns the last state and what was written.

    shapes: of one step of each written array, or its (shape, dtype).  Results are stacked in time order.
    """
    tf = load_tensorflow()
    arrays = [tf.TensorArray(dtype, steps, element_shape=shape) for shape, dtype in shapes]
    held = len(state)

    def loop(k: Any, *values: Any) -> Any:
        t = steps - 1 - k if backwards else k
        following, written = body(t, *values[:held])
        stored = [array.write(t, value) for array, value in zip(values[held:], written, strict=True)]
        return (k + 1, *following, *stored)

    _, *values = tf.while_loop(lambda k, *_: k < steps, loop, (0, *state, *arrays), maximum_iterations=steps)
    return values[:held], [array.stack() for array in values[held:]]


def lstm_forward(x: Any, kernel: Any, recurrent: Any, bias: Any, mask: Any = None) -> Trace:
    """All steps from a state of zeros.  mask: of dropout, see Trace."""
    tf = load_tensorflow()
    steps, networks, windows, _ = x.shape
    units = recurrent.shape[1]
    joined = tf.concat([kernel, recurrent], 1)
    zeros = tf.zeros((networks, windows, units))

    def body(t: Any, hidden: Any, cell: Any) -> Any:
        seen = tf.concat([x[t], hidden], -1)
        seen = seen if mask is None else seen * mask
        i, f, g, o = tf.split(tf.matmul(seen, joined) + bias[:, None], 4, -1)
        i, f, g, o = tf.sigmoid(i), tf.sigmoid(f), tf.tanh(g), tf.sigmoid(o)
        cell = f * cell + i * g
        squashed = tf.tanh(cell)
        hidden = o * squashed
        return (hidden, cell), (tf.concat([i, f, g, o], -1), cell, squashed, hidden)

    state = (networks, windows, units)
    shapes = [((networks, windows, 4 * units), tf.float32), *[(state, tf.float32)] * 3]
    _, written = scan(body, (zeros, zeros), steps, shapes)
    gates, cells, squashed, hiddens = written
    return Trace(x, gates, cells, squashed, hiddens, mask)


def before(states: Any) -> Any:
    """The state that each step starts from: zeros, then all but the last."""
    tf = load_tensorflow()
    return tf.concat([tf.zeros_like(states[:1]), states[:-1]], 0)


def lstm_gradient(trace: Trace, kernel: Any, recurrent: Any, upstream: Any, below: bool) -> tuple[Any, Any]:
    """Backpropagation through time.  upstream: gradient of the outputs.  below: of the inputs is wanted too.

    Returns that (or None) and the gradients of kernel, recurrent kernel and bias.
    """
    tf = load_tensorflow()
    features, units = kernel.shape[1], recurrent.shape[1]
    steps, networks, windows, _ = trace.x.shape
    transposed = tf.transpose(recurrent, [0, 2, 1])
    cells, hiddens = before(trace.cell), before(trace.hidden)
    seen_mask, state_mask = (
        (None, None) if trace.mask is None else tf.split(trace.mask, [features, units], -1)
    )

    def body(t: Any, dh: Any, dc: Any) -> Any:
        i, f, g, o = tf.split(trace.gates[t], 4, -1)
        squashed = trace.squashed[t]
        dh = _masked(dh + upstream[t], None if trace.hidden_open is None else trace.hidden_open[t])
        dc = dc + dh * o * (1 - squashed * squashed)
        dc = _masked(dc, None if trace.cell_open is None else trace.cell_open[t])
        sums = [
            dc * g * i * (1 - i), dc * cells[t] * f * (1 - f), dc * i * (1 - g * g),
            dh * squashed * o * (1 - o),
        ]  # fmt: skip
        dz = tf.concat(sums, -1)
        return (_masked(tf.matmul(dz, transposed), state_mask), dc * f), [dz]

    zeros = tf.zeros((networks, windows, units))
    shapes = [((networks, windows, 4 * units), tf.float32)]
    _, (dz,) = scan(body, (zeros, zeros), steps, shapes, backwards=True)
    inputs, own = dense_gradient(_masked(trace.x, seen_mask), kernel, dz)
    recurrent_own = tf.einsum("tmbf,tmbo->mfo", _masked(hiddens, state_mask), dz)
    return (_masked(inputs, seen_mask) if below else None), [own[0], recurrent_own, own[1]]


def _masked(value: Any, mask: Any) -> Any:
    return value if mask is None else value * mask


def dense_forward(x: Any, kernel: Any, bias: Any) -> Any:
    """x: (steps, networks, windows, features)."""
    return load_tensorflow().einsum("tmbf,mfo->tmbo", x, kernel) + bias[:, None]


def dense_gradient(x: Any, kernel: Any, upstream: Any) -> tuple[Any, Any]:
    """The gradient of the inputs, and those of kernel and bias."""
    tf = load_tensorflow()
    weights = tf.einsum("tmbf,tmbo->mfo", x, upstream)
    return tf.einsum("tmbo,mfo->tmbf", upstream, kernel), [weights, tf.reduce_sum(upstream, [0, 2])]


def forward(
    shapes: Sequence[Shape], weights: Sequence[Any], x: Any, masks: Sequence[Any]
) -> tuple[Any, list[Any]]:
    """Outputs of the stack, and for each layer its Trace or its inputs.  masks: one a layer, or None."""
    rest, kept = iter(weights), []
    for shape, mask in zip(shapes, masks, strict=True):
        arrays = [next(rest) for _ in range(shape.arrays)]
        if shape.kind == "lstm":
            kernel, recurrent, bias = arrays
            trace = lstm_forward(x, kernel, recurrent, bias, mask)
            kept.append(trace)
            x = trace.hidden
        else:
            kept.append(x)
            x = dense_forward(x, *arrays)
    return x, kept


def gradients(
    shapes: Sequence[Shape], weights: Sequence[Any], kept: Sequence[Any], upstream: Any
) -> list[Any]:
    """The gradient of every weight array.  upstream: of the outputs; kept: of ``forward``."""
    found: list[Any] = []
    last = len(weights)
    for index in reversed(range(len(shapes))):
        shape = shapes[index]
        arrays = weights[last - shape.arrays : last]
        last -= shape.arrays
        if shape.kind == "lstm":
            upstream, own = lstm_gradient(kept[index], arrays[0], arrays[1], upstream, index > 0)
        else:
            upstream, own = dense_gradient(kept[index], arrays[0], upstream)
        found = own + found
    return found
