"""ONNX operators that relate rows to one another: Softmax, sums over an axis, products of two values.

Reads nodes and Flows; writes Flows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edge_lstm.errors import UnsupportedModel
from edge_lstm.importers.onnx_axes import Value, constants, flow_at
from edge_lstm.importers.onnx_constants import axes_of, placed
from edge_lstm.importers.onnx_flow import (
    BATCH,
    FEATURE,
    PART,
    TIME,
    Axis,
    Flow,
    Network,
    Part,
    axis_words,
)
from edge_lstm.importers.onnx_node import Node
from edge_lstm.layer_types import Attend, Dense, Merge, Softmax


def softmax(net: Network, node: Node, inputs: Sequence[Value | None]) -> Flow:
    """Over the features of a row, or over the rows of a window."""
    flow = flow_at(inputs)
    new = net.opset >= 13
    axis = placed(node.integer("axis", -1 if new else 1), len(flow.axes))
    over = flow.axes[axis] if new else tuple(atom for found in flow.axes[axis:] for atom in found)
    if over == (FEATURE,):
        return net.mapped(flow, Softmax(net.label))
    if over == (TIME,):
        net.aligned(flow)
        return net.mapped(flow, Softmax(net.label, "time"))
    words = axis_words(replace(flow, axes=(over,)), 0)
    raise UnsupportedModel(f"it runs over {words}, expected the features of a row or the rows of a window")


def reduction(net: Network, node: Node, inputs: Sequence[Value | None]) -> Flow:
    """ReduceSum and ReduceMean over features, rows or stacked values."""
    flow = flow_at(inputs)
    rank, mean = len(flow.axes), node.op != "ReduceSum"
    axes = axes_of(node, constants(inputs), 1)
    if node.op == "GlobalAveragePool":
        axes = list(range(2, rank))
    elif not axes:
        axes = [] if node.integer("noop_with_empty_axes") else list(range(rank))
    gone = {placed(axis, rank) for axis in axes}
    for axis in sorted(gone):
        flow = _reduced(net, flow, axis, mean)
    if node.integer("keepdims", 1) or node.op == "GlobalAveragePool":
        return flow
    kept = [axis for place, axis in enumerate(flow.axes) if place not in gone]
    return net.flow(flow.parts, kept, flow.first, flow.extra, flow.pad)


def _reduced(net: Network, flow: Flow, axis: int, mean: bool) -> Flow:
    over = flow.axes[axis]
    axes = list(flow.axes)
    axes[axis] = ()
    if over == ():
        return flow
    if over == (FEATURE,):
        factor = 1 / flow.width if mean else 1.0
        return net.dense(flow, axis, np.full((flow.width, 1), factor))
    if over == (TIME,):
        net.aligned(flow)
        sources = [net.layer_of(part) for part in flow.parts] if PART in flow.atoms else [net.one(flow)]
        parts = [
            Part(_over_rows(net, source, flow.width, 1 / net.rows if mean else 1.0), flow.width)
            for source in sources
        ]
        return net.flow(parts, axes)
    if over == (PART,):
        sources = [net.layer_of(part) for part in flow.parts]
        merged = net.add(Merge(net.label, "mean" if mean else "sum"), *sources)
        return net.flow([Part(merged, flow.width)], axes, flow.first, flow.extra)
    raise UnsupportedModel(f"it sums over {axis_words(flow, axis)}, expected features or rows")


def _over_rows(net: Network, source: int, width: int, factor: float) -> int:
    """The rows of ``source`` times ``factor`` summed; weights times values are attention."""
    layer = net.draft.layers[source] if source >= 0 else None
    if isinstance(layer, Merge) and layer.mode == "mul" and factor == 1.0:
        pair = net.products.get(source)
        if pair is not None:
            return net.add(Attend(net.label), *pair)
    ones = Dense(f"{net.label}_weights", np.zeros((width, 1)), np.full(1, factor))
    return net.add(Attend(net.label), net.add(ones, source), source)


def product(net: Network, a: Flow, b: Flow) -> Flow:
    """MatMul of two values: scores of rows against a vector, or rows summed with weights."""
    if min(len(a.axes), len(b.axes)) < 2:
        raise UnsupportedModel("it multiplies a value without columns; use unsqueeze and bmm for attention")
    rank = max(len(a.axes), len(b.axes))
    a, b = (replace(flow, axes=((),) * (rank - len(flow.axes)) + flow.axes) for flow in (a, b))
    rows, columns = a.axes[-2], b.axes[-1]
    shared = {a.axes[-1], b.axes[-2]}
    beside = tuple(x or y for x, y in zip(a.axes[:-2], b.axes[:-2], strict=True))
    odd = [x for pair in zip(a.axes[:-2], b.axes[:-2], strict=True) for x in pair if x not in ((), (BATCH,))]
    crossed = {rows, columns} == {(TIME,)} or BATCH in rows + columns
    if len(shared) != 1 or odd or crossed or PART in a.atoms + b.atoms:
        raise UnsupportedModel(
            f"it multiplies ({axis_words(a, -2)}, {axis_words(a, -1)}) by ({axis_words(b, -2)}, "
            f"{axis_words(b, -1)}); carried are rows times one vector, and weights of rows times rows: "
            "self-attention of every row to every row is not"
        )
    a, b = net.aligned(a), net.aligned(b)
    if shared == {(TIME,)}:
        return _weighted(net, a, b, (*beside, rows, columns))
    if shared in ({(FEATURE,)}, {()}) and FEATURE not in rows + columns:
        scores = _scores(net, a, b)
        return net.flow([Part(scores, 1)], (*beside, rows, columns))
    raise UnsupportedModel(
        f"it multiplies {axis_words(a, -1)} of one value by {axis_words(b, -2)} of another one that both "
        "depend on the input; only attention with one query is carried"
    )


def _scores(net: Network, a: Flow, b: Flow) -> int:
    """The dot product of each row of one value with that row of the other, or with its only one."""
    width = a.width
    joined = net.add(Merge(f"{net.label}_join", "mul"), net.one(a), net.one(b))
    return net.add(Dense(net.label, np.ones((width, 1)), np.zeros(1)), joined)


def _weighted(net: Network, a: Flow, b: Flow, axes: Sequence[Axis]) -> Flow:
    """Rows summed with weights: (1, rows) x (rows, features), or its transpose."""
    weights, values = (a, b) if a.axes[-2] == () and a.width == 1 else (b, a)
    if weights.width != 1:
        raise UnsupportedModel(
            "it sums rows with more than one weight each; only attention with one query is carried"
        )
    index = net.add(Attend(net.label), net.one(weights), net.one(values))
    return net.flow([Part(index, values.width)], axes)
