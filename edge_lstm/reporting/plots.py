"""Pictures of the stream: ``ReportData`` in, an SVG element as text out; and the README's picture as PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_lstm.arrays import FloatArray
from edge_lstm.files import write_bytes
from edge_lstm.graph import Channel
from edge_lstm.optional import require
from edge_lstm.reporting import canvas
from edge_lstm.reporting.canvas import BOTTOM, LEFT, NARROW, RIGHT, TITLE, Axes, light
from edge_lstm.reporting.data import ReportData, ranked, spans

PANEL = 84  # height of one channel's axes
MARKED = 60  # more alarms than this are drawn as a strip only
LOG_RATIO = 50.0  # a score whose peak exceeds its median this often gets a logarithmic axis
BINS = 60
OVERVIEW_CHANNELS = 5
DASHED = (0, (3, 1.5))
FORECAST_LINES = (  # colour, part of the data, dashes, thickness, opacity
    ("measured", "values", "-", 2.6, 0.45),
    ("float", "forecast_float", "-", 1.3, None),
    ("int8", "forecast_int8", DASHED, 1.3, None),
)


def channel_title(channel: Channel, width: float) -> str:
    """``name (unit)`` that fits above axes in a picture ``width`` pixels wide."""
    unit = _in_unit(channel)
    return canvas.fit(channel.name, width - LEFT - 8 * len(unit)) + unit


def _in_unit(channel: Channel) -> str:
    return f" ({canvas.fit(channel.unit, 90)})" if channel.unit else ""


def draw_stream(data: ReportData, channels: Sequence[int], width: int) -> str:
    """Some channels one above the other with faults shaded and alarms as a strip below the line."""
    height = len(channels) * (TITLE + PANEL) + BOTTOM
    with canvas.style(f"stream {channels} {width}"):
        figure = canvas.new_figure(width, height)
        for row, channel in enumerate(channels):
            top = TITLE + row * (TITLE + PANEL)
            ax = canvas.new_axes(figure, LEFT, top, width - LEFT - RIGHT, PANEL)
            stream_panel(ax, data, channel, width, last=row == len(channels) - 1)
        return canvas.to_svg(figure)


def stream_panel(ax: Axes, data: ReportData, channel: int, width: int, last: bool) -> None:
    x, label = canvas.x_axis(data)
    ax.set_title(channel_title(data.channels[channel], width))
    _shade(ax, data, x, width)
    xs, ys = canvas.decimate(x, data.values[:, channel], width)
    ax.plot(xs, ys, color=light("measured"), linewidth=0.9)
    gap = np.isnan(np.concatenate([[np.nan], ys, [np.nan]]))
    lone = gap[:-2] & ~gap[1:-1] & gap[2:]
    ax.plot(xs[lone], ys[lone], linestyle="none", marker=".", markersize=3, color=light("measured"))
    low, high = canvas.view(data.values[:, channel], below=0.2)
    canvas.finish(ax, x, label if last else None, low, high, width)
    if np.isnan(ys).all():
        ax.set_yticks([])
        ax.text(
            0.5, 0.5, "no samples", ha="center", va="center", transform=ax.transAxes, color=light("muted")
        )


def _shade(ax: Axes, data: ReportData, x: FloatArray, width: int) -> None:
    """Faults over the full height, hatched; alarms as a solid strip at the bottom."""
    _shade_faults(ax, data.label, x, width // 2)
    if data.detection_int8 is not None:
        strip = canvas.coarse_spans(data.detection_int8.alarm, x, width // 2)
        ax.broken_barh(
            strip, (0, 0.09), transform=ax.get_xaxis_transform(), facecolors=light("alarm"), linewidth=0
        )


def _shade_faults(ax: Axes, label: npt.NDArray[Any] | None, x: FloatArray, buckets: int) -> None:
    if label is None:
        return
    bands, across = canvas.coarse_spans(label, x, buckets), ax.get_xaxis_transform()
    ax.broken_barh(
        bands, (0, 1), transform=across, facecolors=light("fault"), alpha=0.2, linewidth=0, zorder=0.4
    )
    ax.broken_barh(bands, (0, 1), transform=across, facecolors="none", edgecolor=light("fault"), alpha=0.45,
                   hatch="////", linewidth=0, zorder=0.5)  # fmt: skip


def draw_score(data: ReportData, width: int) -> str:
    """Score and threshold of the int8 detector, the float score behind it, faults and alarms."""
    height = 230 if width > NARROW else 200
    with canvas.style(f"score {width}"):
        figure = canvas.new_figure(width, height)
        ax = canvas.new_axes(figure, LEFT, 14, width - LEFT - RIGHT, height - 14 - BOTTOM)
        _score_panel(ax, data, width)
        return canvas.to_svg(figure)


def _score_panel(ax: Axes, data: ReportData, width: int) -> None:
    trace = data.detection_int8 or data.detection_float
    if trace is None:
        return
    x, label = canvas.x_axis(data)
    _shade(ax, data, x, width)
    parts = [trace.score, trace.threshold]
    if data.detection_float is not None:
        parts.append(data.detection_float.score)
    low, high, floor = _score_view(parts)
    if data.detection_float is not None:
        highest = canvas.extremes(data.detection_float.score, width)[1]
        top = np.maximum(data.detection_float.score[highest], floor)
        ax.plot(x[highest], top, color=light("float"), linewidth=3, alpha=0.5)
    if data.detection_int8 is not None:
        lowest, highest = canvas.extremes(trace.score, width)
        top, base = np.maximum(trace.score[highest], floor), np.maximum(trace.score[lowest], floor)
        ax.fill_between(x[highest], base, top, color=light("int8"), alpha=0.2, linewidth=0)
        ax.plot(x[highest], top, color=light("int8"), linewidth=0.9)
    xs, ys = canvas.decimate(x, trace.threshold, width)
    ax.plot(xs, np.maximum(ys, floor), color=light("threshold"), linewidth=1.4, linestyle=(0, (7, 3)))
    _mark_alarms(ax, trace.score, trace.alarm, x, floor)
    canvas.finish(ax, x, label, low, high, width)
    if np.isfinite(floor):
        ax.set_yscale("log")
        ax.set_ylim(low, high)
        canvas.set_log_ticks(ax.yaxis, low, high)


def _score_view(parts: list[FloatArray]) -> tuple[float, float, float]:
    """(low, high, floor) of the score axis; floor is -inf on a linear one, else the least value drawn."""
    score = np.concatenate([part[part > 0] for part in parts])
    if score.size == 0 or score.max() < LOG_RATIO * np.median(score):
        return *canvas.view(*parts, below=0.12), -np.inf
    floor = max(float(np.quantile(score, 0.01)), float(score.max()) * 1e-6)
    decades = float(score.max()) / floor
    return floor / decades**0.14, float(score.max()) * decades**0.12, floor


def _mark_alarms(ax: Axes, score: FloatArray, alarm: FloatArray, x: FloatArray, floor: float) -> None:
    """A triangle at the peak of each alarm, unless there are too many to tell apart."""
    ranges = spans(alarm)
    if not 0 < len(ranges) <= MARKED:
        return
    filled = np.where(np.isfinite(score), score, -np.inf)
    peaks = [start + int(np.argmax(filled[start:stop])) for start, stop in ranges]
    heights = np.maximum(np.nan_to_num(score[peaks]), floor)
    ax.plot(
        x[peaks], heights, linestyle="none", marker="v", markersize=7, color=light("alarm"),
        markeredgecolor=light("paper"), markeredgewidth=0.8, zorder=4,
    )  # fmt: skip


def worst_window(data: ReportData, rows: int = 120) -> tuple[int, int]:
    """Rows (start, stop) where the two forecasts differ most, or, with one forecast, err most."""
    reference = data.values if data.forecast_float is None else data.forecast_float
    other = data.forecast_float if data.forecast_int8 is None else data.forecast_int8
    if other is None or data.steps <= rows:
        return 0, min(data.steps, rows)
    spread = np.array([np.nanstd(column) if np.isfinite(column).any() else 1.0 for column in data.values.T])
    gap = np.nan_to_num(np.abs(other - reference) / np.where(spread > 0, spread, 1.0)).sum(axis=1)
    total = np.concatenate([[0.0], np.cumsum(gap)])
    start = int(np.argmax(total[rows:] - total[:-rows]))
    return start, start + rows


def draw_forecast(data: ReportData, channel: int, window: tuple[int, int]) -> str:
    """Measured values and both forecasts in a window of rows; below, how far int8 is from float."""
    both = data.forecast_float is not None and data.forecast_int8 is not None
    height = TITLE + 120 + (TITLE + 56 if both else 0) + BOTTOM
    x = np.arange(*window, dtype=np.float64)
    with canvas.style(f"forecast {channel}"):
        figure = canvas.new_figure(NARROW, height)
        ax = canvas.new_axes(figure, LEFT, TITLE, NARROW - LEFT - RIGHT, 120)
        ax.set_title(channel_title(data.channels[channel], NARROW))
        shown = []
        for colour, part, dashes, thickness, alpha in FORECAST_LINES:
            array: FloatArray | None = getattr(data, part)
            if array is not None:
                shown.append(array[slice(*window), channel])
                ax.plot(x, shown[-1], color=light(colour), linestyle=dashes, linewidth=thickness, alpha=alpha)
        _shade_faults(ax, None if data.label is None else data.label[slice(*window)], x, NARROW // 2)
        canvas.finish(ax, x, None if both else "row", *canvas.view(*shown), NARROW)
        if both:
            below = canvas.new_axes(figure, LEFT, 2 * TITLE + 120, NARROW - LEFT - RIGHT, 56)
            _difference_panel(below, x, shown[2] - shown[1])
        return canvas.to_svg(figure)


def _difference_panel(ax: Axes, x: FloatArray, difference: FloatArray) -> None:
    ax.set_title("int8 minus float", color=light("muted"))
    ax.axhline(0, color=light("muted"), linewidth=0.8)
    ax.fill_between(x, 0, np.nan_to_num(difference), color=light("int8"), alpha=0.35, linewidth=0)
    ax.plot(x, difference, color=light("int8"))
    canvas.finish(ax, x, "row", *canvas.view(difference, np.zeros(1), below=0.1, above=0.1), NARROW)


def draw_residuals(data: ReportData, channel: int) -> str:
    """Histogram of measured minus forecast over rows without a labelled fault, logarithmic counts."""
    normal = np.ones(data.steps, dtype=np.bool_) if data.label is None else ~data.label
    residuals = {
        name: _residual(data.values[normal, channel], forecast[normal, channel])
        for name, forecast in (("float", data.forecast_float), ("int8", data.forecast_int8))
        if forecast is not None
    }
    with canvas.style(f"residuals {channel}"):
        figure = canvas.new_figure(NARROW, TITLE + 120 + BOTTOM)
        ax = canvas.new_axes(figure, LEFT, TITLE, NARROW - LEFT - RIGHT, 120)
        ax.set_title(channel_title(data.channels[channel], NARROW))
        joined = np.concatenate([np.empty(0), *residuals.values()])
        if joined.size == 0:
            _say(ax, "no forecast to compare")
            return canvas.to_svg(figure)
        _histogram(ax, residuals, joined)
        ax.set_xlabel(f"measured minus forecast{_in_unit(data.channels[channel])}")
        return canvas.to_svg(figure)


def _residual(values: FloatArray, forecast: FloatArray) -> FloatArray:
    difference: FloatArray = values - forecast
    return difference[np.isfinite(difference)]


def _histogram(ax: Axes, residuals: Mapping[str, FloatArray], joined: FloatArray) -> None:
    """Steps with a shared set of bins; the outermost bins hold everything beyond them."""
    low, high = (float(end) for end in np.quantile(joined, (0.001, 0.999)))
    if not high > low:
        low, high = canvas.view(joined)
    edges = np.linspace(low, high, BINS + 1)
    tallest = 1
    for name, residual in residuals.items():
        counts = np.histogram(np.clip(residual, low, high), edges)[0]
        tallest = max(tallest, int(counts.max()))
        dashes = "-" if name == "float" else DASHED
        if name == "float":
            ax.stairs(counts, edges, baseline=0.5, fill=True, color=light(name), alpha=0.18, linewidth=0)
        ax.stairs(counts, edges, baseline=0.5, color=light(name), linestyle=dashes, linewidth=1.3)
    ax.set_yscale("log")
    ax.set_xlim(low, high)
    ax.set_ylim(0.6, tallest * 2)
    ax.grid(axis="y")
    canvas.set_ticks(ax.xaxis, low, high, 5)
    canvas.set_log_ticks(ax.yaxis, 0.6, tallest * 2)


def _say(ax: Axes, text: str) -> None:
    ax.text(0.5, 0.5, text, ha="center", va="center", transform=ax.transAxes, color=light("muted"))
    ax.set_xticks([])
    ax.set_yticks([])


def draw_overview(data: ReportData, path: Path, width: int = 800) -> None:
    """Write the stream with its score and alarms as PNG, 1.5 times ``width`` pixels wide, light colours.

    Raises OutputError where ``path`` cannot be written.
    """
    channels = sorted(ranked(data)[:OVERVIEW_CHANNELS])
    scored = (data.detection_int8 or data.detection_float) is not None
    panel = TITLE + PANEL * 0.7
    head = 26
    height = head + len(channels) * panel + (TITLE + 130 if scored else 0) + BOTTOM
    with canvas.style("overview"):
        figure = canvas.new_figure(width, height)
        _overview_legend(figure, data, scored)
        for row, channel in enumerate(channels):
            top = head + row * panel + TITLE
            ax = canvas.new_axes(figure, LEFT, top, width - LEFT - RIGHT, PANEL * 0.7)
            stream_panel(ax, data, channel, width, last=channel == channels[-1] and not scored)
        if scored:
            top = head + len(channels) * panel + TITLE
            ax = canvas.new_axes(figure, LEFT, top, width - LEFT - RIGHT, 130)
            hidden = len(data.channels) - len(channels)
            ax.set_title(f"anomaly score, {hidden} more channels included" if hidden else "anomaly score")
            _score_panel(ax, data, width)
        picture = canvas.to_png(figure)
    write_bytes(path, picture)


def _overview_legend(figure: canvas.Figure, data: ReportData, scored: bool) -> None:
    lines = require("matplotlib.lines", "data")
    patches = require("matplotlib.patches", "data")
    handles = [lines.Line2D([], [], color=light("measured"), label="measured")]
    if data.label is not None:
        handles.append(patches.Patch(facecolor=light("fault"), edgecolor=light("fault"), alpha=0.3,
                                     hatch="////", label="labelled fault"))  # fmt: skip
    if data.detection_float is not None:
        handles.append(
            lines.Line2D([], [], color=light("float"), linewidth=3, alpha=0.5, label="float score")
        )
    if data.detection_int8 is not None:
        handles.append(lines.Line2D([], [], color=light("int8"), label="int8 score"))
    if scored:
        handles.append(
            lines.Line2D([], [], color=light("threshold"), linestyle=(0, (7, 3)), label="threshold")
        )
        handles.append(
            lines.Line2D([], [], color=light("alarm"), marker="v", linestyle="none", label="alarm")
        )
    figure.legend(handles=handles, loc="upper left", ncols=len(handles), frameon=False, fontsize=10)
