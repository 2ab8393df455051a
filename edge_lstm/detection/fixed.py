"""The detector in integers: what the C runs, sample by sample.  Spec: NUMERICS.md, 7.

Reads fine codes of the inputs and the network's output codes, made one row before; writes scores and alarms.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_lstm.arrays import FloatArray, frozen
from edge_lstm.errors import ModelError, raise_all
from edge_lstm.fixedpoint import IntArray, rounding_shift, saturate

RESIDUAL_BITS = 10  # standardized residuals are Q5.10: one spread is 1024 codes
SCORE_BITS = 12  # scores are Q19.12 sums of squared spreads
MAX_CHANNELS = 127  # 2 * 127 rows of 2**23 at most: the score cannot overflow
MAX_LAGS = 32
INT32_MAX = 2**31 - 1
MISSING = -(2**31)  # the raw integer that stands for a missing value


@dataclass(frozen=True, eq=False)
class QDetector:
    """Every constant of the integer detector.  R rows are scored: one a channel, with levels two a channel.

    lags: rows before the present one that the forms read.
    forms: int16 (channels, (lags + 1) * channels) over fine codes, the present row first, then the one
    before; forms_shift: 0 .. 15.  None: the fine codes themselves.
    residual_weight, offset: int32 (R,); output_weight: int32 (channels,); shift: 0 .. 20.  With network
    outputs y row r < channels has the standardized residual
        sat16(rounding_shift(residual_weight * sat16(rounding_shift(forms @ fine, forms_shift))
                             - output_weight * (y - output_zero_point) - offset, shift))
    level_limit: 0, or Q5.10: each channel has a second row, the standardized fine code itself, within
    +-level_limit.
    whitening: int16 (channels, channels) of the first rows, or None; whitening_shift: 0 .. 15.
    alpha: EWMA weight of the new sample in 1/256, 1 .. 256.
    smoothed_gain, energy_gain: weights in 1/256 of the squared EWMA and of the EWMA of squares, 0 .. 256.
    The alarm threshold is ``base + (excess * gain >> 8)``; gain 0 makes it fixed.  Between base and
    threshold a score moves ``excess`` (its running mean above base) by ``1 / 2**rate``.
    clear: an alarm ends below threshold * clear / 256.  debounce: samples in a row that start or end
    an alarm.  warmup: samples after a reset without a score, ``lags`` and 1 or more.
    """

    start: int
    lags: int
    forms: npt.NDArray[np.int16] | None
    forms_shift: int
    residual_weight: IntArray
    output_weight: IntArray
    output_zero_point: int
    offset: IntArray
    shift: int
    level_limit: int
    whitening: npt.NDArray[np.int16] | None
    whitening_shift: int
    alpha: int
    smoothed_gain: int
    energy_gain: int
    base: int
    excess: int
    gain: int
    rate: int
    clear: int
    debounce: int
    warmup: int

    def __post_init__(self) -> None:
        for attribute in ("residual_weight", "output_weight", "offset"):
            object.__setattr__(self, attribute, frozen(getattr(self, attribute), np.int64))
        for attribute in ("forms", "whitening"):
            if getattr(self, attribute) is not None:
                object.__setattr__(self, attribute, frozen(getattr(self, attribute), np.int16))
        raise_all(ModelError, "detector", self._problems())

    @property
    def channels(self) -> int:
        return len(self.output_weight)

    @property
    def rows(self) -> int:
        """Scored rows: one or two a channel."""
        return self.channels * (2 if self.level_limit else 1)

    def _problems(self) -> list[str]:
        problems = []
        channels = self.channels
        if not 1 <= channels <= MAX_CHANNELS:
            problems.append(f"{channels} channels, expected 1 .. {MAX_CHANNELS}")
        if {self.residual_weight.shape, self.offset.shape} != {(self.rows,)}:
            problems.append(f"residual_weight and offset must have {self.rows} entries, one a scored row")
        elif self._largest_sum() > INT32_MAX:
            problems.append("a residual can exceed 32 bits; quantize the detector with a smaller shift")
        width = (self.lags + 1) * channels
        problems += _matrix_problems("forms", self.forms, (channels, width))
        problems += _matrix_problems("whitening", self.whitening, (channels, channels))
        if self.forms is None and self.lags:
            problems.append(f"lags is {self.lags} without forms, expected 0")
        for name, low, high in (
            ("start", -32768, 32767), ("lags", 0, MAX_LAGS), ("forms_shift", 0, 15),
            ("output_zero_point", -128, 127), ("shift", 0, 20), ("level_limit", 0, 32767),
            ("whitening_shift", 0, 15), ("alpha", 1, 256), ("smoothed_gain", 0, 256), ("energy_gain", 0, 256),
            ("base", 0, INT32_MAX), ("excess", 0, INT32_MAX), ("gain", 0, 2**24), ("rate", 0, 20),
            ("clear", 1, 256), ("debounce", 1, 255), ("warmup", max(1, self.lags), 65535),
        ):  # fmt: skip
            if not low <= getattr(self, name) <= high:
                problems.append(f"{name} is {getattr(self, name)}, expected {low} .. {high}")
        return problems

    def _largest_sum(self) -> int:
        """Bound on the standardized residual before its shift, rounding included: |y - zero point| <= 255."""
        bound = 32768 * np.abs(self.residual_weight) + np.abs(self.offset) + (1 << 19)
        bound[: self.channels] += 255 * np.abs(self.output_weight)
        return int(bound.max(initial=0))


def _matrix_problems(name: str, matrix: npt.NDArray[np.int16] | None, shape: tuple[int, int]) -> list[str]:
    """An int16 matrix whose rows multiply int16 columns within 32 bits."""
    if matrix is None:
        return []
    if matrix.shape != shape:
        return [f"{name} is {matrix.shape}, expected {shape}"]
    if (np.abs(matrix.astype(np.int64)).sum(axis=1) > 65535).any():
        return [f"a row of {name} can exceed 32 bits; its entries must sum below 65536"]
    return []


def detector_values(detector: QDetector) -> dict[str, Any]:
    """All constants as plain Python values; ``QDetector(**values)`` rebuilds the detector."""
    values: dict[str, Any] = {}
    for name in detector.__dataclass_fields__:
        value = getattr(detector, name)
        values[name] = value.tolist() if isinstance(value, np.ndarray) else value
    return values


@dataclass(frozen=True, eq=False)
class DetectorState:
    """What the detector keeps between samples.

    smoothed: int32 Q5.16 (rows,), the EWMA of each row.  energy: int32 Q10.12 (rows,), that of its square.
    history: int16 (lags, channels), fine codes of the rows before, the newest first.
    forecast: int8 codes of the network's output for the row to come.
    """

    smoothed: IntArray
    energy: IntArray
    history: IntArray
    forecast: IntArray
    score: int
    excess: int
    seen: int
    run: int
    alarm: int


@dataclass(frozen=True)
class Detection:
    """Results of a stream: score int64 (steps,) Q19.12; alarm uint8 (steps,); threshold int64 (steps,);
    contributions int64 (steps, channels) Q19.12, each channel's part of the score."""

    score: IntArray
    alarm: npt.NDArray[np.uint8]
    threshold: IntArray
    contributions: IntArray


