"""Fused LSTMs -> the integers of one numerics profile.  Spec: NUMERICS.md, 5, 12 and 13.

Reads a QLstm or a QNativeLstm; writes its program and names every sum that could overflow.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from edge_lstm.arrays import frozen
from edge_lstm.fixedpoint import IntArray, quantize_multiplier, requantize, scale_wide, short_multiplier
from edge_lstm.lstm_operators import QLstm, QNativeLstm, Variant
from edge_lstm.program import (
    GATES,
    LstmProgram,
    NativeLstmProgram,
    Normalization,
    Peephole,
    Projection,
    Requantizer,
    VariantProgram,
)

Q3_12 = np.float32(2.0**-12)  # scale of a gate's sum
TABLE_PLACES = 12288.0  # of a native gate's sum in 1: its table has 24, interpolated 512-fold
PEEPHOLE_GATES = (0, 1, 3)  # i, f, o
PEEPHOLE_BLOCK = 16  # cells that LiteRT's vector code takes at once
LEAST_VARIANCE = np.float32(10_000)  # times the scale of a normalization's weights


@np.errstate(over="ignore")  # absurd scales of a foreign file become infinite, and are refused
def lower_lstm(layer: QLstm, profile: str) -> LstmProgram:
    """All integers of a fused LSTM."""
    variant, hidden = layer.variant, layer.hidden
    inner = hidden if profile == "tflm" or layer.inner is None else layer.inner
    normalized = variant is not None and variant.normalization is not None
    kernel_sums = layer.kernel.astype(np.int64).sum(axis=2)
    recurrent_sums = layer.recurrent_kernel.astype(np.int64).sum(axis=2)
    return LstmProgram(
        name=layer.name,
        kernel=layer.kernel,
        recurrent_kernel=layer.recurrent_kernel,
        input_bias=frozen((0 if normalized else layer.bias) - layer.input.zero_point * kernel_sums, np.int64),
        recurrent_bias=frozen(-hidden.zero_point * recurrent_sums, np.int64),
        input_requantizer=_gates(layer, layer.kernel_scales, layer.input.scale, profile),
        recurrent_requantizer=_gates(layer, layer.recurrent_scales, hidden.scale, profile),
        hidden_requantizer=Requantizer.of([_hidden_scale(inner.scale, profile)]),
        # LiteRT adds the zero point with the other sign where a projection follows, and takes it out again
        inner_zero_point=inner.zero_point if _projection(variant) is None else -inner.zero_point,
        hidden_zero_point=hidden.zero_point,
        cell_power=layer.cell_power,
        cell_clip=int(min(layer.cell_clip / 2.0**layer.cell_power, 32767.0)),
        backwards=layer.backwards,
        bits=layer.input.bits,
        variant=None if variant is None else _lower_variant(layer, variant, profile),
    )


def _gates(layer: QLstm, weights: Iterable[np.float32], activation: float, profile: str) -> Requantizer:
    """From the accumulators to the gates' scale.  LiteRT and TFLite multiply in float32, TFLM in float64."""
    if profile == "tflm":
        split = short_multiplier if layer.input.bits == 16 else quantize_multiplier
        return Requantizer.of([float(weight) * activation * 4096.0 for weight in weights], split)
    products = [np.float32(weight * np.float32(activation)) for weight in weights]
    return Requantizer.of(
        [float(product / gate) for product, gate in zip(products, _gate_scales(layer), strict=True)]
    )


def _gate_scales(layer: QLstm) -> npt.NDArray[np.float32]:
    """Of the gates' sums: what is normalized has scales of its own."""
    if layer.variant is None or layer.variant.gate_scales is None:
        return np.full(4, Q3_12)
    return layer.variant.gate_scales


def _hidden_scale(inner: float, profile: str) -> float:
    """Scale of the Q0.30 product o * tanh(c) in inner codes."""
    return 2.0**-30 / inner if profile == "tflm" else float(np.float32(2.0**-30) / np.float32(inner))


def _projection(variant: Variant | None) -> npt.NDArray[np.int8] | None:
    return None if variant is None else variant.projection


