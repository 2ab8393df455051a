"""The detector in integers: what the C runs, sample by sample.  Spec: NUMERICS.md, 7.

Reads int8 input codes and the int8 forecast made one row before; writes scores and alarms.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_lstm.arrays import frozen
from edge_lstm.errors import ModelError, raise_all
from edge_lstm.fixedpoint import IntArray, rounding_shift, saturate

RESIDUAL_BITS = 10  # standardized residuals are Q5.10: one spread is 1024 codes
SCORE_BITS = 14  # scores are Q17.14 sums of squared, smoothed residuals
MAX_CHANNELS = 127  # 127 * 2**24 < 2**31: the score cannot overflow
INT32_MAX = 2**31 - 1
MISSING = -(2**31)  # the raw integer that stands for a missing value


@dataclass(frozen=True, eq=False)
class QDetector:
    """Every constant of the integer detector; arrays have one entry a channel.

    input_weight, output_weight, offset: int32; shift: 0 .. 20.  With codes x and forecast y, the residual is
        sat16(rounding_shift(input_weight * (x - input_zero_point)
                             - output_weight * (y - output_zero_point) - offset, shift))
    whitening: int16 (channels, channels) or None; whitening_shift: 0 .. 15.
    alpha: EWMA weight of the new sample in 1/256, 1 .. 256.
    The alarm threshold is ``base + (excess * gain >> 8)``; gain 0 makes it fixed.  Between base and
    threshold a score moves ``excess`` (its running mean above base) by ``1 / 2**rate``.
    clear: an alarm ends below threshold * clear / 256.  debounce: samples in a row that start or end
    an alarm.  warmup: samples after a reset without a score, 1 or more.
    """

    input_zero_point: int
    output_zero_point: int
    input_weight: IntArray
    output_weight: IntArray
    offset: IntArray
    shift: int
    whitening: npt.NDArray[np.int16] | None
    whitening_shift: int
    alpha: int
    base: int
    excess: int
    gain: int
    rate: int
    clear: int
    debounce: int
    warmup: int

    def __post_init__(self) -> None:
        for attribute in ("input_weight", "output_weight", "offset"):
            object.__setattr__(self, attribute, frozen(getattr(self, attribute), np.int64))
        if self.whitening is not None:
            object.__setattr__(self, "whitening", frozen(self.whitening, np.int16))
        raise_all(ModelError, "detector", self._problems())

    @property
    def channels(self) -> int:
        return len(self.input_weight)

    def _problems(self) -> list[str]:
        problems = []
        channels = self.channels
        if not 1 <= channels <= MAX_CHANNELS:
            problems.append(f"{channels} channels, expected 1 .. {MAX_CHANNELS}")
        if {self.output_weight.shape, self.offset.shape} != {(channels,)}:
            problems.append(f"output_weight and offset must have {channels} entries, as input_weight has")
        elif self._largest_sum() > INT32_MAX:
            problems.append("a residual can exceed 32 bits; quantize the detector with a smaller shift")
        if self.whitening is not None and self.whitening.shape != (channels, channels):
            problems.append(f"whitening is {self.whitening.shape}, expected {(channels, channels)}")
        elif self.whitening is not None:
            rows = np.abs(self.whitening.astype(np.int64)).sum(axis=1)
            if (rows * 32768 > INT32_MAX).any():
                problems.append("a whitened residual can exceed 32 bits; its rows must sum below 65536")
        for name, low, high in (
            ("input_zero_point", -128, 127), ("output_zero_point", -128, 127), ("shift", 0, 20),
            ("whitening_shift", 0, 15), ("alpha", 1, 256), ("base", 0, INT32_MAX), ("excess", 0, INT32_MAX),
            ("gain", 0, 2**24), ("rate", 0, 20), ("clear", 1, 256), ("debounce", 1, 255),
            ("warmup", 1, 65535),
        ):  # fmt: skip
            if not low <= getattr(self, name) <= high:
                problems.append(f"{name} is {getattr(self, name)}, expected {low} .. {high}")
        return problems

    def _largest_sum(self) -> int:
        """Bound on the residual before its shift, rounding included: |x - zero point| <= 255."""
        bound = 255 * (np.abs(self.input_weight) + np.abs(self.output_weight)) + np.abs(self.offset)
        return int(bound.max(initial=0))


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

    smoothed: int32 Q5.16 (channels,), the EWMA of each residual.  forecast: int8 codes of the row to come.
    """

    smoothed: IntArray
    forecast: IntArray
    score: int
    excess: int
    seen: int
    run: int
    alarm: int


