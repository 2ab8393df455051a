"""A model file of any kind that is read here; the kind is seen from the content, not from the name."""

from __future__ import annotations

import json
from pathlib import Path

from edge_lstm.errors import ModelError, UnsupportedModel
from edge_lstm.graph import Graph
from edge_lstm.importers.flatbuffer import MAX_FLOAT_BYTES, read_subgraphs
from edge_lstm.qgraph import QGraph

KINDS = {
    "keras": "Keras (.keras, .h5)",
    "tflite": "TensorFlow Lite (.tflite)",
    "onnx": "ONNX (.onnx)",
    "safetensors": "PyTorch weights (.safetensors)",
}
HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
ONNX_FIRST_FIELD = 0x08  # ir_version, a varint, which every common writer puts first


def kind_of(path: Path) -> str:
    """One of KINDS.  Raises ModelError for a file that is none of them or cannot be read."""
    try:
        path = Path(path)
        with path.open("rb") as file:
            head = file.read(16)
            size = file.seek(0, 2)
    except FileNotFoundError as error:
        raise ModelError(f"{path}: no such file") from error
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from error
    if head[:2] == b"PK" or head[:8] == HDF5_MAGIC:
        return "keras"
    if head[4:8] == b"TFL3":
        return "tflite"
    header = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and 2 <= header <= size - 8:
        return "safetensors"
    if (head[:1] == bytes([ONNX_FIRST_FIELD]) and len(head) > 2) or _holds_graph(path):
        return "onnx"
    raise ModelError(f"{path}: {_nature(head)}, expected one of {', '.join(KINDS.values())}")


def _holds_graph(path: Path) -> bool:
    """Whether the fields of an ONNX model stand in an order that no common writer uses."""
    from edge_lstm.importers.onnx_file import MAX_FILE_BYTES, is_onnx

    with path.open("rb") as file:
        return is_onnx(file.read(MAX_FILE_BYTES + 1))


def _nature(head: bytes) -> str:
    if not head:
        return "an empty file"
    if head[:1] == b"\x80" or head[:6] == b"\x93NUMPY":
        return "a pickle or a NumPy array, which is never loaded as a model"
    try:
        json.loads(head.decode("ascii") + "")
    except (UnicodeDecodeError, json.JSONDecodeError):
        return "none of the known kinds by its first bytes"
    return "a text file"


def read_model(path: Path) -> Graph | QGraph:
    """The network of a file: a Graph of a float model, a QGraph of an integer .tflite.

    Raises ModelError for a damaged file, UnsupportedModel with every reason for one that is not carried.
    """
    path = Path(path)
    kind = kind_of(path)
    if kind == "keras":
        from edge_lstm.importers.keras_model import read_keras

        return read_keras(path)
    if kind == "onnx":
        from edge_lstm.importers.onnx_model import read_onnx

        return read_onnx(path)
    if kind == "safetensors":
        from edge_lstm.importers.torch_weights import read_safetensors

        return read_safetensors(path)
    if is_float_tflite(path):
        from edge_lstm.importers.tflite_float import read_float_tflite

        return read_float_tflite(path)
    from edge_lstm.importers.tflite_model import read_tflite

    return read_tflite(path)


def is_float_tflite(path: Path) -> bool:
    """Whether a .tflite computes in floating point: its input is float and is not quantized."""
    try:
        with path.open("rb") as file:
            graph = read_subgraphs(file.read(MAX_FLOAT_BYTES + 1))[0]
    except ModelError:
        return False  # the integer reader says what is wrong with it
    first = graph.inputs[0] if graph.inputs else None
    if first is None or first.kind != "FLOAT32":
        return False
    return not any(operator.kind == "QUANTIZE" for operator in graph.operators)


def read_float(path: Path) -> Graph:
    """A float model; raises UnsupportedModel for one that is quantized already."""
    found = read_model(path)
    if isinstance(found, QGraph):
        raise UnsupportedModel(f"{path}: it is quantized already, expected a float model")
    return found
