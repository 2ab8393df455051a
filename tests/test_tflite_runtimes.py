"""LiteRT, tflite-runtime and TensorFlow Lite Micro against NumPy: the same codes, the same state.

All runtimes that are installed here take part.  EDGE_LSTM_RUNTIME names the only one, which then must be
here (CI sets it where tflite-runtime has an environment of its own); without it CI demands the others.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from platform import machine
from typing import Any

import numpy as np
import pytest

from conftest import IN_CI
from edge_lstm.emit.tflite_file import pack
from edge_lstm.emit.tflite_model import emit_tflite, file_spec
from edge_lstm.errors import ConfigError, DataError, MissingTool, RuntimeFailure
from edge_lstm.executors import tflite_runtimes
from edge_lstm.executors.numpy_executor import NumpyExecutor
from edge_lstm.executors.tflite_runtimes import RUNTIMES, open_runtime
from edge_lstm.fixedpoint import IntArray, quantize_multiplier, requantize
from edge_lstm.graph import Stream
from edge_lstm.importers.tflite_model import read_tflite
from edge_lstm.lower import lower
from edge_lstm.qgraph import Int8Array, QDense, QGraph, QLstm, Quantization
from edge_lstm.reference import integer
from random_lstms import PARTS, alone, lstm_codes, random_lstm, random_parts
from random_models import random_codes, random_qgraph

PACKAGES = {"litert": "ai_edge_litert", "tflite-runtime": "tflite_runtime", "tflm": "tflite_micro"}
TFLM_IS_BUILT = sys.version_info[:2] == (3, 11) and (sys.platform, machine()) == ("linux", "x86_64")
NAMED = os.environ.get("EDGE_LSTM_RUNTIME")
DEMANDED = [NAMED] if NAMED else ["litert", *(["tflm"] if TFLM_IS_BUILT else [])] if IN_CI else []


def is_here(name: str) -> bool:
    numpy_fits = name != "tflite-runtime" or np.lib.NumpyVersion(np.__version__) < "2.0.0"
    return numpy_fits and find_spec(PACKAGES[name]) is not None


NAMES = DEMANDED or [name for name in PACKAGES if is_here(name)]
FOREIGN = ["keras2_b1_int8", "keras2_b4_int8", "keras2_bidir_int8", "keras2_rs_int8", "keras2_stack2_int8",
           "keras2_time_major_int8", "mnist_lstm_int8"]  # fmt: skip


@pytest.fixture(params=NAMES)
def runtime(request: pytest.FixtureRequest) -> str:
    """The name of a runtime; one that is demanded and absent fails every test."""
    name: str = request.param
    return name


# --- the oracle -------------------------------------------------------------------------------------


def expected_codes(runtime: str, qgraph: QGraph, codes: Int8Array) -> IntArray:
    """The reference's outputs (steps, outputs) of every row, from reset."""
    program = lower(qgraph.with_profile(RUNTIMES[runtime].profile))
    return integer.run(program, codes[None])[0][0].astype(np.int64)


def assert_codes(found: Any, expected: Any, what: str) -> None:
    assert found.shape == expected.shape, what
    wrong = np.argwhere(found != expected)
    if len(wrong):
        at = tuple(wrong[0])
        pytest.fail(
            f"{what}, at {at}: got {found[at]}, want {expected[at]} ({len(wrong)} of {found.size} differ)"
        )


def uneven_qgraph(seed: int, dense: str = "row") -> QGraph:
    """One LSTM with float32 scales of all 24 bits, unlike the portable ones of ``random_qgraph``."""
    rng = np.random.default_rng([seed, 9])
    features, units, outputs = (int(size) for size in rng.integers(1, 41, 3))

    def scales(low: float, high: float, count: int) -> np.ndarray:
        return rng.uniform(low, high, count).astype(np.float32)

    def quantization(low: float, high: float) -> Quantization:
        return Quantization(float(scales(low, high, 1)[0]), int(rng.integers(-128, 128)))

    x, hidden, y = quantization(0.005, 0.05), quantization(0.003, 0.0078), quantization(0.004, 0.1)
    kernel_scales = scales(0.002, 0.02, 4)
    lstm = QLstm(
        "lstm", rng.integers(-128, 128, (4, units, features)), rng.integers(-127, 128, (4, units, units)),
        np.rint(rng.normal(0, 1, (4, units)) / (kernel_scales[:, None] * x.scale)), kernel_scales,
        scales(0.002, 0.02, 4), x, hidden, int(rng.integers(-15, -8)), 0.0,
    )  # fmt: skip
    reach = 2.0 ** rng.uniform(-22, 6)  # of the dense layer's accumulator in its output codes
    row_scales = (scales(0.6, 1.4, outputs if dense == "row" else 1) * reach * y.scale / hidden.scale).astype(
        np.float32
    )
    bias = np.clip(np.rint(rng.uniform(-120, 120, outputs) / reach), -(2**29), 2**29)
    head = QDense("head", rng.integers(-127, 128, (outputs, units)), bias, row_scales, hidden, y)
    return QGraph(f"uneven_{seed}", (lstm, head), Stream.unnamed(features))


