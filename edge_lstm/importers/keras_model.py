"""Keras 3 files (.keras) -> Graph, read as JSON and HDF5: no code of the file runs and Keras is not loaded.

Reads files of this toolkit, with their sensor stream, and those of others; refuses what it cannot carry.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_lstm.errors import ModelError, UnsupportedModel, raise_all
from edge_lstm.graph import Channel, Dense, FloatArray, Graph, Layer, Lstm, Stream
from edge_lstm.importers.keras_layers import LayerConfig, chain_of, layer_problems, sequence_problems
from edge_lstm.naming import identifier
from edge_lstm.optional import require

CONFIG, WEIGHTS, METADATA = "config.json", "model.weights.h5", "metadata.json"
DESCRIPTION = "edge_lstm.json"  # written by training/model.py
FORMAT = 1
MAX_BYTES = 1 << 29  # of a member and of an array: a hostile file may declare any size

# what Python's readers of zip, JSON and HDF5 raise on damaged bytes
DAMAGE = (
    zipfile.BadZipFile, zlib.error, EOFError, LookupError, ValueError, TypeError, AttributeError,
    ArithmeticError, RuntimeError, OSError,
)  # fmt: skip


def read_keras(path: Path) -> Graph:
    """Read a ``.keras`` file: a chain of LSTM and linear Dense layers, layers that only train left out.

    ``made["last_only"]`` is True where the last LSTM returned only its last step: step by step it is
    the same network.  A file without this toolkit's member gets the stream of ``Stream.unnamed``.
    Raises ModelError for a file that is damaged or no Keras 3 file, UnsupportedModel with every reason
    for a model that cannot be carried.
    """
    path = Path(path)
    members = _read_members(path)
    version = _keras_version(path, members.get(METADATA, b"{}"))
    try:
        chain, problems = chain_of(json.loads(members[CONFIG]))
        problems += [problem for layer in chain for problem in layer_problems(layer)]
        problems += sequence_problems(chain) if chain else []
    except DAMAGE as error:
        raise ModelError(f"{path}: its {CONFIG} does not describe a Keras 3 model; save it again") from error
    raise_all(UnsupportedModel, f"model '{path.name}'", problems)
    layers = _load_layers(path, members[WEIGHTS], [layer for layer in chain if layer.has_weights])
    stream = Stream.unnamed(layers[0].features)
    made: dict[str, Any] = {"importer": "keras", "keras": version}
    if DESCRIPTION in members:
        stream, made = _read_description(path, members[DESCRIPTION])
    if not all(layer.options["return_sequences"] for layer in chain if layer.kind == "LSTM"):
        made["last_only"] = True
    return Graph(identifier(path.stem), layers, stream, made)


def _read_members(path: Path) -> dict[str, bytes]:
    """The members that this toolkit reads; raises ModelError where the first two are not all there."""
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {info.filename: info.file_size for info in archive.infolist()}
            wanted = [name for name in (CONFIG, WEIGHTS, METADATA, DESCRIPTION) if name in sizes]
            too_large = [name for name in wanted if sizes[name] > MAX_BYTES]
            members = {} if too_large else {name: archive.read(name) for name in wanted}
    except FileNotFoundError as error:
        raise ModelError(f"{path}: no such file") from error
    except DAMAGE as error:
        raise ModelError(f"{path}: {_nature(path)}, expected a .keras file of Keras 3") from error
    if too_large:
        raise ModelError(
            f"{path}: its {too_large[0]} is larger than {MAX_BYTES >> 20} MiB, expected a small network"
        )
    missing = [name for name in (CONFIG, WEIGHTS) if name not in members]
    if missing:
        raise ModelError(
            f"{path}: a zip file without {' and '.join(missing)}, expected a .keras file of Keras 3"
        )
    return members


def _nature(path: Path) -> str:
    """What a file is that is no zip file, in words."""
    try:
        with path.open("rb") as file:
            head = file.read(8)
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    if head == b"\x89HDF\r\n\x1a\n":
        return "an HDF5 file (the .h5 of older Keras; load it with Keras and save it as .keras)"
    if head[4:8] == b"TFL3":
        return "a .tflite file"
    if head[:2] == b"PK":
        return "a damaged or truncated zip file"
    return "neither a zip file nor a model"


def _keras_version(path: Path, metadata: bytes) -> str:
    try:
        version = str(json.loads(metadata).get("keras_version", "unknown"))
    except DAMAGE as error:
        raise ModelError(f"{path}: its {METADATA} is damaged; save the model again") from error
    if version.startswith(("1.", "2.")):
        raise UnsupportedModel(
            f"model '{path.name}': saved by Keras {version}, expected Keras 3; "
            "load it with Keras 3 and save it again"
        )
    return version


def _load_layers(path: Path, content: bytes, chain: Sequence[LayerConfig]) -> tuple[Layer, ...]:
    h5py = require("h5py", "train")
    layers: list[Layer] = []
    layer = chain[0]
    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            for layer in chain:
                layers.append(_load_layer(h5py, file, layer))
    except DAMAGE as error:
        raise ModelError(
            f"{path}: its {WEIGHTS} holds no sound weights for layer '{layer.name}' at {layer.group}; "
            f"save the model again ({' '.join(str(error).split())[:120]})"
        ) from error
    return tuple(layers)


def _load_layer(h5py: Any, file: Any, layer: LayerConfig) -> Layer:
    """ValueError where the weights are not those of the layer's description."""
    owner = _member(h5py, file, f"{layer.group}/vars", h5py.Group).attrs.get("name")
    if layer.group.startswith("layers/time_distributed"):
        owner = None  # the name of the inner layer, which may be anything
    if owner is not None and owner != layer.name:
        raise ValueError(f"they are of '{owner}'")
    units, biased = int(layer.options["units"]), bool(layer.options["use_bias"])
    lstm = layer.kind == "LSTM"
    group = f"{layer.group}/cell/vars" if lstm else f"{layer.group}/vars"
    count = int(lstm) + 1 + int(biased)
    arrays = [_array(h5py, file, f"{group}/{number}") for number in range(count)]
    columns = 4 * units if lstm else units
    if not biased:
        arrays.append(np.zeros(columns, np.float32))
    shapes = [array.shape for array in arrays]
    expected = [(arrays[0].shape[0], columns), *([(units, columns)] if lstm else []), (columns,)]
    if shapes != expected:
        raise ValueError(f"they are {shapes}, expected {expected}")
    if lstm:
        return Lstm(layer.name, arrays[0], arrays[1], arrays[2])
    return Dense(layer.name, arrays[0], arrays[1])


