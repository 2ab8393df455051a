"""The HTML page of a fleet: how its assets spread, which failed, which are worst; returns text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from edge_lstm.reporting import canvas
from edge_lstm.reporting.canvas import BOTTOM, LEFT, NARROW, RIGHT, TITLE, Figure, light
from edge_lstm.reporting.layout import Picture, page_environment, render_template, script_hash
from edge_lstm.reporting.tables import Cell, Table, cells, number

LISTED = 2_000  # assets, and failures, that the page lists
BINS, PLOT = 20, 170  # of a histogram, and its height in pixels
COLUMNS = {
    "vus_pr": "VUS-PR", "event_f1": "event F1", "r2": "R2 of the forecast", "alarms": "alarms",
    "false_alarms": "false alarms", "size_bytes": "bytes", "epochs": "epochs", "rows": "rows",
}  # fmt: skip
DRAWN = {"vus_pr": "int8", "r2": "float", "alarms": "alarm", "size_bytes": "measured"}
PLACES = {"vus_pr": 3, "event_f1": 3, "r2": 3}  # decimals; others are whole

Result = Mapping[str, Any]


@dataclass(frozen=True)
class FleetPage:
    """results: of each asset, as ``fleet`` writes them.  seconds_each: that an asset took, or None."""

    name: str
    results: Sequence[Result]
    seconds_each: float | None

    @property
    def trained(self) -> list[Result]:
        return [result for result in self.results if result["error"] is None]

    @property
    def failed(self) -> list[Result]:
        return [result for result in self.results if result["error"] is not None]


def judged_by(results: Sequence[Result]) -> str:
    """The figure that ranks assets: VUS-PR where most have labelled faults to be judged on, else R2."""
    labelled = sum(result["vus_pr"] is not None for result in results)
    return "vus_pr" if 2 * labelled > len(results) else "r2"


def worst_first(results: Sequence[Result]) -> list[Result]:
    """Trained assets, those that are not judged last."""
    figure = judged_by(results)
    return sorted(results, key=lambda r: (math.inf if r[figure] is None else r[figure], r["asset"]))


def middle(results: Sequence[Result], figure: str) -> float | None:
    """The median of the assets that have a figure; None where none has."""
    known = [result[figure] for result in results if result[figure] is not None]
    return median(known) if known else None


def render_fleet(page: FleetPage) -> str:
    """The whole page as one HTML text without any outside resource; the same text for the same data.

    Raises MissingTool where Matplotlib is not installed.
    """
    trained, failed = worst_first(page.trained), page.failed
    titles = {"spread": "Spread", "failures": "Failed assets", "assets": "Assets"}
    script = page_environment().get_template("sort.js").render()
    present = {"spread": True, "failures": bool(failed), "assets": bool(trained)}
    return render_template(
        "fleet.html.j2", kind="fleet", name=page.name, verdict=_verdict(page), tiles=_tiles(page),
        titles={key: title for key, title in titles.items() if present[key]},
        pictures=[picture for figure in DRAWN for picture in _pictures(trained, figure)],
        failures=_failures(failed), assets=_assets(trained), script=script, script_hash=script_hash(script),
        judged=COLUMNS[judged_by(trained)],
    )  # fmt: skip


def _verdict(page: FleetPage) -> str:
    total, failed = len(page.results), len(page.failed)
    differing = sum(result["differing"] for result in page.trained)
    codes = sum(result["verified_codes"] for result in page.trained)
    text = f"{total - failed:,} of {total:,} assets have a detector; {differing:,} of {codes:,} codes of "
    text += "their C differ from the reference." + (f" {failed:,} failed." if failed else "")
    return text + ("" if page.seconds_each is None else f" {page.seconds_each:.2f} s an asset.")


def _tiles(page: FleetPage) -> list[tuple[str, str, str]]:
    """(what, figure, remark) of the figures that matter most."""
    trained = page.trained
    return [
        ("Assets", number(len(page.results)), f"{len(page.failed):,} failed"),
        ("VUS-PR", _text(middle(trained, "vus_pr"), 3), "median, where faults are labelled"),
        ("R2 of the forecast", _text(middle(trained, "r2"), 3), "median"),
        ("Alarms", number(sum(result["alarms"] for result in trained)),
         f"in {sum(result['test_rows'] for result in trained):,} rows"),
        ("Model file", f"{number(middle(trained, 'size_bytes'))} B", "median"),
    ]  # fmt: skip


def _pictures(results: Sequence[Result], figure: str) -> list[Picture]:
    values = [result[figure] for result in results if result[figure] is not None]
    if not values:
        return []
    alt = f"Histogram of {COLUMNS[figure]} over {len(values):,} assets; the table has the figures."
    with canvas.style(f"fleet {figure}"):
        drawn = canvas.new_figure(NARROW, TITLE + PLOT + BOTTOM)
        _histogram(drawn, values, figure, (LEFT, NARROW))
        return [Picture(alt, canvas.to_svg(drawn))]


def _histogram(figure: Figure, values: Sequence[float], name: str, place: tuple[int, int]) -> None:
    """Counts of assets between ``place`` (left edge of the axes, right edge of the room), pixels."""
    left, right = place
    ax = canvas.new_axes(figure, left, TITLE, right - left - RIGHT, PLOT)
    low, high = canvas.view(np.asarray(values, np.float64), below=0.02, above=0.02)
    counts, _, _ = ax.hist(values, bins=BINS, range=(low, high), color=light(DRAWN[name]))
    ax.set_title(COLUMNS[name])
    ax.set_xlim(low, high)
    ax.set_ylim(0, 1.08 * max(counts))
    ax.grid(axis="y")
    canvas.set_ticks(ax.xaxis, low, high, 4)
    canvas.set_ticks(ax.yaxis, 0, float(max(counts)), 4, whole=True)
    ax.set_ylabel("assets")


def draw_fleet(page: FleetPage, width: int) -> bytes:
    """The histograms side by side as PNG."""
    trained = page.trained
    known = {name: [r[name] for r in trained if r[name] is not None] for name in DRAWN}
    names = [name for name, values in known.items() if values]
    with canvas.style("fleet"):
        figure = canvas.new_figure(width, TITLE + PLOT + BOTTOM)
        room = width // max(len(names), 1)
        for index, name in enumerate(names):
            _histogram(figure, known[name], name, (index * room + LEFT, (index + 1) * room))
        return canvas.to_png(figure)


def _assets(results: Sequence[Result]) -> Table | None:
    if not results:
        return None
    rows = [
        [Cell(result["asset"]), *(Cell(_text(result[name], PLACES.get(name, 0))) for name in COLUMNS)]
        for result in results[:LISTED]
    ]
    left = len(results) - LISTED
    caption = "Figures of each asset." + (f" The other {left:,} are in fleet.jsonl." if left > 0 else "")
    return Table(caption, ["asset", *COLUMNS.values()], rows)


def _failures(results: Sequence[Result]) -> Table | None:
    if not results:
        return None
    rows = [cells(result["asset"], result["error"]) for result in results[:LISTED]]
    left = len(results) - LISTED
    caption = "They are tried again by the same command." + (
        f" {left:,} more: fleet.jsonl." if left > 0 else ""
    )
    return Table(caption, ["asset", "what was found"], rows, [1])


def _text(value: float | None, places: int) -> str:
    return number(None) if value is None else f"{value:,.{places}f}".replace("-", "\N{MINUS SIGN}")
