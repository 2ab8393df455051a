"""Files of Keras 2: another description, other names of the weights, and another hard sigmoid."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from edge_lstm.errors import UnsupportedModel
from edge_lstm.importers.keras_model import read_keras
from keras2_files import NEW, OLD, write_keras2, write_keras2_h5
from keras_models import WARNING, assert_same, changed, configured, keras_module, randomized, saved

pytestmark = pytest.mark.filterwarnings(WARNING)
SHAPE = (5, 3)
Build = Callable[[Any, Any], Any]


def nested(k: Any, x: Any) -> Any:
    """A model in a model, each used more than once, with a frozen layer."""
    keras = keras_module()
    chain = keras.Sequential(
        [keras.Input(SHAPE), k.Dense(3), k.BatchNormalization(), k.LSTM(3, return_sequences=True)]
    )
    chain.layers[0].trainable = False
    start = keras.Input(SHAPE)
    graph = keras.Model(start, k.Add()([start, k.Dense(3)(chain(start))]))
    return graph(k.TimeDistributed(k.Dense(3))(graph(x)))


def attention(k: Any, x: Any) -> Any:
    rows, hidden, _ = k.LSTM(4, return_sequences=True, return_state=True)(x)
    return k.Attention(use_scale=True)([k.Reshape((1, 4))(hidden), rows])


def operations(k: Any, x: Any) -> Any:
    ops = keras_module().ops
    rows = k.GRU(3, return_sequences=True, go_backwards=True)(x)
    turned = 1.0 - ops.flip(ops.tanh(rows), axis=1) * 2.0
    return k.Dense(2)(ops.sum(turned * k.Softmax(axis=1)(k.Dense(1)(turned)), axis=1) + turned[:, -1])


MODELS: dict[str, Build] = {
    "chain": lambda k, x: k.Dense(2, activation="softmax")(
        k.LSTM(3)(k.LeakyReLU(0.3)(k.LSTM(4, return_sequences=True, dropout=0.1)(x)))
    ),
    "both ways": lambda k, x: k.SimpleRNN(2)(
        k.Dense(2)(k.TimeDistributed(k.Dense(2))(k.Bidirectional(k.GRU(3, return_sequences=True))(x)))
    ),
    "convolution": lambda k, x: k.Dense(2)(
        k.Flatten()(k.BatchNormalization()(k.Conv1D(3, 2, padding="causal", activation="relu")(x)))
    ),
    "nested": nested,
    "attention": attention,
    "operations": operations,
}


def sources(tmp_path: Path, model: Any) -> tuple[Path, Path]:
    return saved(model, tmp_path, "source.keras"), saved(model, tmp_path, "source.h5")


@pytest.mark.parametrize("name", MODELS)
def test_a_file_of_keras_2_computes_the_same(tmp_path: Path, name: str) -> None:
    keras = keras_module()
    x = keras.Input(SHAPE)
    model = randomized(keras.Model(x, MODELS[name](keras.layers, x)), len(name))
    windows = np.random.default_rng(1).normal(0, 1.5, (11, *SHAPE)).astype(np.float32)
    expected = np.asarray(model(windows, training=False))
    plain, whole = sources(tmp_path, model)
    for version in (OLD, NEW):
        graph = read_keras(write_keras2(plain, tmp_path / "two.keras", version))
        assert graph.made["keras"] == version
        assert_same(graph, windows, expected)
    assert_same(read_keras(write_keras2_h5(plain, whole, tmp_path / "two.h5", NEW)), windows, expected)


def test_the_hard_sigmoid_is_that_of_the_version(tmp_path: Path) -> None:
    keras = keras_module()
    k = keras.layers
    model = keras.Sequential(
        [keras.Input(SHAPE), k.LSTM(3, recurrent_activation="hard_sigmoid", return_sequences=True),
         k.Dense(2, activation="hard_sigmoid")]
    )  # fmt: skip
    plain, whole = sources(tmp_path, randomized(model, 4))
    windows = np.random.default_rng(1).normal(0, 1.5, (11, *SHAPE)).astype(np.float32)
    assert_same(read_keras(plain), windows, np.asarray(model(windows)))
    older = [write_keras2(plain, tmp_path / "two.keras", NEW),
             write_keras2_h5(plain, whole, tmp_path / "two.h5", NEW)]  # fmt: skip

    def hard_sigmoid(x: Any) -> Any:
        return keras.ops.clip(0.2 * x + 0.5, 0.0, 1.0)

    model.layers[0].cell.recurrent_activation = model.layers[1].activation = hard_sigmoid
    for path in older:
        assert_same(read_keras(path), windows, np.asarray(model(windows)))


def test_a_threshold_of_keras_2_is_an_array_in_its_file(tmp_path: Path) -> None:
    keras = keras_module()
    k = keras.layers
    model = keras.Sequential([keras.Input(SHAPE), k.Dense(3), k.ReLU(threshold=0.25, name="t"), k.Dense(2)])
    path = write_keras2(saved(randomized(model, 4), tmp_path), tmp_path / "two.keras", NEW)

    def edit(config: dict[str, Any]) -> None:
        layer = config["config"]["layers"][2]
        value = {"class_name": "__numpy__", "config": {"value": 0.25, "dtype": "float32"}}
        layer.update(class_name="ThresholdedReLU", config={"name": "t", "trainable": True, "theta": value})

    windows = np.random.default_rng(1).normal(0, 1.5, (11, *SHAPE)).astype(np.float32)
    graph = read_keras(changed(path.read_bytes(), tmp_path / "m.keras", configured(edit)))
    assert_same(graph, windows, np.asarray(model(windows)))


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A GRU that resets before the product, and a dense layer; as .keras and .h5 of Keras 2."""
    keras, folder = keras_module(), tmp_path_factory.mktemp("chain")
    k = keras.layers
    model = keras.Sequential(
        [
            keras.Input(SHAPE),
            k.GRU(3, reset_after=False, name="g", return_sequences=True),
            k.Dense(2, name="d"),
        ]
    )
    plain, whole = sources(folder, randomized(model, 5))
    return write_keras2(plain, folder / "two.keras", NEW), write_keras2_h5(
        plain, whole, folder / "two.h5", NEW
    )


