"""What quantization did to each tensor: ranges, signal-to-noise, saturation, and the drift of the state.

Reads a Graph, its QGraph and network inputs; writes figures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_lstm.arrays import FloatArray
from edge_lstm.fixedpoint import IntArray
from edge_lstm.graph import Graph
from edge_lstm.layer_types import Conv1d, Dense, Gru, Layer, Lstm, Rnn
from edge_lstm.lower import combine_headroom, lower
from edge_lstm.program import GATES, LstmProgram
from edge_lstm.qgraph import QDense, QGraph, QLayer, QLstm, QNativeLstm, QScan, Quantization
from edge_lstm.quantizer import calibration_windows
from edge_lstm.reference import floating, integer

DRIFT_PARTS = 10  # the stream is cut into tenths to see whether the error of the state grows


@dataclass(frozen=True)
class TensorFigures:
    """One tensor.  low, high: seen in float; representable_*: what its codes can hold.

    snr_db: signal power over error power, None where the error is zero.
    saturated: values, of count, that lie more than half a step outside what the codes can hold.
    """

    name: str
    kind: str
    low: float
    high: float
    representable_low: float
    representable_high: float
    snr_db: float | None
    saturated: int
    count: int


@dataclass(frozen=True)
class DriftFigures:
    """RMS distance of a layer's quantized hidden state from float: first and last tenth, largest error."""

    layer: str
    rms_first: float
    rms_last: float
    largest: float


@dataclass(frozen=True)
class QuantizationFigures:
    """tensors: weights, then activations, in the order of the network.  notes: facts in plain words."""

    tensors: tuple[TensorFigures, ...]
    drift: tuple[DriftFigures, ...]
    notes: tuple[str, ...]


def snr_db(signal: FloatArray, quantized: FloatArray) -> float | None:
    """Ratio of the power of ``signal`` to that of the error in decibels."""
    noise = float(np.mean((signal - quantized) ** 2))
    power = float(np.mean(np.asarray(signal, dtype=np.float64) ** 2))
    return None if noise == 0 or power == 0 else round(10 * float(np.log10(power / noise)), 2)


def _figures(
    name: str, kind: str, signal: FloatArray, codes: IntArray, scale: float, zero_point: int, limits: Any
) -> TensorFigures:
    low, high = ((limit - zero_point) * scale for limit in limits)
    outside = (signal < low - scale / 2) | (signal > high + scale / 2)
    return TensorFigures(
        name,
        kind,
        float(np.min(signal)),
        float(np.max(signal)),
        low,
        high,
        snr_db(signal, (np.asarray(codes, dtype=np.float64) - zero_point) * scale),
        int(outside.sum()),
        int(np.size(codes)),
    )


def _real_kernel(layer: Layer, operator: str) -> FloatArray | None:
    """The float weights (outputs, features) that this dense operator holds, if it is the layer's."""
    part = operator.removeprefix(layer.name)
    if part == "" and isinstance(layer, (Dense, Conv1d)):
        kernel: FloatArray = layer.kernel.reshape(-1, layer.outputs).T
        return kernel
    if isinstance(layer, (Gru, Rnn, Lstm)):
        if part == "/input":
            return np.asarray(layer.kernel.T)
        gates = 2 * layer.units if isinstance(layer, Gru) else layer.recurrent_kernel.shape[1]
        found = {
            "/hidden": layer.recurrent_kernel[:, :gates],
            "/recurrent": layer.recurrent_kernel[:, gates:],
        }
        return found[part].T if part in found else None
    return None


def _dense_figures(layer: Layer, operator: QDense) -> list[TensorFigures]:
    real = _real_kernel(layer, operator.name)
    if real is None:
        return []
    scales = np.broadcast_to(operator.kernel_scales, (operator.outputs,)).astype(np.float64)[:, None]
    if len(operator.kernel_scales) > 1:  # one scale a row: compared in units of each row's scale
        real, scales = real / scales, np.ones_like(scales)
    scale = float(scales[0, 0])
    return [_figures(f"{operator.name}/kernel", "weight", real, operator.kernel, scale, 0, (-127, 127))]


def _lstm_figures(layer: Lstm, operator: QLstm) -> list[TensorFigures]:
    figures = []
    for part in ("kernel", "recurrent"):
        attribute = "kernel" if part == "kernel" else "recurrent_kernel"
        real = getattr(layer, attribute).reshape(-1, 4, layer.units).transpose(1, 2, 0)
        for index, gate in enumerate(GATES):
            codes = getattr(operator, attribute)[index]
            scale = float(getattr(operator, f"{part}_scales")[index])
            name = f"{layer.name}/{attribute}_{gate}"
            figures.append(_figures(name, "weight", real[index], codes, scale, 0, (-127, 127)))
    return figures


