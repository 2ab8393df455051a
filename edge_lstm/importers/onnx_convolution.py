"""ONNX operators over rows that lie beside one another, Conv and Pad; and BatchNormalization.

Reads nodes, constants and Flows; writes Flows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edge_lstm.errors import ModelError, UnsupportedModel
from edge_lstm.importers.draft import batch_normalization
from edge_lstm.importers.onnx_axes import Value, constants, cut, flow_at
from edge_lstm.importers.onnx_constants import axes_of, placed
from edge_lstm.importers.onnx_flow import (
    BATCH,
    FEATURE,
    TIME,
    ZEROS,
    Axis,
    Flow,
    Network,
    Part,
    WrongAxes,
    axis_words,
    shifted_words,
)
from edge_lstm.importers.onnx_node import Array, Node
from edge_lstm.layer_types import Conv1d


def pad(net: Network, node: Node, inputs: Sequence[Value | None]) -> Flow:
    """Zeros in front of the window or behind it; a convolution over all of them is a causal one."""
    flow, rank = flow_at(inputs), len(flow_at(inputs).axes)
    amounts = axes_of(node, constants(inputs), 1, "pads")
    axes = axes_of(node, constants(inputs), 3)
    axes = list(range(rank)) if axes is None else [placed(axis, rank) for axis in axes]
    if amounts is None or len(amounts) != 2 * len(axes):
        raise UnsupportedModel("its pads are no constant with two numbers an axis")
    value = constants(inputs)[2] if len(inputs) > 2 else None
    filled = node.real("value", 0.0) if value is None else float(np.ravel(value)[0])
    mode = node.text("mode", "constant")
    if mode != "constant" or filled:
        raise UnsupportedModel(f"it pads with {filled:g} in mode '{mode}', expected zeros")
    for place, axis in enumerate(axes):
        before, after = amounts[place], amounts[place + len(axes)]
        if before or after:
            flow = _padded(net, flow, axis, before, after)
    return flow


def _padded(net: Network, flow: Flow, axis: int, before: int, after: int) -> Flow:
    size = net.sizes(flow)[axis]
    flow = cut(net, flow, axis, max(0, -before), size - max(0, -after))
    before, after = max(0, before), max(0, after)
    if not before and not after:
        return flow
    if flow.axes[axis] != (TIME,) and not (net.rows == 1 and flow.axes[axis] == ()):
        raise UnsupportedModel(f"it pads an axis that runs over {axis_words(flow, axis)}, expected rows")
    if not (flow.padded and flow.pad == ZEROS):
        net.aligned(flow)
    axes = list(flow.axes)
    axes[axis] = (TIME,)
    return replace(flow, axes=tuple(axes), first=flow.first - before, extra=flow.extra + after, pad=ZEROS)


def conv(net: Network, node: Node, inputs: Sequence[Value | None]) -> Flow:
    """A convolution over time; its rows are those of a causal one, shifted by its padding."""
    flow = flow_at(inputs)
    kernel, bias = constants(inputs)[1], constants(inputs)[2] if len(inputs) > 2 else None
    if kernel is None or kernel.ndim != len(flow.axes) or kernel.ndim < 3:
        raise UnsupportedModel("its kernel is no constant with as many axes as its input")
    time = _time_axis(net, flow, kernel)
    flow = net.as_features(flow, 1)
    size, dilation, before, after = _along_time(node, kernel, time)
    if flow.axes[0] not in ((), (BATCH,)):
        raise WrongAxes(f"it takes axis 0 as streams, but this is {axis_words(flow, 0)}")
    if (before or after) and (flow.first or flow.extra) and not (flow.padded and flow.pad == ZEROS):
        raise UnsupportedModel(f"it pads once more; {shifted_words(flow)}")
    whole = _kernel(net, kernel.reshape(*kernel.shape[:2], size), flow.width, node.integer("group", 1))
    outputs = whole.shape[2]
    layer = Conv1d(net.label, whole, np.zeros(outputs) if bias is None else bias, dilation)
    index = net.add(layer, net.one(replace(flow, first=0, extra=0, pad="")))
    reach = (size - 1) * dilation
    if flow.padded and flow.pad != ZEROS:
        _feed(net, flow.pad, index)
    axes: list[Axis] = [()] * len(flow.axes)
    axes[0], axes[1], axes[time] = flow.axes[0], (FEATURE,), (TIME,)
    first = flow.first - before + reach
    extra = flow.extra + after
    if net.rows - first + extra < 1:
        raise ModelError(f"its kernel covers {reach + 1} rows, the window has fewer")
    return net.flow([Part(index, outputs)], axes, first, extra)


def _feed(net: Network, name: str, index: int) -> None:
    """Note that a convolution takes the rows before the first one from a state input."""
    if name in net.initial:
        raise UnsupportedModel(f"the rows of '{name}' after reset are not 0; a convolution starts with zeros")
    net.fed[(name, 0)] = (index, "rows")


def _time_axis(net: Network, flow: Flow, kernel: Array) -> int:
    """The axis of the rows; the other axes that a kernel of an image has must be of size 1."""
    found = [axis for axis in range(2, len(flow.axes)) if TIME in flow.axes[axis]]
    if not found and net.rows == 1:
        found = [max(range(2, len(flow.axes)), key=lambda axis: kernel.shape[axis])]
    others = [
        axis for axis in range(2, len(flow.axes))
        if axis not in found and (flow.axes[axis] or kernel.shape[axis] != 1)
    ]  # fmt: skip
    if len(found) != 1 or flow.axes[found[0]] not in ((TIME,), ()) or others:
        words = " and ".join(axis_words(flow, axis) for axis in range(2, len(flow.axes)))
        raise WrongAxes(f"it runs over {words}, expected the rows of a window (axes: stream, feature, row)")
    return found[0]


def _along_time(node: Node, kernel: Array, time: int) -> tuple[int, int, int, int]:
    """Size, dilation and zeros before and after of the time axis.  Raises UnsupportedModel."""
    spatial, place, size = kernel.ndim - 2, time - 2, int(kernel.shape[time])
    strides = node.numbers("strides") or [1] * spatial
    dilations = node.numbers("dilations") or [1] * spatial
    pads = node.numbers("pads") or [0] * (2 * spatial)
    others = [pad for axis, pad in enumerate(pads) if axis % spatial != place]
    if any(stride != 1 for stride in strides) or any(others):
        raise UnsupportedModel(
            f"strides {strides} and pads {pads}, expected stride 1 and zeros before rows only"
        )
    dilation, before, after = int(dilations[place]), int(pads[place]), int(pads[place + spatial])
    automatic = node.text("auto_pad", "NOTSET")
    if dilation < 1 or before < 0 or after < 0 or list(node.numbers("kernel_shape") or [size])[-1:] == [0]:
        raise ModelError(f"dilations {dilations} and pads {pads}, expected positive numbers")
    if automatic in ("SAME_UPPER", "SAME_LOWER"):
        reach = (size - 1) * dilation
        before = reach // 2 if automatic == "SAME_UPPER" else reach - reach // 2
        after = reach - before
    return size, dilation, before, after


def _kernel(net: Network, kernel: Array, features: int, groups: int) -> Array:
    """ONNX's (outputs, features / groups, size) as our (size, features, outputs), 0 between groups."""
    outputs, inner, size = kernel.shape
    if groups < 1 or outputs % groups or inner * groups != features:
        raise ModelError(f"its kernel is {kernel.shape} in {groups} groups, expected {features} features")
    if outputs * features * size > net.left:
        raise UnsupportedModel("its groups need more weights than a small network has")
    whole = np.zeros((size, features, outputs))
    columns = outputs // groups
    for group in range(groups):
        own = slice(group * columns, (group + 1) * columns)
        whole[:, group * inner : (group + 1) * inner, own] = kernel[own].transpose(2, 1, 0)
    return whole


def normalization(net: Network, node: Node, inputs: Sequence[Value | None]) -> Flow:
    """A trained BatchNormalization: a factor and an offset for each feature."""
    flow = net.as_features(flow_at(inputs), 1)
    if not node.integer("spatial", 1):
        raise UnsupportedModel("its statistics differ from row to row (spatial 0)")
    if node.integer("training_mode") or len([name for name in node.outputs if name]) > 1:
        raise UnsupportedModel("it is in training mode; export the model after model.eval()")
    arrays = constants(inputs)[1:5]
    if any(array is None or array.shape != (flow.width,) for array in arrays) or len(arrays) != 4:
        raise ModelError(f"its statistics are not four constants of {flow.width} features")
    gamma, beta, mean, variance = (np.asarray(array, np.float64) for array in arrays)
    layer = batch_normalization(net.label, gamma, beta, mean, variance, node.real("epsilon", 1e-5))
    mapped = net.mapped(flow, layer)
    return net.with_features(replace(mapped, axes=flow.axes), 1, mapped.parts)
