"""What is in an image and what a step costs: no heap, no float, counted instructions, linked sizes."""

from __future__ import annotations

import ctypes
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_lstm.errors import ConfigError, DataError
from edge_lstm.executors.numpy_executor import NumpyExecutor
from edge_lstm.qgraph import QGraph
from firmware_tools import build
from firmware_tools.build import GCC, write_sources
from firmware_tools.c_executor import UNUSED
from firmware_tools.cores import CORES, core_named
from firmware_tools.elf import read_image
from firmware_tools.emulator import STACK, STACK_BYTES, EmulatedExecutor, Machine, build_machine
from firmware_tools.host import load_library
from firmware_tools.measure import (
    InstructionCounter,
    image_bytes,
    measure,
    paint_stack,
    stack_depth,
    thumb_instructions,
)
from pump_network import CORE_COMPILERS, PUMP, compiler_for
from random_models import random_codes, random_present, random_raw
from test_host_and_cores import assert_same_codes

TABLE_BYTES = 2 * 513  # of the sigmoid


@pytest.fixture(scope="module", params=CORE_COMPILERS, ids="/".join)
def pump_machine(request: pytest.FixtureRequest) -> Machine:
    core, kind = request.param
    litert = replace(PUMP, name="pump_litert", profile="litert")
    return build_machine([PUMP, litert], core_named(core), compiler=compiler_for(core, kind))


def test_the_image_has_no_heap_no_variables_and_no_float(pump_machine: Machine) -> None:
    image = pump_machine.image
    names = {symbol.name for symbol in image.symbols}
    assert not {
        name for name in names if re.search(r"malloc|calloc|free|sbrk|^_*(aeabi_[fd]|[a-z]+[sd]f[23])", name)
    }
    assert not {name for name in names if "div" in name or "mod" in name}
    assert image.sections.get(".data", 0) + image.sections.get(".bss", 0) == 0
    states = [symbol.size for symbol in image.symbols if symbol.name.endswith("_harness_state")]
    library = load_library([PUMP])
    size = ctypes.c_uint32.in_dll(library, "pump_harness_state_bytes").value
    assert states == [size, size]


def test_no_instruction_of_the_image_is_for_a_float_unit(pump_machine: Machine, tmp_path: Path) -> None:
    """Run every function under a hook that decodes each instruction: coprocessors 10 and 11 are the VFP."""
    found = []

    def look(uc: Any, address: int, size: int, _data: Any) -> None:
        first = int.from_bytes(uc.mem_read(address, 2), "little")
        if size == 4 and first >> 10 in (0b111011, 0b111111):
            coprocessor = int.from_bytes(uc.mem_read(address + 2, 2), "little") >> 8 & 15
            if coprocessor in (10, 11):
                found.append(hex(address))

    pump_machine.uc.hook_add(4, look)  # UC_HOOK_CODE
    for qgraph in (PUMP, replace(PUMP, name="pump_litert", profile="litert")):
        executor = EmulatedExecutor(qgraph, pump_machine.core.name, machine=pump_machine)
        executor.detect(random_raw(qgraph, 1, 8, random_present(1, 8, 3)))
    assert found == []


@pytest.mark.parametrize("core", ["cortex-m0", "cortex-m4"])
def test_counting_by_block_equals_counting_every_instruction(core: str) -> None:
    machine = build_machine([PUMP], core_named(core))
    executor = EmulatedExecutor(PUMP, core, machine=machine)
    issued: list[int] = []
    shadow: set[int] = set()  # instructions after an IT: issued, but hooked only where their condition holds
    pointers: set[int] = set()

    def one(uc: Any, address: int, _size: int, _data: Any) -> None:
        pointers.add(uc.reg_read(machine._arm.UC_ARM_REG_SP))
        if address not in shadow:
            issued.append(address)
        first = int.from_bytes(uc.mem_read(address, 2), "little")
        if first >> 8 == 0xBF and first & 15:  # IT: as many instructions as its mask says
            at = address + 2
            for _ in range(4 - (first & -first).bit_length() + 1):
                issued.append(at)
                shadow.add(at)
                at += 4 if machine.read(at + 1, 1)[0] >> 3 >= 0b11101 else 2

    paint_stack(machine)
    for row in random_codes(5, 8, 3):
        issued.clear()
        hook = machine.uc.hook_add(4, one)  # UC_HOOK_CODE
        with InstructionCounter(machine) as counter:
            executor.run(row[None])
        machine.uc.hook_del(hook)
        assert counter.instructions == len(issued) > 300
    assert not shadow or core == "cortex-m4"
    deepest = STACK + STACK_BYTES - min(pointers)
    assert deepest - 16 <= stack_depth(machine) <= deepest  # locals that were never written stay painted


