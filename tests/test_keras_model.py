"""Keras files read as data: the oracle is Keras itself, the enemy is a file that is not what it says."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import ROOT
from edge_lstm.errors import ModelError, OutputError, UnsupportedModel
from edge_lstm.graph import Channel, Dense, Lstm, Stream
from edge_lstm.importers.keras_model import DESCRIPTION, read_keras
from edge_lstm.training.config import TrainConfig
from edge_lstm.training.model import build, from_graph, save, to_graph
from keras_models import WARNING, assert_read, keras_module, randomized, saved

pytestmark = pytest.mark.filterwarnings(WARNING)


@pytest.fixture(scope="module")
def keras() -> Any:
    return keras_module()


def chain(keras: Any, *layers: Any, features: int = 3) -> Any:
    return keras.Sequential([keras.Input((None, features)), *layers])


@pytest.mark.parametrize(
    ("units", "features", "outputs", "functional"),
    [((1,), 1, 1, False), ((7,), 5, 3, True), ((13, 6), 2, 4, False), ((3, 17, 5), 11, 11, True)],
)
def test_a_model_saved_by_plain_keras_forecasts_the_same_in_the_reference(
    keras: Any, tmp_path: Path, units: tuple[int, ...], features: int, outputs: int, functional: bool
) -> None:
    layers = [keras.layers.LSTM(size, return_sequences=True, unroll=size == 13) for size in units]
    layers.append(keras.layers.Dense(outputs))
    if functional:
        value = start = keras.Input((9 if 13 in units else None, features))
        for layer in layers:
            value = layer(value)
        model = keras.Model(start, value)
    else:
        model = keras.Sequential([keras.Input((9, features)), *layers])
    graph = assert_read(randomized(model, sum(units)), tmp_path)
    found: list[Any] = list(graph.layers)
    assert [layer.outputs for layer in found] == [*units, outputs]
    assert graph.stream == Stream.unnamed(features)
    assert graph.made["keras"] == keras.__version__ and "last_only" not in graph.made


def test_layers_that_only_train_and_linear_activations_are_left_out(keras: Any, tmp_path: Path) -> None:
    k = keras.layers
    model = chain(
        keras, k.GaussianNoise(0.3),
        k.LSTM(4, return_sequences=True, dropout=0.2, recurrent_dropout=0.1, use_bias=False),
        k.SpatialDropout1D(0.3), k.LSTM(5, return_sequences=True, stateful=False), k.Dropout(0.5),
        k.TimeDistributed(k.Dense(6)), k.Activation("linear"), k.TimeDistributed(k.Dense(2, use_bias=False)),
    )  # fmt: skip
    graph = assert_read(randomized(model, 5), tmp_path)
    found: list[Any] = list(graph.layers)
    assert [type(layer) for layer in found] == [Lstm, Lstm, Dense, Dense]
    assert not found[0].bias.any() and not found[3].bias.any()


def test_a_model_of_the_last_step_is_the_same_network_and_says_so(keras: Any, tmp_path: Path) -> None:
    k = keras.layers
    model = randomized(chain(keras, k.LSTM(4, return_sequences=True), k.LSTM(3), k.Dense(2)), 2)
    graph = assert_read(model, tmp_path)
    assert graph.made["last_only"] is True


def test_a_stateful_lstm_with_a_fixed_batch_is_read(keras: Any, tmp_path: Path) -> None:
    model = keras.Sequential(
        [keras.Input(batch_shape=(2, 9, 3)), keras.layers.LSTM(4, stateful=True, return_sequences=True)]
    )
    assert assert_read(randomized(model, 2), tmp_path).window == 0


def test_a_file_of_ours_opens_in_keras_and_keeps_its_stream(keras: Any, tmp_path: Path) -> None:
    stream = Stream((Channel("flow [a]", "l/min", 3.5, 0.25), Channel("druck", "bar", -1.0, 4.0)), 0.5)
    made = {"train": {"units": [4]}, "figures": {"r2": None, "mse": 0.25}}
    model = build(TrainConfig(units=(4, 3)), features=2)
    path = tmp_path / "pump-2.keras"
    save(model, stream, made, path)
    assert [p.name for p in tmp_path.iterdir()] == ["pump-2.keras"]

    graph = read_keras(path)
    assert (graph.stream, graph.made, graph.name) == (stream, made, "pump_2")
    opened = keras.models.load_model(path)
    x = np.ones((1, 4, 2), np.float32)
    assert (opened(x).numpy() == model(x).numpy()).all()
    again = to_graph(from_graph(graph, TrainConfig()), "pump_2", stream, made)
    pairs: list[Any] = list(zip(graph.layers, again.layers, strict=True))
    for before, after in pairs:
        assert before.name == after.name
        assert (before.kernel == after.kernel).all() and (before.bias == after.bias).all()


def test_the_rows_ahead_travel_in_the_file_and_are_1_in_older_ones(keras: Any, tmp_path: Path) -> None:
    path, old = tmp_path / "m.keras", tmp_path / "old.keras"
    save(build(TrainConfig(units=(3,)), 2), Stream.unnamed(2), {}, path, ahead=0)
    assert read_keras(path).ahead == 0
    with zipfile.ZipFile(path) as written, zipfile.ZipFile(old, "w") as older:
        for name in written.namelist():
            content = written.read(name)
            if name == DESCRIPTION:
                described = json.loads(content)
                assert described.pop("ahead") == 0
                content = json.dumps(described | {"format": 2}).encode()
            older.writestr(name, content)
    assert read_keras(old).ahead == 1


def test_save_refuses_another_suffix_and_a_missing_folder(tmp_path: Path) -> None:
    model = build(TrainConfig(units=(1,)), features=1)
    with pytest.raises(OutputError, match=r"m\.h5: a trained model is a \.keras file; choose -o m\.keras"):
        save(model, Stream.unnamed(1), {}, tmp_path / "m.h5")
    with pytest.raises(OutputError, match="create the folder"):
        save(model, Stream.unnamed(1), {}, tmp_path / "none" / "m.keras")
    assert list(tmp_path.iterdir()) == []


def test_a_class_of_its_author_is_refused_and_its_code_does_not_run(keras: Any, tmp_path: Path) -> None:
    class LSTM(keras.layers.LSTM):  # type: ignore[misc]
        pass

    class Network(keras.Model):  # type: ignore[misc]
        def call(self, x: Any) -> Any:
            return x

    with pytest.raises(
        UnsupportedModel, match=r"layer 'mine' \(LSTM\) is a class of its author: code of a file"
    ):
        read_keras(saved(chain(keras, LSTM(2, name="mine")), tmp_path))
    network = Network()
    network.build((None, 4, 3))
    with pytest.raises(UnsupportedModel, match="it is of the class 'Network', expected Sequential"):
        read_keras(saved(network, tmp_path))


def test_an_int8_model_of_keras_is_refused(keras: Any, tmp_path: Path) -> None:
    model = chain(keras, keras.layers.LSTM(4, return_sequences=True), keras.layers.Dense(3, name="head"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it skips the LSTM
        model.quantize("int8")
    with pytest.raises(UnsupportedModel, match=r"'head' \(Dense\) has dtype .*quantize the float model"):
        read_keras(saved(model, tmp_path))


def test_the_last_row_of_a_window_of_open_length_is_a_stream(keras: Any, tmp_path: Path) -> None:
    x = keras.Input((None, 3))
    rows = keras.layers.GRU(2, return_sequences=True)(x)
    graph = assert_read(randomized(keras.Model(x, keras.layers.Dense(2)(rows[:, -1])), 4), tmp_path)
    assert graph.window == 0 and graph.made["last_only"] is True


def test_one_row_without_an_axis_of_time_is_read(keras: Any, tmp_path: Path) -> None:
    k = keras.layers
    front = [keras.Input((3,)), k.Dense(4, activation="relu")]
    model = randomized(keras.Sequential([*front, k.Reshape((1, 4)), k.LSTM(3), k.Dense(2)]), 6)
    graph = assert_read(model, tmp_path)
    assert graph.window == 0 and graph.features == 3
    twice = keras.Sequential([*front, k.RepeatVector(1), k.LSTM(3), k.Reshape((1, 3)), k.GRU(2), k.Dense(2)])
    assert assert_read(randomized(twice, 7), tmp_path).window == 1


@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_a_sequential_model_without_an_input_layer_is_read(keras: Any, tmp_path: Path, suffix: str) -> None:
    model = keras.Sequential([keras.layers.GRU(3, return_sequences=True), keras.layers.Dense(2)])
    model(np.zeros((1, 5, 4), np.float32))
    graph = assert_read(randomized(model, 3), tmp_path, f"m.{suffix}")
    assert graph.features == 4


def test_a_layer_that_is_called_by_keyword_is_read(keras: Any, tmp_path: Path) -> None:
    x = keras.Input((5, 3))
    y = keras.layers.LSTM(2, return_sequences=True)(sequences=x)
    assert_read(randomized(keras.Model(x, keras.layers.Dense(2)(inputs=y)), 3), tmp_path)


def test_frozen_layers_in_a_model_in_a_model_keep_their_weights_in_an_h5_file(
    keras: Any, tmp_path: Path
) -> None:
    k = keras.layers
    inner = keras.Sequential([keras.Input((5, 3)), k.Dense(3), k.BatchNormalization(), k.Dense(3)])
    both = k.Bidirectional(k.LSTM(3, return_sequences=True), merge_mode="sum")
    inner.layers[0].trainable = both.trainable = False
    x = keras.Input((5, 3))
    model = randomized(keras.Model(x, inner(both(inner(x)))), 9)
    assert_read(model, tmp_path, "m.h5")


def test_rows_and_window_follow_from_the_layers(keras: Any, tmp_path: Path) -> None:
    k = keras.layers

    def window_of(*layers: Any) -> int:
        return read_keras(saved(keras.Sequential([keras.Input((6, 3)), *layers]), tmp_path)).window

    assert window_of(k.LSTM(2, return_sequences=True), k.Conv1D(2, 3, padding="causal")) == 0
    assert window_of(k.LSTM(2), k.Dense(2)) == 0
    assert window_of(k.Bidirectional(k.LSTM(2))) == 6
    assert window_of(k.LSTM(2), k.RepeatVector(6), k.LSTM(2, return_sequences=True)) == 6


def test_a_layer_that_became_a_wider_one_is_named(keras: Any, tmp_path: Path) -> None:
    k = keras.layers
    model = chain(keras, k.Reshape((-1, 3, 1)), k.ConvLSTM1D(2, 2, padding="same", name="grid"))
    graph = assert_read(randomized(model, 2), tmp_path)
    assert graph.made["expanded"] == ["ConvLSTM1D 'grid' of 2 filters is an LSTM of 6 units"]


def test_all_damaged_weights_are_named_at_once(keras: Any, tmp_path: Path) -> None:
    k = keras.layers
    model = randomized(chain(keras, k.LSTM(2, return_sequences=True, name="l"), k.Dense(2, name="d")), 1)
    for layer in model.layers:
        layer.set_weights([weight * np.nan for weight in layer.get_weights()])
    with pytest.raises(
        ModelError, match=r"(?s)5 problems.*'l' \(LSTM\): kernel holds NaN.*'d' \(Dense\): bias holds"
    ) as caught:
        read_keras(saved(model, tmp_path))
    assert not isinstance(caught.value, UnsupportedModel)


def test_a_network_of_too_many_weights_is_refused(
    keras: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(chain(keras, keras.layers.LSTM(4), keras.layers.Dense(3)), tmp_path)
    monkeypatch.setattr("edge_lstm.importers.keras_weights.MAX_WEIGHTS", 100)
    with pytest.raises(ModelError, match="it has more than 100 weights, expected a small network"):
        read_keras(path)


def test_reading_loads_neither_keras_nor_tensorflow_nor_hdf5(tmp_path: Path) -> None:
    path = tmp_path / "m.keras"
    save(build(TrainConfig(units=(3,)), 2), Stream.unnamed(2), {}, path)
    program = (
        "import sys, pathlib\n"
        "from edge_lstm.importers.keras_model import read_keras\n"
        "read_keras(pathlib.Path(sys.argv[1]))\n"
        "print([name for name in ('keras', 'tensorflow', 'h5py') if name in sys.modules])\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert result.stdout.strip() == "[]"
