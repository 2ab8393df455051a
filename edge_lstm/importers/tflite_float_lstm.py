"""The fused LSTM operators of a float .tflite file -> LSTM layers, with every variant that LiteRT computes.

Reads UNIDIRECTIONAL_SEQUENCE_LSTM and BIDIRECTIONAL_SEQUENCE_LSTM; their gates lie in the order i, f, g, o.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from edge_lstm.arrays import FloatArray
from edge_lstm.errors import ModelError, UnsupportedModel
from edge_lstm.importers.flatbuffer import Operator, Tensor
from edge_lstm.importers.tflite_float_axes import FEATURES, ROWS, STREAMS, Rows
from edge_lstm.importers.tflite_float_builder import Builder
from edge_lstm.importers.tflite_float_constants import described
from edge_lstm.importers.tflite_float_forms import fused_activation
from edge_lstm.layer_types import LINEAR, Function, Lstm

Inputs = Sequence[Tensor | None]


@dataclass(frozen=True)
class Places:
    """Where the inputs of one direction begin.  normalization: -1 where the operator has none."""

    kernels: int = 1
    recurrent_kernels: int = 5
    peepholes: int = 9
    biases: int = 12
    projection: int = 16
    states: int = 18
    normalization: int = 20


FORWARD = Places(1, 5, 9, 12, 16, 35, -1)  # of the bidirectional operator
BACKWARD = Places(18, 22, 26, 29, 33, 37, -1)
AUXILIARY = slice(39, 48)


class _Operator:
    """One direction of one operator."""

    def __init__(self, builder: Builder, operator: Operator, places: Places) -> None:
        self.numbers = builder.constants.numbers
        self.inputs: Inputs = operator.inputs
        self.options, self.places, self.streams = operator.options, places, builder.sizes.streams
        function = fused_activation(operator)
        if isinstance(function, str):
            raise UnsupportedModel("its fused activation is RELU6, expected RELU or TANH")
        if function == LINEAR:  # LiteRT then leaves the gate's memory as it was
            raise UnsupportedModel(
                "its fused activation is NONE, which LiteRT does not compute; expected TANH"
            )
        self.function: Function = function

    def present(self, start: int, count: int, what: str, needed: tuple[int, ...]) -> bool:
        """Whether inputs are there: the ``needed`` ones of them, or none."""
        found = tuple(k for k in range(count) if self.inputs[start + k] is not None)
        if found not in ((), needed):
            raise ModelError(
                f"its {what} are incomplete: inputs {[start + k for k in found]}; convert it again"
            )
        return bool(found)

    def layer(self, features: int, backwards: bool) -> Lstm:
        """The layer; raises what is wrong with its weights."""
        places, inputs = self.places, self.inputs
        coupled = inputs[places.kernels] is None
        gates = (1, 2, 3) if coupled else (0, 1, 2, 3)
        output, projection = inputs[places.recurrent_kernels + 3], inputs[places.projection]
        if inputs[places.kernels + 3] is None or output is None or len(output.shape) != 2:
            raise ModelError(f"its recurrent kernel of gate o is {described(output)}, expected a matrix")
        units, outputs = output.shape
        starts = (places.kernels, places.recurrent_kernels, places.biases)
        for start, what in zip(starts, ("kernels", "recurrent kernels", "biases"), strict=True):
            if not self.present(start, 4, what, gates):
                raise ModelError(f"its {what} are absent; convert the model again")
        self.check_states(units, outputs)
        return Lstm(
            "lstm",
            self.columns(places.kernels, gates, (units, features)),
            self.columns(places.recurrent_kernels, gates, (units, outputs)),
            self.rows(places.biases, gates, units).reshape(-1),
            cell_clip=float(self.options.get("CellClip", 0.0)),
            activation=self.function,
            cell_activation=self.function,
            peephole=self.peephole(coupled, units),
            projection=None if projection is None else self.numbers(projection, (outputs, units)).T,
            projection_bias=self.optional(places.projection + 1, outputs),
            projection_clip=float(self.options.get("ProjClip", 0.0)) if projection is not None else 0.0,
            normalization=self.normalization(gates, units),
            coupled=coupled,
            backwards=backwards,
        )

    def rows(self, start: int, gates: tuple[int, ...], units: int) -> FloatArray:
        """(4, units); a gate that is absent is 0."""
        found: FloatArray = np.zeros((4, units), np.float32)
        for gate in gates:
            found[gate] = self.numbers(self.inputs[start + gate], (units,))
        return found

    def columns(self, start: int, gates: tuple[int, ...], shape: tuple[int, int]) -> FloatArray:
        """Four matrices (units, inputs) side by side as (inputs, 4 * units)."""
        matrices = [self.numbers(self.inputs[start + gate], shape).T for gate in gates]
        if len(gates) == 3:
            matrices.insert(0, np.zeros(shape[::-1], np.float32))
        return np.concatenate(matrices, axis=1)

    def optional(self, place: int, width: int) -> FloatArray | None:
        tensor = self.inputs[place]
        return None if tensor is None else self.numbers(tensor, (width,))

    def peephole(self, coupled: bool, units: int) -> FloatArray | None:
        gates = (1, 2) if coupled else (0, 1, 2)
        if not self.present(self.places.peepholes, 3, "peephole weights", gates):
            return None
        return self.rows(self.places.peepholes, gates, units)[:3]

    def normalization(self, gates: tuple[int, ...], units: int) -> FloatArray | None:
        start = self.places.normalization
        if start < 0 or len(self.inputs) <= start:
            return None
        if not self.present(start, 4, "layer normalization coefficients", gates):
            return None
        return self.rows(start, gates, units)

    def check_states(self, units: int, outputs: int) -> None:
        for place, width in ((self.places.states, outputs), (self.places.states + 1, units)):
            tensor = self.inputs[place]
            if tensor is None or not tensor.variable or tensor.data is not None:
                raise UnsupportedModel(
                    f"its state is {described(tensor)}, expected a variable that starts at 0"
                )
            if tensor.shape != (self.streams, width) or tensor.kind != "FLOAT32":
                wanted = f"FLOAT32 {[self.streams, width]}"
                raise ModelError(f"its state is {tensor.kind} {list(tensor.shape)}, expected {wanted}")


def _window(builder: Builder, operator: Operator, value: Rows) -> Rows:
    """The input with its rows and streams where the operator reads them."""
    order = (ROWS, STREAMS) if operator.options.get("TimeMajor") else (STREAMS, ROWS)
    wanted = builder.sizes.named((*order, FEATURES), value.width)
    if value.axes != wanted:
        raise UnsupportedModel(f"it reads {list(value.axes)}, but takes rows and streams as {list(wanted)}")
    return value if value.sequence else builder.repeated(value)  # a window of one row


def _written(builder: Builder, operator: Operator, value: Rows, layer: Lstm) -> Rows:
    index = builder.add(layer, value.index)
    order = (ROWS, STREAMS) if operator.options.get("TimeMajor") else (STREAMS, ROWS)
    axes = builder.sizes.named((*order, FEATURES), layer.outputs)
    return replace(value, index=index, axes=axes, width=layer.outputs)


def read_unidirectional(builder: Builder, operator: Operator, value: Rows) -> tuple[Rows, ...]:
    """One layer; rows in reverse order make it a backwards one."""
    if len(operator.inputs) not in (20, 24) or not operator.options:
        raise ModelError(f"it has {len(operator.inputs)} inputs, expected 20 or 24 with options")
    if operator.options.get("DiagonalRecurrentTensors"):
        raise UnsupportedModel("its recurrent kernels are diagonal, expected full matrices")
    value = _window(builder, operator, value)
    layer = _Operator(builder, operator, Places()).layer(value.width, value.backwards)
    return (_written(builder, operator, value, layer),)


def read_bidirectional(builder: Builder, operator: Operator, value: Rows) -> tuple[Rows, ...]:
    """Two layers, joined where the operator merges its outputs."""
    if len(operator.inputs) != 48 or not operator.options:
        raise ModelError(f"it has {len(operator.inputs)} inputs, expected 48 with options")
    if any(tensor is not None for tensor in operator.inputs[AUXILIARY]):
        raise UnsupportedModel("it has an auxiliary input; join the inputs in front of it")
    merged = bool(operator.options.get("MergeOutputs"))
    if merged and builder.sizes.streams > 1 and not operator.options.get("TimeMajor"):
        raise UnsupportedModel(
            f"it has batch {builder.sizes.streams} and merged outputs, where LiteRT mixes the states of the "
            "streams; convert with batch 1"
        )
    value = _window(builder, operator, value)
    found = []
    for places, turned in ((FORWARD, False), (BACKWARD, True)):
        layer = _Operator(builder, operator, places).layer(value.width, value.backwards != turned)
        found.append(_written(builder, operator, value, layer))
    if not merged:
        return tuple(found)
    width = found[0].width + found[1].width
    like = replace(found[0], axes=(*found[0].axes[:2], FEATURES), width=width)
    return (builder.merged("concat", found, like),)
