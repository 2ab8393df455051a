"""What travels in a .tflite file beside its network, as canonical JSON; ``importers/metadata.py`` reads it.

Reads a QGraph; writes bytes.  Format 1 describes a chain of LSTM and dense layers, which its operators tell
again; format 2 tells the whole network, its arrays by the tensors that hold them.
"""

from __future__ import annotations

import json
from dataclasses import Field, fields
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from edge_lstm.detection.fixed import detector_values
from edge_lstm.emit.tflite_file import FileSpec
from edge_lstm.errors import ModelError
from edge_lstm.graph import Channel
from edge_lstm.qgraph import QDense, QGraph, QLayer, QLstm

NAME = "edge_lstm"  # of the file's metadata entry
PLAIN_FORMAT, FORMAT = 1, 2
MAX_BYTES = 1 << 20
PLAIN = {  # the fields of the layers of format 1; every other one has its default
    QLstm: ("name", "kernel", "recurrent_kernel", "bias", "kernel_scales", "recurrent_scales", "input",
            "hidden", "cell_power", "cell_clip"),
    QDense: ("name", "kernel", "bias", "kernel_scales", "input", "output"),
}  # fmt: skip
STRUCTURE = ("input", "sources", "window", "timesteps", "last_only", "lanes", "batch_major")
OPERATORS: tuple[type, ...] = get_args(QLayer)
ZEROS = -1  # stands for a tensor of zeros that the file does not hold


def is_plain(qgraph: QGraph) -> bool:
    """Whether ``qgraph`` is a chain of plain int8 LSTM and dense layers, which format 1 describes."""
    chain = tuple((index - 1,) for index in range(len(qgraph.layers)))
    return (
        qgraph.sources == chain
        and not qgraph.window
        and not qgraph.batch_major
        and any(isinstance(layer, QLstm) for layer in qgraph.layers)
        and all(_is_plain_layer(layer) for layer in qgraph.layers)
    )


def _is_plain_layer(layer: Any) -> bool:
    plain = PLAIN.get(type(layer), ())
    others = [entry for entry in fields(layer) if entry.name not in plain]
    same = all(_is_default(entry, getattr(layer, entry.name)) for entry in others)
    return bool(plain) and same and layer.input.bits == 8


def _is_default(entry: Field[Any], value: Any) -> bool:
    """Arrays are never compared: those with a default have None."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return bool(value == entry.default)
    return False


def encode(qgraph: QGraph, spec: FileSpec) -> bytes:
    """Describe ``qgraph``: sorted keys, no spaces, ASCII; the same bytes for the same network.

    spec: the file, whose constants hold the arrays.
    Raises ModelError where ``made`` holds what JSON cannot carry, or where there is more than a MiB of it.
    """
    content = {
        "format": PLAIN_FORMAT,
        "name": qgraph.name,
        "layers": [layer.name for layer in qgraph.layers],
        "profile": qgraph.profile,
        "stream": {
            "period_s": float(qgraph.stream.period_s),
            "channels": [_channel_values(channel) for channel in qgraph.stream.channels],
        },
        "detector": None if qgraph.detector is None else detector_values(qgraph.detector),
        "made": dict(qgraph.made),
    }
    if not is_plain(qgraph):
        tensors = _Tensors(spec)
        structure = {name: tensors.values(getattr(qgraph, name)) for name in STRUCTURE}
        layers = [tensors.values(layer) for layer in qgraph.layers]
        content |= {"format": FORMAT, "layers": layers, "structure": structure}
    try:
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ModelError(
            f"model '{qgraph.name}': its description is not plain JSON ({error}); put only text, finite "
            "numbers, lists and dictionaries in it"
        ) from error
    if len(text) > MAX_BYTES:
        raise ModelError(
            f"model '{qgraph.name}': its description has {len(text)} bytes, at most {MAX_BYTES} fit; "
            "put less in 'made'"
        )
    return text.encode("ascii")


def _channel_values(channel: Channel) -> dict[str, Any]:
    return {
        "name": channel.name,
        "unit": channel.unit,
        "center": float(channel.center),
        "scale": float(channel.scale),
        "resolution": float(channel.resolution),
        "zero": float(channel.zero),
        **({"context": True} if channel.context else {}),
    }


class _Tensors:
    """Plain JSON values of operators; an array is told by the constants of ``spec`` that hold its bytes."""

    def __init__(self, spec: FileSpec) -> None:
        self.places: dict[tuple[str, bytes], int] = {}
        for index, tensor in enumerate(spec.tensors):
            if tensor.data is not None:
                self.places.setdefault((tensor.data.dtype.name, tensor.data.tobytes()), index)

    def values(self, value: Any) -> Any:
        """A dataclass as its fields that have not their default, a tuple as a list."""
        if isinstance(value, np.ndarray):
            return self.array(value)
        if isinstance(value, tuple):
            return [self.values(entry) for entry in value]
        if isinstance(value, np.generic):
            return value.item()
        if not hasattr(value, "__dataclass_fields__"):
            return value
        found = {
            entry.name: self.values(getattr(value, entry.name))
            for entry in fields(value)
            if entry.init and not _is_default(entry, getattr(value, entry.name))
        }
        return {"kind": type(value).__name__, **found} if isinstance(value, OPERATORS) else found

    def array(self, array: npt.NDArray[Any]) -> dict[str, Any]:
        """Its type, its shape, and its tensors one after another; numbers where no tensor holds it."""
        told = {"type": array.dtype.name, "shape": list(array.shape)}
        whole = self.places.get((array.dtype.name, array.tobytes()))
        if whole is not None:
            return {**told, "tensors": [whole]}
        rows = [self.row(row) for row in array] if array.ndim > 1 else [None]
        if None not in rows:
            return {**told, "tensors": rows}
        return {**told, "numbers": array.ravel().tolist()}

    def row(self, row: npt.NDArray[Any]) -> int | None:
        return self.places.get((row.dtype.name, row.tobytes()), None if row.any() else ZEROS)
