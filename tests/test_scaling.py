"""Raw integers to codes: NumPy against exact fractions, the C against NumPy on host and emulated cores."""

from __future__ import annotations

import ctypes
import shutil
import tempfile
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from conftest import missing
from edge_lstm.detection.fixed import MISSING
from edge_lstm.emit.c_code import program_hash
from edge_lstm.errors import ModelError
from edge_lstm.executors.numpy_executor import NumpyExecutor
from edge_lstm.graph import Channel, Stream
from edge_lstm.lower import lower
from edge_lstm.qgraph import QGraph, QRelu, Quantization
from edge_lstm.scaling import QScaling, scaling_of
from firmware_tools.build import GCC, build_core, build_host, find_compiler, write_sources
from firmware_tools.cores import core_named
from firmware_tools.elf import read_image
from firmware_tools.emulator import BUFFER, EmulatedExecutor, Machine
from firmware_tools.host import HostExecutor
from random_models import c_files, random_present, random_raw, scaling_for
from random_operators import network
from test_host_and_cores import NETWORKS

Q8, Q16 = Quantization(2.0**-5, 3), Quantization(2.0**-12, bits=16)
CHANNELS, ROWS = 60, 40
ERROR = Fraction(1, 2) + Fraction(1, 1 << 14)  # steps; see QScaling


def random_stream(seed: int, input: Quantization) -> Stream:
    """Channels of every size: counts of 2**-14 to a quarter of the range, zeros near and far."""
    rng = np.random.default_rng(seed)
    channels = []
    for index in range(CHANNELS):
        scale = 10.0 ** rng.uniform(-6, 6)
        width = scale * input.scale * (input.high - input.low)
        step = width * 2.0 ** rng.uniform(-14, -2)
        zero = step * float(rng.normal()) * 10.0 ** rng.uniform(0, 8)
        channels.append(Channel(f"c{index}", "", float(rng.normal()) * width, scale, step, zero))
    return Stream(tuple(channels))


def scaled(stream: Stream, input: Quantization) -> QScaling:
    scaling = scaling_of(stream, input)
    assert scaling is not None
    return scaling


