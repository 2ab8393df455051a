"""One process: payloads from both sides wait in one queue, and each batch is stored before it is answered.

Reads a Gateway; serves until it is told to stop.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import uvicorn

from edge_lstm.errors import OutputError, RuntimeFailure
from edge_lstm.gateway.broker import Address, Broker
from edge_lstm.gateway.live import Live
from edge_lstm.gateway.metrics import Metrics
from edge_lstm.gateway.scoring import Answer, Gateway, Message
from edge_lstm.gateway.store import Store
from edge_lstm.gateway.tokens import Tokens
from edge_lstm.gateway.web import create_app

GATHER_S = 0.02  # payloads of so long share one commit
BATCH = 500  # payloads, so that a page is not kept waiting for long
LEAVE_S = 2.0  # at most, until the broker has confirmed what was published
MOST_WAITING = 20_000  # payloads; more are refused over HTTP


@dataclass(frozen=True)
class _Waiting:
    """A payload; number: the broker's.  answer: for whom HTTP answers."""

    message: Message
    number: int = 0
    answer: asyncio.Future[Answer | None] | None = None


def _answer(item: _Waiting, answer: Answer | None) -> None:
    if item.answer is not None and not item.answer.done():
        item.answer.set_result(answer)


class Server:
    """Queue, batches, and both sides."""

    def __init__(
        self, gateway: Gateway, store: Store, tokens: Tokens, listen: socket.socket, address: Address | None
    ) -> None:
        """listen: bound.  address: of the broker, None for HTTP alone."""
        self._gateway, self._store, self._listen = gateway, store, listen
        self._waiting: deque[_Waiting] = deque()
        self._live = Live()
        prefix = gateway.rules.prefix
        self._broker = None if address is None else Broker(address, prefix, self._arrived, self._settle_soon)
        self._metrics = Metrics(gateway, self._is_connected, lambda: len(self._waiting))
        app = create_app(gateway, tokens, self._metrics, self._live, self._submit)
        self._http = uvicorn.Server(
            uvicorn.Config(
                app, log_level="error", access_log=False, lifespan="off", timeout_graceful_shutdown=2
            )
        )
        self._http.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]

    def run(self, on_ready: Callable[[], None]) -> None:
        """Serve until SIGINT or SIGTERM; what has arrived is scored and stored before this returns.

        on_ready: called when both sides are open.  Raises OutputError where the state cannot be written and
        RuntimeFailure where the broker refuses.
        """
        asyncio.run(self._run(on_ready))

    async def _run(self, on_ready: Callable[[], None]) -> None:
        self._loop, self._wake = asyncio.get_running_loop(), asyncio.Event()
        for name in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(NotImplementedError):  # asyncio's loop on Windows has no signal handlers
                self._loop.add_signal_handler(name, self._stop)
        if self._broker is not None:
            await asyncio.to_thread(self._broker.open)
            self._broker.publish(self._store.unconfirmed())
        scoring = asyncio.create_task(self._score())
        scoring.add_done_callback(lambda _task: self._stop())
        web = asyncio.create_task(self._http.serve(sockets=[self._listen]))
        try:
            while not self._http.started and not web.done():
                await asyncio.sleep(0.01)
            if web.done():
                raise RuntimeFailure("the HTTP server did not start; see its message above")
            on_ready()
            await web
        finally:
            scoring.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await scoring  # raises what ended it, such as a full disk
            self._end()

    def _stop(self) -> None:
        self._http.should_exit = True

    def _end(self) -> None:
        """Store what has arrived and leave the broker."""
        self._advance()
        if self._broker is not None:
            self._broker.drain(LEAVE_S)
            self._advance()
            self._broker.close()

    async def _score(self) -> None:
        while True:
            await self._wake.wait()
            await asyncio.sleep(GATHER_S)
            self._wake.clear()
            while self._waiting:
                self._advance()
                await asyncio.sleep(0)

    def _advance(self) -> None:
        """One batch: scored, stored, then acknowledged, answered, published and shown."""
        batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), BATCH))]
        broker = self._broker
        confirmed = broker.confirmed() if broker else []
        try:
            with self._metrics.batch_s.time():
                done = self._gateway.advance([item.message for item in batch], time.time(), confirmed)
        except OutputError:  # the end: nobody may take these rows for stored
            for item in (*batch, *self._waiting):
                _answer(item, None)
            raise
        if broker is not None:
            broker.acknowledge(item.number for item in batch)
            broker.publish(done.outgoing)
        for item, answer in zip(batch, done.answers, strict=True):
            _answer(item, answer)
        self._live.send(done.samples)

    def _arrived(self, stream: str, payload: bytes, number: int) -> None:
        """A payload of the broker, in Paho's thread."""
        self._waiting.append(_Waiting(Message(stream, payload, "mqtt"), number))
        if not self._wake.is_set():  # cleared before the queue is emptied: none is overlooked
            self._loop.call_soon_threadsafe(self._wake.set)

    def _settle_soon(self) -> None:
        """The broker confirmed messages, in Paho's thread."""
        if self._broker is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._broker.publish)

    async def _submit(self, message: Message) -> Answer | None:
        if len(self._waiting) >= MOST_WAITING:
            return None
        answer: asyncio.Future[Answer | None] = self._loop.create_future()
        self._waiting.append(_Waiting(message, answer=answer))
        self._wake.set()
        return await answer

    def _is_connected(self) -> bool:
        return self._broker is not None and self._broker.connected
