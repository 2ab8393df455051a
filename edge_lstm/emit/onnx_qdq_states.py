"""What keeps a state, as ONNX: LSTMs and scans as Scan, delays as the rows before.

Reads operators; writes into a Writer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from edge_lstm.emit.onnx_body import State
from edge_lstm.emit.onnx_qdq_lstm import Cell
from edge_lstm.emit.onnx_qdq_operators import FEATURES, ROWS, write_operator
from edge_lstm.emit.onnx_qdq_values import Value, Writer
from edge_lstm.lstm_operators import QLstm, QNativeLstm
from edge_lstm.operators import (
    QScan,
    Quantization,
)
from edge_lstm.optional import require
from edge_lstm.placing_operators import (
    QDelay,
)

# the states of scans under the names that the float ONNX has
PARTS = {"state": "hidden", "hidden_state": "hidden", "cell_state": "cell"}
Step = Callable[[Writer, str, list[str]], tuple[list[str], str]]


class Kept(NamedTuple):
    """A state, (rows, width).  quantization: of its codes; None: it stays real.  code: after reset."""

    name: str
    rows: int
    width: int
    quantization: Quantization | None
    code: int = 0

    @property
    def state(self) -> State:
        """As the file gives and takes it: real, (1, rows, width)."""
        shape = (1, self.rows, self.width)
        real = 0.0 if self.quantization is None else self.quantization.decode(self.code)
        return State(self.name, shape, np.broadcast_to(np.float32(real), shape))


def kept_by(layer: Any, features: int) -> list[Kept]:
    """What ``layer`` keeps from row to row.  features: of what it reads."""
    if isinstance(layer, (QLstm, QNativeLstm)):
        hidden = Kept(f"{layer.name}_hidden", 1, layer.outputs, layer.hidden, layer.hidden.zero_point)
        return [hidden, Kept(f"{layer.name}_cell", 1, layer.units, None)]
    if isinstance(layer, QDelay) and layer.size > 1:
        rows = (layer.size - 1) * layer.dilation
        return [Kept(f"{layer.name.removesuffix('/rows')}_rows", rows, features, layer.output)]
    found = []
    for state in layer.states if isinstance(layer, QScan) else ():
        part = state.name.removeprefix(f"{layer.name}/")
        name = f"{layer.name}_{PARTS.get(part, part)}"
        found.append(Kept(name, 1, state.width, state.quantization, state.initial))
    return found


def _before(w: Writer, kept: Kept, rank: int) -> str:
    """A state as the first row finds it: codes, or reals; of ``rank`` 2 or 3."""
    if w.window:
        shape = (1,) * (rank - 2) + (kept.rows, kept.width)
        dtype = np.float32 if kept.quantization is None else kept.quantization.dtype
        return w.graph.constant(f"{kept.name}/reset", np.full(shape, kept.code, dtype))
    given = f"{kept.name}_in"
    codes = given if kept.quantization is None else w.codes(given, kept.name, kept.quantization)
    return w.reshaped("Squeeze", codes, f"{kept.name}/before", [0]) if rank == 2 else codes


def _after(w: Writer, kept: Kept, codes: str, rank: int) -> None:
    """A state of a streaming network as the last row leaves it."""
    if rank == 2:
        codes = w.reshaped("Unsqueeze", codes, f"{kept.name}/after", [0])
    if kept.quantization is None:
        w.body.add("Identity", [codes], f"{kept.name}_out")
    else:
        w.output(codes, kept.quantization, f"{kept.name}_out")


def _declared(tensor: str, quantization: Quantization | None, shape: Sequence[int]) -> Any:
    """An input or output of a Scan's body: codes, or reals where there is no quantization."""
    types = require("onnx", "onnx").TensorProto
    kind = types.FLOAT
    if quantization is not None:
        kind = types.INT8 if quantization.bits == 8 else types.INT16
    return require("onnx.helper", "onnx").make_tensor_value_info(tensor, kind, shape)


