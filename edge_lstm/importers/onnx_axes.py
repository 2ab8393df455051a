"""ONNX operators that move numbers and change none: they only change what the axes of a Flow mean.

Reads nodes and Flows; writes Flows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from edge_lstm.errors import ModelError, UnsupportedModel
from edge_lstm.importers.onnx_constants import (
    Inputs,
    axes_of,
    listed,
    placed,
    slices_of,
    split_sizes,
    target_shape,
)
from edge_lstm.importers.onnx_flow import (
    FEATURE,
    PART,
    TIME,
    ZEROS,
    Axis,
    Flow,
    Network,
    Part,
    axis_words,
)
from edge_lstm.importers.onnx_node import Array, Node
from edge_lstm.layer_types import Dense, Repeat

Value = Flow | Array


def constants(inputs: Sequence[Value | None]) -> Inputs:
    """The inputs with None in place of every Flow."""
    return [value if isinstance(value, np.ndarray) else None for value in inputs]


def flow_at(inputs: Sequence[Value | None], place: int = 0) -> Flow:
    """The input at ``place``, which must depend on the network's input."""
    value = inputs[place] if place < len(inputs) else None
    if not isinstance(value, Flow):
        raise UnsupportedModel(f"its input {place} is a constant, expected values of the network")
    return value


def same(net: Network, flow: Flow, axes: Sequence[Axis]) -> Flow:
    return net.flow(flow.parts, axes, flow.first, flow.extra, flow.pad)


def transpose(net: Network, node: Node, inputs: Sequence[Value | None]) -> Flow:
    flow = flow_at(inputs)
    order = node.numbers("perm") or list(reversed(range(len(flow.axes))))
    if sorted(order) != list(range(len(flow.axes))):
        raise ModelError(f"perm {order} does not order {len(flow.axes)} axes")
    return same(net, flow, [flow.axes[place] for place in order])


def squeeze(net: Network, node: Node, inputs: Sequence[Value | None]) -> Flow:
    flow = flow_at(inputs)
    sizes = net.sizes(flow)
    axes = axes_of(node, constants(inputs), 1)
    if axes is None:
        axes = [place for place, size in enumerate(sizes) if size == 1]
    gone = {placed(axis, len(sizes)) for axis in axes}
    kept = [place for place in gone if sizes[place] != 1]
    if kept:
        raise UnsupportedModel(f"it squeezes axis {kept[0]}, which runs over {axis_words(flow, kept[0])}")
    return same(net, flow, [axis for place, axis in enumerate(flow.axes) if place not in gone])


def unsqueeze(net: Network, node: Node, inputs: Sequence[Value | None]) -> Flow:
    flow = flow_at(inputs)
    axes = axes_of(node, constants(inputs), 1) or []
    rank = len(flow.axes) + len(axes)
    new = {placed(axis, rank) for axis in axes}
    if len(new) != len(axes):
        raise ModelError(f"axes {axes} name one twice")
    old = iter(flow.axes)
    return same(net, flow, [() if place in new else next(old) for place in range(rank)])


def reshaped(net: Network, flow: Flow, shape: Sequence[int]) -> Flow:
    """``flow`` in another shape of as many entries, where each new axis is one or several old ones."""
    atoms = [atom for axis in flow.axes for atom in axis]
    axes: list[Axis] = []
    for size in shape:
        axis: list[str] = []
        while math.prod(net.size(flow, atom) for atom in axis) < size and atoms:
            if atoms[0] == FEATURE and len(flow.parts) == size and PART not in flow.atoms and not axis:
                flow = _stacked(net, flow)
                atoms[0:1] = [PART, FEATURE]
            axis.append(atoms.pop(0))
        if math.prod(net.size(flow, atom) for atom in axis) != size:
            raise UnsupportedModel(
                f"it reshapes {net.sizes(flow)} to {tuple(shape)}, which splits an axis or mixes rows and "
                "features; apply layers to each row, or use the last row"
            )
        axes.append(tuple(axis))
    return same(net, flow, axes)


