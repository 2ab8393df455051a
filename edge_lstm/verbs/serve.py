"""serve: a gateway that scores many streams with one model, over MQTT and HTTP."""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from edge_lstm import __version__
from edge_lstm.errors import ConfigError, MissingTool, raise_all
from edge_lstm.executors.protocol import Executor
from edge_lstm.gateway.scoring import Gateway, Rules
from edge_lstm.gateway.store import Store
from edge_lstm.gateway.tokens import read_tokens
from edge_lstm.naming import identifier
from edge_lstm.optional import require
from edge_lstm.qgraph import QGraph
from edge_lstm.verbs.detect import read_detector
from firmware_tools.executors import open_executor

EXECUTORS = ("host", "numpy")


@dataclass(frozen=True)
class ServeOptions:
    """Where a gateway listens and what it does.

    on: ``host`` (the model's C, compiled here) or ``numpy``, which needs no compiler and is slower.
    host, port: of HTTP; a host that others reach needs ``token_file``.
    state: the file that keeps all streams, by default the model's path with the suffix .state.
    mqtt: address of a broker, mqtt://[user@]host[:port] or mqtts; none without.  client: names the session
    that the broker keeps.  prefix: of all topics.  scores: publish every score, not only alarms.
    gap_factor: periods without a row before a stream begins anew.
    """

    on: str = "host"
    host: str = "127.0.0.1"
    port: int = 8000
    token_file: Path | None = None
    state: Path | None = None
    mqtt: str | None = None
    mqtt_password_file: Path | None = None
    client: str | None = None
    prefix: str = "edge_lstm"
    scores: bool = False
    gap_factor: float = 5.0
    most_streams: int = 10_000

    def __post_init__(self) -> None:
        problems = []
        if self.on not in EXECUTORS:
            problems.append(f"on is '{self.on}', expected {' or '.join(EXECUTORS)}, which save their state")
        if not 0 <= self.port < 65536:
            problems.append(f"port is {self.port}, expected 0 .. 65535")
        if not self.prefix or set(self.prefix) & set("+#\0") or self.prefix.strip("/") != self.prefix:
            problems.append(f"prefix is '{self.prefix}', expected a topic without +, # and / at its ends")
        if not 1 < self.gap_factor < float("inf"):
            problems.append(f"gap_factor is {self.gap_factor}, expected a number above 1")
        if self.most_streams < 1:
            problems.append(f"most_streams is {self.most_streams}, expected 1 or more")
        if self.token_file is None and not _is_loopback(self.host):
            problems.append(
                f"host {self.host} can be reached from outside and no token is asked for; "
                "give --token-file, or --host 127.0.0.1"
            )
        raise_all(ConfigError, "serve", problems)


@dataclass(frozen=True)
class Served:
    """What a gateway did until it was stopped."""

    model: str
    streams: int
    rows: int
    alarms: int
    duplicates: int
    malformed: int


@dataclass(frozen=True)
class Ready:
    """A gateway that listens at ``url``.  streams: that its state file holds."""

    url: str
    executor: str
    streams: int


def serve(
    model: Path, options: ServeOptions | None = None, on_ready: Callable[[Ready], None] | None = None
) -> Served:
    """Score the rows of many streams with the detector of ``model`` until SIGINT or SIGTERM.

    Each stream has the scores that ``detect`` gives for its rows.  on_ready: called when it listens.
    Raises ConfigError, ModelError, MissingTool, OutputError or RuntimeFailure.
    """
    options = options or ServeOptions()
    for module in ("fastapi", "uvicorn", "websockets", "prometheus_client", "paho.mqtt.client"):
        require(module, "serve")
    from edge_lstm.gateway.broker import Address
    from edge_lstm.gateway.server import Server

    tokens = read_tokens(options.token_file)
    qgraph = read_detector(Path(model))
    content = Path(model).read_bytes()
    client = options.client or f"edge-lstm-{identifier(qgraph.name)}"
    address = Address.of(options.mqtt, options.mqtt_password_file, client) if options.mqtt else None
    rules = Rules(
        options.prefix, options.scores, options.gap_factor, options.most_streams, address is not None
    )
    with (
        _listening(options.host, options.port) as listen,
        _opened(options.on, qgraph, content) as executor,
        contextlib.closing(
            _store(options.state or Path(model).with_suffix(".state"), content, executor)
        ) as store,
    ):
        gateway = Gateway(executor, store, rules)
        ready = Ready(_url(listen), options.on, len(gateway.streams))
        server = Server(gateway, store, tokens, listen, address)
        server.run(lambda: on_ready(ready) if on_ready else None)
    counts = gateway.counts
    malformed = sum(counts.malformed.values())
    return Served(qgraph.name, len(gateway.streams), counts.rows, counts.alarms, counts.duplicates, malformed)


def _opened(on: str, qgraph: QGraph, content: bytes) -> Executor:
    try:
        return open_executor(on, qgraph, content)
    except MissingTool as error:
        raise MissingTool(f"{error}; or serve with --on numpy") from error


def _store(path: Path, content: bytes, executor: Executor) -> Store:
    """States fit one model file, one executor and one version of this package."""
    digest = hashlib.sha256(content).hexdigest()[:16]
    return Store(path, f"model {digest}, {executor.name}, edge-lstm {__version__}")


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """A bound socket; port 0 takes a free one."""
    try:
        family, _, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listen = socket.create_server(place[:2], family=family)
    except OSError as error:
        raise ConfigError(
            f"cannot listen at {host}:{port}: {error.strerror or error}; choose another --host or --port"
        ) from error
    with listen:
        yield listen


def _url(listen: socket.socket) -> str:
    host, port = listen.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
