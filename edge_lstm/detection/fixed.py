"""The detector in integers: what the C runs, sample by sample.  Spec: NUMERICS.md, 7.

Reads fine codes of the inputs and the network's output codes, made ``ahead`` rows before; writes scores and
alarms.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_lstm.arrays import FloatArray, frozen
from edge_lstm.detection import scores
from edge_lstm.detection.scores import INT32_MAX as INT32_MAX
from edge_lstm.detection.scores import RESIDUAL_BITS as RESIDUAL_BITS
from edge_lstm.detection.scores import SCORE_BITS as SCORE_BITS
from edge_lstm.detection.scores import ScoreState
from edge_lstm.errors import ModelError, raise_all
from edge_lstm.fixedpoint import IntArray, rounding_shift, saturate
from edge_lstm.predictor import MAX_AHEAD

MAX_CHANNELS = 127  # 2 * 127 rows of 2**23 at most: the score cannot overflow
MAX_LAGS = 32
MAX_ADAPT_LIMIT = 3072  # Q5.10: three spreads
MISSING = -(2**31)  # the raw integer that stands for a missing value


@dataclass(frozen=True, eq=False)
class QDetector:
    """Every constant of the integer detector.  R rows are scored: one a channel, with levels two a channel.

    lags: rows before the present one that the forms read.
    ahead: the network's output after row t is a forecast of row t + ahead; 0: a reconstruction of row t.
    output_bits: 8 or 16, of the network's output codes.
    forms: int16 (channels, (lags + 1) * channels) over fine codes, the present row first, then the one
    before; forms_shift: 0 .. 15.  None: the fine codes themselves.
    residual_weight, offset: int32 (R,); output_weight: int32 (channels,); shift: 0 .. 20.  With the network's
    outputs y for the row, row r < channels has the standardized residual
        sat16(rounding_shift(residual_weight * sat16(rounding_shift(forms @ fine, forms_shift))
                             - output_weight * (y - output_zero_point) - offset, shift))
    A channel of residual_weight 0 is context: it is read, but not scored.
    level_limit: 0, or Q5.10: each channel has a second row, the standardized fine code itself, within
    +-level_limit.
    whitening: int16 (channels, channels) of the first rows, or None; whitening_shift: 0 .. 15.
    alpha: EWMA weight of the new sample in 1/256, 1 .. 256.
    smoothed_gain, energy_gain: weights in 1/256 of the squared EWMA and of the EWMA of squares, 0 .. 256.
    The alarm threshold is ``score_mean + base + (excess * gain >> 8)``; gain 0 leaves excess as it is.  A
    score between score_mean + base and the threshold moves ``excess`` (its running mean above that) by
    ``1 / 2**rate``; one up to the threshold moves score_mean by ``1 / 2**depth``, with depth 0 not at all.
    clear: an alarm ends below threshold * clear / 256.  debounce: samples in a row that start or end
    an alarm.  warmup: samples after a reset without a score, ``lags``, ``ahead`` and 1 or more.
    hold, cooldown: rows for which an alarm lasts at least, and for which none starts after one.
    knee: int16 (R,) Q5.10 or None: deviations beyond it count by Huber's likelihood.
    adapt: 0, or level and spread of each row follow the stream over 2**adapt rows, up to ``adapt_limit``
    (Q5.10) from the trained ones; usual: int16 (R,) Q5.10, the mean deviation of each row in normal data.
    stuck: uint16 (channels,) or None: equal rows after which a channel is stuck, 0 for never.
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
    ahead: int = 1
    output_bits: int = 8
    score_mean: int = 0
    depth: int = 0
    hold: int = 0
    cooldown: int = 0
    knee: IntArray | None = None
    adapt: int = 0
    adapt_limit: int = 0
    usual: IntArray | None = None
    stuck: IntArray | None = None

    def __post_init__(self) -> None:
        for attribute in ("residual_weight", "output_weight", "offset", "knee", "usual", "stuck"):
            if getattr(self, attribute) is not None:
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

    @property
    def scored(self) -> npt.NDArray[np.bool_]:
        """Bool (channels,): those that are no context."""
        weights: npt.NDArray[np.bool_] = self.residual_weight[: self.channels] != 0
        return weights

    def _problems(self) -> list[str]:
        problems = []
        channels = self.channels
        if not 1 <= channels <= MAX_CHANNELS:
            problems.append(f"{channels} channels, expected 1 .. {MAX_CHANNELS}")
        if {self.residual_weight.shape, self.offset.shape} != {(self.rows,)}:
            problems.append(f"residual_weight and offset must have {self.rows} entries, one a scored row")
        elif self._largest_sum() > INT32_MAX:
            problems.append("a residual can exceed 32 bits; quantize the detector with a smaller shift")
        elif not self.scored.any():
            problems.append("every channel is context (residual_weight 0), so nothing is scored")
        width = (self.lags + 1) * channels
        problems += _matrix_problems("forms", self.forms, (channels, width))
        problems += _matrix_problems("whitening", self.whitening, (channels, channels))
        if self.output_bits not in (8, 16):
            problems.append(f"output_bits is {self.output_bits}, expected 8 or 16")
        if self.forms is None and self.lags:
            problems.append(f"lags is {self.lags} without forms, expected 0")
        if (self.usual is None) != (self.adapt == 0):
            problems.append(f"adapt is {self.adapt}, but usual is {self.usual}; it takes both or none")
        problems += self._entries("knee", self.rows, 1, 32767) + self._entries("usual", self.rows, 0, 32767)
        problems += self._entries("stuck", channels, 0, 65535)
        for name, low, high in (
            ("start", -32768, 32767), ("lags", 0, MAX_LAGS), ("forms_shift", 0, 15),
            ("output_zero_point", -32768, 32767), ("shift", 0, 20), ("level_limit", 0, 32767),
            ("whitening_shift", 0, 15), ("alpha", 1, 256), ("smoothed_gain", 0, 256), ("energy_gain", 0, 256),
            ("base", 0, INT32_MAX), ("excess", 0, INT32_MAX), ("gain", 0, 2**24), ("rate", 0, 20),
            ("clear", 1, 256), ("debounce", 1, 255), ("ahead", 0, MAX_AHEAD),
            ("warmup", max(1, self.lags, self.ahead), 65535),
            ("score_mean", 0, INT32_MAX * (self.depth > 0)), ("depth", 0, 20), ("hold", 0, 65535),
            ("cooldown", 0, 65535), ("adapt", 0, 18), ("adapt_limit", 0, MAX_ADAPT_LIMIT * (self.adapt > 0)),
        ):  # fmt: skip
            if not low <= getattr(self, name) <= high:
                problems.append(f"{name} is {getattr(self, name)}, expected {low} .. {high}")
        return problems

    def _entries(self, name: str, count: int, low: int, high: int) -> list[str]:
        """What is wrong with an array that may be None."""
        values = getattr(self, name)
        if values is None or (values.shape == (count,) and ((values >= low) & (values <= high)).all()):
            return []
        return [f"{name} must have {count} entries of {low} .. {high}"]

    def _largest_sum(self) -> int:
        """Bound on the standardized residual before its shift, rounding included."""
        bound = 32768 * np.abs(self.residual_weight) + np.abs(self.offset) + (1 << 19)
        bound[: self.channels] += (2**self.output_bits - 1) * np.abs(self.output_weight)
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

    history: int16 (lags, channels), fine codes of the rows before, the newest first.
    forecast: (ahead, channels), the network's output codes for the rows to come, the next row first.
    seen: rows up to ``warmup``.  held: int16 (channels,), the fine codes of the last row.
    still: uint16 (channels,), rows in a row in which a channel's fine code stayed, up to ``stuck``.
    scores: what follows the standardized residuals.
    """

    history: IntArray
    forecast: IntArray
    seen: int
    held: IntArray
    still: IntArray
    scores: ScoreState


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
    history = np.full((detector.lags, detector.channels), detector.start, dtype=np.int64)
    forecast = np.full((detector.ahead, detector.channels), detector.output_zero_point, dtype=np.int64)
    held = np.full(detector.channels, detector.start, dtype=np.int64)
    return DetectorState(history, forecast, 0, held, np.zeros_like(held), scores.start(detector))


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

    Of context they are 0.

    fine: int16 (steps, channels).  outputs: (steps, channels), the network's after it has read each row.
    """
    state = reset(detector)
    forecast = np.vstack([state.forecast, outputs]).astype(np.int64)[: len(fine)]
    history = np.vstack([state.history[::-1], fine]).astype(np.int64)
    weight = np.where(detector.scored, detector.residual_weight[: detector.channels], 1)
    error: FloatArray = np.where(detector.scored, _sums(detector, history, forecast) / weight, 0.0)
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
    level = saturate(rounding_shift(acc, detector.shift), 16)
    return np.hstack([z, np.where(present, level, 0)])


