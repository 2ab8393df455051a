"""The integer operators of a QGraph, but for the LSTMs (``lstm_operators.py``): codes, scales, zero points.

A layer of the float network becomes one or several of them (``recipes``).  Every value between operators is
rows x width of int8 or int16 codes; 16-bit values have zero point 0 and a power-of-two scale wherever an
operator adds, multiplies or looks up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_lstm.arrays import FloatArray, frozen
from edge_lstm.errors import ModelError, raise_all

Int8Array = npt.NDArray[np.int8]
CodeArray = npt.NDArray[np.signedinteger[Any]]  # the codes of a value: int8, or int16 for 16 bits


@dataclass(frozen=True)
class Quantization:
    """``real = scale * (code - zero_point)``; scale is a float32, the code has ``bits`` bits."""

    scale: float
    zero_point: int = 0
    bits: int = 8

    def __post_init__(self) -> None:
        problems = []
        if not (np.isfinite(self.scale) and self.scale > 0 and float(np.float32(self.scale)) == self.scale):
            problems.append(f"scale {self.scale!r} is not a positive float32")
        if self.bits not in (8, 16):
            problems.append(f"codes of {self.bits} bits, expected 8 or 16")
        elif not self.low <= self.zero_point <= self.high:
            problems.append(f"zero point {self.zero_point} is not an int{self.bits}")
        raise_all(ModelError, "quantization", problems)

    @property
    def low(self) -> int:
        return -(1 << (self.bits - 1))

    @property
    def high(self) -> int:
        return (1 << (self.bits - 1)) - 1

    @property
    def dtype(self) -> npt.DTypeLike:
        return np.int8 if self.bits == 8 else np.int16

    @property
    def power(self) -> int | None:
        """log2 of the scale where it is a power of two, else None."""
        significand, exponent = math.frexp(self.scale)
        return exponent - 1 if significand == 0.5 else None

    def encode(self, real: FloatArray) -> CodeArray:
        """Round reals to codes of ``dtype``, saturating; NaN becomes the zero point."""
        rounded = np.rint(np.asarray(real, dtype=np.float64) / self.scale) + self.zero_point
        clipped = np.clip(np.nan_to_num(rounded, nan=self.zero_point), self.low, self.high)
        codes: CodeArray = clipped.astype(self.dtype)
        return codes

    def decode(self, codes: npt.ArrayLike) -> FloatArray:
        """Reals of codes, float64."""
        real: FloatArray = (np.asarray(codes, dtype=np.float64) - self.zero_point) * self.scale
        return real


# How profile native stores weights: a byte each, two to a byte, or only the blocks of four columns that are
# not 0, of each row of a dense layer and of all four gates of a unit.
STORAGES = ("int8", "int4", "blocks")


BLOCK = 4  # columns of a block


def nonzero_blocks(rows: Int8Array | npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Which blocks of four columns of each row hold a weight.  rows: (rows, columns)."""
    padded = np.pad(rows, ((0, 0), (0, -rows.shape[1] % BLOCK)))
    found: npt.NDArray[np.bool_] = np.asarray(padded.reshape(len(rows), -1, BLOCK).any(axis=2))
    return found


def shared_blocks(kernel: Int8Array) -> npt.NDArray[np.bool_]:
    """Which blocks of four columns of each unit hold a weight of any gate.  kernel: (4, units, columns)."""
    return nonzero_blocks(np.asarray(kernel.any(axis=0)))


def storage_problems(storage: str, *kernels: Int8Array) -> list[str]:
    """int4 weights must be codes of 4 bits."""
    if storage not in STORAGES:
        return [f"storage is '{storage}', expected one of {', '.join(STORAGES)}"]
    if storage == "int4" and any(np.abs(kernel.astype(np.int64)).max(initial=0) > 7 for kernel in kernels):
        return ["storage is 'int4', but a weight lies outside -7 .. 7"]
    return []


def wide(power: int) -> Quantization:
    """16-bit codes with the scale ``2**power``."""
    return Quantization(math.ldexp(1.0, power), 0, 16)


