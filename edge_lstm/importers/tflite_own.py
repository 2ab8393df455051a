"""Our own .tflite files of any network, read by their description and proven by writing them again.

Reads bytes; writes the QGraph that was written.  Nothing here knows what an operator does.
"""

from __future__ import annotations

import math
import struct
import types
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_lstm.emit.metadata import OPERATORS, STRUCTURE, ZEROS
from edge_lstm.emit.tflite_file import MAX_OPERATORS
from edge_lstm.emit.tflite_model import emit_tflite
from edge_lstm.errors import ModelError
from edge_lstm.importers import metadata
from edge_lstm.importers.tflite_equal import same_content
from edge_lstm.qgraph import QGraph

KINDS = {operator.__name__: operator for operator in OPERATORS}
MAX_DEPTH = 4  # of operators inside of operators
MAX_ENTRIES = 256  # of the file's metadata
MAX_VALUES = 1 << 24  # inputs of one invocation
DAMAGE = (
    struct.error, LookupError, TypeError, ValueError, ArithmeticError, RecursionError, AttributeError,
    MemoryError,
)  # fmt: skip


def read_own(content: bytes) -> QGraph | None:
    """The network of a file whose description tells all of it; None for every other file.

    Raises ModelError where the description is damaged or not that of the file's operators, UnsupportedModel
    where a newer version wrote it.
    """
    try:
        file = _File(content)
        text = file.metadata()
    except DAMAGE:
        return None  # whatever reads the operators says what is wrong with the file
    description = None if text is None else metadata.decode(text)
    if description is None or description.structure is None:
        return None
    try:
        with np.errstate(all="ignore"):  # codes and scales of hostile files
            qgraph = _qgraph(description, description.structure, file)
            same = same_content(content, emit_tflite(qgraph))
    except DAMAGE as error:
        raise ModelError(
            f"its description (metadata '{metadata.NAME}') is damaged ({type(error).__name__}: {error}); "
            "write the file again"
        ) from error
    if not same:
        raise ModelError(
            "its operators are not those that its description tells: it was changed after it was written, or "
            "written by another version of edge-lstm; write it again"
        )
    return qgraph


def _qgraph(description: metadata.Description, structure: Mapping[str, Any], file: _File) -> QGraph:
    hints, unknown = _hints(QGraph), set(structure) - {*STRUCTURE, "layers"}
    if unknown or len(structure["layers"]) > MAX_OPERATORS:
        raise ValueError(f"{len(structure['layers'])} layers, unknown entries {sorted(unknown)}")
    given = {name: _value(hints[name], structure[name], file) for name in STRUCTURE}
    if (
        given["lanes"] * max(given["timesteps"], given["window"]) * len(description.stream.channels)
        > MAX_VALUES
    ):
        raise ValueError(f"more than {MAX_VALUES} inputs")
    layers = tuple(_operator(layer, file, 0) for layer in structure["layers"])
    return QGraph(
        name=description.name,
        layers=layers,
        stream=description.stream,
        profile=description.profile,
        detector=description.detector,
        made=description.made,
        **given,
    )


@cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _operator(given: Mapping[str, Any], file: _File, depth: int) -> Any:
    """The operator of its "kind"."""
    if depth >= MAX_DEPTH:
        raise ValueError(f"operators inside of operators, {MAX_DEPTH} deep")
    values = dict(given)
    return _record(KINDS[values.pop("kind")], values, file, depth)


def _record(kind: type, given: Mapping[str, Any], file: _File, depth: int) -> Any:
    """A dataclass from its fields; those that are absent have their default."""
    hints = _hints(kind)
    unknown = set(given) - {entry.name for entry in fields(kind) if entry.init}
    if unknown:
        raise TypeError(f"{kind.__name__} has no {', '.join(sorted(unknown))}")
    return kind(**{name: _value(hints[name], value, file, depth) for name, value in given.items()})


def _value(hint: Any, given: Any, file: _File, depth: int = 0) -> Any:
    """``given`` as what ``hint`` says: nothing is converted but lists, records and arrays."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        hints = [option for option in typing.get_args(hint) if option is not type(None)]
        if given is None and len(hints) < len(typing.get_args(hint)):
            return None
        return _array(hints, given, file) if _is_array(hints[0]) else _value(hints[0], given, file, depth)
    if _is_array(hint):
        return _array([hint], given, file)
    if origin is tuple and isinstance(given, list):
        return tuple(_value(typing.get_args(hint)[0], entry, file, depth) for entry in given)
    if isinstance(given, dict):
        if hint is Any:
            return _operator(given, file, depth + 1)
        if is_dataclass(hint) and isinstance(hint, type):
            return _record(hint, given, file, depth)
    if type(given) is hint or (hint is float and type(given) is int):
        return given
    raise TypeError(f"{str(given)[:40]!r} is not {getattr(hint, '__name__', hint)}")


def _is_array(hint: Any) -> bool:
    return typing.get_origin(hint) is np.ndarray


def _array(hints: list[Any], given: Mapping[str, Any], file: _File) -> npt.NDArray[Any]:
    """The array of a "type" that one of ``hints`` allows, from the file's constants or from numbers."""
    scalars = [typing.get_args(typing.get_args(hint)[1])[0] for hint in hints]
    dtype = np.dtype(given["type"])
    if not any(np.issubdtype(dtype, typing.get_origin(scalar) or scalar) for scalar in scalars):
        raise TypeError(f"an array of {dtype}")
    shape = tuple(_value(int, size, file) for size in given["shape"])
    if min(shape, default=0) < 0 or len(shape) > MAX_DEPTH:
        raise ValueError(f"an array of shape {shape}")
    if "numbers" in given:
        numbers = [_value(float, number, file) for number in given["numbers"]]
        return np.array(numbers, dtype=dtype if dtype.kind == "f" else np.int64).reshape(shape)
    size = math.prod(shape) * dtype.itemsize // max(len(given["tensors"]), 1)
    parts = [file.constant(_value(int, index, file), size) for index in given["tensors"]]
    return np.frombuffer(b"".join(parts), dtype=dtype.newbyteorder("<")).reshape(shape)


class _File:
    """What a description refers to.  Offsets outside of the file raise what ``DAMAGE`` lists."""

    def __init__(self, content: bytes) -> None:
        import tflite

        if content[4:8] != b"TFL3":
            raise ValueError("not a .tflite file")
        self.model = tflite.Model.GetRootAs(content, 0)
        self.left = len(content)  # bytes that arrays may still have: no file holds more of them than it has

    def metadata(self) -> bytes | None:
        """Our description; None where there is none."""
        for index in range(min(self.model.MetadataLength(), MAX_ENTRIES)):
            entry = self.model.Metadata(index)
            if entry.Name() == metadata.NAME.encode():
                return self.buffer(entry.Buffer())
        return None

    def constant(self, index: int, size: int) -> bytes:
        """The content of a tensor, which has ``size`` bytes."""
        self.left -= size
        if self.left < 0:
            raise ValueError("its arrays have more bytes than the file")
        if index == ZEROS:
            return bytes(size)
        graph = self.model.Subgraphs(0)
        if not 0 <= index < graph.TensorsLength():
            raise IndexError(f"tensor {index} of {graph.TensorsLength()}")
        return self.buffer(graph.Tensors(index).Buffer())

    def buffer(self, index: int) -> bytes:
        if not 0 <= index < self.model.BuffersLength():
            raise IndexError(f"buffer {index} of {self.model.BuffersLength()}")
        buffer = self.model.Buffers(index)
        return bytes(buffer.DataAsNumpy().tobytes()) if buffer.DataLength() else b""
