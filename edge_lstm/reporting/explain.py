"""The page of an explanation: words first, then the figures and pictures they rest on; returns text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edge_lstm.analysis.alarms import AlarmCurves
from edge_lstm.analysis.residuals import Residuals
from edge_lstm.analysis.sensitivity import Sensitivity
from edge_lstm.arrays import FloatArray
from edge_lstm.detection.events import Event
from edge_lstm.reporting import explain_plots, plots
from edge_lstm.reporting.canvas import NARROW, WIDE
from edge_lstm.reporting.data import ReportData, shares
from edge_lstm.reporting.layout import Picture, render_template
from edge_lstm.reporting.page import training_section
from edge_lstm.reporting.tables import NONE, Cell, Table, cells, number

DRAWN = 8  # channels whose errors are drawn; the table has all
MAPPED = 24  # channels, and alarms, of a heat map
LISTED = 200  # alarms in the table


@dataclass(frozen=True, eq=False)
class Findings:
    """What was found of a model.  inputs, outputs: names.  attention: weights (heads, window) by layer.

    curves: of int8 and, where it was given, float; empty without labels.  r2: of the forecast.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    sensitivity: Sensitivity | None = None
    attention: Mapping[str, FloatArray] = field(default_factory=dict)
    residuals: Sequence[Residuals] = ()
    curves: Mapping[str, AlarmCurves] = field(default_factory=dict)
    events: tuple[Event, ...] = ()
    r2: float | None = None
    sentences: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


TITLES = {
    "sensitivity": "What the forecast rests on",
    "attention": "Attention",
    "residuals": "What the forecast leaves",
    "alarms": "Alarms and threshold",
    "contributions": "Channels behind the alarms",
    "training": "Training",
}


def render_explain(data: ReportData, found: Findings) -> str:
    """The whole page as one HTML text without any outside resource; the same text for the same findings.

    data: the test rows.  Raises MissingTool where Matplotlib is not installed.
    """
    sections: dict[str, Any] = {
        "sensitivity": _sensitivity(found, found.sensitivity),
        "attention": _attention(found),
        "residuals": _residuals(data, found),
        "alarms": _alarms(found),
        "contributions": _contributions(data, found),
        "training": training_section(data),
    }
    titles = {"words": "In words"} | {key: title for key, title in TITLES.items() if sections[key]}
    return render_template(
        "explain.html.j2", kind="explain", name=data.name, verdict=found.sentences[0],
        tiles=_tiles(data, found), titles={**titles, "made": "What was looked at"}, notes=found.notes,
        sentences=found.sentences, absent=[t for key, t in TITLES.items() if not sections[key]],
        labelled=data.label is not None and bool(data.label.any()), **sections,
    )  # fmt: skip


def _tiles(data: ReportData, found: Findings) -> list[tuple[str, str, str]]:
    """(what, figure, remark) of the figures that matter most."""
    tiles = [("Test rows", f"{data.steps:,}", f"{len(found.inputs)} channels")]
    if found.r2 is not None:
        tiles.append(("R2 of the forecast", f"{found.r2:.3f}", "of normal rows, int8"))
    if "int8" in found.curves:
        area = found.curves["int8"].average_precision
        tiles.append(("Average precision", f"{area:.3f}", "of rows, over all thresholds"))
    if found.residuals or found.curves or found.events:
        tiles.append(("Alarms", number(len(found.events)), "in the test rows"))
    return tiles


def _heat(alt: str, values: FloatArray, rows: Sequence[str], columns: Sequence[str], across: str) -> Picture:
    draw = explain_plots.draw_heat
    narrow, wide = (draw(values, rows, columns, across, width) for width in (NARROW, WIDE))
    return Picture(alt, narrow, wide)


def moving_lags(sensitivity: Sensitivity) -> list[str]:
    """The lags up to the last that moves a forecast by a fiftieth of the most."""
    strong = (sensitivity.by_lag >= 0.02 * sensitivity.by_lag.max()).any(axis=0)
    return [str(lag) for lag in sensitivity.lags[: int(np.flatnonzero(strong)[-1]) + 1]]


def _sensitivity(found: Findings, sensitivity: Sensitivity | None) -> dict[str, Any] | None:
    if sensitivity is None:
        return None
    order = np.argsort(-sensitivity.shares, kind="stable")
    shown, by_lag, whole = order[:MAPPED], sensitivity.by_lag, sensitivity.whole
    names = [found.inputs[place] for place in shown]
    lags = moving_lags(sensitivity)
    drawn = by_lag[shown][:, : len(lags)]
    pictures = [_heat("Change of the forecast by channel and lag.", drawn, names, lags,
                      "rows before the forecast row")]  # fmt: skip
    if len(found.outputs) <= MAPPED:
        pictures.append(_heat("Change of each forecast by channel.", whole[shown], names, found.outputs,
                              "forecast of"))  # fmt: skip
    rows = []
    for place in order:
        lag = sensitivity.lags[int(by_lag[place].argmax())]
        share = float(sensitivity.shares[place])
        rows.append([Cell(found.inputs[place]), Cell(f"{share:.1%}"),
                     *cells(float(whole[place].mean()), float(by_lag[place].max()), lag)])  # fmt: skip
    columns = ["channel", "share", "change by the whole channel", "largest by one row", "at lag"]
    caption = f"Mean absolute change of the forecasts over {sensitivity.windows} windows, in spreads."
    return {"pictures": pictures, "table": Table(caption, columns, rows), "undrawn": len(order) - len(shown),
            "lags": len(lags), "tried": len(sensitivity.lags)}  # fmt: skip


