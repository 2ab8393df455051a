"""Pictures of an explanation: sensitivity, errors, alarms; findings in, an SVG element as text out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from edge_lstm.analysis.alarms import AlarmCurves
from edge_lstm.analysis.residuals import Residuals
from edge_lstm.arrays import FloatArray
from edge_lstm.files import write_bytes
from edge_lstm.reporting import canvas
from edge_lstm.reporting.canvas import BOTTOM, LEFT, NARROW, RIGHT, TITLE, Axes, light
from edge_lstm.reporting.data import ReportData
from edge_lstm.reporting.study_plots import lags_panel

CELL = 26  # height of a row of a heat map
PANEL = 130
DOTS = 600  # of a scatter, at most
WRITTEN = 30  # pixels: a cell this wide has its figure in it
DASHED = (0, (3, 1.5))
SHOWN = 0.005  # a smaller figure would be written as 0
OVERVIEW = 1060, 300


def draw_heat(
    values: FloatArray, rows: Sequence[str], columns: Sequence[str], across: str, width: int
) -> str:
    """Values (rows, columns), 0 or more: the darker the larger.  across: what the columns are."""
    beside = _beside(rows, width)
    height = 10 + CELL * len(rows) + BOTTOM
    with canvas.style(f"heat {across} {width}"):
        wide = min(width - beside - RIGHT, 96 * len(columns))
        figure = canvas.new_figure(beside + wide + RIGHT, height)
        ax = canvas.new_axes(figure, beside, 10, wide, CELL * len(rows))
        heat_panel(ax, values, rows, columns, beside, wide)
        ax.set_xlabel(across)
        return canvas.to_svg(figure)


def _beside(rows: Sequence[str], width: int) -> int:
    """Pixels for the names of rows."""
    return min(180 if width > NARROW else 110, 30 + 8 * max(len(name) for name in rows))


def heat_panel(
    ax: Axes, values: FloatArray, rows: Sequence[str], columns: Sequence[str], beside: int, wide: float
) -> None:
    """A square a value, with its figure where there is room."""
    top = float(values.max(initial=0.0)) or 1.0
    cell = wide / len(columns)
    ax.set_xlim(-0.5, len(columns) - 0.5)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    for row, column in np.ndindex(*values.shape):
        share = float(values[row, column]) / top
        if share >= 0.02:
            ax.fill_between([column - 0.47, column + 0.47], row - 0.46, row + 0.46, linewidth=0,
                            color=light("float"), alpha=round(0.08 + 0.62 * share, 2))  # fmt: skip
        if cell >= WRITTEN and values[row, column] >= SHOWN:
            ax.text(column, row, f"{values[row, column]:.2f}".replace("0.", "."), ha="center", va="center",
                    fontsize=10)  # fmt: skip
    labels = [canvas.fit(name, beside - 14, 11) for name in rows]
    ax.set_yticks(range(len(rows)), labels=labels)
    step = -(-WRITTEN // int(cell)) if all(name.isdigit() for name in columns) else 1
    places = range(0, len(columns), step)
    ax.set_xticks(places, labels=[canvas.fit(columns[place], step * cell, 11) for place in places])
    ax.grid(visible=False)
    for spine in ax.spines.values():
        spine.set_visible(False)


def _new(name: str, title: str) -> tuple[canvas.Figure, Axes]:
    figure = canvas.new_figure(NARROW, TITLE + PANEL + BOTTOM)
    ax = canvas.new_axes(figure, LEFT, TITLE, NARROW - LEFT - RIGHT, PANEL)
    ax.set_title(f"{canvas.fit(name, NARROW - LEFT - 8 * len(title))}: {title}" if name else title)
    return figure, ax


def draw_errors(data: ReportData, channel: int, forecast: FloatArray) -> str:
    """Measured minus forecast over the rows of ``data``, labelled faults shaded."""
    name = data.channels[channel].name
    with canvas.style(f"errors {name}"):
        figure, ax = _new(name, "error over time")
        x, label = canvas.x_axis(data)
        error = data.values[:, channel] - forecast[:, channel]
        if data.label is not None:
            spans = canvas.coarse_spans(data.label, x, NARROW // 2)
            ax.broken_barh(spans, (0, 1), transform=ax.get_xaxis_transform(), facecolors=light("fault"),
                           alpha=0.25, linewidth=0)  # fmt: skip
        xs, ys = canvas.decimate(x, error, NARROW)
        ax.axhline(0, color=light("muted"), linewidth=0.8)
        ax.plot(xs, ys, color=light("int8"), linewidth=0.8)
        canvas.finish(ax, x, label, *canvas.view(error), NARROW)
        return canvas.to_svg(figure)


def draw_scatter(data: ReportData, channel: int, forecast: FloatArray) -> str:
    """Forecast against measured value of normal rows, with the line where both are equal."""
    name = data.channels[channel].name
    known = np.isfinite(data.values[:, channel]) & np.isfinite(forecast[:, channel])
    known &= True if data.label is None else ~data.label
    places = np.flatnonzero(known)
    places = places[:: max(1, -(-len(places) // DOTS))]
    actual, expected = data.values[places, channel], forecast[places, channel]
    with canvas.style(f"scatter {name}"):
        figure, ax = _new(name, "forecast against measured")
        low, high = canvas.view(actual, expected)
        ax.plot([low, high], [low, high], color=light("muted"), linewidth=1, linestyle=DASHED)
        ax.plot(actual, expected, linestyle="none", marker=".", markersize=3, color=light("int8"), alpha=0.5)
        canvas.finish(ax, np.array([low, high]), "measured", low, high, NARROW)
        return canvas.to_svg(figure)


def draw_quantiles(found: Residuals) -> str:
    """Quantiles of the errors, in spreads, against those of the normal distribution."""
    with canvas.style(f"quantiles {found.name}"):
        figure, ax = _new(found.name, "QQ, in spreads")
        quantile_panel(ax, found, NARROW)
        return canvas.to_svg(figure)


def quantile_panel(ax: Axes, found: Residuals, width: int) -> None:
    normal = np.array(found.normal_quantiles)
    errors = (np.array(found.quantiles) - found.mean) / (found.spread or 1.0)
    if normal.size == 0:
        normal, errors = np.array([-1.0, 1.0]), np.full(2, np.nan)
    ax.plot(normal[[0, -1]], normal[[0, -1]], color=light("muted"), linewidth=1, linestyle=DASHED)
    ax.plot(normal, errors, linestyle="none", marker=".", markersize=4, color=light("int8"))
    canvas.finish(ax, normal, "normal quantile", *canvas.view(errors, normal), width)


def draw_acf(found: Residuals) -> str:
    """Autocorrelation of the errors with the band of white noise."""
    with canvas.style(f"error acf {found.name}"):
        figure, ax = _new(found.name, "")
        title = f"{canvas.fit(found.name, NARROW - LEFT - 120)}: ACF of the error"
        lags_panel(ax, np.array(found.acf or (1.0, 0.0)), max(found.stretch, 1), title, last=True)
        return canvas.to_svg(figure)


def draw_precision_recall(curves: Mapping[str, AlarmCurves]) -> str:
    """Precision by recall of each detector; a diamond where the int8 alarms themselves lie."""
    with canvas.style("precision recall"):
        figure, ax = _new("", "precision by recall, rows")
        precision_recall_panel(ax, curves, NARROW)
        return canvas.to_svg(figure)


def precision_recall_panel(ax: Axes, curves: Mapping[str, AlarmCurves], width: int) -> None:
    for name, found in curves.items():
        ax.plot(found.recall, found.precision, color=light(name), drawstyle="steps-pre",
                linestyle=DASHED if name == "float" else "-", linewidth=1.5)  # fmt: skip
    own = curves["int8"]
    if own.alarm_precision is not None:
        ax.plot(own.alarm_recall, own.alarm_precision, marker="D", markersize=7, color=light("alarm"),
                markeredgecolor=light("paper"), clip_on=False, zorder=4)  # fmt: skip
    canvas.finish(ax, np.array([0.0, 1.0]), "recall", 0.0, 1.04, width)


def draw_thresholds(found: AlarmCurves) -> str:
    """Precision and recall by the threshold, as a multiple of the one that is set."""
    with canvas.style("thresholds"):
        figure, ax = _new("", "by threshold, 1: the one that is set")
        ratio = found.ratio
        positive = ratio[ratio > 0]
        low, high = (float(positive.min()), float(positive.max())) if positive.size else (0.5, 2.0)
        low, high = max(low, 0.05, high / 1e4) / 1.1, max(high, 1.0) * 1.1
        ax.axvline(1.0, color=light("threshold"), linestyle=(0, (7, 3)), linewidth=1.4)
        ax.plot(np.maximum(ratio, low), found.recall, color=light("measured"), linewidth=1.5)
        ax.plot(np.maximum(ratio, low), found.precision, color=light("good"), linestyle=DASHED, linewidth=1.5)
        canvas.finish(ax, np.array([low, high]), "threshold", 0.0, 1.04, NARROW)
        ax.set_xscale("log")
        ax.set_xlim(low, high)
        canvas.set_log_ticks(ax.xaxis, low, high)
        return canvas.to_svg(figure)


def draw_overview(
    by_lag: FloatArray, names: Sequence[str], lags: Sequence[int], found: Residuals,
    curves: Mapping[str, AlarmCurves], path: Path,
) -> None:  # fmt: skip
    """The README's picture as PNG: sensitivity, the worst channel's quantiles, and precision by recall."""
    width, height = OVERVIEW
    beside, inner = _beside(names, NARROW), height - TITLE - BOTTOM
    heat, rest = 320, (width - 320 - beside - 2 * LEFT - RIGHT) // 2
    with canvas.style("explain"):
        figure = canvas.new_figure(width, height)
        ax = canvas.new_axes(figure, beside, TITLE, heat - 10, inner)
        heat_panel(ax, by_lag, names, [str(lag) for lag in lags], beside, heat)
        ax.set_title("change of the forecast")
        ax.set_xlabel("rows before the forecast row")
        ax = canvas.new_axes(figure, beside + heat + LEFT - 20, TITLE, rest, inner)
        ax.set_title(f"{canvas.fit(found.name, rest - 40)}: QQ")
        quantile_panel(ax, found, NARROW)
        ax = canvas.new_axes(figure, width - rest - RIGHT, TITLE, rest, inner)
        ax.set_title("precision by recall")
        precision_recall_panel(ax, curves, NARROW)
        write_bytes(path, canvas.to_png(figure))
