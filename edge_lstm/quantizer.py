"""Graph + calibration stream -> QGraph: our own post-training quantizer.  Spec: NUMERICS.md, 8.

Reads network inputs; decides every scale; refuses a network whose integers could overflow.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edge_lstm.arrays import FloatArray
from edge_lstm.errors import DataError, UnsupportedModel, raise_all
from edge_lstm.graph import Graph
from edge_lstm.layer_types import Activation, Gru, Lstm, Rnn
from edge_lstm.lower import lower
from edge_lstm.operators import Quantization, wide
from edge_lstm.qgraph import QGraph
from edge_lstm.recipes import takes_relu, write_layer
from edge_lstm.recipes_lstm import fused_problems
from edge_lstm.reference import floating
from edge_lstm.reference.floating import Signals
from edge_lstm.scales import QuantizeConfig, affine, find_range, portable_scale, wide_power
from edge_lstm.tape import Tape, function_problems

__all__ = ["QuantizeConfig", "calibration_windows", "quantize"]


def _input_quantization(x: FloatArray, config: QuantizeConfig) -> Quantization:
    low, high = find_range(x, config)
    margin = config.input_margin * (high - low)
    if config.scheme == "int16x8":
        return wide(wide_power(np.array([low - margin, high + margin])))
    return affine(low - margin, high + margin, portable_scale if config.portable else float)


def layer_problems(graph: Graph, config: QuantizeConfig) -> list[str]:
    """What the integer operators cannot carry, layer by layer."""
    problems = []
    for layer in graph.layers:
        where = f"layer '{layer.name}'"
        if isinstance(layer, Activation):
            problems += function_problems(where, layer.function)
        if isinstance(layer, (Gru, Rnn, Lstm)):
            if isinstance(layer, Rnn):
                problems += function_problems(where, layer.activation)
            else:
                problems += function_problems(where, layer.activation, layer.recurrent_activation)
            if layer.gate_clip:
                problems.append(f"{where}: a clip of the gates ({layer.gate_clip:g}) has no integer form")
            initial = [layer.initial_hidden, getattr(layer, "initial_cell", None)]
            if any(state is not None and state.any() for state in initial):
                problems.append(
                    f"{where}: it begins from a state that is not 0; a device begins from 0: save it without"
                )
        if isinstance(layer, Lstm):
            problems += _lstm_problems(where, layer, config)
    return problems


def _lstm_problems(where: str, layer: Lstm, config: QuantizeConfig) -> list[str]:
    problems = function_problems(where, layer.cell_activation)
    plain = [layer.recurrent_activation.kind, layer.activation.kind, layer.cell_activation.kind] == [
        "sigmoid", "tanh", "tanh",
    ]  # fmt: skip
    if not plain and layer.cell_clip:
        problems.append(f"{where}: cell_clip beside other activations than sigmoid and tanh")
    return problems + fused_problems(where, layer, config, plain)


def calibration_windows(graph: Graph, x: FloatArray) -> FloatArray:
    """The stream (steps, features) as what the network runs: one stream, or its windows one after another."""
    if not graph.window:
        return x[None]
    count = len(x) // graph.window
    if not count:
        raise DataError(
            f"calibration: the stream has {len(x)} rows, the network takes windows of {graph.window}; give "
            "more rows"
        )
    return x[: count * graph.window].reshape(count, graph.window, -1)


def quantize(graph: Graph, x: FloatArray, config: QuantizeConfig | None = None) -> QGraph:
    """Quantize ``graph``, calibrated on one long stream.

    x: network inputs (steps, features), in time order, without NaN.  Raises UnsupportedModel for layers
    without an integer form, ModelError where an integer could overflow: nothing is returned that could not
    run.
    """
    config = config or QuantizeConfig()
    x = np.asarray(x, dtype=np.float64)
    if x.ndim != 2 or x.shape[1] != graph.features or len(x) < 2:
        raise DataError(
            f"calibration: the stream is {x.shape}, expected (steps, {graph.features}) with 2 steps or more"
        )
    if not np.isfinite(x).all():
        raise DataError("calibration: the stream holds NaN or infinity; hold or drop those rows first")
    raise_all(UnsupportedModel, f"model '{graph.name}'", layer_problems(graph, config))
    signals, _ = floating.run_signals(graph, calibration_windows(graph, x))
    source = _input_quantization(x, config)
    tape = _write_layers(graph, signals, source, config)
    qgraph = QGraph(
        graph.name, tuple(tape.layers), graph.stream, config.profile, made=graph.made,
        sources=tuple(tape.sources), window=graph.window, input=source,
    )  # fmt: skip
    for profile in qgraph.profiles:  # the file can be run under each of them
        lower(replace(qgraph, profile=profile))
    return qgraph


def _write_layers(graph: Graph, signals: list[Signals], source: Quantization, config: QuantizeConfig) -> Tape:
    tape = Tape([source], config)
    written: dict[int, int] = {-1: -1}
    if config.profile == "native":
        written[-1] = tape.widened(-1)
    for index, layer in enumerate(graph.layers):
        if index in written:
            continue  # a ReLU that its dense layer took in
        sources = []
        for reads in graph.sources[index]:
            given = written[reads]
            if isinstance(layer, Lstm) and config.scheme == "int8" and config.profile != "native":
                values = signals[reads].output if reads >= 0 else None
                given = _narrow(tape, given, values, config) if _is_plain(layer) else given
            sources.append(given)
        relu = takes_relu(graph, index)
        written[index] = write_layer(
            tape, graph, index, signals[index], sources, None if relu is None else signals[relu]
        )
        if relu is not None:
            written[relu] = written[index]
    if config.scheme == "int8":
        _narrow(tape, len(tape.layers) - 1, signals[-1].output, config)
    return tape


def _is_plain(layer: Lstm) -> bool:
    return (layer.recurrent_activation.kind, layer.activation.kind, layer.cell_activation.kind) == (
        "sigmoid", "tanh", "tanh",
    )  # fmt: skip


def _narrow(tape: Tape, source: int, values: FloatArray | None, config: QuantizeConfig) -> int:
    """``source`` in 8 bits; values: what calibration saw of it."""
    if tape.quantization(source).bits == 8 or values is None:
        return source
    return tape.recode(
        source, affine(*find_range(values, config), portable_scale if config.portable else float)
    )
