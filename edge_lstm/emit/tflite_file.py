"""A .tflite file as plain values, and its bytes: tensors, operators, metadata -> flatbuffer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import numpy as np
import numpy.typing as npt
import tflite

from edge_lstm.errors import UnsupportedModel
from edge_lstm.qgraph import Quantization

SCHEMA_VERSION = 3
BUFFER_ALIGNMENT = 16  # bytes; the schema's force_align of a buffer's data
MAX_OPERATORS = 8_000  # of one file, where recurrences are unrolled; ours are read within 2 s
MAX_CONTENT_BYTES = 12 << 20  # of all constants: with the operators below what is read
LAST_OLD_CODE = 127  # operators above it are named in the schema's newer field only
INT8, INT16, INT32, INT64, FLOAT32, RESOURCE = (
    getattr(tflite.TensorType, name) for name in ("INT8", "INT16", "INT32", "INT64", "FLOAT32", "RESOURCE")
)
KINDS = {"int8": INT8, "int16": INT16, "int32": INT32, "int64": INT64, "float32": FLOAT32}  # by dtype


@dataclass(frozen=True, eq=False)
class TensorSpec:
    """One tensor.  kind: a tflite.TensorType.  scales: none, one, or one a row of axis 0.

    data: content, None for what an invocation computes.  variable: kept between invocations.
    """

    name: str
    shape: tuple[int, ...]
    kind: int
    scales: npt.ArrayLike = ()
    zero_point: int = 0
    data: npt.NDArray[Any] | None = None
    variable: bool = False


@dataclass(frozen=True, eq=False)
class OperatorSpec:
    """One operator.  kind: as the schema names it.  inputs: tensor indices, -1 for an absent one.

    table: the name of its options' type, "" for none.  options: field name -> value.
    custom: the name of an operator of kind CUSTOM.
    """

    kind: str
    version: int
    inputs: Sequence[int]
    outputs: Sequence[int]
    table: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    intermediates: Sequence[int] = ()
    custom: str = ""

    @property
    def code(self) -> tuple[str, int, str]:
        return self.kind, self.version, self.custom


@dataclass
class FileSpec:
    """A file before it is bytes.  inputs, outputs: name in the signature -> tensor index.

    initial: the subgraph that gives the variables their first content, None where there are none.
    """

    description: str
    tensors: list[TensorSpec] = field(default_factory=list)
    operators: list[OperatorSpec] = field(default_factory=list)
    inputs: dict[str, int] = field(default_factory=dict)
    outputs: dict[str, int] = field(default_factory=dict)
    metadata: dict[str, bytes] = field(default_factory=dict)
    initial: FileSpec | None = None
    content_bytes: int = 0
    _shared: dict[tuple[Any, ...], int] = field(default_factory=dict)

    def add(self, tensor: TensorSpec) -> int:
        """Append a tensor; returns its index."""
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def activation(self, name: str, shape: tuple[int, ...], quantization: Quantization) -> int:
        """Append an int8 or int16 tensor that an invocation computes."""
        kind = INT8 if quantization.bits == 8 else INT16
        return self.add(TensorSpec(name, shape, kind, quantization.scale, quantization.zero_point))

    def constant(
        self, name: str, data: npt.NDArray[Any], scales: npt.ArrayLike = (), zero_point: int = 0
    ) -> int:
        """A constant; the same one under the same name is one tensor.

        Raises UnsupportedModel where all constants together are too many bytes for one file.
        """
        self._reserve(data.nbytes)
        key = (
            name,
            data.dtype.name,
            data.shape,
            data.tobytes(),
            np.asarray(scales, "<f4").tobytes(),
            zero_point,
        )
        if key not in self._shared:
            self.content_bytes += data.nbytes
            kind = KINDS[data.dtype.name]
            self._shared[key] = self.add(TensorSpec(name, data.shape, kind, scales, zero_point, data))
        return self._shared[key]

    def filled(self, name: str, shape: tuple[int, ...], quantization: Quantization, code: int = 0) -> int:
        """A constant of equal codes; raises UnsupportedModel as ``constant`` does."""
        self._reserve(math.prod(shape) * quantization.bits // 8)
        data = np.full(shape, code, dtype=quantization.dtype)
        return self.constant(name, data, quantization.scale, quantization.zero_point)

    def _reserve(self, count: int) -> None:
        if self.content_bytes + count > MAX_CONTENT_BYTES:
            raise UnsupportedModel(
                f"{self.description}: its constants have more than {MAX_CONTENT_BYTES} bytes, which one "
                "file cannot hold; use fewer units"
            )

    def operate(
        self,
        kind: str,
        version: int,
        inputs: Sequence[int],
        outputs: Sequence[int],
        table: str = "",
        **options: Any,
    ) -> int:
        """Append an operator; returns its first output, or -1.

        Raises UnsupportedModel where the file gets more of them than anyone reads.
        """
        self.append(OperatorSpec(kind, version, inputs, outputs, table, options))
        return outputs[0] if outputs else -1

    def append(self, operator: OperatorSpec) -> None:
        """Append an operator; raises UnsupportedModel as ``operate`` does."""
        if len(self.operators) >= MAX_OPERATORS:
            raise UnsupportedModel(
                f"{self.description}: it unrolls to more than {MAX_OPERATORS} operators; use a shorter window"
            )
        self.operators.append(operator)


def pack(spec: FileSpec) -> bytes:
    """Write the file.  Buffer 0 is empty; every constant and every metadata entry has a buffer of its own."""
    builder = flatbuffers.Builder(1024)
    buffers = [b""]
    graphs = {"main": spec} if spec.initial is None else {"main": spec, "initial": spec.initial}
    codes = list(dict.fromkeys(operator.code for graph in graphs.values() for operator in graph.operators))
    subgraphs = [_subgraph(builder, name, graph, codes, buffers) for name, graph in graphs.items()]
    signature = _table(
        builder,
        "SignatureDef",
        Inputs=_named_tensors(builder, spec.inputs),
        Outputs=_named_tensors(builder, spec.outputs),
        SignatureKey=builder.CreateString("serving_default"),
    )
    entries = []
    for name, content in spec.metadata.items():
        entries.append(_table(builder, "Metadata", Name=builder.CreateString(name), Buffer=len(buffers)))
        buffers.append(content)
    model = _table(
        builder,
        "Model",
        Version=SCHEMA_VERSION,
        OperatorCodes=_tables(builder, [_operator_code(builder, *code) for code in codes]),
        Subgraphs=_tables(builder, subgraphs),
        Description=builder.CreateString(spec.description),
        Buffers=_tables(builder, [_buffer(builder, content) for content in buffers]),
        Metadata=_tables(builder, entries),
        SignatureDefs=_tables(builder, [signature]),
    )
    builder.Finish(model, b"TFL3")
    return bytes(builder.Output())


def _subgraph(
    builder: Any, name: str, graph: FileSpec, codes: list[tuple[str, int, str]], buffers: list[bytes]
) -> int:
    places = {code: place for place, code in enumerate(codes)}
    return _table(
        builder,
        "SubGraph",
        Tensors=_tables(builder, [_tensor(builder, tensor, buffers) for tensor in graph.tensors]),
        Inputs=_vector(builder, list(graph.inputs.values()), "<i4"),
        Outputs=_vector(builder, list(graph.outputs.values()), "<i4"),
        Operators=_tables(builder, [_operator(builder, operator, places) for operator in graph.operators]),
        Name=builder.CreateString(name),
    )


def _table(builder: Any, name: str, **fields: Any) -> int:
    """One table of the schema; fields that are None are left out."""
    getattr(tflite, f"{name}Start")(builder)
    for key, value in fields.items():
        if value is not None:
            getattr(tflite, f"{name}Add{key}")(builder, value)
    return int(getattr(tflite, f"{name}End")(builder))


def _tables(builder: Any, offsets: Sequence[int]) -> int:
    """A vector of tables."""
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())


def _vector(builder: Any, values: npt.ArrayLike, dtype: str) -> int | None:
    """A vector of numbers, None for an empty one."""
    array = np.atleast_1d(np.asarray(values, dtype=dtype))
    return int(builder.CreateNumpyVector(array)) if array.size else None


def _named_tensors(builder: Any, tensors: Mapping[str, int]) -> int:
    maps = [
        _table(builder, "TensorMap", Name=builder.CreateString(name), TensorIndex=index)
        for name, index in tensors.items()
    ]
    return _tables(builder, maps)


def _buffer(builder: Any, content: bytes) -> int:
    data = None
    if content:
        builder.Prep(BUFFER_ALIGNMENT, len(content))
        data = builder.CreateByteVector(content)
    return _table(builder, "Buffer", Data=data)


def _tensor(builder: Any, tensor: TensorSpec, buffers: list[bytes]) -> int:
    buffer = 0
    if tensor.data is not None:
        buffer = len(buffers)
        buffers.append(tensor.data.astype(tensor.data.dtype.newbyteorder("<")).tobytes())
    scales = _vector(builder, tensor.scales, "<f4")
    quantization = None
    if scales is not None:
        zero_points = np.full(np.size(tensor.scales), tensor.zero_point)
        quantization = _table(
            builder, "QuantizationParameters", Scale=scales, ZeroPoint=_vector(builder, zero_points, "<i8")
        )
    return _table(
        builder,
        "Tensor",
        Name=builder.CreateSharedString(tensor.name),
        Shape=_vector(builder, tensor.shape, "<i4"),
        Type=tensor.kind,
        Buffer=buffer,
        Quantization=quantization,
        IsVariable=tensor.variable,
    )


def _operator(builder: Any, operator: OperatorSpec, places: Mapping[tuple[str, int, str], int]) -> int:
    options = {
        key: builder.CreateString(value) if isinstance(value, str) else value
        for key, value in operator.options.items()
    }
    return _table(
        builder,
        "Operator",
        OpcodeIndex=places[operator.code],
        Inputs=_vector(builder, operator.inputs, "<i4"),
        Outputs=_vector(builder, operator.outputs, "<i4"),
        BuiltinOptionsType=getattr(tflite.BuiltinOptions, operator.table) if operator.table else None,
        BuiltinOptions=_table(builder, operator.table, **options) if operator.table else None,
        Intermediates=_vector(builder, operator.intermediates, "<i4"),
    )


def _operator_code(builder: Any, kind: str, version: int, custom: str) -> int:
    code = getattr(tflite.BuiltinOperator, kind)
    fields = {
        "DeprecatedBuiltinCode": min(code, LAST_OLD_CODE),
        "CustomCode": builder.CreateString(custom) if custom else None,
        "Version": version,
        "BuiltinCode": code,
    }
    return _table(builder, "OperatorCode", **fields)
