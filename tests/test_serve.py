"""The gateway without its sockets: scores, gaps, restarts, payloads, drift, tokens, options."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from edge_lstm.cli import main
from edge_lstm.errors import ConfigError, DataError, OutputError
from edge_lstm.executors.numpy_executor import NumpyExecutor
from edge_lstm.executors.protocol import Executor
from edge_lstm.gateway.broker import Address
from edge_lstm.gateway.drift import LEAST, Drift
from edge_lstm.gateway.payload import read_rows
from edge_lstm.gateway.scoring import Answer, Gateway, Message, Rules
from edge_lstm.gateway.store import ALARMS_KEPT, Store, StoredStream
from edge_lstm.gateway.tokens import read_tokens
from edge_lstm.scaling import counts_of
from edge_lstm.verbs.detect import Detected, detect, read_detector
from edge_lstm.verbs.serve import ServeOptions, serve
from edge_lstm.verbs.streams import StreamOptions, read_stream
from firmware_tools.executors import open_executor
from random_operators import operator_codes, random_operator_graph
from serve_processes import CHANNELS, payloads

Start = Callable[..., Gateway]


@pytest.fixture
def start(pump_tflite: Path, tmp_path: Path) -> Iterator[Start]:
    """Starts the gateway on the same file, each time as after a restart."""
    qgraph = read_detector(pump_tflite)
    stores: list[Store] = []
    executors: dict[str, Executor] = {}

    def started(on: str = "numpy", **rules: object) -> Gateway:
        for store in stores:
            store.close()
        stores.append(Store(tmp_path / f"{on}.state", on))
        if on not in executors:
            executors[on] = open_executor(on, qgraph)
        return Gateway(executors[on], stores[-1], replace(Rules(), **rules))  # type: ignore[arg-type]

    yield started
    for store in stores:
        store.close()


def send(gateway: Gateway, *texts: str, stream: str = "pump") -> list[Answer]:
    return gateway.advance([Message(stream, text.encode(), "http") for text in texts], now=1e9).answers


def samples(gateway: Gateway, *texts: str, stream: str = "pump") -> list[dict[str, object]]:
    batch = gateway.advance([Message(stream, text.encode(), "http") for text in texts], now=1e9)
    return [json.loads(text) for _, text in batch.samples]


@pytest.fixture(scope="module")
def gapped(pump_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows around an alarm with a gap in it, a short one before, and missing values."""
    path = tmp_path_factory.mktemp("gapped") / "gapped.csv"
    head, *lines = pump_csv.read_text().splitlines(keepends=True)
    alarm = next(index for index, line in enumerate(lines) if line.rstrip().endswith(",1"))
    part = lines[alarm - 120 : alarm + 60]
    for index in range(20, 26):
        part[index] = part[index].split(",", 2)[0] + ",," + part[index].split(",", 2)[2]
    path.write_text(head + "".join([*part[:60], *part[64:145], *part[151:]]))
    return path


@pytest.mark.parametrize("on", ["numpy", "host"])
def test_scores_of_interrupted_streams_are_those_of_detect(
    start: Start, pump_tflite: Path, gapped: Path, on: str
) -> None:
    expected = detect(pump_tflite, gapped)
    rows = payloads(gapped, slice(None))
    found: list[dict[str, object]] = []
    gateway = start(on)
    for begin in range(0, len(rows), 40):
        found += samples(gateway, *rows[begin : begin + 40])
        samples(gateway, *rows[begin : begin + 3], stream="other")
        gateway = start(on)  # which restores all from the file
    assert_detected(found, expected)
    details = gateway.details("pump")
    assert details is not None and details["gaps"] == 1 and details["rows"] == expected.rows
    ended = [e.to_dict() for e in expected.events if e.stop_row is not None]
    alarms = [{**alarm, "stream": None} for alarm in reversed(details["alarms"]) if alarm["event"] == "clear"]  # type: ignore[call-overload]
    assert ended and alarms == [{"stream": None, **event} for event in ended]


def assert_detected(found: list[dict[str, object]], expected: Detected) -> None:
    detection = expected.detection
    assert [sample["alarm"] for sample in found] == (detection.alarm > 0).tolist()
    for name in ("score", "threshold"):
        spreads = np.sqrt(getattr(detection, name) / len(CHANNELS)).tolist()
        assert [sample[name] for sample in found] == [round(value, 6) for value in spreads]


