"""Fit a detector on the residuals of normal rows, and round it to the integers that the C runs.

Reads residuals and the rows known to be normal; writes a Detector and a QDetector.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edge_lstm.arrays import FloatArray
from edge_lstm.detection import fixed, floating
from edge_lstm.detection.fixed import INT32_MAX, QDetector
from edge_lstm.detection.floating import BoolArray, Detector
from edge_lstm.detection.thresholds import (
    KINDS,
    Threshold,
    pot_threshold,
    quantile_threshold,
    sigma_threshold,
)
from edge_lstm.errors import ConfigError, DataError, ModelError, raise_all
from edge_lstm.optional import require

WEIGHTINGS = ("spread", "mahalanobis")
MIN_ROWS = 50  # of normal residuals a channel, for its mean and spread
FLOOR = 1 / 128  # of a spread, network units: about half an int8 step of a signal within +-2
# Directions in which normal residuals hardly vary are not magnified more than 1 / sqrt(this):
# their variance is that of the int8 codes, not of the machine.
MIN_EIGENVALUE = 0.01
OUTLIER = 4.0  # spreads: rare jumps beyond say little about correlation, and would end the shrinkage at 1
PLACEHOLDER = Threshold("sigma", 0.0)


@dataclass(frozen=True)
class DetectorConfig:
    """How residuals become alarms.

    weighting: "spread" (inverse spread a channel) or "mahalanobis" (decorrelated as well).
    alpha: EWMA weight of the new residual, 0 .. 1; the detector rounds it to 1/256.
    threshold: "quantile" of the normal scores, "sigma" (mean + sigma deviations) or "pot" (streaming peaks
    over threshold).
    quantile: of the normal scores, for "quantile".
    sigma: standard deviations above the mean of the normal scores, for "sigma".
    risk: probability that a normal row exceeds the threshold, for "pot".
    tail: share of the normal scores that count as peaks, for "pot".
    rate: the mean of the peaks follows the stream over 2**rate of them, for "pot".
    debounce: rows in a row that start or end an alarm.  clear: an alarm ends below clear * threshold.
    warmup: rows after a reset without a score.  holdout: last part of the normal rows, which sets the
    threshold; the rows before it set the spreads.  0 uses all rows for both.
    """

    weighting: str = "mahalanobis"
    alpha: float = 0.2
    threshold: str = "pot"
    quantile: float = 0.999
    sigma: float = 10.0
    risk: float = 1e-4
    tail: float = 0.02
    rate: int = 8
    debounce: int = 2
    clear: float = 0.7
    warmup: int = 32
    holdout: float = 0.2

    def __post_init__(self) -> None:
        problems = []
        for name, choices in (("weighting", WEIGHTINGS), ("threshold", KINDS)):
            if getattr(self, name) not in choices:
                problems.append(f"{name} is '{getattr(self, name)}', expected one of {', '.join(choices)}")
        ranges: dict[str, tuple[float, float]] = {
            "alpha": (1 / 256, 1.0), "quantile": (0.5, 1.0), "sigma": (0.0, 1000.0), "risk": (1e-9, 0.5),
            "tail": (1e-3, 0.5), "clear": (1 / 256, 1.0), "holdout": (0.0, 0.9),
            "rate": (0, 20), "debounce": (1, 255), "warmup": (1, 65535),
        }  # fmt: skip
        for name, (low, high) in ranges.items():
            value, whole = getattr(self, name), isinstance(high, int)
            if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
                kind = "whole number" if whole else "number"
                problems.append(f"{name} is {value!r}, expected a {kind}")
            elif not low <= value <= high:
                problems.append(f"{name} is {value}, expected {low:.6g} .. {high:.6g}")
        if not problems and self.risk >= self.tail:
            problems.append(f"risk is {self.risk} and tail {self.tail}; the risk must be below the tail")
        raise_all(ConfigError, "detector options", problems)


class Codes(Protocol):
    """``real = scale * (code - zero_point)``; ``qgraph.Quantization`` is one."""

    @property
    def scale(self) -> float: ...

    @property
    def zero_point(self) -> int: ...


def fit_detector(
    x: FloatArray,
    forecast: FloatArray,
    present: BoolArray,
    normal: BoolArray,
    config: DetectorConfig,
    floor: float = FLOOR,
) -> Detector:
    """Fit a detector on a training stream of a forecaster.

    x, forecast, present: (steps, channels) as in ``floating.detect``.  normal: bool (steps,), the rows to
    learn from.  Fit the integer detector on decoded codes, so that it knows their rounding.
    floor: smallest spread, network units; a channel whose residual hardly varies would otherwise alarm
    at the flicker of one code.  Give half of the int8 step of inputs and outputs where it is known.
    Raises DataError where there are too few rows.
    """
    return fit_residuals(floating.residuals(x, forecast, present), present, normal, config, floor)


def fit_residuals(
    residual: FloatArray, present: BoolArray, normal: BoolArray, config: DetectorConfig, floor: float = FLOOR
) -> Detector:
    """Fit a detector on residuals (steps, channels) in network units; see ``fit_detector``."""
    rows = np.flatnonzero(present.any(axis=1))[config.warmup :]
    rows = rows[np.asarray(normal, dtype=bool)[rows]]
    first = len(rows) - round(len(rows) * config.holdout)  # of the rows that set the threshold
    early = rows[:first]
    if not np.isfinite(residual[rows][present[rows]]).all():
        raise DataError("detector: residuals hold NaN or infinity; the forecaster diverged, train it again")
    mean, spread = _moments(residual[early], present[early], floor)
    whitening = None
    if config.weighting == "mahalanobis":
        whitening = _whitening((residual[early] - mean) / spread, present[early])
    detector = Detector(
        mean, spread, whitening, round(config.alpha * 256) / 256, PLACEHOLDER,
        round(config.clear * 256) / 256, config.debounce, config.warmup,
    )  # fmt: skip
    score, _ = floating.score_rows(detector, residual[rows], present[rows])
    threshold = fit_threshold(score[first:] if config.holdout else score, config)
    most = detector.channels * floating.MAX_CHANNEL_SCORE
    if threshold.value >= most:
        raise DataError(
            f"threshold: {threshold.value:.4g}, but scores of {detector.channels} channels end at "
            f"{most:.4g}: it could never alarm; label the outliers in the normal rows, or use "
            'threshold = "quantile"'
        )
    return replace(detector, threshold=threshold)


def fit_threshold(score: FloatArray, config: DetectorConfig) -> Threshold:
    """The alarm threshold from normal scores (rows,) by the rule of ``config``."""
    if config.threshold == "quantile":
        return quantile_threshold(score, config.quantile)
    if config.threshold == "sigma":
        return sigma_threshold(score, config.sigma)
    return pot_threshold(score, config.risk, config.tail, config.rate)


def _moments(residual: FloatArray, present: BoolArray, floor: float) -> tuple[FloatArray, FloatArray]:
    """Mean and floored standard deviation of each channel's present residuals."""
    if not (math.isfinite(floor) and floor > 0):
        raise DataError(f"detector: the spread's floor is {floor}, expected a number above 0")
    count = present.sum(axis=0)
    problems = [
        f"channel {channel} has {rows} normal rows with a residual, expected {MIN_ROWS} or more"
        for channel, rows in enumerate(count)
        if rows < MIN_ROWS
    ]
    if problems:
        problems.append("give more normal training rows, or a smaller holdout or warm-up")
    raise_all(DataError, "detector", problems)
    mean = np.where(present, residual, 0.0).sum(axis=0) / count
    variance = np.where(present, (residual - mean) ** 2, 0.0).sum(axis=0) / count
    return mean, np.maximum(np.sqrt(variance), floor)


