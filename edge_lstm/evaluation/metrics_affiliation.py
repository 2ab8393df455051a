"""Affiliation precision and recall: how near alarms are to events, against an alarm anywhere.

Huet et al., KDD 2022.  Each event owns the rows nearer to it than to any other (its zone); row i is the
interval from i to i + 1.
"""

from __future__ import annotations

import numpy as np

from edge_lstm.arrays import FloatArray
from edge_lstm.evaluation.metrics_alarms import Agreement
from edge_lstm.evaluation.metrics_runs import Flags, harmonic, runs


def affiliation(alarm: Flags, label: Flags) -> Agreement:
    """Affiliation figures of 0/1 alarms against 0/1 labels, each (steps,).

    Precision is the mean over the zones that hold an alarm, recall over all of them.
    """
    events = np.array(runs(label), dtype=np.float64).reshape(-1, 2)
    alarms = np.array(runs(alarm), dtype=np.float64).reshape(-1, 2)
    if len(events) == 0:
        return Agreement(None, None, None)
    middles = (events[1:, 0] + events[:-1, 1]) / 2
    borders = np.concatenate([[0.0], middles, [float(len(label))]])
    precisions, recalls = [], []
    for event, low, high in zip(events, borders[:-1], borders[1:], strict=True):
        first = np.searchsorted(alarms[:, 1], low, side="right")
        last = np.searchsorted(alarms[:, 0], high)
        inside = np.clip(alarms[first:last], low, high)
        if len(inside):
            precisions.append(_precision(inside, event, low, high))
        recalls.append(_recall(inside, event, low, high) if len(inside) else 0.0)
    precision = float(np.mean(precisions)) if precisions else None
    recall = float(np.mean(recalls))
    return Agreement(precision, recall, harmonic(precision, recall))


def _precision(alarms: FloatArray, event: FloatArray, low: float, high: float) -> float:
    """Mean over the alarm rows of the chance that a random row of the zone is farther from the event."""
    start, stop = event
    before, after = np.minimum(alarms, start), np.maximum(alarms, stop)
    outside = (before[:, 1] - before[:, 0]) + (after[:, 1] - after[:, 0])
    # rows of the zone at most d from the event: its own, and up to d on either side
    nearer = (stop - start) * outside
    for side in (start - before[:, ::-1], after - stop):  # distances, the smaller one first
        for room in (start - low, high - stop):
            nearer += _sum_of_smaller(side[:, 1], room) - _sum_of_smaller(side[:, 0], room)
    rows = (alarms[:, 1] - alarms[:, 0]).sum()
    return float(1 - nearer.sum() / (high - low) / rows)


def _sum_of_smaller(distance: FloatArray, room: float) -> FloatArray:
    """Integral of ``min(d, room)`` over d from 0 to ``distance``."""
    near = np.minimum(distance, room)
    integral: FloatArray = near**2 / 2 + room * (distance - near)
    return integral


def _recall(alarms: FloatArray, event: FloatArray, low: float, high: float) -> float:
    """Mean over the event's rows of the chance that a random row of the zone is farther than an alarm."""
    start, stop = event
    middles = (alarms[1:, 0] + alarms[:-1, 1]) / 2
    nearest = np.concatenate([[low], middles, [high]])
    # rows whose nearest alarm ends before them, as distances from it, and those whose alarm is yet to come
    ended, coming = alarms[:, 1], alarms[:, 0]
    after = np.clip(np.stack([ended, nearest[1:]]), start, stop)
    before = np.clip(np.stack([nearest[:-1], coming]), start, stop)
    nearer = 0.0
    for pieces, room in ((np.maximum(after - ended, 0), high - ended), (coming - before[::-1], coming - low)):
        pieces = np.maximum(pieces, 0)
        sums = _sum_to_border(pieces[1], room) - _sum_to_border(pieces[0], room)
        nearer += float((sums + (pieces[1] ** 2 - pieces[0] ** 2) / 2).sum())
    return float(1 - nearer / (high - low) / (stop - start))


def _sum_to_border(distance: FloatArray, room: FloatArray) -> FloatArray:
    """Integral of ``min(d, room - d)`` over d from 0 to ``distance``; the border is ``room`` away."""
    half = room / 2
    near, far = np.minimum(distance, half), np.maximum(distance - half, 0)
    integral: FloatArray = near**2 / 2 + half * far - far**2 / 2
    return integral