def random_counts(scaling: QScaling, seed: int, rows: int = ROWS) -> npt.NDArray[np.int32]:
    """Raw integers over the range of the fine codes and beyond, at its ends, extreme and missing."""
    rng = np.random.default_rng(seed)
    size = (rows, CHANNELS)
    reach = scaling.high - scaling.low
    raw = rng.integers(scaling.low - reach // 8, scaling.high + reach // 8 + 1, size)
    ends = np.stack([scaling.low - 1, scaling.low, scaling.high, scaling.high + 1])
    raw[:4] = ends
    edges = np.array([-(2**31) + 1, 2**31 - 1, -(2**30), 2**30, 2**30 + 1, 0, 1, -1, MISSING])
    raw[4 : 4 + len(edges)] = edges[:, None]
    return np.clip(raw, MISSING, 2**31 - 1).astype(np.int32)


def exact_fine(channel: Channel, input: Quantization, raw: int) -> Fraction:
    unit = 64 if input.bits == 8 else 1
    real = Fraction(channel.zero) + Fraction(channel.resolution) * raw
    inner = (real - Fraction(channel.center)) / (Fraction(channel.scale) * Fraction(input.scale))
    return unit * (input.zero_point + inner)


@pytest.mark.parametrize("input", [Q8, Q16], ids=["int8", "int16"])
@pytest.mark.parametrize("seed", range(6))
def test_a_fine_code_is_half_a_step_from_the_exact_value(input: Quantization, seed: int) -> None:
    stream = random_stream(seed, input)
    scaling = scaled(stream, input)
    raw = random_counts(scaling, seed)
    found = scaling.fine(raw)
    for row, codes in zip(raw.tolist(), found.tolist(), strict=True):
        for channel, value, code in zip(stream.channels, row, codes, strict=True):
            near = min(max(value, -(2**30)), 2**30)
            exact = min(max(exact_fine(channel, input, near), Fraction(-(2**15))), Fraction(2**15 - 1))
            assert value == MISSING or abs(code - exact) <= ERROR, (channel, value)


def test_codes_are_rounded_fine_codes_and_the_zero_point_where_missing() -> None:
    scaling = scaled(Stream((Channel("a", resolution=2.0**-11),)), Quantization(2.0**-5))
    raw = np.array([[0], [31], [32], [-31], [-32], [96], [8159], [8160], [-8223], [-8224], [MISSING]])
    assert scaling.fine(raw[:-1]).tolist() == raw[:-1].tolist()
    assert scaling.codes(raw).ravel().tolist() == [0, 0, 1, 0, -1, 2, 127, 127, -128, -128, 0]
    assert scaling.saturated(raw) == 2
    shifted = scaled(Stream((Channel("a", resolution=2.0**-11),)), Quantization(2.0**-5, -7))
    assert shifted.codes(raw).ravel().tolist()[-1] == -7


@pytest.mark.parametrize("input", [Q8, Q16], ids=["int8", "int16"])
def test_counts_of_codes_give_the_codes_where_a_count_is_below_one(input: Quantization) -> None:
    stream = random_stream(9, input)
    width = stream.scale * input.scale
    channels = (
        replace(c, resolution=step / 3, zero=c.center) for c, step in zip(stream.channels, width, strict=True)
    )
    scaling = scaled(Stream(tuple(channels)), input)
    codes = np.random.default_rng(1).integers(input.low, input.high + 1, (200, CHANNELS))
    codes = codes.astype(input.dtype)
    assert (scaling.codes(scaling.counts(codes)) == codes).all()


def test_resolutions_that_do_not_fit_are_refused_together() -> None:
    fine, coarse = Channel("fine", resolution=1e-12), Channel("coarse", resolution=1e6)
    far = Channel("far", resolution=1.0, zero=3e9)
    with pytest.raises(ModelError) as refused:
        scaling_of(Stream((fine, Channel("ok", resolution=0.1), coarse, far)), Q8)
    text = str(refused.value)
    assert "channel 'fine': a resolution of 1e-12 from 0 takes integers beyond 30 bits" in text
    assert "channel 'coarse': a resolution of 1e+06 is wider than the calibrated range" in text
    assert "channel 'far': a resolution of 1 from 3e+09 takes integers beyond 30 bits" in text
    assert "'ok'" not in text


def test_a_channel_without_a_resolution_leaves_the_model_without_scaling() -> None:
    assert scaling_of(Stream((Channel("a", resolution=1.0), Channel("b"))), Q8) is None


def test_another_resolution_has_another_hash() -> None:
    program = lower(network("n", QRelu("relu", Q8)))
    scalings = [scaling_of(Stream((Channel("a", resolution=r),)), Q8) for r in (0.1, 0.2)]
    assert len({program_hash(program, scaling) for scaling in (None, *scalings)}) == 3


@pytest.mark.parametrize("bad", [{"resolution": -1.0}, {"resolution": np.nan}, {"zero": np.inf}])
def test_a_channel_with_a_broken_resolution_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ModelError, match=r"channel 'a': resolution .* and zero .*, expected finite numbers"):
        Channel("a", **bad)  # type: ignore[arg-type]


# --- the C -----------------------------------------------------------------------------------------

SCALE_ROWS = """
void scale_rows(const int32_t *raw, {type} *x, uint32_t rows);
void scale_rows(const int32_t *raw, {type} *x, uint32_t rows)
{{
    for (uint32_t row = 0; row < rows; row++) {{
        n_scale(raw + row * N_FEATURES, x + row * N_FEATURES);
    }}
}}
"""


