"""Float .tflite files of others, weights that are not float32, and damaged bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tflite

from edge_lstm.emit.tflite_file import TensorSpec
from edge_lstm.errors import ModelError, UnsupportedModel
from edge_lstm.graph import Dense, Lstm
from edge_lstm.importers.tflite_float import read_float_tflite
from test_tflite_float import PLAIN, TOLERANCE, File, add_lstm, difference, last_row, normalized, outcome

FLOAT16, INT8 = tflite.TensorType.FLOAT16, tflite.TensorType.INT8


# --- weights that are not float32 -------------------------------------------------------------------


def quantized_copy(data: np.ndarray) -> tuple[np.ndarray, float]:
    scale = float(np.abs(data).max() / 127)
    return np.rint(data / scale).astype(np.int8), scale


def test_int8_weights_with_float_activations_are_read_as_the_floats_they_mean() -> None:
    file = File()
    add_lstm(file, PLAIN)
    exact = {}
    for index, tensor in enumerate(file.spec.tensors):
        if tensor.data is not None and tensor.data.ndim == 2:
            codes, scale = quantized_copy(tensor.data)
            exact[index] = codes.astype(np.float32) * np.float32(scale)
            file.spec.tensors[index] = TensorSpec("weights", tensor.shape, INT8, scale, data=codes)
    graph, worst = difference(file.bytes())
    assert graph.made["note"] == "its weights were int8 in the file and are read as float32"
    assert worst < 0.03  # LiteRT rounds the activations of such a file to int8 as well
    [layer] = graph.layers
    assert isinstance(layer, Lstm)
    kernels = [exact[index] for index in list(exact)[:8:2]]
    np.testing.assert_array_equal(layer.kernel, np.concatenate(kernels).T)


def test_float16_weights_behind_dequantize_operators_are_read() -> None:
    file = File()
    add_lstm(file, PLAIN)
    last_row(file, (1, 4))
    half = file.weights(2, 4)
    data = file.spec.tensors[half].data
    assert data is not None
    file.spec.tensors[half] = TensorSpec("half", (2, 4), FLOAT16, data=data.astype(np.float16))
    whole = file.tensor(2, 4)
    file.spec.operate("DEQUANTIZE", 3, [half], [whole])
    file.run("FULLY_CONNECTED", (1, 2), whole, -1, table="FullyConnectedOptions")
    graph, worst = difference(file.bytes())
    assert worst < TOLERANCE
    assert graph.made["note"] == "its weights were float16 in the file and are read as float32"
    assert isinstance(graph.layers[-1], Dense)


# --- files of others --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["keras2_b1_float", "mnist_lstm_float", "keras3_b1_float_while", "keras2_b1_hybrid"]
)
def test_a_file_of_another_converter_computes_what_litert_computes(shared_data: Path, name: str) -> None:
    path = shared_data / "models" / f"{name}.tflite"
    graph, worst = difference(path.read_bytes())
    assert worst < TOLERANCE
    assert read_float_tflite(path).name == name
    assert graph.made["timesteps"] == (28 if "mnist" in name else 6)


def test_int8_files_are_refused_with_the_way_round(shared_data: Path) -> None:
    models = shared_data / "models"
    with pytest.raises(
        UnsupportedModel, match=r"unrolled into 81 primitive operators with INT8 .* without unroll"
    ):
        read_float_tflite(models / "keras2_unrolled_int8.tflite")
    with pytest.raises(
        UnsupportedModel, match="its input is INT8, expected FLOAT32: an integer network is read"
    ):
        read_float_tflite(models / "keras2_b1_int8.tflite")


def test_damaged_bytes_are_read_or_refused(shared_data: Path) -> None:
    rng = np.random.default_rng(6)
    file = File()
    normalized(file)
    sources = [
        file.bytes(),
        *(path.read_bytes() for path in sorted((shared_data / "models").glob("*.tflite"))),
    ]
    for content in sources:
        for size in rng.integers(0, len(content), 15):
            assert not outcome(content[:size])
        for _ in range(40):
            damaged = bytearray(content)
            for place in rng.integers(0, min(len(damaged), 6000), 3):
                damaged[place] ^= 1 << int(rng.integers(8))
            outcome(bytes(damaged))


def test_a_missing_file_is_a_model_error(tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match=r"cannot read .*no.tflite: No such file or directory; give the path"
    ):
        read_float_tflite(tmp_path / "no.tflite")
