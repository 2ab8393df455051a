"""Whether channel contributions name the channels that caused an event."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_lstm.arrays import FloatArray
from edge_lstm.datasets.suite import FaultyChannels
from edge_lstm.errors import DataError, raise_all


@dataclass(frozen=True)
class HitRates:
    """Mean over events; None where there is none.

    at_100: share of an event's channels among as many with the largest contributions.
    at_150: the same among one and a half times as many, rounded down.
    """

    events: int
    at_100: float | None
    at_150: float | None


def hit_rates(contributions: FloatArray, events: Sequence[FaultyChannels]) -> HitRates:
    """HitRate@100% and @150% (Su et al., KDD 2019) of contributions (steps, channels).

    Channels are ranked once an event, by their mean contribution over its rows; of equal channels each is
    as likely to come first, and the expected rate counts.  Raises DataError on events outside the stream.
    """
    steps, channels = contributions.shape
    raise_all(
        DataError,
        "channel contributions",
        [
            f"event of rows {event.start} to {event.stop} with channels {event.channels}: expected rows "
            f"within 0 to {steps} and different channels of 0 to {channels - 1}"
            for event in events
            if not (0 <= event.start < event.stop <= steps)
            or not event.channels
            or len(set(event.channels)) < len(event.channels)
            or not set(event.channels) <= set(range(channels))
        ],
    )
    if not events:
        return HitRates(0, None, None)
    rates = np.array([_rates(contributions, event) for event in events]).mean(axis=0)
    return HitRates(len(events), float(rates[0]), float(rates[1]))


def _rates(contributions: FloatArray, event: FaultyChannels) -> tuple[float, float]:
    """The rates of one event."""
    mean = contributions[event.start : event.stop].mean(axis=0)
    of_event = mean[list(event.channels)][:, None]
    larger, equal = (mean > of_event).sum(axis=1), (mean == of_event).sum(axis=1)
    count = len(event.channels)
    exact, wide = (
        float(np.clip((among - larger) / equal, 0, 1).mean()) for among in (count, count + count // 2)
    )
    return exact, wide