def test_raw_integers_and_values_score_alike(start: Start, pump_tflite: Path, pump_csv: Path) -> None:
    stream = read_detector(pump_tflite).stream
    raw = counts_of(stream, read_stream(pump_csv, StreamOptions(), stream).values[:50]).tolist()
    texts = [json.dumps({"seq": index, "raw": row}) for index, row in enumerate(raw)]
    by_raw = samples(start(), *texts, stream="raw")
    by_value = samples(start(), *payloads(pump_csv, slice(0, 50)))
    keys = ("row", "score", "threshold", "alarm", "contributions")
    assert [[s[key] for key in keys] for s in by_raw] == [[s[key] for key in keys] for s in by_value]
    assert by_raw[0]["values"] == pytest.approx(by_value[0]["values"])


def test_a_row_counts_once_and_a_stream_is_numbered_in_one_way(start: Start) -> None:
    gateway = start(most_streams=1)
    row = '{{"{}": {}, "values": [1, 2, 3, 4, null]}}'
    assert send(gateway, row.format("seq", 3), row.format("seq", 3), row.format("seq", 2)) == [
        Answer(1), Answer(0, 1), Answer(0, 1),
    ]  # fmt: skip
    assert send(gateway, row.format("seq", 9))[0] == Answer(1)
    assert gateway.counts.gaps == 1
    assert "rows come by seq and by time" in send(gateway, row.format("time", 9))[0].error
    assert "one more than 1; delete one" in send(gateway, row.format("seq", 1), stream="two")[0].error
    assert gateway.forget("pump") and not gateway.forget("pump")
    assert send(gateway, row.format("time", 9))[0] == Answer(1)
    assert gateway.counts.malformed == {"http": 2, "mqtt": 0}


def test_the_default_topics_carry_alarms_and_errors_until_they_are_confirmed(start: Start) -> None:
    gateway = start(broker=True, scores=True)
    bad, good = Message("p", b"{", "mqtt"), Message("p", b'{"values": [1, 2, 3, 4, 5]}', "mqtt")
    sent = gateway.advance([bad, good], 1e9).outgoing
    assert [message.topic for message in sent] == ["edge_lstm/p/error", "edge_lstm/p/score"]
    gateway.advance([], 1e9, confirmed=[sent[0].id])
    again = start(broker=True)._store.unconfirmed()
    assert [(message.id, message.payload) for message in again] == [(sent[1].id, sent[1].payload)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "payload has 0 rows, expected 1 to 1,000"),
        ("5", "is 5, expected an object as in"),
        ('{"values": [1, 2], "raw": [1, 2]}', "has values and raw, expected one of values and raw"),
        ("{}", "has neither values nor raw"),
        ('{"seq": -1, "values": [1, 2]}', "seq is -1, expected a whole number of 0 or more"),
        ('{"seq": 1, "time": 1, "values": [1, 2]}', "has time and seq, expected one of them"),
        ('{"time": 1e300, "values": [1, 2]}', "time is 1e+300, expected seconds since 1970"),
        ('{"time": "0001-01-01T00:00:00Z", "values": [1, 2]}', "expected seconds since 1970"),
        ('{"time": "25:00", "values": [1, 2]}', 'time is "25:00", expected'),
        ('{"values": {"a": true, "c": 1}}', "values: 'c' is no channel; expected a, b"),
        ('{"values": [1, Infinity]}', "Infinity is not JSON, write null"),
        ('{"raw": [1, 2147483648]}', "raw: 'b' is 2147483648, expected an integer of 32 bits or null"),
        (f'{{"values": [1, {"9" * 400}]}}', "values: 'b' is 999"),
        ('[{"values": [1, 2]}, {"values": {"a": "x"}}]', "row 1: values: 'a' is \"x\""),
    ],
)
def test_every_problem_of_a_payload_is_named(text: str, message: str) -> None:
    with pytest.raises(DataError) as error:
        read_rows(text.encode(), ("a", "b"), 0.0)
    assert message in str(error.value)


def test_times_of_all_forms_are_seconds() -> None:
    texts = ["0", '"1970-01-01T00:00:01Z"', '"1970-01-01 00:00:02"', '"1970-01-01T02:00:03+02:00"', "4.5"]
    payload = json.dumps([{"time": json.loads(text), "values": {"a": 1}} for text in texts])
    rows = read_rows(payload.encode(), ("a", "b"), 0.0)
    assert [row.order for row in rows] == [0, 1, 2, 3, 4.5]
    assert rows[4].stamp == "1970-01-01T00:00:04.500000Z" and np.isnan(rows[0].cells[1])
    assert read_rows(b'{"raw": [1, null]}', ("a", "b"), 7.0)[0].kind == "arrival"


