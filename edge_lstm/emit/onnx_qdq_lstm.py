"""The integer LSTMs as ONNX's LSTM over one row, with weights that are codes.

Reads a QLstm or a QNativeLstm; writes into a Writer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_lstm.emit.onnx_qdq_values import Writer
from edge_lstm.lstm_operators import QLstm, QNativeLstm
from edge_lstm.operators import Int8Array, Quantization

GATE_I, GATE_F = 0, 1
LARGEST_SUM = 32767 / 4096  # of a gate, in Q3.12
LARGEST_CELL = 32767  # code

Scales = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Gates:
    """Codes and scales of an LSTM, gates i, f, g, o; the reals are ``scales * (codes - zero_points)``.

    kernel, recurrent: int8 (4, units, ...).  bias: (4, units).  The scales and zero_points: (4, units).
    peephole: reals (3, units) of the gates i, f and o, or None.
    """

    kernel: Int8Array
    recurrent: Int8Array
    bias: npt.NDArray[np.int64]
    kernel_scales: Scales
    recurrent_scales: Scales
    bias_scales: Scales
    zero_points: Int8Array
    peephole: Scales | None


def inner_quantization(layer: QLstm | QNativeLstm, profile: str) -> Quantization:
    """Of o * tanh(c) when its codes are written; TFLM takes that of the state, as ``lower`` does."""
    inner = layer.inner if isinstance(layer, QLstm) and profile != "tflm" else None
    return inner or layer.hidden


def refusals(layer: QLstm | QNativeLstm) -> list[str]:
    """Why ONNX's LSTM cannot carry ``layer``."""
    variant = layer.variant if isinstance(layer, QLstm) else None
    lacking = [
        ("a projection", variant is not None and variant.projection is not None),
        ("layer normalization", variant is not None and variant.normalization is not None),
        (
            f"a clip of the cell ({layer.cell_clip:g})",
            0 < layer.cell_clip < LARGEST_CELL * 2.0**layer.cell_power,
        ),
    ]
    return [
        f"lstm '{layer.name}': ONNX's LSTM has no place for {words}" for words, present in lacking if present
    ]


def _fused(layer: QLstm) -> Gates:
    shape = layer.kernel.shape[:2]
    kernel, recurrent = (
        np.broadcast_to(scales.astype(np.float64)[:, None], shape)
        for scales in (layer.kernel_scales, layer.recurrent_scales)
    )
    variant, peephole = layer.variant, None
    if variant is not None and variant.peephole is not None and variant.peephole_scales is not None:
        peephole = variant.peephole * variant.peephole_scales.astype(np.float64)[:, None]
    gates = Gates(
        layer.kernel, layer.recurrent_kernel, layer.bias.astype(np.int64), kernel, recurrent,
        kernel * layer.input.scale, np.zeros(shape, np.int8), peephole,
    )  # fmt: skip
    return _coupled(gates) if variant is not None and variant.coupled else gates


def _native(layer: QNativeLstm) -> Gates:
    scales = layer.row_scales.astype(np.float64)
    sums = scales * layer.hidden.scale
    return Gates(
        layer.kernel, layer.recurrent_kernel, layer.bias.astype(np.int64), sums / layer.input.scale, scales,
        sums, np.zeros(scales.shape, np.int8), None,
    )  # fmt: skip


def _coupled(gates: Gates) -> Gates:
    """Gate i as f with negated weights, so that i = 1 - f whatever a runtime takes ``input_forget`` to mean.

    -q of an int8 code is ``~q - (-1)``: also of -128.
    """

    def first(values: npt.NDArray[Any], entry: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.concatenate([entry[None], values[GATE_F:]])

    peephole = gates.peephole
    return replace(
        gates,
        kernel=first(gates.kernel, ~gates.kernel[GATE_F]),
        recurrent=first(gates.recurrent, ~gates.recurrent[GATE_F]),
        bias=first(gates.bias, -gates.bias[GATE_F]),
        kernel_scales=first(gates.kernel_scales, gates.kernel_scales[GATE_F]),
        recurrent_scales=first(gates.recurrent_scales, gates.recurrent_scales[GATE_F]),
        bias_scales=first(gates.bias_scales, gates.bias_scales[GATE_F]),
        zero_points=first(gates.zero_points, np.full_like(gates.zero_points[GATE_I], -1)),
        peephole=None if peephole is None else first(peephole, -peephole[GATE_F]),
    )


def onnx_rows(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(4, units, ...) of the gates i, f, g, o as ONNX's (1, 4 * units, ...) of i, o, f, c (our g)."""
    i, f, g, o = values
    return np.concatenate([i, o, f, g])[None]


class Cell:
    """An LSTM's weights in the graph, and the step that reads them."""

    def __init__(self, w: Writer, layer: QLstm | QNativeLstm) -> None:
        self.layer, self.inner = layer, inner_quantization(layer, w.profile)
        gates = _native(layer) if isinstance(layer, QNativeLstm) else _fused(layer)
        self._weights = [
            _weights(w, f"{layer.name}/W", gates.kernel, gates.kernel_scales, gates.zero_points),
            _weights(w, f"{layer.name}/R", gates.recurrent, gates.recurrent_scales, gates.zero_points),
        ]
        bias, scales = onnx_rows(gates.bias), onnx_rows(gates.bias_scales)[0]
        both = np.concatenate([bias, np.zeros_like(bias)], axis=1)  # ONNX adds a recurrent bias
        self._weights.append(w.bias(f"{layer.name}/B", both, np.concatenate([scales, scales])))
        self._peephole: list[str] = []
        if gates.peephole is not None:
            i, f, o = gates.peephole
            self._peephole.append(w.graph.constant(f"{layer.name}/P", np.concatenate([i, o, f])[None]))
        self._cell_range = [
            w.graph.constant(f"{layer.name}/{end}", code * 2.0**layer.cell_power)
            for end, code in (("lowest", -LARGEST_CELL - 1), ("highest", LARGEST_CELL))
        ]
        self._attributes: dict[str, Any] = {"hidden_size": layer.units, "clip": LARGEST_SUM}
        if isinstance(layer, QLstm) and layer.variant is not None and layer.variant.coupled:
            self._attributes["input_forget"] = 1

    def step(self, w: Writer, row: str, states: list[str]) -> tuple[list[str], str]:
        """One row; all tensors are (1, 1, width).  states: codes of the hidden state, reals of the cell.

        Returns the next states and the codes of the output.
        """
        name, layer = self.layer.name, self.layer
        hidden, cell = states
        last_hidden, last_cell = w.body.name(f"{name}/Y_h"), w.body.name(f"{name}/Y_c")
        x, h = w.real(row, layer.input), w.real(hidden, layer.hidden)
        inputs = [x, *self._weights, "", h, cell, *self._peephole]
        w.body.add("LSTM", inputs, f"{name}/Y", last_hidden, last_cell, **self._attributes)
        codes = w.codes(last_hidden, name, self.inner)
        return [codes, w.body.add("Clip", [last_cell, *self._cell_range], f"{name}/cell")], codes


def _weights(w: Writer, name: str, codes: Int8Array, scales: Scales, zero_points: Int8Array) -> str:
    rows = onnx_rows(scales)[0].astype(np.float32), 1, onnx_rows(zero_points)[0]
    return w.weights(name, onnx_rows(codes), *rows)
