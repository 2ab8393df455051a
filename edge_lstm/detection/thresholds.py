"""Alarm thresholds from the scores of normal rows: quantile, k sigma, peaks over threshold, running ones.

Reads scores, no labels; writes a Threshold.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edge_lstm.arrays import FloatArray
from edge_lstm.errors import DataError, ModelError, raise_all

KINDS = ("quantile", "sigma", "pot", "dynamic", "dspot")
MIN_SCORES = 50
MIN_PEAKS = 10
TRIMMED = 0.98  # quantile above which scores count neither in the mean nor in the deviation
DEVIATIONS = np.arange(2.5, 12.5, 0.5)  # that the dynamic threshold chooses from, telemanom's


@dataclass(frozen=True)
class Threshold:
    """An alarm threshold ``mean + base + gain * excess`` in squared spreads.

    gain 0: excess stays.  Otherwise ``excess`` is the running mean of the scores' excess over mean + base,
    which moves by ``1 / 2**rate`` with every score between that and the threshold while there is no alarm.
    depth 0: mean is 0.  Otherwise it is the running mean of the scores, which moves by ``1 / 2**depth`` with
    every score up to the threshold while there is no alarm.
    """

    kind: str
    base: float
    gain: float = 0.0
    excess: float = 0.0
    rate: int = 0
    mean: float = 0.0
    depth: int = 0

    def __post_init__(self) -> None:
        problems = []
        if self.kind not in KINDS:
            problems.append(f"kind '{self.kind}' is unknown; choose one of {', '.join(KINDS)}")
        for name in ("base", "gain", "excess", "mean"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                problems.append(f"{name} is {value}, expected a finite number of 0 or more")
        problems += [
            f"{name} is {getattr(self, name)}, expected 0 .. 20"
            for name in ("rate", "depth")
            if not 0 <= getattr(self, name) <= 20
        ]
        if self.mean and not self.depth:
            problems.append(f"mean is {self.mean} with depth 0, expected 0; add it to base")
        raise_all(ModelError, "threshold", problems)

    @property
    def value(self) -> float:
        """The threshold at the start of a stream."""
        return self.mean + self.base + self.gain * self.excess


def check_scores(score: FloatArray) -> None:
    """Raise DataError where there are too few scores for any rule."""
    if len(score) < MIN_SCORES:
        raise DataError(
            f"threshold: {len(score)} scored normal rows, expected {MIN_SCORES} or more; give more normal "
            "training rows, or a shorter warm-up"
        )


def quantile_threshold(score: FloatArray, quantile: float) -> Threshold:
    """The ``quantile`` (0 .. 1) of normal scores (rows,)."""
    check_scores(score)
    return Threshold("quantile", float(np.quantile(score, quantile)))


def sigma_threshold(score: FloatArray, sigma: float) -> Threshold:
    """Mean plus ``sigma`` standard deviations of normal scores (rows,), without the highest of them.

    The recording may hold faults that nobody has labelled; they must not raise the threshold.
    """
    check_scores(score)
    usual = score[score <= np.quantile(score, TRIMMED)]
    return Threshold("sigma", float(np.mean(usual) + sigma * np.std(usual)))


def running_mean(score: FloatArray, depth: int) -> FloatArray:
    """The mean of the scores (rows,) as a device follows it: before each row, from the mean of all."""
    from scipy.signal import lfilter

    mean, step = float(np.mean(score)), 2.0**-depth
    followed: FloatArray = lfilter([step], [1.0, step - 1.0], score, zi=[mean * (1.0 - step)])[0]
    return np.append(mean, followed[:-1])


def pot_threshold(score: FloatArray, risk: float, tail: float, rate: int, depth: int = 0) -> Threshold:
    """Peaks over threshold: the level that a normal score exceeds with probability ``risk``.

    score: normal scores (rows,).  tail: the fraction of them above ``base``, at least 10 of them.
    depth: 0, or DSPOT of the same authors: the same over the running mean of 2**depth scores.
    SPOT (Siffer et al., "Anomaly detection in streams with extreme value theory", KDD 2017) models the
    excesses over ``base`` by a generalized Pareto distribution of scale sigma and shape xi, and alarms at
    ``base + sigma / xi * ((risk * n / peaks) ** -xi - 1)``; with their mean m = sigma / (1 - xi) that is
    ``base + m * pot_gain(xi, risk * n / peaks)``.  Simplified, so that a sample costs one addition and
    one shift: base, xi and peaks / n stay as fitted, and only m follows the stream, as a running mean
    instead of a refit.  A fault that grows slower than m follows is taken for normal.
    xi by the method of moments (Hosking and Wallis, Technometrics 29, 1987).
    """
    check_scores(score)
    mean = float(np.mean(score)) if depth else 0.0
    score = score - running_mean(score, depth) if depth else score
    tail = max(tail, MIN_PEAKS / len(score))
    base = float(np.quantile(score, 1.0 - tail))
    excess = score[score > base] - base
    if len(excess) < MIN_PEAKS:  # many equal scores: a stream that hardly moves
        raise DataError(
            f"threshold: {len(excess)} of {len(score)} normal scores lie above their "
            f"{1 - tail:.3g} quantile, expected {MIN_PEAKS} or more; the stream hardly "
            'varies: use threshold = "sigma"'
        )
    gain = pot_gain(pareto_shape(excess), risk * len(score) / len(excess))
    return Threshold("dspot" if depth else "pot", base, gain, float(np.mean(excess)), rate, mean, depth)


def dynamic_threshold(score: FloatArray, rate: int, depth: int) -> Threshold:
    """The running mean of the scores plus z of their deviations, z chosen on normal scores (rows,).

    Hundman et al., "Detecting spacecraft anomalies using LSTMs and nonparametric dynamic thresholding",
    KDD 2018: of ``DEVIATIONS`` the z without whose rows above it the scores' mean and deviation fall most
    for the fewest such rows and runs of them; 12 where no row lies above any.  On the device the deviation
    is the mean excess of scores over their running mean, which moves by ``1 / 2**rate``, times what it is of
    that here.
    """
    check_scores(score)
    mean = float(np.mean(score))
    around = score - running_mean(score, depth) + mean
    deviation = float(np.std(around))
    gains = [_fall(around, mean + z * deviation) for z in DEVIATIONS]
    z = float(DEVIATIONS[int(np.argmax(gains))] if max(gains) > 0 else DEVIATIONS[-1])
    above = around[(around > mean) & (around <= mean + z * deviation)] - mean
    if not len(above) or not deviation > 0:
        raise DataError(
            'threshold: all normal scores are equal; the stream hardly varies: use threshold = "sigma"'
        )
    excess = float(np.mean(above))
    return Threshold("dynamic", 0.0, z * deviation / excess, excess, rate, mean, depth)


def _fall(score: FloatArray, limit: float) -> float:
    """Relative fall of mean and deviation without the scores above ``limit``, by their rows and runs**2."""
    above = score > limit
    runs = int(above[0]) + int((above[1:] & ~above[:-1]).sum())
    if not runs or above.mean() >= 0.5:
        return 0.0
    rest = score[~above]
    fall = 2.0 - float(np.mean(rest)) / float(np.mean(score)) - float(np.std(rest)) / float(np.std(score))
    return fall / (int(above.sum()) + runs**2)


def pareto_shape(excess: FloatArray) -> float:
    """Shape xi of the generalized Pareto distribution with the mean and variance of ``excess``; below 1/2."""
    mean, variance = float(np.mean(excess)), float(np.var(excess, ddof=1))
    return 0.5 * (1.0 - mean * mean / variance) if variance > 0 else -math.inf


def pot_gain(shape: float, ratio: float) -> float:
    """Excess of the alarm level in mean excesses, for ``ratio`` = risk / tail fraction, 0 < ratio < 1."""
    if shape == -math.inf:
        return 1.0  # all excesses equal: the bound of the distribution
    if abs(shape) < 1e-6:
        return -math.log(ratio)
    return (1.0 - shape) / shape * math.expm1(-shape * math.log(ratio))
