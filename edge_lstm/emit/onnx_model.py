"""Float ONNX of a Graph; a streaming network's states are inputs and outputs.

Reads a Graph; writes the bytes of an .onnx file, the same for the same network.
"""

from __future__ import annotations

from edge_lstm.emit.onnx_body import Body, State, refusals, states_of
from edge_lstm.emit.onnx_file import INPUT, OUTPUT, STEPS, file_bytes, name_problems, tensors
from edge_lstm.emit.onnx_layers import write_layer
from edge_lstm.errors import ModelError, UnsupportedModel, raise_all
from edge_lstm.graph import Graph

OPSET = 17  # what ONNX Runtime 1.16 and every later one loads


def states(graph: Graph) -> list[State]:
    """What ``graph`` keeps from one run to the next, in the order of its tensors; [] for a windowed network.

    Tensors ``NAME_in`` and ``NAME_out``: ``LAYER_hidden`` and ``LAYER_cell`` are (1, 1, width);
    ``LAYER_rows``, the last rows that a convolution saw, is (1, rows, features), as is x.
    """
    return [] if graph.window else [state for layer in graph.layers for state in states_of(layer)]


def emit_onnx(graph: Graph) -> bytes:
    """Write ``graph`` as ONNX: input x (1, steps, features), output y (1, rows, outputs), float32.

    A streaming network takes any number of steps, and gives for every state of ``states`` an input and an
    output: feed back what came out.  A windowed network takes its window and keeps nothing.  The metadata
    hold the sensor stream (``edge_lstm``, JSON) and the states after reset (``edge_lstm_states``, JSON).
    Raises UnsupportedModel with every reason why ONNX's operators cannot carry a layer, ModelError where a
    name or the description cannot be written, MissingTool without the package onnx.
    """
    where = f"model '{graph.name}'"
    raise_all(ModelError, where, name_problems(graph))
    found = [reason for layer in graph.layers for reason in refusals(layer)]
    found = [f"{reason}; export it as .tflite or as C instead" for reason in found]
    raise_all(UnsupportedModel, f"{where} as ONNX", found)
    kept = states(graph)
    inputs, outputs = tensors(kept)
    body = Body([*inputs, *outputs])
    rows = body.add("Transpose", [INPUT], f"{INPUT}/rows", perm=[1, 0, 2])
    written: list[str] = []
    for layer, reads in zip(graph.layers, graph.sources, strict=True):
        values = [written[source] if source >= 0 else rows for source in reads]
        written.append(write_layer(body, layer, values, graph.window))
    body.add("Transpose", [written[-1]], OUTPUT, perm=[1, 0, 2])
    return file_bytes(graph, body, kept, graph.rows if graph.window else STEPS, OPSET)