def _whitening(z: FloatArray, present: BoolArray) -> FloatArray:
    """Symmetric (ZCA) whitening of standardized residuals: component c stays closest to channel c.

    The covariance is shrunk by Ledoit and Wolf's rule, over rows with every channel.
    """
    complete = np.clip(z[present.all(axis=1)], -OUTLIER, OUTLIER)
    if len(complete) < max(MIN_ROWS, 2 * z.shape[1]):
        raise DataError(
            f"detector: {len(complete)} normal rows with every channel present, expected "
            f'{max(MIN_ROWS, 2 * z.shape[1])} or more; use weighting = "spread"'
        )
    covariance = (
        require("sklearn.covariance", "data").LedoitWolf(assume_centered=True).fit(complete).covariance_
    )
    # a floored spread leaves a variance below 1; the floor stands for independent rounding noise
    np.fill_diagonal(covariance, np.maximum(np.diag(covariance), 1.0))
    values, vectors = np.linalg.eigh(covariance)
    whitening: FloatArray = (vectors / np.sqrt(np.maximum(values, MIN_EIGENVALUE))) @ vectors.T
    return whitening


def quantize_detector(detector: Detector, input: Codes, output: Codes) -> QDetector:
    """Round a detector to the integers of ``fixed.py``.

    input, output: how the network's inputs and forecasts are coded.  Each weight keeps as many bits as
    32-bit sums allow.  Raises ModelError where a constant does not fit.
    """
    weights = np.stack([input.scale / detector.spread, output.scale / detector.spread])
    offset = detector.mean / detector.spread
    bound = 256 * weights.sum(axis=0) + np.abs(offset) + 1.0  # 256, 1: room for rounding the weights
    shift = min(20, math.floor(math.log2(INT32_MAX / bound.max())) - fixed.RESIDUAL_BITS)
    if shift < 0:
        channel = int(bound.argmax())
        raise ModelError(
            f"detector: channel {channel} has a spread of {detector.spread[channel]:.4g} around "
            f"{detector.mean[channel]:.4g}, too small for codes of {input.scale:.4g} in 32 bits; "
            "fit it with a larger floor"
        )
    scale = 2.0 ** (fixed.RESIDUAL_BITS + shift)
    whitening, whitening_shift = _quantize_whitening(detector.whitening)
    rule = detector.threshold
    unit = 2**fixed.SCORE_BITS
    return QDetector(
        input_zero_point=input.zero_point,
        output_zero_point=output.zero_point,
        input_weight=np.rint(weights[0] * scale).astype(np.int64),
        output_weight=np.rint(weights[1] * scale).astype(np.int64),
        offset=np.rint(offset * scale).astype(np.int64),
        shift=shift,
        whitening=whitening,
        whitening_shift=whitening_shift,
        alpha=round(detector.alpha * 256),
        base=_in_32_bits("base", rule.base * unit),
        excess=_in_32_bits("excess", rule.excess * unit),
        gain=round(rule.gain * 256),
        rate=rule.rate,
        clear=round(detector.clear * 256),
        debounce=detector.debounce,
        warmup=detector.warmup,
    )


def _in_32_bits(name: str, value: float) -> int:
    if value > INT32_MAX:
        raise ModelError(
            f"detector: the threshold's {name} is {value / 2**fixed.SCORE_BITS:.4g}, expected below "
            f"{2**17}; scores end at {floating.MAX_CHANNEL_SCORE:.0f} a channel"
        )
    return round(value)


def _quantize_whitening(whitening: FloatArray | None) -> tuple[npt.NDArray[np.int16] | None, int]:
    """Codes and shift with ``whitening = codes / 2**shift``: the largest shift that cannot overflow."""
    if whitening is None:
        return None, 0
    for shift in range(15, -1, -1):
        codes = np.rint(whitening * 2.0**shift)
        if np.abs(codes).max() <= 32767 and np.abs(codes).sum(axis=1).max() <= 65535:
            return codes.astype(np.int16), shift
    raise ModelError(
        f"detector: the whitening's largest entry is {np.abs(whitening).max():.4g}, its rows must sum below "
        '65536; use weighting = "spread"'
    )
