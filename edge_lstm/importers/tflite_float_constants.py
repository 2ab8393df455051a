"""Constants of a .tflite file as numbers: float32, float16, and int8 weights with their scales.

Reads tensors; writes arrays, and remembers which weights had been quantized.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from edge_lstm.arrays import FloatArray
from edge_lstm.errors import ModelError, UnsupportedModel
from edge_lstm.importers.flatbuffer import MAX_VECTOR, Tensor

MAX_WEIGHTS = 1 << 24  # numbers of all layers together
ITEMS: dict[str, np.dtype[Any]] = {
    "FLOAT32": np.dtype("<f4"), "FLOAT16": np.dtype("<f2"), "INT8": np.dtype("i1"),
}  # fmt: skip
INTEGERS: dict[str, np.dtype[Any]] = {"INT32": np.dtype("<i4"), "INT64": np.dtype("<i8")}


def described(tensor: Tensor | None) -> str:
    """What messages call a tensor."""
    return "an absent tensor" if tensor is None else f"tensor '{tensor.name[:60]}' {list(tensor.shape)}"


def integers(tensor: Tensor | None) -> tuple[int, ...]:
    """A constant that says something about shapes or axes."""
    if tensor is None or tensor.data is None or tensor.kind not in INTEGERS or tensor.variable:
        raise UnsupportedModel(
            f"{described(tensor)} is not a constant of integers; convert with fixed shapes"
        )
    data = _content(tensor, INTEGERS[tensor.kind])
    if data.size > MAX_VECTOR:
        raise ModelError(f"{described(tensor)} has {data.size} entries, at most {MAX_VECTOR} are read")
    return tuple(int(value) for value in data.ravel())


def _content(tensor: Tensor, item: np.dtype[Any]) -> Any:
    """The bytes of a constant as an array of its shape; a view."""
    expected, found = (
        math.prod(tensor.shape) * item.itemsize,
        0 if tensor.data is None else tensor.data.nbytes,
    )
    if min(tensor.shape, default=1) < 1 or expected != found or tensor.data is None:
        raise ModelError(
            f"{described(tensor)} has {found} bytes, expected {expected}; convert the model again"
        )
    return tensor.data.view(item).reshape(tensor.shape)


class Constants:
    """The float constants of one file.

    kinds: of the weights that were not float32, in the words of ``made["note"]``.
    """

    def __init__(self) -> None:
        self.kinds: set[str] = set()
        self.left = MAX_WEIGHTS

    def count(self, numbers: int) -> None:
        """Take ``numbers`` from what may still be read: a hostile file reads one tensor many times."""
        self.left -= numbers
        if self.left < 0:
            raise UnsupportedModel(
                f"it has more than {MAX_WEIGHTS} weights; the layers must fit a microcontroller"
            )

    def numbers(self, tensor: Tensor | None, shape: tuple[int, ...] | None = None) -> FloatArray:
        """A constant as float32, dequantized where it is int8; ``shape``: what it must have."""
        if tensor is None or tensor.data is None or tensor.variable:
            raise UnsupportedModel(f"{described(tensor)} is not a constant, expected weights")
        if tensor.kind not in ITEMS or tensor.sparse:
            form = "sparse" if tensor.sparse else tensor.kind
            raise UnsupportedModel(
                f"{described(tensor)} is {form}, expected dense FLOAT32, FLOAT16 or INT8 weights"
            )
        if shape is not None and tensor.shape != shape:
            raise ModelError(f"{described(tensor)} should be {list(shape)}; convert the model again")
        content = _content(tensor, ITEMS[tensor.kind])
        self.count(content.size)
        values: FloatArray = content.astype(np.float32)
        if tensor.kind == "INT8":
            values = self._dequantized(tensor, values)
        elif tensor.kind == "FLOAT16":
            self.kinds.add("float16")
        return values

    def _dequantized(self, tensor: Tensor, codes: FloatArray) -> FloatArray:
        scales, zero_points = tensor.scales, tensor.zero_points
        rows = codes.shape[tensor.axis] if 0 <= tensor.axis < codes.ndim else 1
        if scales.size not in (1, rows) or zero_points.size not in (0, 1, scales.size):
            raise ModelError(f"{described(tensor)} has {scales.size} scales, expected 1 or {rows}")
        self.kinds.add("int8")
        along = [1] * codes.ndim
        along[tensor.axis if scales.size > 1 else 0] = -1
        points = zero_points if zero_points.size else np.zeros(1, np.int64)
        zero = np.broadcast_to(points, scales.shape).astype(np.float32)
        values: FloatArray = (codes - zero.reshape(along)) * scales.reshape(along)
        return values

    @property
    def note(self) -> str | None:
        """What ``made`` says of weights that are not what was trained."""
        if not self.kinds:
            return None
        return f"its weights were {' and '.join(sorted(self.kinds))} in the file and are read as float32"