def _still(
    detector: QDetector, fine: IntArray, present: npt.NDArray[np.bool_], state: DetectorState
) -> IntArray:
    """Rows in a row (rows, channels) in which each channel has kept its fine code, up to ``stuck``."""
    if detector.stuck is None:
        return np.zeros(fine.shape, dtype=np.int64)
    return scores.still(detector.stuck, fine, present, state.held, state.still)


def _is_stuck(detector: QDetector, still: IntArray) -> npt.NDArray[np.bool_]:
    limit = np.zeros(detector.channels) if detector.stuck is None else detector.stuck
    return np.asarray((limit > 0) & (still == limit))


def stuck_channels(
    detector: QDetector, fine: IntArray, present: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    """Which channels are stuck after each row of a stream from reset, bool (steps, channels).

    fine: int16 fine codes (steps, channels), missing ones held.  present: bool, the same shape.
    """
    return _is_stuck(detector, _still(detector, fine, present, reset(detector)))


def detect(
    detector: QDetector,
    fine: IntArray,
    outputs: IntArray,
    present: npt.NDArray[np.bool_],
    state: DetectorState | None = None,
) -> tuple[Detection, DetectorState]:
    """Run the detector over a stream from ``state`` (None: from reset); also returns the state after it.

    fine: int16 fine codes (steps, channels), missing ones held.  outputs: (steps, channels), the
    network's output codes after it has read row t.  present: bool (steps, channels).  A row without any
    channel changes nothing (its outputs are not read); one of context alone is read, but not scored.
    """
    state = state or reset(detector)
    taken = np.flatnonzero(present.any(axis=1))
    forecast = np.vstack([state.forecast, outputs[taken]]).astype(np.int64)
    warm = min(max(detector.warmup - state.seen, 0), len(taken))
    scored = taken[warm:]
    history = np.vstack([state.history[::-1], fine[taken]]).astype(np.int64)
    still = _still(detector, fine, present, state)
    stuck = _is_stuck(detector, still)
    z = residuals(detector, history[warm:], forecast[warm : len(taken)], present[scored])
    counts = (present[scored] & detector.scored).any(axis=1)
    scored, z = scored[counts], z[counts]
    table, contributions, last = scores.run(detector, z, present[scored], stuck[scored], state.scores)
    row = np.searchsorted(scored, np.arange(len(fine)), side="right")  # scored rows up to each row
    state = DetectorState(
        history[len(history) - detector.lags :][::-1], forecast[len(taken) :], state.seen + warm,
        np.vstack([state.held, fine])[-1], np.vstack([state.still, still])[-1], last,
    )  # fmt: skip
    parts = np.where(stuck, scores.STUCK_PART, contributions[row])
    return Detection(table[row, 0], table[row, 1].astype(np.uint8), table[row, 2], parts), state
