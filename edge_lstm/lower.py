"""QGraph -> Program: the integers of one numerics profile; reference and C read nothing else.

Spec: NUMERICS.md, 5 and 6.  Refuses what could overflow.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_lstm.detection.fixed import QDetector
from edge_lstm.errors import ModelError, raise_all
from edge_lstm.fixedpoint import IntArray, float_scale, quantize_multiplier, requantize
from edge_lstm.graph import frozen
from edge_lstm.qgraph import QDense, QGraph, QLstm

GATES = ("i", "f", "g", "o")


@dataclass(frozen=True, eq=False)
class Requantizer:
    """``real = multiplier * 2**(shift - 31)``, one entry a gate or a row; int64 arrays."""

    multiplier: IntArray
    shift: IntArray


@dataclass(frozen=True, eq=False)
class LstmProgram:
    """All integers of one LSTM layer.

    input_bias: int32 (4, units), bias with the input zero point folded in.
    recurrent_bias: int32 (4, units), the hidden zero point folded in.
    cell_clip: in cell codes, 0 for none.  cell_power: log2 of the cell scale.
    """

    name: str
    kernel: npt.NDArray[np.int8]
    recurrent_kernel: npt.NDArray[np.int8]
    input_bias: IntArray
    recurrent_bias: IntArray
    input_requantizer: Requantizer
    recurrent_requantizer: Requantizer
    hidden_requantizer: Requantizer
    hidden_zero_point: int
    cell_power: int
    cell_clip: int

    @property
    def features(self) -> int:
        return int(self.kernel.shape[2])

    @property
    def units(self) -> int:
        return int(self.kernel.shape[1])


@dataclass(frozen=True, eq=False)
class DenseProgram:
    """All integers of one dense layer; bias: int32 (outputs,), the input zero point folded in.

    requantizer: in `litert` its multiplier is a 24-bit significand and its shift the exponent.
    """

    name: str
    kernel: npt.NDArray[np.int8]
    bias: IntArray
    requantizer: Requantizer
    output_zero_point: int

    @property
    def features(self) -> int:
        return int(self.kernel.shape[1])

    @property
    def outputs(self) -> int:
        return int(self.kernel.shape[0])


@dataclass(frozen=True, eq=False)
class Program:
    """A network as integers of one profile; what every exact executor computes."""

    name: str
    profile: str
    layers: tuple[LstmProgram | DenseProgram, ...]
    input_zero_point: int
    timesteps: int
    last_only: bool
    detector: QDetector | None

    @property
    def features(self) -> int:
        return self.layers[0].features

    @property
    def outputs(self) -> int:
        last = self.layers[-1]
        return last.units if isinstance(last, LstmProgram) else last.outputs


def lower(qgraph: QGraph) -> Program:
    """Compute the integers of ``qgraph`` under its profile; raise ModelError on any possible overflow."""
    layers: list[LstmProgram | DenseProgram] = []
    problems: list[str] = []
    for layer in qgraph.layers:
        lowered = (
            _lower_lstm(layer, qgraph.profile)
            if isinstance(layer, QLstm)
            else _lower_dense(layer, qgraph.profile)
        )
        layers.append(lowered)
        problems += overflow_problems(lowered, qgraph.profile)
    raise_all(ModelError, f"model '{qgraph.name}'", problems)
    return Program(
        qgraph.name, qgraph.profile, tuple(layers), qgraph.input.zero_point,
        qgraph.timesteps, qgraph.last_only, qgraph.detector,
    )  # fmt: skip


def _requantizer(reals: list[float]) -> Requantizer:
    pairs = np.array([quantize_multiplier(real) for real in reals], dtype=np.int64)
    return Requantizer(frozen(pairs[:, 0], np.int64), frozen(pairs[:, 1], np.int64))


def _gate_scale(weight: np.float32, activation: float, profile: str) -> float:
    """Scale of a gate's accumulator in Q3.12.  LiteRT and TFLite multiply in float32, TFLM in float64."""
    if profile != "tflm":
        return float(np.float32(weight * np.float32(activation)) * np.float32(4096))
    return float(weight) * activation * 4096.0


def _hidden_scale(layer: QLstm, profile: str) -> float:
    """Scale of the Q0.30 product o * tanh(c) in hidden codes."""
    if profile != "tflm":
        return float(np.float32(2.0**-30) / np.float32(layer.hidden.scale))
    return 2.0**-30 / layer.hidden.scale