# --- the same codes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_numpy_equals_the_runtime_sample_by_sample(runtime: str, seed: int) -> None:
    qgraph = random_qgraph(seed, dense=seed % 5 != 0, saturating=seed % 3 == 0)
    codes = random_codes(seed, 150, qgraph.features)
    executor = open_runtime(runtime, qgraph)
    assert_codes(executor.run(codes), expected_codes(runtime, qgraph, codes), f"{runtime}, seed {seed}")


@pytest.mark.parametrize("dense", ["row", "tensor"])
@pytest.mark.parametrize("seed", range(12))
def test_numpy_equals_the_runtime_for_any_float32_scale(runtime: str, seed: int, dense: str) -> None:
    qgraph = replace(uneven_qgraph(seed, dense), timesteps=100)
    codes = random_codes(seed, 1000, qgraph.features)
    executor = open_runtime(runtime, qgraph)
    assert_codes(executor.run(codes), expected_codes(runtime, qgraph, codes), f"{runtime}, seed {seed}")


@pytest.mark.parametrize("kind", [*((part,) for part in PARTS), ()])
def test_numpy_equals_the_runtime_for_the_variants_of_the_lstm(runtime: str, kind: tuple[str, ...]) -> None:
    profile = RUNTIMES[runtime].profile
    for seed in range(400, 425):
        layer = random_lstm(seed, *(kind or random_parts(seed)))
        if profile == "tflm":
            with pytest.raises(ConfigError, match="it rejects LSTMs with peepholes"):
                open_runtime(runtime, alone(layer, "variant", "litert"))
            continue
        qgraph = alone(layer, "variant", profile, seed % 9 + 1)
        codes = lstm_codes(seed, layer, 2 * qgraph.timesteps)
        expected = expected_codes(runtime, qgraph, codes)
        assert_codes(open_runtime(runtime, qgraph).run(codes), expected, f"{runtime}, {kind}, seed {seed}")


@pytest.mark.parametrize("rows", [1, 41])
def test_the_dense_scale_is_rounded_as_the_runtime_rounds_it(runtime: str, rows: int) -> None:
    """Biases at ties: there a product of the scales in float32 and one in float64 give other codes."""
    lstm = random_qgraph(4, layers=1, dense=False).layers[0]
    h, y = lstm.output, Quantization(0.0625, 0)
    scale = np.float32(2.0**-26 / h.scale * 1.2345671)
    products = (h.scale * float(scale), float(np.float32(h.scale) * scale))
    multipliers = [quantize_multiplier(product / y.scale) for product in products]
    ties = np.rint((np.arange(-100, 105, 5) + 0.5) * y.scale / products[0])
    row = np.zeros((1, lstm.features), np.int8)
    differing = 0
    for shift in range(-20, 21):
        head = QDense("head", np.zeros((41, lstm.outputs)), ties + shift, [scale] * rows, h, y)
        qgraph = QGraph("ties", (lstm, head), Stream.unnamed(lstm.features))
        found = open_runtime(runtime, qgraph).run(row)
        assert_codes(found, expected_codes(runtime, qgraph, row), f"{runtime}, {shift} from the ties")
        one, other = (requantize(head.bias, *pair) for pair in multipliers)
        differing += int((one != other).sum())
    assert differing > 0


@pytest.mark.parametrize("last_only", [False, True])
@pytest.mark.parametrize("timesteps", [1, 2, 7])
def test_a_window_file_gives_the_codes_of_the_streaming_file(
    runtime: str, timesteps: int, last_only: bool
) -> None:
    qgraph = random_qgraph(50 + timesteps, layers=2)
    codes = random_codes(3, 84, qgraph.features)
    every = timesteps if last_only else 1
    expected = open_runtime(runtime, qgraph).run(codes)[every - 1 :: every]
    window = open_runtime(runtime, replace(qgraph, timesteps=timesteps, last_only=last_only))
    assert_codes(window.run(codes), expected, runtime)
    window.reset()
    parts = [window.run(codes[: 3 * timesteps]), window.run(codes[3 * timesteps :])]
    assert_codes(np.concatenate(parts), expected, f"{runtime} in two calls")


