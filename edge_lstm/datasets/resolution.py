"""What a raw integer of each sensor stands for: ``real = zero + resolution * integer``.

Read from a recording, or from texts of the command line; writes Channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edge_lstm.arrays import FloatArray
from edge_lstm.errors import ConfigError, raise_all
from edge_lstm.graph import Stream

FINEST = 9  # decimals that are looked for
TOLERANCE = 1e-6  # of a count, within which a value is a multiple
MOST_COUNTS, FEWEST_COUNTS = 1 << 24, 1 << 16  # over the range of a channel
FARTHEST = 1 << 29  # counts from zero, half of what a raw integer may be


def find_resolution(values: FloatArray) -> tuple[float, float]:
    """The resolution and the zero of a recorded channel: values (rows,), NaN where missing.

    The coarsest power of ten from 1 to 1e-9 of which all values are multiples, where the range has at most
    2**24 counts; else the coarsest that divides the range into at least 2**16.  The zero is 0, or the lowest
    value where the integers would leave 30 bits.
    """
    known = values[~np.isnan(values)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 0.0)
    resolution = _exact(known, high - low)
    if resolution is None:
        span = high - low or abs(high)  # of a constant channel: its value
        resolution = 10.0 ** math.floor(math.log10(span / FEWEST_COUNTS))
    far = max(abs(low), abs(high)) / resolution > FARTHEST
    return resolution, float(np.rint(low / resolution) * resolution) if far else 0.0


def _exact(values: FloatArray, span: float) -> float | None:
    """The coarsest power of ten of which all ``values`` are multiples; None: there is none."""
    for decimals in range(FINEST + 1):
        counts, steps = values * 10.0**decimals, span * 10.0**decimals
        if steps > MOST_COUNTS:
            return None
        told_apart = steps == 0 or steps >= 1 - TOLERANCE  # values of 1e-9 are no multiples of 1
        if told_apart and (np.abs(counts - np.rint(counts)) <= TOLERANCE).all():
            return 10.0**-decimals
    return None


def with_resolution(stream: Stream, values: FloatArray) -> Stream:
    """``stream``, each channel that states no resolution with that of its values (rows, channels)."""
    channels = []
    for channel, column in zip(stream.channels, np.asarray(values).T, strict=True):
        if not channel.resolution:
            resolution, zero = find_resolution(column)
            channel = replace(channel, resolution=resolution, zero=zero)
        channels.append(channel)
    return replace(stream, channels=tuple(channels))


def state_resolution(stream: Stream, texts: Sequence[str]) -> Stream:
    """``stream`` with the resolutions of ``texts``: NAME=STEP or NAME=STEP@ZERO.

    Raises ConfigError with every text that is none, and every name that no channel has.
    """
    stated: dict[str, tuple[float, float]] = {}
    problems = []
    for text in texts:
        name, equals, numbers = text.rpartition("=")
        step, _, zero = numbers.partition("@")
        found = _number(step), _number(zero or "0")
        if not equals or found[0] is None or found[1] is None or found[0] <= 0:
            problems.append(f"'{text}' is not NAME=STEP or NAME=STEP@ZERO with a step above 0")
        elif name not in stream.names:
            problems.append(f"'{name}' is no channel, expected one of {', '.join(stream.names)}")
        elif name in stated:
            problems.append(f"'{name}' is stated twice")
        else:
            stated[name] = found[0], found[1]
    raise_all(ConfigError, "--resolution", problems)
    channels = (
        replace(channel, resolution=stated[channel.name][0], zero=stated[channel.name][1])
        if channel.name in stated
        else channel
        for channel in stream.channels
    )
    return replace(stream, channels=tuple(channels))


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
