"""The report page: complete, self-contained, escaped, reproducible, and legible in a real browser."""

from __future__ import annotations

import doctest
import html
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.image
import numpy as np
import pytest

from conftest import missing
from edge_lstm.errors import DataError, MissingTool, OutputError
from edge_lstm.graph import Channel
from edge_lstm.reporting import bars, canvas, page, plots, tables
from edge_lstm.reporting.data import CoreCost, DetectorTrace, Event, ReportData, TensorRange, ranked, verdict
from report_samples import HOSTILE, bare, gaps, hostile, make_data, many_channels, one_channel, short

SECTIONS = ["quality", "stream", "score", "events", "forecast", "residuals", "ranges", "memory",
            "instructions", "agreement", "training", "made"]  # fmt: skip


@pytest.fixture(scope="module")
def data() -> ReportData:
    return make_data()


@cache
def rendered(make: Callable[[], ReportData]) -> tuple[str, float]:
    """The page of a sample and the processor time that it took, in seconds; drawn once."""
    start = time.process_time()
    text = page.render(make())
    return text, time.process_time() - start


@pytest.fixture(scope="module")
def text() -> str:
    return rendered(make_data)[0]


class Parsed(HTMLParser):
    """Tags, ids, addresses and the text of a page, as a browser's parser would find them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href", "srcset", "action", "data"):
                self.addresses.append(value or "")

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_complete_report_has_every_section_and_links_to_each(text: str) -> None:
    parsed = Parsed(text)
    assert [identifier for identifier in parsed.ids if identifier in SECTIONS] == SECTIONS
    assert [address[1:] for address in parsed.addresses if address[1:] in SECTIONS] == SECTIONS
    assert "Not in this report" not in parsed.text


def test_a_bare_report_shows_the_stream_and_names_what_is_absent() -> None:
    parsed = Parsed(rendered(bare)[0])
    assert [identifier for identifier in parsed.ids if identifier in SECTIONS] == ["stream", "made"]
    absent = "Quality, Anomaly score, Alarms, Forecast: float against int8, Residuals"
    assert f"Not in this report, as it was not measured: {absent}" in parsed.text
    assert "50 rows of 2 channels." in parsed.text


def test_the_page_asks_for_nothing_from_outside_and_runs_no_script(text: str) -> None:
    parsed = Parsed(text)
    assert all(address.startswith("#") or address == "data:," for address in parsed.addresses)
    assert "script" not in parsed.tags
    assert set(re.findall(r"url\((.)", text)) == {"#"}
    assert "@import" not in text and "http:" not in text and "https:" not in text


def test_ids_are_unique_and_every_reference_inside_the_page_resolves(text: str) -> None:
    parsed = Parsed(text)
    assert len(set(parsed.ids)) == len(parsed.ids)
    wanted = {address[1:] for address in parsed.addresses if address.startswith("#")}
    wanted |= set(re.findall(r"url\(#([^)]*)\)", text))
    assert wanted <= set(parsed.ids)


def test_the_same_data_gives_the_same_page_whatever_matplotlib_is_set_to() -> None:
    first = rendered(short)[0]
    with matplotlib.rc_context({"font.size": 31, "lines.linewidth": 9, "svg.fonttype": "path"}):
        before = dict(matplotlib.rcParams)
        assert page.render(short()) == first
        assert dict(matplotlib.rcParams) == before


def test_a_page_is_drawn_without_pyplot() -> None:
    code = (
        "import sys, numpy as np\n"
        "from edge_lstm.graph import Channel\n"
        "from edge_lstm.reporting import data, page\n"
        "page.render(data.ReportData('x', [Channel('a')], np.eye(9)[:, :1]))\n"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_names_that_are_markup_stay_text_everywhere() -> None:
    text = rendered(hostile)[0]
    parsed = Parsed(text)
    assert "<b>" not in text and "<script" not in text and "<i>" not in text
    assert parsed.text.count(HOSTILE[0]) > 10
    assert HOSTILE[1] in parsed.text and "cost in $ and $" in parsed.text and "温度" in parsed.text
    assert "\x07" not in "".join(re.findall(r"<text.*?</text>", text, flags=re.DOTALL))


def test_twenty_thousand_rows_make_a_small_page_in_time() -> None:
    assert make_data().values.shape == (20_000, 5)
    text, seconds = rendered(make_data)
    assert seconds < 10 and len(text.encode()) < 3_000_000


def test_thirty_eight_channels_fold_away_those_that_alarms_do_not_point_at() -> None:
    data = many_channels()
    assert ranked(data)[:3] == [20, 3, 0] and sorted(ranked(data)) == list(range(38))
    text, seconds = rendered(many_channels)
    assert seconds < 30 and len(text.encode()) < 3_000_000
    parsed = Parsed(text)
    assert "26 more channels, which contribute less to alarms" in parsed.text
    assert "12 of 38 channels are drawn, those that contribute most to alarms" in parsed.text


@pytest.mark.parametrize("steps", [1, 3])
def test_a_stream_of_any_length_is_drawn(steps: int) -> None:
    whole = make_data(2000)
    some = replace(
        whole, values=whole.values[:steps], time_s=np.full(steps, 5.0), label=np.ones(steps),
        detection_int8=DetectorTrace(np.zeros(steps), np.ones(steps), np.ones(steps)), detection_float=None,
        forecast_float=np.full((steps, 5), np.nan), forecast_int8=None, events=(), cores=(), tensors=(),
    )  # fmt: skip
    assert "1 alarm, marked in the pictures above" in Parsed(page.render(some)).text


def test_a_float_detector_alone_and_an_int8_forecast_alone_are_drawn() -> None:
    data = replace(make_data(2000), detection_int8=None, forecast_float=None, events=())
    parsed = Parsed(page.render(data))
    assert "float score" in parsed.text and "int8 score" not in parsed.text
    assert "where the forecast errs most" in parsed.text and "RMSE float" not in parsed.text


@pytest.mark.parametrize("size", [1e300, 1e12, 1e-9, 1e-300, 0.0, np.inf])
def test_figures_of_any_size_are_drawn_and_never_written_as_nan(size: float) -> None:
    noise, unknown = np.sin(np.arange(120.0).reshape(60, 2) ** 2), np.full(60, np.nan)
    with np.errstate(invalid="ignore"):
        values = noise * size - 1e-6
    data = ReportData(
        "x", [Channel("a"), Channel("b")], values, time_s=np.arange(60) * 1e7,
        forecast_float=values[::-1], forecast_int8=values[::-1] * 1.1,
        detection_int8=DetectorTrace(np.abs(values[:, 0]), unknown, np.zeros(60)),
        detection_float=DetectorTrace(unknown, np.zeros(60), np.ones(60)),
        tensors=[TensorRange("t", "k", 0, 0, -1, 1, np.inf), TensorRange("t", "k", -5, 900, -1, 1, -3.0)],
        cores=[CoreCost("c", {"mean": 0, "min": 0, "max": 0}, 0, 0, 0, 0, 0)],
        quality={"a": {"x": np.nan, "y": -0.0}, "b": {"x": np.inf, "y": 1e-12}},
        events=[Event(0, 60, np.nan, contributions={"a": np.nan, "q": 0.0})],
        history={"loss": [np.nan, 1.0], "lr": [0.0], "val_x": [np.nan]},
    )  # fmt: skip
    text = page.render(data).split("</style>")[1]
    assert not re.search(r"\b(nan|inf)\b", text, flags=re.IGNORECASE)
    assert "no loss" in text


def test_alarms_beyond_the_list_are_counted() -> None:
    events = [Event(row % 50, row % 50 + 1, 1.0) for row in range(600)]
    parsed = Parsed(page.render(replace(bare(), events=events)))
    assert "480 further alarms" in parsed.text and "100 later alarms are not listed here" in parsed.text


def test_decimation_keeps_every_spike_and_every_long_gap() -> None:
    rng = np.random.default_rng(0)
    for steps, buckets in ((20_000, 300), (20_001, 299), (601, 300), (5, 1)):
        x, y = np.arange(steps, dtype=float), rng.normal(size=steps)
        y[rng.integers(0, steps, 3)] = [50.0, -50.0, 40.0]
        xs, ys = canvas.decimate(x, y, buckets)
        assert len(xs) <= 2 * buckets and ys.max() == y.max() and ys.min() == y.min()
        assert (np.diff(xs) >= 0).all() and (y[xs.astype(int)] == ys).all()
    y = np.where(np.arange(20_000) // 500 == 7, np.nan, 1.0)
    xs, ys = canvas.decimate(np.arange(20_000.0), y, 300)
    inside = (xs > 3600) & (xs < 3900)
    assert np.isnan(ys[inside]).all() and np.isfinite(ys[xs < 3400]).all()


def test_a_short_stream_is_drawn_point_by_point() -> None:
    x = np.arange(50.0)
    xs, ys = canvas.decimate(x, x**2, 300)
    assert (xs == x).all() and (ys == x**2).all()


@pytest.mark.parametrize("row", [0, 7, 19_998, 19_999])
def test_a_fault_of_one_row_is_wide_enough_to_see(row: int) -> None:
    mask = np.zeros(20_000)
    mask[row] = 1
    ((start, width),) = canvas.coarse_spans(mask, np.arange(20_000.0), 170)
    assert start <= row <= start + width + 1 and width >= 19_999 / 170 * 0.99


@pytest.mark.parametrize(
    ("ticks", "labels"),
    [
        ([0, 0.25, 0.5], ["0.00", "0.25", "0.50"]), ([-2, 0, 2], ["\N{MINUS SIGN}2", "0", "2"]),
        ([0, 2e6], ["0", "2e6"]), ([1.5e-7, 2e-7], ["1.5e-7", "2.0e-7"]), ([1000, 1500], ["1,000", "1,500"]),
        ([], []),
    ],
)  # fmt: skip
def test_ticks_have_the_digits_that_tell_them_apart(ticks: list[float], labels: list[str]) -> None:
    assert canvas.tick_text(ticks) == labels


def test_names_are_cut_to_the_pixels_that_they_have() -> None:
    assert canvas.fit("pressure", 200) == "pressure"
    assert canvas.fit("x" * 99, 100) == "x" * 11 + "…"
    assert canvas.fit("温" * 99, 100) == "温" * 7 + "…"
    assert canvas.fit("a\nb\x00", 100) == "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}"


def test_the_zoom_shows_where_the_two_forecasts_part() -> None:
    data = make_data(5000)
    far = np.array(data.forecast_float)
    far[3210:3215, 2] += 500.0
    start, stop = plots.worst_window(replace(data, forecast_int8=far))
    assert start <= 3210 and stop >= 3215 and stop - start == 120


def test_the_forecast_table_agrees_with_scikit_learn(data: ReportData) -> None:
    from sklearn.metrics import mean_squared_error, r2_score

    forecast = np.asarray(data.forecast_int8)
    known = (np.asarray(data.label) == 0) & np.isfinite(data.values[:, 2]) & np.isfinite(forecast[:, 2])
    pair = data.values[known, 2], forecast[known, 2]
    row = [cell.text for cell in tables.forecast_table(data).rows[2]]
    assert row[:5:2] == [
        "flow (l/min)",
        f"{mean_squared_error(*pair) ** 0.5:#.4g}",
        f"{r2_score(*pair):#.4g}",
    ]
    assert row[5] == f"{np.nanmax(np.abs(forecast - np.asarray(data.forecast_float))[:, 2]):#.4g}"


def test_the_best_figure_of_a_column_is_marked_by_what_its_name_means() -> None:
    quality = {
        "a": {"R2": 0.9, "RMSE": 3.0, "seed": 1.0},
        "b": {"R2": 0.8, "RMSE": 2.0, "seed": 2.0},
        "c": {},
    }
    table = tables.quality_table(replace(bare(), quality=quality))
    assert table is not None
    tones = [[cell.tone for cell in row] for row in table.rows]
    assert tones == [["", "best", "", ""], ["", "", "best", ""], ["", "", "", ""]]


def test_an_executor_that_differs_is_said_in_words(text: str) -> None:
    assert re.findall(r"<td[^>]*>(agrees|differs)", text) == ["agrees", "agrees", "agrees", "differs"]


def test_the_headline_is_the_one_given_or_is_made_of_the_figures() -> None:
    assert verdict(replace(bare(), verdict="It works.")) == "It works."
    said = verdict(replace(make_data(50), label=None, events=[Event(3, 5, 1.0)]))
    assert said == (
        "3 of 400,000 codes differ on 4 executors; 1 alarm in 50 rows; one model takes 7,444 bytes of flash "
        "and 868 of RAM on cortex-m0."
    )
    label = np.zeros(50)
    label[4:9] = label[20] = 1
    events = [Event(8, 12, 1.0), Event(30, 31, 1.0)]
    said = verdict(replace(bare(), label=label, events=events))
    assert said == "2 alarms in 50 rows, on in 1 of 2 labelled faults, 1 outside them."
    assert "none of them labelled a fault" in verdict(replace(bare(), label=0 * label, events=events))


def test_data_that_does_not_fit_is_refused_with_every_problem() -> None:
    with pytest.raises(DataError, match=r"values are \(9,\), expected \(steps, 1\)"):
        ReportData("x", [Channel("a")], np.zeros(9))
    values, less = np.zeros((9, 1)), np.zeros(8)
    with pytest.raises(DataError) as caught:
        ReportData(
            "x", [Channel("a")], values, time_s=-np.arange(9.0), label=less, forecast_int8=less,
            detection_int8=DetectorTrace(less, np.zeros(9), np.zeros(9)), events=[Event(5, 12, 1.0)],
            tensors=[TensorRange("w", "weight", 1.0, -1.0, 0.0, 0.0)],
            cores=[CoreCost("m4", {"mean": 1.0}, 1, 1, 1, 1, 1)],
        )  # fmt: skip
    assert str(caught.value) == (
        "report 'x': 7 problems"
        "\n  - label is (8,), expected (9,) as the values have"
        "\n  - forecast_int8 is (8,), expected (9, 1) as the values have"
        "\n  - detection_int8.score is (8,), expected (9,) as the values have"
        "\n  - time_s decreases or is not finite; sort the rows by time"
        "\n  - event 1 has rows 5 .. 12, expected a range within 0 .. 9"
        "\n  - tensor 'w' has range 1.0 .. -1.0 of 0.0 .. 0.0, expected finite ranges with low below high"
        "\n  - core 'm4' has no min, max of instructions_per_step"
    )


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.style", None)
    with pytest.raises(MissingTool, match=r"'matplotlib' is not installed.*edge-lstm\[data\]"):
        page.render(bare())


def test_the_overview_is_a_reproducible_picture_1200_pixels_wide(data: ReportData, tmp_path: Path) -> None:
    plots.draw_overview(data, tmp_path / "a.png")
    plots.draw_overview(data, tmp_path / "b.png")
    content = (tmp_path / "a.png").read_bytes()
    assert content == (tmp_path / "b.png").read_bytes() and b"Software" not in content
    picture = matplotlib.image.imread(tmp_path / "a.png")
    assert picture.shape[1] == 1200 and picture.std() > 0.05
    for other in (many_channels(), bare(), one_channel()):
        plots.draw_overview(other, tmp_path / "c.png")
        assert matplotlib.image.imread(tmp_path / "c.png").shape[1] == 1200


def test_an_overview_that_cannot_be_written_is_a_stated_failure(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write"):
        plots.draw_overview(bare(), tmp_path / "nowhere" / "a.png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("module", [canvas, tables, bars, plots, page, sys.modules[ReportData.__module__]])
def test_examples_in_the_docstrings_hold(module: Any) -> None:
    assert doctest.testmod(module).failed == 0


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2 defines it."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


@pytest.mark.parametrize(("theme", "backgrounds"), [(0, ("#ffffff", "#f3f5f8")), (1, ("#1a1f27", "#101318"))])
def test_text_and_lines_stand_out_in_light_and_dark(
    theme: int, backgrounds: tuple[str, ...], text: str
) -> None:
    least = {"ink": 7.0, "muted": 4.5, "float": 4.5, "alarm": 4.5, "good": 4.5, "measured": 4.5,
             "int8": 4.5, "threshold": 4.5, "fault": 2.7}  # fmt: skip
    for background in backgrounds:
        assert background in text
        for name, wanted in least.items():
            pair = luminance(canvas.PALETTE[name][theme]), luminance(background)
            assert (max(pair) + 0.05) / (min(pair) + 0.05) >= wanted, f"{name} on {background}"


def test_every_colour_of_the_pictures_is_one_that_the_page_defines(text: str) -> None:
    pictures = "".join(re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL))
    assert not re.search(r"(fill|stroke): #", pictures)
    assert set(re.findall(r"var\(--([a-z0-9]+)\)", pictures)) - {"font"} <= set(canvas.PALETTE)
    assert len({light for light, _ in canvas.PALETTE.values()}) == len(canvas.PALETTE)


FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--enable-logging=stderr",
]  # fmt: skip

# What a reader would complain of, measured in the page as laid out at a given width.
PROBE = """
function probe(frame) {
  const page = frame.contentDocument, shown = e => e.getClientRects().length > 0;
  const box = e => e.getBoundingClientRect(), problems = [];
  const pictures = [...page.querySelectorAll('.plot svg')].filter(shown);
  for (const picture of pictures) {
    const whole = box(picture);
    const texts = [...picture.querySelectorAll('text')].map(t => [t.textContent, box(t)]);
    if (whole.width < 200 || whole.height < 50) problems.push('tiny picture');
    texts.forEach(([words, a], place) => {
      if (a.height < 9) problems.push('too small: ' + words);
      if (a.left < whole.left - 1 || a.right > whole.right + 1
          || a.top < whole.top - 2 || a.bottom > whole.bottom + 2) problems.push('cut off: ' + words);
      for (const [other, b] of texts.slice(place + 1)) {
        const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
        const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
        if (across > 1 && down > 0.3 * Math.min(a.height, b.height))
          problems.push('overlap: ' + words + ' | ' + other);
      }
    });
  }
  const root = page.documentElement;
  if (root.scrollWidth > frame.clientWidth) problems.push('wider than the screen: ' + root.scrollWidth);
  return {problems, pictures: pictures.length, title: page.title,
          resources: frame.contentWindow.performance.getEntriesByType('resource').length,
          sections: [...page.querySelectorAll('section')].filter(shown).map(s => s.id)};
}
onload = () => { document.getElementById('found').textContent =
  JSON.stringify([...document.querySelectorAll('iframe')].map(probe)); };
