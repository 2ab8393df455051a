"""The HTTP side: rows in, streams, metrics and the live page out; all but the page asks for a token."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI, Request, Response, WebSocket, WebSocketDisconnect

from edge_lstm.gateway.live import Live
from edge_lstm.gateway.metrics import Metrics
from edge_lstm.gateway.page import live_page
from edge_lstm.gateway.payload import MAX_BYTES
from edge_lstm.gateway.scoring import Answer, Gateway, Message
from edge_lstm.gateway.tokens import Tokens

TOKEN_WAIT_S = 10.0  # a browser's socket sends its token first
REFUSED, BUSY = 4401, 503
LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")

Submit = Callable[[Message], Awaitable[Answer | None]]


def create_app(gateway: Gateway, tokens: Tokens, metrics: Metrics, live: Live, submit: Submit) -> FastAPI:
    """submit: takes a message, answers when its rows are scored and stored, or None where
    too many wait or they cannot be stored."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    html, policy = live_page(gateway.stream, gateway.model, bool(tokens))

    @app.middleware("http")
    async def guard(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        if not tokens and not _is_local(request.headers.get("host", "")):
            return _error(421, "without tokens only local addresses are served; start with --token-file")
        if request.url.path in ("/", "/health"):
            return await call_next(request)
        if tokens.holder(_bearer(request.headers.get("authorization", ""))) is None:
            metrics.refused += 1
            return _error(401, "expected the header 'Authorization: Bearer TOKEN' with a valid token")
        return await call_next(request)

    @app.get("/")
    async def page() -> Response:
        headers = {"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff"}
        return Response(html, media_type="text/html", headers=headers)

    @app.get("/health")
    async def health() -> Response:
        return _json({"ok": True})

    @app.get("/metrics")
    async def scrape() -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")

    _add_streams(app, gateway, submit)
    _add_socket(app, gateway, tokens, metrics, live)
    return app


def _add_streams(app: FastAPI, gateway: Gateway, submit: Submit) -> None:
    @app.get("/streams")
    async def streams() -> Response:
        return _json([record.summary() for record in gateway.streams.values()])

    @app.get("/streams/{stream}")
    async def stream(stream: str) -> Response:
        found = gateway.details(stream)
        return _unknown(stream) if found is None else _json(found)

    @app.delete("/streams/{stream}")
    async def forget(stream: str) -> Response:
        return _json({"forgotten": stream}) if gateway.forget(stream) else _unknown(stream)

    @app.post("/streams/{stream}/rows")
    async def rows(stream: str, request: Request) -> Response:
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            return _error(415, "expected the content type application/json")
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > MAX_BYTES:
                return _error(413, f"expected {MAX_BYTES:,} bytes at most; send fewer rows")
        answer = await submit(Message(stream, bytes(body), "http"))
        if answer is None:
            return _error(BUSY, "the rows cannot be taken now; send them again later")
        if answer.error:
            return _error(400, answer.error)
        return _json({"rows": answer.rows, "duplicates": answer.duplicates})


def _add_socket(app: FastAPI, gateway: Gateway, tokens: Tokens, metrics: Metrics, live: Live) -> None:
    @app.websocket("/streams/{stream}/live")
    async def samples(socket: WebSocket, stream: str) -> None:
        if not _is_same_origin(socket) or (not tokens and not _is_local(socket.headers.get("host", ""))):
            await socket.close(REFUSED)
            return
        await socket.accept()
        if not await _is_known(socket, tokens):
            metrics.refused += 1
            await socket.close(REFUSED, "no valid token")
            return
        with live.listening(stream) as queue:
            await socket.send_text(json.dumps({"stream": stream, "known": stream in gateway.streams}))
            sender = asyncio.create_task(_send(socket, queue))
            try:
                while True:
                    await socket.receive_text()
            except WebSocketDisconnect:
                pass
            finally:
                sender.cancel()


async def _send(socket: WebSocket, queue: asyncio.Queue[str]) -> None:
    while True:
        await socket.send_text(await queue.get())


async def _is_known(socket: WebSocket, tokens: Tokens) -> bool:
    """Whether a socket brings a token: in its header, or where that cannot be as its first message."""
    header = socket.headers.get("authorization", "")
    if header or not tokens:
        return tokens.holder(_bearer(header)) is not None
    try:
        first = json.loads(await asyncio.wait_for(socket.receive_text(), TOKEN_WAIT_S))
    except (ValueError, KeyError, asyncio.TimeoutError, WebSocketDisconnect):
        return False
    token = first.get("token") if isinstance(first, dict) else None
    return isinstance(token, str) and tokens.holder(token) is not None


def _is_same_origin(socket: WebSocket) -> bool:
    """A page of another site must not use the sockets of its visitor."""
    origin = socket.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == socket.headers.get("host")


def _is_local(host: str) -> bool:
    """Against pages of other sites whose name was turned to this machine."""
    return (urlsplit(f"//{host}").hostname or "") in LOCAL_HOSTS


def _bearer(header: str) -> str:
    kind, _, token = header.partition(" ")
    return token.strip() if kind.lower() == "bearer" else ""


def _json(value: Any, status: int = 200) -> Response:
    return Response(json.dumps(value), status, media_type="application/json")


def _error(status: int, text: str) -> Response:
    return _json({"error": text}, status)


def _unknown(stream: str) -> Response:
    return _error(404, f"stream '{stream[:80]}' has sent no row")
