"""Program -> C99: ``NAME.c``, ``NAME.h`` and the runtime ``elstm.c``, ``elstm.h``.

Reads a Program; returns the text of the files, byte-identical for equal input.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from importlib import resources
from typing import Any

import jinja2
import numpy as np

from edge_lstm import __version__
from edge_lstm.emit.c_tables import LINE, detector_constant, layer_constant, one_line
from edge_lstm.lower import LstmProgram, Program

API_VERSION = 1  # of elstm.h


@dataclass(frozen=True)
class Field:
    """One member of the state struct."""

    declaration: str
    comment: str


def emit_c(program: Program, header_lines: Sequence[str] = ()) -> dict[str, str]:
    """Return file name -> text of ``program`` and the runtime that it needs.

    header_lines: extra lines for the head of the header, such as the channels and their scaling.
    Raises ModelError where the program's name would hide a header of the C library or of the runtime.
    """
    name = program.name
    symbols = layer_symbols(program)
    constants = [
        layer_constant(program.profile, layer, symbol)
        for layer, symbol in zip(program.layers, symbols, strict=True)
    ]
    if program.detector is not None:
        constants.append(detector_constant(program.detector))
    values = {
        "name": name,
        "upper": name.upper(),
        "api": API_VERSION,
        "summary": f"LSTM network '{name}', {program.features} inputs, {program.outputs} outputs, "
        f"numerics profile {program.profile}",
        "origin": (
            f"Written by edge-lstm {__version__} from program sha256:{program_hash(program)[:32]}.",
            f"Do not edit; rewrite it with: edge-lstm convert {name}.tflite --to c -o .",
        ),
        "header_lines": [one_line(line) for line in header_lines],
        "features": program.features,
        "outputs": program.outputs,
        "input_zero_point": program.input_zero_point,
        "output_zero_point": output_zero_point(program),
        "fields": _fields(program, symbols),
        "constants": constants,
        "resets": _resets(program, symbols),
        "steps": _steps(program, symbols),
        "detector": program.detector is not None,
        "needs_string_h": program.detector is not None or isinstance(program.layers[-1], LstmProgram),
        "warmup": program.detector.warmup if program.detector is not None else 0,
    }
    files = {f"{name}.{kind}": _template(f"model.{kind}.j2").render(values) for kind in ("c", "h")}
    return files | {file: runtime_text(file) for file in ("elstm.c", "elstm.h")}


@cache
def _template(file: str) -> jinja2.Template:
    environment = jinja2.Environment(  # noqa: S701 - C has no markup to escape
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    source = (
        resources.files("edge_lstm.emit").joinpath("templates").joinpath(file).read_text(encoding="utf-8")
    )
    return environment.from_string(source)


def runtime_text(file: str) -> str:
    """The text of ``elstm.c`` or ``elstm.h``."""
    return resources.files("edge_lstm").joinpath("c_runtime").joinpath(file).read_text(encoding="utf-8")


def program_hash(program: Program) -> str:
    """sha256 over the program's names and integers, 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(_plain(program), sort_keys=True).encode()).hexdigest()


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple):
        return [_plain(entry) for entry in value]
    return value.tolist() if isinstance(value, np.ndarray) else value


def output_zero_point(program: Program) -> int:
    """The zero point of the network's output codes."""
    last = program.layers[-1]
    return last.hidden_zero_point if isinstance(last, LstmProgram) else last.output_zero_point


# what each layer's name is followed by in the C
SUFFIXES = (
    "layer", "kernel", "recurrent_kernel", "bias", "input_bias", "recurrent_bias", "requantizers", "cell",
    "hidden", "output",
)  # fmt: skip


def layer_symbols(program: Program) -> list[str]:
    """A C name for each layer: its own where all of them are sound and distinct, else layer_0, layer_1 ..."""
    names = [re.sub(r"\W", "_", layer.name, flags=re.ASCII).strip("_") for layer in program.layers]
    taken = {f"{name}_{suffix}" for name in names for suffix in SUFFIXES}
    sound = all(re.match("[A-Za-z]", name) and name != "detector" for name in names)
    if sound and len(taken) == len(names) * len(SUFFIXES):
        return names
    return [f"layer_{index}" for index in range(len(names))]


def _call(function: str, *arguments: str) -> str:
    """A call statement at one indent, its arguments wrapped."""
    text = f"{function}({', '.join(arguments)});"
    if len(text) + 4 <= LINE:
        return text
    lines, line = [], f"{function}("
    for argument in arguments:
        if len(line) + len(argument) + 6 > LINE:
            lines.append(line.rstrip())
            line = " " * (len(function) + 5)
        line += f"{argument}, "
    return "\n".join([*lines, line.rstrip(", ") + ");"])


def _fields(program: Program, symbols: list[str]) -> list[Field]:
    """The members of the state struct, widest first: no padding between them."""
    found: list[tuple[int, Field]] = []
    if program.detector is not None:
        n = program.detector.channels
        found += [
            (4, Field("elstm_alarm_t detector", "score, running mean excess, counters, alarm")),
            (4, Field(f"int32_t smoothed[{n}]", "Q5.16: running mean of each standardized residual")),
            (2, Field(f"int16_t residual[{n}]", "Q5.10: standardized residuals of the last scored row")),
            (1, Field(f"int8_t held[{n}]", "the last present input codes")),
            (1, Field(f"int8_t forecast[{n}]", "the network's codes for the row to come")),
        ]
    for layer, symbol in zip(program.layers, symbols, strict=True):
        name = one_line(layer.name)
        if isinstance(layer, LstmProgram):
            scale = f"{name}: int16 cell codes, scale 2**{layer.cell_power}"
            found.append((2, Field(f"int16_t {symbol}_cell[{layer.units}]", scale)))
            codes = f"{name}: hidden codes; [turn] are those of the last step"
            found.append((1, Field(f"int8_t {symbol}_hidden[2][{layer.units}]", codes)))
        elif layer is not program.layers[-1]:
            found.append((1, Field(f"int8_t {symbol}_output[{layer.outputs}]", f"{name}: output codes")))
    found.append((1, Field("uint8_t turn", "0 or 1: which half of the hidden codes is the last step's")))
    return [field for _, field in sorted(found, key=lambda pair: -pair[0])]


def _resets(program: Program, symbols: list[str]) -> list[str]:
    return [
        _call("elstm_lstm_reset", f"&{symbol}_layer", f"state->{symbol}_hidden[0]", f"state->{symbol}_cell")
        for layer, symbol in zip(program.layers, symbols, strict=True)
        if isinstance(layer, LstmProgram)
    ]


def _steps(program: Program, symbols: list[str]) -> list[str]:
    """One call a layer, from x to y."""
    calls, x = [], "x"
    for layer, symbol in zip(program.layers, symbols, strict=True):
        last = layer is program.layers[-1]
        if isinstance(layer, LstmProgram):
            hidden = f"state->{symbol}_hidden"
            step = "elstm_lstm_step_tflm" if program.profile == "tflm" else "elstm_lstm_step_litert"
            calls.append(
                _call(
                    step, f"&{symbol}_layer", x, f"{hidden}[now]", f"{hidden}[next]", f"state->{symbol}_cell"
                )
            )
            x = f"{hidden}[next]"
        else:
            y = "y" if last else f"state->{symbol}_output"
            calls.append(_call(f"elstm_dense_{program.profile}", f"&{symbol}_layer", x, y))
            x = y
    if isinstance(program.layers[-1], LstmProgram):
        calls.append(_call("memcpy", "y", x, f"{program.name.upper()}_OUTPUTS"))
    return calls
