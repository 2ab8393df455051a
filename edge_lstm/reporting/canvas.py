"""Figures without pyplot: SVG that takes its colours from the page's CSS, or PNG; decimation and ticks.

Reads Matplotlib figures and arrays; writes text and bytes, the same for the same input.
"""

from __future__ import annotations

import io
import re
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_lstm.arrays import FloatArray
from edge_lstm.optional import require
from edge_lstm.reporting.data import ReportData, spans

Axes = Any  # matplotlib.axes.Axes and Figure: Matplotlib is an extra and is imported where it is used
Figure = Any

WIDE, NARROW = 860, 340  # CSS pixels at natural size: a desktop column, a phone's
LEFT, RIGHT, TITLE, BOTTOM = 62, 22, 25, 46  # pixels around the axes
STRETCH = 1.25  # a picture may grow by this where there is room
PNG_SCALE = 1.5

# name: (light, dark).  The light colours mark their places in the SVG, so they must all differ.
PALETTE = {
    "ink": ("#1b2430", "#e8ebf0"),
    "muted": ("#556170", "#a7b1be"),
    "grid": ("#dde2e9", "#343c48"),
    "paper": ("#fdfdfe", "#14181e"),
    "measured": ("#3d4f66", "#b9c6d8"),
    "float": ("#0969b3", "#62b4f7"),
    "int8": ("#b54a07", "#ffa05e"),
    "alarm": ("#bf1730", "#ff7083"),
    "fault": ("#b98a00", "#d8ab2e"),
    "threshold": ("#6b3fa2", "#c6a2f8"),
    "good": ("#1f7a44", "#5fce8d"),
}
_VARIABLES = {light: f"var(--{name})" for name, (light, _) in PALETTE.items()}
_STYLE = {
    "svg.fonttype": "none",
    "font.size": 12,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "text.parse_math": False,
    "text.color": PALETTE["ink"][0],
    "axes.edgecolor": PALETTE["grid"][0],
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.labelcolor": PALETTE["muted"][0],
    "axes.labelsize": 11.5,
    "axes.linewidth": 1,
    "axes.titlelocation": "left",
    "axes.titlesize": 12.5,
    "axes.titlepad": 5,
    "axes.unicode_minus": True,
    "grid.color": PALETTE["grid"][0],
    "grid.linewidth": 0.8,
    "hatch.linewidth": 0.8,
    "xtick.color": PALETTE["grid"][0],
    "ytick.color": PALETTE["grid"][0],
    "xtick.labelcolor": PALETTE["muted"][0],
    "ytick.labelcolor": PALETTE["muted"][0],
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "lines.linewidth": 1,
    "lines.solid_joinstyle": "round",
}


def light(name: str) -> str:
    """The colour that stands for ``name`` in a figure."""
    return PALETTE[name][0]


@contextmanager
def style(salt: str) -> Iterator[None]:
    """Matplotlib's defaults and ours, whatever the user's settings say; put back afterwards.

    salt: the picture's name; it keeps the ids of two pictures in one page apart.
    """
    settings = ["default", {**_STYLE, "svg.hashsalt": salt}]
    with warnings.catch_warnings(), require("matplotlib.style", "data").context(settings):
        # the browser has the glyphs that Matplotlib's font lacks
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of CSS pixels, without a canvas of any window system."""
    return require("matplotlib.figure", "data").Figure(figsize=(width / 72, height / 72), dpi=72)


def new_axes(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes placed by CSS pixels from the figure's top left corner."""
    total_width, total_height = figure.get_size_inches() * 72
    box = (left / total_width, 1 - (top + height) / total_height, width / total_width, height / total_height)
    return figure.add_axes(box)


def to_svg(figure: Figure) -> str:
    """The figure as an ``<svg>`` element for an HTML page: no ids but its own, colours as CSS variables."""
    width, height = np.rint(figure.get_size_inches() * 72).astype(int)
    buffer = io.StringIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    body = buffer.getvalue().split("<svg", 1)[1].split(">", 1)[1]
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r"<[^>]+>", _page_tag, body)
    body = re.sub(r">\s+<", ">\n<", re.sub(r"<defs>\s*</defs>", "", body))
    root = f'<svg viewBox="0 0 {width} {height}" style="max-width:{STRETCH * width:.0f}px"'
    return f'{root} aria-hidden="true" focusable="false">{body.strip()}'


