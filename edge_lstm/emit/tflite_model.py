"""QGraph -> .tflite, which LiteRT, tflite-runtime and TensorFlow Lite Micro run.  Spec: NUMERICS.md, 8.

Reads a QGraph; writes bytes, the same for the same network.
"""

from __future__ import annotations

import numpy as np

from edge_lstm.emit import metadata
from edge_lstm.emit.tflite_file import FileSpec, pack
from edge_lstm.emit.tflite_operators import write
from edge_lstm.emit.tflite_writer import States, Writer
from edge_lstm.qgraph import QGraph, QLstm

INPUT_NAME, OUTPUT_NAME = "x", "forecast"  # in the signature


def emit_tflite(qgraph: QGraph) -> bytes:
    """Write ``qgraph`` as a .tflite file that LiteRT, tflite-runtime and TensorFlow Lite Micro run.

    The input is ``[1, timesteps, features]`` in int8 or int16; of several lanes ``[timesteps, lanes,
    features]`` (time-major) or, with ``batch_major``, ``[lanes, timesteps, features]``.  The output has the
    same layout with ``rows`` and ``outputs`` in the last places; a chain of LSTM and dense layers with
    ``last_only`` writes ``[lanes, outputs]``.  A streaming file keeps its state from one invocation to the
    next; reset the fused LSTMs of a window before each.
    Raises ModelError where ``made`` holds what JSON cannot carry, UnsupportedModel where the file would get
    too large.
    """
    return pack(file_spec(qgraph))


def file_spec(qgraph: QGraph) -> FileSpec:
    """The tensors and operators of ``qgraph``'s file, with its description as metadata."""
    spec = FileSpec(f"edge_lstm: {qgraph.name}")
    turned = qgraph.lanes > 1 and not qgraph.batch_major
    rows = (qgraph.timesteps, qgraph.lanes) if turned else (qgraph.lanes, qgraph.timesteps)
    value = spec.activation(INPUT_NAME, (*rows, qgraph.features), qgraph.input)
    spec.inputs = {INPUT_NAME: value}
    states = States(spec, kept=not qgraph.window)
    writer = Writer(spec, states, qgraph.lanes, qgraph.timesteps)
    if metadata.is_plain(qgraph):
        writer.time_major = turned
        value = _write_plain(writer, qgraph, value)
    else:
        value = _write_rows(writer, qgraph, value, turned)
    spec.outputs = {OUTPUT_NAME: value}
    states.finish()
    spec.metadata = {metadata.NAME: metadata.encode(qgraph, spec)}
    return spec


def _write_plain(writer: Writer, qgraph: QGraph, value: int) -> int:
    """A chain of LSTM and dense layers as TensorFlow's converter writes it."""
    last_lstm = max(i for i, layer in enumerate(qgraph.layers) if isinstance(layer, QLstm))
    for index, layer in enumerate(qgraph.layers):
        value = write(writer, layer, [value])
        if qgraph.last_only and index == last_lstm:
            value = _last_row(writer, value)
    return value


def _last_row(writer: Writer, value: int) -> int:
    """Keep the last time step, as TensorFlow's converter writes it: begin -1, and that axis removed."""
    axis, spec = 0 if writer.time_major else 1, writer.spec
    begin, end, strides = (np.full(3, fill, dtype=np.int32) for fill in (0, 0, 1))
    begin[axis] = -1
    places = [
        spec.constant("last_row/begin", begin),
        spec.constant("last_row/end", end),
        spec.constant("last_row/strides", strides),
    ]
    shape = tuple(size for place, size in enumerate(writer.shape(value)) if place != axis)
    whole = 0b111 & ~(1 << axis)
    masks = {"BeginMask": whole, "EndMask": whole, "ShrinkAxisMask": 1 << axis}
    output = writer.like(value, "last_row", shape)
    return spec.operate("STRIDED_SLICE", 2, [value, *places], [output], "StridedSliceOptions", **masks)


def _write_rows(writer: Writer, qgraph: QGraph, value: int, turned: bool) -> int:
    """Any network.  value: the input; turned: it is time-major, as the output must be."""
    if turned:
        value = writer.swap(value, (1, 0, 2), "input/lanes")
    if qgraph.input.bits == 16:
        value = writer.reshape(value, (qgraph.lanes, 1, qgraph.timesteps, qgraph.features), "input/rows")
    written: list[int] = []
    for layer, sources in zip(qgraph.layers, qgraph.sources, strict=True):
        written.append(write(writer, layer, [written[s] if s >= 0 else value for s in sources]))
    value = written[-1]
    if qgraph.last_only and qgraph.values[-1].sequence:
        value = writer.part(value, -2, qgraph.timesteps - 1, qgraph.timesteps, "last_row")
    value = writer.reshape(value, (qgraph.lanes, qgraph.rows, qgraph.outputs), "output/rows")
    return writer.swap(value, (1, 0, 2), "output/lanes") if turned else value
