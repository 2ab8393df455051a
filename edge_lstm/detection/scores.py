"""From standardized residuals to scores and alarms, in integers: what the C runs.  Spec: NUMERICS.md, 7.

Reads rows of residuals and which channels are stuck; writes scores, alarms, thresholds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edge_lstm.arrays import BoolArray
from edge_lstm.fixedpoint import IntArray, rounding_shift, saturate

RESIDUAL_BITS = 10  # standardized residuals are Q5.10: one spread is 1024 codes
SCORE_BITS = 12  # scores are Q19.12 sums of squared spreads
ONE = 1 << RESIDUAL_BITS
STUCK_PART = 1 << 23  # of the score: the most that a row can have
INT32_MAX = 2**31 - 1


class Rules(Protocol):
    """The constants that are read here; ``fixed.QDetector`` says what each is."""

    @property
    def channels(self) -> int: ...
    @property
    def rows(self) -> int: ...
    @property
    def level_limit(self) -> int: ...
    @property
    def alpha(self) -> int: ...
    @property
    def smoothed_gain(self) -> int: ...
    @property
    def energy_gain(self) -> int: ...
    @property
    def knee(self) -> IntArray | None: ...
    @property
    def adapt(self) -> int: ...
    @property
    def adapt_limit(self) -> int: ...
    @property
    def usual(self) -> IntArray | None: ...
    @property
    def base(self) -> int: ...
    @property
    def excess(self) -> int: ...
    @property
    def gain(self) -> int: ...
    @property
    def rate(self) -> int: ...
    @property
    def score_mean(self) -> int: ...
    @property
    def depth(self) -> int: ...
    @property
    def clear(self) -> int: ...
    @property
    def debounce(self) -> int: ...
    @property
    def hold(self) -> int: ...
    @property
    def cooldown(self) -> int: ...


@dataclass(frozen=True, eq=False)
class ScoreState:
    """What is kept between scored rows.

    smoothed: int32 Q5.16 (R,), the EWMA of each row.  energy: int32 Q10.12 (R,), that of its square.
    mean, gain: int32 (R,), what was learnt of the level and of 1 / spread, both Q10 with ``adapt`` more bits.
    score_mean, fraction: the running mean of the scores and its ``depth`` bits below one code.
    run: rows in a row on the other side of the threshold.  rest: rows for which the alarm stays as it is.
    """

    smoothed: IntArray
    energy: IntArray
    mean: IntArray
    gain: IntArray
    score: int
    score_mean: int
    fraction: int
    excess: int
    run: int
    rest: int
    alarm: int


def start(rules: Rules) -> ScoreState:
    """The state after power-on."""
    zeros = np.zeros(rules.rows, dtype=np.int64)
    gain = np.full(rules.rows, ONE << rules.adapt, dtype=np.int64)
    return ScoreState(zeros, zeros, zeros, gain, 0, rules.score_mean, 0, rules.excess, 0, 0, 0)


def adapted(rules: Rules, z: IntArray, state: ScoreState) -> IntArray:
    """Standardized values (rows, R) by what was learnt of level and spread; levels within their limit."""
    if rules.adapt:
        moved = (z - (state.mean >> rules.adapt)) * (state.gain >> rules.adapt)
        z = saturate(rounding_shift(moved, RESIDUAL_BITS), 16)
    if not rules.level_limit:
        return z
    level = np.clip(z[:, rules.channels :], -rules.level_limit, rules.level_limit)
    return np.hstack([z[:, : rules.channels], level])


def _learnt(rules: Rules, z: IntArray, here: BoolArray, state: ScoreState) -> ScoreState:
    """Take one row (R,) into level and spread, where neither alarm nor score speaks of a fault."""
    if state.alarm or state.score > threshold(rules, state) * rules.clear >> 8:
        return state
    assert rules.usual is not None
    low, high = gain_range(rules.adapt_limit)
    limit = rules.adapt_limit << rules.adapt
    mean = np.clip(state.mean + z, -limit, limit)
    gain = np.clip(state.gain + rules.usual - np.abs(z), low << rules.adapt, high << rules.adapt)
    return replace(state, mean=np.where(here, mean, state.mean), gain=np.where(here, gain, state.gain))


def gain_range(limit: int) -> tuple[int, int]:
    """The least and the largest gain, Q10: spreads from 1 / (1 + limit) to 1 + limit of what they were."""
    return ONE * ONE // (ONE + limit), ONE + limit


def average(target: IntArray, start: IntArray, weight: IntArray) -> IntArray:
    """EWMA (rows, R) of ``target`` from ``start`` (R,), by ``weight`` / 256; both int64."""
    rows, value = np.empty_like(target), start
    for t in range(len(target)):
        step = (target[t] - value) * weight[t]
        value = value + (step >> 8) + ((step & 255) > 127 + (step < 0))  # rounding_shift(step, 8)
        rows[t] = value
    return rows


def losses(rules: Rules, z: IntArray) -> tuple[IntArray, IntArray]:
    """What enters the EWMA, Q5.10, and what that of squares, Q11.20: beyond the knee Huber's."""
    if rules.knee is None:
        return z, z * z
    near = np.clip(z, -rules.knee, rules.knee)
    return near, np.abs(near) * (2 * np.abs(z) - np.abs(near))


