"""What every .onnx of this toolkit is around its nodes: inputs, outputs, a guide in words, the sensor stream.

Reads a network and a Body; writes the bytes of the file, the same for the same network.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from edge_lstm import __version__
from edge_lstm.emit.onnx_body import Body, State
from edge_lstm.errors import ModelError
from edge_lstm.graph import Channel, Graph
from edge_lstm.optional import require
from edge_lstm.qgraph import QGraph

FORMAT = 1  # of the description
DESCRIPTION, STATES = "edge_lstm", "edge_lstm_states"  # metadata_props
INPUT, OUTPUT, STEPS = "x", "y", "steps"
IR_VERSIONS = {13: 7, 17: 8, 21: 10}  # the lowest that carries an opset
Shape = Sequence[int | str]


def tensors(kept: Sequence[State]) -> tuple[list[str], list[str]]:
    """The names of the inputs and of the outputs of a network that keeps ``kept``."""
    return [INPUT, *(f"{state.name}_in" for state in kept)], [
        OUTPUT,
        *(f"{state.name}_out" for state in kept),
    ]


def file_bytes(
    network: Graph | QGraph, body: Body, kept: Sequence[State], rows: int | str, opset: int, **more: Any
) -> bytes:
    """The file whose nodes and constants ``body`` holds.

    kept: the states; x and y are real: (1, steps, features) and (1, ``rows``, outputs).  more: plain values
    that the description holds beside name, stream and ``made``.  Raises ModelError where it is no plain JSON.
    """
    helper = require("onnx.helper", "onnx")
    float32 = require("onnx", "onnx").TensorProto.FLOAT
    whole: Shape = [1, network.window or STEPS, network.features]
    result: Shape = [1, rows, network.outputs]
    shapes: list[Shape] = [state.shape for state in kept]
    inputs, outputs = (
        [
            helper.make_tensor_value_info(name, float32, shape)
            for name, shape in zip(names, [first, *shapes], strict=True)
        ]
        for names, first in zip(tensors(kept), (whole, result), strict=True)
    )
    model = helper.make_model(
        helper.make_graph(body.nodes, network.name, inputs, outputs, body.constants),
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=IR_VERSIONS[opset],
        producer_name="edge_lstm",
        producer_version=__version__,
        doc_string=_guide(network, kept, rows),
    )
    described = {DESCRIPTION: _description(network, more)}
    if not network.window:
        described[STATES] = _json(network, {state.name: _initial(state) for state in kept})
    helper.set_model_props(model, described)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def name_problems(network: Graph | QGraph) -> list[str]:
    """Names that no UTF-8 text can hold: a file may have brought half of a surrogate pair."""
    named = [
        ("its own name", network.name),
        *(("the name of a layer", layer.name) for layer in network.layers),
    ]
    return [
        f"{what}, {name!r}, is no text that UTF-8 can hold; rename it"
        for what, name in named
        if any("\ud800" <= letter <= "\udfff" for letter in name)
    ]


def _guide(network: Graph | QGraph, kept: Sequence[State], rows: int | str) -> str:
    """How an application runs the file, in words."""
    if network.window:
        return (
            f"{INPUT} (1, {network.window}, {network.features}): a window of scaled sensor rows. "
            f"{OUTPUT} (1, {rows}, {network.outputs}). Nothing is kept between two windows."
        )
    meaning = "one row for each" if rows == STEPS else "of the last row"
    lines = [
        f"{INPUT} (1, steps, {network.features}): scaled sensor rows, one or more. {OUTPUT} (1, {rows}, "
        f"{network.outputs}): {meaning}.",
        "Feed every *_out back as the *_in of the next run. After reset:",
    ]
    for state in kept:
        zero = not state.initial.any()
        start = "all 0" if zero else f"the values of metadata '{STATES}'"
        lines.append(f"{state.name}_in {state.shape}: {start}.")
    return "\n".join(lines if len(lines) > 2 else [lines[0], "It keeps no state."])


def _initial(state: State) -> Any:
    """{"shape", "initial"}: the values after reset in C order, or the 0 that all of them are."""
    values = state.initial.ravel().tolist() if state.initial.any() else 0
    return {"shape": list(state.shape), "initial": values}


def _description(network: Graph | QGraph, more: dict[str, Any]) -> str:
    channels = [_channel(channel) for channel in network.stream.channels]
    stream = {"period_s": float(network.stream.period_s), "channels": channels}
    content = {"format": FORMAT, "name": network.name, "stream": stream, "made": dict(network.made), **more}
    return _json(network, content)


def _channel(channel: Channel) -> dict[str, Any]:
    return {
        "name": channel.name,
        "unit": channel.unit,
        "center": float(channel.center),
        "scale": float(channel.scale),
        **({"context": True} if channel.context else {}),
    }


def _json(network: Graph | QGraph, content: Any) -> str:
    """Canonical JSON: sorted keys, no spaces, ASCII."""
    try:
        return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ModelError(
            f"model '{network.name}': its description is not plain JSON ({error}); put only text, finite "
            "numbers, lists and dictionaries in it"
        ) from error
