"""Samples to whoever watches a stream; a watcher that is too slow loses the oldest."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

WAITING = 256  # samples


class Live:
    """All watchers, by stream."""

    def __init__(self) -> None:
        self._queues: dict[str, set[asyncio.Queue[str]]] = {}

    @contextmanager
    def listening(self, stream: str) -> Iterator[asyncio.Queue[str]]:
        """A queue of the stream's samples as JSON, while the block lasts."""
        queue: asyncio.Queue[str] = asyncio.Queue(WAITING)
        self._queues.setdefault(stream, set()).add(queue)
        try:
            yield queue
        finally:
            self._queues[stream].discard(queue)
            if not self._queues[stream]:
                del self._queues[stream]

    def send(self, samples: list[tuple[str, str]]) -> None:
        """Give (stream, JSON) to those who listen."""
        for stream, text in samples if self._queues else ():
            for queue in self._queues.get(stream, ()):
                if queue.full():
                    queue.get_nowait()
                queue.put_nowait(text)
