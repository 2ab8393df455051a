"""The exported C on a Cortex-M55 in QEMU: codes, detector, counts, the ends of arrays, and failures."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import edge_lstm
from benchmark_models import benchmark_model
from conftest import missing
from edge_lstm.errors import ConfigError, DataError, MissingTool, RuntimeFailure
from edge_lstm.executors.numpy_executor import NumpyExecutor
from edge_lstm.executors.streams import mixed_stream
from edge_lstm.qgraph import QGraph
from firmware_tools import measure as measuring
from firmware_tools import qemu
from firmware_tools.build import HARNESS, Compiler, Sources, build_core, core_compilers
from firmware_tools.cores import core_named
from firmware_tools.qemu import BUFFER, CORTEX_M55, QEMU, QemuExecutor, QemuMachine, build_machine
from random_models import c_files, random_codes, random_present, random_qgraph, random_raw

STEPS = 40
DATA_END, CONSTANTS_END = 0x30080000, 0x10080000  # nothing lies behind
# features, units: below, at and above groups of 4 columns, 8 units and 16 columns
SHAPES = (
    (1, 1), (2, 7), (3, 32), (4, 4), (5, 17), (6, 8), (7, 20), (8, 16), (9, 33), (10, 36), (11, 3), (12, 40),
    (13, 12), (15, 5), (16, 31), (17, 24),
)  # fmt: skip


def _networks() -> list[QGraph]:
    """One layer of every shape, half with a dense layer, some saturating; two layers, litert, detectors."""
    drawn = [
        random_qgraph(
            seed, layers=1, units=units, features=features, dense=seed % 2 == 0, saturating=seed % 3 == 0
        )
        for seed, (features, units) in enumerate(SHAPES, 700)
    ]
    drawn += [random_qgraph(42, layers=2), replace(random_qgraph(41), name="litert", profile="litert")]
    drawn += [random_qgraph(seed, layers=1, units=9, features=2, detector=True) for seed in (35, 38)]
    return drawn


NETWORKS = _networks()
PUMP = replace(random_qgraph(57, layers=1, units=12, features=7), name="pump")


@pytest.fixture(scope="module", autouse=True)
def tools() -> None:
    """Without QEMU or a compiler a laptop skips."""
    if shutil.which(QEMU) is None:
        missing(QEMU)
    if not core_compilers(CORTEX_M55):
        missing("a compiler for cortex-m55")


@pytest.fixture(scope="module")
def machine() -> Iterator[QemuMachine]:
    """One machine with all NETWORKS."""
    built = build_machine(NETWORKS, CORTEX_M55)
    yield built
    built.close()


def assert_same_codes(found: np.ndarray, expected: np.ndarray, what: str) -> None:
    """Equal arrays; else the first place where they differ."""
    assert found.shape == expected.shape
    places = np.argwhere(found != expected)
    if len(places):
        first = tuple(places[0])
        pytest.fail(f"{what}, step and output {first}: got {found[first]}, want {expected[first]} "
                    f"({len(places)} of {found.size} differ)")  # fmt: skip


def place_of(qgraph: QGraph) -> str:
    """What a failure names: the network and its widths."""
    widths = [getattr(layer, "units", getattr(layer, "outputs", 0)) for layer in qgraph.layers]
    return f"{qgraph.name}, {qgraph.features} features, then {widths}"


def test_the_m55_returns_the_codes_of_the_reference(machine: QemuMachine) -> None:
    for qgraph in NETWORKS:
        codes = random_codes(1, STEPS, qgraph.features)
        found = QemuExecutor(qgraph, machine=machine).run(codes)
        assert_same_codes(found, NumpyExecutor(qgraph).run(codes), place_of(qgraph))


def test_single_steps_equal_one_run_and_windows_begin_from_reset(machine: QemuMachine) -> None:
    for qgraph in NETWORKS[::5]:
        codes = random_codes(3, 12, qgraph.features)
        executor = QemuExecutor(qgraph, machine=machine)
        whole = executor.run(codes)
        executor.reset()
        assert_same_codes(np.stack([executor.step(row) for row in codes]), whole, qgraph.name)
        assert_same_codes(executor.run_windows(np.stack([codes, codes]))[1], whole, qgraph.name)
        assert executor.run(codes[:0]).shape == (0, qgraph.outputs)


def test_the_detector_equals_its_twin_bit_for_bit(machine: QemuMachine) -> None:
    with_detector = [qgraph for qgraph in NETWORKS if qgraph.detector is not None]
    assert len(with_detector) == 2
    for qgraph in with_detector:
        raw = random_raw(qgraph, 2, 90, random_present(2, 90, qgraph.features))
        found = QemuExecutor(qgraph, machine=machine).detect(raw)
        expected = NumpyExecutor(qgraph).detect(raw)
        for name in ("score", "alarm", "threshold", "contributions"):
            assert_same_codes(getattr(found, name), getattr(expected, name), f"{qgraph.name}, {name}")


# every code through the activations; edges and random values through the rest: returns how many differ
PRIMITIVES = """
#include "elstm_lstm.h"

