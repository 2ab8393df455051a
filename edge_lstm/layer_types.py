"""The layers of a float network: Keras layout, gates in the order i, f, g, o (LSTM) and z, r, h (GRU).

Every value between layers is (streams, rows, width); a vector over a window is a value with one row.
Read by the float reference and the quantizer; made by importers and by training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_lstm.arrays import FloatArray, frozen
from edge_lstm.errors import ModelError, raise_all

# kind -> (alpha, beta) of the ONNX operators; None where the function has no such parameter
FUNCTIONS: dict[str, tuple[float | None, float | None]] = {
    "linear": (None, None),
    "relu": (None, None),
    "tanh": (None, None),
    "sigmoid": (None, None),
    "softsign": (None, None),
    "softplus": (None, None),
    "leaky_relu": (0.01, None),
    "elu": (1.0, None),
    "thresholded_relu": (1.0, None),
    "affine": (1.0, 0.0),
    "scaled_tanh": (1.0, 1.0),
    "hard_sigmoid": (0.2, 0.5),
}
MERGES = ("concat", "sum", "mean", "mul")
SOFTMAX_AXES = ("features", "time")


@dataclass(frozen=True)
class Function:
    """An element-wise activation; alpha and beta as in the ONNX operator of that name, None: its default."""

    kind: str = "linear"
    alpha: float | None = None
    beta: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in FUNCTIONS:
            raise ModelError(f"activation '{self.kind}' is unknown, expected one of {', '.join(FUNCTIONS)}")
        for name, default in zip(("alpha", "beta"), FUNCTIONS[self.kind], strict=True):
            value = getattr(self, name)
            if value is None or default is None:
                object.__setattr__(self, name, default)
            elif not np.isfinite(value):
                raise ModelError(f"activation '{self.kind}': {name} is {value}, expected a finite number")


LINEAR, RELU, TANH, SIGMOID = Function("linear"), Function("relu"), Function("tanh"), Function("sigmoid")


def _checked(layer: Any, kind: str, shapes: dict[str, tuple[int | None, ...]]) -> None:
    """Freeze the arrays of ``layer`` as float32 and raise for every wrong shape or value.

    shapes: attribute -> expected shape, None for a size that may be anything above 0.
    An attribute that is None is absent.
    """
    problems = []
    for attribute, expected in shapes.items():
        value = getattr(layer, attribute)
        if value is None:
            continue
        array = frozen(value, np.float32)
        object.__setattr__(layer, attribute, array)
        fits = array.ndim == len(expected) and all(
            size > 0 and wanted in (None, size) for size, wanted in zip(array.shape, expected, strict=False)
        )
        if not fits:
            wanted = tuple("any" if size is None else size for size in expected)
            problems.append(
                f"{attribute} is {array.shape}, expected {wanted}; was the layer saved with other sizes?"
            )
        elif not np.isfinite(array).all():
            problems.append(f"{attribute} holds NaN or infinity; the training diverged")
    raise_all(ModelError, f"{kind} '{layer.name}'", problems)


def _size(array: Any, axis: int) -> int:
    shape = np.shape(array)
    return int(shape[axis]) if len(shape) > axis else 0


@dataclass(frozen=True, eq=False)
class Lstm:
    """One LSTM layer.

    kernel: (features, 4 * units).  recurrent_kernel: (outputs, 4 * units).  bias: (4 * units,).
    cell_clip: the cell state is clamped to +-cell_clip; gate_clip: the same for the inputs of the gates'
    activations; projection_clip: for the projected output.  0 means no clip.
    peephole: (3, units), weights of the cell in the gates i, f (old cell) and o (new cell).
    projection: (units, outputs) with projection_bias (outputs,); without it the outputs are the units.
    normalization: (4, units), layer-normalization coefficients of the gates, applied before the bias.
    coupled: the input gate is 1 - f; its columns of kernel, recurrent_kernel and bias are not used.
    initial_hidden: (outputs,), initial_cell: (units,); None is zero.
    backwards: the window is read from its last row to its first; output row t still belongs to input row t.
    activation: of g.  cell_activation: of the cell in the output.  recurrent_activation: of i, f, o.
    """

    name: str
    kernel: FloatArray
    recurrent_kernel: FloatArray
    bias: FloatArray
    cell_clip: float = 0.0
    activation: Function = TANH
    recurrent_activation: Function = SIGMOID
    cell_activation: Function = TANH
    peephole: FloatArray | None = None
    projection: FloatArray | None = None
    projection_bias: FloatArray | None = None
    projection_clip: float = 0.0
    normalization: FloatArray | None = None
    coupled: bool = False
    gate_clip: float = 0.0
    initial_hidden: FloatArray | None = None
    initial_cell: FloatArray | None = None
    backwards: bool = False

    def __post_init__(self) -> None:
        units, outputs = _size(self.bias, 0) // 4, _size(self.recurrent_kernel, 0)
        shapes: dict[str, tuple[int | None, ...]] = {
            "kernel": (None, 4 * units),
            "recurrent_kernel": (outputs if self.projection is not None else units, 4 * units),
            "bias": (4 * units,),
            "peephole": (3, units),
            "projection": (units, outputs),
            "projection_bias": (outputs,),
            "normalization": (4, units),
            "initial_hidden": (outputs,),
            "initial_cell": (units,),
        }
        if self.projection_bias is not None and self.projection is None:
            raise ModelError(f"lstm '{self.name}': it has a projection_bias without a projection")
        _check_clips(self, "lstm", ("cell_clip", "gate_clip", "projection_clip"))
        _checked(self, "lstm", shapes)

    @property
    def features(self) -> int:
        return int(self.kernel.shape[0])

    @property
    def units(self) -> int:
        return int(self.bias.shape[0]) // 4

    @property
    def outputs(self) -> int:
        return int(self.recurrent_kernel.shape[0])

    @property
    def variants(self) -> tuple[str, ...]:
        """What makes this layer more than the plain LSTM, in words."""
        found = [
            ("peephole weights", self.peephole is not None),
            ("a projection", self.projection is not None),
            ("layer normalization", self.normalization is not None),
            ("coupled gates (CIFG)", self.coupled),
            ("a clip of the gates", bool(self.gate_clip)),
            ("an initial state", self.initial_hidden is not None or self.initial_cell is not None),
            (
                f"activations {self.recurrent_activation.kind}, {self.activation.kind}, "
                f"{self.cell_activation.kind}",
                (self.recurrent_activation, self.activation, self.cell_activation) != (SIGMOID, TANH, TANH),
            ),
        ]
        return tuple(words for words, present in found if present)


def _check_clips(layer: Any, kind: str, names: Sequence[str]) -> None:
    problems = [
        f"{name} is {getattr(layer, name)}, expected 0 (none) or a positive number"
        for name in names
        if not (np.isfinite(getattr(layer, name)) and getattr(layer, name) >= 0)
    ]
    raise_all(ModelError, f"{kind} '{layer.name}'", problems)


@dataclass(frozen=True, eq=False)
class Gru:
    """One GRU layer, gates in the order z (update), r (reset), h (candidate).

    kernel: (features, 3 * units).  recurrent_kernel: (units, 3 * units).  bias, recurrent_bias: (3 * units,).
    reset_after: the reset gate is applied after the recurrent product (Keras' default, PyTorch) or before it.
    ``h' = z * h + (1 - z) * candidate``.  The rest as in Lstm.
    """

    name: str
    kernel: FloatArray
    recurrent_kernel: FloatArray
    bias: FloatArray
    recurrent_bias: FloatArray
    reset_after: bool = True
    activation: Function = TANH
    recurrent_activation: Function = SIGMOID
    gate_clip: float = 0.0
    initial_hidden: FloatArray | None = None
    backwards: bool = False

    def __post_init__(self) -> None:
        units = _size(self.recurrent_kernel, 0)
        shapes: dict[str, tuple[int | None, ...]] = {
            "kernel": (None, 3 * units),
            "recurrent_kernel": (units, 3 * units),
            "bias": (3 * units,),
            "recurrent_bias": (3 * units,),
            "initial_hidden": (units,),
        }
        _check_clips(self, "gru", ("gate_clip",))
        _checked(self, "gru", shapes)

    @property
    def features(self) -> int:
        return int(self.kernel.shape[0])

    @property
    def units(self) -> int:
        return int(self.recurrent_kernel.shape[0])

    outputs = units


@dataclass(frozen=True, eq=False)
class Rnn:
    """One simple recurrent layer: ``h' = activation(x @ kernel + h @ recurrent_kernel + bias)``.

    kernel: (features, units).  recurrent_kernel: (units, units).  bias: (units,).  The rest as in Lstm.
    """

    name: str
    kernel: FloatArray
    recurrent_kernel: FloatArray
    bias: FloatArray
    activation: Function = TANH
    gate_clip: float = 0.0
    initial_hidden: FloatArray | None = None
    backwards: bool = False

    def __post_init__(self) -> None:
        units = _size(self.recurrent_kernel, 0)
        shapes: dict[str, tuple[int | None, ...]] = {
            "kernel": (None, units),
            "recurrent_kernel": (units, units),
            "bias": (units,),
            "initial_hidden": (units,),
        }
        _check_clips(self, "rnn", ("gate_clip",))
        _checked(self, "rnn", shapes)

    @property
    def features(self) -> int:
        return int(self.kernel.shape[0])

    @property
    def units(self) -> int:
        return int(self.recurrent_kernel.shape[0])

    outputs = units


@dataclass(frozen=True, eq=False)
class Dense:
    """One dense layer, the same for every row.  kernel: (features, outputs).  bias: (outputs,)."""

    name: str
    kernel: FloatArray
    bias: FloatArray

    def __post_init__(self) -> None:
        _checked(self, "dense", {"kernel": (None, _size(self.bias, 0)), "bias": (None,)})

    @property
    def features(self) -> int:
        return int(self.kernel.shape[0])

    @property
    def outputs(self) -> int:
        return int(self.kernel.shape[1])


@dataclass(frozen=True, eq=False)
class Conv1d:
    """One causal convolution over time, stride 1: row t sees rows t - (size - 1) * dilation .. t.

    kernel: (size, features, outputs), its last slice for row t.  bias: (outputs,).  Before the first row all
    are 0.
    """

    name: str
    kernel: FloatArray
    bias: FloatArray
    dilation: int = 1

    def __post_init__(self) -> None:
        if self.dilation < 1:
            raise ModelError(f"conv1d '{self.name}': dilation is {self.dilation}, expected 1 or more")
        _checked(self, "conv1d", {"kernel": (None, None, _size(self.bias, 0)), "bias": (None,)})

    @property
    def size(self) -> int:
        return int(self.kernel.shape[0])

    @property
    def features(self) -> int:
        return int(self.kernel.shape[1])

    @property
    def outputs(self) -> int:
        return int(self.kernel.shape[2])


@dataclass(frozen=True)
class Activation:
    """An element-wise function of every value."""

    name: str
    function: Function


@dataclass(frozen=True)
class Softmax:
    """exp(x) / sum(exp(x)), the sum over the features of a row or over the rows of a window."""

    name: str
    axis: str = "features"

    def __post_init__(self) -> None:
        if self.axis not in SOFTMAX_AXES:
            raise ModelError(f"softmax '{self.name}': axis '{self.axis}', expected one of {SOFTMAX_AXES}")


@dataclass(frozen=True)
class Merge:
    """Join two or more values: concat (over features), sum, mean or mul.

    For sum, mean and mul a value with one row is repeated for every row, and one with one feature for every
    feature.
    """

    name: str
    mode: str

    def __post_init__(self) -> None:
        if self.mode not in MERGES:
            raise ModelError(f"merge '{self.name}': mode '{self.mode}', expected one of {MERGES}")


@dataclass(frozen=True)
class Row:
    """One row of a window as a vector: 0 is the first, -1 the last."""

    name: str
    index: int = -1

    def __post_init__(self) -> None:
        if self.index not in (0, -1):
            raise ModelError(f"row '{self.name}': index {self.index}, expected 0 or -1")


@dataclass(frozen=True)
class Repeat:
    """A vector as every row of a window."""

    name: str


@dataclass(frozen=True)
class Attend:
    """The rows of a window summed with weights.  Sources: weights (window, 1), values (window, features)."""

    name: str


Layer = Lstm | Gru | Rnn | Dense | Conv1d | Activation | Softmax | Merge | Row | Repeat | Attend
Recurrent = (Lstm, Gru, Rnn)
