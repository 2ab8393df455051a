"""Primitive operators on one vector a stream: inside a loop, or between the rows of an unrolled window.

Reads operators; writes symbols.  Here too: what the options of these operators mean, for every reader.
"""

from __future__ import annotations

from collections.abc import Sequence

from edge_lstm.arrays import FloatArray
from edge_lstm.errors import ModelError, UnsupportedModel
from edge_lstm.importers.flatbuffer import Operator, Tensor
from edge_lstm.importers.tflite_float_axes import (
    FEATURES,
    ONE,
    STREAMS,
    Axes,
    Form,
    Sizes,
    Slice,
    broadcast,
    place,
    reshaped,
    sliced,
    transposed,
)
from edge_lstm.importers.tflite_float_constants import described, integers
from edge_lstm.importers.tflite_float_symbols import RELU6, Symbols, Weight
from edge_lstm.layer_types import LINEAR, RELU, SIGMOID, TANH, Function

ACTIVATIONS: dict[str, Function | str] = {
    "LOGISTIC": SIGMOID, "TANH": TANH, "RELU": RELU, "ELU": Function("elu"), "RELU6": RELU6,
}  # fmt: skip
FUSED_ACTIVATIONS: dict[int, Function | str] = {0: LINEAR, 1: RELU, 3: RELU6, 4: TANH}
FUSED_NAMES = ("NONE", "RELU", "RELU_N1_TO_1", "RELU6", "TANH", "SIGN_BIT")
MOVES = ("RESHAPE", "SQUEEZE", "EXPAND_DIMS", "TRANSPOSE")
ELEMENTWISE = ("ADD", "SUB", "MUL")
KINDS = {*ACTIVATIONS, "LEAKY_RELU", *MOVES, *ELEMENTWISE, "FULLY_CONNECTED", "STRIDED_SLICE", "SPLIT"}


def activation(operator: Operator) -> Function | str:
    """The function of an activation operator."""
    if operator.kind == "LEAKY_RELU":
        return Function("leaky_relu", float(operator.options.get("Alpha", 0.0)))
    return ACTIVATIONS[operator.kind]


def fused_activation(operator: Operator) -> Function | str:
    """The activation that an operator applies to its own result."""
    number = operator.options.get("FusedActivationFunction", 0)
    if number not in FUSED_ACTIVATIONS:
        name = FUSED_NAMES[number] if 0 <= number < len(FUSED_NAMES) else f"number {number}"
        raise UnsupportedModel(f"its fused activation is {name}, expected NONE, RELU, RELU6 or TANH")
    return FUSED_ACTIVATIONS[number]


def moved(operator: Operator, sizes: Sizes, axes: Axes, width: int) -> Axes:
    """The axes after an operator that computes nothing."""
    shape = sizes.shape(axes, width)
    second = operator.inputs[1] if len(operator.inputs) > 1 else None
    if operator.kind == "TRANSPOSE":
        return transposed(axes, integers(second))
    if operator.kind == "SQUEEZE":
        wanted = {place(axis, len(axes)) for axis in operator.options.get("SqueezeDims", ())}
        wanted = wanted or {axis for axis, length in enumerate(shape) if length == 1}
        return reshaped(sizes, axes, width, [n for axis, n in enumerate(shape) if axis not in wanted])
    if operator.kind == "EXPAND_DIMS":
        axis = place((*integers(second), 0)[0], len(axes) + 1)
        return (*axes[:axis], ONE, *axes[axis:])
    target = integers(second) if second is not None else operator.options.get("NewShape", ())
    return reshaped(sizes, axes, width, target)


def slice_of(operator: Operator, shape: Sequence[int]) -> Slice:
    """What STRIDED_SLICE keeps of a tensor of this shape."""
    if len(operator.inputs) != 4:
        raise ModelError(f"it has {len(operator.inputs)} inputs, expected 4")
    return sliced(shape, [integers(tensor) for tensor in operator.inputs[1:]], operator.options)


def dense_weights(operator: Operator) -> tuple[Tensor, Tensor | None]:
    """Kernel (outputs, inputs) and bias of FULLY_CONNECTED."""
    kernel = operator.inputs[1] if len(operator.inputs) > 1 else None
    bias = operator.inputs[2] if len(operator.inputs) > 2 else None
    if operator.options.get("WeightsFormat", 0) != 0:
        raise UnsupportedModel("its weights are shuffled; convert the model again without")
    if kernel is None or kernel.data is None or len(kernel.shape) != 2 or min(kernel.shape) < 1:
        raise UnsupportedModel(f"its weights are {described(kernel)}, expected a constant matrix")
    return kernel, bias


def vector(symbols: Symbols, tensor: Tensor, width: int) -> FloatArray:
    """A constant that has the same numbers in every row: (width,) or (1,)."""
    numbers = symbols.constants.numbers(tensor)
    rows: FloatArray = numbers.reshape(-1, tensor.shape[-1] if tensor.shape else 1)
    if rows.shape[1] not in (1, width) or (rows != rows[0]).any():
        raise UnsupportedModel(f"it combines {width} features with {described(tensor)}, other in each row")
    first: FloatArray = rows[0]
    return first


def check_shape(tensor: Tensor | None, expected: tuple[int, ...]) -> None:
    """The file must declare the shapes that its operators have."""
    if tensor is None or tensor.shape != expected:
        raise ModelError(f"it writes {described(tensor)}, expected {list(expected)}; convert the model again")


