"""ONNX's Concat: features joined, values stacked, rows put in front of a window, unrolled rows put together.

Reads nodes and Flows; writes Flows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

import numpy as np

from edge_lstm.errors import UnsupportedModel
from edge_lstm.graph import INPUT
from edge_lstm.importers.draft import Affine
from edge_lstm.importers.onnx_axes import Value, flow_at, same
from edge_lstm.importers.onnx_constants import placed
from edge_lstm.importers.onnx_flow import FEATURE, PART, TIME, ZEROS, Flow, Network, Part, axis_words
from edge_lstm.importers.onnx_node import Node
from edge_lstm.layer_types import Activation, Dense, Layer, Row

MAX_DEPTH = 32  # of what is done to each row alone
MAX_COMPARISONS = 10_000  # of layers, to find those that are done to each row


def concat(net: Network, node: Node, inputs: Sequence[Value | None]) -> Flow:
    rank = max(len(value.axes) for value in inputs if isinstance(value, Flow))
    axis = placed(node.integer("axis"), rank)
    if len(inputs) == 2 and not isinstance(inputs[0], Flow):
        return _after_zeros(net, inputs[0], flow_at(inputs, 1), axis)
    flows = [flow_at(inputs, place) for place in range(len(inputs))]
    if len(flows) == 2 and flows[0].pad and flows[0].parts[0].state == flows[0].pad:
        return _after_state(net, flows[0], flows[1], axis)
    beside = {(flow.axes[:axis], flow.axes[axis + 1 :], flow.first, flow.extra, flow.pad) for flow in flows}
    if len(beside) == 1:
        whole = _rows_again(net, flows, axis) or _joined(net, flows, axis) or _stack(net, flows, axis)
        if whole is not None:
            return whole
    words = " and ".join(sorted({axis_words(flow, axis) for flow in flows}))
    raise UnsupportedModel(f"it joins {words}; values can be joined as features, and for the same rows")


def _joined(net: Network, flows: Sequence[Flow], axis: int) -> Flow | None:
    """Values joined as features, None if the axis is another one."""
    for flow in flows:
        single = flow.axes[axis] == () and FEATURE not in flow.atoms and flow.width == 1
        if PART in flow.atoms or not (single or flow.axes[axis] == (FEATURE,)):
            return None
    return net.with_features(flows[0], axis, [part for flow in flows for part in flow.parts])


def _stack(net: Network, flows: Sequence[Flow], axis: int) -> Flow | None:
    """Values of one width stacked along a new axis or along that of earlier stacks, None if they are not."""
    parts: list[Part] = []
    for flow in flows:
        if flow.axes[axis] not in ((), (PART,)) or flow.width != flows[0].width:
            return None
        if flow.axes[axis] == (PART,) or len(flow.parts) == 1:
            parts += flow.parts
        elif PART in flow.atoms:
            return None
        else:
            parts.append(Part(net.one(flow), flow.width))
    axes = list(flows[0].axes)
    axes[axis] = (PART,)
    return same(net, replace(flows[0], parts=tuple(parts)), axes)


def _rows_again(net: Network, flows: Sequence[Flow], axis: int) -> Flow | None:
    """The window whose rows are ``flows``, None if they are not."""
    if len(flows) != net.rows or net.rows == 1 or any(len(flow.parts) > 1 for flow in flows):
        return None
    whole = restacked(net, [flow.parts[0] for flow in flows])
    if whole is None:
        return None
    axes = list(flows[0].axes)
    axes[axis] = (TIME,)
    return net.flow([whole], axes)


def _after_zeros(net: Network, zeros: Value | None, flow: Flow, axis: int) -> Flow:
    """Rows of zeros in front of the window, as a convolution needs them."""
    if not isinstance(zeros, np.ndarray) or zeros.any() or flow.axes[axis] != (TIME,):
        raise UnsupportedModel(
            "it joins a constant to values; only rows of zeros in front of the first row may be"
        )
    net.aligned(flow)
    return replace(flow, first=-zeros.shape[axis], pad=ZEROS)


def _after_state(net: Network, state: Flow, flow: Flow, axis: int) -> Flow:
    """The rows that a streaming convolution saw last, in front of new ones."""
    net.aligned(flow)
    axes = list(flow.axes)
    axes[axis] = (TIME,)
    return replace(flow, axes=tuple(axes), first=-net.sizes(state)[axis], pad=state.parts[0].state)


def restacked(net: Network, parts: Sequence[Part], depth: int = 0) -> Part | None:
    """The window whose rows ``parts`` are, in order; None if they are not.

    Exporters unroll layers that work on each row: row 0, its layer, row 1, an equal layer, ...
    """
    first = parts[0]
    net.comparisons += len(parts)
    if depth > MAX_DEPTH or net.comparisons > MAX_COMPARISONS or any(part.state for part in parts):
        return None
    if all(part.layer == first.layer and part.row == row for row, part in enumerate(parts)):
        return first._replace(row=None)
    if any(part.row is not None or part.layer < 0 for part in parts):
        return None
    layers = [net.draft.layers[part.layer] for part in parts]
    if not isinstance(layers[0], (Dense, Affine, Activation)) or not equal(layers):
        return None
    sources = [_part_of(net, net.draft.sources[part.layer][0]) for part in parts]
    whole = restacked(net, sources, depth + 1)
    if whole is None:
        return None
    source, layer = net.layer_of(whole), layers[0]
    made = net.once(("restacked", first.layer, source), lambda: net.add(layer, source))
    return Part(made, first.width)


def _part_of(net: Network, source: int) -> Part:
    layer = net.draft.layers[source] if source != INPUT else None
    if isinstance(layer, Row):
        return Part(net.draft.sources[source][0], 0, layer.index % net.rows)
    return Part(source, 0)


def equal(layers: Sequence[Layer | Affine]) -> bool:
    """Whether ``layers`` differ in nothing but their names."""
    first = layers[0]
    names = [entry.name for entry in fields(first) if entry.name != "name"]
    return all(
        type(layer) is type(first)
        and all(np.array_equal(getattr(layer, name), getattr(first, name)) for name in names)
        for layer in layers
    )