"""
SAMPLES: list[tuple[Callable[[], ReportData], int]] = [
    (make_data, 1280), (make_data, 360), (many_channels, 1280), (many_channels, 400), (one_channel, 400),
    (bare, 400), (short, 800), (gaps, 400), (hostile, 1280), (hostile, 400),
]  # fmt: skip


def browse(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a headless browser with a new profile; skips on a laptop without one and fails in CI."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        missing("chromium")
    command = [str(browser), *FLAGS, f"--user-data-dir={folder / 'profile'}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


def test_a_browser_lays_out_every_page_without_cut_or_overlapping_text(tmp_path: Path) -> None:
    frames = "".join(
        f'<iframe width="{width}" height="900" srcdoc="{html.escape(rendered(make)[0])}"></iframe>'
        for make, width in SAMPLES
    )
    (tmp_path / "all.html").write_text(
        f'<meta charset="utf-8"><pre id="found"></pre>{frames}<script>{PROBE}</script>', encoding="utf-8"
    )
    done = browse(tmp_path, "--dump-dom", (tmp_path / "all.html").as_uri())
    assert "CONSOLE" not in done.stderr
    written = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, flags=re.DOTALL)
    assert written is not None
    for (make, width), found in zip(SAMPLES, json.loads(html.unescape(written.group(1))), strict=True):
        assert found["problems"] == [], f"{make.__name__} at {width} pixels"
        assert found["resources"] == 0 and found["pictures"] > 0
        assert found["sections"] == (["stream", "made"] if make is bare else SECTIONS)
        assert "edge-lstm report" in found["title"]


def test_a_browser_opens_the_page_without_an_error_and_draws_it(text: str, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text(text, encoding="utf-8")
    shot, address = tmp_path / "shot.png", (tmp_path / "report.html").as_uri()
    done = browse(tmp_path, "--window-size=1280,2400", f"--screenshot={shot}", address)
    assert "CONSOLE" not in done.stderr
    picture = matplotlib.image.imread(shot)
    assert picture.shape[:2] == (2400, 1280)
    for band in np.array_split(picture[..., :3], 6):
        assert band.std() > 0.02 and len(np.unique((band * 255).astype(int).reshape(-1, 3), axis=0)) > 20
