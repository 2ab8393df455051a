"""Every integer operator as operators of a .tflite file, in the forms that all runtimes compute alike.

Spec: NUMERICS.md, 8.  16-bit values have four axes because their dense layers are convolutions, which alone
round alike everywhere.  Recurrences are unrolled over the rows of an invocation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tflite

from edge_lstm.emit.tflite_file import OperatorSpec
from edge_lstm.emit.tflite_lstm import add_lstm
from edge_lstm.emit.tflite_writer import Writer
from edge_lstm.operators import QState
from edge_lstm.qgraph import (
    QAdd,
    QConcat,
    QConstant,
    QDelay,
    QDense,
    QLayer,
    QLookup,
    QLstm,
    QMul,
    QNativeLstm,
    QRecode,
    QRelu,
    QRepeat,
    QReverse,
    QRow,
    QScan,
    QSlice,
    QSoftmax,
    QSumRows,
    Quantization,
)

NATIVE_LSTM = "edge_lstm.native_lstm"  # a custom operator, which no interpreter has
RELU = tflite.ActivationFunctionType.RELU


def write(w: Writer, layer: QLayer, reads: Sequence[int]) -> int:
    """Append ``layer``; returns the tensor of its value.  reads: the tensors of its sources."""
    return WRITERS[type(layer)](w, layer, reads)


def _dense(w: Writer, layer: QDense, reads: Sequence[int]) -> int:
    wide = layer.input.bits == 16
    kernel = layer.kernel[:, None, None] if wide else layer.kernel
    inputs = [
        reads[0],
        w.spec.constant(f"{layer.name}/kernel", kernel, layer.kernel_scales),
        w.spec.constant(
            f"{layer.name}/bias", layer.bias, layer.kernel_scales * np.float32(layer.input.scale)
        ),
    ]
    output = w.spec.activation(layer.name, (*w.shape(reads[0])[:-1], layer.outputs), layer.output)
    options = {"FusedActivationFunction": RELU} if layer.relu else {}
    if not wide:
        return w.spec.operate(
            "FULLY_CONNECTED", 4, inputs, [output], "FullyConnectedOptions", KeepNumDims=True, **options
        )
    options |= {"Padding": tflite.Padding.VALID, "StrideW": 1, "StrideH": 1}
    options |= {"DilationWFactor": 1, "DilationHFactor": 1}
    return w.spec.operate("CONV_2D", 5, inputs, [output], "Conv2DOptions", **options)


def _lstm(w: Writer, layer: QLstm, reads: Sequence[int]) -> int:
    value = w.reverse(reads[0], f"{layer.name}/reversed_input") if layer.backwards else reads[0]
    shape = w.shape(value)
    if layer.input.bits == 16:
        value = w.reshape(value, (shape[0], *shape[2:]), f"{layer.name}/input")
    output = add_lstm(w.spec, value, layer, w.time_major)
    if layer.input.bits == 16:
        output = w.reshape(output, (*shape[:3], layer.outputs), f"{layer.name}/rows")
    return w.reverse(output, f"{layer.name}/reversed") if layer.backwards else output


def _native_lstm(w: Writer, layer: QNativeLstm, reads: Sequence[int]) -> int:
    """A custom operator that holds the arrays; the description holds the rest."""
    arrays = ("kernel", "recurrent_kernel", "bias", "row_scales")
    constants = [w.spec.constant(f"{layer.name}/{name}", getattr(layer, name)) for name in arrays]
    output = w.spec.activation(layer.name, (*w.shape(reads[0])[:-1], layer.units), layer.output)
    w.spec.append(OperatorSpec("CUSTOM", 1, [reads[0], *constants], [output], custom=NATIVE_LSTM))
    return output


def _recode(w: Writer, layer: QRecode, reads: Sequence[int]) -> int:
    """From 8 bits by way of 16: LiteRT rounds 8 to 8 bits otherwise, tflite-runtime has no 8 to 16."""
    value, shape = reads[0], w.shape(reads[0])
    name, given = layer.name, layer.input
    if given.bits == 8:
        exact = Quantization(given.scale, 0, 16)
        value = w.spec.operate("CAST", 1, [value], [w.spec.activation(f"{name}/cast", shape, exact)])
        if layer.output.bits == 16:
            shape = (shape[0], 1, *shape[1:])
            value = w.reshape(value, shape, f"{name}/cast")
        if given.zero_point:
            zero_point = w.spec.constant(
                f"{name}/zero_point", np.array([given.zero_point], dtype=np.int16), given.scale
            )
            output = w.spec.activation(f"{name}/shifted", shape, exact)
            value = w.spec.operate("SUB", 2, [value, zero_point], [output], "SubOptions", PotScaleInt16=False)
        given = exact
    elif layer.output.bits == 8:
        shape = (shape[0], *shape[2:])
        value = w.reshape(value, shape, f"{name}/rows")
    if given == layer.output:
        return value
    return w.spec.operate("QUANTIZE", 2, [value], [w.spec.activation(name, shape, layer.output)])


def _add(w: Writer, layer: QAdd, reads: Sequence[int]) -> int:
    kind, table = ("SUB", "SubOptions") if layer.subtract else ("ADD", "AddOptions")
    return _binary(w, kind, table, layer, reads, PotScaleInt16=False)


def _mul(w: Writer, layer: QMul, reads: Sequence[int]) -> int:
    return _binary(w, "MUL", "MulOptions", layer, reads)


def _binary(
    w: Writer, kind: str, table: str, layer: QAdd | QMul, reads: Sequence[int], **options: Any
) -> int:
    shape = np.broadcast_shapes(*(w.shape(value) for value in reads))
    output = w.spec.activation(layer.name, shape, layer.output)
    return w.spec.operate(kind, 2, reads, [output], table, **options)


def _lookup(w: Writer, layer: QLookup, reads: Sequence[int]) -> int:
    kind = {"sigmoid": "LOGISTIC", "tanh": "TANH"}[layer.function]
    return w.spec.operate(kind, 3, reads, [w.spec.activation(layer.name, w.shape(reads[0]), layer.output)])


def _relu(w: Writer, layer: QRelu, reads: Sequence[int]) -> int:
    output = w.spec.activation(layer.name, w.shape(reads[0]), layer.output)
    if layer.slope:
        options = {"Alpha": layer.slope / 32768}
        return w.spec.operate("LEAKY_RELU", 2, reads, [output], "LeakyReluOptions", **options)
    return w.spec.operate("RELU", 2 if layer.input.bits == 8 else 3, reads, [output])


def _softmax(w: Writer, layer: QSoftmax, reads: Sequence[int]) -> int:
    value, timely = reads[0], layer.axis == "time"
    order = list(range(len(w.shape(value))))
    order[-2:] = order[:-3:-1]
    if timely:
        value = w.swap(value, order, f"{layer.name}/columns")
    output = w.spec.activation(layer.name, w.shape(value), layer.output)
    version = 2 if layer.input.bits == 8 else 3
    w.spec.operate("SOFTMAX", version, [value], [output], "SoftmaxOptions", Beta=1.0)
    return w.swap(output, order, f"{layer.name}/rows") if timely else output


def _concat(w: Writer, layer: QConcat, reads: Sequence[int]) -> int:
    return w.join(reads, -1, layer.name)


def _slice(w: Writer, layer: QSlice, reads: Sequence[int]) -> int:
    return w.part(reads[0], -1, layer.start, layer.stop, layer.name)


def _row(w: Writer, layer: QRow, reads: Sequence[int]) -> int:
    start = layer.index % w.shape(reads[0])[-2]
    return w.part(reads[0], -2, start, start + 1, layer.name)


def _reverse(w: Writer, layer: QReverse, reads: Sequence[int]) -> int:
    return w.reverse(reads[0], layer.name)


def _repeat(w: Writer, layer: QRepeat, reads: Sequence[int]) -> int:
    return w.join([reads[0]] * w.rows, -2, layer.name)


def _sum_rows(w: Writer, layer: QSumRows, reads: Sequence[int]) -> int:
    """A row of ones times the rows: with a scale of 1 the product is the exact sum, saturated."""
    shape = w.shape(reads[0])
    ones = w.spec.filled(f"{layer.name}/ones", (*shape[:2], 1, shape[2]), Quantization(1.0, 0, 16), 1)
    output = w.spec.activation(layer.name, (*shape[:2], 1, shape[3]), layer.output)
    return w.spec.operate("BATCH_MATMUL", 3, [ones, reads[0]], [output], "BatchMatMulOptions")


def _constant(w: Writer, layer: QConstant, reads: Sequence[int]) -> int:
    shape = w.shape_of(layer.output, 1, layer.width)
    codes = np.ascontiguousarray(np.broadcast_to(layer.codes, shape))
    return w.spec.constant(layer.name, codes, layer.output.scale, layer.output.zero_point)


def _before(w: Writer, state: QState, rows: int) -> tuple[int, int]:
    """(handle, value) of what a recurrence kept.  8 bits are kept in 16: LiteRT confuses variables of 8."""
    read = state.quantization
    if read.bits == 16 or not w.states.kept:
        return w.states.read(state.name, w.shape_of(read, rows, state.width), read, state.initial)
    exact, initial = Quantization(read.scale, 0, 16), state.initial - read.zero_point
    handle, value = w.states.read(state.name, w.shape_of(exact, rows, state.width), exact, initial)
    return handle, _recode(w, QRecode(state.name, exact, read), [value])


def _keep(w: Writer, state: QState, handle: int, value: int) -> None:
    """Keep ``value`` for the next invocation."""
    if w.states.kept and state.quantization.bits == 8:
        exact = Quantization(state.quantization.scale, 0, 16)
        value = _recode(w, QRecode(f"{state.name}/next", state.quantization, exact), [value])
    w.states.write(handle, value)


def _delay(w: Writer, layer: QDelay, reads: Sequence[int]) -> int:
    """Earlier rows in front of those of the invocation, then every ``dilation``-th of them side by side."""
    value, earlier = reads[0], (layer.size - 1) * layer.dilation
    if not earlier:
        return value
    rows, width = w.shape(value)[-2:]
    state = QState(f"{layer.name}/earlier", width, layer.output)
    handle, before = _before(w, state, earlier)
    every = w.join([before, value], -2, f"{layer.name}/all")
    if w.states.kept:
        _keep(w, state, handle, w.part(every, -2, rows, rows + earlier, f"{layer.name}/last"))
    starts = range(0, layer.size * layer.dilation, layer.dilation)
    parts = [w.part(every, -2, start, start + rows, f"{layer.name}/{start}") for start in starts]
    return w.join(parts, -1, layer.name)


def _scan(w: Writer, layer: QScan, reads: Sequence[int]) -> int:
    """Its body once for every row; constants are shared, so that a row costs no weights."""
    rows = w.each_row(reads[0], f"{layer.name}/row")
    before = [_before(w, state, 1) for state in layer.states]
    states, results = [value for _, value in before], []
    for row in reversed(rows) if layer.backwards else rows:
        given, written = (row, *states), list[int]()
        for step, sources in zip(layer.body, layer.sources, strict=True):
            values = [written[source] if source >= 0 else given[-1 - source] for source in sources]
            written.append(write(w, step, values))
        states = [written[index] for index in layer.next]
        results.append(written[layer.result])
    for state, (handle, _), value in zip(layer.states, before, states, strict=True):
        _keep(w, state, handle, value)
    return w.join(results[::-1] if layer.backwards else results, -2, layer.name)


WRITERS: dict[type, Callable[[Writer, Any, Sequence[int]], int]] = {
    QDense: _dense,
    QLstm: _lstm,
    QNativeLstm: _native_lstm,
    QRecode: _recode,
    QAdd: _add,
    QMul: _mul,
    QLookup: _lookup,
    QRelu: _relu,
    QSoftmax: _softmax,
    QConcat: _concat,
    QSlice: _slice,
    QRow: _row,
    QReverse: _reverse,
    QRepeat: _repeat,
    QSumRows: _sum_rows,
    QConstant: _constant,
    QDelay: _delay,
    QScan: _scan,
}
