"""Fit a detector on the residuals of normal rows, and round it to the integers that the C runs.

Reads residuals and the rows known to be normal; writes a Detector and a QDetector.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edge_lstm.arrays import BoolArray, FloatArray
from edge_lstm.detection import fixed, floating
from edge_lstm.detection.config import DetectorConfig
from edge_lstm.detection.fixed import INT32_MAX, QDetector
from edge_lstm.detection.floating import Detector
from edge_lstm.detection.linear import cross_validated
from edge_lstm.detection.normal_rows import huber_likelihood, still_limits, usual_deviation
from edge_lstm.detection.thresholds import (
    Threshold,
    dynamic_threshold,
    pot_threshold,
    quantile_threshold,
    sigma_threshold,
)
from edge_lstm.errors import DataError, ModelError, raise_all
from edge_lstm.fixedpoint import IntArray
from edge_lstm.optional import require
from edge_lstm.predictor import LinearPredictor

MIN_ROWS = 50  # of normal residuals a channel, for its mean and spread
FLOOR = 0.01  # of a residual's spread, network units
LEVEL_FLOOR = 0.05  # of the spread of an input itself, network units
USUAL = 0.99  # quantile of normal scores at which both averages count alike
# Directions in which normal residuals hardly vary are not magnified more than 1 / sqrt(this):
# their variance is that of the codes, not of the machine.
MIN_EIGENVALUE = 0.01
OUTLIER = 4.0  # spreads: rare jumps beyond say little about correlation, and would end the shrinkage at 1
PLACEHOLDER = Threshold("sigma", 0.0)


class Codes(Protocol):
    """``real = scale * (code - zero_point)``; ``qgraph.Quantization`` is one."""

    @property
    def scale(self) -> float: ...

    @property
    def zero_point(self) -> int: ...

    @property
    def bits(self) -> int: ...


class Fine(Protocol):
    """``network input = unit * (fine code - start)``; ``scaling.QScaling`` is one."""

    @property
    def unit(self) -> float: ...

    @property
    def start(self) -> int: ...


def fit_detector(
    residual: FloatArray,
    x: FloatArray,
    present: BoolArray,
    normal: BoolArray,
    config: DetectorConfig,
    floor: float = FLOOR,
    scored: BoolArray | None = None,
) -> Detector:
    """Fit a detector on the residuals of a training stream.

    residual: (steps, channels) in network units, of normal rows as for rows that the forecaster has not seen.
    x, present: (steps, channels), network inputs.  normal: bool (steps,), the rows to learn from.
    floor: smallest spread, network units; a channel whose residual hardly varies would otherwise alarm
    at the flicker of one code.  scored: bool (channels,), None: all; the spread of the others is infinite.
    Raises DataError where there are too few rows.
    """
    scored = np.ones(x.shape[1], dtype=bool) if scored is None else scored
    rows = np.flatnonzero(present.any(axis=1))[config.warmup :]
    rows = rows[np.asarray(normal, dtype=bool)[rows] & (present & scored)[rows].any(axis=1)]
    residual, x, present = residual[rows], x[rows], present[rows] & scored
    if not np.isfinite(residual[present]).all():
        raise DataError("detector: residuals hold NaN or infinity; the forecaster diverged, train it again")
    mean, spread = _moments(residual, present, floor, scored)
    whitening = None
    if config.weighting == "mahalanobis":
        whitening = _whitening((residual - mean) / spread, present, scored)
    if config.level:
        level, level_mean, level_spread = _levels(x, present)
        level_spread = np.where(scored, level_spread, np.inf)
        mean, spread = np.concatenate([mean, level_mean]), np.concatenate([spread, level_spread])
    detector = Detector(
        mean, spread, config.level, whitening, round(config.alpha * 256) / 256, 1.0, 0.0, PLACEHOLDER,
        round(config.clear * 256) / 256, config.debounce, config.warmup, config.hold, config.cooldown,
        stuck=still_limits(x, present, config.stuck) if config.stuck else None,
    )  # fmt: skip
    z = floating.standardize(detector, residual, level if config.level else x, present)
    if config.weighting == "likelihood":
        detector, z = _with_knees(detector, z, present, floor)
    detector = _balance(detector, config.smoothing, z, present)
    if config.adapt:
        detector = _adapting(detector, config, z, present)
    return _with_threshold(detector, fit_threshold(floating.score_rows(detector, z, present), config))


def _with_threshold(detector: Detector, threshold: Threshold) -> Detector:
    """The detector with its threshold; DataError where no score reaches it."""
    scored = np.isfinite(detector.spread)
    most, channels = int(scored.sum()) * floating.MAX_ROW_SCORE, int(scored[: detector.channels].sum())
    if threshold.value >= most:
        raise DataError(
            f"threshold: {threshold.value:.4g}, but scores of {channels} channels end at "
            f"{most:.4g}: it could never alarm; label the outliers in the normal rows, or use "
            'threshold = "quantile"'
        )
    return replace(detector, threshold=threshold)


def _with_knees(
    detector: Detector, z: FloatArray, present: BoolArray, floor: float
) -> tuple[Detector, FloatArray]:
    """The detector with knees and the spreads that go with them; z by these."""
    spread, knee = huber_likelihood(z, floating.every_row(detector, present))
    floors = np.full(detector.rows, floor)
    floors[detector.channels :] = LEVEL_FLOOR
    kept = np.isfinite(detector.spread)
    ratio = np.where(kept, np.maximum(spread, floors / detector.spread), 1.0)
    return replace(detector, spread=ratio * detector.spread, knee=knee), z / ratio


def _adapting(detector: Detector, config: DetectorConfig, z: FloatArray, present: BoolArray) -> Detector:
    """The detector with level and spread that follow the stream."""
    row = floating.adapted(detector, z, floating.start(detector))
    usual = usual_deviation(row, floating.every_row(detector, present))
    adapt = round(math.log2(config.adapt))
    return replace(detector, usual=usual, adapt=adapt, adapt_limit=config.adapt_limit)


def _levels(x: FloatArray, present: BoolArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Inputs as if the mean of the others stood for each piece of time; their mean, their spread."""
    count = np.maximum(present.sum(axis=0), 1)

    def deviation(learn: BoolArray) -> FloatArray:
        counted = present & learn[:, None]
        found: FloatArray = x - np.where(counted, x, 0.0).sum(axis=0) / np.maximum(counted.sum(axis=0), 1)
        return found

    apart = cross_validated(deviation, np.ones(len(x), dtype=bool))
    mean = np.where(present, x, 0.0).sum(axis=0) / count
    spread = np.sqrt(np.where(present, apart**2, 0.0).sum(axis=0) / count)
    return mean + apart, mean, np.maximum(spread, LEVEL_FLOOR)


