"""The operators beside the LSTM in C: random networks on host and core, their memory, their text."""

from __future__ import annotations

import ctypes
import re
from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edge_lstm import fixedpoint
from edge_lstm.emit.c_code import (
    RUNTIME,
    emit_c,
    layer_symbols,
    program_hash,
    runtime_text,
    runtime_with_included,
)
from edge_lstm.executors.numpy_executor import NumpyExecutor
from edge_lstm.lower import lower
from edge_lstm.operators import QState, wide
from edge_lstm.qgraph import (
    CodeArray,
    QAdd,
    QConcat,
    QConstant,
    QDelay,
    QDense,
    QGraph,
    QLookup,
    QMul,
    QRelu,
    QRepeat,
    QReverse,
    QRow,
    QScan,
    QSlice,
    Quantization,
)
from firmware_tools import build
from firmware_tools.cores import core_named
from firmware_tools.elf import read_image
from firmware_tools.emulator import EmulatedExecutor, Machine
from firmware_tools.host import HostExecutor
from random_models import random_qgraph
from random_operators import KINDS, PROFILES, network, operator_codes, random_operator_graph
from test_c_code import COMPILERS, SANITIZE, WARNINGS, need, run, run_on_avr
from test_host_and_cores import assert_same_codes

GRAPHS = 64  # of each kind, a quarter of them in each profile
WINDOWS = 3
Q8 = Quantization(1 / 64, 3)


@cache
def graphs_of(kind: str, many: int = GRAPHS) -> list[QGraph]:
    """Networks of one kind, the profiles in turn."""
    graphs = []
    for seed in range(many):
        qgraph = random_operator_graph(seed, kind)
        profile = PROFILES[seed % len(PROFILES)]
        if profile == "native" and any(hasattr(layer, "recurrent_kernel") for layer in qgraph.layers):
            profile = "tflm"  # that profile has an LSTM of its own
        graphs.append(qgraph.with_profile(profile))
    return graphs


def sources_of(graphs: list[QGraph], folder: Path) -> build.Sources:
    """All networks in one file: their tables have distinct names, and one compilation is ten times faster."""
    sources = build.write_sources(graphs, folder)
    together = folder / "all_models.c"
    together.write_text("".join(f'#include "{path.name}"\n' for path in sources.models))
    return replace(sources, models=(together,))


def machine_of(graphs: list[QGraph], core: str) -> Machine:
    with TemporaryDirectory() as name:
        return core_machine(sources_of(graphs, Path(name)), core)


def core_machine(sources: build.Sources, core: str) -> Machine:
    image = build.build_core(core_named(core), sources, sources.harness.parent)
    return Machine(read_image(image), core_named(core))


def library_of(sources: build.Sources) -> ctypes.CDLL:
    return ctypes.CDLL(str(build.build_host(sources, sources.harness.parent)))


def codes_of(qgraph: QGraph) -> CodeArray:
    return operator_codes(qgraph, WINDOWS * (qgraph.window or 8))


@pytest.mark.parametrize("kind", KINDS)
def test_host_and_emulated_core_return_the_codes_of_the_reference(kind: str, tmp_path: Path) -> None:
    graphs = graphs_of(kind)
    sources = sources_of(graphs, tmp_path)
    library, machine = library_of(sources), core_machine(sources, "cortex-m4")
    for qgraph in graphs:
        codes = codes_of(qgraph)
        expected = NumpyExecutor(qgraph).run(codes)
        what = f"{qgraph.name} {qgraph.profile}"
        assert_same_codes(HostExecutor(qgraph, library=library).run(codes), expected, f"host {what}")
        emulated = EmulatedExecutor(qgraph, "cortex-m4", machine=machine)
        assert_same_codes(emulated.run(codes), expected, f"cortex-m4 {what}")