class Forms:
    """Runs primitive operators on symbols."""

    def __init__(self, symbols: Symbols, sizes: Sizes) -> None:
        self.symbols = symbols
        self.sizes = sizes

    def input(self, key: object, axes: Axes, width: int) -> Form:
        return Form(self.symbols.input(key, width), self.sizes.named(axes, width), width)

    def run(self, operator: Operator, values: Sequence[Form | Tensor | None]) -> tuple[Form, ...]:
        """values: of the operator's inputs, a Tensor for a constant.  Returns its outputs."""
        if operator.kind == "SPLIT":
            forms = self.split(operator, values)
        elif operator.kind in ELEMENTWISE:
            forms = (self.elementwise(operator, values),)
        else:
            value = values[0] if values else None
            if not isinstance(value, Form):
                raise UnsupportedModel(f"it computes with {described(value)}, expected a vector")
            forms = (self.unary(operator, value),)
        if len(operator.outputs) != len(forms):
            raise ModelError(f"it has {len(operator.outputs)} outputs, expected {len(forms)}")
        for form, tensor in zip(forms, operator.outputs, strict=True):
            check_shape(tensor, self.sizes.shape(form.axes, form.width))
        return forms

    def unary(self, operator: Operator, value: Form) -> Form:
        if operator.kind == "FULLY_CONNECTED":
            return self.dense(operator, value)
        if operator.kind == "STRIDED_SLICE":
            return self.narrowed(operator, value)
        if operator.kind in MOVES:
            axes = moved(operator, self.sizes, value.axes, value.width)
            return Form(value.sum, axes, value.width)
        return Form(self.symbols.act(activation(operator), value.sum), value.axes, value.width)

    def dense(self, operator: Operator, value: Form) -> Form:
        kernel, bias = dense_weights(operator)
        outputs, inputs = kernel.shape
        if inputs != value.width or (value.width > 1 and value.axes[-1:] != (FEATURES,)):
            raise UnsupportedModel(f"its weights take {inputs} features, but it reads {value.width}")
        total = self.symbols.weighted(value.sum, Weight(self.symbols.matrix(kernel), 0, outputs))
        if bias is not None:
            numbers = self.symbols.constants.numbers(bias, (outputs,))
            total = self.symbols.add(total, self.symbols.constant(numbers))
        kept = value.axes[:-1] if operator.options.get("KeepNumDims") else (STREAMS,)
        axes = self.sizes.named((*kept, FEATURES), outputs)
        return Form(self.symbols.act(fused_activation(operator), total), axes, outputs)

    def narrowed(self, operator: Operator, value: Form) -> Form:
        """A slice of the features."""
        shape = self.sizes.shape(value.axes, value.width)
        kept = slice_of(operator, shape)
        total, width = value.sum, value.width
        for axis, (start, stop) in enumerate(kept.ranges):
            if (start, stop) == (0, shape[axis]):
                continue
            if value.axes[axis] != FEATURES:
                raise UnsupportedModel(f"it takes some of the {value.axes[axis]} only")
            total, width = self.symbols.part(total, start, stop), stop - start
        return Form(total, self.sizes.named(kept.kept(value.axes), width), width)

    def split(self, operator: Operator, values: Sequence[Form | Tensor | None]) -> tuple[Form, ...]:
        value = values[1] if len(values) == 2 else None
        if not isinstance(value, Form):
            raise UnsupportedModel("it splits what is no vector")
        axis = place((*integers(operator.inputs[0]), 0)[0], len(value.axes))
        parts = len(operator.outputs)
        features = value.axes[axis] == FEATURES or (parts == 1 == value.width)
        if not features or parts < 1 or value.width % parts or operator.options.get("NumSplits") != parts:
            raise UnsupportedModel(f"it splits {value.width} features along axis {axis} in {parts}")
        width = value.width // parts
        axes = self.sizes.named(value.axes, width)
        return tuple(
            Form(self.symbols.part(value.sum, start, start + width), axes, width)
            for start in range(0, value.width, width)
        )

    def elementwise(self, operator: Operator, values: Sequence[Form | Tensor | None]) -> Form:
        """ADD, SUB and MUL of two vectors, or of a vector and a constant."""
        width = max((value.width for value in values if isinstance(value, Form)), default=0)
        if len(values) != 2 or not width:
            raise UnsupportedModel(f"it has {len(values)} inputs, expected two, one of them a vector")
        sums, axes = [], []
        for value in values:
            if isinstance(value, Form):
                sums.append(value.sum)
                axes.append(value.axes)
            elif value is not None and value.data is not None:
                numbers = vector(self.symbols, value, width)
                sums.append(self.symbols.constant(numbers))
                last = FEATURES if numbers.size > 1 else ONE
                axes.append((*(ONE,) * (len(value.shape) - 1), last)[: len(value.shape)])
            else:
                raise UnsupportedModel(f"it computes with {described(value)}")
        if operator.kind == "MUL":
            total = self.symbols.multiply(sums[0], sums[1])
        else:
            total = self.symbols.add(sums[0], sums[1], -1.0 if operator.kind == "SUB" else 1.0)
        return Form(self.symbols.act(fused_activation(operator), total), broadcast(*axes), width)
