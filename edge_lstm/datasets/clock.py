"""The time of day as two channels, for networks that take it as context.

Reads a Dataset with stamps; writes one with two more channels.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import numpy as np

from edge_lstm.datasets.dataset import Dataset
from edge_lstm.errors import DataError
from edge_lstm.graph import Channel

NAMES = ("day_sin", "day_cos")
UNIT = "of a day"  # tells them from columns of a file with these names
RESOLUTION = 0.001  # the raw integers are round(1000 * sin) and round(1000 * cos)
DAY_S = 86_400.0


def with_clock(dataset: Dataset) -> Dataset:
    """The recording and behind its channels sine and cosine of a turn a day, 0 and 1 at midnight.

    The time of day is that of the stamps, in their own zone.  A row without any value has none of these two.
    Raises DataError where the stamps tell no time of day, or a channel has one of the names.
    """
    if not dataset.start:
        raise DataError("clock: the recording has no stamps with a time of day; give a time column that has")
    taken = [name for name in NAMES if name in dataset.names]
    if taken:
        raise DataError(f"clock: the recording has a channel {taken[0]}; rename it, or train without --clock")
    first = datetime.fromisoformat(dataset.start)
    start_s = 3600 * first.hour + 60 * first.minute + first.second + first.microsecond * 1e-6
    angle = 2 * np.pi * (start_s + dataset.time_s) / DAY_S
    turn = np.round(np.stack([np.sin(angle), np.cos(angle)], axis=1) / RESOLUTION) * RESOLUTION
    here = np.repeat(dataset.present.any(axis=1, keepdims=True), 2, axis=1)
    return replace(
        dataset,
        names=(*dataset.names, *NAMES),
        units=(*dataset.units, UNIT, UNIT),
        values=np.hstack([dataset.values, np.where(here, turn, np.nan)]),
        present=np.hstack([dataset.present, here]),
    )


def is_clock(channel: Channel) -> bool:
    """Whether a network's channel is one that ``with_clock`` adds."""
    return channel.name in NAMES and channel.unit == UNIT