def _body(w: Writer, layer: Any, value: Value, width: int, rank: int, step: Step) -> Any:
    """The graph that a Scan runs for every row: (states, row) -> (next states, row of the output)."""
    inner, kept, ones = w.nested(), kept_by(layer, value.width), (1,) * (rank - 1)
    row = inner.body.name(f"{layer.name}/row")
    before = [inner.body.name(f"{state.name}/row") for state in kept]
    following, result = step(inner, row, before)
    # a tensor may be written as one output only
    after = [inner.body.add("Identity", [tensor], f"{layer.name}/next") for tensor in [*following, result]]
    inputs = [
        _declared(tensor, state.quantization, (*ones, state.width))
        for tensor, state in zip(before, kept, strict=True)
    ]
    outputs = [
        _declared(tensor, state.quantization, (*ones, state.width))
        for tensor, state in zip(after[:-1], kept, strict=True)
    ]
    inputs.append(_declared(row, value.quantization, (*ones, value.width)))
    outputs.append(_declared(after[-1], layer.output, (*ones, width)))
    helper = require("onnx.helper", "onnx")
    return helper.make_graph(inner.body.nodes, f"{layer.name}/body", inputs, outputs)


def _loop(w: Writer, layer: Any, value: Value, width: int, rank: int, step: Step) -> str:
    """A Scan over the rows of ``value``; returns the codes of what it writes, (rows, ``width``).

    step: adds nodes for one row, given the tensors of the row and of the states; within it all tensors have
    ``rank``: (1, width) or, as ONNX's LSTM takes them, (1, 1, width).
    """
    kept, places = kept_by(layer, value.width), range(1, rank)
    body = _body(w, layer, value, width, rank, step)
    reads = [_before(w, state, rank) for state in kept]
    reads.append(w.reshaped("Unsqueeze", value.tensor, f"{layer.name}/rows", places))
    first, *others = [*(f"{state.name}/last" for state in kept), f"{layer.name}/scanned"]
    others = [w.body.name(tensor) for tensor in others]
    directions = {f"scan_{end}_directions": [1] for end in ("input", "output") if layer.backwards}
    first = w.body.add("Scan", reads, first, *others, body=body, num_scan_inputs=1, **directions)
    *last, scanned = first, *others
    if not w.window:
        for state, tensor in zip(kept, last, strict=True):
            _after(w, state, tensor, rank)
    return w.reshaped("Squeeze", scanned, f"{layer.name}/codes", places)


def _lstm(w: Writer, layer: QLstm | QNativeLstm, value: Value, width: int) -> str:
    """ONNX's LSTM within a Scan: the hidden state is rounded after every row, as the integers are."""
    return _loop(w, layer, value, width, 3, Cell(w, layer).step)


def _scan(w: Writer, layer: QScan, value: Value, width: int) -> str:
    def step(inner: Writer, row: str, states: list[str]) -> tuple[list[str], str]:
        given = [Value(row, layer.input, value.width)]
        given += [
            Value(tensor, state.quantization, state.width)
            for tensor, state in zip(states, layer.states, strict=True)
        ]
        written: list[Value] = []
        for operator, sources in zip(layer.body, layer.sources, strict=True):
            reads = [written[source] if source >= 0 else given[-1 - source] for source in sources]
            written.append(Value(write_operator(inner, operator, reads), operator.output, 0))
        return [written[index].tensor for index in layer.next], written[layer.result].tensor

    return _loop(w, layer, value, width, 2, step)


def _delay(w: Writer, layer: QDelay, value: Value, width: int) -> str:
    name = layer.name
    if layer.size == 1:
        return value.tensor
    (kept,) = kept_by(layer, value.width)
    joined = w.body.add("Concat", [_before(w, kept, 2), value.tensor], f"{name}/joined", axis=ROWS)
    if not w.window:
        _after(w, kept, w.cut(joined, f"{name}/kept", ROWS, -kept.rows), 2)
    parts = [
        w.cut(joined, f"{name}/part", ROWS, start, start - kept.rows or None)
        for start in range(0, kept.rows + 1, layer.dilation)
    ]
    return w.body.add("Concat", parts, f"{name}/codes", axis=FEATURES)


KEEPING: dict[type, Callable[[Writer, Any, Value, int], str]] = {
    QLstm: _lstm,
    QNativeLstm: _lstm,
    QScan: _scan,
    QDelay: _delay,
}


def write_layer(w: Writer, layer: Any, values: Sequence[Value], width: int) -> str:
    """Add any operator; returns the tensor of its codes, (rows, ``width``).

    The states of a streaming network enter and leave as ``NAME_in`` and ``NAME_out``.
    """
    if type(layer) in KEEPING:
        return KEEPING[type(layer)](w, layer, values[0], width)
    return write_operator(w, layer, values)
