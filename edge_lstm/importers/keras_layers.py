"""Layers of Keras that see each row by itself, or that change, join or repeat axes: one converter a layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from edge_lstm.importers.draft import Affine, batch_normalization
from edge_lstm.importers.keras_config import LayerConfig
from edge_lstm.importers.keras_functions import activated, layer_steps, softmax, stepped
from edge_lstm.importers.keras_values import (
    TIME,
    Axes,
    Network,
    Refused,
    Value,
    features,
    joined,
    permuted,
    position,
    readable,
    reshaped,
    tiled,
)
from edge_lstm.layer_types import Activation, Conv1d, Dense, Function, Merge, Repeat, Row

NORMALIZATION_EPSILON = 1e-7  # of Keras, below which a deviation is not divided by
CAUSAL_HINT = "use padding='causal', which sees the rows of the past only and keeps their number"


def same(net: Network, layer: LayerConfig, inputs: Sequence[Value]) -> Value:
    """A layer that does nothing at inference."""
    return inputs[0]


def linear(net: Network, name: str, x: Value, kernel: Any, bias: Any, axes: Axes) -> Value:
    """A dense layer."""
    return net.put(Dense(name, kernel, bias), axes, x)


def dense(net: Network, layer: LayerConfig, inputs: Sequence[Value]) -> Value:
    (x,) = inputs
    readable(replace(x, flat=False))
    if x.flat or x.axes == (TIME,):
        return _dense_window(net, layer, x)
    if not x.axes or x.axes[-1] is TIME:
        raise Refused(f"it reads {x} and mixes its time steps; keep (timesteps, features)")
    units, count = layer.count("units"), x.axes[-1]
    places = features(x.axes) // count
    shapes: dict[str, tuple[int, ...]] = {"kernel": (count, units)}
    if layer.flag("use_bias", True):
        shapes["bias"] = (units,)
    net.weights.claim((places**2 - 1) * count * units)
    arrays = net.weights.load(layer, shapes)
    kernel, bias = arrays["kernel"], arrays.get("bias", np.zeros(units, np.float32))
    if places > 1:  # the same layer at every place beside it
        kernel, bias = np.kron(np.eye(places, dtype=np.float32), kernel), np.tile(bias, places)
    y = linear(net, layer.name, x, kernel, bias, (*x.axes[:-1], units))
    return activated(net, layer.name, y, layer.options["activation"])


def _dense_window(net: Network, layer: LayerConfig, x: Value) -> Value:
    """Dense behind Flatten: the last row of a convolution that sees the whole window."""
    units = layer.count("units")
    if not net.window:
        raise Refused(
            "it reads a whole window, whose length is open; save the model with a fixed number of rows"
        )
    shapes: dict[str, tuple[int, ...]] = {"kernel": (net.window * x.width, units)}
    if layer.flag("use_bias", True):
        shapes["bias"] = (units,)
    arrays = net.weights.load(layer, shapes)
    kernel = arrays["kernel"].reshape(net.window, x.width, units)
    bias = arrays.get("bias", np.zeros(units, np.float32))
    made = Conv1d(layer.name, kernel[::-1] if x.flipped else kernel, bias)
    y = net.put(made, (TIME, units), x, flat=False, flipped=False)
    y = net.put(Row(f"{layer.name}_last"), (units,), y, rows=False)
    return activated(net, layer.name, y, layer.options["activation"])


def _check_causal(layer: LayerConfig, x: Value, padded: int, reach: int) -> None:
    """Refused where a row would see later rows.  padded: zeros in front.  reach: rows seen before its own."""
    padding, size = layer.options["padding"], layer.count("kernel_size")
    if layer.count("strides") != 1:
        raise Refused(
            f"it has strides={layer.options['strides']}, expected 1; a device writes one row for each"
        )
    if padded and (padding != "valid" or padded != reach):
        raise Refused(
            f"it reads {padded} padded rows with padding='{padding}' and reaches {reach}; {CAUSAL_HINT}"
        )
    if reach and not padded and padding != "causal":
        raise Refused(
            f"it has padding='{padding}' and kernel_size={size}, expected padding='causal'; {CAUSAL_HINT}"
        )
    if reach and x.flipped:
        raise Refused("it reads rows in reverse (go_backwards); put the convolution before that layer")


def conv1d(net: Network, layer: LayerConfig, inputs: Sequence[Value]) -> Value:
    """Causal, or with a kernel of one row, or behind the zeros that make it causal."""
    x = net.sequence(layer, readable(replace(inputs[0], padded=0)))
    filters, size, dilation = (layer.count(name) for name in ("filters", "kernel_size", "dilation_rate"))
    groups = layer.count("groups") if "groups" in layer.options else 1
    _check_causal(layer, x, inputs[0].padded, (size - 1) * dilation)
    if x.width % groups or filters % groups:
        raise ValueError(f"groups of '{layer.name}' is {groups}")
    shapes: dict[str, tuple[int, ...]] = {"kernel": (size, x.width // groups, filters)}
    if layer.flag("use_bias", True):
        shapes["bias"] = (filters,)
    net.weights.claim(size * (x.width - x.width // groups) * filters)
    arrays = net.weights.load(layer, shapes)
    kernel = np.zeros((size, x.width, filters), np.float32)
    rows, columns = x.width // groups, filters // groups
    for group in range(groups):
        own = slice(group * columns, (group + 1) * columns)
        kernel[:, group * rows : (group + 1) * rows, own] = arrays["kernel"][:, :, own]
    bias = arrays.get("bias", np.zeros(filters, np.float32))
    y = net.put(Conv1d(layer.name, kernel, bias, dilation), (TIME, filters), x)
    return activated(net, layer.name, y, layer.options["activation"])


def zero_padding(net: Network, layer: LayerConfig, inputs: Sequence[Value]) -> Value:
    before, after = layer.options["padding"]
    if not isinstance(before, int) or before < 0 or after != 0:
        raise Refused(f"it adds rows at both ends ({before}, {after}), expected (n, 0); {CAUSAL_HINT}")
    return replace(net.sequence(layer, inputs[0]), padded=before)


def activation(net: Network, layer: LayerConfig, inputs: Sequence[Value]) -> Value:
    return activated(net, layer.name, inputs[0], layer.options["activation"])


def activation_layer(net: Network, layer: LayerConfig, inputs: Sequence[Value]) -> Value:
    """LeakyReLU, ReLU, ELU, ThresholdedReLU."""
    return stepped(net, layer.name, inputs[0], layer_steps(layer.kind, layer.options))


def softmax_layer(net: Network, layer: LayerConfig, inputs: Sequence[Value]) -> Value:
    return softmax(net, layer.name, inputs[0], layer.options["axis"])


def scaled(net: Network, name: str, x: Value, factor: Any, offset: Any) -> Value:
    return net.put(Affine(name, tiled(x, factor), tiled(x, offset)), x.axes, x)


def rescaling(net: Network, layer: LayerConfig, inputs: Sequence[Value]) -> Value:
    return scaled(net, layer.name, inputs[0], layer.options["scale"], layer.options["offset"])


def batch_norm(net: Network, layer: LayerConfig, inputs: Sequence[Value]) -> Value:
    (x,) = inputs
    if position(layer.options["axis"], len(x.axes)) != len(x.axes) - 1 or x.axes[-1] is TIME:
        raise Refused(f"it normalizes axis {layer.options['axis']} of {x}, expected the last, the features")
    count = x.axes[-1]
    names = ["gamma"] * layer.flag("scale", True) + ["beta"] * layer.flag("center", True)
    arrays = net.weights.load(layer, dict.fromkeys([*names, "moving_mean", "moving_variance"], (count,)))
    gamma, beta = arrays.get("gamma", np.ones(count)), arrays.get("beta", np.zeros(count))
    epsilon = float(layer.options["epsilon"])
    if (arrays["moving_variance"] + epsilon <= 0).any():
        raise Refused("its moving variance is not above 0; the training diverged")
    made = batch_normalization(
        layer.name, gamma, beta, arrays["moving_mean"], arrays["moving_variance"], epsilon
    )
    return scaled(net, layer.name, x, made.factor, made.offset)


def normalization(net: Network, layer: LayerConfig, inputs: Sequence[Value]) -> Value:
    (x,) = inputs
    axis = layer.options["axis"]
    axis = [] if axis is None else axis if isinstance(axis, list) else [axis]
    if len(axis) > 1 or (axis and position(axis[0], len(x.axes)) != len(x.axes) - 1) or x.axes[-1] is TIME:
        raise Refused(f"it normalizes the axes {axis} of {x}, expected the last, the features, or none")
    mean, variance = layer.options.get("mean"), layer.options.get("variance")
    if mean is None:
        shape = (x.axes[-1],) if axis else ()
        arrays = net.weights.load(layer, {"mean": shape, "variance": shape})
        mean, variance = arrays["mean"], arrays["variance"]
    center, spread = (np.asarray(value, dtype=np.float64) for value in (mean, variance))
    center, spread = (
        value.reshape(-1) if value.size > 1 else value.reshape(()) for value in (center, spread)
    )
    if not (spread >= 0).all():
        raise Refused("its variance is below 0 or not a number; adapt it again")
    deviation = np.maximum(np.sqrt(spread), NORMALIZATION_EPSILON)
    if layer.flag("invert"):
        return scaled(net, layer.name, x, deviation, center)
    return scaled(net, layer.name, x, 1 / deviation, -center / deviation)


def repeat_vector(net: Network, layer: LayerConfig, inputs: Sequence[Value]) -> Value:
    (x,) = inputs
    count = layer.count("n")
    if len(x.axes) != 1:
        raise ValueError(f"'{layer.name}' reads {x}")
    if x.axes[0] is TIME:  # the weights of the rows beside one another
        net.weights.claim(count)
        return linear(net, layer.name, x, np.ones((1, count)), np.zeros(count), (count, TIME))
    if count == 1 and not (net.window == 1 and x.rows and not net.inside):
        return replace(x, axes=(1, *x.axes))
    if x.rows and count == 1:
        return replace(x, axes=(TIME, *x.axes))
    if x.rows or count != net.window:
        raise Refused(
            f"it makes {count} rows, but the model reads {net.window or 'any number of'} rows; "
            "a network writes as many rows as it reads: train it with windows of that length"
        )
    return net.put(Repeat(layer.name), (TIME, *x.axes), x, rows=True)


def reshape(net: Network, layer: LayerConfig, inputs: Sequence[Value]) -> Value:
    return reshaped(net, inputs[0], layer.options["target_shape"])


def flatten(net: Network, layer: LayerConfig, inputs: Sequence[Value]) -> Value:
    return reshaped(net, inputs[0], [-1])


def permute(net: Network, layer: LayerConfig, inputs: Sequence[Value]) -> Value:
    return permuted(inputs[0], [place - 1 for place in layer.options["dims"]])


def merge_layer(net: Network, layer: LayerConfig, inputs: Sequence[Value]) -> Value:
    """Add, Average, Multiply, Subtract: Keras puts the missing axes of a shorter tensor in front."""
    rank = max(len(x.axes) for x in inputs)
    values = [replace(x, axes=(1,) * (rank - len(x.axes)) + x.axes) for x in inputs]
    return arithmetic(net, layer, values)


def arithmetic(net: Network, layer: LayerConfig, values: Sequence[Value]) -> Value:
    if layer.kind == "Subtract":
        minus = Activation(f"{layer.name}_minus", Function("affine", -1.0, 0.0))
        values = [values[0], net.put(minus, values[1].axes, values[1])]
    modes = {"Add": "sum", "Subtract": "sum", "Average": "mean", "Multiply": "mul"}
    return joined(net, layer.name, modes[layer.kind], values) if len(values) > 1 else values[0]


def concatenate(net: Network, layer: LayerConfig, inputs: Sequence[Value]) -> Value:
    ranks = {len(x.axes) for x in inputs}
    if len(ranks) > 1:
        raise ValueError(f"'{layer.name}' reads {' and '.join(map(str, inputs))}")
    place = position(layer.options.get("axis", -1), ranks.pop())
    others = {(*x.axes[:place], *x.axes[place + 1 :]) for x in inputs}
    sizes = [x.axes[place] for x in inputs]
    if len(others) > 1 or TIME in sizes or features(inputs[0].axes[:place]) > 1:
        raise Refused(
            f"it joins {' and '.join(map(str, inputs))} along axis {layer.options.get('axis', -1)}, "
            "expected the same rows and the last axis, the features"
        )
    net.together(inputs)
    rows = any(x.rows for x in inputs)
    values = [
        x if x.rows == rows else net.put(Repeat(f"{layer.name}_rows"), x.axes, x, rows=True) for x in inputs
    ]
    total = sum(size for size in sizes if size is not TIME)
    axes = (*inputs[0].axes[:place], total, *inputs[0].axes[place + 1 :])
    return net.put(Merge(layer.name, "concat"), axes, *values) if len(values) > 1 else values[0]
