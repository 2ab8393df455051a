"""Scales and weight codes: real ranges and arrays as integers.  Spec: NUMERICS.md, 8."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_lstm.arrays import FloatArray
from edge_lstm.errors import ConfigError, ModelError, raise_all
from edge_lstm.fixedpoint import quantize_multiplier
from edge_lstm.operators import BLOCK, nonzero_blocks, shared_blocks
from edge_lstm.qgraph import CELL_POWERS, PROFILES, Quantization

RANGES = ("minmax", "percentile", "mse")
SCHEMES = ("int8", "int16x8")
WEIGHTS = ("int8", "int4")
PORTABLE_BITS = 12  # significand of a portable scale: products of two are exact in float32
MSE_STEPS = 40  # shrink factors tried by the MSE range: 1, 0.98, ... 0.22
SHRINKS = 1.0 - 0.03 * np.arange(20)  # row scales that are tried, as shares of the one that clips nothing
WIDE_HEADROOM = 1.25  # of 16-bit ranges above what calibration saw
LOWEST_POWER = -20  # of 16-bit scales


@dataclass(frozen=True)
class QuantizeConfig:
    """Options of the quantizer; names as on the command line.

    profile: numerics profile of the written file: tflm, litert, tflite or native.
    scheme: int8 for int8 activations and weights, int16x8 for int16 activations and int8 weights.
    weights: int8, or int4 for 4-bit weights in profile native.
    ranges: how activation ranges are taken from the calibration stream: minmax, percentile or mse (the
    range of least squared error).
    percentile: share of the values, in per cent, that the range of ``percentile`` keeps.
    input_margin: share of the input range added on both sides, so that faults do not saturate at once.
    cell_headroom: bits that the cell range keeps free above what calibration saw.
    portable: scales that give every runtime the same multipliers (NUMERICS.md, 8.3).
    """

    profile: str = "tflm"
    scheme: str = "int8"
    weights: str = "int8"
    ranges: str = "mse"
    percentile: float = 99.99
    input_margin: float = 0.15
    cell_headroom: int = 1
    portable: bool = True

    def __post_init__(self) -> None:
        problems = [
            f"{name} is '{value}', expected one of {', '.join(known)}"
            for name, value, known in (
                ("profile", self.profile, PROFILES),
                ("scheme", self.scheme, SCHEMES),
                ("weights", self.weights, WEIGHTS),
                ("ranges", self.ranges, RANGES),
            )
            if value not in known
        ]
        if self.weights == "int4" and self.profile != "native":
            problems.append(f"weights is 'int4' in profile {self.profile}, expected profile native")
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


def quantize_rows(weights: FloatArray) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Symmetric int8 codes with a portable scale a row.  weights: (rows, columns)."""
    rows = [quantize_weights(row, portable=True) for row in weights]
    return np.stack([codes for codes, _ in rows]), np.array([scale for _, scale in rows], dtype=np.float32)


def best_rows(
    weights: FloatArray, importance: FloatArray, lowest: FloatArray, kind: str
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32], float]:
    """Codes (rows, columns) and a scale a row with the least expected squared error of the sums.

    importance: (columns,), mean square of what each column is multiplied with.  lowest: (rows,), the scales
    may not be below it.  kind: one of WEIGHTS.  Also returns that error.
    """
    limit = 7 if kind == "int4" else 127
    largest = np.abs(weights).max(axis=1)
    best_error = np.full(len(weights), np.inf)
    best_scale = np.ones(len(weights), dtype=np.float32)
    best_codes = np.zeros(weights.shape, dtype=np.int8)
    for shrink in SHRINKS:
        wanted = np.maximum(largest * shrink / limit, lowest)
        scale = np.array([portable_scale(value) for value in wanted])
        codes = np.clip(np.rint(weights / scale[:, None]), -limit, limit)
        error = (((codes * scale[:, None] - weights) ** 2) * importance).sum(axis=1)
        better = error < best_error
        best_error[better], best_scale[better] = error[better], scale[better]
        best_codes[better] = codes[better].astype(np.int8)
    return best_codes, best_scale, float(best_error.sum())


