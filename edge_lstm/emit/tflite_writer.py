"""What the operators of a .tflite file have in common: shapes, and operators that only place codes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from edge_lstm.emit.tflite_file import INT8, RESOURCE, FileSpec, OperatorSpec, TensorSpec
from edge_lstm.qgraph import Quantization

MOST_JOINED = 10  # inputs of a CONCATENATION in TensorFlow Lite Micro


class States:
    """States of ``spec``.  kept: from one invocation to the next, as variables; else each begins anew."""

    def __init__(self, spec: FileSpec, kept: bool) -> None:
        self.spec, self.kept = spec, kept
        self.names: list[str] = []
        self.initial = FileSpec(spec.description)

    def read(
        self, name: str, shape: tuple[int, ...], quantization: Quantization, initial: int = 0
    ) -> tuple[int, int]:
        """(its handle, the tensor with its codes); initial: code of every entry after a reset."""
        if not self.kept:
            return -1, self.spec.filled(name, shape, quantization, initial)
        self.names.append(f"{name}#{len(self.names)}")  # two layers of one name must not share a variable
        first = self.initial.filled(name, shape, quantization, initial)
        self.initial.operate("ASSIGN_VARIABLE", 1, [self._handle(self.initial), first], [])
        handle = self._handle(self.spec)
        value = self.spec.activation(name, shape, quantization)
        return handle, self.spec.operate("READ_VARIABLE", 1, [handle], [value])

    def write(self, handle: int, value: int) -> None:
        """Keep ``value`` for the next invocation."""
        if self.kept:
            self.spec.operate("ASSIGN_VARIABLE", 1, [handle, value], [])

    def finish(self) -> None:
        """Let the first invocation give every variable its first content."""
        if self.names:
            self.spec.initial = self.initial
            once = OperatorSpec("CALL_ONCE", 1, [], [], "CallOnceOptions", {"InitSubgraphIndex": 1})
            self.spec.operators.insert(0, once)

    def _handle(self, spec: FileSpec) -> int:
        name = self.names[-1]
        handle = spec.add(TensorSpec(name, (), RESOURCE))
        options = {"Container": "", "SharedName": name}
        return spec.operate("VAR_HANDLE", 1, [], [handle], "VarHandleOptions", **options)


@dataclass
class Writer:
    """Appends operators that place codes to ``spec``; the others are in ``tflite_operators``.

    8-bit values are tensors [lanes, rows, width], 16-bit ones [lanes, 1, rows, width].
    rows: of one invocation.  time_major: 8-bit values are [rows, lanes, width].
    """

    spec: FileSpec
    states: States
    lanes: int
    rows: int
    time_major: bool = False

    def shape(self, value: int) -> tuple[int, ...]:
        return self.spec.tensors[value].shape

    def shape_of(self, quantization: Quantization, rows: int, width: int) -> tuple[int, ...]:
        """The shape of a value with these codes."""
        return (self.lanes, *([1] if quantization.bits == 16 else []), rows, width)

    def version(self, value: int, narrow: int, wide: int) -> int:
        """The operator version that reads 8-bit, or 16-bit, codes."""
        return narrow if self.spec.tensors[value].kind == INT8 else wide

    def like(self, value: int, name: str, shape: tuple[int, ...]) -> int:
        """A tensor for codes of ``value`` in another shape."""
        return self.spec.add(replace(self.spec.tensors[value], name=name, shape=shape, data=None))

    def reshape(self, value: int, shape: tuple[int, ...], name: str) -> int:
        if self.shape(value) == shape:
            return value
        sizes = self.spec.constant(f"{name}/shape", np.array(shape, dtype=np.int32))
        return self.spec.operate("RESHAPE", 1, [value, sizes], [self.like(value, name, shape)])

    def part(self, value: int, axis: int, start: int, stop: int, name: str) -> int:
        """The entries ``start`` .. ``stop - 1`` along ``axis``."""
        shape = list(self.shape(value))
        begin, end, strides = [0] * len(shape), list(shape), [1] * len(shape)
        begin[axis], end[axis], shape[axis] = start, stop, stop - start
        places = [
            self.spec.constant(f"{name}/{word}", np.array(numbers, dtype=np.int32))
            for word, numbers in (("begin", begin), ("end", end), ("strides", strides))
        ]
        output = self.like(value, name, tuple(shape))
        version = self.version(value, 2, 4)
        return self.spec.operate("STRIDED_SLICE", version, [value, *places], [output], "StridedSliceOptions")

    def join(self, values: Sequence[int], axis: int, name: str) -> int:
        """Values side by side along ``axis``, ten at a time."""
        while len(values) > 1:
            values = [
                self._joined(values[start : start + MOST_JOINED], axis, name)
                for start in range(0, len(values), MOST_JOINED)
            ]
        return values[0]

    def _joined(self, values: Sequence[int], axis: int, name: str) -> int:
        if len(values) == 1:
            return values[0]
        shape = list(self.shape(values[0]))
        axis %= len(shape)
        shape[axis] = sum(self.shape(value)[axis] for value in values)
        output = self.like(values[0], name, tuple(shape))
        version = self.version(output, 2, 3)
        return self.spec.operate(
            "CONCATENATION", version, values, [output], "ConcatenationOptions", Axis=axis
        )

    def reverse(self, value: int, name: str) -> int:
        axis = self.spec.constant(f"{name}/axis", np.array([len(self.shape(value)) - 2], dtype=np.int32))
        output = self.like(value, name, self.shape(value))
        return self.spec.operate("REVERSE_V2", 3, [value, axis], [output], "ReverseV2Options")

    def swap(self, value: int, order: Sequence[int], name: str) -> int:
        """Transpose."""
        axes = self.spec.constant(f"{name}/order", np.array(order, dtype=np.int32))
        shape = tuple(self.shape(value)[axis] for axis in order)
        version, output = self.version(value, 2, 4), self.like(value, name, shape)
        return self.spec.operate("TRANSPOSE", version, [value, axes], [output], "TransposeOptions")

    def each_row(self, value: int, name: str) -> list[int]:
        """The rows of a value, each a value of one row."""
        shape = self.shape(value)
        if shape[-2] == 1:
            return [value]
        axis = self.spec.constant(f"{name}/axis", np.array(len(shape) - 2, dtype=np.int32))
        rows = [self.like(value, name, (*shape[:-2], 1, shape[-1])) for _ in range(shape[-2])]
        version = self.version(value, 2, 4)
        self.spec.operate("SPLIT", version, [axis, value], rows, "SplitOptions", NumSplits=len(rows))
        return rows