def reset(detector: QDetector) -> DetectorState:
    """The state after power-on."""
    zeros = np.zeros(detector.rows, dtype=np.int64)
    history = np.full((detector.lags, detector.channels), detector.start, dtype=np.int64)
    forecast = np.full(detector.channels, detector.output_zero_point, dtype=np.int64)
    return DetectorState(zeros, zeros, history, forecast, 0, detector.excess, 0, 0, 0)


def formed(detector: QDetector, fine: IntArray) -> IntArray:
    """Values of the forms, int16, of the rows after the first lags of fine (lags + rows, channels)."""
    if detector.forms is None:
        return fine
    count, channels = len(fine) - detector.lags, detector.channels
    forms = detector.forms.astype(np.int64).reshape(channels, detector.lags + 1, channels)
    acc = sum(
        fine[detector.lags - lag : detector.lags - lag + count] @ forms[:, lag].T
        for lag in range(detector.lags + 1)
    )
    return saturate(rounding_shift(acc, detector.forms_shift), 16)


def _sums(detector: QDetector, fine: IntArray, forecast: IntArray) -> IntArray:
    """Standardized residuals before their shift (rows, channels)."""
    channels = detector.channels
    acc = detector.residual_weight[:channels] * formed(detector, fine) - detector.offset[:channels]
    return acc - detector.output_weight * (forecast - detector.output_zero_point)


def errors(detector: QDetector, fine: IntArray, outputs: IntArray) -> FloatArray:
    """Forecast errors of a stream from reset, in fine codes, float64 (steps, channels), usually 0.

    fine: int16 (steps, channels).  outputs: (steps, channels), the network's after it has read each row.
    """
    state = reset(detector)
    before = np.vstack([state.forecast, outputs[:-1]]).astype(np.int64)[: len(fine)]
    history = np.vstack([state.history[::-1], fine]).astype(np.int64)
    error: FloatArray = _sums(detector, history, before) / detector.residual_weight[: detector.channels]
    return error


