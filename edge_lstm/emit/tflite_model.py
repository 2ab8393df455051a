"""QGraph -> .tflite: one fused UNIDIRECTIONAL_SEQUENCE_LSTM a layer, and dense layers.  Spec: NUMERICS.md, 8.

Reads a QGraph; writes bytes, the same for the same network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import numpy as np
import numpy.typing as npt
import tflite

from edge_lstm.emit import metadata
from edge_lstm.importers.metadata import NAME
from edge_lstm.lower import GATES
from edge_lstm.qgraph import QDense, QGraph, QLstm, Quantization

INPUT_NAME, OUTPUT_NAME = "x", "forecast"  # in the signature
SCHEMA_VERSION = 3
BUFFER_ALIGNMENT = 16  # bytes; the schema's force_align of a buffer's data
LSTM_INPUTS = 24
# Places of the fused operator's inputs; every other one is optional and absent.
KERNELS, RECURRENT_KERNELS, BIASES, HIDDEN_STATE, CELL_STATE = 1, 5, 12, 18, 19

INT8, INT16, INT32, FLOAT32 = (getattr(tflite.TensorType, n) for n in ("INT8", "INT16", "INT32", "FLOAT32"))


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

    table: the name of its options' type.  options: field name -> value.
    """

    kind: str
    version: int
    inputs: list[int]
    outputs: list[int]
    table: str
    options: Mapping[str, Any]
    intermediates: Sequence[int] = ()


@dataclass
class FileSpec:
    """A file before it is bytes.  inputs, outputs: name in the signature -> tensor index."""

    description: str
    tensors: list[TensorSpec] = field(default_factory=list)
    operators: list[OperatorSpec] = field(default_factory=list)
    inputs: dict[str, int] = field(default_factory=dict)
    outputs: dict[str, int] = field(default_factory=dict)
    metadata: dict[str, bytes] = field(default_factory=dict)

    def add(self, tensor: TensorSpec) -> int:
        """Append a tensor; returns its index."""
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def activation(self, name: str, shape: tuple[int, ...], quantization: Quantization) -> int:
        """Append an int8 tensor that an invocation computes."""
        return self.add(TensorSpec(name, shape, INT8, quantization.scale, quantization.zero_point))

    def constant(self, name: str, data: npt.NDArray[Any], scales: npt.ArrayLike = ()) -> int:
        """Append an int8 or int32 constant."""
        kind = INT8 if data.dtype == np.int8 else INT32
        return self.add(TensorSpec(name, data.shape, kind, scales, data=data))


def emit_tflite(qgraph: QGraph) -> bytes:
    """Write ``qgraph`` as a .tflite file that LiteRT, tflite-runtime and TensorFlow Lite Micro run.

    One lane: the input is int8 ``[1, timesteps, features]``.  More: ``[timesteps, lanes, features]``
    (time-major).  The output has the same layout with ``outputs`` in the last place; with ``last_only``
    it is ``[lanes, outputs]``.  The operators keep their state from one invocation to the next.
    Raises ModelError where ``made`` holds what JSON cannot carry.
    """
    return pack(file_spec(qgraph))


def file_spec(qgraph: QGraph) -> FileSpec:
    """The tensors and operators of ``qgraph``'s file, with its description as metadata."""
    spec = FileSpec(f"edge_lstm: {qgraph.name}", metadata={NAME: metadata.encode(qgraph)})
    time_major = qgraph.lanes > 1
    rows = (qgraph.timesteps, qgraph.lanes) if time_major else (1, qgraph.timesteps)
    value = spec.activation(INPUT_NAME, (*rows, qgraph.features), qgraph.input)
    spec.inputs = {INPUT_NAME: value}
    last_lstm = max(i for i, layer in enumerate(qgraph.layers) if isinstance(layer, QLstm))
    for index, layer in enumerate(qgraph.layers):
        if isinstance(layer, QDense):
            value = _add_dense(spec, value, layer)
        else:
            value = _add_lstm(spec, value, layer, time_major)
            if qgraph.last_only and index == last_lstm:
                value = _add_last_row(spec, value, layer.hidden, 0 if time_major else 1)
    spec.outputs = {OUTPUT_NAME: value}
    return spec


def _add_lstm(spec: FileSpec, value: int, layer: QLstm, time_major: bool) -> int:
    """One LSTM layer that reads tensor ``value``; returns its output.  TFLite's gate order is ours."""
    shape = spec.tensors[value].shape
    inputs = [-1] * LSTM_INPUTS
    inputs[0] = value
    for gate, letter in enumerate(GATES):
        scale, recurrent_scale = layer.kernel_scales[gate], layer.recurrent_scales[gate]
        bias_scale = scale * np.float32(layer.input.scale)
        for place, name, data, scales in (
            (KERNELS, "kernel", layer.kernel, scale),
            (RECURRENT_KERNELS, "recurrent_kernel", layer.recurrent_kernel, recurrent_scale),
            (BIASES, "bias", layer.bias, bias_scale),
        ):
            inputs[place + gate] = spec.constant(f"{layer.name}/{name}_{letter}", data[gate], scales)
    inputs[HIDDEN_STATE], inputs[CELL_STATE] = _add_state(spec, layer, shape[1 if time_major else 0])
    intermediates = _add_intermediates(spec, layer)
    output = spec.activation(layer.name, (*shape[:2], layer.units), layer.hidden)
    options = {
        "FusedActivationFunction": tflite.ActivationFunctionType.TANH,
        "CellClip": layer.cell_clip,
        "TimeMajor": time_major,
    }
    kind, table = "UNIDIRECTIONAL_SEQUENCE_LSTM", "UnidirectionalSequenceLSTMOptions"
    spec.operators.append(OperatorSpec(kind, 1, inputs, [output], table, options, intermediates))
    return output


