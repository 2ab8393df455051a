"""The MQTT side: a session that the broker keeps, payloads in, messages out; nothing acknowledged too early.

Reads topics PREFIX/STREAM/rows; writes what the gateway publishes.  Callbacks run in Paho's thread.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edge_lstm.errors import ConfigError, RuntimeFailure
from edge_lstm.gateway.store import Outgoing

FOR_EVER = 0xFFFFFFFF  # seconds that the broker keeps the session
IN_FLIGHT = 0xFFFF
WINDOW = 256  # messages sent and not confirmed: Paho looks through all of them for each that is
PORTS = {"mqtt": 1883, "mqtts": 8883}
KEEPALIVE_S = 30


@dataclass(frozen=True)
class Address:
    """Where a broker is and who connects.  client: names the session that the broker keeps."""

    host: str
    port: int
    tls: bool
    user: str | None
    password: str | None
    client: str

    @staticmethod
    def of(url: str, password_file: Path | None, client: str) -> Address:
        """``mqtt://[user@]host[:port]`` or mqtts; the password is the first line of a file."""
        parts = urlsplit(url)
        try:
            port = parts.port or PORTS.get(parts.scheme, 0)
        except ValueError:
            port = 0
        if not port or not parts.hostname or parts.path.strip("/") or parts.password:
            raise ConfigError(
                "the broker's address is no mqtt://[user@]host[:port] or mqtts://...; a password stands in "
                "a file, --mqtt-password-file"
            )
        password = None
        if password_file is not None:
            try:
                password = Path(password_file).read_text(encoding="utf-8").partition("\n")[0]
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(f"cannot read the password file {password_file}: {error}") from error
        return Address(parts.hostname, port, parts.scheme == "mqtts", parts.username, password, client)


class Broker:
    """One session.  A payload is acknowledged by ``acknowledge`` only, when it is stored."""

    def __init__(
        self,
        address: Address,
        prefix: str,
        arrived: Callable[[str, bytes, int], None],
        settle_soon: Callable[[], None],
    ) -> None:
        """arrived: takes a stream, a payload, its number.  settle_soon: has ``publish`` called, which goes on
        with what waits.  Both are called in another thread.
        """
        self._address, self._prefix = address, prefix
        self._arrived, self._settle_soon = arrived, settle_soon
        self._sent: dict[int, int] = {}
        self._confirmed: list[int] = []
        self._settled: deque[int] = deque()
        self._backlog: deque[Outgoing] = deque()
        self._told = False
        self._answered = threading.Event()
        self._refusal = ""
        self.connected = False
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=address.client, protocol=paho.MQTTv5, manual_ack=True
        )
        self._client.max_inflight_messages_set(IN_FLIGHT)
        self._client.reconnect_delay_set(1, 15)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_message = self._on_message
        self._client.on_publish = self._on_publish
        if address.user is not None:
            self._client.username_pw_set(address.user, address.password)
        if address.tls:
            self._client.tls_set_context(ssl.create_default_context())

    def open(self, timeout_s: float = 10.0) -> None:
        """Connect and go on doing so after interruptions; RuntimeFailure where the first try fails."""
        where = f"{self._address.host}:{self._address.port}"
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = FOR_EVER
        properties.ReceiveMaximum = IN_FLIGHT
        try:
            self._client.connect(
                self._address.host, self._address.port, KEEPALIVE_S, clean_start=False, properties=properties
            )
        except (OSError, ValueError) as error:
            raise RuntimeFailure(f"no MQTT broker answers at {where}: {error}; is it running?") from error
        self._client.loop_start()
        if not self._answered.wait(timeout_s) or self._refusal:
            self.close()
            reason = self._refusal or f"no answer within {timeout_s:g} s"
            raise RuntimeFailure(
                f"the MQTT broker at {where} refuses: {reason}; see user and --mqtt-password-file"
            )

    def acknowledge(self, numbers: Iterable[int]) -> None:
        """Tell the broker that these payloads are stored."""
        for number in filter(None, numbers):  # 0: sent with QoS 0
            self._client.ack(number, 1)

    def publish(self, messages: Iterable[Outgoing] = ()) -> None:
        """Send messages; they are sent again after an interruption until the broker confirms them."""
        self._backlog.extend(messages)
        self._settle()
        while self._backlog and len(self._sent) < WINDOW:
            message = self._backlog.popleft()
            sent = self._client.publish(message.topic, message.payload, qos=1)
            self._sent[sent.mid] = message.id

    def confirmed(self) -> list[int]:
        """Numbers of messages confirmed since the last call."""
        self._settle()
        confirmed, self._confirmed = self._confirmed, []
        return confirmed

    def _settle(self) -> None:
        """Turn packet numbers, which repeat, into those of messages; never in Paho's thread."""
        self._told = False
        while self._settled:
            number = self._sent.pop(self._settled.popleft(), None)
            if number is not None:
                self._confirmed.append(number)

    def drain(self, timeout_s: float) -> None:
        """Wait until all that was published is confirmed, so long at most."""
        deadline = time.monotonic() + timeout_s
        while self._sent and self.connected and time.monotonic() < deadline:
            time.sleep(0.01)
            self.publish()

    def close(self) -> None:
        """Leave; the broker keeps the session and what comes for it."""
        self._client.disconnect()
        self._client.loop_stop()

    def _on_connect(self, client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            self._refusal = str(reason)
        else:
            self.connected = True
            client.subscribe(f"{self._prefix}/+/rows", qos=1)
        self._answered.set()

    def _on_disconnect(self, _client: Any, _data: Any, _flags: Any, _reason: Any, _properties: Any) -> None:
        self.connected = False

    def _on_message(self, client: Any, _data: Any, message: Any) -> None:
        stream = message.topic[len(self._prefix) + 1 : -len("/rows")]
        self._arrived(stream, message.payload, message.mid if message.qos else 0)

    def _on_publish(self, _client: Any, _data: Any, number: int, _reason: Any, _properties: Any) -> None:
        self._settled.append(number)
        if not self._told:
            self._told = True
            self._settle_soon()
