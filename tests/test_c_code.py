"""The emitted C: its text, its arithmetic against fixedpoint.py, and clean builds by every compiler."""

from __future__ import annotations

import re
import shutil
import subprocess
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from conftest import missing
from detector_oracles import largest_detector
from edge_lstm import __version__, fixedpoint
from edge_lstm.emit.c_code import RUNTIME, emit_c, layer_symbols, program_hash, runtime_text
from edge_lstm.executors.numpy_executor import NumpyExecutor
from edge_lstm.lower import lower
from edge_lstm.program import Program
from edge_lstm.qgraph import QDense, QGraph, QLstm
from firmware_tools import build
from firmware_tools.build import HARNESS, ZIG
from random_models import c_files, random_codes, random_present, random_qgraph, random_raw, random_wide_qgraph

WARNINGS = (
    "-std=c99", "-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Wsign-conversion", "-Wshadow", "-Werror",
)  # fmt: skip
BARE = ("-ffreestanding", "-I", str(HARNESS / "include"))
COMPILERS = {
    "gcc": ("gcc",),
    "zig": ZIG,
    "arm-none-eabi-gcc": ("arm-none-eabi-gcc", "-mcpu=cortex-m0", "-mthumb", *BARE),
    "zig-thumb": (*ZIG, "-target", "thumb-freestanding-eabi", "-mcpu=cortex_m4", *BARE),
    "avr-gcc": ("avr-gcc", "-mmcu=atmega2560"),
}
STEPS = 60


def need(tool: str) -> None:
    if shutil.which(tool) is None:
        missing(tool)


def write(qgraph: QGraph, folder: Path) -> None:
    for file, text in c_files(qgraph).items():
        (folder / file).write_text(text)


