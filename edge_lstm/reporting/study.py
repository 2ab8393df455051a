"""The page of a study: advice first, then the figures and pictures it rests on; returns text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edge_lstm.analysis.advice import Advice
from edge_lstm.analysis.findings import Findings
from edge_lstm.analysis.forecasts import Forecasts
from edge_lstm.datasets.dataset import Dataset
from edge_lstm.graph import Channel
from edge_lstm.reporting import plots, study_plots, study_tables
from edge_lstm.reporting.canvas import NARROW, WIDE
from edge_lstm.reporting.data import ReportData
from edge_lstm.reporting.layout import Picture, render_template
from edge_lstm.reporting.tables import number

STACKED = 8  # up to so many channels share one wide picture
DRAWN = 12  # channels whose pictures are open; the others unfold
COMPARED = 24  # channels in the picture of forecasts; the table has all


def render_study(
    name: str, dataset: Dataset, findings: Findings, advice: Advice, notes: Sequence[str]
) -> str:
    """The whole page as one HTML text without any outside resource; the same text for the same recording.

    name: of the recording.  Raises MissingTool where Matplotlib is not installed.
    """
    memory = {key: found for key, found in findings.memory.items() if found.acf}
    lags = [
        Picture(f"Autocorrelation and partial autocorrelation of {key}.", study_plots.draw_memory(key, found))
        for key, found in list(memory.items())[:DRAWN]
    ]
    sections: dict[str, Any] = {
        "stream": _stream(name, dataset),
        "steps": _steps(dataset, findings),
        "memory": {"pictures": lags, "undrawn": len(memory) - len(lags)} if lags else None,
        "correlation": _correlation(findings),
        "forecast": None if findings.forecasts is None else _forecast(findings.forecasts),
    }
    titles = {"advice": "Advice", "stream": "Recording", "steps": "Time between rows", "channels": "Channels",
              "memory": "Memory", "correlation": "Redundancy", "forecast": "Forecasts",
              "made": "What was looked at"}  # fmt: skip
    return render_template(
        "study.html.j2", kind="study", name=name, verdict=advice.verdict, tiles=_tiles(findings, advice),
        titles={key: title for key, title in titles.items() if sections.get(key, True)},
        advice=advice, topics=_topics(advice), notes=notes, drawn=DRAWN,
        channels=study_tables.channels_table(findings),
        tests=study_tables.memory_table(findings), pairs=study_tables.pairs_table(findings.redundancy),
        **sections,
    )  # fmt: skip


def stream_data(name: str, dataset: Dataset) -> ReportData:
    """The recording as the pictures of the report take it."""
    channels = [Channel(channel, unit) for channel, unit in zip(dataset.names, dataset.units, strict=True)]
    return ReportData(name, channels, dataset.values, time_s=dataset.time_s if dataset.period_s else None,
                      label=dataset.label)  # fmt: skip


def _stream(name: str, dataset: Dataset) -> dict[str, Any]:
    data = stream_data(name, dataset)
    everything = range(dataset.channels)
    if dataset.channels <= STACKED:
        alt = f"Line chart of {', '.join(dataset.names)} over {dataset.rows:,} rows."
        pictures = [
            _two_sizes(alt, *(plots.draw_stream(data, everything, width) for width in (NARROW, WIDE)))
        ]
    else:
        pictures = [
            Picture(f"Line chart of {dataset.names[place]}.", plots.draw_stream(data, [place], NARROW))
            for place in everything
        ]
    return {"pictures": pictures, "wide": dataset.channels <= STACKED, "labelled": bool(_any(dataset.label))}


def _any(label: Any) -> bool:
    return label is not None and bool(label.any())


def _two_sizes(alt: str, narrow: str, wide: str) -> Picture:
    return Picture(alt, narrow, wide)


def _steps(dataset: Dataset, findings: Findings) -> Picture | None:
    """Drawn where the steps are not all alike."""
    if not (findings.clock.irregular or findings.clock.gaps) or not dataset.period_s:
        return None
    steps = np.diff(dataset.time_s)
    alt = f"Histogram of {len(steps):,} times between rows, {steps.min():g} to {steps.max():g} s."
    return _two_sizes(alt, *(study_plots.draw_steps(steps, width) for width in (NARROW, WIDE)))


def _correlation(findings: Findings) -> Picture | None:
    if len(findings.redundancy.names) < 2:
        return None
    alt = f"Correlation matrix of {len(findings.redundancy.names)} channels; strongest pairs in the table."
    draw = study_plots.draw_correlation
    return _two_sizes(alt, *(draw(findings.redundancy, width) for width in (NARROW, WIDE)))


def _forecast(forecasts: Forecasts) -> dict[str, Any]:
    channels = list(forecasts.error)
    alt = "R2 of each method by channel; the table has the figures."
    shown = channels[:COMPARED]
    draw = study_plots.draw_forecasts
    return {
        "picture": _two_sizes(alt, *(draw(forecasts, shown, width) for width in (NARROW, WIDE))),
        "table": study_tables.forecast_table(forecasts),
        "undrawn": len(channels) - len(shown),
        "rows": forecasts.rows,
        "methods": [(name, colour) for name, colour, _ in study_plots.METHODS if name in forecasts.r2],
    }


def _topics(advice: Advice) -> list[tuple[str, str]]:
    """The sentences, each topic named once."""
    before = ["", *(topic for topic, _ in advice.sentences)]
    return [
        (topic if topic != last else "", text)
        for last, (topic, text) in zip(before, advice.sentences, strict=False)
    ]


def _tiles(findings: Findings, advice: Advice) -> list[tuple[str, str, str]]:
    """(what, figure, remark) of the figures that matter most."""
    clock, worst = findings.clock, max(channel.missing for channel in findings.channels)
    rate = "not known" if clock.rate_hz is None else f"{clock.rate_hz:.4g} Hz"
    tiles = [
        ("Rows", number(clock.rows), f"{len(findings.channels)} channels, {len(findings.used)} to use"),
        ("Rate", rate, f"{number(clock.irregular)} irregular steps, {number(clock.gaps)} gaps"),
        ("Missing", f"{worst:.2%}", "of the worst channel"),
    ]
    if advice.r2 is not None:
        more = "" if advice.r2[1] < advice.r2[0] + 0.0005 else f"; {advice.r2[1]:.3f} with trees beside it"
        tiles.append(("R2 to expect", f"{advice.r2[0]:.3f}", f"of a line{more}"))
    return tiles
