"""The C of profile native: its LSTM, and rows of weights as elstm_rows.h reads them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_lstm.emit.c_step import Call, Code, Step, cell_field, hidden_rows
from edge_lstm.emit.c_tables import Constant, Table, rows_text
from edge_lstm.fixedpoint import IntArray, wrap
from edge_lstm.operators import BLOCK, nonzero_blocks, shared_blocks
from edge_lstm.program import NativeLstmProgram

ORDER = [0, 2, 1, 3]  # of a row's four columns: SXTB16 makes (0, 1) and (2, 3) of them
LAST_BLOCK = 128  # marks the place of a row's last block
MOST_BLOCKS = 128  # of a row
MOST_SHARED_BLOCKS = 255  # of four rows
WORTH = 0.5  # share of the blocks from which on all of them cost less
WORTH_SHARED = 0.6


@dataclass(frozen=True, eq=False)
class Rows:
    """Bytes of weights in the order of use; places of blocks."""

    weights: IntArray
    places: IntArray


def rows_of_bytes(kernel: npt.NDArray[np.int8]) -> Rows:
    """(4, columns): a0 b0 a1 b1 c0 d0 c1 d1 of each pair of columns, a b c d of a last one; a, c + 128."""
    stored = kernel + np.array([[128], [0], [128], [0]])
    whole = kernel.shape[1] // 2 * 2
    return Rows(wrap(np.concatenate([_paired(stored[:, :whole]), stored[:, whole:].ravel()]), 8), _none())


def _paired(rows: IntArray) -> IntArray:
    """(4, columns) as a0 b0 a1 b1 c0 d0 c1 d1 of each pair of columns."""
    paired: IntArray = rows.reshape(2, 2, -1, 2).transpose(2, 0, 3, 1).ravel()
    return paired


def rows_of_nibbles(kernel: npt.NDArray[np.int8]) -> Rows:
    """(4, columns): two bytes a column, a + 16 b and c + 16 d, each + 8; two zeros after an odd number."""
    a, b, c, d = kernel.astype(np.int64) + 8
    columns = np.stack([a + 16 * b, c + 16 * d], axis=1)
    return Rows(wrap(np.concatenate([columns.ravel(), np.zeros(2 * (len(a) % 2))]), 8), _none())


def rows_of_shared_blocks(kernel: npt.NDArray[np.int8]) -> Rows:
    """(4, columns): blocks of four columns that are not 0 in a row; their number and distances as places."""
    whole = kernel.shape[1] // BLOCK * BLOCK
    found = np.flatnonzero(shared_blocks(kernel[:, None, :whole])[0])
    columns = (found[:, None] * BLOCK + np.arange(BLOCK)).ravel()
    weights = np.concatenate(
        [_paired(kernel[:, columns].astype(np.int64)), rows_of_bytes(kernel[:, whole:]).weights]
    )
    return Rows(weights, np.concatenate([[len(found)], np.diff(found, prepend=0)]))


def rows_of_blocks(kernel: npt.NDArray[np.int8]) -> Rows:
    """(4, columns): the blocks of each row that are not 0, at least one; then what is left of the columns."""
    whole = kernel.shape[1] // BLOCK * BLOCK
    weights, places = [], []
    for row in kernel.astype(np.int64) if whole else ():
        found = (
            np.flatnonzero(nonzero_blocks(row[None, :whole])[0]) if row[:whole].any() else np.zeros(1, int)
        )
        weights.append(row[:whole].reshape(-1, BLOCK)[found][:, ORDER].ravel())
        found[-1] += LAST_BLOCK
        places.append(found)
    weights.append(kernel[:, whole:].T.ravel().astype(np.int64))
    return Rows(np.concatenate(weights), np.concatenate([*places, _none()]))


@dataclass(frozen=True)
class Storage:
    """A storage in C, its name there and what packs four rows."""

    name: str
    pack: Callable[[npt.NDArray[np.int8]], Rows]


BYTES = Storage("ELSTM_BYTES", rows_of_bytes)
NIBBLES = Storage("ELSTM_NIBBLES", rows_of_nibbles)
ROW_BLOCKS = Storage("ELSTM_ROW_BLOCKS", rows_of_blocks)
SHARED_BLOCKS = Storage("ELSTM_SHARED_BLOCKS", rows_of_shared_blocks)


def _none() -> IntArray:
    return np.zeros(0, np.int64)


def storage_of_dense(groups: npt.NDArray[np.int8], storage: str) -> Storage:
    """How the C stores rows (groups, 4, columns): blocks only where it can count them and gains by it."""
    blocks = groups.shape[2] // BLOCK
    if storage != "blocks" or not 0 < blocks <= MOST_BLOCKS:
        return NIBBLES if storage == "int4" else BYTES
    stored = nonzero_blocks(groups.reshape(-1, groups.shape[2])[:, : blocks * BLOCK]).sum(axis=1)
    return ROW_BLOCKS if np.maximum(stored, 1).mean() < WORTH * blocks else BYTES


def storage_of_lstm(kernel: npt.NDArray[np.int8], storage: str) -> Storage:
    """The same for a kernel (4 gates, units, columns)."""
    blocks = kernel.shape[2] // BLOCK
    if storage != "blocks" or not 0 < blocks <= MOST_SHARED_BLOCKS:
        return NIBBLES if storage == "int4" else BYTES
    stored = shared_blocks(kernel[:, :, : blocks * BLOCK])
    return SHARED_BLOCKS if stored.mean() < WORTH_SHARED else BYTES


def rows_tables(symbol: str, comment: str, rows: list[Rows]) -> tuple[list[Table], dict[str, str | int]]:
    """The tables of weights and places, and the members that point to them."""
    weights = np.concatenate([part.weights for part in rows])
    places = np.concatenate([part.places for part in rows])
    tables = [
        Table(
            f"{comment};\n * order: see elstm_rows.h", "int8_t", f"{symbol}_weights", weights.size,
            rows_text(weights, 24, 4), aligned=True,
        )
    ]  # fmt: skip
    members: dict[str, str | int] = {"weights": f"{symbol}_weights"}
    if places.size:
        tables.append(
            Table(
                f"{symbol}/places: of the blocks of four columns; see elstm_rows.h",
                "uint8_t", f"{symbol}_places", places.size, rows_text(places, 24),
            )
        )  # fmt: skip
        members["places"] = f"{symbol}_places"
    return tables, members


def native_lstm(step: Step) -> Code:
    """One accumulator a gate; the tables lie unit by unit."""
    layer: NativeLstmProgram = step.layer
    fields, before, start = hidden_rows(step)
    kernels = (layer.kernel, layer.recurrent_kernel)
    storages = [storage_of_lstm(kernel, layer.storage) for kernel in kernels]
    rows = [
        storage.pack(kernel[:, unit])
        for unit in range(layer.units)
        for kernel, storage in zip(kernels, storages, strict=True)
    ]
    tables, members = rows_tables(
        step.symbol,
        f"{step.name}/weights: int8[{layer.units} units], gates i, f, g, o over {layer.features} features, "
        f"then over {layer.units} units",
        rows,
    )
    gates = Table(
        f"{step.name}/gates: int32[{layer.units} units][bias of gate i, f, g, o, then their multipliers]",
        "int32_t", f"{step.symbol}_gates", 8 * layer.units,
        rows_text(np.concatenate([layer.bias, layer.multiplier]).T, 8),
    )  # fmt: skip
    members |= {
        "gates": gates.symbol,
        "features": layer.features,
        "units": layer.units,
        "cell_clip": layer.cell_clip,
        "cell_power": layer.cell_power,
        "hidden_shift": layer.hidden_shift,
        "acc_shift": layer.acc_shift,
        "input_storage": storages[0].name,
        "recurrent_storage": storages[1].name,
    }
    constant = Constant([*tables, gates], "elstm_native_lstm_t", f"{step.symbol}_layer", members)
    name, cell = f"&{constant.symbol}", f"state->{step.symbol}_cell"
    return Code(
        [constant],
        [cell_field(step), *fields],
        [Call("elstm_native_lstm_reset", (name, start, cell))],
        [Call("elstm_native_lstm_step", (name, step.x, before, step.y, cell))],
    )
