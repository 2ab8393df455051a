"""What a forecast rests on: how far it moves when one channel at one lag is replaced by another moment's.

Reads windows of input codes and a network as a function; writes mean changes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edge_lstm.arrays import FloatArray
from edge_lstm.fixedpoint import IntArray

Forecast = Callable[[IntArray], FloatArray]  # windows (n, rows, channels) -> outputs (n, outputs)

ROUNDING = 1e-12  # a smaller change is that of float64, not of the network


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """Mean absolute changes of the outputs, in their unit.

    lags: of the rows that were replaced, the row last read first; ``lags[0]`` of it is how far ahead the
    network looks.  windows: how many were tried.
    change: (channels, lags, outputs), one value replaced.  whole: (channels, outputs), all rows of a channel.
    """

    lags: tuple[int, ...]
    windows: int
    change: FloatArray
    whole: FloatArray

    @property
    def by_lag(self) -> FloatArray:
        """(channels, lags), the mean over outputs."""
        mean: FloatArray = self.change.mean(axis=2)
        return mean

    @property
    def shares(self) -> FloatArray:
        """(channels,), each channel's part of the change by whole channels; they sum to 1, or are all 0."""
        total = self.whole.mean(axis=1)
        parts: FloatArray = total / total.sum() if total.sum() > 0 else total
        return parts


def read_sensitivity(
    windows: IntArray, forecast: Forecast, lags: int, ahead: int, seed: int = 0
) -> Sensitivity:
    """Replace each value of ``windows`` (n, rows, channels) by that of another window at the same place.

    lags: rows to replace one by one, counted back from the last.  ahead: rows from the last row to the one
    that is forecast.  seed: of who replaces whom; no window replaces itself.
    """
    count, rows, channels = windows.shape
    order = np.random.default_rng(seed).permutation(count)
    donor = np.empty(count, dtype=np.int64)
    donor[order] = np.roll(order, 1)
    usual, lags = forecast(windows), min(lags, rows)
    change = np.zeros((channels, lags, usual.shape[1]))
    whole = np.zeros((channels, usual.shape[1]))
    for channel in range(channels):
        tried = np.repeat(windows[None], lags + 1, axis=0)
        for lag in range(lags):
            tried[lag, :, rows - 1 - lag, channel] = windows[donor, rows - 1 - lag, channel]
        tried[lags, :, :, channel] = windows[donor, :, channel]
        moved = forecast(tried.reshape(-1, rows, channels)).reshape(lags + 1, count, -1)
        means = np.abs(moved - usual).mean(axis=1)
        means[means < ROUNDING] = 0.0
        change[channel], whole[channel] = means[:lags], means[lags]
    return Sensitivity(tuple(range(ahead, ahead + lags)), count, change, whole)
