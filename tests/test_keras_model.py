"""Keras files read as data: the oracle is Keras itself, the enemy is a file that is not what it says."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import ROOT
from edge_lstm.errors import ModelError, OutputError, UnsupportedModel
from edge_lstm.graph import Channel, Dense, Graph, Lstm, Stream
from edge_lstm.importers.keras_model import DESCRIPTION, read_keras
from edge_lstm.reference import floating
from edge_lstm.training.config import TrainConfig
from edge_lstm.training.model import build, from_graph, load_keras, save, to_graph

FLOAT32_TOLERANCE = 1e-5  # Keras computes in float32, the reference in float64

# Keras 3.15 reads its own variables as NumPy 2 warns not to
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def keras() -> Any:
    return load_keras()


@pytest.fixture(autouse=True)
def fresh_names(keras: Any) -> None:
    """Keras numbers unnamed layers through the whole process."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(3)


def randomized(model: Any, seed: int) -> Any:
    """Every weight drawn, biases too."""
    rng = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(0, 0.7, variable.shape))
    return model


def chain(keras: Any, *layers: Any, features: int = 3) -> Any:
    return keras.Sequential([keras.Input((None, features)), *layers])


def saved(model: Any, folder: Path, name: str = "model.keras") -> Path:
    path = folder / name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(path)
    return path


def assert_same_forecast(path: Path, model: Any, features: int, last_only: bool = False) -> Graph:
    x = np.random.default_rng(1).normal(0, 1.5, (2, 9, features)).astype(np.float32)
    graph = read_keras(path)
    ours, _ = floating.run(graph, x)
    theirs = model(x, training=False).numpy()
    np.testing.assert_allclose(ours[:, -1] if last_only else ours, theirs, atol=FLOAT32_TOLERANCE, rtol=0)
    return graph


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
    randomized(model, sum(units))
    graph = assert_same_forecast(saved(model, tmp_path), model, features)
    assert [layer.outputs for layer in graph.layers] == [*units, outputs]
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
    graph = assert_same_forecast(saved(randomized(model, 5), tmp_path), model, 3)
    assert [type(layer) for layer in graph.layers] == [Lstm, Lstm, Dense, Dense]
    assert not graph.layers[0].bias.any() and not graph.layers[3].bias.any()


def test_a_model_of_the_last_step_is_the_same_network_and_says_so(keras: Any, tmp_path: Path) -> None:
    k = keras.layers
    model = randomized(chain(keras, k.LSTM(4, return_sequences=True), k.LSTM(3), k.Dense(2)), 2)
    graph = assert_same_forecast(saved(model, tmp_path), model, 3, last_only=True)
    assert graph.made["last_only"] is True


def test_a_stateful_lstm_with_a_fixed_batch_is_read(keras: Any, tmp_path: Path) -> None:
    model = keras.Sequential(
        [keras.Input(batch_shape=(2, 9, 3)), keras.layers.LSTM(4, stateful=True, return_sequences=True)]
    )
    assert_same_forecast(saved(randomized(model, 2), tmp_path), model, 3)


def test_a_file_of_ours_opens_in_keras_and_keeps_its_stream(keras: Any, tmp_path: Path) -> None:
    stream = Stream((Channel("flow [a]", "l/min", 3.5, 0.25), Channel("druck", "bar", -1.0, 4.0)), 0.5)
    made = {"train": {"units": [4]}, "figures": {"r2": None, "mse": 0.25}}
    model = build(TrainConfig(units=(4, 3)), features=2)
    path = tmp_path / "pump-2.keras"
    save(model, stream, made, path)
    assert [p.name for p in tmp_path.iterdir()] == ["pump-2.keras"]

    graph = assert_same_forecast(path, model, 2)
    assert (graph.stream, graph.made, graph.name) == (stream, made, "pump_2")
    opened = keras.models.load_model(path)
    x = np.ones((1, 4, 2), np.float32)
    assert (opened(x).numpy() == model(x).numpy()).all()
    again = to_graph(from_graph(graph, TrainConfig()), "pump_2", stream, made)
    for before, after in zip(graph.layers, again.layers, strict=True):
        assert before.name == after.name
        assert (before.kernel == after.kernel).all() and (before.bias == after.bias).all()


