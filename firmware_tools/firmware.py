"""A network -> the C files of its firmware: the model, the runtime, the protocol and the main loop.

Reads a QGraph; writes into a folder of the caller.  A board adds its port and a linker script.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge_lstm import __version__
from edge_lstm.emit.c_code import emit_c, program_hash
from edge_lstm.errors import ConfigError
from edge_lstm.lower import lower
from edge_lstm.qgraph import QGraph
from edge_lstm.scaling import scaling_of
from firmware_tools.build import HARNESS, written_rows
from firmware_tools.protocol import DETECTED_BYTES, HASH_BYTES, RAW_BYTES

FILES = ("firmware.c", "protocol.c", "protocol.h", "port.h")
MLPERF_FILES = ("mlperf.c", "port.h")
MODEL_HEADER = "firmware_model.h"
TAKEN = {Path(file).stem for file in (*FILES, *MLPERF_FILES, MODEL_HEADER, "posix_port.c")}


@dataclass(frozen=True)
class Firmware:
    """sources: every C file but the board's own.  include: the folder of the headers."""

    sources: tuple[Path, ...]
    include: Path


def write_firmware(qgraph: QGraph, folder: Path, mlperf: bool = False) -> Firmware:
    """Write all C of the firmware of ``qgraph`` but the board's port into ``folder``.

    mlperf: it answers the commands of MLCommons Tiny's runner instead of those of PROTOCOL.md.
    Raises ConfigError for a model with the name of one of these files, UnsupportedModel for one without C.
    """
    if qgraph.name in TAKEN:
        raise ConfigError(
            f"model '{qgraph.name}' has the name of a file of the firmware; rename the model's file"
        )
    scaling = scaling_of(qgraph.stream, qgraph.input)
    files = emit_c(lower(qgraph), scaling=scaling) | {MODEL_HEADER: model_header(qgraph)}
    files |= {
        file: (HARNESS / file).read_text(encoding="utf-8") for file in (MLPERF_FILES if mlperf else FILES)
    }
    for file, text in files.items():
        (folder / file).write_text(text, encoding="utf-8")
    return Firmware(tuple(folder / file for file in files if file.endswith(".c")), folder)


def firmware_hash(qgraph: QGraph) -> str:
    """What hello reports of weights, numerics and scaling: the first 16 digits of ``program_hash``."""
    return program_hash(lower(qgraph), scaling_of(qgraph.stream, qgraph.input))[: 2 * HASH_BYTES]


def model_header(qgraph: QGraph) -> str:
    """The text of ``firmware_model.h``: the model under the names that the protocol calls it by."""
    name, raw = qgraph.name, qgraph.stream.raw and not qgraph.window
    detector = qgraph.detector is not None and raw
    read, written = qgraph.window or 1, written_rows(qgraph)
    reads = read * qgraph.features * qgraph.input.bits // 8
    writes = written * qgraph.outputs * qgraph.output.bits // 8
    digits = bytes.fromhex(firmware_hash(qgraph))
    values = {
        "NAME": f'"{name}"',
        "BUILD": f'"edge-lstm {__version__}, profile {qgraph.profile}"',
        "HASH": f"{{{', '.join(f'0x{byte:02x}' for byte in digits)}}}",
        "FEATURES": qgraph.features,
        "OUTPUTS": qgraph.outputs,
        "WINDOW": f"{qgraph.window or 0} /* rows of a call; 0: a stream, row by row */",
        "READ_ROWS": read,
        "WRITTEN_ROWS": written,
        **_code_macros(qgraph),
        "RAW": f"{int(raw)} /* rows of raw integers are taken */",
        "DETECTOR": int(detector),
        "REQUEST_BYTES": f"{max(reads, RAW_BYTES * qgraph.features * raw)} /* that a payload must hold */",
        "REPLY_BYTES": max(writes, (DETECTED_BYTES + 4 * qgraph.features) * detector),
        **_call_macros(qgraph, bool(raw), detector),
    }
    lines = [
        f"/* {MODEL_HEADER}: the network '{name}' as the firmware calls it.  Written by edge-lstm. */",
        "#ifndef FIRMWARE_MODEL_H",
        "#define FIRMWARE_MODEL_H",
        "",
        f'#include "{name}.h"',
        "",
        f"typedef {name}_state_t model_state_t;",
        f"typedef int{qgraph.input.bits}_t model_input_t;",
        f"typedef int{qgraph.output.bits}_t model_output_t;",
        "",
        *(f"#define MODEL_{macro} {value}" for macro, value in values.items()),
        "",
        "#endif",
        "",
    ]
    return "\n".join(lines)


def _call_macros(qgraph: QGraph, raw: bool, detector: bool) -> dict[str, str]:
    """The functions of the model's C."""
    name = qgraph.name
    calls = {
        "RESET(state)": "(void)(state)" if qgraph.window else f"{name}_reset(state)",
        "RUN(state, x, y)": f"{name}_{'window' if qgraph.window else 'step'}(state, x, y)",
    }
    if raw:
        calls["SCALE(raw, x)"] = f"{name}_scale(raw, x)"
    if detector:
        calls["DETECT(state, raw, score)"] = f"{name}_detect(state, raw, score)"
        calls["THRESHOLD(state)"] = f"{name}_threshold(state)"
        calls["CONTRIBUTION(state, channel)"] = f"{name}_contribution(state, channel)"
    return calls


def _code_macros(qgraph: QGraph) -> dict[str, int | str]:
    """What the codes are."""
    return {
        "INPUT_BITS": qgraph.input.bits,
        "INPUT_ZERO_POINT": qgraph.input.zero_point,
        "OUTPUT_BITS": qgraph.output.bits,
        "OUTPUT_ZERO_POINT": qgraph.output.zero_point,
        "OUTPUT_NANO_SCALE": f"{round(qgraph.output.scale * 1e9)} /* of an output code, times 10**9 */",
    }