def _stacked(net: Network, flow: Flow) -> Flow:
    """Joined parts of one width as a stack of them."""
    if len({part.width for part in flow.parts}) > 1:
        raise UnsupportedModel("it splits features into parts that are not those that were joined")
    axes = [(PART, *axis) if axis == (FEATURE,) else axis for axis in flow.axes]
    return replace(flow, axes=tuple(axes))


def reshape(net: Network, node: Node, inputs: Sequence[Value | None]) -> Flow:
    flow = flow_at(inputs)
    wanted = axes_of(node, constants(inputs), 1, "shape")
    if wanted is None:
        raise UnsupportedModel("its shape is not a constant; export the model with fixed sizes")
    return reshaped(net, flow, target_shape(node, net.sizes(flow), wanted))


def flatten(net: Network, node: Node, inputs: Sequence[Value | None]) -> Flow:
    flow = flow_at(inputs)
    sizes = net.sizes(flow)
    axis = node.integer("axis", 1)
    axis = axis if axis == len(sizes) else placed(axis, len(sizes))
    return reshaped(net, flow, (math.prod(sizes[:axis]), math.prod(sizes[axis:])))


def widened(net: Network, flow: Flow, shape: Sequence[int]) -> Flow:
    """``flow`` repeated along axes of size 1: over the rows of the window, or one feature over several."""
    rank = max(len(shape), len(flow.axes))
    flow = same(net, flow, [*[()] * (rank - len(flow.axes)), *flow.axes])
    shape = [*[1] * (rank - len(shape)), *shape]
    for axis, (size, wanted) in enumerate(zip(net.sizes(flow), shape, strict=True)):
        if wanted in (1, size):
            continue
        if size != 1:
            raise ModelError(f"it widens axis {axis} from {size} to {wanted}")
        flow = _repeated(net, flow, axis, wanted)
    return flow


def _repeated(net: Network, flow: Flow, axis: int, count: int) -> Flow:
    axes = list(flow.axes)
    if not net.is_window(flow) and count == net.rows and PART not in flow.atoms:
        source = net.one(flow)
        made = net.once(("repeat", source), lambda: net.add(Repeat(net.label), source))
        axes[axis] = (TIME,)
        return net.flow([Part(made, flow.width)], axes)
    if flow.width == 1 and PART not in flow.atoms:
        return net.dense(flow, axis, np.ones((1, count)))
    raise UnsupportedModel(
        f"it repeats values {count} times along axis {axis}; only a vector can be repeated, for each of the "
        f"{net.rows} rows of the window"
    )


def expand(net: Network, node: Node, inputs: Sequence[Value | None]) -> Flow:
    wanted = axes_of(node, constants(inputs), 1, "shape")
    if wanted is None:
        raise UnsupportedModel("its shape is not a constant; export the model with fixed sizes")
    return widened(net, flow_at(inputs), wanted)


def tile(net: Network, node: Node, inputs: Sequence[Value | None]) -> Flow:
    flow = flow_at(inputs)
    repeats = axes_of(node, constants(inputs), 1, "repeats") or []
    sizes = net.sizes(flow)
    if len(repeats) != len(sizes):
        raise ModelError(f"{len(repeats)} repeats for {len(sizes)} axes")
    wrong = [axis for axis, (size, count) in enumerate(zip(sizes, repeats, strict=True)) if size * count < 1]
    whole = [axis for axis, count in enumerate(repeats) if count != 1 and sizes[axis] != 1]
    if wrong or whole:
        axis = (wrong or whole)[0]
        raise UnsupportedModel(f"it repeats {axis_words(flow, axis)} {repeats[axis]} times")
    return widened(net, flow, [size * count for size, count in zip(sizes, repeats, strict=True)])


def cut(net: Network, flow: Flow, axis: int, start: int, stop: int) -> Flow:
    """Entries ``start`` to ``stop`` of an axis."""
    size = net.sizes(flow)[axis]
    if (start, stop) == (0, size):
        return flow
    if stop <= start:
        raise ModelError(f"it cuts entries {start} to {stop} of {size}, which are none")
    found = flow.axes[axis]
    if found == (TIME,):
        if stop - start == 1 and flow.pad in ("", ZEROS):
            return net.row(flow, start)
        return net.flow(flow.parts, flow.axes, flow.first + start, flow.extra - (size - stop), flow.pad)
    if found == (PART,):
        return same(net, replace(flow, parts=flow.parts[start:stop]), flow.axes)
    if found == (FEATURE,):
        return _features(net, flow, axis, range(start, stop))
    raise UnsupportedModel(f"it cuts an axis that runs over {axis_words(flow, axis)}")


