"""Integer .tflite files that other people made: read, and the same codes on every executor."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_lstm.emit.tflite_file import FLOAT32, FileSpec, TensorSpec, pack
from edge_lstm.emit.tflite_lstm import add_lstm
from edge_lstm.emit.tflite_model import emit_tflite
from edge_lstm.executors.numpy_executor import NumpyExecutor
from edge_lstm.executors.tflite_runtimes import RUNTIMES, open_runtime
from edge_lstm.importers.tflite_model import read_tflite
from edge_lstm.lower import lower
from edge_lstm.qgraph import QConcat, QDense, QGraph, QLstm, QReverse, QRow, QSlice, QSoftmax, Quantization
from edge_lstm.reference import integer
from edge_lstm.verbs.verify import verify
from firmware_tools.emulator import EmulatedExecutor
from firmware_tools.host import HostExecutor, load_library
from foreign_models import foreign_file
from random_models import random_codes, random_qgraph
from test_tflite_model import assert_same
from test_tflite_runtimes import NAMED, NAMES, assert_codes

SHARED = ["keras2_b1_int8", "keras2_b4_int8", "keras2_bidir_int8", "keras2_rs_int8", "keras2_stack2_int8",
          "keras2_time_major_int8", "mnist_lstm_int8"]  # fmt: skip


# --- the files that came with the project -----------------------------------------------------------


@pytest.mark.parametrize("name", SHARED)
def test_a_file_of_another_converter_verifies_on_every_executor(shared_data: Path, name: str) -> None:
    executors = ["numpy", *NAMES, *([] if NAMED else ["host", "cortex-m4"])]
    path = shared_data / "models" / f"{name}.tflite"
    found = verify(path, on=executors, steps=240)
    assert [agreement.executor for agreement in found.agreements] == executors
    for agreement in found.agreements:
        assert agreement.network.codes > 0
        assert agreement.agrees, f"{agreement.executor}: {agreement.network}"


def test_mnist_is_rows_end_to_end_a_dense_layer_and_a_softmax(shared_data: Path) -> None:
    qgraph = read_tflite(shared_data / "models" / "mnist_lstm_int8.tflite")
    kinds = [type(layer) for layer in qgraph.layers]
    assert kinds == [QLstm, *[QRow] * 28, QConcat, QDense, QSoftmax]
    assert qgraph.sources[1:29] == ((0,),) * 28
    assert qgraph.sources[29:] == (tuple(range(1, 29)), (29,), (30,))
    assert [layer.index for layer in qgraph.layers if isinstance(layer, QRow)] == list(range(28))
    assert (qgraph.window, qgraph.outputs, qgraph.output) == (28, 10, Quantization(1 / 256, -128))


def test_the_bidirectional_file_is_carried_with_the_converters_defect(shared_data: Path) -> None:
    qgraph = read_tflite(shared_data / "models" / "keras2_bidir_int8.tflite")
    reverse, first, last, second, also, joined, dense = qgraph.layers
    assert [type(layer) for layer in (reverse, last, also, joined)] == [QReverse, QRow, QRow, QConcat]
    assert qgraph.sources == ((-1,), (0,), (1,), (-1,), (3,), (4, 2), (5,))
    assert isinstance(dense, QDense)
    for lstm in (first, second):
        assert isinstance(lstm, QLstm)
        assert len({lstm.hidden, lstm.inner, lstm.written}) == 3
        assert lstm.output == joined.output == dense.input


def test_a_batch_is_as_many_lanes_side_by_side(shared_data: Path) -> None:
    qgraph = read_tflite(shared_data / "models" / "keras2_b4_int8.tflite")
    assert (qgraph.lanes, qgraph.batch_major, qgraph.window, qgraph.last_only) == (4, True, 0, True)
    major = read_tflite(shared_data / "models" / "keras2_time_major_int8.tflite")
    assert (major.lanes, major.batch_major, major.timesteps) == (6, False, 1)


# --- random files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("runtime", NAMES)
def test_a_random_file_gives_numpys_codes_in_the_runtime(runtime: str) -> None:
    windowed = 0
    for seed in range(100):
        content, windows = foreign_file(seed)
        qgraph = read_tflite(content)
        windowed += bool(qgraph.window)
        found = open_runtime(runtime, qgraph, content).run_windows(windows)
        expected = NumpyExecutor(qgraph.with_profile(RUNTIMES[runtime].profile)).run_windows(windows)
        assert_codes(found, expected, f"{runtime}, file {seed}")
    assert 50 < windowed < 95


def test_a_random_file_becomes_c_with_the_same_codes() -> None:
    files = [
        (seed, profile, *foreign_file(seed)) for seed in range(200, 206) for profile in ("tflm", "litert")
    ]
    qgraphs = [
        replace(read_tflite(content), name=f"foreign_{seed}_{profile}", profile=profile)
        for seed, profile, content, _ in files
    ]
    library = load_library(qgraphs)
    for qgraph, (*_, windows) in zip(qgraphs, files, strict=True):
        found = HostExecutor(qgraph, library=library).run_windows(windows)
        assert_codes(found, NumpyExecutor(qgraph).run_windows(windows), f"host, {qgraph.name}")


@pytest.mark.parametrize("seed", [6, 40])
def test_a_random_file_runs_on_an_emulated_core(seed: int) -> None:
    content, windows = foreign_file(seed)
    qgraph = read_tflite(content)
    with EmulatedExecutor(qgraph, "cortex-m4") as executor:
        assert_codes(
            executor.run_windows(windows), NumpyExecutor(qgraph).run_windows(windows), f"cortex-m4, {seed}"
        )


def test_a_random_file_survives_being_written_as_ours() -> None:
    for seed in range(30):
        qgraph = read_tflite(foreign_file(seed)[0])
        assert_same(read_tflite(emit_tflite(qgraph)), qgraph)


# --- single forms -----------------------------------------------------------------------------------

X, H, Y = Quantization(0.0234375, -9), Quantization(0.0078125, 4), Quantization(0.03125, 17)


def plain_lstm(units: int = 3, features: int = 2, source: Quantization = X, **changes: Any) -> QLstm:
    rng = np.random.default_rng(5)
    bits = source.bits
    hidden = changes.pop("hidden", H if bits == 8 else Quantization(2.0**-15, 0, 16))
    return QLstm(
        "lstm", rng.integers(-127, 128, (4, units, features)), rng.integers(-127, 128, (4, units, units)),
        rng.integers(-999, 999, (4, units)), np.array([1, 2, 3, 4]) / 512, np.array([4, 3, 2, 1]) / 512,
        source, hidden, -12, **changes,
    )  # fmt: skip


def started(
    steps: int = 6, lanes: int = 1, features: int = 2, source: Quantization = X
) -> tuple[FileSpec, int]:
    """A file whose input is batch-major, and the output of its LSTM."""
    spec = FileSpec("foreign")
    start = spec.activation("x", (lanes, steps, features), source)
    spec.inputs = {"x": start}
    return spec, add_lstm(spec, start, plain_lstm(features=features, source=source), False)


def finished(spec: FileSpec, output: int) -> bytes:
    spec.outputs = {"y": output}
    return pack(spec)


def numbers(spec: FileSpec, *entries: int) -> int:
    return spec.add(TensorSpec("numbers", (len(entries),), 2, data=np.array(entries, np.int32)))


def test_a_chain_that_returns_the_last_row_stays_a_streaming_network() -> None:
    spec, value = started()
    row = spec.activation("row", (1, 3), H)
    vectors = [numbers(spec, *v) for v in ((0, -1, 0), (0, 0, 0), (1, 1, 1))]
    masks = {"BeginMask": 5, "EndMask": 5, "ShrinkAxisMask": 2}
    spec.operate("STRIDED_SLICE", 2, [value, *vectors], [row], "StridedSliceOptions", **masks)
    relu = spec.activation("relu", (1, 3), H)
    spec.operate("RELU", 2, [row], [relu])
    qgraph = read_tflite(finished(spec, relu))
    assert (qgraph.window, qgraph.timesteps, qgraph.last_only, len(qgraph.layers)) == (0, 6, True, 2)


def test_a_row_from_the_middle_makes_a_window_network() -> None:
    spec, value = started()
    row = spec.activation("row", (1, 3), H)
    index = spec.add(TensorSpec("index", (), 2, data=np.array(2, np.int32)))
    spec.operate("GATHER", 1, [value, index], [row], "GatherOptions", Axis=1)
    qgraph = read_tflite(finished(spec, row))
    assert (qgraph.window, qgraph.last_only, qgraph.rows) == (6, False, 1)
    assert qgraph.layers[1] == QRow("row_1", H, 2)
    codes = random_codes(3, 6, 2)
    lstm = integer.run(lower(QGraph("a", qgraph.layers[:1], qgraph.stream)), codes[None])[0]
    assert_codes(NumpyExecutor(qgraph).run(codes), lstm[0, [2]], "row 2")


def test_a_slice_of_features_and_one_in_reverse_are_layers() -> None:
    spec, value = started()
    part, back = spec.activation("part", (1, 6, 2), H), spec.activation("back", (1, 6, 2), H)
    vectors = [numbers(spec, *v) for v in ((0, 0, 1), (1, 6, 3), (1, 1, 1))]
    spec.operate("STRIDED_SLICE", 2, [value, *vectors], [part], "StridedSliceOptions")
    vectors = [numbers(spec, *v) for v in ((0, 0, 0), (0, 0, 0), (1, -1, 1))]
    masks = {"BeginMask": 7, "EndMask": 7}
    spec.operate("STRIDED_SLICE", 2, [part, *vectors], [back], "StridedSliceOptions", **masks)
    qgraph = read_tflite(finished(spec, back))
    assert qgraph.layers[1:] == (QSlice("slice_1", H, 1, 3), QReverse("reverse_1", H))
    assert (qgraph.window, qgraph.rows, qgraph.outputs) == (6, 6, 2)


def test_a_file_that_turns_its_input_for_a_time_major_lstm_keeps_its_time_steps() -> None:
    spec = FileSpec("foreign")
    start = spec.activation("x", (1, 6, 2), X)
    turned = spec.activation("turned", (6, 1, 2), X)
    spec.operate("RESHAPE", 1, [start, numbers(spec, 6, 1, 2)], [turned], "ReshapeOptions")
    value = add_lstm(spec, turned, plain_lstm(), True)
    spec.inputs = {"x": start}
    qgraph = read_tflite(finished(spec, value))
    assert (qgraph.timesteps, qgraph.lanes, qgraph.batch_major) == (6, 1, False)


def test_a_dense_layer_with_relu_keeps_it() -> None:
    spec, value = started(steps=1)
    kernel = spec.constant("kernel", np.full((2, 3), 7, np.int8), 0.125)
    output = spec.activation("dense", (1, 1, 2), Y)
    options = {"KeepNumDims": True, "FusedActivationFunction": 1}
    spec.operate("FULLY_CONNECTED", 4, [value, kernel], [output], "FullyConnectedOptions", **options)
    dense = read_tflite(finished(spec, output)).layers[1]
    assert isinstance(dense, QDense)
    assert dense.relu
    assert dense.bias.tolist() == [0, 0]


@pytest.mark.parametrize("name", [name for name in NAMES if name != "tflm"])
def test_a_float_border_around_an_int8_network_is_taken_off(name: str) -> None:
    inner = random_qgraph(3, layers=1)
    spec = FileSpec("wrapped")
    start = spec.add(TensorSpec("x", (1, 1, inner.features), FLOAT32))
    value = spec.activation("codes", (1, 1, inner.features), inner.input)
    spec.operate("QUANTIZE", 1, [start], [value], "QuantizeOptions")
    [lstm] = [layer for layer in inner.layers if isinstance(layer, QLstm)]
    value = add_lstm(spec, value, lstm, False)
    end = spec.add(TensorSpec("y", (1, 1, lstm.outputs), FLOAT32))
    spec.operate("DEQUANTIZE", 2, [value], [end], "DequantizeOptions")
    spec.inputs, spec.outputs = {"x": start}, {"y": end}
    qgraph = read_tflite(pack(spec))
    assert (qgraph.input, qgraph.output) == (inner.input, lstm.output)
    assert_same(qgraph.layers[0], replace(lstm, name="lstm_1"))
    interpreter = RUNTIMES[name].load(open_runtime(name, inner))(model_content=pack(spec))
    interpreter.allocate_tensors()
    ends = [
        details()[0]["index"] for details in (interpreter.get_input_details, interpreter.get_output_details)
    ]
    rows = []
    codes = random_codes(3, 40, inner.features)
    for row in codes:
        interpreter.set_tensor(ends[0], inner.input.decode(row).astype(np.float32)[None, None])
        interpreter.invoke()
        rows.append(lstm.output.encode(interpreter.get_tensor(ends[1])[0, 0]))
    expected = NumpyExecutor(qgraph.with_profile(RUNTIMES[name].profile)).run(codes)
    assert_codes(np.stack(rows), expected, name)


@pytest.mark.parametrize("bias", [True, False])
def test_a_network_of_16_bit_activations_runs_as_tensorflow_lite_micro_runs_it(bias: bool) -> None:
    rng = np.random.default_rng(8)
    source, out = Quantization(2.0**-13, 0, 16), Quantization(float(np.float32(3e-4)), 0, 16)
    spec, value = started(steps=3, source=source)
    scales = (rng.uniform(0.5, 2, 4) / 200).astype(np.float32)
    reads = [value, spec.constant("kernel", rng.integers(-127, 128, (4, 3)).astype(np.int8), scales)]
    if bias:
        reads.append(spec.constant("bias", rng.integers(-(10**6), 10**6, 4), scales * np.float32(2.0**-15)))
    output = spec.activation("dense", (1, 3, 4), out)
    spec.operate("FULLY_CONNECTED", 7, reads, [output], "FullyConnectedOptions", KeepNumDims=True)
    content = finished(spec, output)
    qgraph = read_tflite(content)
    assert (qgraph.input, qgraph.output, qgraph.profiles) == (source, out, ("tflm",))
    codes = rng.integers(-32768, 32768, (90, 2)).astype(np.int16)
    if "tflm" in NAMES:
        expected = NumpyExecutor(qgraph).run(codes)
        assert_codes(open_runtime("tflm", qgraph, content).run(codes), expected, "tflm")
