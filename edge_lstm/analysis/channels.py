"""The clock of a recording and what each channel is: kind, range, resolution, missing values.

Reads a Dataset; writes plain figures.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_lstm.arrays import FloatArray
from edge_lstm.datasets.dataset import Dataset
from edge_lstm.datasets.policies import JITTER
from edge_lstm.datasets.resolution import find_resolution
from edge_lstm.evaluation.metrics_runs import runs

INT8_STEPS = 255
FEW = 12  # values or fewer: a state, not a measurement
RISING = 0.98  # share of the changes of a counter that go up
RESET = 0.5  # of the range: a fall of a counter that starts again
STILL = 0.98  # share of rows without a change: the channel is mostly still
BULK = 0.001  # quantile at each end; what lies outside is called a spike
SPIKED = 4.0  # times wider than the bulk: spikes take the range


@dataclass(frozen=True)
class Clock:
    """Time between rows.  rate_hz, step_s: from the median step, None where no time is known.

    irregular, gaps: numbers of steps.  longest_gap_s: 0 without one.  duration_s: first to last row.
    """

    rows: int
    rate_hz: float | None
    step_s: float | None
    least_step_s: float | None
    most_step_s: float | None
    irregular: int
    gaps: int
    longest_gap_s: float
    duration_s: float | None


@dataclass(frozen=True)
class ChannelFacts:
    """One channel.  kind: constant, binary, states, counter, still or measurement.

    missing: share of the rows.  longest_missing: rows.  resolution: of the values in the file.
    int8_step: what one int8 code of the whole range stands for.  spread: standard deviation.
    bulk: width of the middle 99.8 %, as a share of the range.
    """

    name: str
    unit: str
    kind: str
    missing: float
    longest_missing: int
    low: float
    high: float
    mean: float
    spread: float
    distinct: int
    resolution: float
    int8_step: float
    bulk: float

    @property
    def spiked(self) -> bool:
        """Whether a few rows take most of the int8 range."""
        return self.kind == "measurement" and self.bulk * SPIKED < 1

    @property
    def steps_in_one(self) -> float:
        """Steps of the sensor that fall into one int8 code."""
        return self.int8_step / self.resolution


def read_clock(dataset: Dataset) -> Clock:
    """Rate, irregular steps and gaps."""
    if not dataset.period_s:
        return Clock(dataset.rows, None, None, None, None, 0, int(dataset.gap.sum()), 0.0, None)
    steps, after = np.diff(dataset.time_s), dataset.gap[1:]
    inside = steps[~after]
    return Clock(
        rows=dataset.rows,
        rate_hz=1 / dataset.period_s,
        step_s=dataset.period_s,
        least_step_s=float(inside.min()) if len(inside) else None,
        most_step_s=float(inside.max()) if len(inside) else None,
        irregular=int((np.abs(inside - dataset.period_s) > JITTER * dataset.period_s).sum()),
        gaps=int(after.sum()),
        longest_gap_s=float(steps[after].max()) if after.any() else 0.0,
        duration_s=float(dataset.time_s[-1]),
    )


def read_channels(dataset: Dataset) -> list[ChannelFacts]:
    """Facts of every channel, in their order."""
    return [_channel(dataset, place) for place in range(dataset.channels)]


def _channel(dataset: Dataset, place: int) -> ChannelFacts:
    column = dataset.values[:, place]
    known = column[dataset.present[:, place]]
    low, high = float(known.min()), float(known.max())
    distinct = len(np.unique(known))
    edges = np.quantile(known, [BULK, 1 - BULK])
    return ChannelFacts(
        name=dataset.names[place],
        unit=dataset.units[place],
        kind=_kind(known, distinct),
        missing=1 - len(known) / len(column),
        longest_missing=max((stop - start for start, stop in runs(np.isnan(column))), default=0),
        low=low,
        high=high,
        mean=float(known.mean()),
        spread=float(known.std()),
        distinct=distinct,
        resolution=find_resolution(known)[0] if distinct > 1 else 0.0,
        int8_step=(high - low) / INT8_STEPS,
        bulk=float(edges[1] - edges[0]) / (high - low) if high > low else 0.0,
    )


def _kind(known: FloatArray, distinct: int) -> str:
    if distinct <= 2:
        return ("constant", "binary")[distinct - 1]
    change = np.diff(known)
    moved = change[change != 0]
    falls = -moved[moved < 0]
    resets = len(falls) == 0 or falls.min() >= RESET * (known.max() - known.min())
    if distinct > FEW and (moved > 0).mean() >= RISING and resets:
        return "counter"
    if distinct <= FEW:
        return "states"
    return "still" if len(moved) < (1 - STILL) * len(change) else "measurement"