def compensated_codes(
    weights: FloatArray, scales: FloatArray, moments: FloatArray, kind: str
) -> npt.NDArray[np.int8]:
    """Codes (rows, columns) in which later columns make up for the rounding of earlier ones.

    scales: (rows,).  moments: (columns, columns), mean products of what the columns are multiplied with; sums
    over correlated values lose far less this way (Frantar et al., GPTQ, 2022).  A weight of 0 has code 0.
    """
    limit = 7 if kind == "int4" else 127
    damped = moments + np.eye(len(moments)) * (0.01 * float(np.trace(moments)) / len(moments) + 1e-12)
    factor = np.linalg.cholesky(np.linalg.inv(damped)).T
    left = np.array(weights, dtype=np.float64)
    codes = np.zeros(left.shape)
    for column in range(left.shape[1]):
        rounded = np.clip(np.rint(left[:, column] / scales), -limit, limit)
        codes[:, column] = rounded * (weights[:, column] != 0)
        error = (left[:, column] - codes[:, column] * scales) / factor[column, column]
        left[:, column + 1 :] -= np.outer(error, factor[column, column + 1 :])
    return codes.astype(np.int8)


def lowest_scales(bias: FloatArray, step: float) -> FloatArray:
    """Row scales under which a bias is a code of at most 27 bits; step: scale of the codes."""
    found: FloatArray = np.maximum(np.abs(np.asarray(bias, dtype=np.float64)) / (step * 2.0**26), 2.0**-24)
    return found


def dense_storage(rows: npt.NDArray[np.int8], config: QuantizeConfig) -> str:
    """How profile native stores a dense kernel (rows, columns): blocks only where they save a quarter."""
    stored = len(rows) + int(nonzero_blocks(rows).sum()) * (BLOCK + 1)
    return _storage(stored, rows.size, config)


def lstm_storage(kernels: Sequence[npt.NDArray[np.int8]], config: QuantizeConfig) -> str:
    """The same for kernels (4 gates, units, columns), whose blocks the gates of a unit share."""
    stored = sum(kernel.shape[1] + int(shared_blocks(kernel).sum()) * (4 * BLOCK + 1) for kernel in kernels)
    return _storage(stored, sum(kernel.size for kernel in kernels), config)


def _storage(stored: int, size: int, config: QuantizeConfig) -> str:
    if config.weights == "int4":
        return "int4"
    return "blocks" if stored < 0.75 * size else "int8"


def quantize_bias(where: str, bias: FloatArray, scales: FloatArray, bits: int) -> npt.NDArray[Any]:
    """Biases as codes with ``scales``: int32 beside 8-bit activations, int64 beside 16-bit ones."""
    codes = np.rint(np.asarray(bias, dtype=np.float64) / scales)
    limit = 31 if bits == 8 else 46
    if np.abs(codes).max() >= 2.0**limit:
        raise ModelError(
            f"{where}: a bias of {float(np.abs(bias).max()):g} does not fit {limit + 1} bits at scale "
            f"{float(np.min(scales)):g}; check the input's range and the training"
        )
    return codes.astype(np.int32 if bits == 8 else np.int64)


def cell_power(largest: float, headroom: int) -> int:
    """log2 of the cell scale for a cell state up to ``largest``; both profiles need -15 .. -9."""
    bits = math.ceil(math.log2(largest)) if largest > 0 else 0
    return int(np.clip(bits + headroom - 15, CELL_POWERS.start, CELL_POWERS.stop - 1))


def wide_power(values: FloatArray) -> int:
    """log2 of the 16-bit scale that holds ``values`` with some headroom."""
    largest = WIDE_HEADROOM * float(np.abs(values).max())
    power = math.ceil(math.log2(largest / 32767.0)) if largest > 0 else -15
    return max(power, LOWEST_POWER)
