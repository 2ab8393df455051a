"""Sums over time: attention layers of Keras, dot products and pooling as weights that sum the rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from edge_lstm.importers.draft import attention
from edge_lstm.importers.keras_config import LayerConfig
from edge_lstm.importers.keras_values import TIME, Axes, Network, Refused, Value, features, position
from edge_lstm.layer_types import Activation, Attend, Dense, Function, Merge, Softmax

QUERY_HINT = (
    "expected one query for each window, such as the last row of the LSTM (return_sequences=False, or its "
    "hidden state) behind a Reshape((1, units)): attention of every row to every row is not implemented"
)


def summed(net: Network, name: str, x: Value, places: Iterable[int], keep: bool, mean: bool) -> Value:
    """The sum or the mean over axes.  keep: the axes stay, of size 1."""
    for place in sorted(places, reverse=True):
        if x.axes[place] is TIME:
            x = _over_time(net, name, x, place, mean)
        else:
            x = _over_features(net, name, x, place, mean)
        if not keep:
            x = replace(x, axes=(*x.axes[:place], *x.axes[place + 1 :]))
    return x


def _over_time(net: Network, name: str, x: Value, place: int, mean: bool) -> Value:
    if mean and not net.window:
        raise Refused("it is a mean over all rows, whose number is open; save the model with a fixed number")
    axes = (*x.axes[:place], 1, *x.axes[place + 1 :])
    weighted = None if mean else net.weighted_rows(x)
    if weighted is not None:  # the hand-written form of attention
        return net.put(Attend(name), axes, *weighted, rows=False, flipped=False)
    weight = 1 / net.window if mean else 1.0
    ones = net.put(Dense(f"{name}_weights", np.zeros((x.width, 1)), np.full(1, weight)), (TIME, 1), x)
    return net.put(Attend(name), axes, ones, x, rows=False, flipped=False)


def _over_features(net: Network, name: str, x: Value, place: int, mean: bool) -> Value:
    count = x.axes[place] or 1
    before, after = features(x.axes[:place]), features(x.axes[place + 1 :])
    net.weights.claim(x.width * before * after)
    kernel = np.kron(np.eye(before), np.kron(np.full((count, 1), 1 / count if mean else 1.0), np.eye(after)))
    axes = (*x.axes[:place], 1, *x.axes[place + 1 :])
    return net.put(Dense(f"{name}_sum", kernel, np.zeros(before * after)), axes, x)


def contracted(net: Network, name: str, a: Value, place_a: int, b: Value, place_b: int) -> Value:
    """The products of two tensors summed over one axis of each; the other axes one after another."""
    axes: Axes = (*a.axes[:place_a], *a.axes[place_a + 1 :], *b.axes[:place_b], *b.axes[place_b + 1 :])
    one, two = a.axes[place_a], b.axes[place_b]
    if one is TIME and two is TIME:
        net.together((a, b))
        weights, values = (a, b) if a.width == 1 else (b, a)
        if weights.width != 1:
            raise Refused(f"it multiplies {a} and {b} over time, expected one weight for each row")
        return net.put(Attend(name), axes, weights, values, rows=False, flipped=False)
    if one is TIME or two is TIME or one != two:
        raise Refused(f"it sums the products of {a} and {b} over unlike axes")
    if TIME in a.axes and TIME in b.axes:
        raise Refused(f"it multiplies every row of {a} with every row of {b}; {QUERY_HINT}")
    if a.width != one or b.width != one:
        raise Refused(f"it sums the products of {a} and {b} over a part of the features, expected over all")
    product = net.put(Merge(f"{name}_product", "mul"), a.axes if TIME in a.axes else b.axes, a, b)
    return net.put(Dense(name, np.ones((one, 1)), np.zeros(1)), axes, product)


def dot(net: Network, layer: LayerConfig, inputs: Sequence[Value]) -> Value:
    a, b = inputs
    axes = layer.options["axes"]
    if layer.flag("normalize"):
        raise Refused("it has normalize=True (cosine similarity), expected a plain dot product")
    axes = axes if isinstance(axes, list) else [axes, axes]
    places = position(axes[0], len(a.axes)), position(axes[1], len(b.axes))
    return contracted(net, layer.name, a, places[0], b, places[1])


def global_average(net: Network, layer: LayerConfig, inputs: Sequence[Value]) -> Value:
    x = net.sequence(layer, inputs[0])
    return summed(net, layer.name, x, [0], layer.flag("keepdims"), mean=True)


def attend(
    net: Network, layer: LayerConfig, inputs: Sequence[Value], kwargs: Mapping[str, Any]
) -> tuple[Value, ...]:
    """Attention and AdditiveAttention with one query for a window: the context, and the rows' weights."""
    query, values, *more = inputs
    keys = more[0] if more else values
    if kwargs.get("use_causal_mask"):
        raise Refused("it is called with use_causal_mask=True; one query sees the whole window")
    for value in (values, keys):
        if len(value.axes) != 2 or value.axes[0] is not TIME:
            raise Refused(f"its values are {value}, expected (timesteps, features)")
    if query.axes != (1, keys.width) or query.rows:
        raise Refused(f"its query is {query}, {QUERY_HINT}")
    net.together((keys, values))
    additive = layer.kind == "AdditiveAttention"
    scale: Any = np.ones(keys.width)
    if layer.flag("use_scale"):
        loaded = net.weights.load(layer, {"scale": (keys.width,) if additive else ()})["scale"]
        scale = scale * loaded
    mode = "additive" if additive else layer.options.get("score_mode", "dot")
    if mode == "concat":
        index = _concat_score(net, layer, query, keys, values, float(scale[0]))
    elif mode in ("additive", "dot"):
        index = attention(
            net.draft,
            layer.name,
            query.index,
            keys.index,
            values.index,
            additive=additive,
            scale=scale.tolist(),
        )
    else:
        raise ValueError(f"score_mode of '{layer.name}' is {mode!r}")
    context = net.known(index, Value(index, (1, values.width), rows=False))
    weights = net.known(index - 1, Value(index - 1, (1, TIME), rows=True, flipped=keys.flipped))
    return (context, weights) if kwargs.get("return_attention_scores") else (context,)


def _concat_score(
    net: Network, layer: LayerConfig, query: Value, keys: Value, values: Value, scale: float
) -> int:
    """weight * sum(tanh(scale * (query + key)))."""
    weight = net.weights.load(layer, {"concat_score_weight": ()})["concat_score_weight"]
    name = layer.name
    both = net.draft.add(Merge(f"{name}_join", "sum"), query.index, keys.index)
    bent = net.draft.add(Activation(f"{name}_tanh", Function("scaled_tanh", 1.0, scale)), both)
    scores = net.draft.add(Dense(f"{name}_scores", np.full((keys.width, 1), weight), np.zeros(1)), bent)
    found = net.draft.add(Softmax(f"{name}_weights", "time"), scores)
    return net.draft.add(Attend(name), found, values.index)
