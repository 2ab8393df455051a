"""Integer ONNX of a QGraph: real operators between QuantizeLinear and DequantizeLinear (QDQ).

Reads a QGraph; writes the bytes of an .onnx file, the same for the same network.
"""

from __future__ import annotations

from edge_lstm.emit.onnx_body import Body, State
from edge_lstm.emit.onnx_file import INPUT, OUTPUT, STEPS, file_bytes, name_problems, tensors
from edge_lstm.emit.onnx_qdq_lstm import refusals as lstm_refusals
from edge_lstm.emit.onnx_qdq_operators import ROWS
from edge_lstm.emit.onnx_qdq_states import KEEPING, kept_by, write_layer
from edge_lstm.emit.onnx_qdq_values import Value, Writer
from edge_lstm.errors import ModelError, UnsupportedModel, raise_all
from edge_lstm.lower import lower
from edge_lstm.lstm_operators import QLstm, QNativeLstm
from edge_lstm.operators import QScan
from edge_lstm.qgraph import QGraph, QLayer

OPSET, OPSET_16 = 13, 21  # the first whose scales may differ by row; the first whose codes may have 16 bits


def states(qgraph: QGraph) -> list[State]:
    """What ``qgraph`` keeps from one run to the next, in the order of its tensors; [] for a windowed network.

    Tensors ``NAME_in`` and ``NAME_out`` under the names that ``emit_onnx`` gives them, real.
    """
    if qgraph.window:
        return []
    found = []
    for layer, sources in zip(qgraph.layers, qgraph.sources, strict=True):
        read = qgraph.values[sources[0]].width if sources and sources[0] >= 0 else qgraph.features
        found += [kept.state for kept in kept_by(layer, read)]
    return found


def emit_qdq(qgraph: QGraph) -> bytes:
    """Write ``qgraph`` as ONNX: input x (1, steps, features), output y (1, rows, outputs), real, float32.

    Between operators there are the codes of the QGraph, under its own scales; within them reals, so that a
    runtime's codes differ from the integer reference here and there: by a step of 8 bits, by more where a
    gate's terms or the cell saturate.  A streaming network takes any number of steps and has for every state
    of ``states`` an input and an output; row by row it returns what it returns in one run, but for the order
    of float sums (a code of 16 bits).  With ``last_only`` y is the row of the last step.  One stream a run;
    the detector stays behind.  8-bit networks need opset 13, 16-bit codes opset 21 (ONNX Runtime 1.18).
    Raises UnsupportedModel with every reason why ONNX's operators cannot carry a layer, ModelError where an
    integer could overflow or a name or the description cannot be written, MissingTool without the package.
    """
    where = f"model '{qgraph.name}'"
    kept = states(qgraph)
    raise_all(ModelError, where, name_problems(qgraph) + _twins(kept))
    found = [f"{reason}; export it as .tflite or as C instead" for reason in refusals(qgraph)]
    raise_all(UnsupportedModel, f"{where} as ONNX", found)
    lower(qgraph)
    inputs, outputs = tensors(kept)
    w = Writer(Body([*inputs, *outputs]), qgraph.window, qgraph.profile)
    rows = w.reshaped("Squeeze", w.codes(INPUT, INPUT, qgraph.input), f"{INPUT}/rows", [0])
    given = Value(rows, qgraph.input, qgraph.features)
    written: list[Value] = []
    for layer, sources, value in zip(qgraph.layers, qgraph.sources, qgraph.values, strict=True):
        reads = [written[source] if source >= 0 else given for source in sources]
        tensor = write_layer(w, layer, reads, value.width)
        written.append(Value(tensor, value.quantization, value.width))
    last = written[-1].tensor
    if qgraph.last_only:
        last = w.cut(last, f"{OUTPUT}/last", ROWS, -1)
    w.output(w.reshaped("Unsqueeze", last, f"{OUTPUT}/rows", [0]), qgraph.output, OUTPUT)
    streaming = not qgraph.window and not qgraph.last_only and qgraph.values[-1].sequence
    opset = OPSET_16 if any(quantization.bits == 16 for quantization in w.quantizations) else OPSET
    return file_bytes(
        qgraph, w.body, kept, STEPS if streaming else qgraph.rows, opset, profile=qgraph.profile
    )


def refusals(qgraph: QGraph) -> list[str]:
    """Every reason why ONNX's operators cannot carry ``qgraph``."""
    found = []
    for layer in qgraph.layers:
        if isinstance(layer, (QLstm, QNativeLstm)):
            found += lstm_refusals(layer)
        elif isinstance(layer, QScan):
            found += [_nested(layer, inner) for inner in layer.body if type(inner) in KEEPING]
    return found


def _nested(scan: QScan, inner: QLayer) -> str:
    return f"'{inner.name}' keeps a state of its own within scan '{scan.name}'"


def _twins(kept: list[State]) -> list[str]:
    names = [state.name for state in kept]
    twins = sorted({name for name in names if names.count(name) > 1})
    return [f"two layers keep a state '{name}'; rename one of them" for name in twins]