def test_save_refuses_another_suffix_and_a_missing_folder(tmp_path: Path) -> None:
    model = build(TrainConfig(units=(1,)), features=1)
    with pytest.raises(OutputError, match=r"m\.h5: a trained model is a \.keras file; choose -o m\.keras"):
        save(model, Stream.unnamed(1), {}, tmp_path / "m.h5")
    with pytest.raises(OutputError, match="create the folder"):
        save(model, Stream.unnamed(1), {}, tmp_path / "none" / "m.keras")
    assert list(tmp_path.iterdir()) == []


LSTM_OPTIONS = {"activation": "relu", "recurrent_activation": "hard_sigmoid", "name": "a"}

REFUSED: dict[str, tuple[Callable[[Any], list[Any]], str]] = {
    "gru": (
        lambda k: [k.GRU(2, return_sequences=True, name="g")],
        r"layer 'g' \(GRU\) is not implemented; train an LSTM of as many units",
    ),
    "bidirectional": (
        lambda k: [k.Bidirectional(k.LSTM(2, return_sequences=True), name="b")],
        r"layer 'b' \(Bidirectional\) is not implemented; a stream has no future",
    ),
    "convolution": (
        lambda k: [k.Conv1D(2, 3, name="c")],
        r"layer 'c' \(Conv1D\) is not implemented; implemented are LSTM",
    ),
    "masking": (
        lambda k: [k.Masking(name="m")],
        r"layer 'm' \(Masking\) .*gives missing values and gaps no weight",
    ),
    "normalisation": (
        lambda k: [k.LayerNormalization(name="n")],
        r"'n' \(LayerNormalization\).*scaling of 'edge-lstm train'",
    ),
    "lambda": (
        lambda k: [k.Lambda(lambda x: x, name="l")],
        r"layer 'l' \(Lambda\).*code of a file is never run",
    ),
    "cells": (
        lambda k: [k.RNN(k.LSTMCell(2), return_sequences=True, name="r")],
        r"'r' \(RNN\).*keras.layers.LSTM instead",
    ),
    "wrapped lstm": (
        lambda k: [k.Reshape((-1, 1, 3)), k.TimeDistributed(k.LSTM(2), name="t")],
        r"(?s)3 problems.*\(Reshape\).*'t' \(TimeDistributed\) is not implemented; only TimeDistributed\(De",
    ),
    "backwards": (
        lambda k: [k.LSTM(2, return_sequences=True, go_backwards=True, name="a")],
        r"'a' \(LSTM\) has go_backwards=True, expected False; reverse the windows",
    ),
    "activations": (
        lambda k: [k.LSTM(2, return_sequences=True, **LSTM_OPTIONS)],
        r"(?s)2 problems.*activation=relu, expected tanh.*recurrent_activation=hard_sigmoid, expected sigm",
    ),
    "early last step": (
        lambda k: [k.LSTM(2, name="a"), k.RepeatVector(4), k.LSTM(2, return_sequences=True, name="b")],
        r"(?s)\(RepeatVector\).*'a' \(LSTM\) returns only its last step, but 'b' needs all of them",
    ),
    "dense activation": (
        lambda k: [k.Dense(2, activation="relu", name="d")],
        r"'d' \(Dense\) has activation=relu, expected linear",
    ),
    "custom activation": (
        lambda k: [k.Dense(2, activation=lambda x: x, name="d")],
        r"'d' \(Dense\) has activation=a custom function, expected linear",
    ),
    "activation layer": (
        lambda k: [k.Activation("tanh", name="d")],
        r"'d' \(Activation\) has activation=tanh, expected linear",
    ),
    "no lstm": (lambda k: [k.Dense(2)], "it has no LSTM layer; this toolkit is for LSTMs"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_layer_that_is_not_implemented_is_refused_by_name(keras: Any, tmp_path: Path, case: str) -> None:
    layers, message = REFUSED[case]
    with pytest.raises(UnsupportedModel, match=message):
        read_keras(saved(chain(keras, *layers(keras.layers)), tmp_path))


def test_all_reasons_come_at_once(keras: Any, tmp_path: Path) -> None:
    k = keras.layers
    model = chain(
        keras, k.GRU(2, return_sequences=True), k.LSTM(3, activation="relu"), k.Dense(2, activation="relu")
    )
    with pytest.raises(UnsupportedModel, match=r"model 'model.keras': 3 problems(\n  - .*){3}$"):
        read_keras(saved(model, tmp_path))


def functional(keras: Any, shape: str) -> Any:
    k = keras.layers
    start = keras.Input((None, 3), name="start")
    first = k.LSTM(3, return_sequences=True, name="first")
    hidden = first(start)
    if shape == "skip":
        return keras.Model(start, k.Dense(3)(k.Add(name="sum")([start, hidden])))
    if shape == "two inputs":
        other = keras.Input((None, 3), name="other")
        return keras.Model([start, other], k.Concatenate(name="join")([hidden, other]))
    if shape == "two outputs":
        return keras.Model(start, [hidden, k.Dense(2, name="head")(hidden)])
    if shape == "shared":
        return keras.Model(start, first(hidden))
    if shape == "state":
        _, h, c = k.LSTM(3, return_state=True, name="encoder")(hidden)
        return keras.Model(
            start, k.LSTM(3, return_sequences=True, name="decoder")(hidden, initial_state=[h, c])
        )
    if shape == "training":
        return keras.Model(start, k.Dropout(0.5, name="drop")(hidden, training=True))
    inner = keras.Sequential([keras.Input((None, 3)), k.Dense(2)], name="inner")
    return keras.Model(start, inner(hidden))


TOPOLOGIES = {
    "skip": r"(?s)'sum' \(Add\) reads 2 tensors.*output of 'start' is read 2 times \(first, sum\): branches",
    "two inputs": r"(?s)it has 2 inputs \(start, other\), expected 1.*'join' \(Concatenate\) reads 2 tensors",
    "two outputs": r"(?s)it has 2 outputs \(first, head\).*the model's output 'first' is read by 'head'",
    "shared": r"'first' \(LSTM\) is used 2 times, expected once",
    "state": r"(?s)'decoder' \(LSTM\) reads 3 tensors.*'encoder' \(LSTM\) has return_state=True",
    "training": r"'drop' \(Dropout\) is called with training=True",
    "nested": r"'inner' \(Sequential\) is not implemented; take its layers into the outer model",
}


@pytest.mark.parametrize("shape", TOPOLOGIES)
def test_a_model_that_is_no_chain_is_refused(keras: Any, tmp_path: Path, shape: str) -> None:
    with pytest.raises(UnsupportedModel, match=TOPOLOGIES[shape]):
        read_keras(saved(functional(keras, shape), tmp_path))


def test_a_class_of_its_author_is_refused_and_its_code_does_not_run(keras: Any, tmp_path: Path) -> None:
    class LSTM(keras.layers.LSTM):  # type: ignore[name-defined,misc]
        pass

    class Network(keras.Model):  # type: ignore[name-defined,misc]
        def call(self, x: Any) -> Any:
            return x

    with pytest.raises(
        UnsupportedModel, match=r"layer 'mine' \(LSTM\) is a class of its author: code of a file"
    ):
        read_keras(saved(chain(keras, LSTM(2, name="mine")), tmp_path))
    network = Network()
    network.build((None, 4, 3))
    with pytest.raises(UnsupportedModel, match="the model is of the class 'Network', expected Sequential"):
        read_keras(saved(network, tmp_path))


def test_an_int8_model_of_keras_is_refused(keras: Any, tmp_path: Path) -> None:
    model = chain(keras, keras.layers.LSTM(4, return_sequences=True), keras.layers.Dense(3, name="head"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it skips the LSTM
        model.quantize("int8")
    with pytest.raises(UnsupportedModel, match=r"'head' \(Dense\) has dtype .*quantize the float model"):
        read_keras(saved(model, tmp_path))


def test_samples_that_are_no_rows_of_channels_are_refused(keras: Any, tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Dense(3)])
    with pytest.raises(
        UnsupportedModel, match=r"takes samples of shape \(4, 4, 3\), expected \(steps, channels\)"
    ):
        read_keras(saved(model, tmp_path))


@pytest.fixture(scope="module")
def good(keras: Any, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A file of this toolkit."""
    path = tmp_path_factory.mktemp("good") / "good.keras"
    save(build(TrainConfig(units=(3,)), 2), Stream.unnamed(2), {"train": {}}, path)
    return path.read_bytes()


def changed(content: bytes, path: Path, change: dict[str, Callable[[bytes], bytes] | None]) -> Path:
    """The archive with members changed (or left out: None) or added."""
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(path, "w") as target:
        for name in [*source.namelist(), *(name for name in change if name not in source.namelist())]:
            old = source.read(name) if name in source.namelist() else b""
            edit = change.get(name, bytes)
            if edit is not None:
                target.writestr(name, edit(old))
    return path


def edited(edit: Callable[[dict[str, Any]], None]) -> Callable[[bytes], bytes]:
    """A change of a JSON member."""

    def change(content: bytes) -> bytes:
        values = json.loads(content)
        edit(values)
        return json.dumps(values).encode()

    return change


def lstm_of(config: dict[str, Any]) -> dict[str, Any]:
    options: dict[str, Any] = config["config"]["layers"][1]["config"]
    return options


def described(edit: Callable[[dict[str, Any]], None]) -> dict[str, Callable[[bytes], bytes] | None]:
    return {DESCRIPTION: edited(edit)}


def configured(edit: Callable[[dict[str, Any]], None]) -> dict[str, Callable[[bytes], bytes] | None]:
    return {"config.json": edited(edit)}


NO_MODEL = "config.json does not describe a Keras 3 model"
NO_WEIGHTS = "no sound weights for layer 'lstm_1' at layers/lstm"

DAMAGED: dict[str, tuple[dict[str, Callable[[bytes], bytes] | None], str]] = {
    "no config": ({"config.json": None}, r"a zip file without config.json, expected a \.keras file"),
    "no weights": ({"model.weights.h5": None}, "a zip file without model.weights.h5"),
    "config is text": ({"config.json": lambda _: b"hello"}, NO_MODEL),
    "config is a list": ({"config.json": lambda _: b"[]"}, NO_MODEL),
    "no layers": (configured(lambda c: c["config"].pop("layers")), NO_MODEL),
    "deep": ({"config.json": lambda _: b"[" * 100_000}, NO_MODEL),
    "weights are text": ({"model.weights.h5": lambda _: b"hello"}, NO_WEIGHTS),
    "weights are cut": ({"model.weights.h5": lambda b: b[: len(b) // 2]}, NO_WEIGHTS),
    "other units": (configured(lambda c: lstm_of(c).update(units=4)), r"they are .*, expected \[\(2, 16\)"),
    "other name": (configured(lambda c: lstm_of(c).update(name="x")), "layer 'x' .*they are of 'lstm_1'"),
    "units are text": (configured(lambda c: lstm_of(c).update(units="many")), NO_WEIGHTS),
    "metadata": ({"metadata.json": lambda _: b"{"}, "metadata.json is damaged"),
    "Keras 2": (
        {"metadata.json": lambda _: b'{"keras_version": "2.15.0"}'},
        "saved by Keras 2.15.0, expected Keras 3; load it with Keras 3 and save it again",
    ),
    "description": ({DESCRIPTION: lambda _: b"{}"}, "edge_lstm.json is damaged"),
    "newer": (described(lambda d: d.update(format=2)), "has format 2, this version reads 1; update"),
    "scale 0": (described(lambda d: d["stream"]["channels"][0].update(scale=0)), "a scale above 0"),
    "period": (described(lambda d: d["stream"].update(period_s=-1)), "edge_lstm.json is damaged"),
    "channels": (
        described(lambda d: d["stream"]["channels"].pop()),
        "takes 2 features, but the stream has 1 channels",
    ),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_archive_is_refused_in_one_line(good: bytes, tmp_path: Path, case: str) -> None:
    change, message = DAMAGED[case]
    with pytest.raises(ModelError, match=message) as caught:
        read_keras(changed(good, tmp_path / "m.keras", change))
    assert "\n" not in str(caught.value)


def test_reading_loads_neither_keras_nor_tensorflow(good: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.keras"
    path.write_bytes(good)
    program = (
        "import sys, pathlib\n"
        "from edge_lstm.importers.keras_model import read_keras\n"
        "read_keras(pathlib.Path(sys.argv[1]))\n"
        "print([name for name in ('keras', 'tensorflow') if name in sys.modules])\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert result.stdout.strip() == "[]"


def test_an_unchanged_copy_of_the_archive_is_read(good: bytes, tmp_path: Path) -> None:
    assert read_keras(changed(good, tmp_path / "m.keras", {})).features == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "neither a zip file nor a model"),
        (b"time,flow\n1,2\n", "neither a zip file nor a model"),
        (b"\x89HDF\r\n\x1a\n" + bytes(64), r"an HDF5 file \(the .h5 of older Keras"),
        (b"\x1c\0\0\0TFL3" + bytes(64), "a .tflite file, expected a .keras file"),
    ],
)
def test_a_foreign_file_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "m.keras"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=message):
        read_keras(path)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.keras: no such file"):
        read_keras(tmp_path / "none.keras")
    with pytest.raises(ModelError, match=r"it cannot be read \(Is a directory\)"):
        read_keras(tmp_path)


def test_every_truncation_and_every_flipped_byte_ends_in_a_stated_failure_or_a_network(
    good: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "m.keras"
    rng = np.random.default_rng(4)
    for _ in range(150):
        content = bytearray(good)
        if rng.random() < 0.3:
            content = content[: int(rng.integers(0, len(good)))]
        else:
            for at in rng.integers(0, len(good), 8):
                content[at] = int(rng.integers(0, 256))
        path.write_bytes(content)
        try:
            read_keras(path)
        except ModelError as error:
            assert str(tmp_path) in str(error) or "'m" in str(error) or "'lstm" in str(error)


def test_weights_that_lie_in_another_file_are_not_followed(good: bytes, tmp_path: Path) -> None:
    import h5py

    secret = tmp_path / "secret"
    np.zeros((2, 12), np.float32).tofile(secret)

    def linked(content: bytes, how: str) -> bytes:
        memory = io.BytesIO(content)
        with h5py.File(memory, "r+") as file:
            group = file["layers/lstm/cell/vars"]
            del group["0"]
            if how == "link":
                group["0"] = h5py.ExternalLink(str(secret), "/0")
            else:
                group.create_dataset("0", (2, 12), "f4", external=[(str(secret), 0, 96)])
        return memory.getvalue()

    for how, message in (("link", "is a link"), ("dataset", "lies in another file")):
        change = {"model.weights.h5": lambda content, how=how: linked(content, how)}
        with pytest.raises(ModelError, match=message):
            read_keras(changed(good, tmp_path / "m.keras", change))  # type: ignore[arg-type]


def test_an_array_that_declares_a_huge_size_is_not_read(good: bytes, tmp_path: Path) -> None:
    import h5py

    def bomb(content: bytes) -> bytes:
        memory = io.BytesIO(content)
        with h5py.File(memory, "r+") as file:
            del file["layers/lstm/cell/vars/0"]
            file.create_dataset("layers/lstm/cell/vars/0", (1 << 30, 12), "f4", chunks=(1024, 12))
        return memory.getvalue()

    with pytest.raises(ModelError, match="expected floats of a small network"):
        read_keras(changed(good, tmp_path / "m.keras", {"model.weights.h5": bomb}))


def test_a_huge_member_is_not_read(good: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_lstm.importers.keras_model.MAX_BYTES", 1000)
    with pytest.raises(ModelError, match="larger than 0 MiB, expected a small network"):
        read_keras(changed(good, tmp_path / "m.keras", {}))