def _attention(found: Findings) -> list[Picture]:
    return [
        _heat(f"Attention weights of {name} by row of the window.", weights[:MAPPED],
              [f"{name} {head}" for head in range(1, len(weights) + 1)][:MAPPED],
              [str(lag) for lag in range(weights.shape[1] - 1, -1, -1)], "rows before the last row read")
        for name, weights in found.attention.items()
    ]  # fmt: skip


def _residuals(data: ReportData, found: Findings) -> dict[str, Any] | None:
    if not found.residuals or data.forecast_int8 is None:
        return None
    places = {channel.name: place for place, channel in enumerate(data.channels)}
    worst = sorted(found.residuals, key=lambda r: (-r.remembered, -r.spread))[:DRAWN]
    groups = []
    for residuals in worst:
        place, name = places[residuals.name], residuals.name
        forecast = data.forecast_int8
        groups.append([
            Picture(f"Error of {name} over time.", explain_plots.draw_errors(data, place, forecast)),
            Picture(f"Forecast of {name} against measured.",
                    explain_plots.draw_scatter(data, place, forecast)),
            Picture(f"Histogram of the errors of {name}.", plots.draw_residuals(data, place)),
            Picture(f"Quantiles of the errors of {name}.", explain_plots.draw_quantiles(residuals)),
            Picture(f"Autocorrelation of the errors of {name}.", explain_plots.draw_acf(residuals)),
        ])  # fmt: skip
    named = list(zip([residuals.name for residuals in worst], groups, strict=True))
    undrawn, both = len(found.residuals) - len(named), data.forecast_float is not None
    return {"groups": named, "table": _residuals_table(found.residuals), "undrawn": undrawn, "float": both}


def _residuals_table(residuals: Sequence[Residuals]) -> Table:
    """p values below a thousandth are shown as such."""
    rows = []
    for found in residuals:
        lag, value = found.memory
        memory = f"{value:.2f} at lag {lag}".replace("-", "\N{MINUS SIGN}") if lag else NONE
        rows.append([
            *cells(found.name, found.rows, found.mean, found.spread, found.skewness, found.excess_kurtosis),
            Cell(_p(found.normal_p)), Cell(_p(found.ljung_box_p)), Cell(memory, "bad" if lag else ""),
        ])  # fmt: skip
    columns = ["channel", "rows", "mean", "spread", "skewness", "excess kurtosis", "p normal",
               "p independent", "largest autocorrelation"]  # fmt: skip
    return Table("Errors of normal rows, in the network's units.", columns, rows)


def _p(value: float | None) -> str:
    return NONE if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _alarms(found: Findings) -> dict[str, Any] | None:
    if "int8" not in found.curves:
        return None
    rows = []
    for name, curves in found.curves.items():
        (silent, false), (missed, true) = curves.confusion
        rows.append(cells(name, true, missed, false, silent, curves.alarm_precision, curves.alarm_recall,
                          curves.average_precision))  # fmt: skip
    columns = ["detector", "faulty in alarm", "faulty, silent", "normal in alarm", "normal, silent",
               "precision", "recall", "average precision"]  # fmt: skip
    return {
        "pictures": [
            Picture("Precision by recall.", explain_plots.draw_precision_recall(found.curves)),
            Picture("Precision and recall by threshold.",
                    explain_plots.draw_thresholds(found.curves["int8"])),
        ],
        "table": Table("Confusion of rows.", columns, rows),
        "float": "float" in found.curves,
    }  # fmt: skip


def _contributions(data: ReportData, found: Findings) -> dict[str, Any] | None:
    """Shares of the channels that lead, by alarm."""
    if not found.events:
        return None
    drawn = found.events[:MAPPED]
    total = {name: sum(event.contributions[name] for event in found.events) for name in found.outputs}
    names = sorted(total, key=lambda name: -total[name])[:MAPPED]
    values = np.array([[event.contributions[name] for event in drawn] for name in names])
    numbers = [str(place) for place in range(1, len(drawn) + 1)]
    picture = _heat(f"Shares of the channels in {len(drawn)} alarms.", values, names, numbers, "alarm")
    rows = []
    for place, event in enumerate(found.events[:LISTED], 1):
        leading = ", ".join(f"{name} {share:.0%}" for name, share in shares(event.contributions)[:3])
        start = event.start or f"row {event.start_row:,}"
        long = "lasting" if event.stop_row is None else event.stop_row - event.start_row
        rows.append(cells(str(place), start, long, event.peak_score, event.threshold, leading))
    columns = ["alarm", "start", "rows", "peak score", "threshold", "channels"]
    table = Table("Alarms that start in the test rows; scores in spreads.", columns, rows, [1, 5])
    return {"picture": picture, "table": table, "undrawn": len(found.events) - len(drawn)}
