"""One operator of a .tflite file -> one layer of a QGraph.  Spec: NUMERICS.md, 8.

Reads operators as ``flatbuffer.py`` gives them; writes layers, and collects what is wrong with them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_lstm.errors import ModelError
from edge_lstm.importers.flatbuffer import Operator, Tensor
from edge_lstm.qgraph import QDense, QLstm, Quantization

LSTM_INPUTS, INTERMEDIATES = 24, 5
GATES = ("i", "f", "g", "o")  # TFLite's order too
KERNELS, RECURRENT_KERNELS, BIASES = 1, 5, 12  # places of gate i
HIDDEN_STATE, CELL_STATE = 18, 19
ACTIVATIONS = ("NONE", "RELU", "RELU_N1_TO_1", "RELU6", "TANH", "SIGN_BIT")
ITEM: dict[str, np.dtype[Any]] = {"INT8": np.dtype("i1"), "INT32": np.dtype("<i4")}  # of constants
# Parts of the fused operator that LiteRT computes and TensorFlow Lite Micro rejects: (name, their inputs).
VARIANTS = (
    ("peephole weights", (9, 10, 11)),
    ("a projection", (16, 17)),
    ("layer normalization", (20, 21, 22, 23)),
)


@dataclass(frozen=True)
class Layout:
    """How rows lie in a sequence: [lanes, timesteps, ...], or time-major [timesteps, lanes, ...]."""

    timesteps: int
    lanes: int
    time_major: bool

    @property
    def rows(self) -> tuple[int, int]:
        return (self.timesteps, self.lanes) if self.time_major else (self.lanes, self.timesteps)

    @property
    def time_axis(self) -> int:
        return 0 if self.time_major else 1


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
        """The quantization of an int8 tensor that the operators write."""
        if tensor is None:
            self.add(f"its {role} is absent")
            return None
        before = len(self.problems)
        self.expect(tensor.kind == "INT8", f"its {role} is {tensor.kind}, expected INT8")
        self.computed(tensor, role, variable)
        return self.quantization(tensor, role) if len(self.problems) == before else None

    def computed(self, tensor: Tensor, role: str, variable: bool) -> None:
        """Problems of a tensor that must have no content; ``variable`` ones keep theirs between calls."""
        self.expect(tensor.data is None, f"its {role} has constant content, expected none")
        state = "a variable" if variable else "not a variable"
        self.expect(tensor.variable == variable, f"its {role} must be {state} tensor")

    def quantization(self, tensor: Tensor, role: str) -> Quantization | None:
        if len(tensor.scales) != 1 or len(tensor.zero_points) != 1:
            self.add(f"its {role} has {len(tensor.scales)} scales, expected 1 scale and 1 zero point")
            return None
        try:
            return Quantization(float(tensor.scales[0]), int(tensor.zero_points[0]))
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


def read_lstm(operator: Operator, name: str, layout: Layout) -> tuple[QLstm | None, list[str]]:
    """One fused LSTM, or None and its problems."""
    found = Findings(f"lstm '{name}'")
    _check_variant(found, operator)
    if found.problems:
        return None, found.problems
    x, output = operator.inputs[0], operator.outputs[0]
    input_, hidden = found.activation(x, "input"), found.activation(output, "output")
    if x is None or output is None or input_ is None or hidden is None:
        return None, found.problems
    shapes = x.shape[:2] == output.shape[:2] == layout.rows and len(x.shape) == len(output.shape) == 3
    if not found.expect(
        shapes, f"it maps {list(x.shape)} to {list(output.shape)}, expected {layout.rows} rows"
    ):
        return None, found.problems
    units, features = output.shape[2], x.shape[2]
    kernel = _gates(found, operator, KERNELS, "kernel", (units, features))
    recurrent = _gates(found, operator, RECURRENT_KERNELS, "recurrent_kernel", (units, units))
    bias = _gates(found, operator, BIASES, "bias", (units,))
    _check_hidden(found, operator, hidden, (layout.lanes, units))
    power = _cell_power(found, operator.inputs[CELL_STATE], (layout.lanes, units))
    if found.problems:
        return None, found.problems
    try:
        layer = QLstm(
            name, np.stack(kernel), np.stack(recurrent), np.stack(bias),
            _scales(operator, KERNELS), _scales(operator, RECURRENT_KERNELS), input_, hidden, power,
            operator.options["CellClip"],
        )  # fmt: skip
    except ModelError as error:
        return None, [str(error)]
    return layer, []


def _check_variant(found: Findings, operator: Operator) -> None:
    """Refuse everything but the plain LSTM with tanh that all runtimes compute alike."""
    options, inputs = operator.options, operator.inputs
    if not options:
        found.add("it has no options")
        return
    if not found.expect(
        len(inputs) == LSTM_INPUTS and len(operator.outputs) == 1,
        f"it has {len(inputs)} inputs and {len(operator.outputs)} outputs, expected {LSTM_INPUTS} and 1",
    ):
        return
    for variant, places in VARIANTS:
        if any(inputs[place] is not None for place in places):
            found.add(f"it has {variant}; train a plain LSTM")
    if inputs[KERNELS] is None or inputs[RECURRENT_KERNELS] is None:
        found.add("its input gate is coupled to the forget gate (CIFG); train a plain LSTM")
    activation = _activation(options["FusedActivationFunction"])
    found.expect(activation == "TANH", f"its activation is {activation}, expected TANH")
    found.expect(options["ProjClip"] == 0, f"its proj_clip is {options['ProjClip']}, expected 0")
    found.expect(not options["DiagonalRecurrentTensors"], "its recurrent kernels are diagonal, expected full")


def _gates(
    found: Findings, operator: Operator, place: int, role: str, shape: tuple[int, ...]
) -> list[npt.NDArray[Any]]:
    """The contents of the four gates' tensors from ``place`` on; matrices are weights, vectors biases."""
    contents = []
    for gate, letter in enumerate(GATES):
        tensor, name = operator.inputs[place + gate], f"{role}_{letter}"
        if len(shape) == 2:
            contents.append(found.weights(tensor, name, shape))
        else:
            contents.append(found.constant(tensor, name, "INT32", shape))
    return [content for content in contents if content is not None]


