"""The detector in real numbers: the twin of ``fixed.py``, which the C runs.

Reads network inputs and forecasts, or residuals; writes scores, alarms, thresholds.  Spec: NUMERICS.md, 7.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_lstm.arrays import FloatArray, frozen
from edge_lstm.detection import fixed
from edge_lstm.detection.thresholds import Threshold
from edge_lstm.errors import ModelError, raise_all

BoolArray = npt.NDArray[np.bool_]

RESIDUAL_UNIT = 2.0**-fixed.RESIDUAL_BITS
RESIDUAL_MIN, RESIDUAL_MAX = -32768 * RESIDUAL_UNIT, 32767 * RESIDUAL_UNIT  # where the integer twin saturates
MAX_CHANNEL_SCORE = RESIDUAL_MIN**2


@dataclass(frozen=True, eq=False)
class Detector:
    """Every constant of the real-valued detector.

    mean, spread: of the residuals of normal rows in network units, (channels,).
    whitening: (channels, channels) applied to standardized residuals, or None.
    alpha: EWMA weight of the new sample, 0 < alpha <= 1.  threshold: see ``thresholds.Threshold``.
    clear: an alarm ends below threshold * clear.  debounce: rows in a row that start or end an alarm.
    warmup: rows after a reset without a score, 1 or more.
    """

    mean: FloatArray
    spread: FloatArray
    whitening: FloatArray | None
    alpha: float
    threshold: Threshold
    clear: float
    debounce: int
    warmup: int

    def __post_init__(self) -> None:
        for attribute in ("mean", "spread", "whitening"):
            if getattr(self, attribute) is not None:
                object.__setattr__(self, attribute, frozen(getattr(self, attribute), np.float64))
        raise_all(ModelError, "detector", self._problems())

    @property
    def channels(self) -> int:
        return len(self.mean)

    def _problems(self) -> list[str]:
        problems = []
        channels = self.channels
        if not 1 <= channels <= fixed.MAX_CHANNELS or self.spread.shape != (channels,):
            problems.append(
                f"mean is {self.mean.shape} and spread {self.spread.shape}, expected one entry a channel "
                f"each, 1 .. {fixed.MAX_CHANNELS}"
            )
        if not (np.isfinite(self.mean).all() and np.isfinite(self.spread).all() and (self.spread > 0).all()):
            problems.append("mean must be finite and spread finite and above 0; fit it on finite residuals")
        if self.whitening is not None and (
            self.whitening.shape != (channels, channels) or not np.isfinite(self.whitening).all()
        ):
            problems.append(
                f"whitening is {self.whitening.shape}, expected {(channels, channels)}, all finite"
            )
        for name, low, high in (
            ("alpha", 1 / 256, 1), ("clear", 1 / 256, 1), ("debounce", 1, 255), ("warmup", 1, 65535),
        ):  # fmt: skip
            if not low <= getattr(self, name) <= high:
                problems.append(f"{name} is {getattr(self, name)}, expected {low} .. {high}")
        return problems


@dataclass(frozen=True, eq=False)
class FloatDetection:
    """Results of a stream: score, threshold float64 (steps,) in squared spreads, summed over channels;
    alarm uint8 (steps,); smoothed float64 (steps, channels) in spreads."""

    score: FloatArray
    alarm: npt.NDArray[np.uint8]
    threshold: FloatArray
    smoothed: FloatArray


def from_fixed(detection: fixed.Detection) -> FloatDetection:
    """The results of the integer detector in real units."""
    unit = 2.0**-fixed.SCORE_BITS
    return FloatDetection(
        detection.score * unit, detection.alarm, detection.threshold * unit, detection.smoothed * 2.0**-16
    )


def residuals(x: FloatArray, forecast: FloatArray, present: BoolArray) -> FloatArray:
    """Input minus the forecast made one row before, in network units; 0 where there is none.

    x, forecast, present: (steps, channels); ``forecast[t]`` is the network's output after row t.  A row
    without any channel is passed over, as on the device.
    """
    rows = np.flatnonzero(present.any(axis=1))
    result = np.zeros(np.shape(x))
    now, before = rows[1:], rows[:-1]
    result[now] = np.where(present[now], np.asarray(x)[now] - np.asarray(forecast)[before], 0.0)
    return result


def standardize(detector: Detector, residual: FloatArray, present: BoolArray) -> FloatArray:
    """Residuals (rows, channels) in spreads, saturated where the integer twin saturates; missing ones 0."""
    z = np.clip((residual - detector.mean) / detector.spread, RESIDUAL_MIN, RESIDUAL_MAX)
    z = np.where(present, z, 0.0)
    if detector.whitening is not None:
        z = np.clip(z @ detector.whitening.T, RESIDUAL_MIN, RESIDUAL_MAX)
    return z


def smooth(z: FloatArray, alpha: float, present: BoolArray) -> FloatArray:
    """EWMA of each column of ``z`` (rows, channels) from 0; a missing sample holds its channel."""
    weight = alpha * present
    moved = weight * z
    kept = 1.0 - weight
    smoothed = np.empty_like(moved)
    state = np.zeros(moved.shape[1])
    for t in range(len(moved)):
        state = kept[t] * state + moved[t]
        smoothed[t] = state
    return smoothed


def score_rows(detector: Detector, residual: FloatArray, present: BoolArray) -> tuple[FloatArray, FloatArray]:
    """Scores (rows,) and smoothed residuals (rows, channels) of consecutive rows that are all scored."""
    smoothed = smooth(standardize(detector, residual, present), detector.alpha, present)
    score: FloatArray = np.where(present, smoothed**2, 0.0).sum(axis=1)
    return score, smoothed


def alarms(detector: Detector, score: FloatArray) -> tuple[npt.NDArray[np.uint8], FloatArray]:
    """Alarm and threshold after each scored row: hysteresis, debounce, streaming mean excess."""
    rule = detector.threshold
    excess, run, alarm = rule.excess, 0, 0
    adapts, step = rule.gain > 0, 2.0**-rule.rate
    alarm_rows, limits = [], []
    for value in score.tolist():
        high = rule.base + rule.gain * excess
        crossed = value < high * detector.clear if alarm else value > high
        run = run + 1 if crossed else 0
        if adapts and not alarm and rule.base < value <= high:
            excess += (value - rule.base - excess) * step
        if run >= detector.debounce:
            run, alarm = 0, 1 - alarm
        alarm_rows.append(alarm)
        limits.append(rule.base + rule.gain * excess)
    return np.array(alarm_rows, dtype=np.uint8), np.array(limits, dtype=np.float64)


def scan(detector: Detector, residual: FloatArray, present: BoolArray) -> FloatDetection:
    """Run the detector from reset over residuals (steps, channels) in network units.

    present: bool (steps, channels).  A row without any channel changes nothing; the first ``warmup``
    other rows are not scored.
    """
    rows = np.flatnonzero(present.any(axis=1))[detector.warmup :]
    score, smoothed = score_rows(detector, residual[rows], present[rows])
    alarm, limit = alarms(detector, score)
    # held[t]: how many scored rows there are up to row t, 0 where the state is the one after reset
    held = np.searchsorted(rows, np.arange(len(residual)), side="right")
    start = detector.threshold.value
    return FloatDetection(
        np.append(0.0, score)[held],
        np.append(np.uint8(0), alarm)[held],
        np.append(start, limit)[held],
        np.vstack([np.zeros((1, detector.channels)), smoothed])[held],
    )


def detect(detector: Detector, x: FloatArray, forecast: FloatArray, present: BoolArray) -> FloatDetection:
    """Run the detector over a stream from reset; the real-valued ``fixed.detect``.

    x: network inputs (steps, channels), missing ones any value.  forecast: (steps, channels), the
    network's output after it has read row t.  present: bool (steps, channels).
    """
    return scan(detector, residuals(x, forecast, present), present)
