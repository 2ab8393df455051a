"""The detector in real numbers: the twin of ``fixed.py``, which the C runs.

Reads network inputs and residuals; writes scores, alarms, thresholds.  Spec: NUMERICS.md, 7.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edge_lstm.arrays import BoolArray, FloatArray, frozen
from edge_lstm.detection import fixed, scores
from edge_lstm.detection.thresholds import Threshold
from edge_lstm.errors import ModelError, raise_all
from edge_lstm.fixedpoint import IntArray
from edge_lstm.predictor import LinearPredictor

RESIDUAL_UNIT = 2.0**-fixed.RESIDUAL_BITS
RESIDUAL_MIN, RESIDUAL_MAX = -32768 * RESIDUAL_UNIT, 32767 * RESIDUAL_UNIT  # where the integer twin saturates
MAX_ROW_SCORE = 2 * RESIDUAL_MIN**2
STUCK_PART = scores.STUCK_PART * 2.0**-scores.SCORE_BITS


@dataclass(frozen=True, eq=False)
class Detector:
    """Every constant of the real-valued detector.  R rows are scored: one a channel, with levels two.

    mean, spread: (R,), of normal rows in network units: of the residuals, then of the inputs themselves.
    The spread of a channel that is context, and so not scored, is infinite.
    level_limit: 0, or the spreads within which the second row of each channel is kept.
    whitening: (channels, channels) applied to standardized residuals, or None.
    alpha: EWMA weight of the new sample, 0 < alpha <= 1.
    smoothed_gain, energy_gain: weights of the squared EWMA and of the EWMA of squares, 0 .. 1.
    threshold: see ``thresholds.Threshold``.  clear: an alarm ends below threshold * clear.
    debounce: rows in a row that start or end an alarm.
    warmup: rows after a reset without a score, 1 or more.
    hold, cooldown: rows for which an alarm lasts at least, and for which none starts after one.
    knee: (R,), spreads beyond which deviations count by Huber's likelihood, or None.
    adapt: 0, or level and spread of each row follow the stream over 2**adapt rows, up to ``adapt_limit``
    spreads from the trained ones; usual: (R,), the mean deviation of each row in normal data, in spreads.
    stuck: (channels,) equal rows after which a channel is stuck, 0 for never; or None.
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
    hold: int = 0
    cooldown: int = 0
    knee: FloatArray | None = None
    adapt: int = 0
    adapt_limit: float = 0.0
    usual: FloatArray | None = None
    stuck: IntArray | None = None

    def __post_init__(self) -> None:
        for attribute in ("mean", "spread", "whitening", "knee", "usual"):
            if getattr(self, attribute) is not None:
                object.__setattr__(self, attribute, frozen(getattr(self, attribute), np.float64))
        if self.stuck is not None:
            object.__setattr__(self, "stuck", frozen(self.stuck, np.int64))
        raise_all(ModelError, "detector", self._problems())

    @property
    def channels(self) -> int:
        return len(self.mean) // (2 if self.level_limit else 1)

    @property
    def rows(self) -> int:
        """Scored rows: one or two a channel."""
        return len(self.mean)

    @property
    def scored(self) -> BoolArray:
        """Bool (channels,): those that are no context."""
        return np.isfinite(self.spread[: self.channels])

    def _problems(self) -> list[str]:
        problems = []
        channels = self.channels
        if not 1 <= channels <= fixed.MAX_CHANNELS or self.spread.shape != self.mean.shape:
            problems.append(
                f"mean is {self.mean.shape} and spread {self.spread.shape}, expected one entry a scored row "
                f"each, 1 .. {fixed.MAX_CHANNELS} channels"
            )
        if not (np.isfinite(self.mean).all() and (self.spread > 0).all() and np.isfinite(self.spread).any()):
            problems.append(
                "mean must be finite and spread above 0, infinite of context; fit it on finite residuals"
            )
        if self.whitening is not None and (
            self.whitening.shape != (channels, channels) or not np.isfinite(self.whitening).all()
        ):
            problems.append(
                f"whitening is {self.whitening.shape}, expected {(channels, channels)}, all finite"
            )
        if (self.usual is None) != (self.adapt == 0):
            problems.append(f"adapt is {self.adapt}, but usual is {self.usual}; it takes both or none")
        for name, low, high in (
            ("hold", 0, 65535), ("cooldown", 0, 65535), ("adapt", 0, 18), ("adapt_limit", 0, 3),
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


def expectations(
    predictor: LinearPredictor, x: FloatArray, outputs: FloatArray, ahead: int = 1
) -> FloatArray:
    """What is expected OF the rows of x (rows, channels) from reset: linear, and what the network adds.

    outputs: (rows, channels), the network's after it has read each row, which are of ``ahead`` rows later.
    """
    added = np.vstack([np.zeros((ahead, predictor.channels)), outputs])[: len(x)]
    return predictor.forecast(x) + predictor.spread * added


def standardize(detector: Detector, residual: FloatArray, x: FloatArray, present: BoolArray) -> FloatArray:
    """Rows (rows, R) in spreads, saturated where the integer twin saturates, levels too; missing ones 0.

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
    level = np.clip(level, RESIDUAL_MIN, RESIDUAL_MAX)
    return np.hstack([z, np.where(present, level, 0.0)])


@dataclass(frozen=True, eq=False)
class ScoreState:
    """What is kept between scored rows; see ``scores.ScoreState``, here in spreads and squared spreads."""

    smoothed: FloatArray
    energy: FloatArray
    mean: FloatArray
    gain: FloatArray
    score_mean: float
    excess: float
    score: float = 0.0
    run: int = 0
    rest: int = 0
    alarm: int = 0


def start(detector: Detector) -> ScoreState:
    """The state after power-on."""
    zeros, rule = np.zeros(detector.rows), detector.threshold
    return ScoreState(zeros, zeros, zeros, np.ones(detector.rows), rule.mean, rule.excess)


def adapted(detector: Detector, z: FloatArray, state: ScoreState) -> FloatArray:
    """Standardized values (rows, R) by what was learnt of level and spread; levels within their limit."""
    if detector.adapt:
        z = np.clip((z - state.mean) * state.gain, RESIDUAL_MIN, RESIDUAL_MAX)
    if not detector.level_limit:
        return z
    level = np.clip(z[:, detector.channels :], -detector.level_limit, detector.level_limit)
    return np.hstack([z[:, : detector.channels], level])


def _learnt(detector: Detector, z: FloatArray, here: BoolArray, state: ScoreState) -> ScoreState:
    """Take one row (R,) into level and spread, where neither alarm nor score speaks of a fault."""
    if state.alarm or state.score > threshold(detector, state) * detector.clear:
        return state
    assert detector.usual is not None
    limit, step = detector.adapt_limit, 2.0**-detector.adapt
    mean = np.clip(state.mean + step * z, -limit, limit)
    gain = np.clip(state.gain + step * (detector.usual - np.abs(z)), 1 / (1 + limit), 1 + limit)
    return replace(state, mean=np.where(here, mean, state.mean), gain=np.where(here, gain, state.gain))


def average(values: FloatArray, alpha: float, present: BoolArray, start: FloatArray) -> FloatArray:
    """EWMA of each column of ``values`` (rows, R) from ``start``; a missing sample holds its column."""
    weight = alpha * present
    moved = weight * values
    kept = 1.0 - weight
    rows, state = np.empty_like(moved), start
    for t in range(len(moved)):
        state = kept[t] * state + moved[t]
        rows[t] = state
    return rows


def averages(
    detector: Detector, z: FloatArray, here: BoolArray, state: ScoreState
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Both averages (rows, R) of standardized values, and contributions (rows, channels)."""
    near = z if detector.knee is None else np.clip(z, -detector.knee, detector.knee)
    square = np.abs(near) * (2 * np.abs(z) - np.abs(near))  # Huber's beyond the knee
    smoothed = average(near, detector.alpha, here, state.smoothed)
    energy = average(square, detector.alpha, here, state.energy)
    each = detector.smoothed_gain * smoothed**2 + detector.energy_gain * energy
    return smoothed, energy, each.reshape(len(each), -1, detector.channels).sum(axis=1)


def score_rows(detector: Detector, z: FloatArray, present: BoolArray) -> FloatArray:
    """Scores (rows,) of consecutive standardized rows (rows, R) from reset, without adaptation."""
    here, state = every_row(detector, present), start(detector)
    z = adapted(replace(detector, adapt=0, usual=None), z, state)
    score: FloatArray = np.where(present, averages(detector, z, here, state)[2], 0.0).sum(axis=1)
    return score


def every_row(detector: Detector, present: BoolArray) -> BoolArray:
    """Which of all rows (rows, R) have a value."""
    return np.hstack([present] * (detector.rows // detector.channels))


def threshold(detector: Detector, state: ScoreState) -> float:
    """The score above which an alarm starts."""
    rule = detector.threshold
    return state.score_mean + rule.base + rule.gain * state.excess


def _alarm(detector: Detector, state: ScoreState) -> ScoreState:
    """Compare the score with the threshold: hysteresis, debounce, hold and cool-down, running means."""
    rule, high = detector.threshold, threshold(detector, state)
    crossed = state.score < high * detector.clear if state.alarm else state.score > high
    mean, excess = state.score_mean, state.excess
    if not state.alarm and state.score <= high:
        above = state.score - mean - rule.base
        if above > 0 and rule.gain > 0:
            excess += (above - excess) * 2.0**-rule.rate
        if rule.depth:
            mean += (state.score - mean) * 2.0**-rule.depth
    rest = max(state.rest - 1, 0)
    run, alarm = state.run + 1 if crossed and not rest else 0, state.alarm
    if run >= detector.debounce:
        run, alarm = 0, 1 - alarm
        rest = detector.hold if alarm else detector.cooldown
    return replace(state, score_mean=mean, excess=excess, run=run, rest=rest, alarm=alarm)


def run(
    detector: Detector, z: FloatArray, present: BoolArray, stuck: BoolArray
) -> tuple[FloatArray, FloatArray]:
    """Score standardized rows (rows, R) from reset; returns table and contributions as ``scores.run``."""
    state, here = start(detector), every_row(detector, present)
    table = [(0.0, 0, threshold(detector, state))]
    contributions: list[FloatArray] = [np.zeros((1, detector.channels))]
    block = 1 if detector.adapt else max(len(z), 1)  # a row reads what the rows before it taught
    for begin in range(0, len(z), block):
        rows = slice(begin, begin + block)
        row = adapted(detector, z[rows], state)
        if detector.adapt:
            state = _learnt(detector, row[0], here[begin], state)
        smoothed, energy, each = averages(detector, row, here[rows], state)
        state = replace(state, smoothed=smoothed[-1], energy=energy[-1])
        contributions.append(each)
        counted = np.where(present[rows], np.where(stuck[rows], STUCK_PART, each), 0.0)
        for value in counted.sum(axis=1).tolist():
            state = _alarm(detector, replace(state, score=value))
            table.append((value, state.alarm, threshold(detector, state)))
    return np.array(table), np.vstack(contributions)


def scan(detector: Detector, residual: FloatArray, x: FloatArray, present: BoolArray) -> FloatDetection:
    """Run the detector from reset over residuals (steps, channels) of inputs x, in network units.

    present: bool (steps, channels).  A row without any channel changes nothing; the first ``warmup``
    other rows are not scored, nor those of context alone.
    """
    rows = np.flatnonzero(present.any(axis=1))[detector.warmup :]
    rows = rows[(present & detector.scored)[rows].any(axis=1)]
    stuck = np.zeros(present.shape, dtype=bool)
    if detector.stuck is not None:
        zeros = np.zeros(detector.channels)
        still = scores.still(detector.stuck, x, present, zeros, zeros)
        stuck = (detector.stuck > 0) & (still == detector.stuck)
    z = standardize(detector, residual[rows], x[rows], present[rows])
    table, contributions = run(detector, z, present[rows], stuck[rows])
    # row[t]: how many scored rows there are up to row t, 0 where the state is the one after reset
    row = np.searchsorted(rows, np.arange(len(residual)), side="right")
    parts = np.where(stuck, STUCK_PART, contributions[row])
    return FloatDetection(table[row, 0], table[row, 1].astype(np.uint8), table[row, 2], parts)