def parts(rules: Rules, smoothed: IntArray, energy: IntArray) -> IntArray:
    """What each channel adds to the score, Q19.12 (..., channels), of averages (..., R)."""
    coarse = rounding_shift(smoothed, 6)
    each = (((coarse * coarse) >> 8) * rules.smoothed_gain + energy * rules.energy_gain) >> 8
    summed: IntArray = each.reshape(*each.shape[:-1], -1, rules.channels).sum(axis=-2)
    return summed


def threshold(rules: Rules, state: ScoreState) -> int:
    """The score above which an alarm starts, Q19.12."""
    return min(state.score_mean + rules.base + (state.excess * rules.gain >> 8), INT32_MAX)


def _alarm(rules: Rules, state: ScoreState) -> ScoreState:
    """Compare the score with the threshold: hysteresis, debounce, hold and cool-down, running means."""
    high = threshold(rules, state)
    crossed = state.score < high * rules.clear >> 8 if state.alarm else state.score > high
    mean, fraction, excess = state.score_mean, state.fraction, state.excess
    if not state.alarm and state.score <= high:
        above = state.score - mean - rules.base
        if above > 0 and rules.gain > 0:
            excess += int(rounding_shift(above - excess, rules.rate))
        if rules.depth:
            moved = fraction + state.score - mean
            mean, fraction = mean + (moved >> rules.depth), moved & ((1 << rules.depth) - 1)
    rest = max(state.rest - 1, 0)
    run, alarm = state.run + 1 if crossed and not rest else 0, state.alarm
    if run >= rules.debounce:
        run, alarm = 0, 1 - alarm
        rest = rules.hold if alarm else rules.cooldown
    return replace(state, score_mean=mean, fraction=fraction, excess=excess, run=run, rest=rest, alarm=alarm)


def run(
    rules: Rules, z: IntArray, present: BoolArray, stuck: BoolArray, state: ScoreState
) -> tuple[IntArray, IntArray, ScoreState]:
    """Score rows one after another; returns a table, contributions, and the state after them.

    z: Q5.10 (rows, R).  present, stuck: (rows, channels).  table: score, alarm and threshold (rows + 1, 3);
    contributions: (rows + 1, channels) without what is stuck; the first row of both is that of ``state``.
    """
    here = np.hstack([present] * (rules.rows // rules.channels))
    weight = np.where(here, rules.alpha, 0)
    table = [(state.score, state.alarm, threshold(rules, state))]
    contributions = [parts(rules, state.smoothed, state.energy)[None]]
    block = 1 if rules.adapt else max(len(z), 1)  # a row reads what the rows before it taught
    for begin in range(0, len(z), block):
        rows = slice(begin, begin + block)
        row = adapted(rules, z[rows], state)
        if rules.adapt:
            state = _learnt(rules, row[0], here[begin], state)
        near, square = losses(rules, row)
        smoothed = average(near << 6, state.smoothed, weight[rows])
        energy = average(square >> 8, state.energy, weight[rows])
        state = replace(state, smoothed=smoothed[-1], energy=energy[-1])
        contributions.append(parts(rules, smoothed, energy))
        counted = np.where(stuck[rows], STUCK_PART, contributions[-1])
        for value in np.where(present[rows], counted, 0).sum(axis=1).tolist():
            state = _alarm(rules, replace(state, score=value))
            table.append((value, state.alarm, threshold(rules, state)))
    return np.array(table, dtype=np.int64), np.vstack(contributions), state


def still(
    limit: npt.ArrayLike, values: npt.NDArray[np.generic], present: BoolArray, held: npt.ArrayLike,
    count: npt.ArrayLike,
) -> IntArray:  # fmt: skip
    """Rows in a row, up to ``limit`` (channels,), in which a present channel had the value it had before.

    values, present: (rows, channels), missing values held.  held, count: (channels,), before the first row.
    """
    before = np.vstack([held, values[:-1]])[: len(values)]
    changed = present & (values != before)
    equal = np.cumsum(present & ~changed, axis=0)
    since = np.maximum.accumulate(np.where(changed, equal, -1), axis=0)
    rows: IntArray = np.where(since < 0, equal + np.asarray(count), equal - since)
    return np.minimum(rows, limit).astype(np.int64)