def test_the_random_networks_have_every_operator_in_every_place() -> None:
    graphs = [qgraph for kind in KINDS for qgraph in graphs_of(kind)]
    counts = Counter(type(layer).__name__ for qgraph in graphs for layer in qgraph.layers)
    nested = Counter(
        type(layer).__name__
        for q in graphs
        for scan in q.layers
        if isinstance(scan, QScan)
        for layer in scan.body
    )
    assert min(counts.values()) >= 20 and len(counts) == 16, counts
    assert min(nested.values()) >= 20 and len(nested) == 11, nested
    assert {qgraph.window for qgraph in graphs} == set(range(21))
    scans = [layer for q in graphs for layer in q.layers if isinstance(layer, QScan)]
    assert {(len(scan.states), scan.backwards) for scan in scans} == {
        (1, False),
        (1, True),
        (2, False),
        (2, True),
    }
    assert {(q.input.bits, q.output.bits) for q in graphs} == {(8, 8), (8, 16), (16, 8), (16, 16)}
    text = "".join(emit_c(lower(qgraph))[f"{qgraph.name}.c"] for qgraph in graphs_of("dense"))
    assert min(text.count(f"elstm_dense_{kind}(") for kind in (16, 48, "tflm", "litert", "tflite")) >= 3


@pytest.fixture(scope="module")
def sample() -> list[QGraph]:
    return [qgraph for kind in KINDS for qgraph in graphs_of(kind)[:8]]


@pytest.fixture(scope="module", params=["host", "cortex-m0"])
def opened(request: pytest.FixtureRequest, sample: list[QGraph]) -> list[Any]:
    """The sample on the host and on the core without 64-bit products."""
    if request.param == "host":
        with TemporaryDirectory() as name:
            library = library_of(sources_of(sample, Path(name)))
        return [HostExecutor(qgraph, library=library) for qgraph in sample]
    machine = machine_of(sample, request.param)
    return [EmulatedExecutor(qgraph, request.param, machine=machine) for qgraph in sample]


def test_single_calls_equal_one_call_of_all(opened: list[Any]) -> None:
    for executor in opened:
        qgraph = executor.qgraph
        codes, rows = codes_of(qgraph), qgraph.window or 1
        expected = NumpyExecutor(qgraph).run(codes)
        executor.run(codes[::-1])  # what a window must not remember
        if not qgraph.window:
            executor.reset()
        single = [executor.run(codes[at : at + rows]) for at in range(0, len(codes), rows)]
        assert_same_codes(np.concatenate(single), expected, f"{executor.name} {qgraph.name}")
        assert executor.run(codes[:0]).shape == (0, qgraph.outputs)


def test_the_same_network_gives_the_same_text_and_another_kind_another_hash(sample: list[QGraph]) -> None:
    for qgraph in sample:
        again = replace(qgraph, made={"again": True})
        assert emit_c(lower(qgraph)) == emit_c(lower(again))
    reverse, repeat = (
        network("n", QRow("row", Q8), kind("move", Q8), window=4) for kind in (QReverse, QRepeat)
    )
    assert program_hash(lower(reverse)) != program_hash(lower(repeat))


@pytest.mark.parametrize("compiler", COMPILERS)
def test_every_compiler_builds_the_operators_without_a_warning(
    compiler: str, sample: list[QGraph], tmp_path: Path
) -> None:
    command = COMPILERS[compiler]
    need(command[0])
    sources = sources_of(sample, tmp_path)
    for source in (*sources.models, *sources.runtime):
        run(*command, *WARNINGS, "-O1", "-c", source, "-o", tmp_path / "object.o")


def sanitized_main(graphs: list[QGraph]) -> str:
    """A program that runs every network once, from stdin to stdout, all arrays on the heap."""
    lines = ["#include <stdio.h>", "#include <stdlib.h>", "#include <string.h>", '#include "all_models.c"']
    lines += ["static void *memory(size_t n) { void *p = malloc(n); memset(p, 0xA5, n); return p; }"]
    lines += ["int main(void) {"]
    for qgraph in graphs:
        name, calls = qgraph.name, WINDOWS * (1 if qgraph.window else 8)
        x_size = (qgraph.window or 1) * qgraph.features * qgraph.input.bits // 8
        y_size = build.written_rows(qgraph) * qgraph.outputs * qgraph.output.bits // 8
        step = "window" if qgraph.window else "step"
        lines += [
            f"    {{ {name}_state_t *state = memory(sizeof *state);",
            f"    void *x = memory({x_size}), *y = memory({y_size});",
            "" if qgraph.window else f"    {name}_reset(state);",
            f"    for (int call = 0; call < {calls}; call++) {{ fread(x, 1, {x_size}, stdin);",
            f"        {name}_{step}(state, x, y); fwrite(y, 1, {y_size}, stdout); }}",
            "    free(state); free(x); free(y); }",
        ]
    return "\n".join([*lines, "    return 0;", "}", ""])


