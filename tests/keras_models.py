"""Small Keras models for the tests of the importer: many heads on one input, saved and read one by one."""

from __future__ import annotations

import io
import json
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from edge_lstm.graph import Graph, Stream
from edge_lstm.importers.keras_model import read_keras
from edge_lstm.reference import floating
from edge_lstm.training.config import TrainConfig
from edge_lstm.training.model import build, load_keras, save

FLOAT32_TOLERANCE = (
    1e-5  # of the larger of 1 and the value: Keras computes in float32, the reference in float64
)
WARNING = "ignore:__array__ implementation:DeprecationWarning"  # Keras 3.15 reads its variables so
Edit = Callable[[bytes], bytes]


def keras_module() -> Any:
    return load_keras()


def randomized(model: Any, seed: int) -> Any:
    """Every weight drawn, biases and statistics too."""
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        if variable.dtype == "float32":
            values = rng.normal(0, 0.7, variable.shape)
            variable.assign(np.abs(values) + 0.3 if "variance" in variable.path else values)
    for layer in model.layers:
        if hasattr(layer, "finalize_state"):  # Normalization computes with a copy
            layer.finalize_state()
    return model


def saved(model: Any, folder: Path, name: str = "model.keras") -> Path:
    path = folder / name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(path)
    return path


def described(model: Any, folder: Path) -> Path:
    """A .keras file with the description of a model and without its weights: enough to be refused."""
    memory = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        content = keras_module().saving.serialize_keras_object(model)
    with h5py.File(memory, "w") as file:
        file.create_group("layers")
    with zipfile.ZipFile(folder / "model.keras", "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": keras_module().__version__}))
        archive.writestr("config.json", json.dumps(content))
        archive.writestr("model.weights.h5", memory.getvalue())
    return folder / "model.keras"


def ours(graph: Graph, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The float reference on Keras inputs (batch, timesteps, ...): what Keras would return, flattened."""
    rows = x.reshape(x.shape[0], x.shape[1] if x.ndim > 2 else 1, -1)
    y, _ = floating.run(graph, graph.stream.to_network(rows))
    return (y[:, [-1]] if graph.made.get("last_only") else y).reshape(x.shape[0], -1)


def assert_same(graph: Graph, x: np.ndarray[Any, Any], y: np.ndarray[Any, Any]) -> None:
    """y: what Keras returns for x."""
    expected = y.reshape(y.shape[0], -1)
    got = ours(graph, x)
    assert got.shape == expected.shape
    worst = np.max(np.abs(got - expected) / np.maximum(1, np.abs(expected)))
    assert worst <= FLOAT32_TOLERANCE, f"{graph.name}: off by {worst:.2g}"


def assert_read(model: Any, folder: Path, name: str = "model.keras", seed: int = 1, rows: int = 9) -> Graph:
    """Save the model, read it, and compare what both compute."""
    graph = read_keras(saved(model, folder, name))
    batch, *shape = model.input_shape
    shape = [rows if size is None else size for size in shape]
    x = np.random.default_rng(seed).normal(0, 1.5, (batch or 2, *shape)).astype(np.float32)
    assert_same(graph, x, np.asarray(model(x, training=False)))
    return graph


def changed(content: bytes, path: Path, change: dict[str, Edit | None]) -> Path:
    """The archive with members changed (or left out: None) or added."""
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(path, "w") as target:
        for name in [*source.namelist(), *(name for name in change if name not in source.namelist())]:
            old = source.read(name) if name in source.namelist() else b""
            edit = change.get(name, bytes)
            if edit is not None:
                target.writestr(name, edit(old))
    return path


def edited(edit: Callable[[dict[str, Any]], object]) -> Edit:
    """A change of a JSON member."""

    def change(content: bytes) -> bytes:
        values = json.loads(content)
        edit(values)
        return json.dumps(values).encode()

    return change


def configured(edit: Callable[[dict[str, Any]], object]) -> dict[str, Edit | None]:
    """A change of the description."""
    return {"config.json": edited(edit)}


def weighted(edit: Callable[[Any], object]) -> dict[str, Edit | None]:
    """A change of the HDF5 file with the weights."""

    def change(content: bytes) -> bytes:
        memory = io.BytesIO(content)
        with h5py.File(memory, "r+") as file:
            edit(file)
        return memory.getvalue()

    return {"model.weights.h5": change}


def our_file(folder: Path) -> bytes:
    """A file of this toolkit: sensor_stream, lstm_1 of 3 units and dense, 2 channels."""
    path = folder / "good.keras"
    save(build(TrainConfig(units=(3,)), 2), Stream.unnamed(2), {"train": {}}, path)
    return path.read_bytes()


def saved_graph(folder: Path) -> list[bytes]:
    """A functional model with a model in it, attention and operations, as .keras and as .h5."""
    keras = keras_module()
    k = keras.layers
    x = keras.Input((5, 3))
    inner = keras.Sequential([keras.Input((5, 3)), k.BatchNormalization(), k.Dense(3)], name="inner")
    rows = k.Bidirectional(k.GRU(2, return_sequences=True))(inner(inner(x)))
    context = k.Attention()([k.Reshape((1, 4))(rows[:, -1]), rows])
    y = k.Dense(2)(k.Concatenate()([k.Flatten()(context), k.RNN([k.LSTMCell(2), k.GRUCell(2)])(rows) * 2.0]))
    model = keras.Model(x, y)
    return [saved(model, folder, name).read_bytes() for name in ("m.keras", "m.h5")]


def functional(layers: list[dict[str, Any]], output: list[Any]) -> Edit:
    """The description of a functional model on an input 'x' of 5 rows and 2 features."""
    start = {"class_name": "InputLayer", "config": {"name": "x", "batch_shape": [None, 5, 2]}, "name": "x",
             "inbound_nodes": []}  # fmt: skip
    config = {"layers": [start, *layers], "input_layers": ["x", 0, 0], "output_layers": output}
    return lambda _: json.dumps({"class_name": "Functional", "config": config}).encode()


def call(name: str, *sources: str, kind: str = "Dropout", **options: Any) -> dict[str, Any]:
    """A layer that is called once, on the first outputs of others."""
    tensors = [{"class_name": "__keras_tensor__", "config": {"keras_history": [s, 0, 0]}} for s in sources]
    args = [tensors if len(tensors) > 1 else tensors[0]]
    return {"class_name": kind, "config": {"name": name, "trainable": True, **options}, "name": name,
            "inbound_nodes": [{"args": args, "kwargs": {}}]}  # fmt: skip