def _balance(detector: Detector, smoothing: str, z: FloatArray, present: BoolArray) -> Detector:
    """Give both averages the same usual size; the larger weight is 1."""
    gains = []
    for pair in ((1.0, 0.0), (0.0, 1.0)):
        alone = replace(detector, smoothed_gain=pair[0], energy_gain=pair[1])
        score = floating.score_rows(alone, z, present)
        gains.append(1.0 / max(float(np.quantile(score, USUAL)), 1e-9))
    if smoothing != "both":
        gains = [float(smoothing == "residual"), float(smoothing == "square")]
    codes = [max(1, round(256 * gain / max(gains))) if gain else 0 for gain in gains]
    return replace(detector, smoothed_gain=codes[0] / 256, energy_gain=codes[1] / 256)


def fit_threshold(score: FloatArray, config: DetectorConfig) -> Threshold:
    """The alarm threshold from normal scores (rows,) by the rule of ``config``."""
    if config.threshold == "quantile":
        return quantile_threshold(score, config.quantile)
    if config.threshold == "sigma":
        return sigma_threshold(score, config.sigma)
    if config.threshold == "dynamic":
        return dynamic_threshold(score, config.rate, config.depth)
    depth = config.depth if config.threshold == "dspot" else 0
    return pot_threshold(score, config.risk, config.tail, config.rate, depth)


