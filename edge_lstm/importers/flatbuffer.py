"""The raw reading of a .tflite file, against hostile bytes: every count is bounded before it is believed.

Reads bytes; writes plain values that point into them.  Nothing here knows what an LSTM is.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_lstm.errors import ModelError, UnsupportedModel

IDENTIFIER = b"TFL3"
MAX_FILE_BYTES = 1 << 24  # far above a microcontroller's flash
MAX_FLOAT_BYTES = 1 << 26
MAX_OPERATORS = 100_000  # a fully unrolled window of 5000 steps
MAX_NODES = 2048  # operators of all subgraphs, where every one is read: an LSTM unrolled over 150 steps
MAX_USES = 5 * MAX_NODES  # of tensors by those operators
MAX_SUBGRAPHS = 256
MAX_VECTOR = 256  # entries of a shape, of an operator's inputs, ...
MAX_READINGS = 8  # times that an average byte may be read: hostile tensors all point at one large vector


@dataclass(frozen=True, eq=False)
class Tensor:
    """kind: as the schema names it ("INT8").  data: its content, None where an invocation computes it.

    buffer: where the file keeps the content; tensors of one buffer have the same bytes.
    """

    index: int
    name: str
    kind: str
    shape: tuple[int, ...]
    scales: npt.NDArray[np.float32]
    zero_points: npt.NDArray[np.int64]
    axis: int
    variable: bool
    sparse: bool
    data: npt.NDArray[np.uint8] | None
    buffer: int


@dataclass(frozen=True, eq=False)
class Operator:
    """kind: as the schema names it.  options: field name -> value, of the kinds in ``OPTIONS`` only."""

    kind: str
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor | None, ...]
    intermediates: tuple[Tensor | None, ...]
    options: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Network:
    """The first subgraph.  operators: those of the kinds in ``FUSED``.  others: kind -> how many."""

    subgraphs: int
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor | None, ...]
    operators: tuple[Operator, ...]
    others: dict[str, int]
    metadata: bytes | None


@dataclass(frozen=True, eq=False)
class Subgraph:
    """One subgraph with every operator; a tensor of another subgraph never appears in it."""

    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor | None, ...]
    operators: tuple[Operator, ...]


FUSED = (  # what ``read_network`` reads
    "UNIDIRECTIONAL_SEQUENCE_LSTM", "FULLY_CONNECTED", "SOFTMAX", "RELU", "STRIDED_SLICE", "GATHER",
    "REVERSE_V2", "RESHAPE", "TRANSPOSE", "CONCATENATION", "QUANTIZE", "DEQUANTIZE",
)  # fmt: skip
# The options that are read: (type of the table, the fields read; [] after the name of a vector).
OPTIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "UNIDIRECTIONAL_SEQUENCE_LSTM": (
        "UnidirectionalSequenceLSTMOptions",
        ("FusedActivationFunction", "CellClip", "ProjClip", "TimeMajor", "DiagonalRecurrentTensors"),
    ),
    "BIDIRECTIONAL_SEQUENCE_LSTM": (
        "BidirectionalSequenceLSTMOptions",
        ("FusedActivationFunction", "CellClip", "ProjClip", "MergeOutputs", "TimeMajor"),
    ),
    "FULLY_CONNECTED": (
        "FullyConnectedOptions",
        ("FusedActivationFunction", "WeightsFormat", "KeepNumDims"),
    ),
    "STRIDED_SLICE": (
        "StridedSliceOptions",
        ("BeginMask", "EndMask", "EllipsisMask", "NewAxisMask", "ShrinkAxisMask", "Offset"),
    ),
    "ADD": ("AddOptions", ("FusedActivationFunction",)),
    "SUB": ("SubOptions", ("FusedActivationFunction",)),
    "MUL": ("MulOptions", ("FusedActivationFunction",)),
    "DIV": ("DivOptions", ("FusedActivationFunction",)),
    "CONCATENATION": ("ConcatenationOptions", ("Axis", "FusedActivationFunction")),
    "RESHAPE": ("ReshapeOptions", ("NewShape[]",)),
    "SQUEEZE": ("SqueezeOptions", ("SqueezeDims[]",)),
    "SOFTMAX": ("SoftmaxOptions", ("Beta",)),
    "LEAKY_RELU": ("LeakyReluOptions", ("Alpha",)),
    "SPLIT": ("SplitOptions", ("NumSplits",)),
    "GATHER": ("GatherOptions", ("Axis", "BatchDims")),
    "PACK": ("PackOptions", ("Axis",)),
    "UNPACK": ("UnpackOptions", ("Axis",)),
    "WHILE": ("WhileOptions", ("CondSubgraphIndex", "BodySubgraphIndex")),
}


def read_network(content: bytes, metadata_name: str) -> Network:
    """Read the first subgraph of a .tflite file, and its metadata entry ``metadata_name``.

    Raises ModelError where ``content`` is not a .tflite file or where an offset leaves it.
    """
    with _opened(content, MAX_FILE_BYTES) as reader:
        return reader.network(metadata_name)


def read_subgraphs(content: bytes) -> tuple[Subgraph, ...]:
    """Read every operator of every subgraph.  Raises ModelError as ``read_network`` does."""
    with _opened(content, MAX_FLOAT_BYTES) as reader:
        return reader.subgraphs()


@contextmanager
def _opened(content: bytes, limit: int) -> Iterator[_Reader]:
    if len(content) > limit:
        raise ModelError(f"it has {len(content)} bytes; a file of more than {limit} is not read")
    if content[4:8] != IDENTIFIER:
        raise ModelError(
            f"it is not a .tflite file: bytes 4 to 7 are {content[4:8]!r}, expected {IDENTIFIER!r}; "
            "give a file that a TensorFlow Lite converter or this toolkit wrote"
        )
    try:
        yield _Reader(content)
    except (struct.error, IndexError, ValueError, TypeError, OverflowError) as error:
        raise ModelError(
            f"it is damaged or cut short ({type(error).__name__}: {error}); copy or convert it again"
        ) from error


class _Reader:
    """One file.  Every method may raise what ``struct`` and NumPy raise at an offset outside of it."""

    def __init__(self, content: bytes) -> None:
        import tflite

        self.content = content
        self.model = tflite.Model.GetRootAs(content, 0)
        self.kinds = {value: name for name, value in vars(tflite.TensorType).items() if name.isupper()}
        self.tensors: dict[int, Tensor] = {}
        self.read_bytes = 0
        self.longest = MAX_VECTOR
        self.uses_left = MAX_OPERATORS * MAX_VECTOR

    def enter(self, index: int) -> None:
        """Read the tensors of this subgraph from now on."""
        if self.model.SubgraphsLength() == 0:
            raise ValueError("no subgraph")
        self.graph, self.tensors = self.model.Subgraphs(index), {}

    def subgraphs(self) -> tuple[Subgraph, ...]:
        self.longest = MAX_NODES  # the steps of an unrolled window are inputs of one operator
        self.uses_left = MAX_USES
        codes, nodes, found = self.operator_codes(custom=True), 0, []
        for index in range(max(1, _bounded(self.model.SubgraphsLength(), MAX_SUBGRAPHS, "subgraphs"))):
            self.enter(index)
            nodes += self.graph.OperatorsLength()
            if nodes > MAX_NODES:
                raise UnsupportedModel(
                    f"it has {nodes} operators or more, at most {MAX_NODES} are read; unroll no layer"
                )
            operators = []
            for place in range(self.graph.OperatorsLength()):
                operator = self.graph.Operators(place)
                operators.append(self.operator(operator, codes[operator.OpcodeIndex()]))
            found.append(Subgraph(*self.interface(), tuple(operators)))
        return tuple(found)

    def interface(self) -> tuple[tuple[Tensor | None, ...], tuple[Tensor | None, ...]]:
        """The subgraph's inputs and outputs."""
        return (
            self.used(self.graph.InputsLength, self.graph.InputsAsNumpy),
            self.used(self.graph.OutputsLength, self.graph.OutputsAsNumpy),
        )

    def network(self, metadata_name: str) -> Network:
        self.enter(0)
        operators: list[Operator] = []
        others: Counter[str] = Counter()
        codes = self.operator_codes()
        for index in range(_bounded(self.graph.OperatorsLength(), MAX_OPERATORS, "operators")):
            operator = self.graph.Operators(index)
            kind = codes[operator.OpcodeIndex()]
            if kind in FUSED and len(operators) < MAX_VECTOR:
                operators.append(self.operator(operator, kind))
                self.count_constants(operators[-1])
            else:
                others[kind] += 1
        inputs, outputs = self.interface()
        return Network(
            subgraphs=self.model.SubgraphsLength(),
            inputs=inputs,
            outputs=outputs,
            operators=tuple(operators),
            others=dict(others),
            metadata=self.metadata(metadata_name),
        )

    def operator_codes(self, custom: bool = False) -> list[str]:
        """The kind of each code; custom: with the name that a custom one has."""
        from tflite.utils import BUILTIN_OPCODE2NAME

        names = []
        for index in range(_bounded(self.model.OperatorCodesLength(), MAX_VECTOR, "operator codes")):
            code = self.model.OperatorCodes(index)
            value = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())  # old files have the second only
            names.append(BUILTIN_OPCODE2NAME.get(value, f"number {value}"))
            if custom and names[-1] == "CUSTOM":
                names[-1] = f"CUSTOM {self.text(code.CustomCode())[:MAX_VECTOR]}"
        return names

    def operator(self, operator: Any, kind: str) -> Operator:
        import tflite

        table_name, fields = OPTIONS.get(kind, ("NONE", ()))
        options: dict[str, Any] = {}
        if fields and operator.BuiltinOptionsType() == getattr(tflite.BuiltinOptions, table_name):
            union, table = operator.BuiltinOptions(), getattr(tflite, table_name)()
            if union is None:
                raise ValueError(f"the options of {kind} are absent")
            table.Init(union.Bytes, union.Pos)
            options = {field.removesuffix("[]"): _field(table, field) for field in fields}
        return Operator(
            kind=kind,
            inputs=self.used(operator.InputsLength, operator.InputsAsNumpy),
            outputs=self.used(operator.OutputsLength, operator.OutputsAsNumpy),
            intermediates=self.used(operator.IntermediatesLength, operator.IntermediatesAsNumpy),
            options=options,
        )

    def used(self, length: Callable[[], int], values: Callable[[], Any]) -> tuple[Tensor | None, ...]:
        """The tensors of an index vector, None for -1."""
        indices = _vector(length, values, self.longest)
        self.uses_left -= len(indices)
        if self.uses_left < 0:
            raise ValueError(f"its operators use more than {MAX_USES} tensors")
        return tuple(self.tensor(int(index)) for index in indices)

    def count_constants(self, operator: Operator) -> None:
        """Count the bytes of every use, because a layer copies them."""
        for tensor in operator.inputs + operator.intermediates:
            if tensor is not None and tensor.data is not None:
                self.count(tensor.data.nbytes)

    def count(self, read_bytes: int) -> None:
        self.read_bytes += read_bytes
        if self.read_bytes > MAX_READINGS * len(self.content):
            raise ValueError("its tensors share their bytes too often")

    def text(self, name: bytes | None) -> str:
        self.count(len(name or b""))
        return (name or b"").decode("utf-8", "replace")

    def tensor(self, index: int) -> Tensor | None:
        if index == -1:
            return None
        if index not in self.tensors:
            if not 0 <= index < self.graph.TensorsLength():
                raise IndexError(f"tensor {index} of {self.graph.TensorsLength()}")
            self.tensors[index] = self.new_tensor(index)
        return self.tensors[index]

    def new_tensor(self, index: int) -> Tensor:
        tensor = self.graph.Tensors(index)
        scales, zero_points, axis = self.quantization(tensor.Quantization())
        return Tensor(
            index=index,
            name=self.text(tensor.Name()),
            kind=self.kinds.get(tensor.Type(), f"type {tensor.Type()}"),
            shape=tuple(int(size) for size in _vector(tensor.ShapeLength, tensor.ShapeAsNumpy)),
            scales=scales.astype(np.float32),
            zero_points=zero_points.astype(np.int64),
            axis=axis,
            variable=tensor.IsVariable(),
            sparse=tensor.Sparsity() is not None,
            data=self.buffer(tensor.Buffer()),
            buffer=tensor.Buffer(),
        )

    def quantization(self, table: Any) -> tuple[npt.NDArray[Any], npt.NDArray[Any], int]:
        """Scales, zero points and the axis they run along; none of each without a table."""
        if table is None:
            return np.zeros(0), np.zeros(0), 0
        scales = _vector(table.ScaleLength, table.ScaleAsNumpy, len(self.content))
        zero_points = _vector(table.ZeroPointLength, table.ZeroPointAsNumpy, len(self.content))
        self.count(scales.nbytes + zero_points.nbytes)
        return scales, zero_points, table.QuantizedDimension()

    def buffer(self, index: int) -> npt.NDArray[np.uint8] | None:
        """A view of a buffer's bytes; None for an empty one."""
        if not 0 <= index < self.model.BuffersLength():
            raise IndexError(f"buffer {index} of {self.model.BuffersLength()}")
        buffer = self.model.Buffers(index)
        if buffer.Offset() > 1 or buffer.Size() > 1:
            raise ValueError("its weights lie outside the flatbuffer")
        data: npt.NDArray[np.uint8] | None = buffer.DataAsNumpy() if buffer.DataLength() else None
        return data

    def metadata(self, name: str) -> bytes | None:
        for index in range(_bounded(self.model.MetadataLength(), MAX_VECTOR, "metadata entries")):
            entry = self.model.Metadata(index)
            if self.text(entry.Name()) == name:
                data = self.buffer(entry.Buffer())
                return b"" if data is None else data.tobytes()
        return None


def _bounded(count: int, limit: int, what: str) -> int:
    if count > limit:
        raise ValueError(f"{count} {what}, at most {limit} are read")
    return count


def _vector(length: Callable[[], int], values: Callable[[], Any], limit: int = MAX_VECTOR) -> Any:
    """A vector of numbers as an array; empty where the file has none."""
    return values() if _bounded(length(), limit, "entries of a vector") else np.zeros(0)


def _field(table: Any, field: str) -> Any:
    """One option; a vector as a tuple of integers."""
    name = field.removesuffix("[]")
    if name == field:
        return getattr(table, name)()
    return tuple(int(v) for v in _vector(getattr(table, f"{name}Length"), getattr(table, f"{name}AsNumpy")))
