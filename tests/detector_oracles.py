"""Both twins of the detector written again, sample by sample in plain Python, from NUMERICS.md section 7."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_lstm.detection import fixed, floating
from edge_lstm.detection.fixed import INT32_MAX, QDetector
from edge_lstm.detection.floating import Detector, FloatDetection
from edge_lstm.predictor import LinearPredictor

Matrix = Sequence[Sequence[Any]]


@dataclass(frozen=True)
class FineCodes:
    """``network input = unit * (code - start)``, as a scaling gives it."""

    unit: float
    start: int

    def encode(self, x: np.ndarray) -> np.ndarray:
        return np.clip(np.rint(x / self.unit) + self.start, -32768, 32767).astype(np.int64)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        return self.unit * (codes - self.start)


def residuals(
    predictor: LinearPredictor, x: np.ndarray, outputs: np.ndarray, present: np.ndarray, ahead: int = 1
) -> np.ndarray:
    """Forecast errors (steps, channels) of a stream without gaps; 0 in rows without any channel."""
    taken, error = present.any(axis=1), np.zeros(x.shape)
    error[taken] = x[taken] - floating.expectations(predictor, x[taken], outputs[taken], ahead)
    return error


def real_detection(
    detector: Detector, predictor: LinearPredictor, x: np.ndarray, outputs: np.ndarray, present: np.ndarray
) -> FloatDetection:
    """The real-valued detector as the verbs run it."""
    return floating.scan(detector, residuals(predictor, x, outputs, present), x, present)


def plain_detector(
    detector: Detector, predictor: LinearPredictor, x: Matrix, outputs: Matrix, present: Matrix
) -> np.ndarray:
    """Score, alarm, threshold and contributions (steps, 3 + channels) of a stream from reset."""
    channels = range(detector.channels)
    levels = 2 if detector.level_limit else 1
    smoothed, energy = [0.0] * detector.rows, [0.0] * detector.rows
    before = [[0.0] * len(channels) for _ in range(predictor.lags)]
    added: Sequence[float] = [0.0] * len(channels)
    rule = detector.threshold
    seen, alarms, taught = 0, PlainAlarms(detector, rule), Taught(detector.rows)
    held, still = [0.0] * len(channels), [0] * len(channels)
    parts, rows = [0.0] * len(channels), []
    for t in range(len(x)):
        _count_still(detector.stuck, x[t], held, still, present[t])
        stuck = [bool(detector.stuck is not None and 0 < detector.stuck[c] == still[c]) for c in channels]
        if any(present[t]):
            seen += 1
            z = _standardized(detector, predictor, x[t], before, added, present[t])
            counts = any(present[t][c] and detector.spread[c] < np.inf for c in channels)
            if seen > detector.warmup and counts:
                calm = not alarms.alarm and alarms.score <= alarms.limit() * detector.clear
                for r in range(detector.rows):
                    if present[t][r % len(channels)]:
                        value = taught.adapt(detector, r, z[r], calm)
                        size = abs(value)
                        if detector.knee is not None and size > detector.knee[r]:
                            k = detector.knee[r]
                            near, square = (k if value > 0 else -k), 2 * k * size - k * k
                        else:
                            near, square = value, value * value
                        smoothed[r] += detector.alpha * (near - smoothed[r])
                        energy[r] += detector.alpha * (square - energy[r])
                each = [detector.smoothed_gain * s**2 + detector.energy_gain * e
                        for s, e in zip(smoothed, energy, strict=True)]  # fmt: skip
                parts = [sum(each[c + k * len(channels)] for k in range(levels)) for c in channels]
                alarms.push(sum(2048 if stuck[c] else parts[c] for c in channels if present[t][c]))
            before, added = [list(x[t]), *before][: predictor.lags], outputs[t]
        told = [2048 if stuck[c] else parts[c] for c in channels]
        rows.append((alarms.score, alarms.alarm, alarms.limit(), *told))
    return np.array(rows)


@dataclass
class Taught:
    """What a real detector learns of level and spread, row by row."""

    rows: int

    def __post_init__(self) -> None:
        self.mean, self.gain = [0.0] * self.rows, [1.0] * self.rows

    def adapt(self, detector: Detector, r: int, z: float, calm: bool) -> float:
        if detector.adapt:
            z = min(max((z - self.mean[r]) * self.gain[r], -32.0), 32767 / 1024)
        if r >= detector.channels:
            z = min(max(z, -detector.level_limit), detector.level_limit)
        if detector.adapt and calm:
            far, step = detector.adapt_limit, 2.0**-detector.adapt
            self.mean[r] = min(max(self.mean[r] + z * step, -far), far)
            moved = self.gain[r] + (detector.usual[r] - abs(z)) * step
            self.gain[r] = min(max(moved, 1 / (1 + far)), 1 + far)
        return z


class PlainAlarms:
    """Scores to alarms, row by row, in real numbers."""

    def __init__(self, detector: Detector, rule: Any) -> None:
        self.detector, self.rule = detector, rule
        self.mean, self.excess, self.score, self.run, self.alarm = rule.mean, rule.excess, 0.0, 0, 0
        self.kept = 0  # rows for which the alarm must stay

    def limit(self) -> float:
        return self.mean + self.rule.base + self.rule.gain * self.excess

    def push(self, score: float) -> None:
        high, rule, mean = self.limit(), self.rule, self.mean
        crossed = score < high * self.detector.clear if self.alarm else score > high
        if not self.alarm and score <= high:
            if rule.gain > 0 and score > mean + rule.base:
                self.excess += (score - mean - rule.base - self.excess) / 2**rule.rate
            if rule.depth:
                self.mean += (score - mean) / 2**rule.depth
        self.score, self.kept = score, self.kept - 1
        self.run = self.run + 1 if crossed and self.kept <= 0 else 0
        if self.run >= self.detector.debounce:
            self.run, self.alarm = 0, 1 - self.alarm
            self.kept = self.detector.hold if self.alarm else self.detector.cooldown


def _count_still(limits, values, held, still, present):  # type: ignore[no-untyped-def]
    """Count rows in a row with the value of the row before, in place."""
    for c in range(len(held)) if limits is not None else ():
        if present[c]:
            still[c] = min(still[c] + 1, limits[c]) if values[c] == held[c] else 0
        held[c] = values[c]


def _standardized(detector, predictor, row, before, added, present):  # type: ignore[no-untyped-def]
    """The R standardized values of one row; 0 where missing."""
    channels = range(detector.channels)
    z = []
    for c in channels:
        expected = predictor.bias[c] + predictor.spread[c] * added[c]
        for lag, past in enumerate(before):
            expected += sum(past[k] * predictor.kernel[lag][k][c] for k in channels)
        value = (row[c] - expected - detector.mean[c]) / detector.spread[c]
        z.append(min(max(value, -32.0), 32767 / 1024) if present[c] else 0.0)
    if detector.whitening is not None:
        z = [sum(detector.whitening[c][k] * z[k] for k in channels) for c in channels]
        z = [min(max(value, -32.0), 32767 / 1024) for value in z]
    for c in channels if detector.level_limit else ():
        value = (row[c] - detector.mean[len(channels) + c]) / detector.spread[len(channels) + c]
        z.append(min(max(value, -32.0), 32767 / 1024) if present[c] else 0.0)
    return z


def in_32(value: int) -> int:
    """The value, which C holds in an int32."""
    assert -(2**31) <= value < 2**31, value
    return value


def shifted(value: int, shift: int) -> int:
    """Divided by 2**shift, to nearest, ties away from zero."""
    size = in_32(abs(value) + ((1 << shift) >> 1)) >> shift
    return size if value >= 0 else -size


def saturated(value: int) -> int:
    return min(max(value, -32768), 32767)


def product(matrix: Matrix, column: Sequence[int], shift: int) -> list[int]:
    """sat16 of a matrix of int16 times int16, every partial sum within 32 bits."""
    found = []
    for row in matrix:
        acc = 0
        for a, b in zip(row, column, strict=True):
            acc = in_32(acc + a * b)
        found.append(saturated(shifted(acc, shift)))
    return found


def integer_detector(q: QDetector, fine: Matrix, forecast: Matrix, present: Matrix) -> np.ndarray:
    """Score, alarm, threshold and contributions of a stream from reset, every sum checked for 32 bits."""
    n, weight = q.channels, q.residual_weight.tolist()
    smoothed, energy = [0] * q.rows, [0] * q.rows
    kept = [q.start] * (n * q.lags)
    to_come: list[Sequence[int]] = [[q.output_zero_point] * n] * q.ahead
    seen, parts, rows = 0, [0] * n, []
    alarms, taught = IntegerAlarms(q), IntegerTaught(q)
    held, still = [q.start] * n, [0] * n
    for t in range(len(fine)):
        _count_still(q.stuck, fine[t], held, still, present[t])
        stuck = [q.stuck is not None and 0 < q.stuck[c] == still[c] for c in range(n)]
        if any(present[t]):
            seen += 1
            to_come.append(forecast[t])
            y = to_come.pop(0)
            if seen > q.warmup and any(present[t][c] and weight[c] for c in range(n)):
                z = _integer_row(q, weight, [*fine[t], *kept], y, present[t])
                calm = not alarms.alarm and alarms.score <= alarms.limit() * q.clear >> 8
                for r in range(q.rows):
                    if present[t][r % n]:
                        near, square = _loss(q, r, taught.adapt(q, r, z[r], calm))
                        smoothed[r] += shifted(in_32((near * 64 - smoothed[r]) * q.alpha), 8)
                        energy[r] += shifted(in_32((square >> 8) - energy[r]) * q.alpha, 8)
                parts = [sum(_part(q, smoothed[r], energy[r]) for r in range(c, q.rows, n)) for c in range(n)]
                counted = [2**23 if stuck[c] else parts[c] for c in range(n)]
                alarms.push(in_32(sum(counted[c] for c in range(n) if present[t][c])))
            kept = [*fine[t], *kept][: n * q.lags]
        told = [2**23 if stuck[c] else parts[c] for c in range(n)]
        rows.append((alarms.score, alarms.alarm, alarms.limit(), *told))
    return np.array(rows, dtype=np.int64)


def _loss(q: QDetector, r: int, z: int) -> tuple[int, int]:
    """What enters the EWMA and, in Q11.20, that of squares."""
    knee = 32768 if q.knee is None else int(q.knee[r])
    if abs(z) <= knee:
        return z, in_32(z * z)
    return (knee if z > 0 else -knee), in_32(knee * (2 * abs(z) - knee))


class IntegerTaught:
    """What an integer detector learns of level and spread, row by row."""

    def __init__(self, q: QDetector) -> None:
        self.mean, self.gain = [0] * q.rows, [1024 * 2**q.adapt] * q.rows

    def adapt(self, q: QDetector, r: int, z: int, calm: bool) -> int:
        if q.adapt:
            factor = self.gain[r] // 2**q.adapt
            z = saturated(shifted(in_32((z - self.mean[r] // 2**q.adapt) * factor), 10))
        if r >= q.channels:
            z = min(max(z, -q.level_limit), q.level_limit)
        if q.adapt and calm:
            far, unit = q.adapt_limit * 2**q.adapt, 2**q.adapt
            self.mean[r] = min(max(in_32(self.mean[r] + z), -far), far)
            moved = in_32(self.gain[r] + int(q.usual[r]) - abs(z))
            self.gain[r] = min(max(moved, 2**20 // (1024 + q.adapt_limit) * unit), in_32(1024 * unit + far))
        return z


class IntegerAlarms:
    """Scores to alarms, row by row, in integers."""

    def __init__(self, q: QDetector) -> None:
        self.q, self.excess, self.score, self.run, self.alarm = q, q.excess, 0, 0, 0
        self.total = q.score_mean * 2**q.depth  # 2**depth times the running mean
        self.kept = 0  # rows for which the alarm must stay

    def limit(self) -> int:
        mean = self.total // 2**self.q.depth
        return min(mean + self.q.base + (self.excess * self.q.gain >> 8), 2**31 - 1)

    def push(self, score: int) -> None:
        q, high, mean = self.q, self.limit(), self.total // 2**self.q.depth
        crossed = score < high * q.clear >> 8 if self.alarm else score > high
        if not self.alarm and score <= high:
            above = in_32(score - mean) - q.base
            if q.gain > 0 and above > 0:
                self.excess = in_32(self.excess + shifted(in_32(above - self.excess), q.rate))
            if q.depth:
                in_32(self.total % 2**q.depth + score - mean)
                self.total += score - mean
        self.score, self.kept = score, self.kept - 1
        self.run = self.run + 1 if crossed and self.kept <= 0 else 0
        if self.run >= q.debounce:
            self.run, self.alarm = 0, 1 - self.alarm
            self.kept = q.hold if self.alarm else q.cooldown


def _integer_row(q, weight, fine, y, present):  # type: ignore[no-untyped-def]
    """Q5.10 values of the R scored rows; fine: the present row, then those before it."""
    n, offset, added = q.channels, q.offset.tolist(), q.output_weight.tolist()
    formed = fine[:n] if q.forms is None else product(q.forms.tolist(), fine, q.forms_shift)
    z = []
    for c in range(n):
        acc = in_32(in_32(weight[c] * formed[c]) - in_32(added[c] * (y[c] - q.output_zero_point)))
        z.append(saturated(shifted(in_32(acc - offset[c]), q.shift)) if present[c] else 0)
    if q.whitening is not None:
        z = product(q.whitening.tolist(), z, q.whitening_shift)
    for c in range(n if q.level_limit else 0):
        value = shifted(in_32(in_32(weight[n + c] * fine[c]) - offset[n + c]), q.shift)
        z.append(saturated(value) if present[c] else 0)
    return z


def _part(q: QDetector, smoothed: int, energy: int) -> int:
    coarse = shifted(smoothed, 6)
    doubled = (in_32(coarse * coarse) >> 8) * q.smoothed_gain + energy * q.energy_gain
    assert 0 <= doubled <= 2**31, doubled  # unsigned in C
    return doubled >> 8


def largest_detector(
    alpha: int = 256, output_zero_point: int = -128, output_bits: int = 8, ahead: int = 1
) -> QDetector:
    """Two channels with every constant at the end of its range."""
    weight, most = 32767, 2**output_bits - 1
    added = 2**29 // most
    rest = INT32_MAX - 2**19 - 32768 * weight
    return QDetector(
        start=-32768, lags=1, forms=[[32767, 32767, 1, 0], [-32767, 32767, 0, -1]], forms_shift=0,
        residual_weight=[weight] * 4, output_weight=[added] * 2, output_zero_point=output_zero_point,
        offset=[rest - most * added, most * added - rest, rest, 0], shift=0, level_limit=32767,
        whitening=[[32767, -32767], [32767, 32767]], whitening_shift=0, alpha=alpha, smoothed_gain=256,
        energy_gain=256, base=INT32_MAX - 1, excess=INT32_MAX, gain=2**24, rate=0, clear=256, debounce=1,
        warmup=max(1, ahead), ahead=ahead, output_bits=output_bits,
    )  # fmt: skip


def columns(detection: fixed.Detection | FloatDetection) -> np.ndarray:
    """A detection as the oracles give it."""
    return np.column_stack([detection.score, detection.alarm, detection.threshold, detection.contributions])