@dataclass(frozen=True)
class Detection:
    """Results of a stream: score int64 (steps,) Q17.14; alarm uint8 (steps,); threshold int64 (steps,);
    smoothed int64 (steps, channels) Q5.16, from which the contributions come."""

    score: IntArray
    alarm: npt.NDArray[np.uint8]
    threshold: IntArray
    smoothed: IntArray


def reset(detector: QDetector) -> DetectorState:
    """The state after power-on."""
    zeros = np.zeros(detector.channels, dtype=np.int64)
    forecast = zeros + detector.output_zero_point
    return DetectorState(zeros, forecast, 0, detector.excess, 0, 0, 0)


def residuals(
    detector: QDetector, x: IntArray, forecast: IntArray, present: npt.NDArray[np.bool_]
) -> IntArray:
    """Standardized residuals Q5.10 of codes ``x`` against the forecasts OF them; 0 where missing.

    x, forecast, present: (rows, channels).
    """
    acc = detector.input_weight * (x - detector.input_zero_point)
    acc = acc - detector.output_weight * (forecast - detector.output_zero_point) - detector.offset
    standardized = np.where(present, saturate(rounding_shift(acc, detector.shift), 16), 0)
    if detector.whitening is None:
        return standardized
    whitened = standardized @ detector.whitening.astype(np.int64).T
    return saturate(rounding_shift(whitened, detector.whitening_shift), 16)


def smooth(detector: QDetector, smoothed: IntArray, z: IntArray, present: npt.NDArray[np.bool_]) -> IntArray:
    """EWMA Q5.16 of residuals ``z`` (rows, channels) from ``smoothed`` (channels,); held where missing."""
    target, weight = z << 6, np.where(present, detector.alpha, 0)
    rows = np.empty_like(target)
    for t in range(len(target)):
        step = (target[t] - smoothed) * weight[t]
        smoothed = smoothed + (step >> 8) + ((step & 255) > 127 + (step < 0))  # rounding_shift(step, 8)
        rows[t] = smoothed
    return rows


def threshold(detector: QDetector, excess: int) -> int:
    """The alarm threshold for a mean excess, Q17.14."""
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
    x: IntArray,
    forecast: IntArray,
    present: npt.NDArray[np.bool_],
    state: DetectorState | None = None,
) -> tuple[Detection, DetectorState]:
    """Run the detector over a stream from ``state`` (None: from reset); also returns the state after it.

    x: int8 codes (steps, channels), missing ones held.  forecast: int8 (steps, channels), the network's
    output after it has read row t.  present: bool (steps, channels).  A row without any channel changes
    nothing (its forecast is not read).
    """
    state = state or reset(detector)
    rows = np.flatnonzero(present.any(axis=1))
    before = np.vstack([state.forecast, forecast[rows]]).astype(np.int64)
    warm = min(max(detector.warmup - state.seen, 0), len(rows))
    scored = rows[warm:]
    z = residuals(detector, x[scored].astype(np.int64), before[warm:-1], present[scored])
    smoothed = smooth(detector, state.smoothed, z, present[scored])
    coarse = rounding_shift(smoothed, 6)
    score = np.where(present[scored], (coarse * coarse) >> 6, 0).sum(axis=1)
    columns = [(state.score, state.alarm, threshold(detector, state.excess))]
    history = np.vstack([state.smoothed, smoothed])
    for value in score.tolist():
        state = _alarm(detector, replace(state, score=value))
        columns.append((value, state.alarm, threshold(detector, state.excess)))
    state = replace(state, smoothed=history[-1], forecast=before[-1], seen=state.seen + warm)
    held = np.searchsorted(scored, np.arange(len(x)), side="right")  # scored rows up to each row
    table = np.array(columns, dtype=np.int64)[held]
    return Detection(table[:, 0], table[:, 1].astype(np.uint8), table[:, 2], history[held]), state
