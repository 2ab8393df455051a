"""The C of LSTMs beyond the plain one of 8-bit codes: LiteRT's variants, and the one of 16-bit codes.

Their tables lie unit by unit and gate by gate, so that a gate that a coupled layer lacks takes no memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edge_lstm.emit.c_step import Call, Code, Field, Step, cell_field, hidden_rows
from edge_lstm.emit.c_tables import Constant, Table, requantizer_text, rows_text
from edge_lstm.program import GATES, LstmProgram, Requantizer, VariantProgram

PEEPHOLE_GATES = ("i", "f", "o")


def lstm_variant(step: Step) -> Code:
    """A layer with a variant; its state has room for the gates of one step."""
    layer: LstmProgram = step.layer
    gates = Field(2, f"int16_t {step.symbol}_gates[{4 * layer.units}]", f"{step.name}: gates of one step")
    return _lstm(step, "elstm_variant", _variant_constant(step, layer), [gates])


def lstm_16(step: Step) -> Code:
    """A layer of 16-bit codes."""
    layer: LstmProgram = step.layer
    tables, members = _gate_tables(step, layer, GATES, {"bias": ("int64_t", layer.input_bias)})
    constant = Constant(tables, "elstm_lstm_16_t", f"{step.symbol}_layer", members)
    return _lstm(step, "elstm_lstm_16", constant, [])


def _lstm(step: Step, function: str, constant: Constant, working: list[Field]) -> Code:
    """The calls that both kinds have in common; working: what a step takes besides."""
    fields, before, start = hidden_rows(step)
    layer, cell = f"&{constant.symbol}", f"state->{step.symbol}_cell"
    extra = [f"state->{step.symbol}_gates"] if working else []
    return Code(
        [constant],
        [cell_field(step), *fields, *working],
        [Call(f"{function}_reset", (layer, start, cell))],
        [Call(f"{function}_step", (layer, step.x, before, step.y, cell, *extra))],
    )


def _table(step: Step, part: str, kind: str, values: npt.NDArray[Any], layout: str) -> Table:
    return Table(
        f"{step.name}/{part}: {kind.removesuffix('_t')}{layout}", kind, f"{step.symbol}_{part}", values.size,
        rows_text(values, values.shape[-1]),
    )  # fmt: skip


def _gate_tables(
    step: Step, layer: LstmProgram, gates: tuple[str, ...], biases: dict[str, tuple[str, npt.NDArray[Any]]]
) -> tuple[list[Table], dict[str, str | int]]:
    """Kernels and biases of ``gates``, the last ones, and the members of the struct that every kind has.

    biases: member -> (type, values of all gates and units).
    """
    first, units, letters = len(GATES) - len(gates), layer.units, ", ".join(gates)
    arrays: dict[str, tuple[str, npt.NDArray[Any], str]] = {
        "kernel": ("int8_t", layer.kernel, f"[{layer.features} features]"),
        "recurrent_kernel": ("int8_t", layer.recurrent_kernel, f"[{layer.outputs} outputs]"),
        **{member: (kind, values, "") for member, (kind, values) in biases.items()},
    }
    tables = [
        _table(step, part, kind, values[first:].swapaxes(0, 1), f"[{units} units][gate {letters}]{columns}")
        for part, (kind, values, columns) in arrays.items()
    ]
    members: dict[str, str | int] = {part: f"{step.symbol}_{part}" for part in arrays}
    members |= {
        "input": _requantizers(layer.input_requantizer),
        "recurrent": _requantizers(layer.recurrent_requantizer),
        "hidden": requantizer_text(layer.hidden_requantizer),
        "features": layer.features,
        "units": units,
        "cell_clip": layer.cell_clip,
        "cell_power": layer.cell_power,
    }
    return tables, members


def _requantizers(requantizer: Requantizer) -> str:
    rows = range(len(requantizer.shift))
    return "{" + ", ".join(requantizer_text(requantizer, row) for row in rows) + "}"


def _variant_constant(step: Step, layer: LstmProgram) -> Constant:
    variant = layer.variant
    assert variant is not None  # lstm_variant is for layers that have one
    kinds = {"input_bias": layer.input_bias, "recurrent_bias": layer.recurrent_bias}
    biases = {member: ("int32_t", values) for member, values in kinds.items()}
    tables, members = _gate_tables(step, layer, GATES[int(variant.coupled) :], biases)
    members |= {
        "outputs": layer.outputs,
        "inner_zero_point": layer.inner_zero_point,
        "hidden_zero_point": layer.hidden_zero_point,
        "coupled": int(variant.coupled),
    }
    for add in (_add_peephole, _add_normalization, _add_projection):
        more, others = add(step, variant)
        tables, members = tables + more, members | others
    return Constant(tables, "elstm_variant_t", f"{step.symbol}_layer", members)


def _add_peephole(step: Step, variant: VariantProgram) -> tuple[list[Table], dict[str, str | int]]:
    part = variant.peephole
    if part is None:
        return [], {"peephole": "NULL"}
    layout = f"[gate {', '.join(PEEPHOLE_GATES)}][{part.weights.shape[1]} units]"
    table = _table(step, "peephole", "int16_t", part.weights, layout)
    members: dict[str, str | int] = {"cell": _requantizers(part.requantizer), "ties_up": part.ties_up}
    return [table], {"peephole": table.symbol, **members}


def _add_normalization(step: Step, variant: VariantProgram) -> tuple[list[Table], dict[str, str | int]]:
    part = variant.normalization
    if part is None:
        return [], {"normalization": "NULL", "normal_bias": "NULL"}
    layout = f"[gate {', '.join(GATES)}][{part.weights.shape[1]} units]"
    tables = [
        _table(step, "normalization", "int16_t", part.weights, layout),
        _table(step, "normal_bias", "int32_t", part.bias, layout),
    ]
    least = ", ".join(str(int(value)) for value in part.least_variance)
    return tables, {
        "normalization": tables[0].symbol,
        "normal_bias": tables[1].symbol,
        "normal": _requantizers(part.requantizer),
        "least_variance": f"{{{least}}}",
    }


def _add_projection(step: Step, variant: VariantProgram) -> tuple[list[Table], dict[str, str | int]]:
    part = variant.projection
    if part is None:
        return [], {"projection": "NULL", "projection_bias": "NULL"}
    outputs, units = part.kernel.shape
    tables = [
        _table(step, "projection", "int8_t", part.kernel, f"[{outputs} outputs][{units} units]"),
        _table(step, "projection_bias", "int32_t", np.asarray(part.bias), f"[{outputs} outputs]"),
    ]
    return tables, {
        "projection": tables[0].symbol,
        "projection_bias": tables[1].symbol,
        "projected": requantizer_text(part.requantizer),
        "projection_clip": part.clip,
    }
