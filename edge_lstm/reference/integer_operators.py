"""The operators without a state in NumPy integers, one small function each.  Spec: NUMERICS.md, 6 and 9."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_lstm.fixedpoint import (
    IntArray,
    quantize_multiplier,
    requantize,
    requantize_float,
    requantize_ties_up,
    rounding_shift,
    saturate,
    scale_wide,
    sigmoid_lookup,
    tanh_lookup,
)
from edge_lstm.program import DenseProgram, RecodeProgram, SoftmaxProgram, Step
from edge_lstm.qgraph import (
    QAdd,
    QConcat,
    QConstant,
    QLookup,
    QMul,
    QRelu,
    QRepeat,
    QReverse,
    QRow,
    QSlice,
    QSumRows,
)
from edge_lstm.softmax import softmax_by_float, softmax_by_polynomial, softmax_by_table


def run_dense(layer: DenseProgram, profile: str, x: IntArray) -> IntArray:
    """x: codes (..., features).  Returns codes (..., outputs)."""
    acc = x @ layer.kernel.astype(np.int64).T + layer.bias
    r = layer.requantizer
    if layer.bits == 16:
        scaled = scale_wide(acc, r.multiplier, r.shift)
    else:
        scale = {"litert": requantize_float, "tflite": requantize_ties_up}.get(profile, requantize)
        scaled = scale(acc, r.multiplier, r.shift)
    return np.maximum(saturate(scaled + layer.output_zero_point, layer.bits), layer.minimum)


def recode(layer: RecodeProgram, x: IntArray) -> IntArray:
    """The same reals in other codes."""
    r = layer.requantizer
    scaled = requantize(x - layer.input_zero_point, r.multiplier, r.shift)
    return saturate(scaled + layer.output_zero_point, layer.bits)


def _power(value: object) -> int:
    power = getattr(value, "power", None)
    return int(power) if power is not None else 0


def add(layer: QAdd, left: IntArray, right: IntArray) -> IntArray:
    """The exact sum in the finer scale, rounded once to the output's, ties away from zero."""
    powers = [_power(value) for value in (layer.left, layer.right, layer.output)]
    lowest = min(powers)
    signed = (right << (powers[1] - lowest)) * (-1 if layer.subtract else 1)
    total = (left << (powers[0] - lowest)) + signed
    return saturate(rounding_shift(total, powers[2] - lowest), 16)


def multiply(layer: QMul, left: IntArray, right: IntArray) -> IntArray:
    """The product as TFLite rounds it: twice."""
    shift = _power(layer.output) - _power(layer.left) - _power(layer.right)
    return saturate(requantize(left * right, 1 << 30, 1 - shift), 16)


def relu(layer: QRelu, x: IntArray) -> IntArray:
    """max(x, zero point), or slope * x below 0."""
    if not layer.slope:
        return np.maximum(x, layer.input.zero_point)
    return np.where(x < 0, requantize(x, *quantize_multiplier(layer.slope / 32768)), x)


def run_softmax(layer: SoftmaxProgram, x: IntArray) -> IntArray:
    """x: codes (..., rows, width)."""
    if layer.axis == "time":
        x = x.swapaxes(-1, -2)
    multiplier, shift = int(layer.requantizer.multiplier[0]), int(layer.requantizer.shift[0])
    if not layer.tables:
        share = softmax_by_polynomial(x, multiplier, shift, layer.lowest)
    elif layer.bits == 8:
        share = softmax_by_float(x, *layer.tables)
    else:
        share = softmax_by_table(x, multiplier, shift, *layer.tables)
    return share.swapaxes(-1, -2) if layer.axis == "time" else share


def run_operator(layer: Step, profile: str, values: Sequence[IntArray], streams: int, rows: int) -> IntArray:
    """One operator without a state.  values: codes (streams, rows, width); rows: of a window."""
    if isinstance(layer, QConstant):
        return np.broadcast_to(layer.codes.astype(np.int64), (streams, 1, layer.width))
    x = values[0]
    if isinstance(layer, DenseProgram):
        return run_dense(layer, profile, x)
    if isinstance(layer, RecodeProgram):
        return recode(layer, x)
    if isinstance(layer, QAdd):
        return add(layer, x, values[1])
    if isinstance(layer, QMul):
        return multiply(layer, x, values[1])
    if isinstance(layer, QLookup):
        lookup = sigmoid_lookup if layer.function == "sigmoid" else tanh_lookup
        return lookup("tflm", _power(layer.input))[x + 32768]
    if isinstance(layer, QRelu):
        return relu(layer, x)
    if isinstance(layer, SoftmaxProgram):
        return run_softmax(layer, x)
    return _move(layer, values, rows)


def _move(layer: Step, values: Sequence[IntArray], rows: int) -> IntArray:
    """Operators that only place codes, and the sum over rows."""
    x = values[0]
    if isinstance(layer, QConcat):
        return np.concatenate(values, axis=2)
    if isinstance(layer, QSlice):
        return x[:, :, layer.start : layer.stop]
    if isinstance(layer, QRow):
        return x[:, [layer.index]]
    if isinstance(layer, QReverse):
        return x[:, ::-1]
    if isinstance(layer, QRepeat):
        return np.repeat(x, rows, axis=1)
    if isinstance(layer, QSumRows):
        return saturate(x.sum(axis=1, keepdims=True), 16)
    raise TypeError(f"{type(layer).__name__} keeps a state")
