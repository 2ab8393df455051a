"""Graph + calibration stream -> QGraph: our own post-training quantizer.  Spec: NUMERICS.md, 8.

Reads network inputs; decides every scale; refuses a network whose integers could overflow.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import numpy.typing as npt

from edge_lstm.errors import ConfigError, DataError, ModelError, raise_all
from edge_lstm.fixedpoint import quantize_multiplier
from edge_lstm.graph import Dense, FloatArray, Graph, Lstm
from edge_lstm.lower import lower
from edge_lstm.qgraph import CELL_POWERS, PROFILES, QDense, QGraph, QLayer, QLstm, Quantization
from edge_lstm.reference import floating

RANGES = ("minmax", "percentile", "mse")
PORTABLE_BITS = 12  # significand of a portable scale: products of two are exact in float32
MSE_STEPS = 40  # shrink factors tried by the MSE range: 1, 0.98, ... 0.22


@dataclass(frozen=True)
class QuantizeConfig:
    """Options of the quantizer; names as on the command line.

    profile: numerics profile of the written file: tflm, litert or tflite.
    ranges: how activation ranges are taken from the calibration stream: minmax, percentile or mse (the
    range of least squared error).
    percentile: share of the values, in per cent, that the range of ``percentile`` keeps.
    input_margin: share of the input range added on both sides, so that faults do not saturate at once.
    cell_headroom: bits that the cell range keeps free above what calibration saw.
    portable: scales that give every runtime the same multipliers (NUMERICS.md, 8.3).
    """

    profile: str = "tflm"
    ranges: str = "mse"
    percentile: float = 99.99
    input_margin: float = 0.15
    cell_headroom: int = 1
    portable: bool = True

    def __post_init__(self) -> None:
        problems = []
        if self.profile not in PROFILES:
            problems.append(f"profile is '{self.profile}', expected one of {', '.join(PROFILES)}")
        if self.ranges not in RANGES:
            problems.append(f"ranges is '{self.ranges}', expected one of {', '.join(RANGES)}")
        if not 50 < self.percentile <= 100:
            problems.append(f"percentile is {self.percentile}, expected above 50 and at most 100")
        if not 0 <= self.input_margin <= 10:
            problems.append(f"input_margin is {self.input_margin}, expected 0 .. 10")
        if not 0 <= self.cell_headroom <= 6:
            problems.append(f"cell_headroom is {self.cell_headroom}, expected 0 .. 6")
        raise_all(ConfigError, "quantize", problems)


@cache
def _hidden_significands() -> tuple[int, ...]:
    """12-bit significands whose reciprocal gives the same multiplier in float32 and in float64."""
    low = 1 << (PORTABLE_BITS - 1)
    return tuple(
        significand
        for significand in range(low, 2 * low)
        if quantize_multiplier(float(np.float32(2.0**-10) / np.float32(significand)))
        == quantize_multiplier(2.0**-10 / significand)
    )


def portable_scale(scale: float) -> float:
    """The next 12-bit significand at or above ``scale``: products of two such are exact in float32."""
    significand, exponent = math.frexp(scale)
    return math.ldexp(math.ceil(significand * (1 << PORTABLE_BITS)), exponent - PORTABLE_BITS)


def portable_hidden_scale(scale: float) -> float:
    """The next scale at or above ``scale`` whose hidden multiplier is the same in every runtime.

    It grows by 3.7 % on average and by 13 % at most.
    """
    significand, exponent = math.frexp(portable_scale(scale))
    wanted = int(significand * (1 << PORTABLE_BITS))
    for candidate in _hidden_significands():
        if candidate >= wanted:
            return math.ldexp(candidate, exponent - PORTABLE_BITS)
    return math.ldexp(_hidden_significands()[0], exponent + 1 - PORTABLE_BITS)


def _affine_error(values: FloatArray, low: float, high: float) -> float:
    """Mean squared error of int8 codes over the range low .. high."""
    scale = (high - low) / 255.0
    codes = np.clip(np.rint((values - low) / scale), 0, 255)
    return float(np.mean((codes * scale + low - values) ** 2))


def find_range(values: FloatArray, config: QuantizeConfig) -> tuple[float, float]:
    """Return ``(low, high)`` of a tensor under ``config.ranges``; 0 always lies inside."""
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    if low == high:
        return 0.0, 1.0  # an all-zero tensor: any scale holds it
    if config.ranges == "percentile":
        tail = (100.0 - config.percentile) / 2
        return min(float(np.percentile(values, tail)), 0.0), max(
            float(np.percentile(values, 100 - tail)), 0.0
        )
    if config.ranges == "mse":
        sample = values.ravel()[:: max(1, values.size // 50_000)]
        shrink = 1.0 - 0.02 * np.arange(MSE_STEPS)
        errors = [_affine_error(sample, low * s, high * s) for s in shrink]
        best = float(shrink[int(np.argmin(errors))])
        return low * best, high * best
    return low, high


def affine(low: float, high: float, widen: Callable[[float], float]) -> Quantization:
    """int8 scale and zero point of a range that holds 0; ``widen`` may only enlarge the scale."""
    scale = float(np.float32(widen((high - low) / 255.0)))
    return Quantization(scale, int(np.clip(round(-128 - low / scale), -128, 127)))


def quantize_weights(weights: FloatArray, portable: bool) -> tuple[npt.NDArray[np.int8], np.float32]:
    """Symmetric int8 codes in -127 .. 127 and their scale; an all-zero tensor gets scale 1."""
    largest = float(np.abs(weights).max())
    scale = largest / 127.0 if largest else 1.0
    rounded = np.float32(portable_scale(scale) if portable else scale)
    codes = np.clip(np.rint(weights.astype(np.float64) / float(rounded)), -127, 127)
    return codes.astype(np.int8), rounded


def _quantize_bias(where: str, bias: FloatArray, scales: FloatArray) -> npt.NDArray[np.int32]:
    codes = np.rint(bias.astype(np.float64) / scales)
    if np.abs(codes).max() >= 2**31:
        raise ModelError(
            f"{where}: a bias of {float(np.abs(bias).max()):g} does not fit 32 bits at scale "
            f"{float(scales.min()):g}; check the input's range and the training"
        )
    return codes.astype(np.int32)


def cell_power(largest: float, headroom: int) -> int:
    """log2 of the cell scale for a cell state up to ``largest``; both profiles need -15 .. -9."""
    bits = math.ceil(math.log2(largest)) if largest > 0 else 0
    return int(np.clip(bits + headroom - 15, CELL_POWERS.start, CELL_POWERS.stop - 1))


def _quantize_lstm(
    layer: Lstm, signals: floating.Signals, source: Quantization, config: QuantizeConfig
) -> QLstm:
    """Codes and scales of one LSTM layer.  Keras columns are four blocks of units; ours are rows."""
    units = layer.units
    kernels = layer.kernel.reshape(layer.features, 4, units).transpose(1, 2, 0)
    recurrent = layer.recurrent_kernel.reshape(units, 4, units).transpose(1, 2, 0)
    kernel_codes = [quantize_weights(gate, config.portable) for gate in kernels]
    recurrent_codes = [quantize_weights(gate, config.portable) for gate in recurrent]
    kernel_scales = np.array([scale for _, scale in kernel_codes])
    bias = layer.bias.reshape(4, units)
    bias_scales = (kernel_scales.astype(np.float64) * source.scale)[:, None]
    largest_cell = float(np.abs(signals.cell).max()) if signals.cell is not None else 0.0
    hidden = find_range(signals.output, config)
    return QLstm(
        name=layer.name,
        kernel=np.stack([codes for codes, _ in kernel_codes]),
        recurrent_kernel=np.stack([codes for codes, _ in recurrent_codes]),
        bias=_quantize_bias(f"lstm '{layer.name}'", bias, bias_scales),
        kernel_scales=kernel_scales,
        recurrent_scales=np.array([scale for _, scale in recurrent_codes]),
        input=source,
        hidden=affine(*hidden, portable_hidden_scale if config.portable else float),
        cell_power=cell_power(largest_cell, config.cell_headroom),
        cell_clip=layer.cell_clip,
    )


def _quantize_dense(
    layer: Dense, signals: floating.Signals, source: Quantization, config: QuantizeConfig
) -> QDense:
    codes, scale = quantize_weights(layer.kernel.T, config.portable)
    bias_scale = np.array(float(scale) * source.scale)
    output = affine(*find_range(signals.output, config), portable_scale if config.portable else float)
    bias = _quantize_bias(f"dense '{layer.name}'", layer.bias, bias_scale)
    return QDense(layer.name, codes, bias, np.array([scale]), source, output)


def _input_quantization(x: FloatArray, config: QuantizeConfig) -> Quantization:
    low, high = find_range(x, config)
    margin = config.input_margin * (high - low)
    return affine(low - margin, high + margin, portable_scale if config.portable else float)


def quantize(graph: Graph, x: FloatArray, config: QuantizeConfig | None = None) -> QGraph:
    """Quantize ``graph`` for streaming, calibrated on one long stream.

    x: network inputs (steps, features), in time order, without NaN.  Raises ModelError where an integer
    could overflow: nothing is returned that could not run.
    """
    config = config or QuantizeConfig()
    x = np.asarray(x, dtype=np.float64)
    if x.ndim != 2 or x.shape[1] != graph.features or len(x) < 2:
        raise DataError(
            f"calibration: the stream is {x.shape}, expected (steps, {graph.features}) with 2 steps or more"
        )
    if not np.isfinite(x).all():
        raise DataError("calibration: the stream holds NaN or infinity; hold or drop those rows first")
    signals, _ = floating.run_signals(graph, x[None])
    source = _input_quantization(x, config)
    layers: list[QLayer] = []
    for layer, signal in zip(graph.layers, signals, strict=True):
        layers.append(
            _quantize_lstm(layer, signal, source, config)
            if isinstance(layer, Lstm)
            else _quantize_dense(layer, signal, source, config)
        )
        source = layers[-1].output
    qgraph = QGraph(graph.name, tuple(layers), graph.stream, config.profile, made=graph.made)
    for profile in PROFILES:  # both: the file can be run under either
        lower(replace(qgraph, profile=profile))
    return qgraph