def test_the_sanitizers_find_no_overflow_and_no_stray_access(sample: list[QGraph], tmp_path: Path) -> None:
    need("gcc")
    sources = sources_of(sample, tmp_path)
    (tmp_path / "main.c").write_text(sanitized_main(sample))
    run(*SANITIZE, tmp_path / "main.c", *sources.runtime, "-o", tmp_path / "main")
    codes = [codes_of(qgraph) for qgraph in sample]
    written = run(tmp_path / "main", input=b"".join(array.tobytes() for array in codes)).stdout
    expected = [NumpyExecutor(qgraph).run(array) for qgraph, array in zip(sample, codes, strict=True)]
    assert written == b"".join(array.tobytes() for array in expected)


@pytest.mark.parametrize("core", ["cortex-m0", "cortex-m4"])
def test_the_image_has_no_heap_no_variables_no_float_and_no_division(core: str, sample: list[QGraph]) -> None:
    image = machine_of(sample, core).image
    names = {symbol.name for symbol in image.symbols}
    banned = r"malloc|calloc|free|sbrk|div|mod|^_*(aeabi_[fd]|[a-z]+[sd]f[23])"
    assert not {name for name in names if re.search(banned, name)}
    assert image.sections.get(".data", 0) + image.sections.get(".bss", 0) == 0


def test_the_codes_are_the_same_where_int_has_16_bits(tmp_path: Path) -> None:
    need("avr-gcc")
    need("simavr")
    fitting = [
        qgraph for kind in ("scan", "mixed") for qgraph in graphs_of(kind)
        if (qgraph.input.bits, qgraph.output.bits) == (8, 8)
    ]  # fmt: skip
    for number, windowed in enumerate((False, True)):
        qgraph = next(q for q in fitting if bool(q.window) == windowed and len(q.layers) > 3)
        folder = tmp_path / str(number)
        folder.mkdir()
        codes = codes_of(qgraph)
        assert run_on_avr(qgraph, codes, folder) == NumpyExecutor(qgraph).run(codes).view(np.uint8).tolist()


# --- arithmetic -------------------------------------------------------------------------------------

INT16 = np.array([-32768, -32767, -16385, -4096, -3, -2, -1, 0, 1, 2, 3, 77, 4095, 16384, 32766, 32767])


def test_products_and_sums_of_all_corners_are_equal_at_every_shift(tmp_path: Path) -> None:
    """Among them -32768 * -32768 where nothing is shifted: it wraps, as it does in the reference."""
    operators: list[Any] = [
        QMul("product", wide(left), wide(right), wide(output))
        for left, right, output in ((-8, -8, -16), (-8, -8, -15), (-15, -15, -15), (-23, 0, 8))
    ]
    operators += [
        QAdd("total", wide(left), wide(right), wide(output), subtract)
        for left, right, output in ((-15, -2, -15), (-2, -15, -2), (-12, -12, -12), (-12, -13, -1))
        for subtract in (False, True)
    ]
    graphs = []
    for number, operator in enumerate(operators):
        corners = QConstant(f"corners{number}", INT16, operator.right)
        layers = (corners, replace(operator, name=f"operator{number}"))
        sources = ((), (-1, 0))
        graphs.append(network(f"n{number}", *layers, channels=1, sources=sources, input=operator.left))
    library = library_of(sources_of(graphs, tmp_path))
    for qgraph, operator in zip(graphs, operators, strict=True):
        codes = INT16.astype(np.int16)[:, None]
        found = HostExecutor(qgraph, library=library).run(codes)
        assert_same_codes(found, NumpyExecutor(qgraph).run(codes), repr(operator))