enum { TRIALS = 8000, SIGMOID = 0, TANH, SQUASH, UPDATE, REQUANTIZE };
uint32_t differences[5];
static uint32_t seed = 1;

static int32_t draw(void)
{
    seed = seed * 1664525u + 1013904223u;
    return (int32_t)(seed << 16 | seed >> 16);
}

static int16_t code(void)
{
    static const int16_t edges[4] = {32767, -32768, 0, -1};
    const int32_t x = draw();
    return (x & 3) == 0 ? edges[x >> 2 & 3] : (int16_t)((x & 3) == 1 ? (x >> 8 & 63) - 32 : x >> 12);
}

static void activations(void)
{
    int16_t x[8], y[8];
    for (int32_t first = -32768; first < 32768; first += 8) {
        for (int32_t k = 0; k < 8; k++) {
            x[k] = (int16_t)(first + k);
        }
        vst1q_s16(y, elstm_sigmoid_eight(vld1q_s16(x)));
        for (int32_t k = 0; k < 8; k++) {
            differences[SIGMOID] += y[k] != elstm_sigmoid_by_table(x[k], 0);
        }
        for (int8_t shift = -3; shift <= 3; shift++) {
            vst1q_s16(y, elstm_tanh_eight(vld1q_s16(x), shift));
            for (int32_t k = 0; k < 8; k++) {
                differences[shift == 0 ? TANH : SQUASH] += y[k] != elstm_tanh_by_table(x[k], shift);
            }
        }
    }
}

static void update(int8_t power, int16_t limit)
{
    const elstm_lstm_t layer = {.cell_power = power, .cell_clip = limit};
    int16_t c[8], i[8], f[8], g[8], y[8];
    for (int32_t k = 0; k < 8; k++) {
        c[k] = code();
        g[k] = code() | 1; /* never -32768 */
        i[k] = code() & 32767;
        f[k] = code() & 32767;
    }
    const int16x8_t fresh = elstm_update_cell_product(vld1q_s16(i), vld1q_s16(g), (uint8_t)(29 + power));
    vst1q_s16(y, elstm_update_cell_eight(&layer, vld1q_s16(c), vld1q_s16(f), fresh));
    for (int32_t k = 0; k < 8; k++) {
        differences[UPDATE] += y[k] != elstm_update_cell_tflm(c[k], i[k], f[k], g[k], power, limit);
    }
}

static void requantize(int8_t shift)
{
    const elstm_requantizer_t r = {.multiplier = 0x40000000 | (draw() & 0x3fffffff), .shift = shift};
    int32_t acc[8];
    int16_t y[8];
    for (int32_t k = 0; k < 8; k++) {
        const int32_t tie = (int32_t)((uint32_t)code() << 16) >> 6;
        acc[k] = k < 4 ? draw() >> ((draw() & 15) + 2) : tie / (shift > 0 ? 64 : 1);
        acc[k] >>= shift > 0 ? shift : 0;
    }
    const int32x4x2_t halves = vld2q_s32(acc);
    vst1q_s16(y, elstm_requantize_eight(halves.val[0], halves.val[1], r));
    for (int32_t k = 0; k < 8; k++) {
        differences[REQUANTIZE] += y[k] != elstm_saturate_16(elstm_requantize(acc[k], r));
    }
}