Q15 = wide(-15)  # what sigmoid and tanh write
# What they read.  At other scales than 2**-12 (and 2**-11 for tanh) every runtime interpolates in the same
# table, so that these operators have the same codes in every profile.
LOOKUP_INPUT = {"sigmoid": wide(-11), "tanh": wide(-13)}


def freeze(layer: Any, **dtypes: npt.DTypeLike) -> None:
    """Replace arrays of a frozen dataclass by read-only copies of a dtype."""
    for attribute, dtype in dtypes.items():
        if getattr(layer, attribute) is not None:
            object.__setattr__(layer, attribute, frozen(getattr(layer, attribute), dtype))


def scale_problems(name: str, scales: npt.NDArray[np.float32], lengths: tuple[int, ...]) -> list[str]:
    """Scales must be one of ``lengths`` many finite numbers above 0."""
    if scales.ndim != 1 or len(scales) not in lengths:
        return [f"{name} is {scales.shape}, expected one of {[(n,) for n in lengths]}"]
    if not (np.isfinite(scales).all() and (scales > 0).all()):
        return [f"{name} holds a scale that is not above 0"]
    return []


def wide_problems(**values: Quantization) -> list[str]:
    """16-bit operators read and write power-of-two scales."""
    return [
        f"{name} has scale {value.scale!r}, zero point {value.zero_point} and {value.bits} bits, expected a "
        "power of two, 0 and 16"
        for name, value in values.items()
        if value.bits != 16 or value.zero_point or value.power is None
    ]


@dataclass(frozen=True, eq=False)
class QDense:
    """One dense layer, the same for every row; input and output have 8 bits or both 16.

    kernel: int8 (outputs, features).  bias: int32, or int64 for 16 bits (outputs,), with the scale
    kernel_scales * input.scale.
    kernel_scales: float32 (1,) or, one a row, (outputs,).  relu: no output is below 0.
    storage: of the kernel in the C of profile native, one of STORAGES; others than int8 for 16 bits only.
    """

    name: str
    kernel: Int8Array
    bias: npt.NDArray[np.int32] | npt.NDArray[np.int64]
    kernel_scales: npt.NDArray[np.float32]
    input: Quantization
    output: Quantization
    relu: bool = False
    storage: str = "int8"

    def __post_init__(self) -> None:
        wide_bias = self.input.bits == 16
        freeze(self, kernel=np.int8, bias=np.int64 if wide_bias else np.int32, kernel_scales=np.float32)
        problems = []
        if self.kernel.ndim != 2 or self.kernel.size == 0:
            problems.append(f"kernel is {self.kernel.shape}, expected (outputs, features)")
        else:
            outputs = self.kernel.shape[0]
            if self.bias.shape != (outputs,):
                problems.append(f"bias is {self.bias.shape}, expected ({outputs},)")
            problems += scale_problems("kernel_scales", self.kernel_scales, (1, outputs))
        problems += storage_problems(self.storage, self.kernel)
        if self.storage != "int8" and not wide_bias:
            problems.append(f"storage is '{self.storage}' beside 8-bit codes, expected int8")
        if self.input.bits != self.output.bits:
            problems.append(
                f"it reads {self.input.bits} and writes {self.output.bits} bits, expected the same"
            )
        raise_all(ModelError, f"dense '{self.name}'", problems)

    @property
    def features(self) -> int:
        return int(self.kernel.shape[1])

    @property
    def outputs(self) -> int:
        return int(self.kernel.shape[0])


@dataclass(frozen=True)
class QRecode:
    """The same reals in other codes: another scale, zero point or number of bits."""

    name: str
    input: Quantization
    output: Quantization


@dataclass(frozen=True)
class QAdd:
    """left + right, or left - right, 16 bits; one row or one feature is repeated."""

    name: str
    left: Quantization
    right: Quantization
    output: Quantization
    subtract: bool = False

    def __post_init__(self) -> None:
        problems = wide_problems(left=self.left, right=self.right, output=self.output)
        raise_all(ModelError, f"add '{self.name}'", problems)


