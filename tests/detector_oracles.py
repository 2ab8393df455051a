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
    predictor: LinearPredictor, x: np.ndarray, outputs: np.ndarray, present: np.ndarray
) -> np.ndarray:
    """Forecast errors (steps, channels) of a stream without gaps; 0 in rows without any channel."""
    taken, error = present.any(axis=1), np.zeros(x.shape)
    error[taken] = x[taken] - floating.expectations(predictor, x[taken], outputs[taken])
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
    excess, score, seen, run, alarm = rule.excess, 0.0, 0, 0, 0
    parts, rows = [0.0] * len(channels), []
    for t in range(len(x)):
        if any(present[t]):
            seen += 1
            z = _standardized(detector, predictor, x[t], before, added, present[t])
            if seen > detector.warmup:
                for r in range(detector.rows):
                    if present[t][r % len(channels)]:
                        smoothed[r] += detector.alpha * (z[r] - smoothed[r])
                        energy[r] += detector.alpha * (z[r] ** 2 - energy[r])
                each = [detector.smoothed_gain * s**2 + detector.energy_gain * e
                        for s, e in zip(smoothed, energy, strict=True)]  # fmt: skip
                parts = [sum(each[c + k * len(channels)] for k in range(levels)) for c in channels]
                score = sum(parts[c] for c in channels if present[t][c])
                high = rule.base + rule.gain * excess
                run = run + 1 if (score < high * detector.clear if alarm else score > high) else 0
                if rule.gain > 0 and not alarm and rule.base < score <= high:
                    excess += (score - rule.base - excess) / 2**rule.rate
                if run >= detector.debounce:
                    run, alarm = 0, 1 - alarm
            before, added = [list(x[t]), *before][: predictor.lags], outputs[t]
        rows.append((score, alarm, rule.base + rule.gain * excess, *parts))
    return np.array(rows)


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
        z.append(min(max(value, -detector.level_limit), detector.level_limit) if present[c] else 0.0)
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
    y: Sequence[int] = [q.output_zero_point] * n
    excess, score, seen, run, alarm, parts, rows = q.excess, 0, 0, 0, 0, [0] * n, []
    for t in range(len(fine)):
        if any(present[t]):
            seen += 1
            if seen > q.warmup:
                z = _integer_row(q, weight, [*fine[t], *kept], y, present[t])
                for r in range(q.rows):
                    if present[t][r % n]:
                        smoothed[r] += shifted(in_32((z[r] * 64 - smoothed[r]) * q.alpha), 8)
                        energy[r] += shifted(in_32(((z[r] * z[r]) >> 8) - energy[r]) * q.alpha, 8)
                parts = [sum(_part(q, smoothed[r], energy[r]) for r in range(c, q.rows, n)) for c in range(n)]
                score = in_32(sum(parts[c] for c in range(n) if present[t][c]))
                high = min(q.base + (excess * q.gain >> 8), 2**31 - 1)
                run = run + 1 if (score < high * q.clear >> 8 if alarm else score > high) else 0
                if q.gain > 0 and not alarm and q.base < score <= high:
                    excess = in_32(excess + shifted(in_32(score - q.base - excess), q.rate))
                if run >= q.debounce:
                    run, alarm = 0, 1 - alarm
            kept, y = [*fine[t], *kept][: n * q.lags], forecast[t]
        rows.append((score, alarm, min(q.base + (excess * q.gain >> 8), 2**31 - 1), *parts))
    return np.array(rows, dtype=np.int64)


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
        z.append(min(max(value, -q.level_limit), q.level_limit) if present[c] else 0)
    return z


def _part(q: QDetector, smoothed: int, energy: int) -> int:
    coarse = shifted(smoothed, 6)
    doubled = (in_32(coarse * coarse) >> 8) * q.smoothed_gain + energy * q.energy_gain
    assert 0 <= doubled <= 2**31, doubled  # unsigned in C
    return doubled >> 8


def largest_detector(alpha: int = 256, output_zero_point: int = -128) -> QDetector:
    """Two channels with every constant at the end of its range."""
    weight, added = 32767, 2**21
    rest = INT32_MAX - 2**19 - 32768 * weight
    return QDetector(
        start=-32768, lags=1, forms=[[32767, 32767, 1, 0], [-32767, 32767, 0, -1]], forms_shift=0,
        residual_weight=[weight] * 4, output_weight=[added] * 2, output_zero_point=output_zero_point,
        offset=[rest - 255 * added, 255 * added - rest, rest, 0], shift=0, level_limit=32767,
        whitening=[[32767, -32767], [32767, 32767]], whitening_shift=0, alpha=alpha, smoothed_gain=256,
        energy_gain=256, base=INT32_MAX - 1, excess=INT32_MAX, gain=2**24, rate=0, clear=256, debounce=1,
        warmup=1,
    )  # fmt: skip


def columns(detection: fixed.Detection | FloatDetection) -> np.ndarray:
    """A detection as the oracles give it."""
    return np.column_stack([detection.score, detection.alarm, detection.threshold, detection.contributions])
