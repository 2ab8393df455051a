"""The scales and codes of the fused LSTM operator.  Spec: NUMERICS.md, 8, 12 and 13."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edge_lstm.arrays import FloatArray
from edge_lstm.errors import ModelError
from edge_lstm.layer_types import Lstm
from edge_lstm.lstm_operators import QLstm, Variant
from edge_lstm.operators import Q15, Quantization
from edge_lstm.reference.floating import Signals
from edge_lstm.scales import (
    QuantizeConfig,
    affine,
    cell_power,
    find_range,
    portable_hidden_scale,
    quantize_bias,
    quantize_weights,
)

DESKTOP = ("litert", "tflite")  # the profiles that compute variants
NORMAL_BIAS = 2.0**-10  # of a normalization's scale
VARIANCE_BITS = 20  # of the reciprocal of the units, with which LiteRT forms the variance
LARGEST_VARIANCE_ERROR = 0.05  # relative, in the mean; a normalized value has half of it


def variant_parts(layer: Lstm) -> tuple[str, ...]:
    """What only the fused operator's variants compute, in words."""
    found = (
        ("coupled gates (CIFG)", layer.coupled),
        ("peephole weights", layer.peephole is not None),
        ("a projection", layer.projection is not None),
        ("layer normalization", layer.normalization is not None),
    )
    return tuple(words for words, present in found if present)


def fused_problems(where: str, layer: Lstm, config: QuantizeConfig, plain: bool) -> list[str]:
    """Why no runtime of the profile computes ``layer`` as one fused operator.

    plain: its activations are sigmoid and tanh, which the operator has.
    """
    parts, problems = " and ".join(variant_parts(layer)), []
    if plain and config.scheme == "int16x8" and config.profile in DESKTOP:
        problems.append(
            f"{where}: of the runtimes only TensorFlow Lite Micro computes an LSTM in 16 bits; quantize with "
            f"--profile tflm, or with --scheme int8 for profile {config.profile}"
        )
    if parts and config.profile not in DESKTOP:
        problems.append(
            f"{where}: it has {parts}, which profile {config.profile} does not compute; quantize with "
            "--profile litert (or tflite), or train without"
        )
    if parts and config.scheme == "int16x8":
        problems.append(f"{where}: no runtime computes {parts} in 16 bits; quantize with --scheme int8")
    if parts and not plain:
        problems.append(f"{where}: it has {parts} beside other activations than sigmoid and tanh")
    if layer.peephole is not None and layer.outputs != layer.units:
        problems.append(
            f"{where}: it has peephole weights of {layer.units} units and {layer.outputs} outputs, but "
            "LiteRT reads as many of them as outputs; train with as many, or without one of the two"
        )
    return problems


def quantize_lstm(layer: Lstm, signals: Signals, source: Quantization, config: QuantizeConfig) -> QLstm:
    """TFLite's fused operator: one weight scale a gate."""
    where, inner, variant = f"lstm '{layer.name}'", _inner(layer, signals, config), None
    if variant_parts(layer):
        variant = _variant(where, layer, signals, inner)
    kernel, kernel_scales = _weights(layer, layer.kernel, config)
    recurrent, recurrent_scales = _weights(layer, layer.recurrent_kernel, config)
    steps = kernel_scales.astype(np.float64) * source.scale
    if variant is not None and variant.normalization_scales is not None:
        steps = variant.normalization_scales.astype(np.float64) * NORMAL_BIAS
    return QLstm(
        name=layer.name,
        kernel=kernel,
        recurrent_kernel=recurrent,
        bias=quantize_bias(where, _used(layer, layer.bias.reshape(4, -1)), steps[:, None], source.bits),
        kernel_scales=kernel_scales,
        recurrent_scales=recurrent_scales,
        input=source,
        hidden=Q15 if source.bits == 16 else _hidden(layer, signals, config),
        cell_power=cell_power(float(np.abs(signals.inner["cell"]).max()), config.cell_headroom),
        cell_clip=layer.cell_clip,
        backwards=layer.backwards,
        inner=inner,
        variant=variant,
    )


