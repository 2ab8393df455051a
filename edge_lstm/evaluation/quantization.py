"""What quantization did to each tensor: ranges, signal-to-noise, saturation, and the drift of the state.

Reads a Graph, its QGraph and network inputs; writes figures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_lstm.fixedpoint import IntArray
from edge_lstm.graph import FloatArray, Graph, Lstm
from edge_lstm.lower import GATES, LstmProgram, combine_headroom, lower
from edge_lstm.qgraph import QDense, QGraph, QLstm, Quantization
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


def _weights(graph: Graph, qgraph: QGraph) -> list[TensorFigures]:
    figures = []
    for layer, quantized in zip(graph.layers, qgraph.layers, strict=True):
        if isinstance(layer, Lstm) and isinstance(quantized, QLstm):
            for part in ("kernel", "recurrent"):
                attribute = "kernel" if part == "kernel" else "recurrent_kernel"
                real = getattr(layer, attribute).reshape(-1, 4, layer.units).transpose(1, 2, 0)
                scales = getattr(quantized, f"{part}_scales")
                for index, gate in enumerate(GATES):
                    codes = getattr(quantized, attribute)[index]
                    scale = float(scales[index])
                    name = f"{layer.name}/{attribute}_{gate}"
                    figures.append(_figures(name, "weight", real[index], codes, scale, 0, (-127, 127)))
        elif isinstance(quantized, QDense):
            real, scale = layer.kernel.T, float(quantized.kernel_scales[0])
            figures.append(
                _figures(f"{layer.name}/kernel", "weight", real, quantized.kernel, scale, 0, (-127, 127))
            )
    return figures


def _activation(name: str, signal: FloatArray, codes: IntArray, q: Quantization) -> TensorFigures:
    return _figures(name, "activation", signal, codes, q.scale, q.zero_point, (-128, 127))


def _drift(name: str, error: FloatArray) -> DriftFigures:
    """error: (steps, units)."""
    part = max(1, len(error) // DRIFT_PARTS)
    rms = [float(np.sqrt(np.mean(piece**2))) for piece in (error[:part], error[-part:])]
    return DriftFigures(name, rms[0], rms[1], float(np.abs(error).max()))


def compare(graph: Graph, qgraph: QGraph, x: FloatArray) -> QuantizationFigures:
    """Run both networks over the whole stream x (steps, features) and compare every tensor."""
    program = lower(qgraph)
    codes = qgraph.input.encode(x)
    real, _ = floating.run_signals(graph, x[None])
    quantized, _ = integer.run_signals(program, codes[None])
    tensors = [*_weights(graph, qgraph), _activation("input", x, codes.astype(np.int64), qgraph.input)]
    drift = []
    for layer, r, q in zip(qgraph.layers, real, quantized, strict=True):
        tensors.append(_activation(f"{layer.name}/output", r.output, q.output, layer.output))
        if isinstance(layer, QLstm) and r.cell is not None and q.cell is not None:
            scale = 2.0**layer.cell_power
            tensors.append(_figures(f"{layer.name}/cell", "state", r.cell, q.cell, scale, 0, (-32768, 32767)))
            drift.append(_drift(layer.name, (layer.hidden.decode(q.output) - r.output)[0]))
    notes = (*saturation_notes(tensors), *portability_notes(qgraph))
    return QuantizationFigures(tuple(tensors), tuple(drift), notes)


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
