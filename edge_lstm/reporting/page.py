"""The HTML page: lays out pictures and tables of a ``ReportData``; returns text, touches no file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from edge_lstm.reporting import bars, plots, tables
from edge_lstm.reporting.canvas import NARROW, WIDE
from edge_lstm.reporting.data import ReportData, alarm_spans, ranked, verdict
from edge_lstm.reporting.layout import Picture, render_template
from edge_lstm.reporting.tables import number

STACKED = 8  # up to so many channels share one wide picture; more become a grid of small ones
DRAWN = 12  # channels whose forecasts and residuals are drawn; the table has all
EVENTS_OPEN, EVENTS_LISTED = 20, 500


def render(data: ReportData) -> str:
    """The whole page as one HTML text without any outside resource; the same text for the same data.

    Raises MissingTool where Matplotlib is not installed.
    """
    sections = {
        "quality": tables.quality_table(data),
        "stream": _stream(data),
        "score": _score(data),
        "events": _events(data),
        "forecast": _forecast(data),
        "residuals": _residuals(data),
        "ranges": _ranges(data),
        "memory": _memory(data),
        "instructions": _instructions(data),
        "agreement": tables.agreement_table(data),
        "training": training_section(data),
    }
    titles = {key: title for key, title in TITLES.items() if sections[key] is not None}
    return render_template(
        "report.html.j2", kind="report", name=data.name, verdict=verdict(data), tiles=_tiles(data),
        made=_flat(data.made), notes=data.notes, labelled=data.label is not None and bool(data.label.any()),
        absent=[title for key, title in TITLES.items() if sections[key] is None],
        titles={**titles, "made": "How it was made"}, **sections,
    )  # fmt: skip


TITLES = {
    "quality": "Quality",
    "stream": "Sensor stream",
    "score": "Anomaly score",
    "events": "Alarms",
    "forecast": "Forecast: float against int8",
    "residuals": "Residuals",
    "ranges": "Quantization ranges",
    "memory": "Memory",
    "instructions": "Instructions per step",
    "agreement": "Agreement of the executors",
    "training": "Training",
}


def _two_sizes(alt: str, draw: Callable[[int], str]) -> Picture:
    return Picture(alt, draw(NARROW), draw(WIDE))


def _tiles(data: ReportData) -> list[tuple[str, str, str]]:
    """(what, figure, remark) of the figures that matter most."""
    tiles = []
    if data.agreement:
        codes = sum(row.codes for row in data.agreement)
        tiles.append(("Differing codes", number(sum(row.differing for row in data.agreement)),
                      f"of {codes:,} on {', '.join(row.executor for row in data.agreement)}"))  # fmt: skip
    for core in data.cores[:1]:
        memory = core.ram_bytes + core.stack_bytes
        tiles += [
            ("Flash", f"{core.flash_bytes:,} B", f"on {core.core}, weights {core.weight_bytes:,} B"),
            ("RAM", f"{memory:,} B", f"on {core.core}, stack {core.stack_bytes:,} B"),
            ("Instructions per step", number(core.instructions_per_step["mean"]), f"on {core.core}, mean"),
        ]
    if data.detection_int8 is not None or data.events:
        tiles.append(("Alarms", number(len(alarm_spans(data))), f"in {data.steps:,} rows"))
    return tiles


def _stream(data: ReportData) -> dict[str, Any]:
    """Pictures of all channels, the ones that alarms point at first where they are many."""
    names = [channel.name for channel in data.channels]
    if len(names) <= STACKED:
        everything = range(len(names))
        alt = f"Line chart of {', '.join(names)} over {data.steps:,} rows."
        pictures = [_two_sizes(alt, lambda width: plots.draw_stream(data, everything, width))]
    else:
        pictures = [
            Picture(f"Line chart of {names[channel]}.", plots.draw_stream(data, [channel], NARROW))
            for channel in ranked(data)
        ]
    missing = np.isnan(data.values).sum(axis=0)
    gaps = [
        f"{name}: {number(count)} of {data.steps:,} samples missing"
        for name, count in zip(names, missing, strict=True)
        if count
    ]
    shown = len(pictures) if len(names) <= STACKED else DRAWN
    return {
        "open": pictures[:shown],
        "more": pictures[shown:],
        "gaps": gaps,
        "alarms": data.detection_int8 is not None and bool((data.detection_int8.alarm > 0).any()),
    }


def _score(data: ReportData) -> dict[str, Any] | None:
    traces = (data.detection_int8, data.detection_float)
    if traces == (None, None):
        return None
    count = len(alarm_spans(data))
    alt = f"Line chart of the anomaly score and its threshold over {data.steps:,} rows, {count:,} alarms."
    picture = _two_sizes(alt, lambda width: plots.draw_score(data, width))
    return {
        "picture": picture,
        "int8": data.detection_int8 is not None,
        "float": data.detection_float is not None,
        "alarms": any(trace is not None and bool((trace.alarm > 0).any()) for trace in traces),
        "dense": data.steps > NARROW,
    }


def _events(data: ReportData) -> dict[str, Any] | None:
    if data.detection_int8 is None and not data.events:
        return None
    return {
        "table": tables.events_table(data, 0, EVENTS_OPEN),
        "more": tables.events_table(data, EVENTS_OPEN, EVENTS_LISTED),
        "unlisted": max(len(data.events) - EVENTS_LISTED, 0),
        "count": len(alarm_spans(data)),
    }


def _forecast(data: ReportData) -> dict[str, Any] | None:
    if data.forecast_float is None and data.forecast_int8 is None:
        return None
    window = plots.worst_window(data)
    drawn = sorted(ranked(data)[:DRAWN])
    rows = f"rows {window[0]:,} to {window[1]:,}"
    pictures = [
        Picture(
            f"Line chart of {data.channels[channel].name} and its forecasts, {rows}.",
            plots.draw_forecast(data, channel, window),
        )
        for channel in drawn
    ]
    return {
        "pictures": pictures, "window": window, "table": tables.forecast_table(data), "drawn": len(drawn),
        "channels": len(data.channels), "float": data.forecast_float is not None,
        "int8": data.forecast_int8 is not None,
    }  # fmt: skip


def _residuals(data: ReportData) -> dict[str, Any] | None:
    if data.forecast_float is None and data.forecast_int8 is None:
        return None
    drawn = sorted(ranked(data)[:DRAWN])
    pictures = [
        Picture(
            f"Histogram of the residuals of {data.channels[channel].name}.",
            plots.draw_residuals(data, channel),
        )
        for channel in drawn
    ]
    return {"pictures": pictures, "drawn": len(drawn), "channels": len(data.channels),
            "float": data.forecast_float is not None, "int8": data.forecast_int8 is not None}  # fmt: skip


def _ranges(data: ReportData) -> dict[str, Any] | None:
    if not data.tensors:
        return None
    alt = (
        f"Bars of the ranges and signal-to-noise ratios of {len(data.tensors)} tensors; figures in the table."
    )
    picture = _two_sizes(alt, lambda width: bars.draw_ranges(data.tensors, width))
    return {"picture": picture, "table": tables.ranges_table(data)}


def _memory(data: ReportData) -> dict[str, Any] | None:
    if not data.cores:
        return None
    alt = f"Stacked bars of flash and RAM on {_core_names(data)}; the table has the figures."
    picture = _two_sizes(alt, lambda width: bars.draw_memory(data.cores, width))
    return {"picture": picture, "table": tables.memory_table(data)}


def _instructions(data: ReportData) -> dict[str, Any] | None:
    if not data.cores:
        return None
    alt = f"Bars of instructions per step on {_core_names(data)}; the table has the figures."
    picture = _two_sizes(alt, lambda width: bars.draw_instructions(data.cores, width))
    return {"picture": picture, "table": tables.instructions_table(data)}


def _core_names(data: ReportData) -> str:
    return ", ".join(core.core for core in data.cores)


def training_section(data: ReportData) -> dict[str, Any] | None:
    """A picture for each quantity of the history that has a finite value, with its validation curve."""
    groups: dict[str, dict[str, Sequence[float]]] = {}
    for key, values in data.history.items():
        if np.isfinite(np.asarray(values, dtype=np.float64)).any():
            groups.setdefault(key.removeprefix("val_"), {})[key] = values
    pictures = [
        Picture(f"Line chart of {name} by epoch.", bars.draw_history(name, curves))
        for name, curves in groups.items()
    ]
    checked = any(key.startswith("val_") for curves in groups.values() for key in curves)
    return {"pictures": pictures, "validation": checked} if pictures else None


def _flat(made: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested mappings as (dotted name, text) pairs."""
    pairs: list[tuple[str, str]] = []
    for key, value in made.items():
        if isinstance(value, Mapping):
            pairs += _flat(value, f"{prefix}{key}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
            pairs.append((f"{prefix}{key}", text))
    return pairs
