"""The C of dense layers of 16-bit codes: elstm_wide.h."""

from __future__ import annotations

import numpy as np

from edge_lstm.emit.c_native import BYTES, ORDER, Rows, rows_tables, storage_of_dense
from edge_lstm.emit.c_step import Call, Code, Step
from edge_lstm.emit.c_tables import Constant, Table, requantizer_text, rows_text
from edge_lstm.fixedpoint import IntArray
from edge_lstm.lower_lstm import largest_acc
from edge_lstm.operators import BLOCK
from edge_lstm.program import DenseProgram, Requantizer


def wide_dense(step: Step) -> Code:
    """A call and its constants: for sums of 32 bits where they fit, else of 48."""
    layer: DenseProgram = step.layer
    r = _short_requantizer(layer)
    constant = _dense_48(step, layer) if r is None else _dense_16(step, layer, r)
    function = constant.type.removesuffix("_t")
    return Code([constant], calls=[Call(function, (f"&{constant.symbol}", step.x, step.y))])


def _short_requantizer(layer: DenseProgram) -> Requantizer | None:
    """``real = multiplier * 2**-(32 + shift)`` of sums that fit 32 bits; None: they do not."""
    r = layer.requantizer
    bound = largest_acc(layer.bias, layer.kernel, 32768)
    if (bound >= 2**31).any() or (r.shift >= 0).any():
        return None
    right = 15 - r.shift
    return Requantizer(r.multiplier << np.maximum(32 - right, 0), np.maximum(right - 32, 0))


def _is_per_row(r: Requantizer) -> bool:
    return bool(len(set(r.multiplier.tolist())) > 1 or len(set(r.shift.tolist())) > 1)


def _members(layer: DenseProgram, per_row: bool) -> dict[str, str | int]:
    return {
        "features": layer.features,
        "outputs": layer.outputs,
        "output_zero_point": layer.output_zero_point,
        "minimum": layer.minimum,
        "per_row": int(per_row),
    }


def _bias(step: Step, layer: DenseProgram, bits: int) -> Table:
    return Table(
        f"{step.name}/bias: int{bits}[{layer.outputs} outputs], the input zero point folded in",
        f"int{bits}_t", f"{step.symbol}_bias", layer.outputs, rows_text(layer.bias, layer.outputs),
    )  # fmt: skip


def _dense_16(step: Step, layer: DenseProgram, r: Requantizer) -> Constant:
    fours, per_row = layer.outputs // 4, _is_per_row(r)
    groups = layer.kernel[: 4 * fours].reshape(fours, 4, layer.features)
    storage = storage_of_dense(groups, layer.storage) if fours else BYTES
    rows = [storage.pack(group) for group in groups]
    rows += [Rows(_row(row), np.zeros(0, np.int64)) for row in layer.kernel[4 * fours :]]
    comment = f"{step.name}/weights: int8[{layer.outputs} outputs] over {layer.features} features"
    tables, members = rows_tables(step.symbol, comment, rows)
    count = layer.outputs if per_row else 1
    tables += [
        _bias(step, layer, 32),
        Table(
            f"{step.name}/multipliers: {'one an output' if per_row else 'one for all outputs'}, times 2**-32",
            "int32_t", f"{step.symbol}_multipliers", count, rows_text(r.multiplier[:count], 8),
        ),
    ]  # fmt: skip
    members |= {"bias": f"{step.symbol}_bias", "multipliers": f"{step.symbol}_multipliers"}
    if r.shift.any():
        comment = f"{step.name}/shifts: to the right, after the multiplication"
        symbol = f"{step.symbol}_shifts"
        tables.append(Table(comment, "uint8_t", symbol, count, rows_text(r.shift[:count], 24)))
        members["shifts"] = symbol
    members |= _members(layer, per_row) | {"storage": storage.name}
    return Constant(tables, "elstm_dense_16_t", f"{step.symbol}_layer", members)


def _row(row: IntArray) -> IntArray:
    """One row as ``elstm_row_8`` reads it."""
    whole = len(row) // BLOCK * BLOCK
    return np.concatenate([row[:whole].reshape(-1, BLOCK)[:, ORDER].ravel(), row[whole:]]).astype(np.int64)


def _dense_48(step: Step, layer: DenseProgram) -> Constant:
    per_row = _is_per_row(layer.requantizer)
    count = layer.outputs if per_row else 1
    lines = [f"    {requantizer_text(layer.requantizer, row)}," for row in range(count)]
    tables = [
        Table(
            f"{step.name}/kernel: int8[{layer.outputs} outputs][{layer.features} features], zero point 0",
            "int8_t", f"{step.symbol}_kernel", layer.kernel.size, rows_text(layer.kernel, layer.features),
        ),
        _bias(step, layer, 64),
        Table(
            f"{step.name}/requantizers: {'one an output' if per_row else 'one for all outputs'}, "
            "multiplier * 2**(shift - 15)",
            "elstm_requantizer_t", f"{step.symbol}_requantizers", count, "\n".join(lines),
        ),
    ]  # fmt: skip
    members: dict[str, str | int] = {
        table.symbol.removeprefix(f"{step.symbol}_"): table.symbol for table in tables
    }
    return Constant(tables, "elstm_dense_48_t", f"{step.symbol}_layer", members | _members(layer, per_row))
