"""One computing operator of an integer .tflite file -> one layer of a QGraph.  Spec: NUMERICS.md, 8.

Reads operators as ``flatbuffer.py`` gives them; collects what is wrong with them.  The operators that only
move codes are in ``tflite_moves.py``, the LSTM in ``tflite_lstm.py``.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_lstm.errors import ModelError
from edge_lstm.importers.flatbuffer import Operator, Tensor
from edge_lstm.importers.tflite_axes import Layout
from edge_lstm.qgraph import QDense, QRelu, QSoftmax, Quantization

__all__ = ["Findings", "Layout", "activation_name", "read_dense", "read_relu", "read_softmax"]

ACTIVATIONS = ("NONE", "RELU", "RELU_N1_TO_1", "RELU6", "TANH", "SIGN_BIT")
ITEM: dict[str, np.dtype[Any]] = {  # of constants
    "INT8": np.dtype("i1"), "INT16": np.dtype("<i2"), "INT32": np.dtype("<i4"), "INT64": np.dtype("<i8"),
}  # fmt: skip
BITS = {"INT8": 8, "INT16": 16}  # of codes
BIAS_KINDS = {8: "INT32", 16: "INT64"}  # by the bits of the codes


class Findings:
    """The problems of one operator, each with its place in front."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.problems: list[str] = []

    def add(self, problem: str) -> None:
        self.problems.append(f"{self.where}: {problem}")

    def expect(self, condition: bool, problem: str) -> bool:
        if not condition:
            self.add(problem)
        return condition

    def activation(self, tensor: Tensor | None, role: str, variable: bool = False) -> Quantization | None:
        """The quantization of an int8 or int16 tensor that the operators write."""
        if tensor is None:
            self.add(f"its {role} is absent")
            return None
        before = len(self.problems)
        self.expect(tensor.kind in BITS, f"its {role} is {tensor.kind}, expected INT8 or INT16")
        self.computed(tensor, role, variable)
        if len(self.problems) > before:
            return None
        return self.quantization(tensor, role, BITS[tensor.kind])

    def computed(self, tensor: Tensor, role: str, variable: bool) -> None:
        """Problems of a tensor that must have no content; ``variable`` ones keep theirs between calls."""
        self.expect(tensor.data is None, f"its {role} has constant content, expected none")
        state = "a variable" if variable else "not a variable"
        self.expect(tensor.variable == variable, f"its {role} must be {state} tensor")

    def quantization(self, tensor: Tensor, role: str, bits: int = 8) -> Quantization | None:
        if len(tensor.scales) != 1 or len(tensor.zero_points) != 1:
            self.add(f"its {role} has {len(tensor.scales)} scales, expected 1 scale and 1 zero point")
            return None
        try:
            return Quantization(float(tensor.scales[0]), int(tensor.zero_points[0]), bits)
        except ModelError as error:
            self.add(f"its {role}: {error}")
            return None

    def constant(
        self, tensor: Tensor | None, role: str, kind: str, shape: tuple[int, ...]
    ) -> npt.NDArray[Any] | None:
        """The content of a constant of this kind and shape."""
        if tensor is None:
            self.add(f"its {role} is absent")
            return None
        before = len(self.problems)
        self.expect(tensor.kind == kind, f"its {role} is {tensor.kind}, expected {kind}")
        same = tensor.shape == shape and min(shape) > 0
        self.expect(same, f"its {role} is {list(tensor.shape)}, expected {list(shape)}")
        self.expect(not tensor.sparse, f"its {role} is sparse; convert it with dense weights")
        if tensor.data is None or tensor.variable:
            self.add(f"its {role} has no constant content")
        if len(self.problems) > before or tensor.data is None:
            return None
        expected = math.prod(shape) * ITEM[kind].itemsize
        found = tensor.data.nbytes
        if not self.expect(found == expected, f"its {role} has {found} bytes, expected {expected}"):
            return None
        content: npt.NDArray[Any] = tensor.data.view(ITEM[kind]).reshape(shape)
        return content

    def weights(
        self, tensor: Tensor | None, role: str, shape: tuple[int, ...], scales: tuple[int, ...] = (1,)
    ) -> npt.NDArray[Any] | None:
        """int8 weights with one of ``scales`` many scales along axis 0 and zero points 0."""
        content = self.constant(tensor, role, "INT8", shape)
        if content is None or tensor is None:
            return None
        count = len(tensor.scales)
        one = count in scales and len(tensor.zero_points) == count and (count == 1 or tensor.axis == 0)
        expected = " or ".join(str(number) for number in dict.fromkeys(scales))
        self.expect(
            one, f"its {role} has {count} scales along axis {tensor.axis}, expected {expected} (axis 0)"
        )
        zero = not tensor.zero_points.any()
        self.expect(zero, f"its {role} has a zero point other than 0, which LiteRT ignores and TFLM applies")
        return content


