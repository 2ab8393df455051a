"""Pictures of the model: ranges, memory, instructions, training; figures in, an SVG element as text out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edge_lstm.reporting import canvas
from edge_lstm.reporting.canvas import BOTTOM, LEFT, NARROW, RIGHT, TITLE, Axes, light
from edge_lstm.reporting.data import CoreCost, TensorRange


def draw_ranges(tensors: Sequence[TensorRange], width: int) -> str:
    """Per tensor: the seen range inside the range that its codes reach, and its signal-to-noise ratio."""
    row = 36
    height = 40 + row * len(tensors) + BOTTOM
    split = int((width - 40) * 0.62)
    with canvas.style(f"ranges {width}"):
        figure = canvas.new_figure(width, height)
        ranges = canvas.new_axes(figure, 10, 40, split - 10, row * len(tensors))
        noise = canvas.new_axes(figure, split + 30, 40, width - split - 30 - 44, row * len(tensors))
        for index, tensor in enumerate(tensors):
            _range_row(ranges, index, tensor, split - 30)
            _noise_row(noise, index, tensor)
        for ax, title in ((ranges, "share of the code's range"), (noise, "SNR (dB)")):
            ax.set_title(title, color=light("muted"))
            ax.set_ylim(len(tensors) - 0.3, -0.7)
            ax.set_yticks([])
            ax.spines["left"].set_visible(False)
            ax.grid(axis="x")
        ranges.set_xlim(-5, 105)
        ranges.set_xticks([0, 50, 100], labels=["lowest", "50 %", "highest"])
        loudest = max((_known_snr(tensor) or 0.0 for tensor in tensors), default=0.0)
        noise.set_xlim(0, max(loudest, 10.0))
        canvas.set_ticks(noise.xaxis, 0, max(loudest, 10.0), 4 if width > NARROW else 2)
        return canvas.to_svg(figure)


def _range_row(ax: Axes, index: int, tensor: TensorRange, room: float) -> None:
    """An outline for what the codes reach, a bar for what was seen, a tick at zero, a cross where clipped."""
    reach = tensor.representable_high - tensor.representable_low
    low, high, zero = (
        100 * (value - tensor.representable_low) / reach for value in (tensor.low, tensor.high, 0.0)
    )
    seen_low, seen_high = max(low, -3.0), min(high, 103.0)
    ax.text(0, index - 0.34, canvas.fit(tensor.name, room, 11), fontsize=11, va="center")
    ax.barh(index + 0.12, 100, height=0.36, color=light("grid"), edgecolor=light("muted"), linewidth=0.8)
    ax.barh(index + 0.12, max(seen_high - seen_low, 0.5), left=seen_low, height=0.36, color=light("float"))
    if 0 <= zero <= 100:
        ax.plot([zero, zero], [index - 0.1, index + 0.34], color=light("ink"), linewidth=1.4)
    if tensor.saturated:
        ax.plot(103.5, index + 0.12, marker="X", markersize=8, color=light("alarm"), linestyle="none",
                markeredgecolor=light("paper"), clip_on=False)  # fmt: skip


def _noise_row(ax: Axes, index: int, tensor: TensorRange) -> None:
    ratio = _known_snr(tensor)
    if ratio is None:
        text = " no loss" if tensor.snr_db == np.inf else " not measured"
        ax.text(0, index + 0.12, text, va="center", fontsize=11, color=light("muted"))
        return
    ax.barh(index + 0.12, max(ratio, 0.0), height=0.36, color=light("good"))
    ax.annotate(
        f"{ratio:.1f}", (max(ratio, 0.0), index + 0.12), (4, 0), fontsize=11, textcoords="offset points",
        va="center", annotation_clip=False,
    )  # fmt: skip


def _known_snr(tensor: TensorRange) -> float | None:
    """The ratio as a bar can show it; None where it was not measured or nothing was lost."""
    return tensor.snr_db if tensor.snr_db is not None and np.isfinite(tensor.snr_db) else None


def draw_memory(cores: Sequence[CoreCost], width: int) -> str:
    """Flash as code, tables and weights; RAM as state and stack; one bar a core."""
    flash = [("code", "float", ""), ("table", "threshold", "////"), ("weight", "good", "....")]
    ram = [("ram", "int8", ""), ("stack", "fault", "////")]
    row, beside = 40, width > NARROW
    height = 40 + row * len(cores)
    half = width // 2 if beside else width
    with canvas.style(f"memory {width}"):
        figure = canvas.new_figure(width, height + 2 if beside else 2 * height + 2)
        for column, (title, parts) in enumerate((("Flash", flash), ("RAM", ram))):
            left, top = (column * half, 0) if beside else (0, column * height)
            ax = canvas.new_axes(figure, left + 6, top + 34, half - 12 - 70, row * len(cores))
            ax.set_title(f"{title} (bytes)")
            _stacks(ax, cores, parts, half - 12)
        return canvas.to_svg(figure)


def _stacks(ax: Axes, cores: Sequence[CoreCost], parts: list[tuple[str, str, str]], room: float) -> None:
    totals = []
    for index, core in enumerate(cores):
        left = 0
        for part, colour, hatch in parts:
            size = getattr(core, f"{part}_bytes")
            ax.barh(index + 0.14, size, left=left, height=0.42, color=light(colour), hatch=hatch,
                    edgecolor=light("paper"), linewidth=0.8)  # fmt: skip
            left += size
        totals.append(left)
        ax.text(0, index - 0.28, canvas.fit(core.core, room, 11), fontsize=11, va="center")
        ax.annotate(f"{left:,}", (left, index + 0.14), (5, 0), textcoords="offset points", va="center")
    _bar_axes(ax, len(cores), max(totals, default=1))


def _bar_axes(ax: Axes, rows: int, longest: float) -> None:
    ax.set_ylim(rows - 0.4, -0.6)
    ax.set_xlim(0, max(longest, 1))
    ax.set_xticks([])
    ax.set_yticks([])
    for side in ("bottom", "left"):
        ax.spines[side].set_visible(False)


def draw_instructions(cores: Sequence[CoreCost], width: int) -> str:
    """Instructions a step: a bar to the mean, a whisker from the least to the most."""
    row = 40
    with canvas.style(f"instructions {width}"):
        figure = canvas.new_figure(width, 8 + row * len(cores) + 6)
        ax = canvas.new_axes(figure, 6, 8, width - 12 - 150, row * len(cores))
        for index, core in enumerate(cores):
            mean, least, most = (float(core.instructions_per_step[key]) for key in ("mean", "min", "max"))
            ax.barh(index + 0.14, mean, height=0.42, color=light("float"))
            ax.errorbar(mean, index + 0.14, xerr=[[max(mean - least, 0)], [max(most - mean, 0)]],
                        color=light("ink"), capsize=4, linewidth=1.4)  # fmt: skip
            ax.text(0, index - 0.28, canvas.fit(core.core, width - 12, 11), fontsize=11, va="center")
            ax.annotate(f"{mean:,.0f}\n{least:,.0f} to {most:,.0f}", (max(mean, most), index + 0.14), (9, 0),
                        textcoords="offset points", va="center", fontsize=11)  # fmt: skip
        longest = max((float(core.instructions_per_step["max"]) for core in cores), default=1.0)
        _bar_axes(ax, len(cores), longest)
        return canvas.to_svg(figure)


def draw_history(name: str, curves: Mapping[str, Sequence[float]]) -> str:
    """One quantity by epoch: training solid, validation dashed."""
    arrays = {key: np.asarray(values, dtype=np.float64) for key, values in curves.items()}
    with canvas.style(f"history {name}"):
        figure = canvas.new_figure(NARROW, TITLE + 130 + BOTTOM)
        ax = canvas.new_axes(figure, LEFT, TITLE, NARROW - LEFT - RIGHT, 130)
        ax.set_title(canvas.fit(name, NARROW - LEFT))
        for key, values in arrays.items():
            colour, dashes = ("int8", (0, (3, 1.5))) if key.startswith("val_") else ("float", "-")
            ax.plot(np.arange(1, len(values) + 1), values, color=light(colour), linestyle=dashes,
                    marker="." if len(values) < 30 else None)  # fmt: skip
        epochs = np.arange(1, max(map(len, arrays.values())) + 1, dtype=np.float64)
        finite = np.concatenate([values[np.isfinite(values)] for values in arrays.values()])
        canvas.finish(ax, epochs, "epoch", *canvas.view(finite), NARROW)
        canvas.set_ticks(ax.xaxis, 1.0, max(float(epochs[-1]), 2.0), 5, whole=True)
        if finite.size and finite.min() > 0 and finite.max() > 10 * finite.min():
            low, high = float(finite.min()) / 1.2, float(finite.max()) * 1.2
            ax.set_yscale("log")
            ax.set_ylim(low, high)
            canvas.set_log_ticks(ax.yaxis, low, high)
        return canvas.to_svg(figure)