def _member(h5py: Any, file: Any, name: str, kind: type) -> Any:
    """A group or dataset of the file itself; links that could lead out of it raise ValueError."""
    place = file
    for part in name.split("/"):
        link = place.get(part, getlink=True)
        if link is not None and not isinstance(link, h5py.HardLink):
            raise ValueError(f"{name} is a link")
        place = place[part]
    if not isinstance(place, kind):
        raise ValueError(f"{name} is no {kind.__name__}")
    return place


def _array(h5py: Any, file: Any, name: str) -> FloatArray:
    dataset = _member(h5py, file, name, h5py.Dataset)
    if dataset.external or dataset.is_virtual:
        raise ValueError(f"{name} lies in another file")
    if dataset.dtype.kind != "f" or dataset.nbytes > MAX_BYTES:
        raise ValueError(f"{name} is {dataset.dtype} {dataset.shape}, expected floats of a small network")
    array: FloatArray = np.asarray(dataset[()], dtype=np.float32)
    return array


def _read_description(path: Path, content: bytes) -> tuple[Stream, dict[str, Any]]:
    try:
        described = json.loads(content)
        if described["format"] != FORMAT:
            raise ModelError(
                f"{path}: its {DESCRIPTION} has format {described['format']}, this version reads {FORMAT}; "
                "update edge-lstm"
            )
        stream = described["stream"]
        channels = tuple(
            Channel(str(c["name"]), str(c["unit"]), float(c["center"]), float(c["scale"]))
            for c in stream["channels"]
        )
        period_s = float(stream["period_s"])
        if not 0 <= period_s < float("inf"):
            raise ValueError(f"period_s is {period_s}")
        return Stream(channels, period_s), dict(described["made"])
    except DAMAGE as error:
        raise ModelError(f"{path}: its {DESCRIPTION} is damaged; train or save the model again") from error
