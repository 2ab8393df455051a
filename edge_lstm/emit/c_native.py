"""The C of profile native: its LSTM, and dense layers whose weights are packed.

Spec of the three ways to store weights: elstm_native.h.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edge_lstm.emit.c_step import Call, Code, Step, cell_field, hidden_rows
from edge_lstm.emit.c_tables import Constant, Table, requantizer_text, rows_text
from edge_lstm.lower_lstm import largest_acc
from edge_lstm.operators import BLOCK, nonzero_blocks
from edge_lstm.program import DenseProgram, NativeLstmProgram

SUFFIX = {"int8": "8", "int4": "4", "blocks": "blocks"}
LAYOUT = {
    "int8": "a byte a weight",
    "int4": "two weights a byte, the first in the low half",
    "blocks": "the number of blocks, then place and weights of each",
}
LARGEST_PLACE = 255


def packed(row: npt.NDArray[np.int8], storage: str) -> list[int]:
    """One row of weights as the bytes that the C reads."""
    values = [int(value) for value in row]
    if storage == "int4":
        pairs = [*values, 0] if len(values) % 2 else values
        bytes_ = [(low & 15) | (high & 15) << 4 for low, high in zip(pairs[::2], pairs[1::2], strict=True)]
        return [value - 256 if value > 127 else value for value in bytes_]
    if storage == "blocks":
        places = np.flatnonzero(nonzero_blocks(row[None])[0]).tolist()
        stored = [_byte(len(places))]
        for place in places:
            stored += [_byte(place), *values[BLOCK * place : BLOCK * (place + 1)]]
        return stored
    return values


def _byte(value: int) -> int:
    """0 .. 255 as the int8 of the same bits."""
    return value - 256 if value > 127 else value


def _weights(step: Step, rows: list[npt.NDArray[np.int8]], storage: str, layout: str) -> Table:
    found = np.array([value for row in rows for value in packed(row, storage)], dtype=np.int64)
    comment = f"{step.name}/weights: int8{layout}, {LAYOUT[storage]}"
    return Table(
        comment, "int8_t", f"{step.symbol}_weights", found.size,
        rows_text(found, 24),
    )  # fmt: skip


def _requantizers(step: Step, count: int, lines: list[str], unit: str) -> Table:
    return Table(
        f"{step.name}/requantizers: one a row, {unit}", "elstm_requantizer_t", f"{step.symbol}_requantizers",
        count, "\n".join(lines),
    )  # fmt: skip


def native_lstm(step: Step) -> Code:
    """One accumulator a gate; the tables lie unit by unit and gate by gate."""
    layer: NativeLstmProgram = step.layer
    fields, before, start = hidden_rows(step)
    rows = [
        part[gate, unit]
        for unit in range(layer.units)
        for gate in range(4)
        for part in (layer.kernel, layer.recurrent_kernel)
    ]
    order = [(gate, unit) for unit in range(layer.units) for gate in range(4)]
    multiplier, shift = layer.requantizer.multiplier, layer.requantizer.shift
    lines = [f"    {{{int(multiplier[place])}, {int(shift[place])}}}," for place in order]
    layout = f"[{layer.units} units][gate i, f, g, o][{layer.features} features, then {layer.units} units]"
    tables = [
        _weights(step, rows, layer.storage, layout),
        Table(
            f"{step.name}/bias: int32[{layer.units} units][gate i, f, g, o]",
            "int32_t", f"{step.symbol}_bias", 4 * layer.units, rows_text(layer.bias.T, 4),
        ),
        _requantizers(step, 4 * layer.units, lines, "multiplier * 2**(shift - 31), to Q3.12"),
    ]  # fmt: skip
    members: dict[str, str | int] = {
        "weights": f"{step.symbol}_weights",
        "bias": f"{step.symbol}_bias",
        "requantizers": f"{step.symbol}_requantizers",
        "features": layer.features,
        "units": layer.units,
        "cell_clip": layer.cell_clip,
        "cell_power": layer.cell_power,
        "hidden_shift": layer.hidden_shift,
    }
    constant = Constant(tables, "elstm_native_lstm_t", f"{step.symbol}_layer", members)
    name, cell = f"&{constant.symbol}", f"state->{step.symbol}_cell"
    function = f"elstm_native_lstm_step_{SUFFIX[layer.storage]}"
    return Code(
        [constant],
        [cell_field(step), *fields],
        [Call("elstm_native_lstm_reset", (name, start, cell))],
        [Call(function, (name, step.x, before, step.y, cell))],
    )


def native_dense(step: Step) -> Code:
    """A dense layer of 16-bit codes with packed weights."""
    layer: DenseProgram = step.layer
    lines = [f"    {requantizer_text(layer.requantizer, row)}," for row in range(layer.outputs)]
    layout = f"[{layer.outputs} outputs][{layer.features} features]"
    tables = [
        _weights(step, list(layer.kernel), layer.storage, layout),
        Table(
            f"{step.name}/bias: int32[{layer.outputs} outputs]", "int32_t", f"{step.symbol}_bias",
            layer.outputs, rows_text(layer.bias, layer.outputs),
        ),
        _requantizers(step, layer.outputs, lines, "multiplier * 2**(shift - 15)"),
    ]  # fmt: skip
    members: dict[str, str | int] = {
        "weights": f"{step.symbol}_weights",
        "bias": f"{step.symbol}_bias",
        "requantizers": f"{step.symbol}_requantizers",
        "features": layer.features,
        "outputs": layer.outputs,
        "minimum": layer.minimum,
    }
    constant = Constant(tables, "elstm_native_dense_t", f"{step.symbol}_layer", members)
    function = f"elstm_native_dense_{SUFFIX[layer.storage]}"
    return Code([constant], calls=[Call(function, (f"&{constant.symbol}", step.x, step.y))])


def native_problems(layer: Any) -> list[str]:
    """Packed weights that the C cannot read."""
    if getattr(layer, "storage", "int8") == "int8":
        return []
    problems = []
    if isinstance(layer, DenseProgram) and (largest_acc(layer.bias, layer.kernel, 32768) >= 2**31).any():
        problems.append(f"'{layer.name}' stores its weights as {layer.storage}, but its sums leave 32 bits")
    columns = max(layer.features, getattr(layer, "units", 0))
    if layer.storage == "blocks" and columns > BLOCK * LARGEST_PLACE:
        problems.append(f"'{layer.name}' has {columns} columns, blocks can count {BLOCK * LARGEST_PLACE}")
    return problems
