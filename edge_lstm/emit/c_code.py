"""Program -> C99: ``NAME.c``, ``NAME.h`` and the files of the runtime that it needs.

Reads a Program; returns the text of the files, byte-identical for equal input.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache
from importlib import resources
from typing import Any

import jinja2
import numpy as np

from edge_lstm import __version__
from edge_lstm.emit.c_detector import option_arrays, option_fields, option_members, option_tables
from edge_lstm.emit.c_layers import EMITTERS, refusals
from edge_lstm.emit.c_plan import Block, Plan
from edge_lstm.emit.c_scaling import raw_lines, scalers_table
from edge_lstm.emit.c_step import Call, Code, Field, Step
from edge_lstm.emit.c_tables import LINE, codes_table, detector_constant, layer_symbols, one_line
from edge_lstm.errors import UnsupportedModel, raise_all
from edge_lstm.program import Program
from edge_lstm.qgraph import Quantization
from edge_lstm.scaling import FINE_BITS, QScaling

__all__ = ["API_VERSION", "emit_c", "layer_symbols", "program_hash", "runtime_text"]

API_VERSION = 4  # of elstm.h
# beside every model: raw integers to codes, the detector, tables, the integer primitives, the kernels by core
RUNTIME = (
    "elstm.c", "elstm.h", "elstm_fixed.h", "elstm_activations.h", "elstm_m0.h", "elstm_m3.h", "elstm_dsp.h",
    "elstm_mve.h", "elstm_simd.h", "elstm_lanes.h", "elstm_scores.h", "elstm_detector.h",
)  # fmt: skip
# beside models that call them; the first ones are headers alone
MORE = ("elstm_lstm", "elstm_wide", "elstm_operators", "elstm_softmax", "elstm_lstm_variants", "elstm_native")
HEADERS = ("elstm_lstm", "elstm_wide")


@dataclass(frozen=True)
class Part:
    """What one block adds to a model's C."""

    block: Block
    toggles: bool
    codes: list[Code]

    @property
    def resets(self) -> list[str]:
        return [_statement(call, 4) for code in self.codes for call in code.resets]

    @property
    def calls(self) -> list[str]:
        indent = 8 if self.block.loops else 4
        return [_statement(call, indent) for code in self.codes for call in code.calls]

    def uses(self, name: str) -> bool:
        """Whether its calls take a variable."""
        arguments = [text for code in self.codes for call in code.calls for text in call.arguments]
        return any(re.search(rf"\b{name}\b", text) for text in arguments)


def emit_c(
    program: Program, header_lines: Sequence[str] = (), scaling: QScaling | None = None
) -> dict[str, str]:
    """Return file name -> text of ``program`` and the runtime that it needs.

    header_lines: extra lines for the head of the header, such as how a value becomes a code.
    scaling: of its sensors' raw integers; without it the C takes codes alone and has no detector.
    Raises UnsupportedModel with every reason why the C cannot compute it.
    """
    raise_all(UnsupportedModel, f"model '{program.name}' has no C", refusals(program))
    plan = Plan(program)
    parts = [
        Part(
            block,
            any(plan.toggles(task) for task in block.tasks),
            [EMITTERS[type(task.layer)](Step(plan, block, task)) for task in block.tasks],
        )
        for block in plan.blocks
    ]
    called = {call.function for part in parts for code in part.codes for call in (*code.resets, *code.calls)}
    more = [part for part in MORE if called & set(re.findall(r"\belstm_\w+", runtime_text(f"{part}.h")))]
    if scaling is None:
        program = replace(program, detector=None)
    values = _values(program, plan, parts, scaling) | {
        "header_lines": [one_line(line) for line in header_lines],
        "includes": [f"{part}.h" for part in (*more, *(["elstm_detector"] if program.detector else []))],
        "needs_string_h": bool(called & {"memcpy", "memset"}) or program.detector is not None,
    }
    files = {f"{program.name}.{kind}": _template(f"model.{kind}.j2").render(values) for kind in ("c", "h")}
    headers = [f"{part}.h" for part in more]
    sources = [f"{part}.c" for part in more if part not in HEADERS]
    return files | {file: runtime_text(file) for file in runtime_with_included(*RUNTIME, *headers, *sources)}


def runtime_with_included(*files: str) -> list[str]:
    """Files of the runtime, and those that they include."""
    found = list(files)
    for file in found:
        included = re.findall(r'#include "(elstm_\w+\.h)"', runtime_text(file))
        found += [name for name in dict.fromkeys(included) if name not in found]
    return found