def _weights(graph: Graph, qgraph: QGraph) -> list[TensorFigures]:
    """Weights in the order of the network, without those of a native LSTM, whose rows share their scale."""
    operators: list[QLayer] = []
    for operator in qgraph.layers:
        operators += operator.body if isinstance(operator, QScan) else [operator]
    figures = []
    for layer in graph.layers:
        for operator in operators:
            if isinstance(operator, QLstm) and isinstance(layer, Lstm) and operator.name == layer.name:
                figures += _lstm_figures(layer, operator)
            elif isinstance(operator, QDense):
                figures += _dense_figures(layer, operator)
    return figures


def _activation(name: str, signal: FloatArray, codes: IntArray, q: Quantization) -> TensorFigures:
    return _figures(name, "activation", signal, codes, q.scale, q.zero_point, (q.low, q.high))


def _drift(name: str, error: FloatArray) -> DriftFigures:
    """error: (steps, units)."""
    part = max(1, len(error) // DRIFT_PARTS)
    rms = [float(np.sqrt(np.mean(piece**2))) for piece in (error[:part], error[-part:])]
    return DriftFigures(name, rms[0], rms[1], float(np.abs(error).max()))


def compare(graph: Graph, qgraph: QGraph, x: FloatArray) -> QuantizationFigures:
    """Run both networks over the whole stream x (steps, features) and compare every layer's value."""
    windows = calibration_windows(graph, x)
    codes = qgraph.input.encode(windows)
    real, _ = floating.run_signals(graph, windows)
    quantized, _ = integer.run_signals(lower(qgraph), codes)
    tensors = [*_weights(graph, qgraph), _activation("input", windows, codes.astype(np.int64), qgraph.input)]
    drift = []
    places = {operator.name: index for index, operator in enumerate(qgraph.layers)}
    for layer, r in zip(graph.layers, real, strict=True):
        if layer.name not in places:
            continue  # a dense layer that took in the ReLU after it has the ReLU's value under its own name
        index = places[layer.name]
        operator, q, written = qgraph.layers[index], quantized[index], qgraph.values[index].quantization
        if isinstance(operator, QDense) and operator.relu:
            r = floating.Signals(np.maximum(r.output, 0.0))
        tensors.append(_activation(f"{layer.name}/output", r.output, q.output, written))
        if isinstance(operator, (QLstm, QNativeLstm)) and q.cell is not None:
            scale = 2.0**operator.cell_power
            cell = _figures(f"{layer.name}/cell", "state", r.inner["cell"], q.cell, scale, 0, (-32768, 32767))
            tensors.append(cell)
            error = written.decode(q.output) - r.output
            drift.append(_drift(layer.name, error.reshape(-1, error.shape[-1])))
    if qgraph.layers[-1].name not in _names(graph):  # what narrows the codes of the last layer
        tensors.append(_activation("output", real[-1].output, quantized[-1].output, qgraph.output))
    notes = (*saturation_notes(tensors), *portability_notes(qgraph))
    return QuantizationFigures(tuple(tensors), tuple(drift), notes)


def _names(graph: Graph) -> set[str]:
    return {layer.name for layer in graph.layers}


def saturation_notes(tensors: list[TensorFigures]) -> list[str]:
    """States that leave the int16 cell: there the float network remembers more than the integer one."""
    return [
        f"{tensor.name} reaches {max(-tensor.low, tensor.high):.0f} and saturates at "
        f"{tensor.representable_high:.0f} in {tensor.saturated:,} of {tensor.count:,} values"
        for tensor in tensors
        if tensor.kind == "state" and tensor.saturated
    ]


def portability_notes(qgraph: QGraph) -> list[str]:
    """Where other runtimes may return other codes than this profile's, beyond sigmoid and tanh."""
    return [
        f"lstm '{layer.name}': the recurrent term can reach {8 * combine_headroom(layer):.1f} where Q3.12 "
        "holds 8; TFLM saturates it before the sum, CMSIS-NN and LiteRT after: they can differ there"
        for layer in lower(qgraph).layers
        if isinstance(layer, LstmProgram) and combine_headroom(layer) > 1
    ]