def _moments(
    residual: FloatArray, present: BoolArray, floor: float, scored: BoolArray
) -> tuple[FloatArray, FloatArray]:
    """Mean and floored standard deviation of each channel's present residuals; 0 and infinite of context."""
    if not (math.isfinite(floor) and floor > 0):
        raise DataError(f"detector: the spread's floor is {floor}, expected a number above 0")
    count = present.sum(axis=0)
    problems = [
        f"channel {channel} has {rows} normal rows with a residual, expected {MIN_ROWS} or more"
        for channel, rows in enumerate(count)
        if rows < MIN_ROWS and scored[channel]
    ]
    if problems:
        problems.append("give more normal training rows, or a shorter warm-up")
    raise_all(DataError, "detector", problems)
    count = np.maximum(count, 1)
    mean = np.where(present, residual, 0.0).sum(axis=0) / count
    variance = np.where(present, (residual - mean) ** 2, 0.0).sum(axis=0) / count
    return mean, np.where(scored, np.maximum(np.sqrt(variance), floor), np.inf)


def _whitening(z: FloatArray, present: BoolArray, scored: BoolArray) -> FloatArray:
    """Symmetric (ZCA) whitening of standardized residuals: component c stays closest to channel c.

    The covariance is shrunk by Ledoit and Wolf's rule, over rows with every scored channel; context is 0.
    """
    z, present = z[:, scored], present[:, scored]
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
    whitening = np.zeros((len(scored), len(scored)))
    whitening[np.ix_(scored, scored)] = (vectors / np.sqrt(np.maximum(values, MIN_EIGENVALUE))) @ vectors.T
    return whitening


def quantize_detector(
    detector: Detector, predictor: LinearPredictor, fine: Fine, output: Codes, ahead: int = 1
) -> QDetector:
    """Round a detector to the integers of ``fixed.py``.

    fine: how the detector reads the inputs.  output: how the network's outputs are coded; after row t they
    are of row t + ahead.  Each weight keeps as many bits as 32-bit sums allow.  Raises ModelError where a
    constant does not fit.
    """
    forms, forms_shift = _quantize_forms(predictor)
    offset = (detector.mean + _rest(predictor, fine, detector.rows, forms, forms_shift)) / detector.spread
    weight = fine.unit / detector.spread
    added = output.scale * predictor.spread / detector.spread[: detector.channels]
    shift = _residual_shift(detector, weight, added * (2**output.bits - 1), offset)
    scale = 2.0 ** (fixed.RESIDUAL_BITS + shift)
    whitening, whitening_shift = _quantize_matrix("whitening", detector.whitening)
    return QDetector(
        start=fine.start,
        lags=predictor.lags,
        forms=forms,
        forms_shift=forms_shift,
        residual_weight=np.rint(weight * scale).astype(np.int64),
        output_weight=np.rint(added * scale).astype(np.int64),
        output_zero_point=output.zero_point,
        offset=np.rint(offset * scale).astype(np.int64),
        shift=shift,
        level_limit=round(detector.level_limit * 2**fixed.RESIDUAL_BITS),
        whitening=whitening,
        whitening_shift=whitening_shift,
        warmup=max(detector.warmup, predictor.lags, ahead),
        ahead=ahead,
        output_bits=output.bits,
        **_quantize_scores(detector),
    )