def _lower_lstm(layer: QLstm, profile: str) -> LstmProgram:
    kernel_sums = layer.kernel.astype(np.int64).sum(axis=2)
    recurrent_sums = layer.recurrent_kernel.astype(np.int64).sum(axis=2)
    clip = np.float32(layer.cell_clip) / np.float32(2.0**layer.cell_power)
    return LstmProgram(
        name=layer.name,
        kernel=layer.kernel,
        recurrent_kernel=layer.recurrent_kernel,
        input_bias=frozen(layer.bias - layer.input.zero_point * kernel_sums, np.int64),
        recurrent_bias=frozen(-layer.hidden.zero_point * recurrent_sums, np.int64),
        input_requantizer=_requantizer(
            [_gate_scale(s, layer.input.scale, profile) for s in layer.kernel_scales]
        ),
        recurrent_requantizer=_requantizer(
            [_gate_scale(s, layer.hidden.scale, profile) for s in layer.recurrent_scales]
        ),
        hidden_requantizer=_requantizer([_hidden_scale(layer, profile)]),
        hidden_zero_point=layer.hidden.zero_point,
        cell_power=layer.cell_power,
        cell_clip=min(int(clip), 32767),
    )


def _lower_dense(layer: QDense, profile: str) -> DenseProgram:
    scales = np.broadcast_to(layer.kernel_scales, (layer.outputs,))
    if profile == "litert":
        input_scale, output_scale = np.float32(layer.input.scale), np.float32(layer.output.scale)
        pairs = np.array([float_scale(input_scale * s / output_scale) for s in scales], dtype=np.int64)
        requantizer = Requantizer(frozen(pairs[:, 0], np.int64), frozen(pairs[:, 1], np.int64))
    else:
        requantizer = _requantizer([_dense_scale(layer, s, profile) for s in scales])
    sums = layer.kernel.astype(np.int64).sum(axis=1)
    return DenseProgram(
        layer.name,
        layer.kernel,
        frozen(layer.bias - layer.input.zero_point * sums, np.int64),
        requantizer,
        layer.output.zero_point,
    )


def _dense_scale(layer: QDense, weight_scale: np.float32, profile: str) -> float:
    """TFLM (since 2026-10-14) multiplies in float64, TFLite in float32 for one scale a tensor."""
    product = layer.input.scale * float(weight_scale)
    if profile == "tflite" and len(layer.kernel_scales) == 1:
        product = float(np.float32(product))
    return product / layer.output.scale


def largest_acc(bias: IntArray, kernel: npt.NDArray[np.int8]) -> IntArray:
    """Bound of |bias + kernel @ codes| over all int8 codes, one entry a row."""
    bound: IntArray = np.abs(bias) + 128 * np.abs(kernel.astype(np.int64)).sum(axis=-1)
    return bound


def overflow_problems(layer: LstmProgram | DenseProgram, profile: str) -> list[str]:
    """Every accumulator that could leave 32 bits, before or after the requantizer's left shift."""
    if isinstance(layer, DenseProgram):
        bound = largest_acc(layer.bias, layer.kernel)
        if profile == "litert":
            shift = layer.requantizer.shift
            bad = (bound >= 2**31) | (shift > -16) | (shift < -62)  # LiteRT refuses scales from 256 up
        else:
            bad = bound << np.maximum(layer.requantizer.shift, 0) >= 2**31
        return [
            f"dense '{layer.name}', output {row}: the accumulator can overflow or its scale is out of range"
            for row in np.flatnonzero(bad)
        ]
    problems = []
    for part, bias, kernel, requantizer in (
        ("input", layer.input_bias, layer.kernel, layer.input_requantizer),
        ("recurrent", layer.recurrent_bias, layer.recurrent_kernel, layer.recurrent_requantizer),
    ):
        bound = largest_acc(bias, kernel).max(axis=1) << np.maximum(requantizer.shift, 0)
        for gate, largest in zip(GATES, bound, strict=True):
            if largest >= 2**31:
                problems.append(
                    f"lstm '{layer.name}', gate {gate}: the {part} accumulator can reach {int(largest)} "
                    "(limit 2**31 - 1); lower the weights or the bias, or quantize the input again"
                )
    if layer.hidden_requantizer.shift[0] > 0:
        problems.append(f"lstm '{layer.name}': the hidden scale is below 2**-31; the state is constant")
    return problems


def combine_headroom(layer: LstmProgram) -> float:
    """Largest |recurrent term| over all hidden codes, in units of the +-8 that Q3.12 can hold.

    At most 1: TFLM, CMSIS-NN and LiteRT add both terms of a gate alike (NUMERICS.md, 5).
    """
    zero_point = layer.hidden_zero_point
    reach = max(127 - zero_point, 128 + zero_point)
    weights = np.abs(layer.recurrent_kernel.astype(np.int64)).sum(axis=2).max(axis=1)
    r = layer.recurrent_requantizer
    return float(requantize(weights * reach, r.multiplier, r.shift).max()) / 32767.0
