"""A line that lies: a proxy between a socket:// port and firmware processes that damages what passes."""

from __future__ import annotations

import random
import selectors
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CHUNK = 4096
PAUSE_S = 0.01  # between two tries of the host, at least
NOTICED_TRIES = 6  # of a host that waits 0.02 s, then twice as long each time: more than 0.3 s
NOTICED_FRAMES = 8  # from another model's firmware: refusals and the parts of a hello
BYTE_FAULTS = ("flip", "drop", "insert", "duplicate")


class FaultyLine:
    """Serves ``url``; what passes is damaged at ``rate`` faults a byte, each kind as often.

    actions: done in turn, one after every ``every`` bytes from the host: "cut" (nothing passes for
    ``cut_s``), "half" (half of what is at hand is lost), "reboot", "unplug" (the connection is closed),
    "swap" (``other`` runs for ``cut_s`` in place of ``program``).  done: how often each fault happened.
    """

    def __init__(
        self,
        program: Path,
        *,
        rate: float = 0.0,
        every: int = 0,
        actions: Sequence[str] = (),
        other: Path | None = None,
        cut_s: float = 0.3,
        seed: int = 0,
    ) -> None:
        self.program, self.other, self.rate, self.cut_s = program, other, rate, cut_s
        self.every, self.actions = every, list(actions)
        self.done: Counter[str] = Counter()
        self._random = random.Random(seed)
        self._cut_until = self._swap_until = 0.0
        self._tries, self._tried, self._said = 0, 0.0, 0
        self._passed, self._turn, self._once = 0, 0, ""
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"socket://127.0.0.1:{self._server.getsockname()[1]}"
        self._client: socket.socket | None = None
        self._device = self._start(program)
        self._stopped, self._half = False, False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def calm(self) -> None:
        """Start no more actions."""
        self.actions = []

    def once(self, action: str) -> None:
        """Do ``action`` at the next bytes from the host."""
        self._once = action

    def __enter__(self) -> FaultyLine:
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped = True
        self._thread.join()
        self._end()
        self._server.close()
        self._drop_client()

    def _start(self, program: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen([str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)

    def _end(self) -> None:
        self._device.kill()
        self._device.wait()
        for pipe in (self._device.stdin, self._device.stdout):
            assert pipe is not None
            pipe.close()

    def _drop_client(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _run(self) -> None:
        while not self._stopped:
            self._end_actions()
            with selectors.DefaultSelector() as selector:
                for source in self._sources():
                    selector.register(source, selectors.EVENT_READ)
                ready = [key.fileobj for key, _ in selector.select(0.02)]
            for source in ready:
                self._pass(source)

    def _end_actions(self) -> None:
        """End what has lasted long enough for the host to notice, however slow this machine is."""
        now = time.monotonic()
        if self._cut_until and now > self._cut_until and self._tries >= NOTICED_TRIES:
            self._cut_until = 0.0
        if self._swap_until and now > self._swap_until and self._said >= NOTICED_FRAMES:
            self._swap_until = 0.0
            self._replace(self.program)

    def _sources(self) -> list[Any]:
        return [self._server if self._client is None else self._client, self._device.stdout]

    def _pass(self, source: Any) -> None:
        assert self._device.stdin is not None
        assert self._device.stdout is not None
        try:
            if source is self._server:
                self._client, _ = self._server.accept()
                self._client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            elif source is self._client:
                content = source.recv(CHUNK)
                if not content:
                    self._drop_client()
                    return
                if time.monotonic() - self._tried > PAUSE_S:
                    self._tries += 1
                self._tried = time.monotonic()
                self._device.stdin.write(self._damaged(content))
                self._passed += len(content)
                if self._once:
                    action, self._once = self._once, ""
                    self._act(action)
                elif self.actions and self._passed > self.every:
                    self._passed = 0
                    self._act(self.actions[self._turn % len(self.actions)])
                    self._turn += 1
            elif source is self._device.stdout:
                content = self._device.stdout.read(CHUNK)
                self._said += content.count(0)
                content = self._damaged(content)
                if self._client is not None:
                    self._client.sendall(content)
        except OSError:
            self._drop_client()

    def _act(self, action: str) -> None:
        self.done[action] += 1
        if action == "cut":
            self._cut_until, self._tries = time.monotonic() + self.cut_s, 0
        elif action == "reboot":
            self._replace(self.program)
        elif action == "unplug":
            self._drop_client()
        elif action == "swap":
            assert self.other is not None
            self._swap_until, self._said = time.monotonic() + self.cut_s, 0
            self._replace(self.other)
        elif action == "half":
            self._half = True
        else:
            raise ValueError(action)

    def _replace(self, program: Path) -> None:
        self._end()
        self._device = self._start(program)

    def _damaged(self, content: bytes) -> bytes:
        if self._cut_until:
            return b""
        if self._half:
            self._half = False
            content = content[: len(content) // 2]
        if not self.rate:
            return content
        out = bytearray()
        for byte in content:
            if self._random.random() >= self.rate:
                out.append(byte)
                continue
            kind = self._random.choice(BYTE_FAULTS)
            self.done[kind] += 1
            if kind == "flip":
                out.append(byte ^ 1 << self._random.randrange(8))
            elif kind == "insert":
                out += bytes([self._random.randrange(256), byte])
            elif kind == "duplicate":
                out += bytes([byte, byte])
        return bytes(out)