def _scales(operator: Operator, place: int) -> npt.NDArray[np.float32]:
    tensors = operator.inputs[place : place + len(GATES)]
    return np.array([tensor.scales[0] for tensor in tensors if tensor is not None], dtype=np.float32)


def _check_hidden(found: Findings, operator: Operator, output: Quantization, shape: tuple[int, int]) -> None:
    """State 18, intermediate 4 and the output must agree: each runtime reads another one of the three."""
    tensor = operator.inputs[HIDDEN_STATE]
    state = found.activation(tensor, "hidden state", variable=True)
    if tensor is not None:
        found.expect(
            tensor.shape == shape, f"its hidden state is {list(tensor.shape)}, expected {list(shape)}"
        )
    last = operator.intermediates[-1] if len(operator.intermediates) == INTERMEDIATES else None
    if last is None:
        found.add(f"it has {len(operator.intermediates)} intermediates, expected {INTERMEDIATES}")
        return
    hidden = found.quantization(last, "intermediate 4")
    if state is not None and hidden is not None:
        found.expect(
            state == hidden == output,
            f"its hidden state has {_text(state)}, its intermediate 4 {_text(hidden)} and its output "
            f"{_text(output)}, expected the same: the runtimes read different ones (a defect of TensorFlow's "
            "quantizer); quantize the float model with this toolkit",
        )


def _activation(value: int) -> str:
    return ACTIVATIONS[value] if 0 <= value < len(ACTIVATIONS) else f"number {value}"


def _text(quantization: Quantization) -> str:
    return f"scale {quantization.scale:.6g} and zero point {quantization.zero_point}"


def _cell_power(found: Findings, tensor: Tensor | None, shape: tuple[int, int]) -> int:
    """log2 of the cell scale; 0, with a problem, where there is none."""
    if tensor is None:
        found.add("its cell state is absent")
        return 0
    found.expect(tensor.kind == "INT16", f"its cell state is {tensor.kind}, expected INT16")
    found.expect(tensor.shape == shape, f"its cell state is {list(tensor.shape)}, expected {list(shape)}")
    found.computed(tensor, "cell state", variable=True)
    quantization = found.quantization(tensor, "cell state")
    if quantization is None:
        return 0
    significand, exponent = math.frexp(quantization.scale)
    found.expect(
        significand == 0.5 and quantization.zero_point == 0,
        f"its cell state has {_text(quantization)}, expected a power of two and 0: LiteRT rounds the scale "
        "to one and TFLM does not; quantize the float model with this toolkit",
    )
    return exponent - 1