@dataclass(frozen=True)
class QMul:
    """left * right, 16 bits; one row or one feature is repeated."""

    name: str
    left: Quantization
    right: Quantization
    output: Quantization

    def __post_init__(self) -> None:
        problems = wide_problems(left=self.left, right=self.right, output=self.output)
        raise_all(ModelError, f"mul '{self.name}'", problems)


@dataclass(frozen=True)
class QLookup:
    """sigmoid of Q4.11 or tanh of Q2.13, in Q0.15."""

    name: str
    function: str

    def __post_init__(self) -> None:
        if self.function not in LOOKUP_INPUT:
            raise ModelError(f"lookup '{self.name}': {self.function}, expected sigmoid or tanh")

    @property
    def input(self) -> Quantization:
        return LOOKUP_INPUT[self.function]

    @property
    def output(self) -> Quantization:
        return Q15


@dataclass(frozen=True)
class QRelu:
    """x above 0, slope * x below; the quantization stays.  slope: Q0.15, 0 .. 32767, 0 for 8 bits."""

    name: str
    input: Quantization
    slope: int = 0

    @property
    def output(self) -> Quantization:
        return self.input

    def __post_init__(self) -> None:
        leaky = self.input.bits == 16 and self.input.zero_point == 0
        if not 0 <= self.slope <= 32767 or (self.slope and not leaky):
            raise ModelError(
                f"relu '{self.name}': slope {self.slope} on {self.input.bits} bits with zero point "
                f"{self.input.zero_point}, expected 0, or up to 32767 on 16 bits with zero point 0"
            )


@dataclass(frozen=True)
class QSoftmax:
    """Softmax over the features of a row, or over the rows of a window (axis "time", 16 bits)."""

    name: str
    input: Quantization
    output: Quantization
    axis: str = "features"

    def __post_init__(self) -> None:
        expected = Quantization(1 / 256, -128) if self.input.bits == 8 else Q15
        if self.output != expected or self.axis not in ("features", "time"):
            raise ModelError(
                f"softmax '{self.name}' writes {self.output} over {self.axis}, expected {expected}"
            )


@dataclass(frozen=True, eq=False)
class QConstant:
    """A vector that never changes.  codes: (width,)."""

    name: str
    codes: CodeArray
    output: Quantization

    def __post_init__(self) -> None:
        freeze(self, codes=self.output.dtype)
        if self.codes.ndim != 1 or not self.codes.size:
            raise ModelError(f"constant '{self.name}' is {self.codes.shape}, expected (width,)")

    @property
    def width(self) -> int:
        return int(self.codes.shape[0])


@dataclass(frozen=True)
class QState:
    """What a scan keeps from one row to the next.  initial: code, the same for every entry."""

    name: str
    width: int
    quantization: Quantization
    initial: int = 0

    def __post_init__(self) -> None:
        if self.width < 1 or not self.quantization.low <= self.initial <= self.quantization.high:
            raise ModelError(
                f"state '{self.name}': {self.width} codes that begin as {self.initial}, expected 1 or more "
                f"codes of {self.quantization.bits} bits"
            )


@dataclass(frozen=True, eq=False)
class QScan:
    """A recurrence: ``body`` runs once for every row.

    sources of the body: its own operators from 0; -1 is the row, -2, -3 ... are the states in order.
    next: for every state the body's operator that writes its next value.  result: the operator whose value is
    the row of the output.  backwards: from the last row of the window to the first.
    """

    name: str
    input: Quantization
    body: tuple[Any, ...]
    sources: tuple[tuple[int, ...], ...]
    states: tuple[QState, ...]
    next: tuple[int, ...]
    result: int
    backwards: bool = False

    @property
    def output(self) -> Quantization:
        found: Quantization = self.body[self.result].output
        return found


def renamed(operator: Any, name: str) -> Any:
    """The same operator under another name."""
    return replace(operator, name=name)
