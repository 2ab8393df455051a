"""The kernels of each core: the same codes from other instructions, and no access that a part refuses."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import missing
from edge_lstm.emit.c_code import emit_c
from edge_lstm.errors import MissingTool
from edge_lstm.executors.numpy_executor import NumpyExecutor
from edge_lstm.lower import lower
from edge_lstm.qgraph import QGraph
from firmware_tools.cores import CORES, core_named
from firmware_tools.emulator import BUFFER, BUFFER_BYTES, STACK, EmulatedExecutor, Machine, build_machine
from random_models import random_codes, random_qgraph

STEPS = 30
PROFILES = ("tflm", "litert", "tflite")
READ_OR_WRITE = 1 << 10 | 1 << 11  # unicorn's hooks
SIZES = ((1, 1), (4, 4), (5, 3), (6, 8), (7, 9), (8, 2), (16, 7))  # units, features
OTHERS = [name for name in CORES if name != "cortex-m4"]  # that one: test_agreement.py, with more networks


def qgraph_of(seed: int) -> QGraph:
    return random_qgraph(seed, dense=seed % 4 != 0, saturating=seed % 3 == 0)


def machine_of(qgraphs: list[QGraph], core: str) -> Machine:
    try:
        return build_machine(qgraphs, core_named(core))
    except MissingTool as error:
        missing(str(error))
        raise


@pytest.mark.parametrize("core", OTHERS)
def test_every_core_returns_the_codes_of_the_reference(core: str) -> None:
    start = 1000 + 40 * OTHERS.index(core)
    qgraphs = [qgraph_of(seed) for seed in range(start, start + 40)]
    assert len({qgraph.layers[0].units % 4 for qgraph in qgraphs}) == 4  # type: ignore[union-attr]
    machine = machine_of(qgraphs, core)
    for qgraph in qgraphs:
        codes = random_codes(start, STEPS, qgraph.features)
        found = EmulatedExecutor(qgraph, core, machine=machine).run(codes)
        assert (found == NumpyExecutor(qgraph).run(codes)).all(), f"{core}, {qgraph.name}"


@pytest.mark.parametrize("core", CORES)
def test_a_step_reads_only_what_is_there_and_in_whole_words(core: str) -> None:
    """x lies at the end of what is mapped, on any address; reads of constants stay within one table."""
    qgraphs = [random_qgraph(seed, layers=1, units=u, features=f) for seed, (u, f) in enumerate(SIZES)]
    machine = machine_of(qgraphs, core)
    tables = sorted((s.address, s.address + s.size) for s in machine.image.symbols if not s.function)
    unaligned: list[int] = []
    outside: list[int] = []

    def look(_uc: Any, _access: int, address: int, size: int, _value: int, _data: Any) -> None:
        if address % size:
            unaligned.append(address)
        inside = any(start <= address and address + size <= end for start, end in tables)
        if address < 0x20000000 and not inside and machine.image.function_at(address) == "no function":
            outside.append(address)

    machine.uc.hook_add(READ_OR_WRITE, look)
    for qgraph in qgraphs:
        codes = random_codes(5, 3, qgraph.features)
        state = machine.image.symbol(f"{qgraph.name}_harness_state")
        x, y = BUFFER + BUFFER_BYTES - qgraph.features, STACK + 1
        machine.call(f"{qgraph.name}_reset", state.address)
        found = []
        for row in codes:
            machine.write(x, row.tobytes())
            machine.call(f"{qgraph.name}_step", state.address, x, y)
            found.append(np.frombuffer(machine.read(y, qgraph.outputs), np.int8))
        assert (np.stack(found) == NumpyExecutor(qgraph).run(codes)).all()
    assert outside == []
    assert core != "cortex-m0" or unaligned == []


def sanitized_main(qgraphs: list[QGraph]) -> str:
    """A program that runs every network from reset on heap arrays of its very sizes; rows from stdin."""
    blocks = []
    for qgraph in qgraphs:
        name, upper = qgraph.name, qgraph.name.upper()
        blocks.append(
            f"    {{\n        {name}_state_t *state = malloc(sizeof *state);\n"
            f"        int8_t *x = malloc({upper}_FEATURES), *y = malloc({upper}_OUTPUTS);\n"
            f"        memset(state, 0xA5, sizeof *state);\n        {name}_reset(state);\n"
            f"        for (int t = 0; t < {STEPS}; t++) {{\n"
            f"            if (fread(x, 1, {upper}_FEATURES, stdin) != {upper}_FEATURES) return 1;\n"
            f"            {name}_step(state, x, y);\n"
            f"            fwrite(y, 1, {upper}_OUTPUTS, stdout);\n        }}\n"
            "        free(y); free(x); free(state);\n    }\n"
        )
    includes = "".join(f'#include "{qgraph.name}.h"\n' for qgraph in qgraphs)
    return (
        f"#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n{includes}"
        f"int main(void) {{\n{''.join(blocks)}    return 0;\n}}\n"
    )


def test_the_sanitizers_find_nothing_in_many_networks(tmp_path: Path) -> None:
    if shutil.which("gcc") is None:
        missing("gcc")
    qgraphs = [qgraph_of(seed).with_profile(PROFILES[seed % 3]) for seed in range(2000, 2040)]
    for qgraph in qgraphs:
        for file, text in emit_c(lower(qgraph)).items():
            (tmp_path / file).write_text(text)
    (tmp_path / "main.c").write_text(sanitized_main(qgraphs))
    flags = ("-std=c99", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    sources = sorted(tmp_path.glob("*.c"))
    subprocess.run(["gcc", *flags, *sources, "-o", tmp_path / "main"], check=True)
    streams = [random_codes(9, STEPS, qgraph.features) for qgraph in qgraphs]
    written = b"".join(codes.tobytes() for codes in streams)
    done = subprocess.run([tmp_path / "main"], input=written, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    expected = (NumpyExecutor(q).run(codes).tobytes() for q, codes in zip(qgraphs, streams, strict=True))
    assert done.stdout == b"".join(expected)
