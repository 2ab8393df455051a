"""Operators on whole windows of a float .tflite file -> layers of a draft.

Reads operators and the values that they read; writes values.  Raises UnsupportedModel for what has no layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from edge_lstm.arrays import FloatArray
from edge_lstm.errors import ModelError, UnsupportedModel
from edge_lstm.importers.flatbuffer import Operator, Tensor
from edge_lstm.importers.tflite_float_axes import (
    FEATURES,
    FLAT,
    ONE,
    ROWS,
    Axes,
    Form,
    Rows,
    broadcast,
    place,
)
from edge_lstm.importers.tflite_float_builder import Builder
from edge_lstm.importers.tflite_float_constants import described, integers
from edge_lstm.importers.tflite_float_forms import (
    ACTIVATIONS,
    MOVES,
    activation,
    dense_weights,
    fused_activation,
    moved,
    slice_of,
    vector,
)
from edge_lstm.importers.tflite_float_lstm import read_bidirectional, read_unidirectional
from edge_lstm.layer_types import Conv1d, Row, Softmax

Value = Rows | Form
Values = Sequence[Rows | Tensor | None]


def run(builder: Builder, operator: Operator, values: Values) -> tuple[Value, ...]:
    """values: of the operator's inputs, a Tensor for a constant.  Returns its outputs."""
    if operator.kind in JOINS:
        return (JOINS[operator.kind](builder, operator, values),)
    value = values[0] if values else None
    if not isinstance(value, Rows):
        raise UnsupportedModel(f"it computes with {described(value)}, expected what a layer writes")
    return READERS[operator.kind](builder, operator, value)


def _moved(builder: Builder, operator: Operator, value: Rows) -> tuple[Value, ...]:
    return (replace(value, axes=moved(operator, builder.sizes, value.axes, value.width)),)


def _activated(builder: Builder, operator: Operator, value: Rows) -> tuple[Value, ...]:
    return (builder.activated(value, activation(operator)),)


def _dense(builder: Builder, operator: Operator, value: Rows) -> tuple[Value, ...]:
    """FULLY_CONNECTED: the same for every row, or once for a flattened window."""
    kernel, bias = dense_weights(operator)
    outputs, inputs = kernel.shape
    window, sizes = builder.sizes.window, builder.sizes
    offset = np.zeros(outputs) if bias is None else builder.constants.numbers(bias, (outputs,))
    weights = builder.constants.numbers(kernel)
    lead, kept = value.axes[:-1], bool(operator.options.get("KeepNumDims"))
    if window > 1 and inputs == window * value.width and (value.width > 1 or value.axes[-1:] == (ROWS,)):
        if value.axes[-1:] != (FLAT,):
            joined = tuple(label for label in value.axes if label not in (ROWS, FEATURES))
            if kept or value.axes[-2:] not in ((ROWS, FEATURES), (ONE, ROWS)):
                raise UnsupportedModel(f"its weights take {inputs} features, but it reads {list(value.axes)}")
            lead = joined
        result = _flattened(builder, value, weights, offset)
    elif inputs == value.width and value.axes[-1:] == (FEATURES if value.width > 1 else ONE,):
        result = builder.dense(value, weights.T, offset)
    else:
        last = value.axes[-1] if value.axes else ONE
        raise UnsupportedModel(
            f"its weights take {inputs} numbers, but the last axis of what it reads is {last or 'of size 1'} "
            f"({value.width} features)"
        )
    labels = [label for label in lead if label != ONE]
    if not kept and len(labels) > 1:
        raise UnsupportedModel("it joins streams and rows in one axis; convert with batch 1")
    axes = (*(lead if kept else (*labels, ONE)[:1]), FEATURES)
    result = replace(result, axes=sizes.named(axes, outputs))
    return (builder.activated(result, fused_activation(operator)),)


def _flattened(builder: Builder, value: Rows, weights: FloatArray, bias: FloatArray) -> Rows:
    """A dense layer over all rows of a window: the last row of a convolution as long as the window."""
    taps = weights.reshape(weights.shape[0], builder.sizes.window, value.width).transpose(1, 2, 0)
    taps = taps[::-1] if value.backwards else taps
    index = builder.add(Conv1d("flattened_dense", taps, bias), value.index)
    index = builder.add(Row("last_row", -1), index)
    return Rows(index, value.axes, weights.shape[0], False)