@pytest.mark.parametrize("last_only", [False, True])
def test_lanes_are_independent_streams_side_by_side(runtime: str, last_only: bool) -> None:
    qgraph = random_qgraph(8, layers=2)
    lanes = open_runtime(runtime, replace(qgraph, lanes=3, timesteps=4, last_only=last_only))
    windows = random_codes(5, 7 * 12, qgraph.features).reshape(7, 12, qgraph.features)
    every = 4 if last_only else 1
    expected = open_runtime(runtime, qgraph).run_windows(windows)[:, every - 1 :: every]
    assert_codes(lanes.run_windows(windows), expected, runtime)
    lanes.reset()
    assert_codes(lanes.run(windows[4]), expected[4], f"{runtime}, one stream in every lane")


@pytest.mark.parametrize("rewritten", [False, True])
@pytest.mark.parametrize("name", FOREIGN)
def test_other_peoples_files_run_as_they_are_and_rewritten(
    runtime: str, shared_data: Path, name: str, rewritten: bool
) -> None:
    path = shared_data / "models" / f"{name}.tflite"
    qgraph = read_tflite(path)
    executor = open_runtime(runtime, qgraph, None if rewritten else path.read_bytes())
    windows = random_codes(1, 20 * qgraph.timesteps * 2, qgraph.features)
    windows = windows.reshape(20, -1, qgraph.features)
    expected = NumpyExecutor(qgraph.with_profile(executor.profile)).run_windows(windows)
    assert_codes(executor.run_windows(windows), expected, f"{runtime} {name}")


def test_a_dense_layer_before_the_lstm_gives_the_same_codes(runtime: str) -> None:
    qgraph = random_qgraph(12, layers=1, features=5)
    rng = np.random.default_rng(0)
    mix = QDense("mix", rng.integers(-127, 128, (5, 5)), [9] * 5, [2.0**-8], qgraph.input, qgraph.input)
    qgraph = replace(qgraph, layers=(mix, *qgraph.layers), sources=())
    codes = random_codes(2, 100, 5)
    assert_codes(open_runtime(runtime, qgraph).run(codes), expected_codes(runtime, qgraph, codes), runtime)


# --- the state --------------------------------------------------------------------------------------


def test_the_state_is_kept_between_invocations_and_gone_after_a_reset(runtime: str) -> None:
    qgraph = replace(random_qgraph(21, layers=1, dense=False, units=9, features=4), timesteps=5)
    window = random_codes(9, 5, 4)
    executor = open_runtime(runtime, qgraph)
    first, second = executor.run(window), executor.run(window)
    both = expected_codes(runtime, qgraph, np.concatenate([window, window]))
    assert_codes(np.concatenate([first, second]), both, runtime)
    assert (first != second).any()  # otherwise this would prove nothing
    executor.reset()
    assert_codes(executor.run(window), first, f"{runtime} after a reset")
    assert_codes(executor.run_windows(np.stack([window, window]))[1], first, f"{runtime}, windows")


def test_step_advances_one_row(runtime: str) -> None:
    qgraph = random_qgraph(4)
    codes = random_codes(4, 10, qgraph.features)
    executor = open_runtime(runtime, qgraph)
    stepped = np.stack([executor.step(row) for row in codes])
    executor.reset()
    assert_codes(stepped, executor.run(codes), runtime)


def test_no_rows_give_no_outputs(runtime: str) -> None:
    qgraph = random_qgraph(4)
    empty = open_runtime(runtime, qgraph).run(np.zeros((0, qgraph.features), np.int8))
    assert (empty.shape, empty.dtype) == ((0, qgraph.outputs), np.int8)
    empty = open_runtime(runtime, qgraph).run_windows(np.zeros((0, 5, qgraph.features), np.int8))
    assert (empty.shape, empty.dtype) == ((0, 5, qgraph.outputs), np.int8)


def test_ten_thousand_steps_take_under_two_seconds_of_processor_time(runtime: str) -> None:
    qgraph = random_qgraph(6, layers=1, units=16, features=5)
    executor = open_runtime(runtime, qgraph)
    codes = random_codes(6, 10_000, 5)
    start = time.process_time()
    executor.run(codes)
    assert time.process_time() - start < 2


# --- refusals ---------------------------------------------------------------------------------------