def _features(net: Network, flow: Flow, axis: int, wanted: Sequence[int]) -> Flow:
    """Some features: whole parts where they are, else a dense layer that picks them (exact)."""
    if PART not in flow.atoms:
        starts = np.cumsum([0, *(part.width for part in flow.parts)])
        parts, at = [], 0
        while at < len(wanted):
            place = int(np.searchsorted(starts, wanted[at], "right")) - 1
            width = flow.parts[place].width
            if list(wanted[at : at + width]) != list(range(starts[place], starts[place] + width)):
                break
            parts.append(flow.parts[place])
            at += width
        if at == len(wanted):
            return net.with_features(flow, axis, parts)
    kernel = np.broadcast_to(np.float32(0), (flow.width, len(wanted)))
    if kernel.size > net.left:
        raise UnsupportedModel("it picks more features than a small network has")
    kernel = kernel.copy()
    kernel[list(wanted), np.arange(len(wanted))] = 1
    return net.with_features(
        flow,
        axis,
        net.mapped(flow, Dense(net.label, kernel, np.zeros(len(wanted))), len(wanted)).parts,
    )


def slice_(net: Network, node: Node, inputs: Sequence[Value | None]) -> Flow:
    flow = flow_at(inputs)
    for axis, start, stop, step in slices_of(node, constants(inputs), net.sizes(flow)):
        if step != 1 and net.sizes(flow)[axis] != 1:
            raise UnsupportedModel(
                f"it takes every {step}th entry of {axis_words(flow, axis)}, expected each"
            )
        flow = cut(net, flow, axis, start, stop)
    return flow


def split(net: Network, node: Node, inputs: Sequence[Value | None]) -> list[Flow]:
    flow = flow_at(inputs)
    axis = placed(node.integer("axis"), len(flow.axes))
    sizes = split_sizes(node, constants(inputs), net.sizes(flow)[axis])
    ends = np.cumsum([0, *sizes]).tolist()
    return [cut(net, flow, axis, start, stop) for start, stop in pairwise(ends)]


def gather(net: Network, node: Node, inputs: Sequence[Value | None]) -> Flow:
    flow, indices = flow_at(inputs), constants(inputs)[1]
    if indices is None:
        raise UnsupportedModel("which entries it takes is not a constant")
    axis = placed(node.integer("axis"), len(flow.axes))
    size = net.sizes(flow)[axis]
    wanted = [int(index) + size * (index < 0) for index in listed(indices)]
    if indices.ndim > 1 or not wanted or not all(0 <= index < size for index in wanted):
        raise ModelError(f"it takes entries {wanted[:4]} of an axis with {size}")
    if wanted == list(range(wanted[0], wanted[0] + len(wanted))):
        flow = cut(net, flow, axis, wanted[0], wanted[-1] + 1)
    elif flow.axes[axis] == (PART,):
        flow = same(net, replace(flow, parts=tuple(flow.parts[index] for index in wanted)), flow.axes)
    elif flow.axes[axis] == (FEATURE,):
        flow = _features(net, flow, axis, wanted)
    else:
        raise UnsupportedModel(f"it takes entries {wanted[:4]} ... of {axis_words(flow, axis)}")
    axes = list(flow.axes)
    if indices.ndim == 0:
        del axes[axis]
    return same(net, flow, axes)


MOVERS: dict[str, Callable[[Network, Node, Sequence[Value | None]], Flow | list[Flow]]] = {
    "Transpose": transpose,
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
    "Reshape": reshape,
    "Flatten": flatten,
    "Expand": expand,
    "Tile": tile,
    "Slice": slice_,
    "Split": split,
    "Gather": gather,
}
