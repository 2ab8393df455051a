"""A linear forecaster beside the network: what a line can know, the network need not learn.

Read by the detector and by training; a Graph carries it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_lstm.arrays import FloatArray, frozen
from edge_lstm.errors import ModelError, raise_all


@dataclass(frozen=True, eq=False)
class LinearPredictor:
    """Forecast of a row in network units: ``bias + sum over lag of x[t - 1 - lag] @ kernel[lag]``.

    kernel: (lags, channels, channels).  bias: (channels,).
    spread: (channels,), above 0: an output of 1 of the network adds so much to the forecast.
    Without lags, bias 0 and spread 1 the network's output itself is the forecast.
    """

    kernel: FloatArray
    bias: FloatArray
    spread: FloatArray

    def __post_init__(self) -> None:
        for attribute in ("kernel", "bias", "spread"):
            object.__setattr__(self, attribute, frozen(getattr(self, attribute), np.float64))
        channels = self.bias.size
        problems = []
        if self.kernel.ndim != 3 or self.kernel.shape[1:] != (channels, channels) or not channels:
            problems.append(f"kernel is {self.kernel.shape}, expected (lags, {channels}, {channels})")
        if self.bias.shape != (channels,) or self.spread.shape != (channels,):
            problems.append(f"bias {self.bias.shape} and spread {self.spread.shape}, expected one a channel")
        elif not (
            np.isfinite(self.bias).all() and np.isfinite(self.spread).all() and (self.spread > 0).all()
        ):
            problems.append("bias must be finite and spread finite and above 0")
        if not np.isfinite(self.kernel).all():
            problems.append("kernel holds NaN or infinity")
        raise_all(ModelError, "linear predictor", problems)

    @staticmethod
    def none(channels: int) -> LinearPredictor:
        """Nothing beside the network, whose output is the forecast."""
        return LinearPredictor(np.zeros((0, channels, channels)), np.zeros(channels), np.ones(channels))

    @property
    def lags(self) -> int:
        return len(self.kernel)

    @property
    def channels(self) -> int:
        return len(self.bias)

    def forecast(self, x: FloatArray) -> FloatArray:
        """Forecasts OF the rows of x (rows, channels), from reset: rows before the first are 0."""
        padded = np.vstack([np.zeros((self.lags, self.channels)), x])
        expected = np.repeat(self.bias[None], len(x), axis=0)
        for lag in range(self.lags):
            expected += padded[self.lags - 1 - lag :][: len(x)] @ self.kernel[lag]
        return expected
