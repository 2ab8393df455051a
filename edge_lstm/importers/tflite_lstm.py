"""The fused LSTM operator of a .tflite file -> a QLstm with all its variants.  Spec: NUMERICS.md, 8.

What a runtime computes wrongly without a word (absent scales, other types) is refused.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_lstm.errors import ModelError
from edge_lstm.importers.flatbuffer import Operator, Tensor
from edge_lstm.importers.tflite_layers import Findings, Layout, activation_name
from edge_lstm.lstm_operators import QLstm, Variant
from edge_lstm.operators import Quantization

LSTM_INPUTS, INTERMEDIATES = 24, 5
GATES = ("i", "f", "g", "o")  # TFLite's order too
PEEPHOLE_GATES = ("i", "f", "o")
KERNELS, RECURRENT_KERNELS, PEEPHOLES, BIASES = 1, 5, 9, 12  # places of gate i
PROJECTION, PROJECTION_BIAS, HIDDEN_STATE, CELL_STATE, NORMALIZATIONS = 16, 17, 18, 19, 20
BIAS_KINDS = {8: "INT32", 16: "INT64"}  # by the bits of the codes


def read_lstm(operator: Operator, name: str, layout: Layout) -> tuple[QLstm | None, list[str]]:
    """One fused LSTM, or None and its problems."""
    reading = _Reading(operator, f"lstm '{name}'")
    if not reading.has_form():
        return None, reading.problems
    x, output = operator.inputs[0], operator.outputs[0]
    input_, written = reading.activation(x, "input"), reading.activation(output, "output")
    if x is None or output is None or input_ is None or written is None:
        return None, reading.problems
    shapes = x.shape[:2] == output.shape[:2] == layout.rows and len(x.shape) == len(output.shape) == 3
    if not reading.expect(
        shapes, f"it maps {list(x.shape)} to {list(output.shape)}, expected {layout.rows} rows"
    ):
        return None, reading.problems
    outputs, features = output.shape[2], x.shape[2]
    units = reading.units(outputs)
    kernel = reading.gates(KERNELS, "kernel", "INT8", (units, features))
    recurrent = reading.gates(RECURRENT_KERNELS, "recurrent_kernel", "INT8", (units, outputs))
    bias = reading.gates(BIASES, "bias", BIAS_KINDS[input_.bits], (units,))
    variant = reading.variant(units, outputs)
    hidden, inner = reading.hidden((layout.lanes, outputs), input_.bits)
    power = reading.cell_power((layout.lanes, units))
    if reading.problems or hidden is None or inner is None:
        return None, reading.problems
    try:
        layer = QLstm(
            name, kernel, recurrent, bias, reading.scales(KERNELS), reading.scales(RECURRENT_KERNELS), input_,
            hidden, power, operator.options["CellClip"], inner=None if inner == hidden else inner,
            written=None if written == hidden else written, variant=variant,
        )  # fmt: skip
    except ModelError as error:
        return None, [str(error)]
    return layer, []


class _Reading(Findings):
    """One operator while it is read."""

    def __init__(self, operator: Operator, where: str) -> None:
        super().__init__(where)
        self.operator, self.inputs = operator, operator.inputs
        self.coupled = self.projects = False

    def has_form(self) -> bool:
        """Whether it has the options, inputs and outputs of an LSTM; notes which variant it is."""
        options, inputs = self.operator.options, self.inputs
        if not self.expect(bool(options), "it has no options"):
            return False
        count = (len(inputs), len(self.operator.outputs))
        if not self.expect(
            count == (LSTM_INPUTS, 1),
            f"it has {count[0]} inputs and {count[1]} outputs, expected {LSTM_INPUTS} and 1",
        ):
            return False
        self.coupled = all(inputs[place] is None for place in (KERNELS, RECURRENT_KERNELS, BIASES))
        self.projects = inputs[PROJECTION] is not None
        activation = activation_name(options["FusedActivationFunction"])
        self.expect(activation == "TANH", f"its activation is {activation}, expected TANH")
        clip, diagonal = options["ProjClip"], options["DiagonalRecurrentTensors"]
        if not self.projects:
            self.expect(clip == 0, f"its proj_clip is {clip}, expected 0: it has no projection")
            self.expect(inputs[PROJECTION_BIAS] is None, "it has a projection's bias without the projection")
        self.expect(not diagonal, "its recurrent kernels are diagonal, expected full")
        return not self.problems

    def units(self, outputs: int) -> int:
        """Cells of the layer; 0, so that every shape differs, where a projection does not tell."""
        if not self.projects:
            return outputs
        kernel = self.inputs[KERNELS + 1]  # of gate f, which every LSTM has
        return kernel.shape[0] if kernel is not None and len(kernel.shape) == 2 else 0

    def gates(
        self, place: int, role: str, kind: str, shape: tuple[int, ...], letters: tuple[str, ...] = GATES
    ) -> npt.NDArray[Any]:
        """The contents of the tensors of ``letters`` from ``place`` on; matrices are weights.

        Gate i of a coupled layer is zeros; an empty array where there are problems.
        """
        contents: list[npt.NDArray[Any] | None] = []
        for offset, letter in enumerate(letters):
            tensor, name = self.inputs[place + offset], f"{role}_{letter}"
            if self.coupled and letter == "i":
                self.expect(tensor is None, f"its gates are coupled (CIFG), but it has a {name}")
                contents.append(None)
            elif len(shape) == 2:
                contents.append(self.weights(tensor, name, shape))
            else:
                contents.append(self.constant(tensor, name, kind, shape))
        found = [content for content in contents if content is not None]
        if len(found) < len(letters) - self.coupled:
            return np.zeros(0)
        return np.stack([np.zeros_like(found[0]) if content is None else content for content in contents])

    def scales(self, place: int, count: int = len(GATES)) -> npt.NDArray[np.float32]:
        """The scale of each tensor from ``place`` on, 1 for gate i of a coupled layer."""
        tensors = self.inputs[place : place + count]
        found = [1.0 if t is None or not t.scales.size else float(t.scales[0]) for t in tensors]
        return np.array(found, dtype=np.float32)

    def vectors(
        self, place: int, role: str, units: int, letters: tuple[str, ...]
    ) -> tuple[npt.NDArray[Any] | None, npt.NDArray[np.float32] | None]:
        """int16 coefficients and their scales; None twice where the layer has none of them."""
        tensors = self.inputs[place : place + len(letters)]
        if all(tensor is None for tensor in tensors):
            return None, None
        content = self.gates(place, role, "INT16", (units,), letters)
        for tensor, letter in zip(tensors, letters, strict=True):
            if tensor is not None:
                self.expect(len(tensor.scales) == 1, f"its {role}_{letter} has {len(tensor.scales)} scales")
        return content, self.scales(place, len(letters))

    def variant(self, units: int, outputs: int) -> Variant | None:
        """What it has beyond the plain LSTM, or None."""
        peephole, peephole_scales = self.vectors(PEEPHOLES, "peephole", units, PEEPHOLE_GATES)
        norm, norm_scales = self.vectors(NORMALIZATIONS, "normalization", units, GATES)
        projection = bias = None
        if self.projects:
            projection = self.weights(self.inputs[PROJECTION], "projection", (outputs, units))
            if self.inputs[PROJECTION_BIAS] is not None:
                bias = self.constant(self.inputs[PROJECTION_BIAS], "projection_bias", "INT32", (outputs,))
        gate_scales = None if norm is None else self.gate_scales()
        if self.problems or not (self.coupled or self.projects or peephole is not None or norm is not None):
            return None
        return Variant(
            self.coupled, peephole, peephole_scales, projection, bias, float(self.scales(PROJECTION, 1)[0]),
            self.operator.options["ProjClip"], norm, norm_scales, gate_scales,
        )  # fmt: skip

    def gate_scales(self) -> npt.NDArray[np.float32]:
        """Of intermediates 0 .. 3; LiteRT reads neither their type nor their zero point."""
        scales = [0.0 if t is None or not t.scales.size else t.scales[0] for t in self.intermediates()[:4]]
        for index, scale in enumerate(scales):
            self.expect(
                scale > 0,
                f"its intermediate {index} has no scale, without which LiteRT normalizes to garbage",
            )
        return np.array(scales, dtype=np.float32)

    def intermediates(self) -> tuple[Tensor | None, ...]:
        found = self.operator.intermediates
        return found if len(found) == INTERMEDIATES else (None,) * INTERMEDIATES

    def hidden(self, shape: tuple[int, int], bits: int) -> tuple[Quantization | None, Quantization | None]:
        """Of the state and of what is written into it before a projection, which LiteRT alone reads."""
        tensor, last = self.inputs[HIDDEN_STATE], self.intermediates()[-1]
        state = self.activation(tensor, "hidden state", variable=True)
        if tensor is not None:
            self.expect(
                tensor.shape == shape, f"its hidden state is {list(tensor.shape)}, expected {list(shape)}"
            )
        if last is None:
            self.add(f"it has {len(self.operator.intermediates)} intermediates, expected {INTERMEDIATES}")
            return state, None
        return state, self.quantization(last, "intermediate 4", bits)

    def cell_power(self, shape: tuple[int, int]) -> int:
        """log2 of the cell scale; 0, with a problem, where there is none."""
        tensor = self.inputs[CELL_STATE]
        if tensor is None:
            self.add("its cell state is absent")
            return 0
        self.expect(tensor.kind == "INT16", f"its cell state is {tensor.kind}, expected INT16")
        self.expect(tensor.shape == shape, f"its cell state is {list(tensor.shape)}, expected {list(shape)}")
        self.computed(tensor, "cell state", variable=True)
        found = self.quantization(tensor, "cell state", 16)
        if found is None:
            return 0
        significand, exponent = math.frexp(found.scale)
        self.expect(
            significand == 0.5 and found.zero_point == 0,
            f"its cell state has scale {found.scale:.6g} and zero point {found.zero_point}, expected a power "
            "of two and 0: LiteRT rounds the scale to one and TFLM does not; quantize the float model with "
            "this toolkit",
        )
        return exponent - 1
