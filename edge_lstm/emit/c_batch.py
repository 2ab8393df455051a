"""Program -> C99 for hosts: a function that runs many independent streams at once.

Reads a Program; returns the text of ``NAME_streams.c``, which includes ``NAME.c`` and ``elstm_batch.h``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import jinja2

from edge_lstm.emit.c_tables import layer_symbols
from edge_lstm.program import DenseProgram, LstmProgram, Program


def batches(program: Program) -> bool:
    """Whether the C can: a streaming network of plain 8-bit LSTMs and dense layers, one after another."""
    in_a_row = all(reads == (index - 1,) for index, reads in enumerate(program.sources))
    return not program.window and in_a_row and all(_is_plain(layer) for layer in program.layers)


def _is_plain(layer: Any) -> bool:
    if isinstance(layer, LstmProgram):
        return layer.bits == 8 and layer.variant is None and not layer.backwards
    return isinstance(layer, DenseProgram) and layer.bits == 8 and layer.storage == "int8"


@dataclass
class Parts:
    """Members of the state; statements once a call, before a block of streams, and once a step.

    result: where the codes are that the last layer wrote.
    """

    result: str = "state->x"
    fields: list[str] = field(default_factory=list)
    starts: list[str] = field(default_factory=list)
    resets: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)


def emit_batch(program: Program) -> str:
    """The text of ``NAME_streams.c`` of a program that ``batches``.

    ``NAME_run_streams`` takes a state of ``NAME_streams_bytes`` bytes and the codes of all streams.
    """
    parts = Parts()
    for layer, symbol in zip(program.layers, layer_symbols(program), strict=True):
        if isinstance(layer, LstmProgram):
            _add_lstm(parts, layer, symbol, program.profile)
        elif isinstance(layer, DenseProgram):
            _add_dense(parts, layer, symbol, program.profile)
    text = resources.files("edge_lstm.emit").joinpath("templates/streams.c.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(  # noqa: S701 - C has no markup to escape
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    return environment.from_string(text).render(
        vars(parts) | {"name": program.name, "features": program.features, "outputs": program.outputs}
    )


def _add_lstm(parts: Parts, layer: LstmProgram, symbol: str, profile: str) -> None:
    member, units = f"state->{symbol}", layer.units
    parts.fields += [
        f"elstm_lanes_t {symbol}_cell[{units}]",
        f"elstm_lanes_t {symbol}_hidden[2][{_pairs(units)}]",
        f"elstm_four_t {symbol}_weights[{units * (_pairs(layer.features) + _pairs(units))}]",
    ]
    parts.starts.append(f"elstm_batch_lstm_weights(&{symbol}_layer, {member}_weights)")
    parts.resets.append(f"elstm_batch_lstm_reset(&{symbol}_layer, {member}_hidden[0], {member}_cell)")
    parts.calls.append(
        f"elstm_batch_lstm(&{symbol}_layer, {member}_weights, {parts.result}, {member}_hidden[now], "
        f"{member}_hidden[next], {member}_cell, elstm_update_{'tflm' if profile == 'tflm' else 'litert'})"
    )
    parts.result = f"{member}_hidden[next]"


def _add_dense(parts: Parts, layer: DenseProgram, symbol: str, profile: str) -> None:
    member, fours = f"state->{symbol}", -(-layer.outputs // 4)
    parts.fields += [
        f"elstm_lanes_t {symbol}_codes[{_pairs(layer.outputs)}]",
        f"elstm_four_t {symbol}_weights[{fours * _pairs(layer.features)}]",
    ]
    parts.starts.append(f"elstm_batch_dense_weights(&{symbol}_layer, {member}_weights)")
    parts.calls.append(
        f"elstm_batch_dense(&{symbol}_layer, {member}_weights, {parts.result}, {member}_codes, "
        f"{layer.minimum}, elstm_scale_{'tflm' if profile == 'native' else profile})"
    )
    parts.result = f"{member}_codes"


def _pairs(columns: int) -> int:
    return -(-columns // 2)