def test_both_scalings_of_wide_sums_equal_python_at_every_edge(tmp_path: Path) -> None:
    need("gcc")
    for file in runtime_with_included("elstm.h", "elstm_wide.h"):
        (tmp_path / file).write_text(runtime_text(file))
    (tmp_path / "main.c").write_text(
        '#include "elstm_wide.h"\n#include <stdio.h>\n'
        "int main(void) {\n    int64_t x[4];\n    while (fread(x, 8, 4, stdin) == 4) {\n"
        "        const elstm_requantizer_t r = {(int32_t)x[1], (int8_t)x[2]};\n"
        "        const int32_t y = x[3] ? elstm_scale_short((int32_t)x[0], r.multiplier, (uint8_t)x[2])\n"
        "                               : elstm_scale_wide(x[0], r);\n"
        "        fwrite(&y, 4, 1, stdout);\n    }\n    return 0;\n}\n"
    )
    flags = ("-std=c99", "-O2", "-fsanitize=undefined", "-fno-sanitize-recover=all")
    run("gcc", *flags, tmp_path / "main.c", "-o", tmp_path / "main")

    def apply(acc: Any, multiplier: Any, shift: int, short: int) -> npt.NDArray[np.int64]:
        rows = np.stack(np.broadcast_arrays(acc, multiplier, shift, short), axis=-1).astype("<i8")
        written = run(tmp_path / "main", input=rows.tobytes()).stdout
        return np.frombuffer(written, dtype="<i4").astype(np.int64)

    rng = np.random.default_rng(4)
    for bits, shifts, short in ((47, range(-40, 8), 0), (31, range(-40, 0), 1)):
        powers = np.array([2**k + d for k in range(bits) for d in (-1, 0, 1)] + [2**bits - 1])
        acc = np.concatenate([powers, rng.integers(0, 2**bits, 400) >> rng.integers(0, bits, 400)])
        acc = np.concatenate([acc, -acc])
        multiplier = rng.choice([0, 2**14, 2**14 + 1, 2**15 - 1], len(acc))
        for shift in shifts:
            expected = np.clip(fixedpoint.scale_wide(acc, multiplier, shift), -(2**17), 2**17)
            right = 15 - shift
            moved = multiplier << max(32 - right, 0) if short else multiplier
            found = apply(acc, moved, max(right - 32, 0) if short else shift, short)
            assert (np.clip(found, -(2**17), 2**17) == expected).all(), (bits, shift)


def test_dense_layers_of_sixteen_bits_are_equal_where_sums_and_scales_are_largest(tmp_path: Path) -> None:
    """Sums beyond 32 bits over more columns than 32 bits can hold; scales up to 64, the largest."""
    q, graphs = wide(-12), []
    for number, (columns, scale) in enumerate(
        [(1, 63.9), (3, 0.5), (2, 1.0), (1100, 2.0**-31), (511, 2.0**-30)]
    ):
        kernel = np.full((2, columns), [[-128], [127]] if columns > 3 else [[1], [-1]], np.int8)
        layer = QDense(f"d{number}", kernel, np.array([0, 9]), np.array([scale], np.float32), q, q)
        graphs.append(network(f"n{number}", layer, channels=columns))
    library = library_of(sources_of(graphs, tmp_path))
    for qgraph in graphs:
        codes = np.repeat(INT16.astype(np.int16)[:, None], qgraph.features, axis=1)
        found = HostExecutor(qgraph, library=library).run(codes)
        assert_same_codes(found, NumpyExecutor(qgraph).run(codes), qgraph.name)
        assert np.unique(found).size > 4


# --- text and states --------------------------------------------------------------------------------


