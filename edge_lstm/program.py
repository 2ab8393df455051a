"""A network as the integers of one numerics profile: what reference and C compute, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_lstm.arrays import frozen
from edge_lstm.detection.fixed import QDetector
from edge_lstm.fixedpoint import IntArray, quantize_multiplier
from edge_lstm.qgraph import (
    QAdd,
    QConcat,
    QConstant,
    QDelay,
    QLookup,
    QMul,
    QRelu,
    QRepeat,
    QReverse,
    QRow,
    QSlice,
    QSumRows,
    Quantization,
    QValue,
)

GATES = ("i", "f", "g", "o")


@dataclass(frozen=True, eq=False)
class Requantizer:
    """``real = multiplier * 2**(shift - 31)``, one entry a gate or a row; int64 arrays."""

    multiplier: IntArray
    shift: IntArray

    @staticmethod
    def of(
        reals: Iterable[float], split: Callable[[float], tuple[int, int]] = quantize_multiplier
    ) -> Requantizer:
        """One entry a real, split into its integers by ``split``; from 2**64 on any is refused anyway."""
        pairs = np.array([split(min(real, 2.0**64)) for real in reals], dtype=np.int64)
        return Requantizer(frozen(pairs[:, 0], np.int64), frozen(pairs[:, 1], np.int64))


@dataclass(frozen=True, eq=False)
class Peephole:
    """weights: int16 (3, units), of the gates i, f, o.  ties_up: the term of so many cells is rounded so."""

    weights: npt.NDArray[np.int16]
    requantizer: Requantizer
    ties_up: int


@dataclass(frozen=True, eq=False)
class Normalization:
    """weights: int16 (4, units).  bias: int32 (4, units).  least_variance: (4,), of a gate without any."""

    weights: npt.NDArray[np.int16]
    bias: IntArray
    requantizer: Requantizer
    least_variance: IntArray


@dataclass(frozen=True, eq=False)
class Projection:
    """kernel: int8 (outputs, units).  bias: int32 (outputs,).  clip: in codes around 0, 0 for none."""

    kernel: npt.NDArray[np.int8]
    bias: IntArray
    requantizer: Requantizer
    clip: int


@dataclass(frozen=True, eq=False)
class VariantProgram:
    """What an LSTM computes beyond the plain one, in the profiles ``litert`` and ``tflite``."""

    coupled: bool
    peephole: Peephole | None
    normalization: Normalization | None
    projection: Projection | None


@dataclass(frozen=True, eq=False)
class LstmProgram:
    """All integers of one LSTM layer.

    input_bias: int32 (4, units), bias with the input zero point folded in; int64 where ``bits`` is 16.
    recurrent_bias: int32 (4, units), the hidden zero point folded in.
    inner_zero_point: added to o * tanh(c), which is the hidden state unless there is a projection.
    hidden_zero_point: of the hidden state; its code after reset.
    cell_clip: in cell codes, 0 for none.  cell_power: log2 of the cell scale.  bits: of input and output;
    for 16 the requantizers of the gates are ``real = multiplier * 2**(shift - 15)`` with 15-bit multipliers.
    """

    name: str
    kernel: npt.NDArray[np.int8]
    recurrent_kernel: npt.NDArray[np.int8]
    input_bias: IntArray
    recurrent_bias: IntArray
    input_requantizer: Requantizer
    recurrent_requantizer: Requantizer
    hidden_requantizer: Requantizer
    inner_zero_point: int
    hidden_zero_point: int
    cell_power: int
    cell_clip: int
    backwards: bool = False
    bits: int = 8
    variant: VariantProgram | None = None

    @property
    def features(self) -> int:
        return int(self.kernel.shape[2])

    @property
    def units(self) -> int:
        return int(self.kernel.shape[1])

    @property
    def outputs(self) -> int:
        return int(self.recurrent_kernel.shape[2])


@dataclass(frozen=True, eq=False)
class NativeLstmProgram:
    """All integers of one LSTM layer of profile native.

    bias: int32 (4, units).  multiplier: 0 .. 2**31 - 1 (4, units); ``multiplier * 2**(acc_shift - 32)`` makes
    an accumulator 12288 times the gate's real sum.  acc_shift: 0, but for absurd scales.
    hidden_shift: from Q0.30 to the hidden codes.  storage: of the kernels, see operators.STORAGES.
    """

    name: str
    kernel: npt.NDArray[np.int8]
    recurrent_kernel: npt.NDArray[np.int8]
    bias: IntArray
    multiplier: IntArray
    acc_shift: int
    hidden_shift: int
    cell_power: int
    cell_clip: int
    backwards: bool = False
    storage: str = "int8"

    @property
    def features(self) -> int:
        return int(self.kernel.shape[2])

    @property
    def units(self) -> int:
        return int(self.kernel.shape[1])

    outputs = units


@dataclass(frozen=True, eq=False)
class DenseProgram:
    """All integers of one dense layer; bias: int32, or int64 for 16 bits (outputs,), zero point folded in.

    requantizer: for 8 bits in profile `litert` its multiplier is a 24-bit significand and its shift the
    exponent; for 16 bits ``real = multiplier * 2**(shift - 15)`` with a multiplier of 15 bits.
    minimum: of the output codes.  storage: of the kernel, see operators.STORAGES.
    """

    name: str
    kernel: npt.NDArray[np.int8]
    bias: IntArray
    requantizer: Requantizer
    output_zero_point: int
    minimum: int
    bits: int = 8
    storage: str = "int8"

    @property
    def features(self) -> int:
        return int(self.kernel.shape[1])

    @property
    def outputs(self) -> int:
        return int(self.kernel.shape[0])


@dataclass(frozen=True, eq=False)
class RecodeProgram:
    """Codes of ``bits`` bits from other codes."""

    name: str
    requantizer: Requantizer
    input_zero_point: int
    output_zero_point: int
    input_bits: int
    bits: int


@dataclass(frozen=True, eq=False)
class SoftmaxProgram:
    """All integers of one softmax, by the functions of ``softmax.py``.

    8 bits in profiles ``tflm`` and ``native``: requantizer and lowest of ``fixed_scale``, no tables; in the
    others: tables are the (significands, exponents) of ``float_table``, no requantizer.
    16 bits: requantizer of ``table_scale``, tables of ``softmax_tables``.
    """

    name: str
    axis: str
    bits: int
    requantizer: Requantizer
    lowest: int
    tables: tuple[IntArray, ...]


@dataclass(frozen=True, eq=False)
class StateProgram:
    """What a scan keeps: ``width`` codes of ``bits`` bits that begin as ``initial``."""

    name: str
    width: int
    bits: int
    initial: int


@dataclass(frozen=True, eq=False)
class ScanProgram:
    """A recurrence; see QScan."""

    name: str
    body: tuple[Any, ...]
    sources: tuple[tuple[int, ...], ...]
    values: tuple[QValue, ...]
    states: tuple[StateProgram, ...]
    next: tuple[int, ...]
    result: int
    backwards: bool
    features: int
    bits: int


# operators whose integers are the same in every profile are their own programs
Step = (
    LstmProgram | NativeLstmProgram | DenseProgram | RecodeProgram | ScanProgram | QAdd | QMul | QLookup
    | QRelu | SoftmaxProgram | QConcat | QSlice | QRow | QReverse | QRepeat | QSumRows | QDelay | QConstant
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Program:
    """A network as integers of one profile; what every exact executor computes.

    layers[i] reads the values of sources[i] (-1: the network's codes) and writes values[i].
    """

    name: str
    profile: str
    layers: tuple[Step, ...]
    sources: tuple[tuple[int, ...], ...]
    values: tuple[QValue, ...]
    input: Quantization
    features: int
    timesteps: int
    window: int
    last_only: bool
    detector: QDetector | None

    @property
    def input_zero_point(self) -> int:
        return self.input.zero_point

    @property
    def outputs(self) -> int:
        return self.values[-1].width

    @property
    def output(self) -> Quantization:
        return self.values[-1].quantization

    @property
    def rows(self) -> int:
        """Rows that one window gives, 1 for a streaming network."""
        return self.window if self.window and self.values[-1].sequence else 1