def _quantize_scores(detector: Detector) -> dict[str, Any]:
    """What follows the standardized residuals, as fields of a QDetector."""
    rule, unit = detector.threshold, 2**fixed.SCORE_BITS
    return {
        "alpha": round(detector.alpha * 256),
        "smoothed_gain": round(detector.smoothed_gain * 256),
        "energy_gain": round(detector.energy_gain * 256),
        "base": _in_32_bits("base", rule.base * unit),
        "excess": _in_32_bits("excess", rule.excess * unit),
        "gain": round(rule.gain * 256),
        "rate": rule.rate,
        "score_mean": _in_32_bits("mean", rule.mean * unit),
        "depth": rule.depth,
        "clear": round(detector.clear * 256),
        "debounce": detector.debounce,
        "hold": detector.hold,
        "cooldown": detector.cooldown,
        "knee": _in_residual_bits(detector.knee),
        "adapt": detector.adapt,
        "adapt_limit": round(detector.adapt_limit * 2**fixed.RESIDUAL_BITS),
        "usual": _in_residual_bits(detector.usual),
        "stuck": detector.stuck,
    }


def _rest(
    predictor: LinearPredictor, fine: Fine, rows: int, forms: npt.NDArray[np.int16] | None, forms_shift: int
) -> FloatArray:
    """What forms and inputs give of a stream of zeros, and the line's bias, network units (rows,)."""
    rest = np.full(rows, fine.unit * fine.start)
    if forms is not None:
        rest[: predictor.channels] *= forms.astype(np.int64).sum(axis=1) / 2.0**forms_shift
    rest[: predictor.channels] += predictor.bias
    return rest


def _residual_shift(detector: Detector, weight: FloatArray, added: FloatArray, offset: FloatArray) -> int:
    """Bits below Q5.10 that the residuals' constants may have; ModelError where there are not even 0.

    added: the most that the outputs add, in spreads.
    """
    bound = 32768 * weight + np.abs(offset)
    bound[: detector.channels] += added
    most = INT32_MAX - 2**20  # room for half of the largest shift, and for the roundings of all weights
    shift = min(20, math.floor(math.log2(most / bound.max())) - fixed.RESIDUAL_BITS)
    if shift < 0:
        row = int(bound.argmax())
        raise ModelError(
            f"detector: channel {row % detector.channels} has a spread of {detector.spread[row]:.4g} around "
            f"{detector.mean[row]:.4g}, too small for 32 bits; fit it with a larger floor"
        )
    return shift


def _in_residual_bits(spreads: FloatArray | None) -> IntArray | None:
    if spreads is None:
        return None
    codes: IntArray = np.minimum(np.rint(spreads * 2**fixed.RESIDUAL_BITS), 32767).astype(np.int64)
    return codes


def _in_32_bits(name: str, value: float) -> int:
    if value > INT32_MAX:
        raise ModelError(
            f"detector: the threshold's {name} is {value / 2**fixed.SCORE_BITS:.4g}, expected below "
            f"{2 ** (31 - fixed.SCORE_BITS)}; scores end at {floating.MAX_ROW_SCORE:.0f} a row"
        )
    return round(value)


def _quantize_forms(predictor: LinearPredictor) -> tuple[npt.NDArray[np.int16] | None, int]:
    """The error of the linear forecast over the present row and those before it, newest first."""
    present = np.eye(predictor.channels)
    if predictor.contemporaneous is not None:
        present = present - predictor.contemporaneous.T
    elif not predictor.lags:
        return None, 0
    past = -predictor.kernel.transpose(2, 0, 1).reshape(predictor.channels, -1)
    return _quantize_matrix("linear predictor", np.hstack([present, past]))


def _quantize_matrix(name: str, matrix: FloatArray | None) -> tuple[npt.NDArray[np.int16] | None, int]:
    """Codes and shift with ``matrix = codes / 2**shift``: the largest shift that cannot overflow."""
    if matrix is None:
        return None, 0
    for shift in range(15, -1, -1):
        codes = np.rint(matrix * 2.0**shift)
        if np.abs(codes).max() <= 32767 and np.abs(codes).sum(axis=1).max() <= 65535:
            return codes.astype(np.int16), shift
    raise ModelError(
        f"detector: the {name}'s largest entry is {np.abs(matrix).max():.4g}, its rows must sum below 65536; "
        'use fewer lags or weighting = "spread"'
    )
