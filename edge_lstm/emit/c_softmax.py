"""The constants of a softmax as C: see ``c_runtime/elstm_softmax.h``."""

from __future__ import annotations

from edge_lstm.emit.c_tables import Constant, Table, one_line, requantizer_text, rows_text
from edge_lstm.emit.c_tasks import Place
from edge_lstm.fixedpoint import IntArray
from edge_lstm.program import SoftmaxProgram


def softmax_constant(
    layer: SoftmaxProgram, symbol: str, x: Place, y: Place, window: int
) -> tuple[str, Constant]:
    """The function of the runtime that computes ``layer``, and its constants.

    x, y: where it reads and writes.  window: rows of what it reads.
    """
    timely = layer.axis == "time"
    entries, columns = (window, x.width) if timely else (x.width, 1)
    steps = (x.stride, y.stride) if timely else (1, 1)
    members: dict[str, str | int] = {"shape": f"{{{steps[0]}, {steps[1]}, {entries}, {columns}}}"}
    name, tables = one_line(layer.name), list[Table]()
    if layer.bits == 16:
        kind, function = "table", "table"
        ranges = ("exp over -10 .. 0", "1 / (1 + x) over 0 .. 1")
        for member, values, what in zip(("exponential", "reciprocal"), layer.tables, ranges, strict=True):
            comment = f"{name}/{member}: int16[513], Q0.15, {what}"
            tables.append(_table(comment, "int16_t", f"{symbol}_{member}", values))
    elif layer.tables:
        kind, function = "float", "float"
        types = ("int32_t", "int16_t")
        for member, values, number in zip(("significands", "exponents"), layer.tables, types, strict=True):
            comment = f"{name}/{member}: {number[:-2]}[256], exp of 0, -1, ... -255 input codes"
            tables.append(_table(comment, number, f"{symbol}_{member}", values))
    else:
        kind, function = "fixed", "polynomial"
        members["lowest"] = layer.lowest
    if kind != "float":
        members["scale"] = requantizer_text(layer.requantizer)
    members |= {table.symbol.removeprefix(f"{symbol}_"): table.symbol for table in tables}
    constant = Constant(tables, f"elstm_softmax_{kind}_t", f"{symbol}_layer", members)
    return f"elstm_softmax_by_{function}", constant


def _table(comment: str, kind: str, symbol: str, numbers: IntArray) -> Table:
    """A vector of integers of the C type ``kind``."""
    return Table(comment, kind, symbol, numbers.size, rows_text(numbers, numbers.size))