def read_dense(operator: Operator, name: str, rows: int) -> tuple[QDense | None, list[str]]:
    """One dense layer over ``rows`` rows, or None and its problems."""
    found = Findings(f"dense '{name}'")
    if not operator.options or len(operator.inputs) not in (2, 3) or len(operator.outputs) != 1:
        found.add("it lacks options, inputs or an output")
        return None, found.problems
    activation = _activation(operator.options["FusedActivationFunction"])
    found.expect(activation == "NONE", f"its activation is {activation}, expected none; apply it outside")
    found.expect(operator.options["WeightsFormat"] == 0, "its weights are shuffled, expected plain rows")
    x, kernel, output = operator.inputs[0], operator.inputs[1], operator.outputs[0]
    input_, out = found.activation(x, "input"), found.activation(output, "output")
    if kernel is None or len(kernel.shape) != 2 or min(kernel.shape) < 1:
        found.add("its kernel is absent or not a matrix")
        return None, found.problems
    outputs, features = kernel.shape
    content = found.weights(kernel, "kernel", kernel.shape, (1, outputs))
    bias: npt.NDArray[Any] | None = np.zeros(outputs if content is not None else 0, dtype=np.int32)
    if len(operator.inputs) == 3 and operator.inputs[2] is not None:
        bias = found.constant(operator.inputs[2], "bias", "INT32", (outputs,))
    if x is not None and output is not None:
        sizes = (math.prod(x.shape), math.prod(output.shape))
        found.expect(
            sizes == (rows * features, rows * outputs) and x.shape[-1:] == (features,),
            f"it maps {list(x.shape)} to {list(output.shape)} with a kernel of {outputs} x {features}, "
            f"expected {rows} rows; a dense layer over several time steps at once is not supported",
        )
    if found.problems or input_ is None or out is None or content is None or bias is None:
        return None, found.problems
    try:
        return QDense(name, content, bias, kernel.scales, input_, out), []
    except ModelError as error:
        return None, [str(error)]


def check_last_row(operator: Operator, layout: Layout) -> list[str]:
    """Problems of a STRIDED_SLICE that must keep exactly the last time step of a sequence."""
    found = Findings("operator STRIDED_SLICE")
    if len(operator.inputs) != 4 or len(operator.outputs) != 1 or not operator.options:
        found.add("it lacks options, inputs or an output")
        return found.problems
    x = operator.inputs[0]
    before = found.activation(x, "input")
    after = found.activation(operator.outputs[0], "output")
    if x is None or len(x.shape) != 3:
        found.add("it does not slice a sequence")
        return found.problems
    found.expect(before == after, "it changes the quantization")
    vectors = [
        found.constant(tensor, role, "INT32", (3,))
        for tensor, role in zip(operator.inputs[1:], ("begin", "end", "strides"), strict=True)
    ]
    if any(vector is None for vector in vectors):
        return found.problems
    kept = _kept(x.shape, vectors, operator.options)
    expected = [range(size) for size in x.shape]
    expected[layout.time_axis] = range(layout.timesteps - 1, layout.timesteps)
    found.expect(kept == expected, "it keeps something other than the last time step of every lane")
    return found.problems


def _kept(shape: tuple[int, ...], vectors: list[Any], options: dict[str, Any]) -> list[range] | None:
    """The indices that a slice keeps along each axis; None where it adds, reverses or skips."""
    begin, end, strides = ([int(value) for value in vector] for vector in vectors)
    if options["EllipsisMask"] or options["NewAxisMask"] or options["Offset"] or strides != [1, 1, 1]:
        return None
    kept = []
    for axis, size in enumerate(shape):
        bit = 1 << axis
        start = 0 if options["BeginMask"] & bit else begin[axis] + (size if begin[axis] < 0 else 0)
        stop = size if options["EndMask"] & bit else end[axis] + (size if end[axis] < 0 else 0)
        kept.append(range(start, start + 1 if options["ShrinkAxisMask"] & bit else stop))
    return kept
