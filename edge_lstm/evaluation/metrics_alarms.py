"""Metrics of alarms that weigh ranges: range-based, NAB, and the point-adjusted figure that misleads.

Read 0/1 alarms and 0/1 labels, each (steps,), every alarm row as it is; None where a figure is undefined.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edge_lstm.arrays import FloatArray
from edge_lstm.evaluation.metrics_runs import Flags, Runs, as_flags, harmonic, ratio, runs

EXISTENCE = 0.2  # weight of finding an event at all in range recall, as in TSB-AD
FALSE_POSITIVE = 0.11  # NAB's standard profile: costs of a false row; true and missed windows are 1 each
STEEPNESS = 5.0  # of NAB's sigmoid
FAR = 3.0  # windows behind one, where a false row costs all of FALSE_POSITIVE


class Agreement(NamedTuple):
    """Precision is None without alarms, recall and f1 without events."""

    precision: float | None
    recall: float | None
    f1: float | None


def range_based(alarm: Flags, label: Flags) -> Agreement:
    """Precision and recall of ranges (Tatbul et al., NeurIPS 2018): flat bias, cardinality 1/x.

    Existence counts 0.2 in recall and 0 in precision, as in TSB-AD.
    """
    alarms, events = runs(alarm), runs(label)
    precision = _covered(alarms, events, 0.0) if alarms else None
    recall = _covered(events, alarms, EXISTENCE) if events else None
    return Agreement(precision, recall, harmonic(precision, recall))


def _covered(ranges: Runs, others: Runs, existence: float) -> float:
    """Mean over ``ranges`` of the share that ``others`` cover, divided by how many of them do."""
    if not others:
        return 0.0
    start, stop = np.array(ranges, dtype=np.int64).T
    other_start, other_stop = np.array(others, dtype=np.int64).T
    touching = np.searchsorted(other_start, stop) - np.searchsorted(other_stop, start, side="right")
    ends = np.concatenate([[0], np.cumsum(other_stop - other_start)])

    def rows_before(row: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Rows of ``others`` before each row."""
        place = np.searchsorted(other_start, row, side="right")
        past = np.maximum(other_stop[np.maximum(place - 1, 0)] - row, 0)
        before: npt.NDArray[np.int64] = np.where(place > 0, ends[place] - past, 0)
        return before

    share = (rows_before(stop) - rows_before(start)) / (stop - start)
    reward = existence * (touching > 0) + (1 - existence) * share / np.maximum(touching, 1)
    return float(reward.mean())


def nab_score(alarm: Flags, label: Flags) -> float | None:
    """NAB's score in its standard profile, 100 = every window at its first row, 0 = no alarm at all.

    Windows are the labelled runs, every alarm row is a detection (Lavin and Ahmad, ICMLA 2015;
    ``sweeper.py`` of NAB 1.1).  Below 0 where false rows cost more than found windows bring.
    """
    windows, alarm = runs(label), as_flags(alarm)
    if not windows:
        return None
    start, stop = np.array(windows, dtype=np.int64).T
    rows = np.flatnonzero(alarm)
    first = np.searchsorted(rows, start)  # the first alarm row of each window, if it is before its stop
    found = first < np.searchsorted(rows, stop)
    position = -(stop[found] - rows[first[found]]) / (stop[found] - start[found])
    score = float(_sigmoid(position).sum() / _sigmoid(np.array(-1.0))) - float((~found).sum())
    false = rows[~as_flags(label)[rows]]
    window = np.searchsorted(stop, false, side="right") - 1  # the one before, -1 where there is none
    width = np.maximum(stop - start - 1, 1)[window]
    behind = np.where(window < 0, FAR, (false - stop[window] + 1) / width)
    score += FALSE_POSITIVE * float(np.where(behind >= FAR, -1.0, _sigmoid(np.minimum(behind, FAR))).sum())
    return 100 * (score + len(windows)) / (2 * len(windows))


def _sigmoid(position: FloatArray) -> FloatArray:
    """1 well before the right edge of a window (position 0), -1 well behind it."""
    value: FloatArray = 2 / (1 + np.exp(STEEPNESS * position)) - 1
    return value


def point_adjusted_f1_inflated(alarm: Flags, label: Flags) -> float | None:
    """F1 of rows after every event with one alarm row has been counted as found in all its rows.

    Only to show what such a figure is worth: where events are long, a random score gets above 0.9
    (Kim et al., AAAI 2022).  Never compare methods by it.
    """
    alarm, label = as_flags(alarm), as_flags(label)
    found = sum(stop - start for start, stop in runs(label) if alarm[start:stop].any())
    false = int((alarm & ~label).sum())
    return ratio(2 * found, found + false + int(label.sum())) if label.any() else None
