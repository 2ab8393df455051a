"""Float layers -> integer operators: what each layer becomes.  Spec: NUMERICS.md, 8 and 9.

Reads a Graph and the signals of a calibration run; writes operators with their scales.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_lstm.errors import UnsupportedModel
from edge_lstm.graph import Graph
from edge_lstm.layer_types import (
    RELU,
    Activation,
    Attend,
    Conv1d,
    Dense,
    Gru,
    Layer,
    Lstm,
    Merge,
    Repeat,
    Rnn,
    Row,
    Softmax,
)
from edge_lstm.operators import (
    LOOKUP_INPUT,
    Q15,
    QSoftmax,
    wide,
)
from edge_lstm.placing_operators import (
    QConcat,
    QDelay,
    QRepeat,
    QRow,
    QSlice,
    QSumRows,
)
from edge_lstm.recipes_recurrent import gru, lstm, rnn
from edge_lstm.reference.floating import Signals
from edge_lstm.scales import affine, find_range, portable_scale, wide_power
from edge_lstm.tape import Tape


def _conv1d(tape: Tape, layer: Conv1d, signals: Signals, source: int) -> int:
    source = tape.widened(source)
    rows = tape.add(
        QDelay(f"{layer.name}/rows", tape.quantization(source), layer.size, layer.dilation), source
    )
    kernel = layer.kernel.reshape(-1, layer.outputs)
    return tape.dense(layer.name, rows, kernel, layer.bias, wide(wide_power(signals.output)))


def _merge(tape: Tape, layer: Merge, signals: Signals, sources: Sequence[int]) -> int:
    output = wide(wide_power(signals.output))
    given = [tape.widened(source) for source in sources]
    if layer.mode == "concat":
        return tape.add(QConcat(layer.name, output), *(tape.recode(source, output) for source in given))
    total = given[0]
    for number, source in enumerate(given[1:], 1):
        last = number == len(given) - 1 and layer.mode != "mean"
        name = layer.name if last else f"{layer.name}/{number}"
        into = (
            output
            if layer.mode != "mean"
            else wide(int(output.power or 0) + int(np.ceil(np.log2(len(given)))))
        )
        total = (tape.product if layer.mode == "mul" else tape.total)(name, total, source, into)
    if layer.mode == "mean":
        share = tape.constant(f"{layer.name}/share", 1 / len(given))
        total = tape.product(layer.name, total, share, output)
    return total


def _activation(tape: Tape, layer: Activation, signals: Signals, source: int) -> int:
    into = LOOKUP_INPUT.get(layer.function.kind)
    source = tape.widened(source)
    if into is not None:
        source = tape.recode(source, into)
    elif layer.function.kind == "linear":
        return tape.add(QSlice(layer.name, tape.quantization(source), 0, signals.output.shape[-1]), source)
    return tape.function(layer.name, source, layer.function)


def _dense(tape: Tape, layer: Dense, signals: Signals, source: int, relu: bool) -> int:
    """8 bits after 8 bits, 16 after 16.  signals: of the ReLU where the layer takes one in."""
    if tape.quantization(source).bits == 16:
        output = wide(wide_power(signals.output))
    else:
        widen = portable_scale if tape.config.portable else float
        output = affine(*find_range(signals.output, tape.config), widen)
    return tape.dense(layer.name, source, layer.kernel, layer.bias, output, relu)


def _attend(tape: Tape, layer: Attend, signals: Signals, sources: Sequence[int]) -> int:
    weights, values = tape.widened(sources[0]), tape.widened(sources[1])
    power = max(int(tape.quantization(values).power or 0), wide_power(signals.output))
    scaled = tape.product(f"{layer.name}/weighted", weights, values, wide(power))
    return tape.add(QSumRows(layer.name, tape.quantization(scaled)), scaled)


def write_layer(
    tape: Tape,
    graph: Graph,
    index: int,
    signals: Signals,
    sources: Sequence[int],
    relu: Signals | None = None,
) -> int:
    """Add what layer ``index`` becomes; returns the operator that writes its value.

    sources: operators that write what it reads.  relu: of the ReLU that a dense layer takes in.
    """
    layer: Layer = graph.layers[index]
    source = sources[0]
    if isinstance(layer, Lstm):
        return lstm(tape, layer, signals, source)
    if isinstance(layer, Gru):
        return gru(tape, layer, signals, source)
    if isinstance(layer, Rnn):
        return rnn(tape, layer, signals, source)
    if isinstance(layer, Conv1d):
        return _conv1d(tape, layer, signals, source)
    if isinstance(layer, Dense):
        return _dense(tape, layer, relu or signals, source, relu is not None)
    if isinstance(layer, Activation):
        return _activation(tape, layer, signals, source)
    if isinstance(layer, Merge):
        return _merge(tape, layer, signals, sources)
    if isinstance(layer, Attend):
        return _attend(tape, layer, signals, sources)
    return _place(tape, layer, source)


def _place(tape: Tape, layer: Layer, source: int) -> int:
    """Layers whose value needs no scale of its own."""
    if isinstance(layer, Softmax):
        source = tape.widened(source)
        return tape.add(QSoftmax(layer.name, tape.quantization(source), Q15, layer.axis), source)
    if isinstance(layer, Row):
        return tape.add(QRow(layer.name, tape.quantization(source), layer.index), source)
    if isinstance(layer, Repeat):
        return tape.add(QRepeat(layer.name, tape.quantization(source)), source)
    raise UnsupportedModel(f"layer '{layer.name}': {type(layer).__name__} has no integer form")


def takes_relu(graph: Graph, index: int) -> int | None:
    """The ReLU that alone reads dense layer ``index``, or None."""
    if not isinstance(graph.layers[index], Dense):
        return None
    readers = [reader for reader, sources in enumerate(graph.sources) if index in sources]
    if len(readers) != 1:
        return None
    only = graph.layers[readers[0]]
    return readers[0] if isinstance(only, Activation) and only.function == RELU else None
