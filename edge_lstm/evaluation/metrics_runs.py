"""Runs of flagged rows: the events of a label, the alarms of a detector."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

MERGE_ROWS = 10  # alarms at most this far apart are one alarm

Flags = npt.NDArray[Any]  # 0 or false, anything else
BoolArray = npt.NDArray[np.bool_]
Runs = list[tuple[int, int]]


def as_flags(values: Flags) -> BoolArray:
    """Bool (rows,): which values are not 0."""
    flags: BoolArray = np.asarray(values) != 0
    return flags


def runs(flag: Flags) -> Runs:
    """Runs of true rows as ``(start, stop)``, stop excluded."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], as_flags(flag), [False]])))
    return [(int(start), int(stop)) for start, stop in zip(edges[::2], edges[1::2], strict=True)]


def merged(alarm_runs: Runs, within: int = MERGE_ROWS) -> Runs:
    """Join runs with at most ``within`` rows between them."""
    joined: Runs = []
    for start, stop in alarm_runs:
        if joined and start - joined[-1][1] <= within:
            joined[-1] = (joined[-1][0], stop)
        else:
            joined.append((start, stop))
    return joined


def ratio(part: float, whole: float) -> float | None:
    """``part / whole``, None where there is no whole."""
    return float(part / whole) if whole else None


def harmonic(precision: float | None, recall: float | None) -> float | None:
    """F1; 0 where there are events and no alarm, None where there are no events."""
    if recall is None:
        return None
    if not precision or not recall:
        return 0.0
    return 2 * precision * recall / (precision + recall)