def _lower_variant(layer: QLstm, variant: Variant, profile: str) -> VariantProgram:
    return VariantProgram(
        variant.coupled,
        _lower_peephole(layer, variant, profile),
        _lower_normalization(layer, variant),
        _lower_projection(layer, variant),
    )


def _lower_peephole(layer: QLstm, variant: Variant, profile: str) -> Peephole | None:
    if variant.peephole is None or variant.peephole_scales is None:
        return None
    gates, cell = _gate_scales(layer)[list(PEEPHOLE_GATES)], 2.0**layer.cell_power
    return Peephole(
        variant.peephole,
        Requantizer.of(
            [
                float(np.float32(cell * float(scale) / float(gate)))
                for scale, gate in zip(variant.peephole_scales, gates, strict=True)
            ]
        ),
        layer.units // PEEPHOLE_BLOCK * PEEPHOLE_BLOCK if profile == "litert" else 0,
    )


def _lower_normalization(layer: QLstm, variant: Variant) -> Normalization | None:
    if variant.normalization is None or variant.normalization_scales is None:
        return None
    scales = variant.normalization_scales
    to_q3_12 = Requantizer.of(map(float, scales))
    return Normalization(
        variant.normalization,
        frozen(layer.bias, np.int64),
        Requantizer(to_q3_12.multiplier, frozen(to_q3_12.shift + 12, np.int64)),
        frozen(np.maximum(1, (LEAST_VARIANCE * np.minimum(scales, 1)).astype(np.int64)), np.int64),
    )


def _lower_projection(layer: QLstm, variant: Variant) -> Projection | None:
    if variant.projection is None:
        return None
    inner = layer.inner or layer.hidden
    bias = np.int64(0) if variant.projection_bias is None else variant.projection_bias.astype(np.int64)
    scale = np.float32(np.float32(variant.projection_scale) * np.float32(inner.scale))
    clip = np.float32(variant.projection_clip) / np.float32(layer.output.scale)
    return Projection(
        variant.projection,
        frozen(bias + inner.zero_point * variant.projection.astype(np.int64).sum(axis=1), np.int64),
        Requantizer.of([float(scale / np.float32(layer.hidden.scale))]),
        int(min(float(clip), 127.0)),
    )


def lower_native(layer: QNativeLstm) -> NativeLstmProgram:
    """All integers of a native LSTM.

    A multiplier's rounding moves an int32 accumulator by 1/4 at most: |acc| * 2**-33.
    """
    scales = layer.row_scales.astype(np.float64) * layer.hidden.scale * TABLE_PLACES
    acc_shift = max(int(np.frexp(scales.max())[1]) + 1, 0)  # multipliers stay below 2**31
    multiplier = np.floor(scales * 2.0 ** (32 - acc_shift) + 0.5)
    power = layer.hidden.power
    return NativeLstmProgram(
        layer.name, layer.kernel, layer.recurrent_kernel, frozen(layer.bias, np.int64),
        frozen(np.minimum(multiplier, 2**31 - 1), np.int64), acc_shift,
        30 + int(power if power is not None else 0), layer.cell_power,
        int(min(layer.cell_clip / 2.0**layer.cell_power, 32767.0)), layer.backwards, layer.storage,
    )  # fmt: skip


# --- overflow -------------------------------------------------------------------------------------


def largest_acc(bias: IntArray, kernel: npt.NDArray[np.int8], largest_code: int = 128) -> IntArray:
    """Bound of |bias + kernel @ codes| over all codes, one entry a row."""
    bound: IntArray = np.abs(bias) + largest_code * np.abs(kernel.astype(np.int64)).sum(axis=-1)
    return bound


def lstm_overflow(layer: LstmProgram) -> list[str]:
    """Every sum of a fused LSTM that could leave its bits."""
    problems = []
    for part, bias, kernel, requantizer in (
        ("input", layer.input_bias, layer.kernel, layer.input_requantizer),
        ("recurrent", layer.recurrent_bias, layer.recurrent_kernel, layer.recurrent_requantizer),
    ):
        bound = largest_acc(bias, kernel, 1 << (layer.bits - 1)).max(axis=1)
        if layer.bits == 8:
            bound = bound * 2.0 ** np.maximum(requantizer.shift, 0)  # exact: a significand of 33 bits
        for gate, largest, limit in zip(GATES, bound, _limits(layer, requantizer), strict=True):
            if largest >= limit:
                problems.append(
                    f"lstm '{layer.name}', gate {gate}: the {part} accumulator can reach {int(largest)} "
                    f"(limit {int(limit) - 1}); lower the weights or the bias, or quantize the input again"
                )
    if layer.hidden_requantizer.shift[0] > 0:
        problems.append(f"lstm '{layer.name}': the hidden scale is below 2**-31; the state is constant")
    return problems + ([] if layer.variant is None else _variant_overflow(layer, layer.variant))


