"""serve behind a real broker: a kill, many streams, strangers, malformed payloads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_lstm.errors import RuntimeFailure
from edge_lstm.verbs.detect import Detected, detect
from edge_lstm.verbs.serve import ServeOptions, serve
from serve_processes import CHANNELS, Device, GatewayProcess, mosquitto, payloads, wait_for

STREAMS = [f"pump-{number}" for number in range(3)]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, list[str]]]:
    """The broker's port and the options of a gateway that may use it."""
    folder = tmp_path_factory.mktemp("broker")
    with mosquitto(folder) as port:
        password = str(folder / "password")
        yield port, ["--mqtt", f"mqtt://gateway@127.0.0.1:{port}", "--mqtt-password-file", password]


@pytest.fixture
def recording(pump_tflite: Path, pump_csv: Path, tmp_path: Path) -> Path:
    """Rows around an alarm."""
    row = detect(pump_tflite, pump_csv).events[0].start_row
    head, *lines = pump_csv.read_text().splitlines(keepends=True)
    path = tmp_path / "part.csv"
    path.write_text(head + "".join(lines[max(row - 150, 0) : row + 100]))
    return path


def test_a_kill_in_the_middle_loses_no_state_and_no_sample(
    broker: tuple[int, list[str]], pump_tflite: Path, recording: Path, tmp_path: Path
) -> None:
    port, options = broker
    expected = detect(pump_tflite, recording)
    rows = payloads(recording, slice(None))
    middle = expected.events[0].start_row + 5
    device = Device(port, "kill/+/alarm", "kill/+/score")
    gateway = GatewayProcess(
        pump_tflite, tmp_path / "pump.state", *options, "--prefix", "kill", "--client", "kill", "--scores"
    )

    def send(part: list[str]) -> None:
        for payload in part:
            for stream in STREAMS:
                device.client.publish(f"kill/{stream}/rows", payload, qos=1)

    with gateway:
        send(rows[:middle])
        wait_for(lambda: sum(stream["rows"] for stream in gateway.streams().values()) > middle)
        send(rows[middle : middle + 20])
        gateway.kill()
    send(rows[middle + 20 :])  # while nobody listens
    with gateway:
        assert gateway.ready["streams"] == len(STREAMS)
        wait_for(lambda: all(stream["rows"] == len(rows) for stream in gateway.streams().values()))
        found = {stream: gateway.http.get(f"/streams/{stream}").json() for stream in STREAMS}
    assert 0 < json.loads(gateway.last.splitlines()[-1])["rows"] < len(rows) * len(STREAMS)
    wait_for(lambda: all(len(_numbers(device, stream)) == len(rows) for stream in STREAMS))
    device.close()
    for stream in STREAMS:
        _assert_as_detected(device, stream, expected)
        ended = [event for event in expected.events if event.stop_row is not None]
        shown = [alarm for alarm in reversed(found[stream]["alarms"]) if alarm["event"] == "clear"]
        assert shown == [{"stream": stream, **event.to_dict()} for event in ended]


def _numbers(device: Device, stream: str) -> set[int]:
    return {sample["row"] for sample in device.heard.get(f"kill/{stream}/score", [])}


def _assert_as_detected(device: Device, stream: str, expected: Detected) -> None:
    """Published scores and alarms are those of one run without interruption; some may have come twice."""
    scores: dict[int, dict[str, Any]] = {}
    for sample in device.heard[f"kill/{stream}/score"]:
        assert scores.setdefault(sample["row"], sample) == sample
    detection = expected.detection
    assert [scores[row]["alarm"] for row in range(expected.rows)] == (detection.alarm > 0).tolist()
    spreads = np.sqrt(detection.score / len(CHANNELS)).tolist()
    assert [scores[row]["score"] for row in range(expected.rows)] == [round(score, 6) for score in spreads]
    alarms = {(event["event"], event["start_row"]) for event in device.heard[f"kill/{stream}/alarm"]}
    started = {("alarm", event.start_row) for event in expected.events}
    assert alarms == started | {("clear", e.start_row) for e in expected.events if e.stop_row is not None}


def test_a_thousand_streams_are_scored_and_no_row_is_lost(
    broker: tuple[int, list[str]], pump_tflite: Path, pump_csv: Path, tmp_path: Path
) -> None:
    port, options = broker
    rows = payloads(pump_csv, slice(0, 3))
    device = Device(port)
    gateway = GatewayProcess(pump_tflite, tmp_path / "many.state", *options, "--client", "many")
    with gateway:
        for payload in rows:
            for number in range(1000):
                device.send(f"s{number}", payload)
        wait_for(lambda: sum(stream["rows"] for stream in gateway.streams().values()) == 3000)
        metrics = gateway.http.get("/metrics").text
        shown = gateway.streams().values()
    assert len(shown) == 1000 and {stream["rows"] for stream in shown} == {3}
    assert "edge_lstm_rows_total 3000.0" in metrics and "edge_lstm_streams 1000.0" in metrics
    assert "edge_lstm_broker_connected 1.0" in metrics
    assert len({json.dumps({**stream, "id": ""}) for stream in shown}) == 1  # all had the same rows
    device.close()


def test_malformed_payloads_are_counted_and_answered(
    broker: tuple[int, list[str]], pump_tflite: Path, pump_csv: Path, tmp_path: Path
) -> None:
    port, options = broker
    good = payloads(pump_csv, slice(0, 2))
    device = Device(port, "edge_lstm/+/error")
    gateway = GatewayProcess(
        pump_tflite, tmp_path / "bad.state", *options, "--client", "bad", "--on", "numpy"
    )
    bad: list[str | bytes] = [
        "", "{", "[]", "NaN", '{"values": [1]}', '{"time": "soon", "values": {"flow": 1}}', "[" * 5000,
        b"\xff\xfe", '{"values": {"flow": "1"}}', " " * 70000,
    ]  # fmt: skip
    with gateway:
        device.send("p", good[0])
        for payload in bad:
            device.send("p", payload)
        device.send(" bad name", good[0])
        device.send("p", good[1])
        wait_for(lambda: len(device.heard.get("edge_lstm/p/error", [])) == len(bad))
        wait_for(lambda: gateway.streams()["p"]["rows"] == 2)
        metrics = gateway.http.get("/metrics").text
    assert f'edge_lstm_malformed_total{{source="mqtt"}} {len(bad) + 1}.0' in metrics
    answers = [answer["error"] for answer in device.heard["edge_lstm/p/error"]]
    assert "values is a list of 1, expected one number or null a channel: vibration" in answers[4]
    assert "70,000 bytes, expected 65,536 at most" in answers[-1]
    assert "begins with a letter or a digit" in device.heard["edge_lstm/ bad name/error"][0]["error"]
    device.close()


def test_who_has_no_password_gets_nothing(
    broker: tuple[int, list[str]], pump_tflite: Path, tmp_path: Path
) -> None:
    port, _ = broker
    assert "authori" in Device(port, user=None).refusal.lower()
    with pytest.raises(RuntimeFailure, match="refuses: .*uthori.*--mqtt-password-file"):
        serve(
            pump_tflite,
            ServeOptions(on="numpy", port=0, mqtt=f"mqtt://127.0.0.1:{port}", state=tmp_path / "s"),
        )
    with pytest.raises(RuntimeFailure, match="no MQTT broker answers at 127.0.0.1:1: .*is it running"):
        serve(pump_tflite, ServeOptions(on="numpy", port=0, mqtt="mqtt://127.0.0.1:1", state=tmp_path / "s"))