def test_thumb_instructions_are_two_or_four_bytes_long() -> None:
    # nop; bl .; ldr.w r0, [r1]; bx lr
    assert thumb_instructions(bytes.fromhex("00bf fff7feff d1f80000 7047")) == 4
    assert thumb_instructions(b"") == 0


@pytest.mark.parametrize("core", CORES)
def test_a_measurement_counts_one_step_and_reads_the_linked_sizes(core: str) -> None:
    codes = random_codes(6, 12, 3)
    step, detect = measure(PUMP, core, codes), measure(PUMP, core, codes, what="detect")
    spread = step.instructions_per_step
    assert 1000 < spread["min"] <= spread["mean"] <= spread["max"] < 20000
    assert step.detect_instructions_per_step is None
    assert detect.detect_instructions_per_step is not None
    assert detect.detect_instructions_per_step["min"] > spread["min"]
    assert detect.code_bytes > step.code_bytes > 1000
    assert step.table_bytes == TABLE_BYTES
    weights = sum(layer.kernel.size for layer in PUMP.layers) + PUMP.layers[0].recurrent_kernel.size  # type: ignore[union-attr]
    detector = PUMP.detector
    assert detector is not None and detector.forms is not None
    limit = weights + 700 + detector.forms.nbytes
    assert weights < step.weight_bytes < detect.weight_bytes + 1 < limit
    library = load_library([PUMP])
    assert step.ram_bytes == ctypes.c_uint32.in_dll(library, "pump_harness_state_bytes").value
    assert 40 <= step.stack_bytes <= detect.stack_bytes < 400
    assert step.compiler.split()[0] in (GCC, "zig")
    assert any(flag.replace("_", "-").startswith(f"-mcpu={core}") for flag in step.flags)


def test_the_other_profile_leaves_nothing_in_the_image() -> None:
    """The linker drops what a network does not use: table or polynomials."""
    codes = random_codes(6, 3, 3)
    tflm = measure(PUMP, "cortex-m4", codes)
    litert = measure(PUMP.with_profile("litert"), "cortex-m4", codes)
    assert (tflm.table_bytes, litert.table_bytes) == (TABLE_BYTES, 14)
    names = {symbol.name for symbol in build_machine([PUMP], core_named("cortex-m4")).image.symbols}
    assert not {name for name in names if "litert" in name or "polynomial" in name}


def test_measured_counts_do_not_depend_on_the_run() -> None:
    codes = random_codes(6, 5, 3)
    assert measure(PUMP, "cortex-m3", codes) == measure(PUMP, "cortex-m3", codes)


@pytest.mark.parametrize(
    ("kind", "message", "qgraph", "codes", "what"),
    [
        (ConfigError, "what is 'fly', expected 'step' or 'detect'", PUMP, (5, 3), "fly"),
        (DataError, "carries no detector", replace(PUMP, detector=None), (5, 3), "detect"),
        (DataError, r"codes are \(0, 3\), expected \(1 or more steps, 3\)", PUMP, (0, 3), "step"),
        (DataError, r"codes are \(5, 2\), expected \(1 or more steps, 3\)", PUMP, (5, 2), "step"),
    ],
)
def test_measuring_refuses_what_it_cannot_run(
    kind: type[Exception], message: str, qgraph: QGraph, codes: tuple[int, int], what: str
) -> None:
    with pytest.raises(kind, match=message):
        measure(qgraph, "cortex-m4", np.zeros(codes, dtype=np.int8), what=what)


def test_a_fresh_state_is_garbage_until_it_is_reset(tmp_path: Path) -> None:
    """The state starts painted, so a reset that forgets a member cannot pass by luck."""
    machine = build_machine([PUMP], core_named("cortex-m4"))
    state = machine.image.symbol("pump_harness_state")
    machine.write(state.address, bytes([UNUSED]) * state.size)
    machine.call("pump_reset", state.address)
    codes = random_codes(6, 30, 3)
    found = EmulatedExecutor(PUMP, "cortex-m4", machine=machine).run(codes)
    assert_same_codes(found, NumpyExecutor(PUMP).run(codes), "painted")


def test_sources_in_one_folder_are_what_the_image_is_made_of(tmp_path: Path) -> None:
    core = core_named("cortex-m4")
    image = read_image(build.build_core(core, write_sources([PUMP], tmp_path), tmp_path))
    sizes = image_bytes(image)
    assert sizes["code_bytes"] == image.sections[".code"]
    assert sizes["ram_bytes"] == image.symbol("pump_harness_state").size
