"""Whether the inputs of a stream still are what the model was calibrated on.

Reads fine codes; keeps running moments of each channel in the scaling's spreads.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from edge_lstm.arrays import BoolArray, FloatArray

ROWS = 1024  # the moments forget with this time constant
LEAST = 256  # values of a channel before anything is said of it
MEAN_LIMIT, SPREAD_LIMIT, SATURATED_LIMIT = 1.0, 2.0, 0.01


@dataclass(frozen=True, eq=False)
class Drift:
    """Moments of the inputs, each (channels,): exponentially weighted, of the first rows plain means.

    mean, square: of the values less the scaling's center, in its scale: 0 and 1 where rows are as in
    calibration.  saturated: share of the values beyond the codes' range.  seen: values so far, up to ROWS.
    """

    mean: FloatArray
    square: FloatArray
    saturated: FloatArray
    seen: FloatArray

    @staticmethod
    def begin(channels: int) -> Drift:
        """Before the first row."""
        return Drift(*(np.zeros(channels) for _ in range(4)))

    def after(self, x: FloatArray, outside: BoolArray, present: BoolArray) -> Drift:
        """The moments after rows x, outside, present: each (rows, channels)."""
        mean, square, saturated, seen = self.mean, self.square, self.saturated, self.seen
        for row, beyond, here in zip(x, outside, present, strict=True):
            seen = np.minimum(seen + here, ROWS)
            weight = here / np.maximum(seen, 1)
            mean = mean + weight * (row - mean)
            square = square + weight * (row * row - square)
            saturated = saturated + weight * (beyond - saturated)
        return Drift(mean, square, saturated, seen)

    @property
    def spread(self) -> FloatArray:
        """Standard deviations, in the scaling's scale."""
        spread: FloatArray = np.sqrt(np.maximum(self.square - self.mean**2, 0.0))
        return spread

    @property
    def drifted(self) -> BoolArray:
        """Channels (channels,) that are no longer as in calibration."""
        known = self.seen >= LEAST
        moved = (np.abs(self.mean) > MEAN_LIMIT) | (self.spread > SPREAD_LIMIT)
        drifted: BoolArray = known & (moved | (self.saturated > SATURATED_LIMIT))
        return drifted

    def to_dict(self, names: tuple[str, ...]) -> dict[str, Any]:
        """Plain values by channel."""
        columns = (self.mean, self.spread, self.saturated, self.seen, self.drifted)
        keys = ("mean", "spread", "saturated", "rows", "drifted")
        return {
            name: dict(
                zip(keys, (round(m, 4), round(s, 4), round(share, 4), int(rows), drifted), strict=True)
            )
            for name, m, s, share, rows, drifted in zip(names, *(c.tolist() for c in columns), strict=True)
        }

    def to_bytes(self) -> bytes:
        """All moments; ``from_bytes`` takes them back."""
        return np.concatenate([getattr(self, field.name) for field in fields(self)]).tobytes()

    @staticmethod
    def from_bytes(content: bytes) -> Drift:
        """What ``to_bytes`` wrote."""
        return Drift(*np.frombuffer(content).reshape(4, -1))
