"""Pictures of a study: memory, correlation, forecasts, time steps; findings in, SVG as text out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edge_lstm.analysis.forecasts import CURVED, LINE, PERSISTENCE, SEASONAL, Forecasts
from edge_lstm.analysis.memory import Memory
from edge_lstm.analysis.redundancy import Redundancy
from edge_lstm.arrays import FloatArray
from edge_lstm.files import write_bytes
from edge_lstm.reporting import canvas, plots
from edge_lstm.reporting.canvas import BOTTOM, LEFT, NARROW, RIGHT, TITLE, WIDE, Axes, light
from edge_lstm.reporting.data import ReportData

PANEL = 92  # height of an axes of lags
NORMAL_95 = 1.96  # of a white series, in its standard error
LOWEST_R2 = -0.25  # a worse forecast is drawn at the edge
ROW = 22  # height of a channel in the picture of forecasts
STEPS = 40  # bars of the histogram of time steps
METHODS = (  # name, colour, marker, dashes of the key
    (PERSISTENCE, "muted", "|"),
    (SEASONAL, "fault", "D"),
    (LINE, "float", "o"),
    (CURVED, "int8", "x"),
)
OVERVIEW = (2, 1060, 380)  # channels, width and height of the README's picture


def draw_memory(name: str, memory: Memory) -> str:
    """Autocorrelation above partial autocorrelation of one channel, with the band of white noise."""
    height = 2 * (TITLE + PANEL) + BOTTOM
    with canvas.style(f"memory {name}"):
        figure = canvas.new_figure(NARROW, height)
        for row, (title, values) in enumerate((("ACF", memory.acf), ("PACF", memory.pacf))):
            top = TITLE + row * (TITLE + PANEL)
            ax = canvas.new_axes(figure, LEFT - 14, top, NARROW - LEFT + 14 - RIGHT, PANEL)
            room = NARROW - LEFT - 60
            lags_panel(ax, np.array(values), memory.rows, f"{canvas.fit(name, room)}: {title}", last=row == 1)
        return canvas.to_svg(figure)


def lags_panel(ax: Axes, values: FloatArray, rows: int, title: str, last: bool) -> None:
    """One stem a lag from 1 on; lag 0 is 1 by definition."""
    lags = np.arange(1, len(values))
    band = NORMAL_95 / np.sqrt(rows)
    ax.set_title(title)
    ax.axhspan(-band, band, color=light("muted"), alpha=0.18, linewidth=0)
    ax.vlines(lags, 0, values[1:], color=light("float"), linewidth=2.2)
    ax.axhline(0, color=light("ink"), linewidth=0.8)
    low, high = canvas.view(values[1:], np.zeros(1), below=0.1, above=0.1)
    canvas.finish(ax, np.append(0.0, lags), "lag (rows)" if last else None, min(low, -0.15), max(high, 0.15),
                  NARROW)  # fmt: skip


def draw_correlation(redundancy: Redundancy, width: int) -> str:
    """The correlation matrix: blue for positive, orange for negative, paler towards 0."""
    names = redundancy.names
    beside = min(150, 32 + 8 * max(len(name) for name in names)) if len(names) <= 40 else 30
    side = min(width - beside - 24, 46 * len(names))
    with canvas.style(f"correlation {width}"):
        figure = canvas.new_figure(beside + side + 20, side + 44)
        ax = canvas.new_axes(figure, beside, 10, side, side)
        _cells(ax, np.array(redundancy.correlation), side / len(names))
        step = -(-len(names) // 40)
        places = np.arange(0, len(names), step)
        labels = [canvas.fit(names[place], beside - 12, 11) for place in places] if step == 1 else None
        ax.set_yticks(places, labels=labels or [str(place + 1) for place in places])
        numbers = places[:: max(1, -(-26 * len(places) // side))]
        ax.set_xticks(numbers, labels=[str(place + 1) for place in numbers])
        ax.set_xlabel("channel number")
        ax.grid(visible=False)
        for spine in ax.spines.values():
            spine.set_visible(False)
        return canvas.to_svg(figure)


def _cells(ax: Axes, correlation: FloatArray, size: float) -> None:
    """A square a pair, the figure in it where there is room."""
    ax.set_xlim(-0.5, len(correlation) - 0.5)
    ax.set_ylim(len(correlation) - 0.5, -0.5)
    for row, column in np.argwhere(np.abs(correlation) >= 0.05).tolist():
        value = correlation[row, column]
        ax.fill_between(
            [column - 0.48, column + 0.48], row - 0.48, row + 0.48, linewidth=0,
            color=light("float" if value > 0 else "int8"), alpha=round(min(abs(value), 1.0) * 0.85, 2),
        )  # fmt: skip
        if size >= 30 and row != column:
            text = f"{value:.2f}".replace("0.", ".").replace("-", "\N{MINUS SIGN}")
            ax.text(column, row, text, ha="center", va="center", fontsize=10)


def draw_forecasts(forecasts: Forecasts, channels: Sequence[str], width: int) -> str:
    """R2 of every method by channel; one below LOWEST_R2 stands at the left edge."""
    beside = 120 if width <= NARROW else 190
    height = 14 + ROW * len(channels) + BOTTOM
    with canvas.style(f"forecasts {width}"):
        figure = canvas.new_figure(width, height)
        ax = canvas.new_axes(figure, beside, 8, width - beside - RIGHT, ROW * len(channels))
        rows = np.arange(len(channels))
        for name, colour, marker in METHODS:
            found = forecasts.r2.get(name, {})
            values = [np.nan if found.get(c) is None else float(found[c] or 0.0) for c in channels]
            ax.plot(np.maximum(values, LOWEST_R2), rows, linestyle="none", marker=marker, markersize=7,
                    markeredgewidth=2, color=light(colour), clip_on=False,
                    fillstyle="full" if marker == "D" else "none")  # fmt: skip
        ax.set_yticks(rows, labels=[canvas.fit(channel, beside - 14, 11) for channel in channels])
        ax.set_ylim(len(channels) - 0.5, -0.5)
        ax.set_xlim(LOWEST_R2 - 0.04, 1.0)
        ax.grid(axis="both")
        canvas.set_ticks(ax.xaxis, LOWEST_R2, 1.0, 6)
        ax.set_xlabel("R2 on rows not learnt from")
        return canvas.to_svg(figure)


def draw_steps(steps: FloatArray, width: int) -> str:
    """How often each time between two rows occurs, on a logarithmic axis."""
    height = 190
    edges = np.linspace(float(steps.min()), float(steps.max()), STEPS + 1)
    counts = np.histogram(steps, bins=edges)[0]
    with canvas.style(f"steps {width}"):
        figure = canvas.new_figure(width, height)
        ax = canvas.new_axes(figure, LEFT, 14, width - LEFT - RIGHT, height - 14 - BOTTOM)
        ax.bar(edges[:-1], counts, width=np.diff(edges), align="edge", color=light("measured"))
        canvas.finish(ax, edges, "seconds between two rows", 0.7, 1.6 * float(counts.max()), width)
        ax.set_yscale("log")
        ax.set_ylim(0.7, 1.6 * counts.max())
        canvas.set_log_ticks(ax.yaxis, 0.7, 1.6 * float(counts.max()))
        return canvas.to_svg(figure)


def draw_overview(data: ReportData, memory: Sequence[Memory], path: Path) -> None:
    """The README's picture as PNG: some channels, each with its autocorrelations beside it."""
    count, width, height = OVERVIEW
    left = WIDE - 200  # width of the streams
    beside = (width - left - 2 * LEFT - RIGHT) // 2
    each = (height - BOTTOM) // count - TITLE
    with canvas.style("study"):
        figure = canvas.new_figure(width, height)
        for row in range(min(count, len(data.channels))):
            top, last = TITLE + row * (TITLE + each), row == count - 1
            ax = canvas.new_axes(figure, LEFT, top, left - LEFT - RIGHT, each)
            plots.stream_panel(ax, data, row, left, last=last)
            for place, (title, values) in enumerate((("ACF", memory[row].acf), ("PACF", memory[row].pacf))):
                ax = canvas.new_axes(figure, left + LEFT + place * (beside + LEFT), top, beside, each)
                lags_panel(ax, np.array(values), memory[row].rows, title, last=last)
        write_bytes(path, canvas.to_png(figure))
