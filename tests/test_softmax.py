"""Softmax in integers: NumPy equals every runtime and the C, code by code, and is near the real one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edge_lstm import softmax
from edge_lstm.errors import ModelError
from edge_lstm.executors.tflite_runtimes import RUNTIMES, open_runtime
from edge_lstm.fixedpoint import IntArray
from edge_lstm.graph import Stream
from edge_lstm.lower import lower
from edge_lstm.qgraph import CodeArray, QGraph, QSoftmax, Quantization
from edge_lstm.reference import integer
from firmware_tools.emulator import EmulatedExecutor
from firmware_tools.host import HostExecutor, load_library
from test_tflite_runtimes import NAMES, assert_codes

Q15, SHARE_8 = Quantization(2.0**-15, 0, 16), Quantization(1 / 256, -128)
ROWS = 24
# bits, axis, profile: everything that has integers of its own
KINDS = [
    (8, "features", "tflm"), (8, "features", "litert"), (16, "features", "tflm"),
    (16, "features", "litert"), (16, "time", "tflm"), (16, "time", "litert"),
]  # fmt: skip


def softmax_qgraph(seed: int, bits: int, axis: str = "features", profile: str = "tflm") -> QGraph:
    """One softmax over 1 to 40 codes, of a scale between 2**-9 and 1, or 2**-16 and 2**-5."""
    rng = np.random.default_rng([seed, bits])
    width = 1 + seed % 40
    zero_point = int(rng.integers(-128, 128)) if bits == 8 else 0
    scale = 2.0 ** (rng.uniform(-9, 0) if bits == 8 else rng.uniform(-16, -5))
    given = Quantization(float(np.float32(scale)), zero_point, bits)
    layer = QSoftmax("share", given, SHARE_8 if bits == 8 else Q15, axis)
    name = f"softmax_{bits}_{axis}_{profile}_{seed}"
    window = ROWS if axis == "time" else 0
    return QGraph(name, (layer,), Stream.unnamed(width), profile, timesteps=ROWS, window=window)


def hard_codes(qgraph: QGraph, seed: int) -> CodeArray:
    """Rows of noise, of near values, of both ends of the range, sorted, all equal."""
    rng = np.random.default_rng([seed, 5])
    low, high = qgraph.input.low, qgraph.input.high
    codes = rng.integers(low, high + 1, (ROWS, qgraph.features))
    spread = rng.uniform(1, high / 3, (8, 1))
    codes[:8] = np.clip(rng.normal(0, 1, (8, qgraph.features)) * spread, low, high)
    codes[8:12] = rng.choice([low, high], (4, qgraph.features))
    codes[12:14] = np.array([[low], [high]])
    codes[14:16], codes[14, 0], codes[15, -1] = low, high, high
    codes[16:20] = np.sort(codes[16:20], axis=1)
    return codes.astype(qgraph.input.dtype)


def expected(qgraph: QGraph, codes: CodeArray) -> IntArray:
    return integer.run(lower(qgraph), codes[None])[0][0].astype(np.int64)


# --- the same codes everywhere ----------------------------------------------------------------------


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("runtime", NAMES)
def test_numpy_equals_the_runtime_over_features(runtime: str, bits: int) -> None:
    for seed in range(100):
        qgraph = softmax_qgraph(seed, bits, profile=RUNTIMES[runtime].profile)
        codes = hard_codes(qgraph, seed)
        found = open_runtime(runtime, qgraph).run(codes)
        assert_codes(found, expected(qgraph, codes), f"{runtime}, {qgraph.name}")


@pytest.mark.parametrize("runtime", NAMES)
def test_numpy_equals_the_runtime_over_the_rows_of_a_window(runtime: str) -> None:
    for seed in range(12):
        qgraph = softmax_qgraph(3 * seed, 16, "time", RUNTIMES[runtime].profile)
        codes = hard_codes(qgraph, seed)
        found = open_runtime(runtime, qgraph).run(codes)
        assert_codes(found, expected(qgraph, codes), f"{runtime}, {qgraph.name}")


@pytest.mark.parametrize("runtime", NAMES)
def test_numpy_equals_the_runtime_at_sums_of_all_ones(runtime: str) -> None:
    """16 maxima and a 15 make 2**19 - 1, which 32 bits cannot shift and round: the runtimes take 64."""
    given = Quantization(float(np.float32(10 / 65535)), 0, 16)
    layer = QSoftmax("share", given, Q15)
    profile = RUNTIMES[runtime].profile
    qgraph = QGraph("ones", (layer,), Stream.unnamed(17), profile, timesteps=400)
    codes = np.full((400, 17), 32767, dtype=np.int16)
    codes[:, 3] = -17624 + np.arange(-200, 200)
    exponential = lower(qgraph).layers[0].tables[0]
    powers = softmax.look_up(codes[:, 3].astype(np.int64), exponential)
    assert 15 in powers
    assert_codes(open_runtime(runtime, qgraph).run(codes), expected(qgraph, codes), runtime)


@pytest.mark.parametrize("runtime", NAMES)
@pytest.mark.parametrize("width", [510, 511])
def test_numpy_equals_the_runtime_at_the_widest_sum(runtime: str, width: int) -> None:
    layer = QSoftmax("share", Quantization(0.0078125, -3), SHARE_8)
    profile = RUNTIMES[runtime].profile
    qgraph = QGraph("wide", (layer,), Stream.unnamed(width), profile, timesteps=ROWS)
    codes = hard_codes(qgraph, width)
    assert_codes(open_runtime(runtime, qgraph).run(codes), expected(qgraph, codes), runtime)


def test_the_c_on_this_machine_equals_numpy() -> None:
    qgraphs = [softmax_qgraph(7 * seed + 3, *kind) for seed in range(10) for kind in KINDS]
    library = load_library(qgraphs)
    for seed, qgraph in enumerate(qgraphs):
        codes = hard_codes(qgraph, seed)
        found = HostExecutor(qgraph, library=library).run(codes)
        assert_codes(found, expected(qgraph, codes), f"host, {qgraph.name}")


@pytest.mark.parametrize("core", ["cortex-m0", "cortex-m3", "cortex-m4"])
@pytest.mark.parametrize(("bits", "axis", "profile"), KINDS)
def test_the_c_on_an_emulated_core_equals_numpy(bits: int, axis: str, profile: str, core: str) -> None:
    qgraph = softmax_qgraph(12, bits, axis, profile)
    with EmulatedExecutor(qgraph, core) as executor:
        for seed in range(4):
            codes = hard_codes(qgraph, seed)
            executor.reset()
            assert_codes(executor.run(codes), expected(qgraph, codes), f"{core}, {qgraph.name}")


# --- against real numbers ---------------------------------------------------------------------------


def real_softmax(codes: CodeArray, scale: float) -> Any:
    power = np.exp((codes.astype(np.float64) - codes.max(axis=-1, keepdims=True)) * scale)
    return power / power.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("profile", ["tflm", "litert"])
def test_8_bit_shares_are_rounded_to_nearest(profile: str) -> None:
    for seed in range(40):
        qgraph = softmax_qgraph(seed, 8, profile=profile)
        codes = hard_codes(qgraph, seed)
        exact = np.minimum(real_softmax(codes, qgraph.input.scale) * 256, 255)
        assert np.abs(expected(qgraph, codes) + 128 - exact).max() < 0.501


@pytest.mark.parametrize("profile", ["tflm", "litert"])
def test_16_bit_shares_are_off_by_the_cut_of_exp_at_minus_ten(profile: str) -> None:
    """Each of 39 entries counts as at least exp(-10), which the table rounds up to 2 codes."""
    for seed in range(40):
        qgraph = softmax_qgraph(seed, 16, profile=profile)
        codes = hard_codes(qgraph, seed)
        exact = np.minimum(real_softmax(codes, qgraph.input.scale) * 32768, 32767)
        assert np.abs(expected(qgraph, codes) - exact).max() < 39 * 2 + 4


def test_the_float_form_is_numpys_float32_arithmetic() -> None:
    rng = np.random.default_rng(2)
    for scale in 2.0 ** rng.uniform(-14, 3, 30):
        table = softmax.float_table(float(np.float32(scale)))
        powers = np.ldexp(table[0].astype(np.float64), table[1]).astype(np.float32)
        codes = np.sort(rng.integers(-128, 128, (30, int(rng.integers(1, 300)))), axis=1)
        codes[15:] = rng.permuted(codes[15:], axis=1)
        power = powers[codes.max(axis=1, keepdims=True) - codes]
        total = np.zeros(len(codes), np.float32)
        for column in power.T:
            total = total + column
        share = power * (np.float32(1) / (total * np.float32(1 / 256)))[:, None]
        wanted = np.clip(np.floor(share.astype(np.float64) + 0.5) - 128, -128, 127)
        assert_codes(softmax.softmax_by_float(codes, *table), wanted, f"scale {scale}")


def test_a_float32_sum_rounds_as_numpys_at_every_distance() -> None:
    rng = np.random.default_rng(4)
    left, right = rng.integers(1 << 23, 1 << 24, (2, 20_000))
    left[:500], right[500:1000] = (1 << 24) - 1, 1 << 23
    places = rng.integers(-60, -20, (2, 20_000))
    total, place = softmax.add_float((left, places[0]), (right, places[1]))
    wanted = np.ldexp(left.astype(np.float32), places[0]) + np.ldexp(right.astype(np.float32), places[1])
    assert wanted.dtype == np.float32
    assert np.array_equal(np.ldexp(total.astype(np.float64), place), wanted.astype(np.float64))


@pytest.mark.parametrize(
    ("x", "bits"),
    [
        (0.0, 0x3F800000),
        (-0.732, 0x3EF63E93),  # one above the nearest float32, as are the next two
        (-0.5705, 0x3F10B3C0),
        (-53.02687, 0x1934D17A),
        (-87.5, 0x006CB2BC),
        (-103.97, 1),
        (-104.0, 0),
    ],
)
def test_exp_is_that_of_the_gnu_c_library(x: float, bits: int) -> None:
    found = softmax.exp_float32(np.array([x], dtype=np.float32))
    assert int(found.view(np.uint32)[0]) == bits


def test_the_16_bit_tables_differ_between_runtimes_in_two_entries() -> None:
    (exponential, reciprocal), (same, other) = map(softmax.softmax_tables, ("tflm", "litert"))
    assert np.array_equal(exponential, same)
    assert np.flatnonzero(reciprocal != other).tolist() == [160, 294]
    for table in (exponential, reciprocal, other):
        assert table.shape == (513,)
        assert (np.abs(np.diff(table)) < 650).all()
    assert exponential[[0, 1, 511, 512]].tolist() == [2, 2, 32133, 32767]
    assert reciprocal[[0, 1, 160, 294, 512]].tolist() == [32767, 32704, 24966, 20816, 16384]


# --- refusals ---------------------------------------------------------------------------------------


def test_a_sum_that_a_runtime_would_overflow_is_refused_under_its_profile() -> None:
    layer = QSoftmax("share", Quantization(0.125), SHARE_8)
    qgraph = QGraph("wide", (layer,), Stream.unnamed(512))
    with pytest.raises(ModelError, match="softmax 'share': it sums 512 codes, at most 511 in profile tflm"):
        lower(qgraph)
    assert lower(qgraph.with_profile("litert")).outputs == 512


@pytest.mark.parametrize(("scale", "bits"), [(2.0**-26, 8), (5.0, 16)])
def test_a_scale_that_32_bits_cannot_bring_to_the_table_is_refused(scale: float, bits: int) -> None:
    qgraph = softmax_qgraph(5, bits)
    layer = replace(qgraph.layers[0], input=Quantization(scale, 0, bits))
    with pytest.raises(ModelError, match=f"softmax 'share': its input scale is {scale:.6g}, expected more"):
        lower(replace(qgraph, layers=(layer,), input=layer.input))


@pytest.mark.parametrize("scale", [2.0**-25.9, 1e30])
@pytest.mark.parametrize("profile", ["tflm", "litert"])
def test_extreme_scales_give_equal_or_hard_shares(profile: str, scale: float) -> None:
    layer = QSoftmax("share", Quantization(float(np.float32(scale))), SHARE_8)
    qgraph = QGraph("extreme", (layer,), Stream.unnamed(4), profile)
    codes = np.array([[-128, 127, 126, 0]], dtype=np.int8)
    equal = [[-64] * 4]
    assert expected(qgraph, codes).tolist() == (equal if scale < 1 else [[-128, 127, -128, -128]])