void compare(void);
void compare(void)
{
    activations();
    for (int32_t trial = 0; trial < TRIALS; trial++) {
        update((int8_t)(-15 + trial % 7), trial % 2 ? (int16_t)(code() & 32767) : 0);
        requantize((int8_t)(5 - trial % 30));
    }
}
"""


def test_every_vector_primitive_equals_its_scalar_twin(tmp_path: Path) -> None:
    harness = tmp_path / "edge_harness.c"
    harness.write_text(PRIMITIVES)
    runtime = Path(edge_lstm.__file__).parent / "c_runtime"
    sources = Sources((), (runtime / "elstm.c", HARNESS / "qemu.c"), harness, runtime, "qemu_start")
    machine = QemuMachine(build_core(CORTEX_M55, sources, tmp_path, qemu.compiler_of(CORTEX_M55)), CORTEX_M55)
    machine.call("compare")
    found = np.frombuffer(machine.read(machine.image.symbol("differences").address, 20), dtype="<u4")
    names = ("sigmoid", "tanh", "tanh of the cell", "cell update", "requantize")
    assert dict(zip(names, found.tolist(), strict=True)) == dict.fromkeys(names, 0)


# --- the ends of arrays ------------------------------------------------------------------------------


def run_at(machine: QemuMachine, qgraph: QGraph, codes: np.ndarray, state: int, x: int) -> np.ndarray:
    """``run`` with the state and each row at given addresses."""
    rows = []
    machine.call(f"{qgraph.name}_harness_reset", state)
    for row in codes:
        machine.write(x, row.tobytes())
        machine.call(f"{qgraph.name}_step", state, x, BUFFER)
        rows.append(np.frombuffer(machine.read(BUFFER, qgraph.outputs), dtype=np.int8))
    return np.stack(rows)


def test_no_load_leaves_the_state_or_the_row(machine: QemuMachine) -> None:
    for qgraph in NETWORKS:
        codes = random_codes(4, 4, qgraph.features)
        expected = NumpyExecutor(qgraph).run(codes)
        state = machine.image.symbol(f"{qgraph.name}_harness_state")
        last_row, last_state = DATA_END - qgraph.features, DATA_END - state.size
        found = run_at(machine, qgraph, codes, state.address, last_row)
        assert_same_codes(found, expected, f"{place_of(qgraph)}, the row ends where memory ends")
        found = run_at(machine, qgraph, codes, last_state, BUFFER)
        assert_same_codes(found, expected, f"{place_of(qgraph)}, the state ends where memory ends")


@pytest.mark.parametrize("table", ["lstm_0_weights", "dense_weights", "dense_requantizers"])
def test_no_load_leaves_a_table_of_the_model(table: str, exported: Path) -> None:
    text = (exported / "pump.c").read_text()
    head = next(line for line in text.splitlines() if f" {table}[" in line)
    edit(exported / "pump.c", head, f'__attribute__((section(".last"))) {head}')
    machine = build_machine([PUMP], CORTEX_M55, c_dir=exported)
    symbol = machine.image.symbol(table)
    assert CONSTANTS_END - 8 < symbol.address + symbol.size <= CONSTANTS_END
    codes = random_codes(4, 10, PUMP.features)
    found = QemuExecutor(PUMP, machine=machine).run(codes)
    assert_same_codes(found, NumpyExecutor(PUMP).run(codes), table)
    with pytest.raises(RuntimeFailure, match="failed: a fault with status 0x"):  # there is an end
        run_at(machine, PUMP, codes, BUFFER, DATA_END - 2)


# --- counts ------------------------------------------------------------------------------------------


def linked_for_qemu(compiler: Compiler) -> Compiler:
    flags = [str(HARNESS / "qemu.ld") if flag.endswith("core.ld") else flag for flag in compiler.link_flags]
    return replace(compiler, link_flags=tuple(flags))


def test_counts_of_code_for_an_m33_equal_those_of_the_other_emulator() -> None:
    qgraph = random_qgraph(57)
    codes = random_codes(1, 10, qgraph.features)
    counted = measuring.measure(qgraph, "cortex-m33", codes).instructions_per_step
    compiler = linked_for_qemu(core_compilers(core_named("cortex-m33"))[0])
    machine = build_machine([qgraph], CORTEX_M55, compiler=compiler)
    state = machine.image.symbol(f"{qgraph.name}_harness_state").address
    machine.call(f"{qgraph.name}_harness_reset", state)
    counts = []
    for row in codes:
        machine.write(BUFFER, row.tobytes())
        counts.append(machine.count(f"{qgraph.name}_step", state, BUFFER, BUFFER + 64))
    assert measuring.spread(counts) == counted


def test_a_measurement_counts_the_same_every_time_and_more_units_cost_more() -> None:
    small, large = (benchmark_model(name) for name in ("D", "L32"))
    once = qemu.measure(small, "cortex-m55", mixed_stream(8, 20, 0))
    assert qemu.measure(small, "cortex-m55", mixed_stream(8, 20, 0)) == once
    more = qemu.measure(large, "cortex-m55", mixed_stream(8, 20, 0))
    assert once.instructions_per_step["max"] < 1300
    assert 1.5 * once.instructions_per_step["max"] < more.instructions_per_step["min"] < 2700
    assert once.detect_instructions_per_step is None and once.phases is None
    assert once.ram_bytes == 2 * 16 + 2 * 16 + 2  # cell, two rows of hidden codes, the turn
    assert 1664 < once.weight_bytes < 2600 and 500 < once.table_bytes < 1100
    assert 256 < once.stack_bytes < 800


def test_the_detector_is_counted_on_top_of_the_step() -> None:
    found = qemu.measure(
        benchmark_model("D", detector=True), "cortex-m55", mixed_stream(8, 9, 0), what="detect"
    )
    assert found.detect_instructions_per_step is not None
    assert found.detect_instructions_per_step["min"] > found.instructions_per_step["max"]


# --- failures ----------------------------------------------------------------------------------------


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """The C of PUMP, as `convert --to c` writes it."""
    for file, text in c_files(PUMP).items():
        (tmp_path / file).write_text(text)
    return tmp_path


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def broken(exported: Path, code: str) -> QemuExecutor:
    """PUMP whose step begins with ``code``."""
    edit(exported / "pump.c", "    elstm_lstm_step_tflm(", f"    {code}\n    elstm_lstm_step_tflm(")
    return QemuExecutor(PUMP, c_dir=exported)


def test_a_fault_names_the_function_that_it_happened_in(exported: Path) -> None:
    executor = broken(exported, "*(volatile int8_t *)0x0F000000 = 1;")
    message = (
        r"cortex-m55: call of pump_harness_run failed: a fault with status 0x\w+ at pc 0x100\w+ in pump_step"
    )
    with pytest.raises(RuntimeFailure, match=message):
        executor.run(random_codes(0, 5, 7))
    with pytest.raises(RuntimeFailure, match="call of write failed: the machine has stopped"):
        executor.run(random_codes(0, 5, 7))


def test_a_call_that_does_not_return_is_cut_off(exported: Path) -> None:
    executor = broken(exported, "for (volatile uint8_t never = 0; never < 1u;) { }")
    executor.machine.limit_s = 0.5
    with pytest.raises(RuntimeFailure, match=r"pump_harness_run failed: it did not return within 0.5 s"):
        executor.run(random_codes(0, 5, 7))


def test_a_machine_without_qemu_or_compilers_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(MissingTool, match=r"qemu-system-arm is not on PATH.*\n.*apt install qemu-system-arm"):
        QemuExecutor(PUMP)
    monkeypatch.setattr(shutil, "which", lambda name: name if name == QEMU else None)
    monkeypatch.setattr("firmware_tools.build.find_spec", lambda name: None)
    with pytest.raises(MissingTool, match=r"no C compiler for cortex-m55 found.*\n.*gcc-arm-none-eabi"):
        QemuExecutor(PUMP)


def test_a_qemu_that_lacks_the_machine_is_shown_in_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu, "MACHINE", ("-M", "mps9-an999"))
    with pytest.raises(RuntimeFailure, match="the machine has stopped: .*unsupported machine type"):
        QemuExecutor(PUMP)


def test_what_qemu_cannot_run_is_refused(machine: QemuMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="core 'cortex-m4' is unknown to QEMU; choose one of cortex-m55"):
        QemuExecutor(PUMP, "cortex-m4")
    monkeypatch.setattr(qemu, "BUFFER_BYTES", 64)
    with pytest.raises(DataError, match="100 rows and their outputs do not fit the 64 bytes"):
        QemuExecutor(NETWORKS[0], machine=machine).run(random_codes(0, 100, NETWORKS[0].features))
