"""Operations between layers: x[:, -1], x + y, keras.ops.sum(x, axis=1) and the functions of TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from edge_lstm.importers.keras_attention import contracted, summed
from edge_lstm.importers.keras_config import MAX_RANK, LayerConfig
from edge_lstm.importers.keras_functions import activated, layer_steps, number, softmax, stepped
from edge_lstm.importers.keras_layers import arithmetic, concatenate, linear
from edge_lstm.importers.keras_values import (
    TIME,
    Network,
    Refused,
    Value,
    permuted,
    position,
    readable,
    reshaped,
)
from edge_lstm.layer_types import Activation, Function, Row

Options = Mapping[str, Any]
FUNCTIONS = {
    "Tanh": "tanh", "Sigmoid": "sigmoid", "Relu": "relu", "Softplus": "softplus", "Softsign": "softsign",
    "Silu": "silu", "HardSigmoid": "hard_sigmoid", "Relu6": "relu6", "Selu": "selu",
}  # fmt: skip


def operation(net: Network, layer: LayerConfig, args: Sequence[Any], options: Options) -> Value:
    """What an operation writes.  args: Values, numbers and slices."""
    kind = layer.kind
    if kind not in OPTIONS:
        raise Refused(f"it is not implemented; implemented are {', '.join(sorted(OPTIONS))}")
    for value in [part for arg in args for part in (arg if isinstance(arg, list) else [arg])]:
        if isinstance(value, Value):
            readable(value)
    extra = [f"{key}={value!r}" for key, value in options.items() if key not in OPTIONS[kind] and value]
    if extra:
        raise Refused(f"it has {' and '.join(extra)}, which is not implemented")
    if kind in ("Add", "Subtract", "Multiply", "Divide", "TrueDivide"):
        return _binary(net, layer, args)
    if not args or not isinstance(args[0], Value if kind != "Concatenate" else list):
        raise Refused("it reads a number, expected a tensor")
    if kind in FUNCTIONS:
        first: Any = args[0]
        return activated(net, layer.name, first, FUNCTIONS[kind])
    return UNARY[kind](net, layer, args, options)


def _binary(net: Network, layer: LayerConfig, args: Sequence[Any]) -> Value:
    one, two = args
    divides = layer.kind in ("Divide", "TrueDivide")
    if isinstance(one, Value) and isinstance(two, Value):
        if divides:
            raise Refused("it divides by a tensor, which is not implemented")
        if len(one.axes) != len(two.axes):
            raise Refused(f"it joins {one} and {two}; give both the same axes")
        return arithmetic(net, layer, [one, two])
    x, constant = (one, two) if isinstance(one, Value) else (two, one)
    if not isinstance(x, Value) or isinstance(constant, bool) or not isinstance(constant, (int, float)):
        raise Refused(f"it joins a tensor with {str(constant)[:40]}, expected a tensor or a number")
    if divides and (x is two or constant == 0):
        raise Refused("it divides a number by a tensor, or by 0, which is not implemented")
    first = x is one
    factor = {"Multiply": constant, "Subtract": 1.0 if first else -1.0}.get(layer.kind, 1.0)
    offset = {"Add": constant, "Subtract": -constant if first else constant}.get(layer.kind, 0.0)
    function = Function("affine", float(1 / constant if divides else factor), float(offset))
    return net.put(Activation(layer.name, function), x.axes, x)


def _negative(net: Network, layer: LayerConfig, args: Sequence[Any], options: Options) -> Value:
    return net.put(Activation(layer.name, Function("affine", -1.0, 0.0)), args[0].axes, args[0])


def _leaky_relu(net: Network, layer: LayerConfig, args: Sequence[Any], options: Options) -> Value:
    slope = number(options, "negative_slope", 0.2)
    return stepped(net, layer.name, args[0], layer_steps("LeakyReLU", {"negative_slope": slope}))


def _elu(net: Network, layer: LayerConfig, args: Sequence[Any], options: Options) -> Value:
    return stepped(net, layer.name, args[0], layer_steps("ELU", {"alpha": options.get("alpha")}))


def _softmax(net: Network, layer: LayerConfig, args: Sequence[Any], options: Options) -> Value:
    axis = options.get("axis")
    return softmax(net, layer.name, args[0], -1 if axis is None else axis)


def _sum(net: Network, layer: LayerConfig, args: Sequence[Any], options: Options) -> Value:
    axis = options.get("axis")
    if axis is None:
        raise Refused("it is over all axes, also over the batch; name the axis")
    rank = len(args[0].axes)
    places = {position(one, rank) for one in (axis if isinstance(axis, list) else [axis])}
    return summed(net, layer.name, args[0], places, bool(options.get("keepdims")), layer.kind == "Mean")


def _expand_dims(net: Network, layer: LayerConfig, args: Sequence[Any], options: Options) -> Value:
    x: Value = args[0]
    place = position(options.get("axis"), len(x.axes) + 1)
    return replace(x, axes=(*x.axes[:place], 1, *x.axes[place:]))


def _squeeze(net: Network, layer: LayerConfig, args: Sequence[Any], options: Options) -> Value:
    x: Value = args[0]
    axis = options.get("axis", options.get("squeeze_dims"))
    if axis is None:
        raise Refused("it drops every axis of size 1, also the batch; name the axis")
    axes = axis if isinstance(axis, list) else [axis]
    places = {position(one, len(x.axes)) for one in axes}
    if any(x.axes[place] != 1 and not (x.axes[place] is TIME and net.window == 1) for place in places):
        raise Refused(f"it drops the axes {axes} of {x}, expected axes of size 1")
    return replace(x, axes=tuple(size for place, size in enumerate(x.axes) if place not in places))


def _reshape(net: Network, layer: LayerConfig, args: Sequence[Any], options: Options) -> Value:
    shape = options.get("newshape", args[1] if len(args) > 1 else None)
    if not isinstance(shape, list) or not shape or shape[0] not in (-1, None):
        raise Refused(f"its shape is {shape}, expected one that starts with -1 for the batch")
    return reshaped(net, args[0], shape[1:])


def _transpose(net: Network, layer: LayerConfig, args: Sequence[Any], options: Options) -> Value:
    order = options.get("axes")
    if not isinstance(order, list) or not order or order[0] != 0:
        raise Refused(f"it orders the axes as {order}, expected the batch first")
    return permuted(args[0], [place - 1 for place in order[1:]])


def _flip(net: Network, layer: LayerConfig, args: Sequence[Any], options: Options) -> Value:
    x: Value = args[0]
    return _turned(x, position(options.get("axis"), len(x.axes)))


def _turned(x: Value, place: int) -> Value:
    if x.axes[place] is TIME:
        return replace(x, flipped=not x.flipped)
    if x.axes[place] == 1:
        return x
    raise Refused(f"it turns the features of {x} around; order the channels of the data instead")


def _matmul(net: Network, layer: LayerConfig, args: Sequence[Any], options: Options) -> Value:
    one, two = args
    if not (isinstance(two, Value) and len(one.axes) == len(two.axes) == 2):
        raise Refused(f"it multiplies {one} and {two}, expected two tensors of two axes after the batch")
    return contracted(net, layer.name, one, 1, two, 0)


def _concatenate(net: Network, layer: LayerConfig, args: Sequence[Any], options: Options) -> Value:
    if not all(isinstance(value, Value) for value in args[0]):
        raise Refused("it joins tensors with numbers, expected tensors")
    return concatenate(net, replace(layer, options=options), args[0])


def _get_item(net: Network, layer: LayerConfig, args: Sequence[Any], options: Options) -> Value:
    """x[:, -1], x[:, -1:, :], x[:, ::-1], x[..., 0:2], x[:, None] and their like."""
    x: Value = args[0]
    key = args[1]
    key = key if isinstance(key, list) else [key]
    if not key or len(key) > MAX_RANK or not _whole(key[0]):
        raise Refused("it takes a part of the batch")
    dots = [place for place, part in enumerate(key) if isinstance(part, Mapping) and "class_name" in part]
    if dots:  # an ellipsis: all axes between
        named = sum(part is not None for part in key) - len(dots)
        key = [*key[: dots[0]], *[{}] * (len(x.axes) + 1 - named), *key[dots[0] + 1 :]]
    place = 0
    for part in key[1:]:
        if part is None:
            x = replace(x, axes=(*x.axes[:place], 1, *x.axes[place:]))
            place += 1
        elif place >= len(x.axes):
            raise ValueError(f"'{layer.name}' takes more axes than there are")
        else:
            x = _picked(net, layer, x, place, part)
            place += isinstance(part, Mapping)
    return x


def _whole(part: Any) -> bool:
    return isinstance(part, Mapping) and not any(
        part.get(key) is not None for key in ("start", "stop", "step")
    )


def _picked(net: Network, layer: LayerConfig, x: Value, place: int, part: Any) -> Value:
    """One index or slice of one axis."""
    if _whole(part):
        return x
    size = net.window if x.axes[place] is TIME else x.axes[place]
    keep = isinstance(part, Mapping)
    if not keep and (not isinstance(part, int) or isinstance(part, bool)):
        raise Refused(f"it takes the places {str(part)[:40]}, expected one or a slice")
    span = (
        slice(part.get("start"), part.get("stop"), part.get("step"))
        if keep
        else slice(part, part + 1 or None)
    )
    if x.axes[place] == 1 and len(range(1)[span]) == 1:
        return x if keep else replace(x, axes=(*x.axes[:place], *x.axes[place + 1 :]))
    if x.axes[place] is not TIME:
        return _features(net, layer, x, place, span, keep)
    if span == slice(None, None, -1):
        return _turned(x, place)
    first, last = (span == slice(0, 1)), (span == slice(-1, None))
    if size:
        rows = range(size)[span]
        first, last = rows == range(1), rows == range(size - 1, size)
    if not (first or last) or span.step not in (None, 1):
        raise Refused(f"it takes the rows {part} of {x}, expected the first or the last row")
    index = -1 if last != x.flipped else 0
    axes = (*x.axes[:place], *(1,) * keep, *x.axes[place + 1 :])
    return net.put(Row(layer.name, index), axes, x, rows=False, flipped=False)


def _features(net: Network, layer: LayerConfig, x: Value, place: int, span: slice, keep: bool) -> Value:
    """Some of the features: a dense layer of ones and zeros."""
    size = x.axes[place]
    if size != x.width or size is TIME:
        raise Refused(f"it takes a part of the features of {x}, expected of one axis with all of them")
    net.weights.claim(size * size)
    kernel = np.eye(size)[:, span]
    count = kernel.shape[1]
    if count == 0 or (not keep and count != 1):
        raise ValueError(f"'{layer.name}' takes no feature")
    axes = (*x.axes[:place], *(count,) * keep, *x.axes[place + 1 :])
    return linear(net, layer.name, x, kernel, np.zeros(count), axes)


UNARY: dict[str, Callable[[Network, LayerConfig, Sequence[Any], Options], Value]] = {
    "Negative": _negative, "LeakyRelu": _leaky_relu, "Elu": _elu, "Softmax": _softmax, "Sum": _sum,
    "Mean": _sum, "ExpandDims": _expand_dims, "Squeeze": _squeeze, "Reshape": _reshape,
    "Transpose": _transpose, "Flip": _flip, "Matmul": _matmul, "Concatenate": _concatenate,
    "GetItem": _get_item,
}  # fmt: skip
READ: dict[str, tuple[str, ...]] = {
    "LeakyRelu": ("negative_slope",), "Elu": ("alpha",), "Softmax": ("axis",), "Sum": ("axis", "keepdims"),
    "Mean": ("axis", "keepdims"), "ExpandDims": ("axis",), "Squeeze": ("axis", "squeeze_dims"),
    "Reshape": ("newshape",), "Transpose": ("axes",), "Flip": ("axis",), "Concatenate": ("axis",),
}  # fmt: skip
OPTIONS = {
    kind: READ.get(kind, ())
    for kind in (*UNARY, *FUNCTIONS, "Add", "Subtract", "Multiply", "Divide", "TrueDivide")
}
