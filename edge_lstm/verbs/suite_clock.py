"""How much of a suite is done, and how long the rest will take.

Work is told in expected seconds, from the size of each recording; what it really takes corrects them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

Progress = Callable[[int, int, str], None]

TRAIN, SCORE, SIMPLE = "train", "score", "simple"


@dataclass
class Lane:
    """Work of one kind.  left, done: expected seconds.  took: seconds that the done really took."""

    left: float = 0.0
    done: float = 0.0
    took: float = 0.0


@dataclass
class Clock:
    """Lanes of work by kind: training in this process, the others in ``workers`` beside it on ``cores``.

    progress: called with (percent done, 100, what is at work and what time is left).
    now: seconds, of the clock on the wall.
    """

    workers: int
    cores: int
    progress: Progress | None = None
    now: Callable[[], float] = time.monotonic
    lanes: dict[str, Lane] = field(default_factory=dict)
    begun: tuple[str, float, float] | None = None  # lane, expected seconds, start

    def plan(self, lane: str, expected: float) -> None:
        """Add work that is yet to do."""
        self.lanes.setdefault(lane, Lane()).left += expected

    def finish(self, lane: str, expected: float, took: float) -> None:
        """Move planned work to what is done."""
        own = self.lanes[lane]
        own.left = max(0.0, own.left - expected)
        own.done += expected
        own.took += took

    def begin(self, lane: str, expected: float) -> None:
        """Work of this process starts."""
        self.begun = lane, expected, self.now()

    def end(self) -> None:
        """The work of this process that was begun is done."""
        assert self.begun is not None
        lane, expected, start = self.begun
        self.begun = None
        self.finish(lane, expected, self.now() - start)

    def left_s(self) -> float | None:
        """Seconds until all is done; None before anything is.

        A lane of which nothing is done yet is as much slower than expected as the others are.
        """
        done = sum(lane.done for lane in self.lanes.values())
        took = sum(lane.took for lane in self.lanes.values())
        if not done:
            return None
        left = {
            name: lane.left * (lane.took / lane.done if lane.done else took / done)
            for name, lane in self.lanes.items()
        }
        left[TRAIN] = left.get(TRAIN, 0.0)
        if self.begun is not None:
            lane, expected, start = self.begun
            share = expected / self.lanes[lane].left if self.lanes[lane].left else 0.0
            left[lane] -= min(self.now() - start, share * left[lane])
        beside = sum(seconds for name, seconds in left.items() if name != TRAIN)
        return max(left[TRAIN], beside / self.workers, (left[TRAIN] + beside) / self.cores)

    def show(self, what: str) -> None:
        """Report what is at work."""
        if self.progress is None:
            return
        done = sum(lane.done for lane in self.lanes.values())
        total = done + sum(lane.left for lane in self.lanes.values())
        self.progress(round(100 * done / total) if total else 0, 100, what + _told(self.left_s()))


def _told(seconds: float | None) -> str:
    """The time left in words.

    >>> _told(20), _told(600)
    (', less than a minute left', ', about 10 minutes left')
    """
    if seconds is None:
        return ""
    minutes = round(seconds / 60)
    if minutes < 1:
        return ", less than a minute left"
    return f", about {minutes} {'minute' if minutes == 1 else 'minutes'} left"