def _softmax(builder: Builder, operator: Operator, value: Rows) -> tuple[Value, ...]:
    beta = operator.options.get("Beta", 0.0)
    if beta != 1.0:
        raise UnsupportedModel(f"its beta is {beta}, expected 1; scale the weights of the layer before it")
    last = value.axes[-1] if value.axes else ONE
    if last == FEATURES or (last == ONE and value.width == 1):
        return (replace(value, index=builder.add(Softmax("softmax"), value.index)),)
    if last == ROWS and value.width == 1:
        return (replace(value, index=builder.add(Softmax("softmax", "time"), value.index)),)
    raise UnsupportedModel(f"it runs over {last or 'an axis of size 1'}, expected features or rows")


def _sliced(builder: Builder, operator: Operator, value: Rows) -> tuple[Value, ...]:
    """STRIDED_SLICE: one row, or everything."""
    shape = builder.sizes.shape(value.axes, value.width)
    kept = slice_of(operator, shape)
    row = None
    for axis, (start, stop) in enumerate(kept.ranges):
        if (start, stop) == (0, shape[axis]):
            continue
        if value.axes[axis] != ROWS or stop - start != 1:
            raise UnsupportedModel(f"it takes {start} to {stop} of {shape[axis]} {value.axes[axis]}")
        row = start
    labels = tuple(ONE if row is not None and label == ROWS else label for label in value.axes)
    if row is None:
        return (replace(value, axes=kept.kept(value.axes)),)
    return (replace(builder.row(value, row), axes=kept.kept(labels)),)


def _unpacked(builder: Builder, operator: Operator, value: Rows) -> tuple[Value, ...]:
    axis = place(operator.options.get("Axis", 0), len(value.axes))
    rest = value.axes[:axis] + value.axes[axis + 1 :]
    if value.axes[axis] == ONE:
        return (replace(value, axes=rest),)
    if value.axes[axis] != ROWS:
        raise UnsupportedModel(f"it unpacks {value.axes[axis]}, expected rows")
    return tuple(replace(builder.row(value, k), axes=rest) for k in range(builder.sizes.window))


def packed(
    builder: Builder, operator: Operator, values: Sequence[Value | Tensor | None]
) -> tuple[Value, ...]:
    """PACK: rows that were computed one by one, as a sequence again."""
    forms = [value for value in values if isinstance(value, Form)]
    window = builder.sizes.window
    if len(forms) != len(values) or len(forms) != window or len({form.axes for form in forms}) != 1:
        raise UnsupportedModel(
            f"it packs {len(values)} values, expected {builder.sizes.window} rows of a window"
        )
    axis = place(operator.options.get("Axis", 0), len(forms[0].axes) + 1)
    value = builder.lift(tuple(form.sum for form in forms))
    return (replace(value, axes=(*forms[0].axes[:axis], ROWS, *forms[0].axes[axis:])),)


def _reversed(builder: Builder, operator: Operator, value: Rows) -> tuple[Value, ...]:
    for axis in integers(operator.inputs[1] if len(operator.inputs) > 1 else None):
        label = value.axes[place(axis, len(value.axes))]
        if label not in (ROWS, ONE):
            raise UnsupportedModel(f"it reverses {label}, expected rows")
        value = replace(value, backwards=value.backwards != (label == ROWS))
    return (value,)


def _tiled(builder: Builder, operator: Operator, value: Rows) -> tuple[Value, ...]:
    """TILE and BROADCAST_TO: a vector as every row."""
    shape = builder.sizes.shape(value.axes, value.width)
    numbers = integers(operator.inputs[1] if len(operator.inputs) > 1 else None)
    tile = operator.kind == "TILE" and len(numbers) == len(shape)
    wanted = tuple(n * m for n, m in zip(shape, numbers, strict=True)) if tile else numbers
    changed = [axis for axis, n in enumerate(shape) if wanted[axis : axis + 1] != (n,)]
    if not changed and len(wanted) == len(shape):
        return (value,)
    window = builder.sizes.window
    fits = len(wanted) == len(shape) and len(changed) == 1
    if not fits or (shape[changed[0]], wanted[changed[0]]) != (1, window):
        raise UnsupportedModel(
            f"it repeats {list(shape)} to {list(wanted)}, expected a vector for {window} rows"
        )
    if value.sequence:
        raise UnsupportedModel("it repeats the rows of a window, expected a vector")
    axes = (*value.axes[: changed[0]], ROWS, *value.axes[changed[0] + 1 :])
    return (replace(builder.repeated(value), axes=axes),)