def _page_tag(match: re.Match[str]) -> str:
    """One tag of Matplotlib's SVG with the page's colours and font, and no more digits than can be seen."""
    tag = match.group()
    if tag.startswith("<g "):
        tag = re.sub(r' id="[^"]*"', "", tag)
    tag = re.sub(r"font-family: [^;\"]*;? ?", "", tag)
    tag = re.sub(r"font: ([^;\"]*?px)[^;\"]*", r"font: \1 var(--font)", tag)
    tag = re.sub(r"#[0-9a-f]{6}(?=[;\"])", lambda found: _VARIABLES.get(found.group(), found.group()), tag)
    tag = re.sub(r"-?\d+\.\d{2,}", _short, tag)
    return re.sub(r"\s+", " ", tag)


def _short(match: re.Match[str]) -> str:
    return f"{float(match.group()):.2f}".rstrip("0").rstrip(".")


def to_png(figure: Figure) -> bytes:
    """The figure as PNG, light colours."""
    buffer = io.BytesIO()
    figure.savefig(
        buffer, format="png", dpi=72 * PNG_SCALE, facecolor=light("paper"), metadata={"Software": None}
    )
    return buffer.getvalue()


def decimate(x: FloatArray, y: FloatArray, buckets: int) -> tuple[FloatArray, FloatArray]:
    """A line (steps,) in at most 2 * buckets points that keep every spike: the extremes of each bucket.

    NaN breaks the line where a whole bucket has no sample.
    """
    if len(y) <= 2 * buckets:
        return x, y
    lowest, highest = extremes(y, buckets)
    kept = np.sort(np.stack([lowest, highest], axis=1), axis=1).ravel()
    return x[kept], y[kept]


def extremes(y: FloatArray, buckets: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Rows of the least and of the greatest value in each of at most ``buckets`` parts of y (steps,)."""
    size = -(-len(y) // buckets)
    rows = -(-len(y) // size)
    padded = np.full(rows * size, np.nan)
    padded[: len(y)] = y
    blocks = padded.reshape(rows, size)
    first = size * np.arange(rows)
    lowest = first + np.where(np.isnan(blocks), np.inf, blocks).argmin(axis=1)
    highest = first + np.where(np.isnan(blocks), -np.inf, blocks).argmax(axis=1)
    return lowest, highest


def coarse_spans(mask: npt.NDArray[Any], x: FloatArray, buckets: int) -> list[tuple[float, float]]:
    """Runs of ``mask`` as (start, width) on ``x``, each at least a bucket wide, so that all are seen."""
    size = -(-len(mask) // buckets)
    rows = -(-len(mask) // size)
    padded = np.zeros(rows * size, dtype=np.bool_)
    padded[: len(mask)] = np.asarray(mask) > 0
    edges = np.append(x[::size], x[-1])
    narrowest = (x[-1] - x[0]) / buckets
    return [
        (float(edges[start]), float(max(edges[stop] - edges[start], narrowest)))
        for start, stop in spans(np.asarray(padded.reshape(rows, size).any(axis=1)))
    ]


def x_axis(data: ReportData) -> tuple[FloatArray, str]:
    """Where each row lies on the x axis, and the axis' label: time since the first row, or row numbers."""
    if data.time_s is None or data.time_s[-1] == data.time_s[0]:
        return np.arange(data.steps, dtype=np.float64), "row"
    elapsed = data.time_s - data.time_s[0]
    for unit, seconds, limit in (("s", 1, 300), ("min", 60, 3 * 3600), ("h", 3600, 3 * 86400)):
        if elapsed[-1] <= limit:
            return elapsed / seconds, f"time ({unit})"
    return elapsed / 86400, "time (days)"


def fit(text: str, pixels: float, size: float = 12.5) -> str:
    """A name for a picture: printable, one line, cut with an ellipsis where it would exceed ``pixels``."""
    printable = "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text
    )
    room = pixels / size
    for place, character in enumerate(printable):
        room -= _ems(character)
        if room < 0:
            return printable[: max(place - 1, 0)] + "\N{HORIZONTAL ELLIPSIS}"
    return printable