def test_rows_that_do_not_fill_windows_are_refused(runtime: str) -> None:
    qgraph = replace(random_qgraph(4), timesteps=4)
    executor = open_runtime(runtime, qgraph)
    with pytest.raises(DataError, match="takes windows of 4 rows, got 6 rows; give a multiple"):
        executor.run(np.zeros((6, qgraph.features), np.int8))


@pytest.mark.parametrize(("dtype", "more"), [(np.int16, 0), (np.int8, 1)])
def test_codes_of_another_type_or_width_are_refused(runtime: str, dtype: Any, more: int) -> None:
    qgraph = random_qgraph(4)
    executor = open_runtime(runtime, qgraph)
    with pytest.raises(DataError, match=f"takes int8 codes with {qgraph.features} features, got int"):
        executor.run(np.zeros((6, qgraph.features + more), dtype))


def test_a_file_that_the_runtime_refuses_is_one_line_with_its_reason(
    runtime: str, capfd: pytest.CaptureFixture[str]
) -> None:
    qgraph = random_qgraph(4)
    spec = file_spec(qgraph)
    spec.tensors = [replace(tensor, variable=False) for tensor in spec.tensors]
    with pytest.raises(RuntimeFailure, match=f"^{runtime} refuses model 'random_4': .*") as caught:
        open_runtime(runtime, qgraph, pack(spec))
    message = str(caught.value)
    assert "\n" not in message
    assert "variable" in message or "prepare" in message
    assert capfd.readouterr().err == ""


def test_a_failing_invocation_is_one_line(runtime: str, monkeypatch: pytest.MonkeyPatch) -> None:
    qgraph = random_qgraph(4)
    executor = open_runtime(runtime, qgraph)

    def fail(block: Int8Array) -> Int8Array:
        raise RuntimeError("it\nbroke")

    monkeypatch.setattr(executor, "invoke", fail)
    with pytest.raises(RuntimeFailure, match=f"{runtime} failed on model 'random_4': it broke"):
        executor.run(np.zeros((1, qgraph.features), np.int8))


def test_a_runtime_that_loads_says_nothing(runtime: str, capfd: pytest.CaptureFixture[str]) -> None:
    open_runtime(runtime, random_qgraph(4)).run(np.zeros((1, random_qgraph(4).features), np.int8))
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_what_a_runtime_reports_beside_information_is_passed_on(capfd: pytest.CaptureFixture[str]) -> None:
    with tflite_runtimes._caught_log() as text:
        os.write(2, b"INFO: created\nERROR: the kernel is odd\n")
        assert text() == "ERROR: the kernel is odd"
    assert capfd.readouterr().err == "ERROR: the kernel is odd\n"


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_runtime_that_is_not_installed_is_named_with_its_extra(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in PACKAGES.values():
        for module in [m for m in sys.modules if m.split(".")[0] == package]:
            monkeypatch.delitem(sys.modules, module)
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(tflite_runtimes.np, "__version__", "1.26.4")
    with pytest.raises(MissingTool, match=rf"pip install 'edge-lstm\[{name}\]'"):
        open_runtime(name, random_qgraph(4))


def test_a_runtime_built_for_another_python_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tflite_runtimes, "TFLM_PYTHON", sys.version_info[:2])
    folder = tmp_path / "tflite_micro"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise ImportError('_runtime.so:\\nundefined symbol')")
    for module in [m for m in sys.modules if m.split(".")[0] == "tflite_micro"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        MissingTool, match=r"'tflite_micro' is installed but cannot be loaded here \(_runtime.so: un"
    ):
        open_runtime("tflm", random_qgraph(4))


def test_tflite_runtime_is_refused_beside_numpy_2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tflite_runtimes.np, "__version__", "2.4.6")
    with pytest.raises(MissingTool, match="tflite-runtime needs NumPy 1, here is 2.4.6; give it an environ"):
        open_runtime("tflite-runtime", random_qgraph(4))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "tflm"])
def test_the_signature_of_the_file_takes_x_and_gives_the_forecast(name: str) -> None:
    qgraph = random_qgraph(4)
    executor = open_runtime(name, qgraph)
    codes = random_codes(4, 1, qgraph.features)
    interpreter = executor.load()(model_content=emit_tflite(qgraph))
    forecast = interpreter.get_signature_runner("serving_default")(x=codes[None])["forecast"]
    assert_codes(forecast[0], executor.run(codes), name)


def test_tflm_on_another_python_is_named_with_the_one_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_lstm.executors.tflite_runtimes.TFLM_PYTHON", (3, 9))
    with pytest.raises(MissingTool, match=r"a wheel for Python 3\.9 on x86-64 Linux, here is Python 3\."):
        open_runtime("tflm", random_qgraph(1))
