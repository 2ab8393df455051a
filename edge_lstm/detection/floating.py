"""The detector in real numbers: the twin of ``fixed.py``, which the C runs.

Reads network inputs and residuals; writes scores, alarms, thresholds.  Spec: NUMERICS.md, 7.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_lstm.arrays import BoolArray, FloatArray, frozen
from edge_lstm.detection import fixed
from edge_lstm.detection.thresholds import Threshold
from edge_lstm.errors import ModelError, raise_all
from edge_lstm.predictor import LinearPredictor

RESIDUAL_UNIT = 2.0**-fixed.RESIDUAL_BITS
RESIDUAL_MIN, RESIDUAL_MAX = -32768 * RESIDUAL_UNIT, 32767 * RESIDUAL_UNIT  # where the integer twin saturates
MAX_ROW_SCORE = 2 * RESIDUAL_MIN**2


@dataclass(frozen=True, eq=False)
class Detector:
    """Every constant of the real-valued detector.  R rows are scored: one a channel, with levels two.

    mean, spread: (R,), of normal rows in network units: of the residuals, then of the inputs themselves.
    level_limit: 0, or the spreads within which the second row of each channel is kept.
    whitening: (channels, channels) applied to standardized residuals, or None.
    alpha: EWMA weight of the new sample, 0 < alpha <= 1.
    smoothed_gain, energy_gain: weights of the squared EWMA and of the EWMA of squares, 0 .. 1.
    threshold: see ``thresholds.Threshold``.  clear: an alarm ends below threshold * clear.
    debounce: rows in a row that start or end an alarm.
    warmup: rows after a reset without a score, 1 or more.
    """

    mean: FloatArray
    spread: FloatArray
    level_limit: float
    whitening: FloatArray | None
    alpha: float
    smoothed_gain: float
    energy_gain: float
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
        return len(self.mean) // (2 if self.level_limit else 1)

    @property
    def rows(self) -> int:
        """Scored rows: one or two a channel."""
        return len(self.mean)

    def _problems(self) -> list[str]:
        problems = []
        channels = self.channels
        if not 1 <= channels <= fixed.MAX_CHANNELS or self.spread.shape != self.mean.shape:
            problems.append(
                f"mean is {self.mean.shape} and spread {self.spread.shape}, expected one entry a scored row "
                f"each, 1 .. {fixed.MAX_CHANNELS} channels"
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
            ("level_limit", 0, RESIDUAL_MAX), ("smoothed_gain", 0, 1), ("energy_gain", 0, 1),
        ):  # fmt: skip
            if not low <= getattr(self, name) <= high:
                problems.append(f"{name} is {getattr(self, name)}, expected {low} .. {high}")
        return problems


@dataclass(frozen=True, eq=False)
class FloatDetection:
    """Results of a stream: score, threshold float64 (steps,) in squared spreads, summed over channels;
    alarm uint8 (steps,); contributions float64 (steps, channels), each channel's part of the score."""

    score: FloatArray
    alarm: npt.NDArray[np.uint8]
    threshold: FloatArray
    contributions: FloatArray


def from_fixed(detection: fixed.Detection) -> FloatDetection:
    """The results of the integer detector in real units."""
    unit = 2.0**-fixed.SCORE_BITS
    return FloatDetection(
        detection.score * unit, detection.alarm, detection.threshold * unit, detection.contributions * unit
    )


def expectations(predictor: LinearPredictor, x: FloatArray, outputs: FloatArray) -> FloatArray:
    """Forecasts OF the rows of x (rows, channels) from reset: linear, and what the network adds.

    outputs: (rows, channels), the network's after it has read each row.
    """
    added = np.vstack([np.zeros((1, predictor.channels)), outputs[:-1]])[: len(x)]
    return predictor.forecast(x) + predictor.spread * added


def standardize(detector: Detector, residual: FloatArray, x: FloatArray, present: BoolArray) -> FloatArray:
    """Rows (rows, R) in spreads, saturated where the integer twin saturates; missing ones 0.

    residual, x, present: (rows, channels).
    """
    channels = detector.channels
    z = (residual - detector.mean[:channels]) / detector.spread[:channels]
    z = np.where(present, np.clip(z, RESIDUAL_MIN, RESIDUAL_MAX), 0.0)
    if detector.whitening is not None:
        z = np.clip(z @ detector.whitening.T, RESIDUAL_MIN, RESIDUAL_MAX)
    if not detector.level_limit:
        return z
    level = (x - detector.mean[channels:]) / detector.spread[channels:]
    level = np.clip(level, -detector.level_limit, detector.level_limit)
    return np.hstack([z, np.where(present, level, 0.0)])


def average(values: FloatArray, alpha: float, present: BoolArray) -> FloatArray:
    """EWMA of each column of ``values`` (rows, R) from 0; a missing sample holds its column."""
    weight = alpha * present
    moved = weight * values
    kept = 1.0 - weight
    rows = np.empty_like(moved)
    state = np.zeros(moved.shape[1])
    for t in range(len(moved)):
        state = kept[t] * state + moved[t]
        rows[t] = state
    return rows


def score_rows(detector: Detector, z: FloatArray, present: BoolArray) -> tuple[FloatArray, FloatArray]:
    """Scores (rows,) and contributions (rows, channels) of consecutive standardized rows (rows, R)."""
    kinds = detector.rows // detector.channels
    here = np.hstack([present] * kinds)
    smoothed, energy = average(z, detector.alpha, here), average(z * z, detector.alpha, here)
    each = detector.smoothed_gain * smoothed**2 + detector.energy_gain * energy
    contributions = each.reshape(len(each), kinds, detector.channels).sum(axis=1)
    return np.where(here, each, 0.0).sum(axis=1), contributions


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


def scan(detector: Detector, residual: FloatArray, x: FloatArray, present: BoolArray) -> FloatDetection:
    """Run the detector from reset over residuals (steps, channels) of inputs x, in network units.

    present: bool (steps, channels).  A row without any channel changes nothing; the first ``warmup``
    other rows are not scored.
    """
    rows = np.flatnonzero(present.any(axis=1))[detector.warmup :]
    z = standardize(detector, residual[rows], x[rows], present[rows])
    score, contributions = score_rows(detector, z, present[rows])
    alarm, limit = alarms(detector, score)
    # held[t]: how many scored rows there are up to row t, 0 where the state is the one after reset
    held = np.searchsorted(rows, np.arange(len(residual)), side="right")
    start = detector.threshold.value
    return FloatDetection(
        np.append(0.0, score)[held],
        np.append(np.uint8(0), alarm)[held],
        np.append(start, limit)[held],
        np.vstack([np.zeros((1, detector.channels)), contributions])[held],
    )