def _add_state(spec: FileSpec, layer: QLstm, lanes: int) -> tuple[int, int]:
    """The variable tensors; rank 2, because TensorFlow Lite Micro reads two dimensions."""
    shape, hidden, cell_scale = (lanes, layer.units), layer.hidden, 2.0**layer.cell_power
    name = f"{layer.name}/hidden_state"
    first = spec.add(TensorSpec(name, shape, INT8, hidden.scale, hidden.zero_point, variable=True))
    return first, spec.add(TensorSpec(f"{layer.name}/cell_state", shape, INT16, cell_scale, variable=True))


def _add_intermediates(spec: FileSpec, layer: QLstm) -> list[int]:
    """Five tensors without content; LiteRT reads the quantization of the last one."""
    unused = [spec.add(TensorSpec(f"{layer.name}/unused_{index}", (0,), FLOAT32)) for index in range(4)]
    return [*unused, spec.activation(f"{layer.name}/hidden", (0,), layer.hidden)]


def _add_last_row(spec: FileSpec, value: int, hidden: Quantization, axis: int) -> int:
    """Keep the last time step, as TensorFlow's converter writes it: begin -1, and that axis removed."""
    begin, end, strides = (np.full(3, fill, dtype=np.int32) for fill in (0, 0, 1))
    begin[axis] = -1
    inputs = [
        value,
        spec.constant("last_row/begin", begin),
        spec.constant("last_row/end", end),
        spec.constant("last_row/strides", strides),
    ]
    shape = tuple(size for place, size in enumerate(spec.tensors[value].shape) if place != axis)
    output = spec.activation("last_row", shape, hidden)
    whole = 0b111 & ~(1 << axis)
    options = {"BeginMask": whole, "EndMask": whole, "ShrinkAxisMask": 1 << axis}
    spec.operators.append(OperatorSpec("STRIDED_SLICE", 2, inputs, [output], "StridedSliceOptions", options))
    return output


def _add_dense(spec: FileSpec, value: int, layer: QDense) -> int:
    bias_scales = layer.kernel_scales * np.float32(layer.input.scale)
    inputs = [
        value,
        spec.constant(f"{layer.name}/kernel", layer.kernel, layer.kernel_scales),
        spec.constant(f"{layer.name}/bias", layer.bias, bias_scales),
    ]
    output = spec.activation(layer.name, (*spec.tensors[value].shape[:-1], layer.outputs), layer.output)
    options = {"KeepNumDims": True}
    spec.operators.append(
        OperatorSpec("FULLY_CONNECTED", 4, inputs, [output], "FullyConnectedOptions", options)
    )
    return output


# --- values -> flatbuffer ---------------------------------------------------------------------------


def pack(spec: FileSpec) -> bytes:
    """Write the file.  Buffer 0 is empty; every constant and every metadata entry has a buffer of its own."""
    builder = flatbuffers.Builder(1024)
    buffers = [b""]
    codes = list(dict.fromkeys((operator.kind, operator.version) for operator in spec.operators))
    subgraph = _table(
        builder,
        "SubGraph",
        Tensors=_tables(builder, [_tensor(builder, tensor, buffers) for tensor in spec.tensors]),
        Inputs=_vector(builder, list(spec.inputs.values()), "<i4"),
        Outputs=_vector(builder, list(spec.outputs.values()), "<i4"),
        Operators=_tables(builder, [_operator(builder, operator, codes) for operator in spec.operators]),
        Name=builder.CreateString("main"),
    )
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
        Subgraphs=_tables(builder, [subgraph]),
        Description=builder.CreateString(spec.description),
        Buffers=_tables(builder, [_buffer(builder, content) for content in buffers]),
        Metadata=_tables(builder, entries),
        SignatureDefs=_tables(builder, [signature]),
    )
    builder.Finish(model, b"TFL3")
    return bytes(builder.Output())


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
        Name=builder.CreateString(tensor.name),
        Shape=_vector(builder, tensor.shape, "<i4"),
        Type=tensor.kind,
        Buffer=buffer,
        Quantization=quantization,
        IsVariable=tensor.variable,
    )


def _operator(builder: Any, operator: OperatorSpec, codes: list[tuple[str, int]]) -> int:
    return _table(
        builder,
        "Operator",
        OpcodeIndex=codes.index((operator.kind, operator.version)),
        Inputs=_vector(builder, operator.inputs, "<i4"),
        Outputs=_vector(builder, operator.outputs, "<i4"),
        BuiltinOptionsType=getattr(tflite.BuiltinOptions, operator.table),
        BuiltinOptions=_table(builder, operator.table, **operator.options),
        Intermediates=_vector(builder, operator.intermediates, "<i4"),
    )


def _operator_code(builder: Any, kind: str, version: int) -> int:
    code = getattr(tflite.BuiltinOperator, kind)
    fields = {"DeprecatedBuiltinCode": code, "Version": version, "BuiltinCode": code}
    return _table(builder, "OperatorCode", **fields)
