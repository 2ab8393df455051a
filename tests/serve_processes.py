"""A broker, a gateway as a process, and what devices send: for the tests of ``edge-lstm serve``."""

from __future__ import annotations

import csv
import getpass
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from conftest import missing

CHANNELS = ("vibration", "pressure", "flow", "current", "temperature")
TOKEN = "a-token-of-the-tests-1234"


def find_tool(name: str) -> str:
    """A program of mosquitto, which distributions put into /usr/sbin."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if found is None:
        missing(name)
    return str(found)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listen:
        return int(listen.getsockname()[1])


def wait_for(what: Callable[[], bool], timeout_s: float = 120.0) -> None:
    """Until ``what`` holds; fails where it does not."""
    deadline = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < deadline, "this did not come true in time"
        time.sleep(0.2)


@contextmanager
def mosquitto(folder: Path) -> Iterator[int]:
    """A broker that knows the users "gateway" and "device", both with the password "secret"; its port."""
    port, passwords = free_port(), folder / "passwords"
    for index, user in enumerate(("gateway", "device")):
        command = [find_tool("mosquitto_passwd"), *(["-c"] if not index else []), "-b", str(passwords), user]
        subprocess.run([*command, "secret"], check=True, capture_output=True)
    (folder / "password").write_text("secret\n")
    config = folder / "mosquitto.conf"
    config.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous false\npassword_file {passwords}\n"
        f"user {getpass.getuser()}\nmax_queued_messages 0\nmax_inflight_messages 0\n"
    )
    command = [find_tool("mosquitto"), "-c", str(config)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as broker:
        try:
            wait_for(lambda: _answers(port))
            yield port
        finally:
            broker.terminate()


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


class GatewayProcess:
    """``edge-lstm serve`` as a process that listens when the block begins, and is told to stop at its end."""

    def __init__(self, model: Path, state: Path, *options: str, first: str = "") -> None:
        """first: Python that the process runs before all else."""
        self._command = [
            sys.executable, "-c", f"{first}\nfrom edge_lstm.cli import main\nmain()", "serve", str(model),
            "--port", "0", "--state", str(state), "--json", *options,
        ]  # fmt: skip

    def __enter__(self) -> GatewayProcess:
        self.process = subprocess.Popen(
            self._command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        ready = self.process.stdout.readline()
        assert ready, "the gateway did not start"
        self.ready: dict[str, Any] = json.loads(ready)
        self.http = httpx.Client(base_url=self.ready["url"], timeout=30)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.http.close()
        self.process.terminate()
        self.last, self.said = self.process.communicate(timeout=30)

    def kill(self) -> None:
        """As a power cut does."""
        self.process.kill()
        self.process.communicate()

    def streams(self) -> dict[str, dict[str, Any]]:
        return {stream["id"]: stream for stream in self.http.get("/streams").json()}


class Device:
    """A client of the broker that keeps what it hears, by topic."""

    def __init__(self, port: int, *topics: str, user: str | None = "device") -> None:
        self.heard: dict[str, list[dict[str, Any]]] = {}
        self.client = paho.Client(CallbackAPIVersion.VERSION2)
        self.client.max_inflight_messages_set(5000)
        if user is not None:
            self.client.username_pw_set(user, "secret")
        self.refusal = ""
        answered = threading.Event()

        def on_connect(client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
            self.refusal = str(reason) if reason.is_failure else ""
            for topic in topics:
                client.subscribe(topic, qos=1)
            answered.set()

        def on_message(_client: Any, _data: Any, message: Any) -> None:
            self.heard.setdefault(message.topic, []).append(json.loads(message.payload))

        self.client.on_connect, self.client.on_message = on_connect, on_message
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        assert answered.wait(30)

    def send(self, stream: str, payload: str | bytes) -> None:
        self.client.publish(f"edge_lstm/{stream}/rows", payload, qos=1)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


def payloads(recording: Path, rows: slice) -> list[str]:
    """Rows of the pump as devices send them."""
    with recording.open() as file:
        lines = list(csv.DictReader(file))[rows]
    columns = [next(name for name in lines[0] if name.startswith(channel)) for channel in CHANNELS]
    return [
        json.dumps(
            {
                "time": line["time"],
                "values": {
                    channel: float(line[column]) if line[column] else None
                    for channel, column in zip(CHANNELS, columns, strict=True)
                },
            }
        )
        for line in lines
    ]
