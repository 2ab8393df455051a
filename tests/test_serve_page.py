"""serve over HTTP with tokens: rows, streams, sockets, metrics, and the live page in a real browser."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib.image
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from browser import browser
from edge_lstm.verbs.detect import detect
from serve_processes import TOKEN, GatewayProcess, payloads

BEARER = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
WIDER = "document.documentElement.scrollWidth > innerWidth"


@pytest.fixture(scope="module")
def gateway(pump_tflite: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("gateway")
    (folder / "tokens").write_text(f"# who may\n\ntests:{TOKEN}\n")
    options = ("--on", "numpy", "--token-file", str(folder / "tokens"))
    with GatewayProcess(pump_tflite, folder / "state", *options) as running:
        yield running


def post(gateway: GatewayProcess, stream: str, rows: list[str]) -> dict[str, int]:
    reply = gateway.http.post(f"/streams/{stream}/rows", content=f"[{','.join(rows)}]", headers=BEARER)
    assert reply.status_code == 200, reply.text
    answer: dict[str, int] = reply.json()
    return answer


def test_without_a_token_nothing_is_told(gateway: GatewayProcess) -> None:
    for path in ("/streams", "/streams/a", "/metrics", "/docs", "/openapi.json"):
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}):
            reply = gateway.http.get(path, headers=headers)
            assert reply.status_code == 401 and "Bearer TOKEN" in reply.json()["error"]
    assert gateway.http.post("/streams/a/rows", json={"values": {}}).status_code == 401
    assert gateway.http.delete("/streams/a").status_code == 401
    assert gateway.http.get("/health").json() == {"ok": True}
    address = gateway.ready["url"].replace("http", "ws") + "streams/a/live"
    for first in ('{"token": "wrong"}', "{", "[]", '{"token": 5}'):
        with connect(address) as socket, pytest.raises(ConnectionClosed):
            socket.send(first)
            socket.recv(30)
    with pytest.raises(InvalidStatus, match="403"), connect(address, origin=Origin("http://other.example")):
        pass
    refused = gateway.http.get("/metrics", headers=BEARER).text
    assert "edge_lstm_refused_total 21.0" in refused


def test_rows_are_scored_once_and_shown(gateway: GatewayProcess, pump_csv: Path) -> None:
    rows = payloads(pump_csv, slice(0, 40))
    assert post(gateway, "once", rows[:30]) == {"rows": 30, "duplicates": 0}
    assert post(gateway, "once", rows[20:]) == {"rows": 10, "duplicates": 10}
    found = gateway.http.get("/streams/once", headers=BEARER).json()
    assert (found["rows"], found["duplicates"], found["gaps"]) == (40, 10, 0)
    assert [sample["row"] for sample in found["recent"]] == list(range(40))
    assert found["drift"]["flow"]["rows"] == 40
    address = gateway.ready["url"].replace("http", "ws") + "streams/once/live"
    with connect(address, additional_headers={"Authorization": f"Bearer {TOKEN}"}) as socket:
        assert json.loads(socket.recv(30)) == {"stream": "once", "known": True}
        post(gateway, "once", payloads(pump_csv, slice(40, 41)))
        assert json.loads(socket.recv(30))["row"] == 40
    assert gateway.http.delete("/streams/once", headers=BEARER).json() == {"forgotten": "once"}
    for reply in (
        gateway.http.delete("/streams/once", headers=BEARER),
        gateway.http.get("/streams/once", headers=BEARER),
    ):
        assert reply.status_code == 404 and reply.json()["error"] == "stream 'once' has sent no row"


@pytest.mark.parametrize(
    ("content", "kind", "status", "message"),
    [
        ("{}", "text/plain", 415, "expected the content type application/json"),
        (" " * 70000, "application/json", 413, "expected 65,536 bytes at most"),
        ('{"raw": [1, 2, 3, 4, 5.5]}', "application/json", 400, "'temperature' is 5.5, expected an integer"),
    ],
)
def test_what_is_wrong_with_a_request_is_answered(
    gateway: GatewayProcess, content: str, kind: str, status: int, message: str
) -> None:
    headers = {**BEARER, "Content-Type": kind}
    reply = gateway.http.post("/streams/a/rows", content=content, headers=headers)
    assert reply.status_code == status and message in reply.json()["error"]


def test_a_full_disk_ends_the_gateway_with_one_message(
    pump_tflite: Path, pump_csv: Path, tmp_path: Path
) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))"
    rows = f"[{','.join(payloads(pump_csv, slice(0, 2)))}]"
    headers = {"Content-Type": "application/json"}
    with GatewayProcess(pump_tflite, tmp_path / "state", "--on", "numpy", first=limit) as gateway:
        for number in range(200):
            reply = gateway.http.post(f"/streams/s{number}/rows", content=rows, headers=headers)
            if reply.status_code != 200:
                break
        assert reply.status_code == 503 and "send them again" in reply.json()["error"]
        assert gateway.process.wait(30) == 1
    assert gateway.said.startswith("edge-lstm serve: cannot write the state file")
    assert gateway.said.count("\n") == 1


def test_the_live_page_shows_rows_as_they_come_in_a_browser(
    gateway: GatewayProcess,
    pump_tflite: Path,
    pump_csv: Path,
    tmp_path: Path,
    picture: Callable[[str], Path],
) -> None:
    alarm = detect(pump_tflite, pump_csv).events[0].start_row
    rows = payloads(pump_csv, slice(alarm - 290, alarm + 12))
    for number in range(3):
        post(gateway, f"pump-{number}", rows[: 100 + 20 * number])
    post(gateway, "pump-1", rows[140:290])
    with browser(tmp_path) as page:
        page.open(gateway.ready["url"])
        page.wait("document.readyState == 'complete' && typeof refresh == 'function'")
        assert page.value("at('main').hidden && at('table').childElementCount == 0")
        page.value("at('token').value = 'not the right one'; at('login').requestSubmit()")
        page.wait("at('said').textContent == 'This token is not valid.'")
        page.problems.clear()  # the browser notes the refusal
        page.value(f"at('token').value = '{TOKEN}'; at('login').requestSubmit()")
        page.wait("at('table').textContent.includes('pump-2') && at('login').hidden")
        page.value("[...at('table').querySelectorAll('button')].find(b => b.textContent == 'pump-1').click()")
        page.wait("socket && socket.readyState == 1 && samples.length == 120 && turn > 0")
        assert page.wait("at('state').textContent") == "normal"
        last = page.value("samples[119].row")
        for start in range(290, len(rows), 4):
            post(gateway, "pump-1", rows[start : start + 4])
        page.wait(f"samples[119].row == {last + len(rows) - 290}")
        page.wait("at('state').textContent == 'ALARM' && at('eventrows').textContent.includes('lasts')")
        page.wait("at('said').textContent == '1 stream is in alarm.' && at('alarms').textContent == '1'")
        assert page.value("at('plots').querySelectorAll('svg').length") == 5
        assert page.value("document.querySelectorAll('#scoreplot rect.alarm').length") == 1
        assert page.value("at('shares').childElementCount") == 5
        assert page.value("at('driftrows').textContent").count("as calibrated") >= 1
        assert not page.value(WIDER)
        page.shot(tmp_path / "wide.png")
        page.shot(picture("serve.png"), page.value("at('contributions').getBoundingClientRect().bottom + 24"))
        page.size(400, 800)
        page.wait("dispatchEvent(new Event('resize')) && innerWidth == 400")
        assert not page.value(WIDER)
        page.shot(tmp_path / "narrow.png")
        resources = page.value("performance.getEntriesByType('resource').map(e => e.name)")
        assert all(name.startswith(gateway.ready["url"]) for name in resources)
        assert page.problems == []
    assert matplotlib.image.imread(tmp_path / "wide.png").std() > 0.05