def _values(program: Program, plan: Plan, parts: Sequence[Part], scaling: QScaling | None) -> dict[str, Any]:
    """What the templates read of the network itself."""
    name, detector = program.name, program.detector
    codes = [code for part in parts for code in part.codes]
    constants = [constant for code in codes for constant in code.constants]
    if detector is not None:
        constant = detector_constant(detector)
        constant.members["scalers"] = "scalers"
        constant.members.update(option_members(detector))
        constant.tables.extend(option_tables(detector))
        constants.append(constant)
    return {
        "name": name,
        "upper": name.upper(),
        "api": API_VERSION,
        "summary": f"network '{name}', {program.features} inputs, {program.outputs} outputs, "
        f"numerics profile {program.profile}",
        "origin": (
            f"Written by edge-lstm {__version__} from program sha256:{program_hash(program, scaling)[:32]}.",
            f"Do not edit; rewrite it with: edge-lstm convert {name}.tflite --to c -o .",
        ),
        "features": program.features,
        "outputs": program.outputs,
        "input": program.input,
        "output": program.output,
        "input_codes": _codes_text(program.input),
        "output_codes": _codes_text(program.output),
        "window": program.window,
        "rows": program.rows,
        "tables": [
            *(codes_table(layer, symbol) for symbol, layer in plan.constants),
            *([scalers_table(scaling)] if scaling is not None else []),
        ],
        "scaling": scaling is not None,
        "raw_lines": raw_lines(scaling) if scaling is not None else [],
        "constants": constants,
        "fields": _fields(program, plan, parts),
        "parts": parts,
        "resets": [statement for part in parts for statement in part.resets],
        "unused": [name for name in ("state", "x") if not any(part.uses(name) for part in parts)],
        "detector": detector is not None,
        "option_arrays": option_arrays(detector) if detector is not None else {},
        "forecasts": detector is not None and detector.output_weight.any(),  # else the network is left out
        "warmup": detector.warmup if detector is not None else 0,
        "ahead": detector.ahead if detector is not None else 1,
    }


@cache
def _template(file: str) -> jinja2.Template:
    environment = jinja2.Environment(  # noqa: S701 - C has no markup to escape
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    source = (
        resources.files("edge_lstm.emit").joinpath("templates").joinpath(file).read_text(encoding="utf-8")
    )
    return environment.from_string(source)


@cache
def runtime_text(file: str) -> str:
    """The text of a file of the runtime."""
    return resources.files("edge_lstm").joinpath("c_runtime").joinpath(file).read_text(encoding="utf-8")


def program_hash(program: Program, scaling: QScaling | None = None) -> str:
    """sha256 over the program's names and integers and those of its scaling, 64 hexadecimal digits."""
    integers = None if scaling is None else scaling.integers
    return hashlib.sha256(json.dumps(_plain((program, integers)), sort_keys=True).encode()).hexdigest()


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        members = {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
        return {"kind": type(value).__name__, **members}
    if isinstance(value, tuple):
        return [_plain(entry) for entry in value]
    return value.tolist() if isinstance(value, np.ndarray) else value


def _codes_text(quantization: Quantization) -> str:
    return (
        f"int{quantization.bits} codes of scale {quantization.scale:.9g}, "
        f"zero point {quantization.zero_point}"
    )


def _statement(call: Call, indent: int) -> str:
    """A call statement, its arguments wrapped, its note behind it where there is room."""
    text = f"{' ' * indent}{call.function}({', '.join(call.arguments)});"
    if len(text) <= LINE:
        note = f" /* {call.note} */" if call.note else ""
        return text + note if len(text + note) <= LINE else text
    lines, line = [], f"{' ' * indent}{call.function}("
    hanging = " " * len(line)
    for argument in call.arguments:
        if len(line) + len(argument) + 2 > LINE:
            lines.append(line.rstrip())
            line = hanging
        line += f"{argument}, "
    return "\n".join([*lines, line.rstrip(", ") + ");"])


def _fields(program: Program, plan: Plan, parts: Iterable[Part]) -> list[Field]:
    """The members of the state struct, widest first: no padding between them."""
    found: list[Field] = []
    if program.detector is not None:
        n, rows = program.detector.channels, program.detector.rows
        kept = (program.detector.lags + 1) * n
        bits, forecasts = program.output.bits, max(program.detector.ahead, 1) * n
        of = "the row to come" if program.detector.ahead else "the last row"
        found += [
            Field(4, "elstm_alarm_t detector", "score, running mean excess, counters, alarm"),
            Field(4, f"int32_t smoothed[{rows}]", "Q5.16: running mean of each scored row"),
            Field(4, f"int32_t energy[{rows}]", "Q10.12: running mean of its square"),
            Field(2, f"int16_t residual[{n}]", "Q5.10: standardized residuals of the last scored row"),
            Field(
                2,
                f"int16_t fine[{kept}]",
                f"inputs of the last rows, the last first: codes with {FINE_BITS} more bits"
                if program.input.bits == 8
                else "codes of the last rows, the last first",
            ),
            Field(bits // 8, f"int{bits}_t forecast[{forecasts}]", f"the network's codes for {of}"),
        ]
        found += [field for field in option_fields(program.detector).values() if field is not None]
    found += [field for part in parts for code in part.codes for field in code.fields]
    found += [
        Field(bits // 8, f"int{bits}_t scratch{bits}[{codes}]", "what layers hand on to one another")
        for bits, codes in plan.scratch.items()
        if codes
    ]
    if not program.window and any(part.toggles for part in parts):
        found.append(Field(1, "uint8_t turn", "0 or 1: which half of the hidden codes is the last step's"))
    if not found:
        found.append(Field(1, "uint8_t unused", "this network keeps nothing"))
    return sorted(found, key=lambda field: -field.bytes)