def _used(layer: Lstm, gates: FloatArray) -> FloatArray:
    """Rows of the gates (4 or 3, ...), zeros for gate i of a coupled layer, which has none."""
    if not layer.coupled:
        return gates
    return np.concatenate([np.zeros_like(gates[:1]), gates[1:]])


def _weights(
    layer: Lstm, weights: FloatArray, config: QuantizeConfig
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """A kernel as (4, units, columns), with a scale a gate: Keras' columns are four blocks of units."""
    gates = _used(layer, weights.reshape(-1, 4, layer.units).transpose(1, 2, 0))
    portable = config.portable and not variant_parts(layer)
    codes = [quantize_weights(gate, portable) for gate in gates]
    return np.stack([code for code, _ in codes]), np.array([scale for _, scale in codes])


def _symmetric(values: FloatArray, config: QuantizeConfig) -> Quantization:
    """int8 codes with zero point 0."""
    low, high = find_range(values, config)
    return Quantization(float(np.float32(max(-low, high) / 127.0)))


def _hidden(layer: Lstm, signals: Signals, config: QuantizeConfig) -> Quantization:
    if layer.projection_clip:  # LiteRT clips around code 0
        return _symmetric(signals.output, config)
    portable = config.portable and not variant_parts(layer)
    return affine(*find_range(signals.output, config), portable_hidden_scale if portable else float)


def _inner(layer: Lstm, signals: Signals, config: QuantizeConfig) -> Quantization | None:
    """Of what is projected; its zero point is 0, because LiteRT subtracts it where it should be added."""
    return None if layer.projection is None else _symmetric(signals.inner["unprojected"], config)


def _variant(where: str, layer: Lstm, signals: Signals, inner: Quantization | None) -> Variant:
    fields: dict[str, Any] = {"coupled": layer.coupled}
    if layer.peephole is not None:
        fields["peephole"], fields["peephole_scales"] = _coefficients(_used(layer, layer.peephole))
    if layer.normalization is not None:
        _check_variance(where, signals.inner["sums"][..., layer.coupled :, :])
        codes, scales = _coefficients(_used(layer, layer.normalization))
        largest = np.abs(_used(layer, np.moveaxis(signals.inner["sums"], -2, 0))).max(axis=(1, 2, 3))
        gates = np.where(largest > 0, largest, 1.0) / 32767.0
        fields |= {"normalization": codes, "normalization_scales": scales, "gate_scales": gates}
    if layer.projection is not None and inner is not None:
        fields["projection"], scale = quantize_weights(layer.projection.T, portable=False)
        fields |= {"projection_scale": float(scale), "projection_clip": layer.projection_clip}
        if layer.projection_bias is not None:
            step = np.array([float(scale) * inner.scale])
            fields["projection_bias"] = quantize_bias(where, layer.projection_bias, step, 8)
    return Variant(**fields)


def _coefficients(rows: FloatArray) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.float32]]:
    """int16 codes with a scale a row; a row of zeros has scale 1."""
    largest = np.abs(rows.astype(np.float64)).max(axis=1)
    scales = np.where(largest > 0, largest / 32767.0, 1.0).astype(np.float32)
    codes = np.clip(np.rint(rows / scales.astype(np.float64)[:, None]), -32767, 32767)
    return codes.astype(np.int16), scales


def _check_variance(where: str, sums: FloatArray) -> None:
    """Refuse gates whose mean is so far from 0 that LiteRT's variance loses them.

    sums: (streams, steps, gates, units).  Its reciprocal of the units has 20 bits: only where they divide
    2**20 is it exact, and elsewhere its error grows with the square of mean / deviation.
    """
    missing = (1 << VARIANCE_BITS) % sums.shape[-1] / (1 << VARIANCE_BITS)
    variance, square = sums.var(axis=-1), (sums**2).mean(axis=-1)
    error = float((missing * square / np.maximum(variance, 1e-12)).mean()) if sums.shape[-1] > 1 else 0.0
    if error > LARGEST_VARIANCE_ERROR:
        raise ModelError(
            f"{where}: the means of its gates are so far from 0 that LiteRT's layer normalization over "
            f"{sums.shape[-1]} units misses their variance by {error:.0%}; train with a power of two of units"
        )