def activation_name(value: int) -> str:
    """A fused activation as the schema names it."""
    return ACTIVATIONS[value] if 0 <= value < len(ACTIVATIONS) else f"number {value}"


def read_dense(operator: Operator, name: str) -> tuple[QDense | None, list[str]]:
    """A dense layer of the same rows as its kernel, or None and its problems."""
    found = Findings(f"dense '{name}'")
    if not operator.options or len(operator.inputs) not in (2, 3) or len(operator.outputs) != 1:
        found.add("it lacks options, inputs or an output")
        return None, found.problems
    activation = activation_name(operator.options["FusedActivationFunction"])
    found.expect(
        activation in ("NONE", "RELU"),
        f"its activation is {activation}, expected none or RELU; apply it outside",
    )
    found.expect(operator.options["WeightsFormat"] == 0, "its weights are shuffled, expected plain rows")
    kernel = operator.inputs[1]
    input_ = found.activation(operator.inputs[0], "input")
    output = found.activation(operator.outputs[0], "output")
    if kernel is None or len(kernel.shape) != 2 or min(kernel.shape) < 1:
        found.add("its kernel is absent or not a matrix")
        return None, found.problems
    outputs = kernel.shape[0]
    content = found.weights(kernel, "kernel", kernel.shape, (1, outputs))
    if found.problems or content is None or input_ is None or output is None:
        return None, found.problems
    bias: npt.NDArray[Any] | None = np.zeros(outputs, dtype=np.int64)
    if len(operator.inputs) == 3 and operator.inputs[2] is not None:
        bias = found.constant(operator.inputs[2], "bias", BIAS_KINDS[input_.bits], (outputs,))
    if bias is None:
        return None, found.problems
    try:
        return QDense(name, content, bias, kernel.scales, input_, output, activation == "RELU"), []
    except ModelError as error:
        return None, [str(error)]


def _unary(operator: Operator, found: Findings) -> tuple[Quantization, Quantization] | None:
    """The quantizations of the one input and the one output."""
    if len(operator.inputs) != 1 or len(operator.outputs) != 1:
        found.add("it lacks its input or its output")
        return None
    input_ = found.activation(operator.inputs[0], "input")
    output = found.activation(operator.outputs[0], "output")
    return None if input_ is None or output is None else (input_, output)


def read_softmax(operator: Operator, name: str) -> tuple[QSoftmax | None, list[str]]:
    """A softmax over the features, or None and its problems."""
    found = Findings(f"softmax '{name}'")
    beta = operator.options.get("Beta", 0.0)
    found.expect(beta == 1.0, f"its beta is {beta}, expected 1; put the factor into the layer before it")
    pair = _unary(operator, found)
    if pair is None or found.problems:
        return None, found.problems
    try:
        return QSoftmax(name, *pair), []
    except ModelError as error:
        return None, [str(error)]


def read_relu(operator: Operator, name: str) -> tuple[QRelu | None, list[str]]:
    """A ReLU that keeps the quantization, or None and its problems."""
    found = Findings(f"relu '{name}'")
    pair = _unary(operator, found)
    if pair is None:
        return None, found.problems
    if not found.expect(
        pair[0] == pair[1],
        "it changes the quantization, where the runtimes round differently; use the ReLU of the dense layer",
    ):
        return None, found.problems
    return QRelu(name, pair[0]), []