def residuals(
    detector: QDetector, fine: IntArray, forecast: IntArray, present: npt.NDArray[np.bool_]
) -> IntArray:
    """Standardized residuals Q5.10 (rows, R); 0 where missing.

    fine: int16 (lags + rows, channels).  forecast: (rows, channels), the network's outputs FOR the rows.
    """
    channels, lags = detector.channels, detector.lags
    acc = _sums(detector, fine, forecast)
    z = np.where(present, saturate(rounding_shift(acc, detector.shift), 16), 0)
    if detector.whitening is not None:
        whitened = z @ detector.whitening.astype(np.int64).T
        z = saturate(rounding_shift(whitened, detector.whitening_shift), 16)
    if not detector.level_limit:
        return z
    acc = detector.residual_weight[channels:] * fine[lags:] - detector.offset[channels:]
    level = np.clip(rounding_shift(acc, detector.shift), -detector.level_limit, detector.level_limit)
    return np.hstack([z, np.where(present, level, 0)])


def average(target: IntArray, start: IntArray, weight: IntArray) -> IntArray:
    """EWMA (rows, R) of ``target`` from ``start`` (R,), by ``weight`` / 256; both int64."""
    rows, value = np.empty_like(target), start
    for t in range(len(target)):
        step = (target[t] - value) * weight[t]
        value = value + (step >> 8) + ((step & 255) > 127 + (step < 0))  # rounding_shift(step, 8)
        rows[t] = value
    return rows


def parts(detector: QDetector, smoothed: IntArray, energy: IntArray) -> IntArray:
    """What each row adds to the score, Q19.12, of averages (..., R)."""
    coarse = rounding_shift(smoothed, 6)
    return (((coarse * coarse) >> 8) * detector.smoothed_gain + energy * detector.energy_gain) >> 8


def threshold(detector: QDetector, excess: int) -> int:
    """The alarm threshold for a mean excess, Q19.12."""
    return min(detector.base + (excess * detector.gain >> 8), INT32_MAX)


def _alarm(detector: QDetector, state: DetectorState) -> DetectorState:
    """Compare the score with the threshold: hysteresis, debounce, and the streaming mean excess."""
    high = threshold(detector, state.excess)
    low = high * detector.clear >> 8
    crossed = state.score < low if state.alarm else state.score > high
    run = state.run + 1 if crossed else 0
    excess = state.excess
    if not state.alarm and detector.base < state.score <= high and detector.gain > 0:
        excess += int(rounding_shift(state.score - detector.base - excess, detector.rate))
    if run >= detector.debounce:
        return replace(state, excess=excess, run=0, alarm=1 - state.alarm)
    return replace(state, excess=excess, run=run)


def detect(
    detector: QDetector,
    fine: IntArray,
    forecast: IntArray,
    present: npt.NDArray[np.bool_],
    state: DetectorState | None = None,
) -> tuple[Detection, DetectorState]:
    """Run the detector over a stream from ``state`` (None: from reset); also returns the state after it.

    fine: int16 fine codes (steps, channels), missing ones held.  forecast: int8 (steps, channels), the
    network's output after it has read row t.  present: bool (steps, channels).  A row without any channel
    changes nothing (its forecast is not read).
    """
    state = state or reset(detector)
    taken = np.flatnonzero(present.any(axis=1))
    before = np.vstack([state.forecast, forecast[taken]]).astype(np.int64)
    warm = min(max(detector.warmup - state.seen, 0), len(taken))
    scored = taken[warm:]
    history = np.vstack([state.history[::-1], fine[taken]]).astype(np.int64)
    here = np.hstack([present[scored]] * (detector.rows // detector.channels))
    weight = np.where(here, detector.alpha, 0)
    z = residuals(detector, history[warm:], before[warm:-1], present[scored])
    smoothed = np.vstack([state.smoothed, average(z << 6, state.smoothed, weight)])
    energy = np.vstack([state.energy, average((z * z) >> 8, state.energy, weight)])
    each = parts(detector, smoothed, energy)
    score = np.where(here, each[1:], 0).sum(axis=1)
    columns = [(state.score, state.alarm, threshold(detector, state.excess))]
    for value in score.tolist():
        state = _alarm(detector, replace(state, score=value))
        columns.append((value, state.alarm, threshold(detector, state.excess)))
    state = replace(
        state, smoothed=smoothed[-1], energy=energy[-1], forecast=before[-1], seen=state.seen + warm,
        history=history[len(history) - detector.lags :][::-1],
    )  # fmt: skip
    held = np.searchsorted(scored, np.arange(len(fine)), side="right")  # scored rows up to each row
    table = np.array(columns, dtype=np.int64)[held]
    channels = each.reshape(len(each), -1, detector.channels).sum(axis=1)
    return Detection(table[:, 0], table[:, 1].astype(np.uint8), table[:, 2], channels[held]), state