def raw_network(input: Quantization, window: int) -> QGraph:
    """A network of many channels with random resolutions."""
    relu = QRelu("relu", input)
    return replace(network("n", relu, channels=CHANNELS, window=window), stream=random_stream(3, input))


@pytest.mark.parametrize("core", ["host", "cortex-m0", "cortex-m4"])
@pytest.mark.parametrize(("input", "window"), [(Q8, 0), (Q16, 0), (Q8, 5)], ids=["int8", "int16", "window"])
def test_the_c_scales_as_numpy_and_leaves_missing_values(core: str, input: Quantization, window: int) -> None:
    if core != "host" and shutil.which(GCC) is None:
        missing(GCC)
    qgraph = raw_network(input, window)
    scaling = scaling_for(qgraph)
    raw = random_counts(scaling, 7)
    x = np.full(raw.shape, 77, dtype=input.dtype)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = write_sources([qgraph], folder)
        text = SCALE_ROWS.format(type=f"int{input.bits}_t")
        sources.harness.write_text(sources.harness.read_text() + text)
        if core == "host":
            library = ctypes.CDLL(str(build_host(sources, folder, None)))
            library.scale_rows(ctypes.c_void_p(raw.ctypes.data), ctypes.c_void_p(x.ctypes.data), ROWS)
        else:
            image = build_core(core_named(core), sources, folder, find_compiler(core_named(core)))
            machine = Machine(read_image(image), core_named(core))
            machine.write(BUFFER, raw.tobytes() + x.tobytes())
            machine.call("scale_rows", BUFFER, BUFFER + raw.nbytes, ROWS)
            x = np.frombuffer(machine.read(BUFFER + raw.nbytes, x.nbytes), x.dtype).reshape(x.shape)
    assert np.array_equal(x, np.where(raw == MISSING, 77, scaling.codes(raw)))


def test_the_state_counts_saturated_values_and_holds_fine_codes() -> None:
    """The members of the state lie behind one another from the widest; read as the header declares them."""
    qgraph = next(q for q in NETWORKS if q.detector is not None)
    scaling, features = scaling_for(qgraph), qgraph.features
    raw = random_raw(qgraph, 5, 80, random_present(5, 80, features))
    if shutil.which(GCC) is None:
        missing(GCC)
    executor = EmulatedExecutor(qgraph, "cortex-m4")
    executor.detect(raw)
    state = executor.machine.image.symbol(f"{qgraph.name}_harness_state").address
    header = c_files(qgraph)[f"{qgraph.name}.h"]
    assert header.index("elstm_alarm_t detector;") < header.index("smoothed[") < header.index("energy[")
    assert header.index("energy[") < header.index("residual[") < header.index("fine[")
    saturated = int.from_bytes(executor.machine.read(state + 8, 4), "little")
    assert saturated == scaling.saturated(raw) > 0
    before = 16 + 2 * 4 * qgraph.detector.rows + 2 * features  # alarm, smoothed and energy, residual
    fine = np.frombuffer(executor.machine.read(state + before, 2 * features), "<i2")
    last = np.where(raw != MISSING, np.arange(len(raw))[:, None], -1).max(axis=0)
    held = scaling.fine(raw)[last, np.arange(features)]
    assert fine.tolist() == np.where(last < 0, qgraph.input.zero_point << 6, held).tolist()
    executor.reset()
    assert executor.machine.read(state + 8, 4) == bytes(4)


def test_the_most_extreme_integers_are_scored_alike() -> None:
    qgraph = next(q for q in NETWORKS if q.detector is not None)
    extremes = np.array([MISSING + 1, 2**31 - 1, MISSING, 0], dtype=np.int32)
    raw = np.random.default_rng(2).choice(extremes, (200, qgraph.features))
    expected, found = NumpyExecutor(qgraph).detect(raw), HostExecutor(qgraph).detect(raw)
    for name in ("score", "alarm", "threshold", "contributions"):
        assert np.array_equal(getattr(found, name), getattr(expected, name)), name
