"""How residuals become alarms: the options of a detector."""

from __future__ import annotations

from dataclasses import dataclass

from edge_lstm.detection.thresholds import KINDS
from edge_lstm.errors import ConfigError, raise_all

WEIGHTINGS = ("spread", "mahalanobis", "likelihood")
SMOOTHINGS = ("both", "residual", "square")


@dataclass(frozen=True)
class DetectorConfig:
    """How residuals become alarms.

    weighting: "spread" (inverse spread a channel), "mahalanobis" (decorrelated as well) or "likelihood" (of
    errors with exponential tails, fitted for each channel: rare large ones count less).
    smoothing: "residual" (its EWMA, squared: lasting deviations), "square" (the EWMA of its squares: noise
    and shapes), or "both", each divided by what is usual.
    alpha: EWMA weight of the new residual, 0 .. 1; the detector rounds it to 1/256.
    level: spreads up to which the deviation of the input itself from its mean counts; 0: not at all.
    threshold: "quantile" of the normal scores, "sigma" (mean + sigma deviations), "pot" (streaming peaks
    over threshold), "dspot" (the same above the running mean of the scores) or "dynamic" (the running mean
    + z running deviations, z found without labels).
    quantile: of the normal scores, for "quantile".
    sigma: standard deviations above the mean of the usual normal scores, for "sigma".
    risk: probability that a normal row exceeds the threshold, for "pot" and "dspot".
    tail: share of the normal scores that count as peaks, for "pot" and "dspot".
    rate: the mean of the peaks follows the stream over 2**rate of them, for "pot", "dspot" and "dynamic".
    depth: the mean of the scores follows the stream over 2**depth rows, for "dspot" and "dynamic".
    debounce: rows in a row that start or end an alarm.  clear: an alarm ends below clear * threshold.
    hold: rows for which an alarm lasts at least.  cooldown: rows after an alarm in which none starts.
    warmup: rows after a reset without a score.
    adapt: rows over which level and spread of each channel follow the stream while nothing is raised, as the
    nearest power of two; 0: not at all.
    adapt_limit: spreads by which the level may leave the trained one; the spread may become
    1 + adapt_limit times as large or small.
    stuck: a channel whose value stays equal for this many times its longest normal run, and 32 rows or more,
    is stuck and raises the alarm; 0: never.
    """

    weighting: str = "spread"
    smoothing: str = "both"
    alpha: float = 0.1
    level: float = 0.0
    threshold: str = "sigma"
    quantile: float = 0.999
    sigma: float = 15.0
    risk: float = 1e-4
    tail: float = 0.02
    rate: int = 8
    debounce: int = 1
    clear: float = 0.5
    warmup: int = 32
    depth: int = 10
    hold: int = 0
    cooldown: int = 0
    adapt: int = 0
    adapt_limit: float = 1.0
    stuck: float = 0.0

    def __post_init__(self) -> None:
        problems = []
        for name, choices in (("weighting", WEIGHTINGS), ("smoothing", SMOOTHINGS), ("threshold", KINDS)):
            if getattr(self, name) not in choices:
                problems.append(f"{name} is '{getattr(self, name)}', expected one of {', '.join(choices)}")
        ranges: dict[str, tuple[float, float]] = {
            "alpha": (1 / 256, 1.0), "quantile": (0.5, 1.0), "sigma": (0.0, 1000.0), "risk": (1e-9, 0.5),
            "tail": (1e-3, 0.5), "clear": (1 / 256, 1.0), "level": (0.0, 31.0),
            "rate": (0, 20), "debounce": (1, 255), "warmup": (1, 65535), "depth": (1, 20), "hold": (0, 65535),
            "cooldown": (0, 65535), "adapt": (0, 2**18), "adapt_limit": (0.0, 3.0), "stuck": (0.0, 1000.0),
        }  # fmt: skip
        for name, (low, high) in ranges.items():
            value, whole = getattr(self, name), isinstance(high, int)
            if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
                kind = "whole number" if whole else "number"
                problems.append(f"{name} is {value!r}, expected a {kind}")
            elif not low <= value <= high:
                problems.append(f"{name} is {value}, expected {low:.6g} .. {high:.6g}")
        if not problems and self.adapt == 1:
            problems.append("adapt is 1, expected 0 or 2 rows and more")
        if not problems and self.risk >= self.tail:
            problems.append(f"risk is {self.risk} and tail {self.tail}; the risk must be below the tail")
        raise_all(ConfigError, "detector options", problems)