def run(*command: str | Path, **options: object) -> subprocess.CompletedProcess[bytes]:
    """Run to the end; a failure shows what the program wrote."""
    done = subprocess.run([*map(str, command)], capture_output=True, check=False, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, (done.stdout + done.stderr).decode(errors="replace")[-3000:]
    return done  # type: ignore[no-any-return]


def renamed(qgraph: QGraph, name: str, *layer_names: str) -> QGraph:
    """The same network under other names."""
    layers = qgraph.layers
    if layer_names:
        layers = tuple(replace(layer, name=n) for layer, n in zip(layers, layer_names, strict=True))
    return replace(qgraph, name=name, layers=layers)


def dense_between(seed: int) -> QGraph:
    """LSTM, dense, dense: a dense layer whose output is not the network's."""
    qgraph = random_qgraph(seed, layers=1, units=4, features=3)
    lstm, dense = qgraph.layers
    assert isinstance(lstm, QLstm) and isinstance(dense, QDense)
    row = np.arange(dense.outputs * 2, dtype=np.int8).reshape(2, -1) - 9
    head = QDense(
        "head", row, np.array([5, -7]), np.array([0.01, 0.02], np.float32), dense.output, lstm.input
    )
    return replace(qgraph, name=f"between_{seed}", layers=(lstm, dense, head), sources=())


VARIETY = [
    renamed(random_qgraph(1, layers=1, units=5, features=3, detector=True), "pump"),
    renamed(random_qgraph(2, layers=2, dense=False).with_profile("litert"), "Two", "a/b", "a.b"),
    renamed(random_qgraph(12, layers=1, units=1, features=1), "n", "int", "x"),
    dense_between(4),
    renamed(random_wide_qgraph(2, "tflm"), "wide"),
]


def test_equal_programs_give_equal_bytes_and_other_programs_other_hashes() -> None:
    qgraph = random_qgraph(7, detector=True)
    program = lower(qgraph)
    assert emit_c(program) == emit_c(lower(random_qgraph(7, detector=True)))
    assert qgraph.detector is not None
    changed = replace(qgraph, detector=replace(qgraph.detector, base=qgraph.detector.base + 1))
    hashes = {program_hash(p) for p in (program, lower(changed), lower(qgraph.with_profile("litert")))}
    assert len(hashes) == 3


def test_the_head_names_version_hash_and_command_and_nothing_of_the_machine() -> None:
    program = lower(random_qgraph(7))
    files = emit_c(program, ["flow: l/min, center 3, scale 2"])
    assert set(files) == {"random_7.c", "random_7.h", *RUNTIME, "elstm_lstm.h"}
    for kind in ("c", "h"):
        head = files[f"random_7.{kind}"][:600]
        assert f"edge-lstm {__version__} from program sha256:{program_hash(program)[:32]}" in head
        assert "rewrite it with: edge-lstm convert random_7.tflite --to c -o .\n" in head
        assert str(Path.cwd()) not in files[f"random_7.{kind}"]
    assert " * flow: l/min, center 3, scale 2\n" in files["random_7.h"]


def test_the_weights_lie_unit_by_unit_in_blocks_of_four_columns() -> None:
    program = lower(random_qgraph(3, layers=1, units=5, features=6))
    text = emit_c(program)["random_3.c"]
    match = re.search(r"int8_t lstm_0_weights\[220\] ELSTM_ALIGNED = \{(.*?)\};", text, re.DOTALL)
    assert match is not None
    values = [int(value) for value in re.findall(r"-?\d+", match[1])]
    layer, expected = program.layers[0], []
    for unit in range(5):
        for kernel in (layer.kernel[:, unit], layer.recurrent_kernel[:, unit]):
            expected += [int(kernel[gate, column]) for gate in range(4) for column in range(4)]
            expected += [int(kernel[g, column]) for column in range(4, kernel.shape[1]) for g in range(4)]
    assert values == expected
    assert "int8[5 units], gates i, f, g, o over 6 features, then over 5 units" in text


def test_a_text_cannot_end_the_comment_that_it_stands_in() -> None:
    text = emit_c(lower(random_qgraph(7)), ["*/ int x; /* \n#define y ??/ \\"])["random_7.h"]
    line = next(line for line in text.splitlines() if "int x" in line)
    assert line == " * * / int x; / *  #define y ? ?/"


@pytest.mark.parametrize(
    ("names", "symbols"),
    [
        (("lstm", "lstm_1"), ["lstm", "lstm_1"]),
        (("model/lstm", "out put"), ["model_lstm", "out_put"]),
        (
            ("lstm", "lstm_recurrent"),
            ["layer_0", "layer_1"],
        ),  # some layers would name lstm_recurrent_kernel twice
        (("a/b", "a.b"), ["layer_0", "layer_1"]),
        (("1", "Ж"), ["layer_0", "layer_1"]),
        (("detector", "dense"), ["layer_0", "layer_1"]),
    ],
)
def test_layers_keep_their_names_where_c_allows_it(names: tuple[str, str], symbols: list[str]) -> None:
    assert layer_symbols(lower(renamed(random_qgraph(3, layers=1), "n", *names))) == symbols


@pytest.mark.parametrize("compiler", COMPILERS)
def test_every_compiler_builds_the_c_without_a_warning(compiler: str, tmp_path: Path) -> None:
    command = COMPILERS[compiler]
    need(command[0])
    for qgraph in VARIETY:
        write(qgraph, tmp_path)
    for source in sorted(tmp_path.glob("*.c")):
        run(*command, *WARNINGS, "-O2", "-c", source, "-o", tmp_path / "object.o")


def test_the_headers_serve_cpp_too(tmp_path: Path) -> None:
    write(VARIETY[0], tmp_path)
    source = tmp_path / "main.cpp"
    source.write_text(
        '#include "pump.h"\n'
        "int8_t next(const int8_t *x) {\n"
        "    pump_state_t state;\n    int8_t y[PUMP_OUTPUTS];\n"
        "    pump_reset(&state);\n    pump_step(&state, x, y);\n    return y[0];\n}\n"
    )
    flags = ("-std=c++11", "-pedantic", "-Wall", "-Wextra", "-Werror")
    run(*ZIG[:-1], "c++", *flags, "-c", source, "-o", tmp_path / "main.o")


def test_the_runtime_refuses_a_header_of_another_version(tmp_path: Path) -> None:
    write(VARIETY[0], tmp_path)
    header = tmp_path / "elstm.h"
    header.write_text(
        header.read_text().replace("#define ELSTM_API_VERSION 4", "#define ELSTM_API_VERSION 5")
    )
    for file, message in (
        ("pump.c", "pump.h needs elstm API 4"),
        ("elstm.c", "elstm_fixed.h is of elstm API 4"),
    ):
        done = subprocess.run(
            [*ZIG, "-c", tmp_path / file, "-o", tmp_path / "x.o"], capture_output=True, text=True
        )
        assert done.returncode != 0
        assert message in done.stderr


# each: C expression of a, b, c
PRIMITIVES = {
    "wrap_32": "elstm_wrap_32((uint32_t)a)",
    "rounding_shift": "elstm_rounding_shift(a, (uint8_t)b)",
    "high_multiply": "elstm_high_multiply(a, b)",
    "requantize": "elstm_requantize(a, (elstm_requantizer_t){b, (int8_t)c})",
    "requantize_half": "elstm_requantize_half(a, (uint8_t)b)",
    "requantize_float": "elstm_requantize_float(a, (elstm_requantizer_t){b, (int8_t)c})",
    "sigmoid_by_table": "elstm_sigmoid_by_table(a, (int8_t)b)",
    "tanh_by_table": "elstm_tanh_by_table(a, (int8_t)b)",
    "sigmoid_by_polynomial": "elstm_sigmoid_by_polynomial(a)",
    "tanh_by_polynomial": "elstm_tanh_by_polynomial(a, (uint8_t)b)",
    "combine_litert": "elstm_combine_litert(elstm_saturate_16(a), b)",
    "combine_tflm": "elstm_combine_tflm(elstm_saturate_16(a), elstm_saturate_16(b))",
}
Primitive = Callable[..., npt.NDArray[np.int64]]


@pytest.fixture(scope="module")
def primitive(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Primitive]:
    """The runtime's static functions, applied to arrays by a program under the sanitizer."""
    need("gcc")
    folder = tmp_path_factory.mktemp("primitives")
    for file in RUNTIME:
        (folder / file).write_text(runtime_text(file))
    branches = "".join(
        f'        if (strcmp(argv[1], "{name}") == 0) y = {code};\n' for name, code in PRIMITIVES.items()
    )
    (folder / "all.c").write_text(
        '#include "elstm.c"\n#include <stdio.h>\n'
        "int main(int argc, char **argv) {\n    int32_t x[3], y = 0; (void)argc;\n"
        "    while (fread(x, 4, 3, stdin) == 3) {\n        const int32_t a = x[0], b = x[1], c = x[2];\n"
        f"{branches}        fwrite(&y, 4, 1, stdout);\n    }}\n    return 0;\n}}\n"
    )
    flags = ("-std=c99", "-O2", "-fsanitize=undefined", "-fno-sanitize-recover=all")
    run("gcc", *flags, folder / "all.c", "-o", folder / "all")

    def named(name: str) -> Primitive:
        def apply(a: npt.ArrayLike, b: npt.ArrayLike = 0, c: npt.ArrayLike = 0) -> npt.NDArray[np.int64]:
            x = np.stack(np.broadcast_arrays(*(np.asarray(v, np.int64) for v in (a, b, c))), axis=-1)
            assert (x == x.astype(np.int32)).all()
            written = run(folder / "all", name, input=x.astype("<i4").tobytes()).stdout
            return np.frombuffer(written, dtype="<i4").astype(np.int64)

        return apply

    return named


TANH_BY_TABLE = ["c3723410", "0a35e7ef", "931c6619", "abdd53cc", "20f0f708", "93ee576e", "2537531d"]
TANH_BY_POLYNOMIAL = ["a348daf8", "c979dd1d", "742f59b7", "70b28dfe", "215077b2", "3a695108", "32e074ae"]
INT16 = np.arange(-32768, 32768)


def edges(bits: int) -> npt.NDArray[np.int64]:
    """Every power of two below 2**bits with its neighbours, both signs, and noise of every size."""
    powers = np.array([2**k + d for k in range(bits) for d in (-1, 0, 1)] + [2**bits - 1])
    rng = np.random.default_rng(3)
    noise = (rng.integers(0, 2**bits, 4000) >> rng.integers(0, bits, 4000)).astype(np.int64)
    values = np.concatenate([powers[powers < 2**bits], noise])
    return np.concatenate([values, -values])


def crc(values: npt.NDArray[np.int64]) -> str:
    return f"{zlib.crc32(values.astype('<i2').tobytes()):08x}"


def test_c_activations_have_the_published_checksums(primitive: Callable[[str], Primitive]) -> None:
    """The sums are those of TFLM's and LiteRT's own functions; see NUMERICS.md."""
    assert crc(primitive("sigmoid_by_table")(INT16)) == "928f0a46"
    tables = [crc(primitive("tanh_by_table")(INT16, shift)) for shift in range(-3, 4)]
    assert tables == TANH_BY_TABLE
    assert crc(primitive("sigmoid_by_polynomial")(INT16)) == "89b3f38e"
    polynomials = [crc(primitive("tanh_by_polynomial")(INT16, bits)) for bits in range(7)]
    assert polynomials == TANH_BY_POLYNOMIAL


def test_c_requantization_equals_python_at_every_edge(primitive: Callable[[str], Primitive]) -> None:
    acc = edges(31)
    rng = np.random.default_rng(1)
    multiplier = rng.choice([0, 2**30, 2**30 + 1, 2**31 - 1, *rng.integers(2**30, 2**31, 20)], len(acc))
    for shift in range(-31, 31):
        expected = fixedpoint.requantize(acc, multiplier, shift)
        assert (primitive("requantize")(acc, multiplier, shift) == expected).all(), shift
    for factor in (multiplier, -multiplier):
        assert (primitive("high_multiply")(acc, factor) == fixedpoint.high_multiply(acc, factor)).all()
    for shift in range(32):
        expected = fixedpoint.rounding_shift(acc, shift)
        assert (primitive("rounding_shift")(acc, shift) == expected).all(), shift
        half = fixedpoint.requantize(edges(30), 2**30, -min(shift, 31))
        assert (primitive("requantize_half")(edges(30), min(shift, 31)) == half).all(), shift
    wrapped = primitive("wrap_32")(np.concatenate([acc, [-(2**31)]]))
    assert (wrapped == np.concatenate([acc, [-(2**31)]])).all()


def test_c_float_requantization_equals_a_float32_multiply(primitive: Callable[[str], Primitive]) -> None:
    acc = np.concatenate([edges(31), np.arange(-3000, 3000)])
    rng = np.random.default_rng(2)
    significand = rng.choice(
        [2**23, 2**23 + 1, 2**24 - 1, 12582912, *rng.integers(2**23, 2**24, 20)], len(acc)
    )
    for exponent in range(-62, 1):
        scale = np.ldexp(significand.astype(np.float32), exponent)  # exact
        product = np.rint(acc.astype(np.float32) * scale.astype(np.float32))
        expected = np.clip(product.astype(np.float64), -65536, 65536)
        assert (primitive("requantize_float")(acc, significand, exponent) == expected).all(), exponent


def test_c_gate_sums_saturate_as_each_profile_does(primitive: Callable[[str], Primitive]) -> None:
    some, others = edges(31)[::37], edges(31)[::41]
    a, b = np.repeat(some, len(others)), np.tile(others, len(some))
    low, high = -32768, 32767
    tflm = np.clip(np.clip(a, low, high) + np.clip(b, low, high), low, high)
    litert = np.clip(np.clip(a, low, high) + b, low, high)
    assert (primitive("combine_tflm")(a, b) == tflm).all()
    assert (primitive("combine_litert")(a, b) == litert).all()


def sanitized_main(qgraph: QGraph) -> str:
    """A program that reads rows of codes and writes codes, or raw integers and scores, all on the heap."""
    name, upper = qgraph.name, qgraph.name.upper()
    kind, given = ("int8_t", "x") if qgraph.detector is None else ("int32_t", "raw")
    scored = (
        f"int32_t score = 0; uint8_t alarm = {name}_detect(state, raw, &score);"
        f" fwrite(&score, 4, 1, stdout); fwrite(&alarm, 1, 1, stdout);"
        if qgraph.detector is not None
        else f"{name}_step(state, x, y); fwrite(y, 1, {upper}_OUTPUTS, stdout);"
    )
    return (
        f'#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n#include "{name}.h"\n'
        "int main(void) {\n"
        f"    {name}_state_t *state = malloc(sizeof *state);\n    memset(state, 0xA5, sizeof *state);\n"
        f"    int8_t *y = malloc({upper}_OUTPUTS);\n"
        f"    {kind} *{given} = malloc({upper}_FEATURES * sizeof *{given});\n    {name}_reset(state);\n"
        f"    while (fread({given}, sizeof *{given}, {upper}_FEATURES, stdin) == {upper}_FEATURES) {{\n"
        f"        {scored}\n    }}\n"
        f"    free({given}); free(y); free(state);\n    return 0;\n}}\n"
    )


def with_largest_detector(seed: int, alpha: int) -> QGraph:
    """A network with a detector whose sums come as near to 32 bits as they may."""
    qgraph = random_qgraph(seed, layers=1, units=3, features=2, detector=True)
    assert qgraph.detector is not None
    detector = largest_detector(alpha, qgraph.detector.output_zero_point)
    return replace(qgraph, name=f"largest_{alpha}", detector=replace(detector, base=10**7, excess=0))


SANITIZED = [
    *VARIETY[:-1],  # of 8 bits
    *(with_largest_detector(24, alpha) for alpha in (1, 255, 256)),
    *(random_qgraph(seed, saturating=True, units=9, dense=seed % 2 == 0) for seed in (20, 21)),
    random_qgraph(22, units=4, features=5, saturating=True, detector=True).with_profile("litert"),
]


SANITIZE = ("gcc", "-std=c99", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


@pytest.fixture(scope="module")
def sanitized_runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """elstm.c compiled with the sanitizers."""
    need("gcc")
    folder = tmp_path_factory.mktemp("runtime")
    for file in RUNTIME:
        (folder / file).write_text(runtime_text(file))
    run(*SANITIZE, "-c", folder / "elstm.c", "-o", folder / "elstm.o")
    return folder / "elstm.o"


@pytest.mark.parametrize("qgraph", SANITIZED, ids=lambda qgraph: qgraph.name)
def test_the_sanitizers_find_no_overflow_and_no_stray_access(
    qgraph: QGraph, sanitized_runtime: Path, tmp_path: Path
) -> None:
    write(qgraph, tmp_path)
    (tmp_path / "main.c").write_text(sanitized_main(qgraph))
    sources = [tmp_path / f"{name}.c" for name in (qgraph.name, "main")]
    run(*SANITIZE, *sources, sanitized_runtime, "-o", tmp_path / "main")
    codes = random_codes(5, STEPS, qgraph.features)
    executor = NumpyExecutor(qgraph)
    if qgraph.detector is None:
        written = run(tmp_path / "main", input=codes.tobytes()).stdout
        assert written == executor.run(codes).tobytes()
        return
    raw = random_raw(qgraph, 5, STEPS, random_present(5, STEPS, qgraph.features))
    written = run(tmp_path / "main", input=raw.tobytes()).stdout
    found = np.frombuffer(written, dtype=np.dtype([("score", "<i4"), ("alarm", "u1")]))
    expected = executor.detect(raw)
    assert found["score"].tolist() == expected.score.tolist()
    assert found["alarm"].tolist() == expected.alarm.tolist()


def avr_main(qgraph: QGraph, codes: npt.NDArray[np.signedinteger[Any]]) -> str:
    """A program for an ATmega2560 that writes every output code to its serial port and sleeps for good.

    codes: of the input, or of a detector the raw integers.
    """
    name, upper, rows = qgraph.name, qgraph.name.upper(), build.written_rows(qgraph)
    values = ", ".join(f"{value}" if value > -(2**31) else "INT32_MIN" for value in codes.ravel().tolist())
    height = qgraph.window or 1
    at = f"x + call * {height} * {upper}_FEATURES"
    call = f"{name}_{'window' if qgraph.window else 'step'}(&state, {at}, y);"
    width = qgraph.outputs
    if qgraph.detector is not None:
        width = 5
        call = (
            f"y[0] = (int8_t){name}_detect(&state, {at}, &score);"
            " for (uint8_t k = 0; k < 4u; k++) y[1 + k] = (int8_t)((uint32_t)score >> (8 * k));"
        )
    return (
        "#include <avr/interrupt.h>\n#include <avr/io.h>\n#include <avr/sleep.h>\n#include <stddef.h>\n"
        f'#include "{name}.h"\n'
        "typedef char int_has_16_bits[sizeof(int) == 2 ? 1 : -1];\n"
        f"static const {codes.dtype}_t x[{codes.size}] = {{{values}}};\n"
        f"static {name}_state_t state;\nstatic int8_t y[{rows} * {upper}_OUTPUTS + 5];\n"
        "static void put(char c) { while (!(UCSR0A & (1 << UDRE0))) {} UDR0 = (uint8_t)c; }\n"
        "static void put_row(const int8_t *row) {\n"
        f"    for (uint8_t k = 0; k < {width}; k++) {{\n"
        '        put("0123456789abcdef"[(uint8_t)row[k] >> 4]);\n'
        '        put("0123456789abcdef"[(uint8_t)row[k] & 15]);\n'
        "    }\n    put('\\n');\n}\n"
        "int main(void) {\n    int32_t score = 0; (void)score;\n"
        f"    UCSR0B = 1 << TXEN0;\n    {'' if qgraph.window else f'{name}_reset(&state);'}\n"
        f"    for (uint16_t call = 0; call < {len(codes) // height}; call++) {{ {call}\n"
        f"        for (uint8_t row = 0; row < {rows}; row++) put_row(y + row * {width}); }}\n"
        "    put('!'); put('\\n');\n    cli(); sleep_enable(); sleep_cpu();\n    return 0;\n}\n"
    )


def run_on_avr(qgraph: QGraph, codes: npt.NDArray[np.signedinteger[Any]], folder: Path) -> list[list[int]]:
    """The bytes that the network writes for every row, or alarm and score, on a simulated ATmega2560."""
    write(qgraph, folder)
    (folder / "main.c").write_text(avr_main(qgraph, codes))
    sources = sorted(folder.glob("*.c"))
    run("avr-gcc", "-mmcu=atmega2560", "-std=c99", "-Os", *sources, "-o", folder / "main.elf")
    done = run("simavr", "-m", "atmega2560", "-f", "16000000", folder / "main.elf", timeout=60)
    text = re.sub(r"\x1b\[\d*m", "", (done.stdout + done.stderr).decode(errors="replace"))
    return [list(bytes.fromhex(line)) for line in re.findall(r"^([0-9a-f]+)\.", text, re.MULTILINE)]


@pytest.mark.parametrize("profile", ["tflm", "litert"])
@pytest.mark.parametrize("detector", [False, True])
def test_the_codes_are_the_same_where_int_has_16_bits(profile: str, detector: bool, tmp_path: Path) -> None:
    need("avr-gcc")
    need("simavr")
    qgraph = random_qgraph(33, layers=1, units=6, features=3, detector=detector)
    qgraph = qgraph.with_profile(profile)
    raw = random_raw(qgraph, 8, 40, random_present(8, 40, 3)) if detector else None
    codes = random_codes(8, 40, 3)
    found = run_on_avr(qgraph, codes if raw is None else raw, tmp_path)
    executor = NumpyExecutor(qgraph)
    if raw is not None:
        expected = executor.detect(raw)
        scores = expected.score.astype("<i4").view(np.uint8).reshape(-1, 4)
        assert found == np.concatenate([expected.alarm[:, None], scores], axis=1).tolist()
    else:
        assert found == executor.run(codes).view(np.uint8).tolist()


def test_a_program_needs_no_detector_to_be_emitted() -> None:
    program: Program = lower(random_qgraph(7))
    header = emit_c(program)["random_7.h"]
    assert "_detect" not in header
    assert "_threshold" not in header
