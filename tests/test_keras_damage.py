"""Keras files that are damaged, incomplete or no files of Keras: a stated failure that says which."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from edge_lstm.errors import ModelError, UnsupportedModel
from edge_lstm.importers.keras_file import DESCRIPTION
from edge_lstm.importers.keras_model import read_keras
from keras_models import WARNING, Edit, changed, configured, edited, our_file, saved_graph, weighted

pytestmark = pytest.mark.filterwarnings(WARNING)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return our_file(tmp_path_factory.mktemp("good"))


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    return saved_graph(tmp_path_factory.mktemp("graphs"))


def lstm_of(config: dict[str, Any]) -> dict[str, Any]:
    options: dict[str, Any] = config["config"]["layers"][1]["config"]
    return options


def described(edit: Callable[[dict[str, Any]], object]) -> dict[str, Edit | None]:
    return {DESCRIPTION: edited(edit)}


def replaced(path: str, values: Any) -> dict[str, Edit | None]:
    def edit(file: Any) -> None:
        del file[path]
        if values is not None:
            file[path] = values

    return weighted(edit)


CELL = "layers/lstm/cell/vars"
NO_MODEL = "its description is no model of Keras"
WEIGHTS = r"no sound weights for layer 'lstm_1' \(LSTM\): "

DAMAGED: dict[str, tuple[dict[str, Edit | None], str]] = {
    "no config": ({"config.json": None}, r"a zip file without config.json, expected a \.keras or \.h5 file"),
    "no weights": ({"model.weights.h5": None}, "a zip file without model.weights.h5"),
    "no metadata": ({"metadata.json": None}, "a zip file without metadata.json"),
    "config is text": (
        {"config.json": lambda _: b"hello"},
        "its config.json is no JSON; save the model again",
    ),
    "config is a list": ({"config.json": lambda _: b"[]"}, "its config.json is a list, expected an object"),
    "config is deep": ({"config.json": lambda _: b"[" * 100_000}, "its config.json is no JSON"),
    "config is empty": ({"config.json": lambda _: b"{}"}, f"{NO_MODEL} .KeyError: 'class_name'"),
    "no layers": (configured(lambda c: c["config"].pop("layers")), f"{NO_MODEL} .KeyError: 'layers'"),
    "units are text": (
        configured(lambda c: lstm_of(c).update(units="many")),
        "units of 'lstm_1' is 'many', expec",
    ),
    "a flag is text": (
        configured(lambda c: lstm_of(c).update(return_sequences="no")),
        "return_sequences of 'lstm_1' is 'no', expected true or false",
    ),
    "no name": (configured(lambda c: lstm_of(c).update(name="\n")), r"a layer is called '\\n'"),
    "one name": (configured(lambda c: lstm_of(c).update(name="dense")), "two layers are called 'dense'"),
    "input": (
        configured(lambda c: c["config"]["layers"][0]["config"].update(batch_shape=[None, 5, 0])),
        r"its input has the shape \[None, 5, 0\]",
    ),
    "weights are text": (
        {"model.weights.h5": lambda _: b"hello"},
        "its model.weights.h5 is damaged: .*needs bytes",
    ),
    "weights are cut": ({"model.weights.h5": lambda b: b[: len(b) // 2]}, WEIGHTS + ".*it is cut or damaged"),
    "other units": (
        configured(lambda c: lstm_of(c).update(units=4)),
        r"kernel is \(2, 12\), expected \(2, 16\)",
    ),
    "other name": (
        configured(lambda c: c["config"]["layers"][2]["config"].update(name="x")),
        r"layer 'x' \(Dense\): layers/dense/vars holds those of 'dense'",
    ),
    "no array": (replaced(f"{CELL}/2", None), WEIGHTS + f"it has no {CELL}/2"),
    "no group": (
        weighted(lambda f: f.pop("layers/lstm")),
        WEIGHTS + "layers has 0 groups for layers of class LSTM",
    ),
    "no layers in it": (weighted(lambda f: f.pop("layers")), WEIGHTS + "it has no layers"),
    "whole numbers": (
        replaced(f"{CELL}/2", np.ones(12, np.int32)),
        WEIGHTS + "bias is int32, expected floats",
    ),
    "infinity": (
        replaced(f"{CELL}/2", np.full(12, np.inf)),
        WEIGHTS + "bias holds NaN or infinity, the training",
    ),
    "metadata": ({"metadata.json": lambda _: b"{"}, "its metadata.json is no JSON"),
    "no version": ({"metadata.json": lambda _: b"{}"}, "it names no version of Keras; save the model again"),
    "Keras 1": (
        {"metadata.json": lambda _: b'{"keras_version": "1.2.2"}'},
        "saved by Keras 1.2.2, expected Keras 2 or 3; save it with one of these",
    ),
    "description": (
        {DESCRIPTION: lambda _: b"{}"},
        "edge_lstm.json is damaged; train or save the model again",
    ),
    "newer": (described(lambda d: d.update(format=4)), "has format 4, this version reads 2 .. 3; update"),
    "ahead": (described(lambda d: d.update(ahead=17)), "ahead is 17, expected 0 .. 16; save the model again"),
    "scale 0": (described(lambda d: d["stream"]["channels"][0].update(scale=0)), "a scale above 0"),
    "period": (
        described(lambda d: d["stream"].update(period_s=-1)),
        "edge_lstm.json: period_s is -1.0, expected 0",
    ),
    "channels": (
        described(lambda d: d["stream"]["channels"].pop()),
        "takes 2 features, but its edge_lstm.json describes 1",
    ),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_archive_is_refused_with_its_path(good: bytes, tmp_path: Path, case: str) -> None:
    change, message = DAMAGED[case]
    with pytest.raises(ModelError, match=message) as caught:
        read_keras(changed(good, tmp_path / "m.keras", change))
    assert str(tmp_path) in str(caught.value) or isinstance(caught.value, UnsupportedModel)


def test_an_unchanged_copy_of_the_archive_is_read(good: bytes, tmp_path: Path) -> None:
    assert read_keras(changed(good, tmp_path / "m.keras", {})).features == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"neither a zip file nor an HDF5 file, expected a \.keras or \.h5 file of Keras 2 or 3"),
        (b"time,flow\n1,2\n", "neither a zip file nor an HDF5 file"),
        (
            b"\x89HDF\r\n\x1a\n" + bytes(64),
            "a damaged HDF5 file: its addresses have 0 and 0 bytes from 0, expect",
        ),
        (b"\x1c\0\0\0TFL3" + bytes(64), r"a \.tflite file, expected a \.keras or \.h5 file"),
        (b"PK" + bytes(64), "a damaged or truncated zip file"),
        (b"PK\x01\x02" * 1001, "a zip file of more than 1000 members"),
        (bytes((64 << 20) + 1), "it is larger than 64 MiB, expected a small network"),
    ],
    ids=["empty", "csv", "hdf5", "tflite", "zip", "members", "large"],
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


def test_an_hdf5_file_with_weights_alone_is_named(graphs: list[bytes], tmp_path: Path) -> None:
    path = tmp_path / "m.h5"
    path.write_bytes(graphs[1])
    with h5py.File(path, "r+") as file:
        config = file.attrs["model_config"]
        del file.attrs["model_config"]
    with pytest.raises(ModelError, match=r"without the model's description, .*; save the whole model"):
        read_keras(path)
    with h5py.File(path, "r+") as file:
        file.attrs["model_config"] = config + " " * (5 << 20)
    with pytest.raises(ModelError, match="its model_config is larger than 1 MiB"):
        read_keras(path)


@pytest.mark.parametrize(
    ("layer", "names", "message"),
    [
        ("dense", ["a/kernel"], r"dense.* has 1 arrays, expected 2"),
        ("dense", ["a/bias", "a/kernel"], r"dense.* has 'a/bias', expected its kernel"),
    ],
)
def test_an_hdf5_file_whose_arrays_have_other_names_is_refused(
    graphs: list[bytes], tmp_path: Path, layer: str, names: list[str], message: str
) -> None:
    path = tmp_path / "m.h5"
    path.write_bytes(graphs[1])
    with h5py.File(path, "r+") as file:
        group = next(name for name in file["model_weights"] if name.startswith(layer))
        file["model_weights"][group].attrs["weight_names"] = names
    with pytest.raises(ModelError, match=message):
        read_keras(path)