def test_a_plain_network_travels_without_the_operators() -> None:
    plain = random_qgraph(7)
    assert set(emit_c(lower(plain))) == {"random_7.c", "random_7.h", *RUNTIME, "elstm_lstm.h"}
    relu = network("n", QRelu("relu", Q8))
    more = {"elstm_operators.c", "elstm_operators.h"}
    assert set(emit_c(lower(relu))) == {"n.c", "n.h", *RUNTIME, *more}


def exchange(backwards: bool = False, window: int = 0) -> QGraph:
    """A scan whose states exchange parts of each other and whose result is a state as it was."""
    wide_12 = wide(-12)
    body = (QSlice("a", wide_12, 0, 2), QConcat("b", wide_12), QSlice("old", wide_12, 1, 3))
    states = (QState("left", 3, wide_12, 5), QState("right", 2, wide_12, -700))
    scan = QScan("swap", wide_12, body, ((-2,), (-3, -1), (-2,)), states, (1, 0), 2, backwards)
    return network("n", scan, channels=1, window=window, input=wide_12)


@pytest.mark.parametrize(("backwards", "window"), [(False, 0), (False, 6), (True, 6)])
def test_states_that_exchange_their_codes_change_all_at_once(backwards: bool, window: int) -> None:
    qgraph = exchange(backwards, window)
    codes = operator_codes(qgraph, 12)
    assert_same_codes(HostExecutor(qgraph).run(codes), NumpyExecutor(qgraph).run(codes), "swap")


def test_what_a_scan_reads_has_one_row() -> None:
    q = wide(-12)
    body = (QReverse("reverse", q), QRow("row", q, -1), QRepeat("repeat", q), QRelu("relu", q))
    scan = QScan("scan", q, body, ((-1,), (0,), (1,), (2,)), (), (), 3)
    qgraph = network("n", scan, window=5, input=q)
    codes = operator_codes(qgraph, 10)
    assert_same_codes(HostExecutor(qgraph).run(codes), np.maximum(codes, 0), "n")


def test_the_parts_of_a_scan_are_named_after_it() -> None:
    scan = exchange().layers[0]
    assert isinstance(scan, QScan)
    assert layer_symbols(lower(exchange())) == [
        "swap",
        "swap_a",
        "swap_b",
        "swap_old",
        "swap_left",
        "swap_right",
    ]
    own = replace(scan, body=tuple(replace(part, name=f"swap/{part.name}") for part in scan.body))
    assert layer_symbols(lower(replace(exchange(), layers=(own,))))[:4] == [
        "swap",
        "swap_a",
        "swap_b",
        "swap_old",
    ]
    header = emit_c(lower(exchange()))["n.h"]
    assert "int16_t swap_left_last[3]; /* left: codes of the last step */" in header


def test_a_delay_reads_zeros_before_the_first_row() -> None:
    q = Quantization(1 / 64)
    qgraph = network("n", QDelay("delay", q, 3, 2), channels=1, input=q)
    codes = np.arange(1, 9, dtype=np.int8)[:, None]
    expected = [[0, 0, 1], [0, 0, 2], [0, 1, 3], [0, 2, 4], [1, 3, 5], [2, 4, 6], [3, 5, 7], [4, 6, 8]]
    executor = HostExecutor(qgraph)
    assert executor.run(codes).tolist() == expected
    executor.reset()
    assert executor.run(codes).tolist() == expected


def test_a_lookup_is_named_in_a_comment() -> None:
    text = emit_c(lower(network("n", QLookup("squash */", "tanh"))))["n.c"]
    assert "elstm_tanh(x, y, 3); /* squash * / */" in text


def test_the_windowed_network_is_described_in_its_header() -> None:
    header = emit_c(lower(network("n", QRelu("relu", Q8), QRow("last", Q8), window=7)))["n.h"]
    for line in (
        "#define N_WINDOW 7 /* rows that one call reads */",
        "#define N_ROWS 1 /* rows that one call writes */",
        "#define N_INPUT_BITS 8",
        " * x: int8 codes of scale 0.015625, zero point 3.",
        "void n_window(n_state_t *state, const int8_t x[N_WINDOW * N_FEATURES],",
    ):
        assert line in header
    assert "n_reset" not in header
