"""The files around a fleet: its manifest, its results, its page."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from browser import browser
from edge_lstm.errors import DataError
from edge_lstm.files import write_bytes
from edge_lstm.reporting.fleet import FleetPage, draw_fleet, render_fleet, worst_first
from edge_lstm.verbs.fleet_manifest import Asset, Results, key_of, read_manifest

MEASURED = Path(__file__).with_name(
    "fleet_pumps.csv"
)  # figures of generated pumps, by edge-lstm fleet --epochs 3


def measured() -> list[dict]:
    with MEASURED.open(newline="") as file:
        return [
            {"asset": row.pop("asset"), "error": None, "data": "", "key": "",
             **{name: float(value) if value else None for name, value in row.items()}}
            for row in csv.DictReader(file)
        ]  # fmt: skip


def failed(name: str, error: str) -> dict:
    return {"asset": name, "data": "x.csv", "key": "", "error": error}


def test_a_manifest_gives_assets_with_paths_relative_to_it(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("data,asset\nlab/a.csv,pump 1\n".replace("pump 1", "pump-1") + "/b.csv,p2\n")
    assert read_manifest(path) == [Asset("pump-1", tmp_path / "lab/a.csv"), Asset("p2", Path("/b.csv"))]


def test_every_problem_of_a_manifest_is_told_with_its_line(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("asset,data\na,x.csv\n../b,x.csv\nA,x.csv\n..,y.csv\nc,\n,z.csv\n")
    with pytest.raises(DataError) as caught:
        read_manifest(path)
    message = str(caught.value)
    for words in ("5 problems", "line 3: asset '../b'", "'A' stands on line 2", "line 5", "line 6", "line 7"):
        assert words in message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "its first line has nothing"),
        (b"name,file\na,b\n", "its first line has name, file, expected the columns asset,data"),
        (b"asset,data\n", "it names no asset"),
        (b"asset,data\n\xff\xfe,b\n", "no CSV in UTF-8"),
    ],
)
def test_a_manifest_of_another_form_is_refused(tmp_path, content, words):
    path = tmp_path / "m.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=words):
        read_manifest(path)


def test_an_asset_is_done_while_recording_settings_and_files_stay(tmp_path):
    asset, store = Asset("a", tmp_path / "a.csv"), Results(tmp_path / "fleet.jsonl")
    asset.data.write_text("1")
    (tmp_path / "a").mkdir()
    for name in ("model.keras", "model.tflite"):
        (tmp_path / "a" / name).write_text("x")
    assert not store.has(asset, "s", tmp_path)
    store.add([{"asset": "a", "key": key_of("s", asset.data), "error": None}])
    assert Results(store.path).has(asset, "s", tmp_path)
    assert not store.has(asset, "other", tmp_path)
    asset.data.write_text("2")
    assert not store.has(asset, "s", tmp_path)
    asset.data.write_text("1")
    (tmp_path / "a" / "model.keras").unlink()
    assert not store.has(asset, "s", tmp_path)
    store.add([{"asset": "a", "key": key_of("s", asset.data), "error": "torn"}])
    assert not store.has(asset, "s", tmp_path)


def test_results_survive_a_torn_last_line_and_refuse_other_files(tmp_path):
    store = Results(tmp_path / "fleet.jsonl")
    store.add([{"asset": "a", "key": "k", "error": None}])
    whole = store.path.read_text()
    store.path.write_text(whole + '{"asset": "b", "ke')
    assert list(Results(store.path).known) == ["a"]
    assert store.path.read_text() == whole
    store.path.write_text("hello\n")
    with pytest.raises(DataError, match="line 1 is no result of a fleet"):
        Results(store.path)


def test_the_page_asks_for_nothing_and_escapes_what_it_is_told():
    results = [*measured()[:5], failed("bad", "<script>alert(1)</script>")]
    text = render_fleet(FleetPage("pumps", results, 1.25))
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert "5 of 6 assets have a detector" in text
    assert "1 failed. 1.25 s an asset." in text
    assert not re.search(r"https?://(?!www\.w3\.org)|\bsrc=|url\((?!#)", text)
    only = render_fleet(FleetPage("pumps", [failed("bad", "torn")], None))
    assert "No asset was trained." in only


def test_the_table_is_worst_first_and_sorts_by_a_click(tmp_path):
    results = measured()
    page = tmp_path / "fleet.html"
    page.write_text(render_fleet(FleetPage("pumps", results, 1.0)))
    worst = worst_first(results)
    assert worst[0]["vus_pr"] == min(one["vus_pr"] for one in results if one["vus_pr"] is not None)
    first = "document.querySelector('#sortable tbody th').textContent"
    sizes = "Array.from(document.querySelectorAll('#sortable tbody tr')).map(r => r.cells[6].textContent)"
    click = "document.querySelectorAll('#sortable thead button')[6].click()"
    with browser(tmp_path) as tab:
        tab.open(page.as_uri())
        tab.wait("document.querySelectorAll('#sortable thead button').length == 9")
        assert tab.value(first) == worst[0]["asset"]
        tab.value(click)
        assert tab.value(sizes) == [f"{size:,.0f}" for size in sorted(r["size_bytes"] for r in results)]
        tab.value(click)
        assert tab.value(sizes)[0] == f"{max(r['size_bytes'] for r in results):,.0f}"


def test_the_picture_of_a_fleet_is_drawn(picture):
    path = picture("fleet.png")
    write_bytes(path, draw_fleet(FleetPage("pumps", measured(), None), 1100))
    assert path.read_bytes()[:4] == b"\x89PNG"
    assert path.stat().st_size < 150_000
