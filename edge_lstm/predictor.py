"""A linear forecaster beside the network: what a line can know, the network need not learn.

Read by the detector and by training; a Graph carries it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_lstm.arrays import FloatArray, frozen
from edge_lstm.errors import ModelError, raise_all

MAX_AHEAD = 16  # rows between what a network has read and the row that its output is of


@dataclass(frozen=True, eq=False)
class LinearPredictor:
    """Expected row in network units: ``bias + sum over lag of x[t - 1 - lag] @ kernel[lag]``.

    kernel: (lags, channels, channels).  bias: (channels,).
    spread: (channels,), 0 or more: an output of 1 of the network adds so much to the forecast.
    Without lags, bias 0 and spread 1 the network's output itself is the forecast; with spread 0 it adds none.
    Beside a network that looks ``ahead`` > 1 rows ahead the kernel of the lags below ahead - 1 is 0, so that
    the line looks as far.
    method: how it is fitted, a name of ``detection.methods``.
    contemporaneous: (channels, channels), or None; ``x[t] @ contemporaneous`` is added: then the row is not
    forecast but rebuilt.
    """

    kernel: FloatArray
    bias: FloatArray
    spread: FloatArray
    method: str = "linear"
    contemporaneous: FloatArray | None = None

    def __post_init__(self) -> None:
        for attribute in ("kernel", "bias", "spread", "contemporaneous"):
            if getattr(self, attribute) is not None:
                object.__setattr__(self, attribute, frozen(getattr(self, attribute), np.float64))
        channels = self.bias.size
        problems = []
        if self.kernel.ndim != 3 or self.kernel.shape[1:] != (channels, channels) or not channels:
            problems.append(f"kernel is {self.kernel.shape}, expected (lags, {channels}, {channels})")
        if self.bias.shape != (channels,) or self.spread.shape != (channels,):
            problems.append(f"bias {self.bias.shape} and spread {self.spread.shape}, expected one a channel")
        elif not (
            np.isfinite(self.bias).all() and np.isfinite(self.spread).all() and (self.spread >= 0).all()
        ):
            problems.append("bias must be finite and spread finite, 0 or more")
        if not np.isfinite(self.kernel).all():
            problems.append("kernel holds NaN or infinity")
        rebuilt = self.contemporaneous
        if rebuilt is not None and (rebuilt.shape != (channels, channels) or not np.isfinite(rebuilt).all()):
            problems.append(
                f"contemporaneous is {rebuilt.shape}, expected {(channels, channels)}, all finite"
            )
        raise_all(ModelError, "linear predictor", problems)

    @staticmethod
    def none(channels: int) -> LinearPredictor:
        """Nothing beside the network, whose output is the forecast."""
        return LinearPredictor(
            np.zeros((0, channels, channels)), np.zeros(channels), np.ones(channels), method="none"
        )

    @property
    def lags(self) -> int:
        return len(self.kernel)

    @property
    def channels(self) -> int:
        return len(self.bias)

    @property
    def alone(self) -> bool:
        """Whether the network adds nothing."""
        return not self.spread.any()

    def forecast(self, x: FloatArray) -> FloatArray:
        """Forecasts OF the rows of x (rows, channels), from reset: rows before the first are 0."""
        padded = np.vstack([np.zeros((self.lags, self.channels)), x])
        expected = np.repeat(self.bias[None], len(x), axis=0)
        for lag in range(self.lags):
            expected += padded[self.lags - 1 - lag :][: len(x)] @ self.kernel[lag]
        if self.contemporaneous is not None:
            expected += x @ self.contemporaneous
        return expected
