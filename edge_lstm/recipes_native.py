"""The native LSTM: one accumulator a gate, one weight scale a row.  Spec: NUMERICS.md, 10."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edge_lstm.arrays import FloatArray
from edge_lstm.layer_types import Lstm
from edge_lstm.operators import Quantization, wide
from edge_lstm.qgraph import QNativeLstm
from edge_lstm.reference.floating import Signals
from edge_lstm.scales import (
    QuantizeConfig,
    best_rows,
    cell_power,
    compensated_codes,
    lowest_scales,
    lstm_storage,
    quantize_bias,
)

HIDDEN_POWERS = range(-15, -8)  # |o * tanh(c)| stays below 1: -15 is enough, coarser ones balance the kernels


def _seen(signals: Signals, backwards: bool) -> FloatArray:
    """What the rows of both kernels were multiplied with: (streams * steps, features + units)."""
    x, output = signals.inner["x"], signals.output
    none = np.zeros_like(output[:, :1])
    parts = [output[:, 1:], none] if backwards else [none, output[:, :-1]]
    before = np.concatenate(parts, axis=1)
    both: FloatArray = np.concatenate([x, before], axis=2)
    return both.reshape(-1, both.shape[2])


def native_lstm(layer: Lstm, signals: Signals, source: Quantization, config: QuantizeConfig) -> QNativeLstm:
    """The hidden scale is the one under which kernel and recurrent kernel lose least in their common rows."""
    units, features = layer.units, layer.features
    kernel = layer.kernel.astype(np.float64).T
    recurrent = layer.recurrent_kernel.astype(np.float64).T
    seen = _seen(signals, layer.backwards)
    moments = seen.T @ seen / len(seen)

    def rows(power: int) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32], float]:
        """Codes, scales and expected squared error; the hidden codes' own rounding counts too."""
        ratio = np.concatenate([np.full(features, source.scale), np.full(units, 2.0**power)]) / 2.0**power
        joined = np.concatenate([kernel, recurrent], axis=1) * ratio
        scaled = moments / np.outer(ratio, ratio)
        lowest = lowest_scales(layer.bias, 2.0**power)
        _, scales, _ = best_rows(joined, np.diag(scaled), lowest, config.weights)
        codes = compensated_codes(joined, scales.astype(np.float64), scaled, config.weights)
        lost = codes * scales[:, None].astype(np.float64) - joined
        error = float(np.einsum("rc,cd,rd->", lost, scaled, lost))
        return codes, scales, error + float((recurrent**2).sum()) * 4.0**power / 12

    power = min(HIDDEN_POWERS, key=lambda power: rows(power)[2])
    codes, scales, _ = rows(power)
    hidden = wide(power)
    row_scales = scales.reshape(4, units)
    kernels = np.split(codes.reshape(4, units, -1), [features], axis=2)
    steps = row_scales.astype(np.float64) * hidden.scale
    return QNativeLstm(
        name=layer.name,
        kernel=kernels[0],
        recurrent_kernel=kernels[1],
        bias=quantize_bias(f"lstm '{layer.name}'", layer.bias.reshape(4, -1), steps, 8),
        row_scales=row_scales,
        input=source,
        hidden=hidden,
        cell_power=cell_power(float(np.abs(signals.inner["cell"]).max()), config.cell_headroom),
        cell_clip=layer.cell_clip,
        backwards=layer.backwards,
        storage=lstm_storage(kernels, config),
    )
