"""Alarms as events that people read: when, how strong, which channels.

Reads rows of a detection one by one; writes an Event when an alarm starts and when it ends.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edge_lstm.arrays import BoolArray, FloatArray
from edge_lstm.detection.floating import FloatDetection


@dataclass(frozen=True)
class Event:
    """One alarm.  Scores are in spreads: the root of the score's mean over channels.

    start_row: the first row in alarm.  stop_row: the first row after it, None while it lasts.
    start, stop: their stamps, None where the stream has none.  peak_row: the row of the highest score so far.
    threshold: as the alarm started.  contributions: each channel's share of the score at the peak.
    """

    start_row: int
    stop_row: int | None
    start: str | None
    stop: str | None
    peak_row: int
    peak_score: float
    threshold: float
    contributions: dict[str, float]

    @property
    def leading(self) -> str:
        """The channel with the largest share."""
        return max(self.contributions, key=self.contributions.__getitem__)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for one JSON line; ``event`` is "alarm" while it lasts and "clear" at its end."""
        return {
            "event": "alarm" if self.stop_row is None else "clear",
            "start_row": self.start_row,
            "stop_row": self.stop_row,
            "start": self.start,
            "stop": self.stop,
            "peak_row": self.peak_row,
            "peak_score": round(self.peak_score, 4),
            "threshold": round(self.threshold, 4),
            "contributions": {name: round(share, 4) for name, share in self.contributions.items()},
        }


def in_spreads(score: float, channels: int) -> float:
    """A score as people see it: the root of its mean over channels, in spreads."""
    return math.sqrt(max(score, 0.0) / channels)


class EventStream:
    """Follows a detection row by row and tells when an alarm starts and when it ends."""

    def __init__(
        self,
        names: Sequence[str],
        scored: BoolArray | None = None,
        row: int = 0,
        lasting: Event | None = None,
    ) -> None:
        """names: of the channels, in the detector's order.  scored: bool (channels,), None: all of them.

        row: the next row.  lasting: an alarm so far.
        """
        self._scored = np.ones(len(names), dtype=bool) if scored is None else scored
        self.names = tuple(name for name, kept in zip(names, self._scored, strict=True) if kept)
        self.row = row
        self.lasting = lasting

    def push(
        self,
        score: float,
        alarm: int,
        threshold: float,
        contributions: FloatArray,
        present: BoolArray | None = None,
        stamp: str | None = None,
    ) -> Event | None:
        """Take the next row; return the event that starts or ends with it, else None.

        score, threshold, contributions (channels,): squared spreads.  present: bool (channels,), the
        channels that the score counts; None means all.
        """
        row, event = self.row, self.lasting
        self.row += 1
        if not alarm:
            self.lasting = None
            return None if event is None else replace(event, stop_row=row, stop=stamp)
        peak = in_spreads(score, len(self.names))
        if event is None:
            limit = in_spreads(threshold, len(self.names))
            self.lasting = Event(
                row, None, stamp, None, row, peak, limit, self.shares(contributions, present)
            )
            return self.lasting
        if peak > event.peak_score:
            shares = self.shares(contributions, present)
            self.lasting = replace(event, peak_row=row, peak_score=peak, contributions=shares)
        return None

    def close(self) -> Event | None:
        """End of the stream: the alarm that still lasts, with what is known of it, else None."""
        event, self.lasting = self.lasting, None
        return event

    def shares(self, contributions: FloatArray, present: BoolArray | None = None) -> dict[str, float]:
        """Each scored channel's part of a score, 0 .. 1; see ``push`` for the arguments."""
        power = np.asarray(contributions, dtype=np.float64)[self._scored]
        if present is not None and np.any(present[self._scored]):
            power = np.where(present[self._scored], power, 0.0)
        total = float(power.sum())
        shares = power / total if total > 0 else np.full(len(power), 1 / len(power))
        return dict(zip(self.names, shares.tolist(), strict=True))


def events(
    detection: FloatDetection,
    names: Sequence[str],
    stamps: Sequence[str] | None = None,
    present: BoolArray | None = None,
    scored: BoolArray | None = None,
) -> list[Event]:
    """All alarms of a stream, in order; the last one has no ``stop_row`` where it lasts to the end.

    scored: see ``EventStream``.  For the integer detector's results, see ``floating.from_fixed``.
    """
    stream = EventStream(names, scored)
    found = []
    for t in range(len(detection.score)):
        event = stream.push(
            float(detection.score[t]),
            int(detection.alarm[t]),
            float(detection.threshold[t]),
            detection.contributions[t],
            None if present is None else present[t],
            None if stamps is None else stamps[t],
        )
        if event is not None and event.stop_row is not None:
            found.append(event)
    last = stream.close()
    return found if last is None else [*found, last]