def _ems(character: str) -> float:
    """A generous width of a character of a sans-serif font, in units of the font size."""
    if character in "mwMW@%" or unicodedata.east_asian_width(character) in "WF":
        return 1.0
    return 0.75 if character.isupper() else 0.64


def tick_text(ticks: Sequence[float]) -> list[str]:
    """Labels of evenly spaced ticks with just the digits that tell them apart.

    >>> tick_text([1013.25, 1013.5])
    ['1,013.25', '1,013.50']
    """
    largest = max(map(abs, ticks), default=0.0)
    step = min(np.diff(sorted(ticks)), default=0.0) or largest or 1.0
    if largest >= 1e6 or largest < 1e-3:
        digits = max(0, int(np.floor(np.log10(largest or 1.0))) - int(np.floor(np.log10(step) + 1e-9)))
        return [
            f"{tick:.{min(digits, 9)}e}".replace("e+0", "e").replace("e-0", "e-") if tick else "0"
            for tick in ticks
        ]
    scaled = next((digits for digits in range(9) if abs(round(step, digits) - step) < 1e-6 * step), 9)
    return [f"{tick:,.{scaled}f}".replace("-", "\N{MINUS SIGN}") for tick in ticks]


def set_ticks(axis: Any, low: float, high: float, count: int, whole: bool = False) -> None:
    """Linear ticks and labels on an axis whose view is low .. high."""
    locator = require("matplotlib.ticker", "data").MaxNLocator(count, steps=[1, 2, 2.5, 5, 10], integer=whole)
    ticks = [float(tick) for tick in locator.tick_values(low, high) if low <= tick <= high]
    axis.set_ticks(ticks, labels=tick_text(ticks))


def set_log_ticks(axis: Any, low: float, high: float) -> None:
    """Ticks at powers of ten, or at 1, 2 and 5 times them where the view has few of those."""
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    ticks = [10.0**power for power in powers if low <= 10.0**power <= high]
    if len(ticks) < 2:
        ticks = [
            step * 10.0**power for power in powers for step in (1, 2, 5) if low <= step * 10.0**power <= high
        ]
    ticks = ticks[:: -(-len(ticks) // 5) or 1]
    axis.set_ticks(ticks, labels=[_power_text(tick) for tick in ticks])
    axis.set_ticks([], minor=True)


def _power_text(tick: float) -> str:
    if 1e-3 <= tick < 1e6:
        return f"{tick:,.0f}" if tick >= 1 else f"{tick:g}"
    return f"{tick:.0e}".replace("e+0", "e").replace("e-0", "e-").replace("e+", "e")


def view(*arrays: FloatArray, below: float = 0.06, above: float = 0.06) -> tuple[float, float]:
    """Limits that hold every finite value with room below and above, as fractions of the range."""
    finite = [array[np.isfinite(array)] for array in arrays]
    joined = np.concatenate([array.ravel() for array in finite]) if finite else np.empty(0)
    if joined.size == 0:
        return 0.0, 1.0
    low, high = float(joined.min()), float(joined.max())
    room = high - low or abs(high) * 0.1 or 1.0
    return low - below * room, high + above * room


def finish(ax: Axes, x: FloatArray, label: str | None, low: float, high: float, width: int) -> None:
    """Limits, ticks and grid; the x axis has labels only where ``label`` is given."""
    last = x[-1] if x[-1] > x[0] else x[0] + 1
    ax.set_xlim(x[0], last)
    ax.set_ylim(low, high)
    ax.grid(axis="y")
    set_ticks(ax.yaxis, low, high, 4)
    set_ticks(ax.xaxis, float(x[0]), float(last), 10 if width > NARROW else 5, whole=label == "row")
    if label is None:
        ax.tick_params(labelbottom=False)
    else:
        ax.set_xlabel(label)
