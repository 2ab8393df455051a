"""Each integer operator without a state as ONNX nodes; values are (rows, width).

Reads operators; writes into a Writer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edge_lstm.emit.onnx_qdq_values import Value, Writer, fits_int32
from edge_lstm.operators import (
    QAdd,
    QConstant,
    QDense,
    QLookup,
    QMul,
    QRecode,
    QRelu,
    QSoftmax,
)
from edge_lstm.placing_operators import (
    QConcat,
    QRepeat,
    QReverse,
    QRow,
    QSlice,
    QSumRows,
)

ROWS, FEATURES = 0, 1  # axes
LOOKUPS = {"sigmoid": "Sigmoid", "tanh": "Tanh"}


def _dense(w: Writer, layer: QDense, reads: Sequence[str]) -> str:
    codes = layer.bias.astype(np.int64)
    scales = np.broadcast_to(layer.kernel_scales, (layer.outputs,)).astype(np.float64) * layer.input.scale
    inputs = [reads[0], w.weights(f"{layer.name}/kernel", layer.kernel, layer.kernel_scales, axis=0)]
    bias = w.bias(f"{layer.name}/bias", codes, scales)
    if fits_int32(codes):
        total = w.body.add("Gemm", [*inputs, bias], f"{layer.name}/sum", transB=1)
    else:  # ONNX Runtime would take a real bias of a Gemm to int32, and not see that it overflows
        total = w.body.add("Gemm", inputs, f"{layer.name}/product", transB=1)
        total = w.body.add("Add", [total, bias], f"{layer.name}/sum")
    return w.body.add("Relu", [total], f"{layer.name}/relu") if layer.relu else total


def _recode(w: Writer, layer: QRecode, reads: Sequence[str]) -> str:
    return reads[0]


def _add(w: Writer, layer: QAdd, reads: Sequence[str]) -> str:
    return w.body.add("Sub" if layer.subtract else "Add", reads, f"{layer.name}/Y")


def _mul(w: Writer, layer: QMul, reads: Sequence[str]) -> str:
    return w.body.add("Mul", reads, f"{layer.name}/Y")


def _lookup(w: Writer, layer: QLookup, reads: Sequence[str]) -> str:
    return w.body.add(LOOKUPS[layer.function], reads, f"{layer.name}/Y")


def _relu(w: Writer, layer: QRelu, reads: Sequence[str]) -> str:
    if layer.slope:
        return w.body.add("LeakyRelu", reads, f"{layer.name}/Y", alpha=layer.slope / 32768)
    return w.body.add("Relu", reads, f"{layer.name}/Y")


def _softmax(w: Writer, layer: QSoftmax, reads: Sequence[str]) -> str:
    axis = FEATURES if layer.axis == "features" else ROWS
    return w.body.add("Softmax", reads, f"{layer.name}/Y", axis=axis)


def _sum_rows(w: Writer, layer: QSumRows, reads: Sequence[str]) -> str:
    return w.body.add("ReduceSum", [reads[0], w.integers(ROWS)], f"{layer.name}/Y")


def _concat(w: Writer, layer: QConcat, reads: Sequence[str]) -> str:
    return w.body.add("Concat", reads, f"{layer.name}/codes", axis=FEATURES)


def _slice(w: Writer, layer: QSlice, reads: Sequence[str]) -> str:
    return w.cut(reads[0], f"{layer.name}/codes", FEATURES, layer.start, layer.stop)


def _row(w: Writer, layer: QRow, reads: Sequence[str]) -> str:
    return w.cut(reads[0], f"{layer.name}/codes", ROWS, layer.index, layer.index + 1 or None)


def _reverse(w: Writer, layer: QReverse, reads: Sequence[str]) -> str:
    return w.cut(reads[0], f"{layer.name}/codes", ROWS, -1, step=-1)


def _repeat(w: Writer, layer: QRepeat, reads: Sequence[str]) -> str:
    return w.body.add("Expand", [reads[0], w.integers(w.window, 1)], f"{layer.name}/codes")


def _constant(w: Writer, layer: QConstant, reads: Sequence[str]) -> str:
    return w.graph.constant(f"{layer.name}/codes", layer.codes[None])


Writing = Callable[[Writer, Any, Sequence[str]], str]
ON_REALS: dict[type, Writing] = {  # between DequantizeLinear and QuantizeLinear
    QDense: _dense,
    QRecode: _recode,
    QAdd: _add,
    QMul: _mul,
    QLookup: _lookup,
    QRelu: _relu,
    QSoftmax: _softmax,
    QSumRows: _sum_rows,
}
ON_CODES: dict[type, Writing] = {  # that only place them
    QConcat: _concat,
    QSlice: _slice,
    QRow: _row,
    QReverse: _reverse,
    QRepeat: _repeat,
    QConstant: _constant,
}


def write_operator(w: Writer, layer: Any, values: Sequence[Value]) -> str:
    """Add an operator without a state; returns the tensor of its codes, (rows, width)."""
    if type(layer) in ON_CODES:
        return ON_CODES[type(layer)](w, layer, [value.tensor for value in values])
    reads = [w.real(value.tensor, value.quantization) for value in values]
    return w.codes(ON_REALS[type(layer)](w, layer, reads), layer.name, layer.output)
