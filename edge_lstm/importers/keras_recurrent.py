"""LSTM, GRU, SimpleRNN, cells in an RNN, ConvLSTM1D and Bidirectional of Keras as layers of the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edge_lstm.arrays import FloatArray
from edge_lstm.importers.keras_config import LayerConfig
from edge_lstm.importers.keras_functions import function_of
from edge_lstm.importers.keras_values import TIME, Axes, Network, Refused, Value
from edge_lstm.layer_types import Gru, Lstm, Merge, Rnn, Row

MERGE_MODES = {"concat": "concat", "sum": "sum", "ave": "mean", "mul": "mul"}
NO_CELL = "it is the cell state of a recurrent layer, which stays inside of it; use the hidden state"


def recurrent(net: Network, layer: LayerConfig, inputs: Sequence[Value]) -> tuple[Value, ...]:
    """The output of a recurrent layer, and its states where it returns them."""
    if len(inputs) != 1:
        raise Refused("it starts from a state that the network computes; let it start from zero")
    return _run(net, layer, layer.name, inputs[0])


def bidirectional(net: Network, layer: LayerConfig, inputs: Sequence[Value]) -> tuple[Value, ...]:
    """Two recurrent layers and their join; the states of both where it returns them."""
    forward, backward = layer.parts
    if len(inputs) != 1:
        raise Refused("it starts from a state that the network computes; let it start from zero")
    mode = layer.options["merge_mode"]
    if mode not in MERGE_MODES:
        raise Refused(f"it has merge_mode={mode}, expected one of {', '.join(MERGE_MODES)}")
    if {part.kind for part in layer.parts} - {*CELL_KINDS, "RNN", "ConvLSTM1D"}:
        raise Refused(f"it wraps {forward.kind} and {backward.kind}, expected recurrent layers")
    same = ("return_sequences", "return_state")
    if forward.flag("go_backwards") == backward.flag("go_backwards") or any(
        forward.flag(option) != backward.flag(option) for option in same
    ):
        raise ValueError(f"the two layers of '{layer.name}' do not fit together")
    one, *states = _run(net, forward, f"{layer.name}_forward", inputs[0])
    two, *more = _run(net, backward, f"{layer.name}_backward", inputs[0])
    if forward.flag("return_sequences"):  # Keras turns the rows of the backward layer
        two = replace(two, flipped=not two.flipped)
        net.together((one, two))
    if one.axes[:-1] != two.axes[:-1] or (mode != "concat" and one.axes != two.axes):
        raise ValueError(f"the two layers of '{layer.name}' write {one} and {two}")
    if mode == "concat" and len(one.axes) > (2 if one.rows else 1):
        raise Refused("it concatenates ConvLSTM1D; use merge_mode='sum', or two layers and a Concatenate")
    last = one.axes[-1] or 0
    axes = (*one.axes[:-1], last + (two.axes[-1] or 0) if mode == "concat" else last)
    return net.put(Merge(layer.name, MERGE_MODES[mode]), axes, one, two), *states, *more


def _run(net: Network, layer: LayerConfig, name: str, x: Value) -> tuple[Value, ...]:
    """The layer over every row, then the rows or the last of them, then its states."""
    cells = layer.parts if layer.kind == "RNN" else (layer,)
    cells = cells[0].parts if cells[0].kind == "StackedRNNCells" else cells
    unknown = [
        cell.kind for cell in cells if cell.kind not in (*CELL_KINDS, *CELL_KINDS.values(), "ConvLSTM1D")
    ]
    if unknown or not cells:
        raise Refused(
            f"its cells are {', '.join(unknown) or 'none'}, expected {', '.join(CELL_KINDS.values())}"
        )
    x = net.sequence(layer, x, 3 if layer.kind == "ConvLSTM1D" else 2)
    backwards = layer.flag("go_backwards") != x.flipped
    for cell in cells:
        own = name if len(cells) == 1 else f"{name}_{cell.name}"
        made: Lstm | Gru | Rnn
        if cell.kind == "ConvLSTM1D":
            made, axes = _conv_lstm(net, cell, own, x.axes, backwards)
        else:
            made, axes = _cell(net, cell, own, x.width, backwards), (TIME, cell.count("units"))
        x = net.put(made, axes, x, flipped=backwards)
    if layer.flag("return_sequences") and not layer.flag("return_state"):
        return (x,)
    last = net.put(Row(f"{name}_last", 0 if backwards else -1), x.axes[1:], x, rows=False, flipped=False)
    y = x if layer.flag("return_sequences") else last
    if not layer.flag("return_state"):
        return (y,)
    if len(cells) > 1:
        raise Refused("it returns the states of several cells; use one layer for each cell")
    lost = replace(last, trouble=NO_CELL)
    return (y, last) if isinstance(made, (Gru, Rnn)) else (y, last, lost)


CELL_KINDS = {"LSTM": "LSTMCell", "GRU": "GRUCell", "SimpleRNN": "SimpleRNNCell"}


def _cell(net: Network, cell: LayerConfig, name: str, features: int, backwards: bool) -> Lstm | Gru | Rnn:
    kind = next(layer for layer, wrapped in CELL_KINDS.items() if cell.kind in (layer, wrapped))
    units, biased = cell.count("units"), cell.flag("use_bias", True)
    activation = function_of(cell.options["activation"], net.legacy)
    columns = units * {"LSTM": 4, "GRU": 3, "SimpleRNN": 1}[kind]
    shapes: dict[str, tuple[int, ...]] = {
        "kernel": (features, columns), "recurrent_kernel": (units, columns),
    }  # fmt: skip
    after = kind == "GRU" and cell.flag("reset_after")
    gates = (
        function_of(cell.options["recurrent_activation"], net.legacy) if kind != "SimpleRNN" else activation
    )
    if biased:
        shapes["bias"] = (2, columns) if after else (columns,)
    arrays = net.weights.load(cell, shapes)
    kernel, recurrent_kernel = arrays["kernel"], arrays["recurrent_kernel"]
    zero = np.zeros(columns, np.float32)
    bias = arrays.get("bias", zero)
    if kind == "LSTM":
        return Lstm(
            name, kernel, recurrent_kernel, bias, activation=activation, recurrent_activation=gates,
            cell_activation=activation, backwards=backwards,
        )  # fmt: skip
    if kind == "SimpleRNN":
        return Rnn(name, kernel, recurrent_kernel, bias, activation, backwards=backwards)
    first, second = (bias[0], bias[1]) if after and biased else (bias, zero)
    return Gru(name, kernel, recurrent_kernel, first, second, after, activation, gates, backwards=backwards)


def _conv_lstm(net: Network, layer: LayerConfig, name: str, axes: Axes, backwards: bool) -> tuple[Lstm, Axes]:
    """An LSTM with a unit for each place and filter, whose kernels are bands: the same function."""
    length, channels = axes[1] or 0, axes[2] or 0
    filters, size, dilation = layer.count("filters"), layer.count("kernel_size"), layer.count("dilation_rate")
    if layer.count("strides") != 1:
        raise Refused(f"it has strides={layer.options['strides']}, expected 1")
    if layer.options["padding"] not in ("same", "valid"):
        raise ValueError(f"padding of '{layer.name}' is {layer.options['padding']!r}")
    reach = (size - 1) * dilation
    same = layer.options["padding"] == "same"
    places = length if same else length - reach
    if places < 1:
        raise ValueError(f"the kernel of '{layer.name}' is longer than its input")
    units = places * filters
    shapes: dict[str, tuple[int, ...]] = {
        "kernel": (size, channels, 4 * filters), "recurrent_kernel": (size, filters, 4 * filters),
    }  # fmt: skip
    if layer.flag("use_bias", True):
        shapes["bias"] = (4 * filters,)
    net.weights.claim((length * channels + units) * 4 * units)
    arrays = net.weights.load(layer, shapes)
    bias = arrays.get("bias", np.zeros(4 * filters, np.float32)).reshape(4, 1, filters)
    net.expanded.append(f"ConvLSTM1D '{layer.name}' of {filters} filters is an LSTM of {units} units")
    activation = function_of(layer.options["activation"], net.legacy)
    return Lstm(
        name,
        _band(arrays["kernel"], length, places, dilation, reach // 2 if same else 0),
        _band(arrays["recurrent_kernel"], places, places, 1, (size - 1) // 2),
        np.repeat(bias, places, axis=1).reshape(-1),
        activation=activation,
        recurrent_activation=function_of(layer.options["recurrent_activation"], net.legacy),
        cell_activation=activation,
        backwards=backwards,
    ), (TIME, places, filters)


def _band(kernel: FloatArray, length: int, places: int, dilation: int, padding: int) -> FloatArray:
    """A convolution as one matrix (length * channels, 4 * places * filters).

    kernel: (size, channels, 4 * filters).  padding: zeros before the first of ``length`` places.
    """
    size, channels, columns = kernel.shape
    band = np.zeros((length, channels, 4, places, columns // 4), np.float32)
    for tap in range(min(size, (length + padding - 1) // dilation + 1)):
        offset = tap * dilation - padding
        place = np.arange(max(0, -offset), min(places, length - offset))
        band[place + offset, :, :, place] = kernel[tap].reshape(channels, 4, -1)
    return band.reshape(length * channels, -1)