def test_drift_tells_shifted_spread_and_saturated_inputs_from_usual_ones() -> None:
    x = np.random.default_rng(5).normal(size=(LEAST, 5)) * [1, 1, 3, 1, 1] + [0, 2, 0, 0, 5]
    outside = np.zeros_like(x, dtype=bool)
    outside[::20, 3] = True
    present = np.ones_like(outside)
    present[:1, 4] = False
    drift = Drift.begin(5).after(x[:100], outside[:100], present[:100])
    drift = Drift.from_bytes(drift.to_bytes()).after(x[100:], outside[100:], present[100:])
    assert drift.drifted.tolist() == [False, True, True, True, False]  # the last has one value too few
    np.testing.assert_allclose(drift.mean[:4], x[:, :4].mean(axis=0))
    np.testing.assert_allclose(drift.spread[:4], x[:, :4].std(axis=0))
    assert drift.to_dict(("a", "b", "c", "d", "e"))["d"]["saturated"] == round(13 / LEAST, 4)


@pytest.mark.parametrize("kind", ["delay", "scan", "lstm"])
def test_a_saved_state_goes_on_bit_for_bit(kind: str) -> None:
    graphs = (random_operator_graph(seed, kind) for seed in range(50))
    qgraph = next(graph for graph in graphs if not graph.window)
    codes = operator_codes(qgraph, 12)
    executor = NumpyExecutor(qgraph)
    whole, end = executor.run(codes), executor.save()
    executor.reset()
    executor.run(codes[:6])
    state = executor.save()
    executor.reset()
    executor.restore(state)
    assert (executor.run(codes[6:]) == whole[6:]).all() and executor.save() == end


def test_a_state_of_another_length_is_refused(pump_tflite: Path) -> None:
    qgraph = read_detector(pump_tflite)
    for on in ("numpy", "host"):
        with pytest.raises(DataError, match="has 3 bytes, expected .*; was it saved by another executor"):
            open_executor(on, qgraph).restore(b"abc")


def test_a_state_file_belongs_to_one_gateway_and_one_model(tmp_path: Path) -> None:
    path = tmp_path / "a.state"
    store = Store(path, "one")
    with pytest.raises(OutputError, match="is another gateway running on it"):
        Store(path, "one")
    alarms = [("s", row, str(row)) for row in range(ALARMS_KEPT + 5)]
    store.commit([StoredStream("s", b"1", b"2", "{}", "{}")], alarms)
    assert store.alarms("s") == [str(row) for row in range(ALARMS_KEPT + 4, 4, -1)]
    store._base.execute("PRAGMA query_only = 1")
    with pytest.raises(OutputError, match="cannot write the state file .*sent again by the broker"):
        store.commit([])
    with pytest.raises(OutputError, match="cannot write the state file"):
        store.forget("s")
    store.close()
    with pytest.raises(ConfigError, match=r"another model or executor \(one, now two\)"):
        Store(path, "two")
    (tmp_path / "text").write_text("no database, but long enough to be read as one" * 40)
    with pytest.raises(OutputError, match="not a database"):
        Store(tmp_path / "text", "one")
    with sqlite3.connect(path) as base:
        assert base.execute("SELECT count(*) FROM stream").fetchone() == (1,)
    base.close()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it holds no token"),
        ("a:short\n", "line 1: expected name:token, the token of 16 characters or more"),
        ("a:0123456789abcdef\na:0123456789abcdeg\n", "line 2: 'a' has a token already"),
    ],
)
def test_a_bad_token_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "tokens").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_tokens(tmp_path / "tokens")
    with pytest.raises(ConfigError, match="cannot read the token file"):
        read_tokens(tmp_path / "none")


def test_options_that_cannot_work_are_refused(pump_tflite: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        ServeOptions("litert", "0.0.0.0", -1, prefix="a/#", gap_factor=1, most_streams=0)
    for problem in ("on is 'litert'", "host 0.0.0.0 can be reached", "port is -1", "prefix is 'a/#'",
                    "gap_factor is 1", "most_streams is 0"):  # fmt: skip
        assert problem in str(error.value)
    for url in ("http://a", "mqtt://u:secret@a", "mqtt://a:x", "mqtt://a/b", "mqtt://"):
        with pytest.raises(ConfigError, match="the broker's address is no mqtt://"):
            Address.of(url, None, "c")
    with pytest.raises(ConfigError, match="cannot read the password file"):
        Address.of("mqtts://u@a", tmp_path / "none", "c")
    assert Address.of("mqtts://u@a", None, "c").port == 8883
    with pytest.raises(ConfigError, match="cannot listen at 203.0.113.1:8000: .*; choose another --host"):
        serve(pump_tflite, ServeOptions(on="numpy", host="203.0.113.1", token_file=_tokens(tmp_path)))
    refused = CliRunner().invoke(main, ["serve", str(pump_tflite), "--host", "0.0.0.0"])
    assert refused.exit_code == 1 and "give --token-file" in refused.output


def _tokens(folder: Path) -> Path:
    path = folder / "tokens"
    path.write_text("a:0123456789abcdef\n")
    return path
