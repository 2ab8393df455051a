"""Quantization of many networks of one shape at once: their calibration streams run side by side.

Reads Graphs and streams; writes the QGraphs that ``quantize`` gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from edge_lstm.arrays import FloatArray
from edge_lstm.errors import UnsupportedModel, raise_all
from edge_lstm.graph import Graph
from edge_lstm.lower import lower
from edge_lstm.qgraph import QGraph
from edge_lstm.quantizer import QuantizeConfig, _input_quantization, _write_layers, layer_problems
from edge_lstm.reference.floating import Signals
from edge_lstm.training.model import load_tensorflow
from edge_lstm.training.stack import Shape, common_shapes, dense_forward, scan, stack_weights


def quantize_many(
    graphs: Sequence[Graph], calibrations: Sequence[FloatArray], config: QuantizeConfig
) -> list[QGraph]:
    """What ``quantize`` gives for each network and its stream (steps, features).

    The float64 signals of the streams agree with those of the reference but for their last bits.
    """
    signals = stream_signals(graphs, calibrations)
    return [
        _quantize_signals(graph, stream, own, config)
        for graph, stream, own in zip(graphs, calibrations, signals, strict=True)
    ]


def _quantize_signals(graph: Graph, x: FloatArray, signals: list[Signals], config: QuantizeConfig) -> QGraph:
    raise_all(UnsupportedModel, f"model '{graph.name}'", layer_problems(graph, config))
    source = _input_quantization(np.asarray(x, np.float64), config)
    tape = _write_layers(graph, signals, source, config)
    qgraph = QGraph(
        graph.name, tuple(tape.layers), graph.stream, config.profile, made=graph.made,
        sources=tuple(tape.sources), input=source,
    )  # fmt: skip
    lower(qgraph)
    return qgraph


def stream_signals(graphs: Sequence[Graph], streams: Sequence[FloatArray]) -> list[list[Signals]]:
    """Every layer's output, and of an LSTM its inputs and cells, float64; a list of layers a network."""
    shapes = common_shapes(graphs)
    steps = max(len(stream) for stream in streams)
    x = np.zeros((steps, len(graphs), 1, shapes[0].features))
    for network, stream in enumerate(streams):
        x[: len(stream), network, 0] = stream
    weights = [np.asarray(weight, np.float64) for weight in stack_weights(graphs)]
    values = [np.asarray(value) for value in _signals(shapes, x.shape)(weights, x)]
    found: list[list[Signals]] = []
    for network, stream in enumerate(streams):
        rest = (value[None, : len(stream), network, 0] for value in values)
        seen, layers = np.asarray(stream, np.float64)[None], []
        for shape in shapes:
            output = next(rest)
            layers.append(Signals(output, {"x": seen, "cell": next(rest)} if shape.kind == "lstm" else {}))
            seen = output
        found.append(layers)
    return found


@cache
def _signals(shapes: tuple[Shape, ...], sizes: tuple[int, ...]) -> Any:
    """Outputs, and after those of an LSTM its cells, (steps, networks, 1, width); compiled for ``sizes``."""
    tf = load_tensorflow()

    def run(weights: Any, x: Any) -> list[Any]:
        rest, found = iter(weights), []
        for shape in shapes:
            arrays = [next(rest) for _ in range(shape.arrays)]
            if shape.kind == "lstm":
                x, cells = _run_lstm(x, *arrays)
                found += [x, cells]
            else:
                x = dense_forward(x, *arrays)
                found.append(x)
        return found

    return tf.function(run, jit_compile=True, autograph=False)


def _run_lstm(x: Any, kernel: Any, recurrent: Any, bias: Any) -> tuple[Any, Any]:
    """Hidden states and cells of all steps."""
    tf = load_tensorflow()
    steps, networks, windows, _ = x.shape
    size = networks, windows, recurrent.shape[1]

    def body(t: Any, hidden: Any, cell: Any) -> Any:
        z = tf.matmul(x[t], kernel) + tf.matmul(hidden, recurrent) + bias[:, None]
        i, f, g, o = tf.split(z, 4, -1)
        cell = tf.sigmoid(f) * cell + tf.sigmoid(i) * tf.tanh(g)
        hidden = tf.sigmoid(o) * tf.tanh(cell)
        return (hidden, cell), (hidden, cell)

    zeros = tf.zeros(size, tf.float64)
    _, (hiddens, cells) = scan(body, (zeros, zeros), steps, [(size, tf.float64)] * 2)
    return hiddens, cells