def _concatenated(builder: Builder, operator: Operator, values: Values) -> Value:
    found = _layers(values)
    axis = place(operator.options.get("Axis", 0), len(found[0].axes))
    lead = {value.axes[:-1] for value in found}
    whole = all(value.axes[-1] == (FEATURES if value.width > 1 else ONE) for value in found)
    if axis != len(found[0].axes) - 1 or len(lead) != 1 or not whole:
        raise UnsupportedModel("it joins values along another axis than their features")
    if builder.sizes.window == 1 and len({value.sequence for value in found}) > 1:
        found = [value if value.sequence else builder.repeated(value) for value in found]
    like = replace(found[0], axes=(*found[0].axes[:-1], FEATURES), width=sum(value.width for value in found))
    if len(found) == 1:
        return found[0]
    return builder.activated(builder.merged("concat", found, like), fused_activation(operator))


def _layers(values: Values) -> list[Rows]:
    found = [value for value in values if isinstance(value, Rows)]
    if len(found) != len(values) or not found or not all(value.axes for value in found):
        raise UnsupportedModel("it joins a constant with what layers write")
    return found


def _elementwise(builder: Builder, operator: Operator, values: Values) -> Value:
    """ADD, SUB, MUL and DIV: of two values, or normalization with constants."""
    if len(values) != 2:
        raise ModelError(f"it has {len(values)} inputs, expected 2")
    first, second = values
    if isinstance(first, Rows) and isinstance(second, Rows):
        result = _of_two(builder, operator.kind, first, second)
    elif isinstance(first, Rows) and isinstance(second, Tensor):
        result = _with_constant(builder, operator.kind, first, second, False)
    elif isinstance(second, Rows) and isinstance(first, Tensor):
        result = _with_constant(builder, operator.kind, second, first, True)
    else:
        raise UnsupportedModel("it computes with constants alone, expected what a layer writes")
    return builder.activated(result, fused_activation(operator))


def _with_constant(builder: Builder, kind: str, value: Rows, tensor: Tensor, swapped: bool) -> Rows:
    numbers = vector(builder.symbols, tensor, value.width).astype(np.float64)
    last: Axes = (FEATURES if numbers.size > 1 else ONE,)
    axes = broadcast(value.axes, ((ONE,) * (len(tensor.shape) - 1) + last)[: len(tensor.shape)])
    factor, offset = np.ones(1), np.zeros(1)
    if kind == "DIV" and (swapped or not numbers.all()):
        raise UnsupportedModel("it divides by what a layer writes, or by 0")
    if kind in ("MUL", "DIV"):
        factor = numbers if kind == "MUL" else 1.0 / numbers
    else:
        offset = numbers if kind == "ADD" or swapped else -numbers
        factor = np.full(1, -1.0 if kind == "SUB" and swapped else 1.0)
    return builder.affine(replace(value, axes=axes), factor, offset)


def _of_two(builder: Builder, kind: str, first: Rows, second: Rows) -> Rows:
    if kind == "DIV":
        raise UnsupportedModel("it divides by what a layer writes")
    if kind == "SUB":
        second = builder.affine(second, np.full(1, -1.0), np.zeros(1))
    width = max(first.width, second.width)
    like = replace(first, axes=broadcast(first.axes, second.axes), width=width)
    return builder.merged("mul" if kind == "MUL" else "sum", [first, second], like)


READERS: dict[str, Callable[[Builder, Operator, Rows], tuple[Value, ...]]] = {
    **dict.fromkeys(MOVES, _moved),
    **dict.fromkeys((*ACTIVATIONS, "LEAKY_RELU"), _activated),
    "FULLY_CONNECTED": _dense,
    "SOFTMAX": _softmax,
    "STRIDED_SLICE": _sliced,
    "UNPACK": _unpacked,
    "REVERSE_V2": _reversed,
    "TILE": _tiled,
    "BROADCAST_TO": _tiled,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": read_unidirectional,
    "BIDIRECTIONAL_SEQUENCE_LSTM": read_bidirectional,
}
JOINS: dict[str, Callable[[Builder, Operator, Values], Value]] = {
    "CONCATENATION": _concatenated,
    **dict.fromkeys(("ADD", "SUB", "MUL", "DIV"), _elementwise),
}