def test_a_chain_of_the_first_keras_2_is_read(chain: tuple[Path, Path], tmp_path: Path) -> None:
    """Without an input layer, the layers in a list of their own, and a GRU that knows no reset_after."""
    path = tmp_path / "first.h5"
    path.write_bytes(chain[1].read_bytes())
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        start, gru, dense = config["config"]["layers"]
        gru["config"]["batch_input_shape"] = start["config"]["batch_input_shape"]
        del gru["config"]["reset_after"]
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": [gru, dense]})
        file.attrs["keras_version"] = "2.2.0"
        file.attrs["epoch"] = 3  # of the user's own
    before, after = read_keras(chain[1]), read_keras(path)
    pairs: list[Any] = list(zip(before.layers, after.layers, strict=True))
    assert after.made["keras"] == "2.2.0" and not pairs[0][1].reset_after
    for one, two in pairs:
        assert one.name == two.name and (one.kernel == two.kernel).all()


def test_a_state_that_the_network_computes_is_refused(tmp_path: Path) -> None:
    """Keras 2 writes the states as further inputs."""
    keras = keras_module()
    x = keras.Input(SHAPE)
    model = keras.Model(x, keras.layers.GRU(3, name="g")(keras.layers.Dense(3, name="d")(x)))
    path = write_keras2(saved(model, tmp_path), tmp_path / "two.keras", NEW)

    def started(config: dict[str, Any]) -> None:
        node = config["config"]["layers"][2]["inbound_nodes"][0]
        node.append(node[0])

    with zipfile.ZipFile(path) as archive:
        assert json.loads(archive.read("config.json"))["config"]["layers"][2]["name"] == "g"
    with pytest.raises(UnsupportedModel, match="'g' .GRU.: it starts from a state that the network computes"):
        read_keras(changed(path.read_bytes(), tmp_path / "m.keras", configured(started)))


def test_a_function_of_tensorflow_that_is_not_known_is_named(tmp_path: Path) -> None:
    keras = keras_module()
    x = keras.Input(SHAPE)
    model = keras.Model(x, keras.ops.tanh(x))
    path = write_keras2(saved(model, tmp_path), tmp_path / "two.keras", NEW)
    change = configured(lambda config: config["config"]["layers"][1]["config"].update(function="math.cumsum"))
    with pytest.raises(
        UnsupportedModel, match=r"\(tf.math.cumsum\): it is not implemented; implemented are Add"
    ):
        read_keras(changed(path.read_bytes(), tmp_path / "m.keras", change))