def below_32_bits(shift: IntArray) -> IntArray:
    """What an accumulator must stay below, so that its left shift by ``shift`` fits 32 bits."""
    limit: IntArray = np.int64(1 << 31) >> np.clip(shift, 0, 32)
    return limit


def _limits(layer: LstmProgram, requantizer: Requantizer) -> IntArray:
    """What each gate's accumulator must stay below: 32 bits, or 48 whose scaled value has 32.

    One that is shifted right leaves a bit of its 32 for the rounding.
    """
    shift = requantizer.shift
    if layer.bits == 8:
        return np.where(shift > 0, 1 << 31, 1 << 30)
    scaled = 2.0 ** (45 - np.clip(shift, -31, 45)) / np.maximum(requantizer.multiplier, 1)
    return np.where(shift > 7, 0, np.minimum(scaled, 2.0**47)).astype(np.int64)


def _variant_overflow(layer: LstmProgram, variant: VariantProgram) -> list[str]:
    where, problems = f"lstm '{layer.name}'", []
    if variant.peephole is not None:
        largest = 32768 * np.abs(variant.peephole.weights.astype(np.int64)).max(axis=1)
        if (largest >= below_32_bits(variant.peephole.requantizer.shift)).any():
            problems.append(f"{where}: the term of its peephole weights can overflow; lower the weights")
    if variant.projection is not None:
        largest = largest_acc(variant.projection.bias, variant.projection.kernel)
        if (largest >= below_32_bits(variant.projection.requantizer.shift)).any():
            problems.append(f"{where}: the accumulator of its projection can overflow; lower the weights")
    if variant.normalization is not None:
        weights = np.abs(variant.normalization.weights.astype(np.int64)).max(axis=1)
        reach = 1024 * np.sqrt(layer.units - 1) * weights  # of values around their mean, by their deviation
        reach = np.ceil(reach) + np.abs(variant.normalization.bias).max(axis=1)
        limit = np.minimum(below_32_bits(variant.normalization.requantizer.shift) * 1024, 2**31)
        if (reach >= limit - 1024).any():
            problems.append(f"{where}: its layer normalization can overflow; lower its weights or biases")
    return problems


def native_overflow(layer: NativeLstmProgram) -> list[str]:
    """Every accumulator of a native LSTM that could leave 32 bits."""
    bound = largest_acc(layer.bias, np.concatenate([layer.kernel, layer.recurrent_kernel], axis=2), 32768)
    bad = bound >= below_32_bits(np.full(bound.shape, layer.acc_shift))
    return [
        f"lstm '{layer.name}', gate {GATES[gate]}, unit {unit}: the accumulator can overflow; lower the "
        "weights or the bias, or quantize the input again"
        for gate, unit in np.argwhere(bad).tolist()
    ]


def combine_headroom(layer: LstmProgram) -> float:
    """Largest |recurrent term| over all hidden codes, in units of the +-8 that Q3.12 can hold.

    At most 1: TFLM, CMSIS-NN and LiteRT add both terms of a gate alike (NUMERICS.md, 5).
    """
    if layer.variant is not None:
        return 0.0  # only LiteRT and tflite-runtime compute it
    top, zero_point, r = 1 << (layer.bits - 1), layer.hidden_zero_point, layer.recurrent_requantizer
    reach = max(top - 1 - zero_point, top + zero_point)
    weights = np.abs(layer.recurrent_kernel.astype(np.int64)).sum(axis=2).max(axis=1)
    scale = scale_wide if layer.bits == 16 else requantize
    return float(scale(weights * reach, r.multiplier, r.shift).max()) / 32767.0
